"""Crystals of a parquet file, one a row."""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from xxlib.datasets.sources import Record, Source
from xxlib.inputs.crystals import Crystal, RejectedCrystal, check, lattice_from_cell

CELL = ("a", "b", "c", "alpha", "beta", "gamma")
KNOWN = {
    "e_form": "e_form",
    "band_gap": "band_gap",
    "space_group": "space_group",
    "split": "split",
    "reduced_formula": "formula",
}


def parquet(path):
    """Source of a parquet file with columns mp_id (or id), a b c (angstrom), alpha beta gamma (degree),
    atomic_numbers, frac_coords (3n, flat) and any of e_form, band_gap, space_group, reduced_formula, split.

    Nulls and NaN are missing labels.  Raises ValueError where a column is missing.
    """
    path = Path(path)
    names = pq.read_schema(path).names
    id_name = "mp_id" if "mp_id" in names else "id"
    missing = [name for name in (id_name, *CELL, "atomic_numbers", "frac_coords") if name not in names]
    if missing:
        raise ValueError(f"{path} is no file of crystals: it has no column {', '.join(missing)}")
    n_records = pq.ParquetFile(path).metadata.num_rows
    return Source({"kind": "parquet", "name": path.name}, partial(_records, path, id_name), n_records)


def _records(path, id_name):
    row = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=1000):
        for record in batch.to_pylist():
            known = {new: record[old] for old, new in KNOWN.items() if record.get(old) is not None}
            known = {name: value for name, value in known.items() if value == value}
            yield Record(record[id_name], f"{path.name} row {row}", record, crystal_of_row, known)
            row += 1


def crystal_of_row(id, row):
    """Crystal of a row (a dict) of the columns above; raises RejectedCrystal."""
    numbers = np.array(row["atomic_numbers"], dtype=np.int64)
    frac = np.array(row["frac_coords"], dtype=np.float64)
    if frac.size != 3 * len(numbers):
        raise RejectedCrystal(f"{len(numbers)} atoms but {frac.size} coordinates")
    cell = [row[name] for name in CELL]
    if any(value is None for value in cell):
        raise RejectedCrystal("an incomplete cell")
    return check(Crystal(id, lattice_from_cell(*cell), numbers, frac.reshape(-1, 3), np.ones(len(numbers))))
