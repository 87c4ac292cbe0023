"""Crystals of a folder of files."""

from functools import partial
from pathlib import Path

from xxlib.datasets.sources import Record, Source
from xxlib.inputs.cif import crystal_from_cif


def cif_folder(folder):
    """Source of the CIF files of a folder and its sub-folders; ids are the paths within it."""
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".cif")
    if not paths:
        raise ValueError(f"{folder} holds no .cif file")
    return Source({"kind": "cif", "name": folder.name}, partial(_records, folder, paths), len(paths))


def _records(folder, paths):
    for path in paths:
        place = str(path.relative_to(folder))
        yield Record(place, place, path, _read_cif)


def _read_cif(id, path):
    return crystal_from_cif(path, id)
