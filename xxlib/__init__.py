"""xxlib: what a material is and does, from its composition and its powder X-ray pattern."""

from pathlib import Path

# The kit is used from its checkout (pip install -e .): relative paths of datasets, runs and figures start here,
# wherever a notebook's kernel happens to have its working directory.
PROJECT = Path(__file__).resolve().parents[1]
