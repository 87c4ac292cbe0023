"""xxlib: what a material is and does, from its composition and its powder X-ray pattern."""

from pathlib import Path

__version__ = "0.2.0"

# Relative paths of datasets, runs and figures start here: at the checkout, wherever a notebook's kernel happens to have
# its working directory; where the package was installed from a wheel, at the working directory.
PACKAGE = Path(__file__).resolve().parent
PROJECT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else Path.cwd()
