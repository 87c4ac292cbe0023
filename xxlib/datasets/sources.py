"""Where crystals come from: each source yields Entry after Entry, the bad ones with their reason."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from xxlib.inputs import patterns, prototypes
from xxlib.inputs.cif import crystal_from_cif
from xxlib.inputs.compositions import composition_of_crystal, reduced_formula
from xxlib.inputs.crystals import Crystal, RejectedCrystal, check, lattice_from_cell, space_group
from xxlib.inputs.diffraction import sticks

LABELS = ("e_form", "band_gap")
SAME_PATTERN = 0.95  # cosine similarity of two patterns above which crystals of one formula and space group are one
COARSE_SIGMA, COARSE_STEP = 0.5, 25  # degree, grid points: patterns in which a shift by 0.1 degree hardly shows


@dataclass(frozen=True)
class Entry:
    """One crystal as its source has it, or why it could not be read."""

    id: str
    source: str  # file, and row where there is one
    crystal: Crystal | None
    reason: str = ""  # of the rejection, where crystal is None
    known: dict = field(default_factory=dict)  # labels, space_group, formula, split, as far as the source has them


def parquet_length(path):
    return pq.ParquetFile(path).metadata.num_rows


def parquet_crystals(path) -> Iterator[Entry]:
    """Crystals of a parquet file with columns mp_id (or id), a b c (angstrom), alpha beta gamma (degree),
    atomic_numbers, frac_coords (3n, flat) and any of e_form, band_gap, space_group, reduced_formula, split.

    Nulls and NaN are missing labels.
    """
    path = Path(path)
    file = pq.ParquetFile(path)
    names = file.schema_arrow.names
    id_name = "mp_id" if "mp_id" in names else "id"
    needed = [id_name, "a", "b", "c", "alpha", "beta", "gamma", "atomic_numbers", "frac_coords"]
    missing = [name for name in needed if name not in names]
    if missing:
        raise ValueError(f"{path} is no file of crystals: it has no column {', '.join(missing)}")
    optional = {name: name for name in ("space_group", "split", *LABELS)} | {"reduced_formula": "formula"}
    row = 0
    for batch in file.iter_batches(batch_size=1000):
        for record in batch.to_pylist():
            known = {new: record[old] for old, new in optional.items() if record.get(old) is not None}
            known = {name: value for name, value in known.items() if value == value}
            id, place = record[id_name], f"{path.name} row {row}"
            yield _entry(id, place, partial(_crystal_of_record, id, record), known)
            row += 1


def cif_paths(folder):
    """The CIF files of a folder and its sub-folders, in a fixed order."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() == ".cif")
    if not paths:
        raise ValueError(f"{folder} holds no .cif file")
    return paths


def cif_crystals(folder) -> Iterator[Entry]:
    """Crystals of the CIF files of a folder; ids are the paths within it."""
    for path in cif_paths(folder):
        place = str(path.relative_to(folder))
        yield _entry(place, place, partial(crystal_from_cif, path, place))


def generated_crystals(n, seed) -> Iterator[Entry]:
    """The first n distinct crystals of prototypes.generate(seed).

    Two are the same where formula and space group are and the cosine similarity of their patterns exceeds SAME_PATTERN.
    """
    seen = {}  # (formula, space group) -> coarse patterns of unit length, (m, 170)
    found = 0
    for crystal in prototypes.generate(seed):
        if found == n:
            return
        source = f"prototypes, seed {seed}"
        try:
            key = reduced_formula(*composition_of_crystal(crystal)), space_group(crystal)
            coarse = patterns.pattern(sticks(crystal), sigma=COARSE_SIGMA)[::COARSE_STEP]
        except RejectedCrystal as error:
            yield Entry(crystal.id, source, None, reason=str(error))
            continue
        coarse = (coarse / np.linalg.norm(coarse)).astype(np.float16)
        others = seen.get(key, np.zeros((0, len(coarse)), np.float16))
        if (others.astype(np.float32) @ coarse.astype(np.float32) > SAME_PATTERN).any():
            continue
        seen[key] = np.concatenate([others, coarse[None]])
        found += 1
        yield Entry(crystal.id, source, crystal, known={"formula": key[0]})


def _entry(id, source, read, known=None):
    try:
        return Entry(id, source, read(), known=known or {})
    except RejectedCrystal as error:
        return Entry(id, source, None, reason=str(error))


def _crystal_of_record(id, record):
    numbers = np.array(record["atomic_numbers"], dtype=np.int64)
    frac = np.array(record["frac_coords"], dtype=np.float64)
    if frac.size != 3 * len(numbers):
        raise RejectedCrystal(f"{len(numbers)} atoms but {frac.size} coordinates")
    cell = [record[name] for name in ("a", "b", "c", "alpha", "beta", "gamma")]
    if any(value is None for value in cell):
        raise RejectedCrystal("an incomplete cell")
    return check(Crystal(id, lattice_from_cell(*cell), numbers, frac.reshape(-1, 3), np.ones(len(numbers))))
