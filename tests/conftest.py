"""What several test files need."""

import signal
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1] / "../shared/data"


def pytest_configure():
    # Interruptions are tested, and a shell that runs the tests in the background has them ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the shared data (mp36k, measured, formats); tests that need it are skipped where it is absent."""
    if not (SHARED / "mp36k" / "crystals.parquet").is_file():
        pytest.skip(f"the shared data are not at {SHARED}")
    return SHARED.resolve()
