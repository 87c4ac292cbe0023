"""xxlib: what a material is and does, from its composition and its powder X-ray pattern."""

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

__version__ = "0.2.0"

# Relative paths of datasets, runs and figures start here: at the checkout, wherever a notebook's kernel happens to have
# its working directory; where the package was installed from a wheel, at the working directory.
PACKAGE = Path(__file__).resolve().parent
KEPT = 7 * 86400  # seconds that compiled functions of another state of the source are kept
PROJECT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else Path.cwd()


def _compiled():
    """Folder of the compiled functions of this state of the source.

    numba compiles a function anew when its own file changes, not when a function that it calls does, in another file:
    after an update it would go on with the old one.
    """
    sources = sorted(
        path for room in ("crystals", "diffraction", "candidates") for path in (PACKAGE / room).glob("*.py")
    )
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    return PACKAGE / "__pycache__" / f"numba-{hashlib.sha1(repr(stats).encode()).hexdigest()[:12]}"


# One that is given stays; one that this code set in a process before it, of other source maybe, does not.
if Path(os.environ.get("NUMBA_CACHE_DIR", "numba-")).name.startswith("numba-") and os.access(PACKAGE, os.W_OK):
    folder = _compiled()
    if not folder.exists():  # a new state, once: those that nobody has used for long go, 20 MB each
        for other in folder.parent.glob("numba-*"):
            if time.time() - other.stat().st_mtime > KEPT:
                shutil.rmtree(other, ignore_errors=True)
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]
