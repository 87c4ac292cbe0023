"""Crystals of files of one's own: folders of CIF or POSCAR files, an extended XYZ file."""

from functools import partial
from pathlib import Path

from xxlib.crystals import extxyz
from xxlib.crystals.cif import crystal_from_cif
from xxlib.crystals.poscar import crystal_from_poscar
from xxlib.datasets.sources import Record, Source, check_file, refused


def cif_folder(folder):
    """Source of the CIF files of a folder and its sub-folders; ids are the paths within it."""
    return _folder(folder, "cif", lambda path: path.name.lower().endswith(".cif"), ".cif file", _read_cif)


def poscar_folder(folder):
    """Source of the VASP structures of a folder and its sub-folders; ids are the paths within it.

    Their names begin with POSCAR or CONTCAR or end with .vasp or .poscar.
    """
    names = "file POSCAR*, CONTCAR*, *.vasp or *.poscar"
    return _folder(folder, "poscar", _is_poscar, names, _read_poscar)


def extxyz_file(path):
    """Source of the frames of an extended XYZ file; energies and forces in it are not read."""
    path = Path(path)
    check_file(path)
    return Source({"kind": "extxyz", "name": path.name, "labels": {}}, partial(_frames, path))


def _folder(folder, kind, fits, names, read):
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if fits(path))
    if not paths:
        raise ValueError(f"{folder} holds no {names}")
    metadata = {"kind": kind, "name": folder.resolve().name, "labels": {}}
    return Source(metadata, partial(_records, folder, paths, read), len(paths))


def _is_poscar(path):
    name = path.name.lower()
    return not path.is_dir() and (name.startswith(("poscar", "contcar")) or name.endswith((".vasp", ".poscar")))


def _records(folder, paths, read):
    for path in paths:
        place = str(path.relative_to(folder))
        yield Record(place, place, path, read)


def _frames(path):
    number = 0
    with open(path, "rb") as file:
        for number, frame in enumerate(extxyz.frames(file), start=1):
            place = f"{path.name} frame {number}"
            if frame is None:
                yield refused(place, place, f"more than {extxyz.MAX_FRAME / 1e6:g} MB for one frame")
            else:
                yield Record(f"{path.stem}-{number}", place, frame, _read_extxyz)
    if number == 0:
        yield refused(path.name, path.name, "an empty file")


def _read_cif(id, path):
    return crystal_from_cif(path, id)


def _read_poscar(id, path):
    return crystal_from_poscar(path, id)


def _read_extxyz(id, frame):
    return extxyz.crystal_from_extxyz(frame, id)
