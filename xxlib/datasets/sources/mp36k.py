"""mp36k made again from the public files that it was made of.

Crystals: the Materials Project's, as CIF files of github.com/kdmsit/MEGNet.  Labels: the MEGNet release of 2018.6.1, of
github.com/usnistgov/jarvis_leaderboard (that first repository's own band gaps are partly wrong and not used).  Split:
mp36k_split.csv.gz beside this module, by reduced formula.
"""

import csv
import gzip
import io
import json
import zipfile
import zlib
from functools import partial
from pathlib import Path

from xxlib.crystals.cif import crystal_from_cif_bytes
from xxlib.crystals.crystal import MAX_FILE_BYTES, RejectedCrystal
from xxlib.datasets.sources import Record, Source, check_file, read_labels, refused

COMMIT = "4f3c76c6b99edcb41d52ae5e8ae9dc89956d33d1"
CRYSTALS = f"https://github.com/kdmsit/MEGNet/archive/{COMMIT}.zip"
LEADERBOARD = "https://raw.githubusercontent.com/usnistgov/jarvis_leaderboard/main/jarvis_leaderboard/benchmarks/AI/"
LABELS = {
    "e_form": LEADERBOARD + "SinglePropertyPrediction/megnet_e_form.json.zip",
    "band_gap": LEADERBOARD + "SinglePropertyPrediction/megnet_gappbe.json.zip",
}
INDEX = "data/material_id_hash.csv"
SPLIT = Path(__file__).with_name("mp36k_split.csv.gz")


def mp36k(folder):
    """Source of the crystals of mp36k from a folder with the three public files, under any sub-folder.

    The archive of the crystals (CRYSTALS, any name ending in .zip) is read as it is or unpacked, the labels are
    megnet_e_form.json.zip and megnet_gappbe.json.zip (LABELS).  A crystal without label or split is refused.
    Raises ValueError where a file is missing or not what it should be.
    """
    folder = Path(folder)
    tree = tree_with(folder, INDEX, CRYSTALS)
    labels = {name: _labels(folder, url) for name, url in LABELS.items()}
    index = _index(tree)
    metadata = {
        "kind": "mp36k",
        "name": "mp36k",
        "version": f"MEGNet 2018.6.1, crystals at {COMMIT[:12]}",
        "licence": "CC BY 4.0; cite Jain et al., APL Mater. 1, 011002 (2013), "
        "and Chen et al., Chem. Mater. 31, 3564 (2019)",
        "url": CRYSTALS,
        "functional": "PBE",
        "labels": {"e_form": f"{LABELS['e_form']}, eV/atom", "band_gap": f"{LABELS['band_gap']}, PBE, eV"},
        "split": SPLIT.name,
    }
    return Source(metadata, partial(_records, tree, index, labels), len(index))


def split_table():
    """Split of every crystal of mp36k: {mp_id: "train", "val", "test" or "experimental"}."""
    with gzip.open(SPLIT, "rt", newline="") as file:
        return {row["mp_id"]: row["split"] for row in csv.DictReader(file)}


def tree_with(folder, member, url):
    """What holds a file, "data/material_id_hash.csv": a zipfile.Path in an archive anywhere in a folder, or a folder.

    Raises ValueError with the url of the archive where nothing does.
    """
    for path in sorted(folder.rglob(member)):
        return path.parents[1]
    for path in sorted(folder.rglob("*.zip")):
        if path.is_file() and zipfile.is_zipfile(path):
            archive = zipfile.ZipFile(path)
            for name in archive.namelist():
                if name.endswith("/" + member):
                    return zipfile.Path(archive, name.removesuffix(member))
    raise ValueError(f"{folder} holds no archive with {member}: it is {url}")


def _labels(folder, url):
    """{mp_id: label, a string} of a file of the leaderboard."""
    name = url.rsplit("/", 1)[-1]
    path = next(iter(sorted(folder.rglob(name))), None)
    if path is None:
        raise ValueError(f"{folder} holds no {name}: it is {url}")
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            parts = json.loads(archive.read(name.removesuffix(".zip")))
        return {mp_id: label for part in ("train", "val", "test") for mp_id, label in parts.get(part, {}).items()}
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, AttributeError) as error:
        raise ValueError(f'{path} holds no labels {{"train": {{"mp-1": "0.1", ...}}, ...}}: {error}') from error


def _index(tree):
    """[(number of the CIF file, mp_id), ...]"""
    try:
        rows = list(csv.reader(io.StringIO((tree / "data" / "material_id_hash.csv").read_text())))
    except (OSError, ValueError, csv.Error, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{tree}: {INDEX} cannot be read: {error}") from error
    bad = next((i for i, row in enumerate(rows) if len(row) != 2 or not row[0].isdigit()), None)
    if bad is not None:
        raise ValueError(f"{tree}: {INDEX}, line {bad + 1}: {rows[bad]} is no number and mp_id")
    return rows


def _records(tree, index, labels):
    splits = split_table()
    for number, mp_id in index:
        file = tree / "data" / f"{number}.cif"
        place = f"data/{number}.cif"
        try:
            if mp_id not in splits:
                raise RejectedCrystal("in no split of mp36k")
            columns = read_labels(**{name: values.get(mp_id) for name, values in labels.items()})
            missing = [name for name in labels if name not in columns]
            if missing:
                raise RejectedCrystal(f"no {' and no '.join(missing)} in the MEGNet release")
            if file.exists() and not file.is_file():
                raise RejectedCrystal("cannot be read: a folder, pipe or device")
            with file.open("rb") as opened:
                data = opened.read(MAX_FILE_BYTES + 1)
        except (RejectedCrystal, OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            yield refused(mp_id, place, str(error) or type(error).__name__)
        else:
            yield Record(mp_id, place, data, _read, columns | {"split": splits[mp_id]})


def _read(id, data):
    return crystal_from_cif_bytes(data, id)
