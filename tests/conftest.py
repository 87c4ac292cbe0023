"""What several test files need."""

import dataclasses
import signal
import sys
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1] / "../shared/data"
sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))  # the study, as a notebook imports it


def pytest_configure():
    # Interruptions are tested, and a shell that runs the tests in the background has them ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the shared data (mp36k, measured, formats); tests that need it are skipped where it is absent."""
    if not (SHARED / "mp36k" / "crystals.parquet").is_file():
        pytest.skip(f"the shared data are not at {SHARED}")
    return SHARED.resolve()


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """Trains a small model on the embedded dataset: changes of the preset `smoke` -> run folder."""
    from xxlib.training.presets import PRESETS
    from xxlib.training.run import train

    def trained(name, **changes):
        folder = tmp_path_factory.mktemp(name)
        config = PRESETS["smoke"].but(name=folder.name, n_threads=1, **changes)
        config.save(folder / "run.json")
        train(config, folder)
        return folder

    return trained


@pytest.fixture(scope="session")
def answering_run(trained_run):
    """Folder of a finished run on the embedded dataset: a small model that reads scans, after a few steps."""
    values = {"targets": ("e_form", "crystal_system"), "effects": "laboratory", "absent_rate": 0.2}
    return trained_run("answering", n_steps=60, **values)


@pytest.fixture(scope="session")
def checkpoint(answering_run, trained_run, tmp_path_factory):
    """Folder of a released checkpoint: the run above, and one that was pretrained to guess hidden tokens."""
    from xxlib.release import release

    reconstructing = trained_run("reconstructing", targets=(), masked=("xrd",), n_steps=10)
    folder = tmp_path_factory.mktemp("checkpoints") / "demo"
    release([answering_run], folder, reconstructing=reconstructing, n_training=300)
    return folder


@pytest.fixture(scope="session")
def rock_salts(tmp_path_factory):
    """240 crystals of 12 formulas, whose formation energy follows the anion; those of rubidium are tetragonal."""
    from test_datasets import rock_salt

    from xxlib.datasets.sources import Source, parsed
    from xxlib.datasets.store import Dataset
    from xxlib.prepare import prepare

    folder, crystals = tmp_path_factory.mktemp("data") / "rock-salts", []
    for i in range(240):  # boosting wants 20 crystals in a leaf
        first, second = (3, 11, 19, 37)[i % 4], (9, 17, 35)[i % 3]
        labels = {"e_form": -0.1 * second, "split": ("train", "train", "val", "test")[i // 12 % 4]}
        crystal = rock_salt(4.0 + 0.005 * i, first, second, f"rs-{i}")
        if first == 37:
            crystal = dataclasses.replace(crystal, lattice=crystal.lattice * [1, 1, 1.2])
        crystals.append(parsed(crystal, "here", **labels))
    prepare(Source({"name": "rock salts"}, lambda: iter(crystals)), folder, progress=False)
    return Dataset(folder)
