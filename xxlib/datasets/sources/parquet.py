"""Crystals of a parquet file, one a row."""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from xxlib.crystals.crystal import Crystal, RejectedCrystal, check, lattice_from_cell
from xxlib.crystals.structures import refusing
from xxlib.datasets.sources import Record, Source, parquet_file, read_labels, refused

CELL = ("a", "b", "c", "alpha", "beta", "gamma")
# Columns that are labels, and their units.
LABELS = {"e_form": "eV/atom", "band_gap": "eV", "space_group": "number"}
LABELS |= {"oqmd_e_form": "eV/atom", "oqmd_band_gap": "eV", "bulk_modulus": "GPa", "shear_modulus": "GPa"}


def parquet(path):
    """Source of a parquet file with columns mp_id (or id), a b c (angstrom), alpha beta gamma (degree),
    atomic_numbers, frac_coords (3n, flat) and any of e_form (eV/atom), band_gap (eV), space_group, reduced_formula,
    split; of OQMD's labels oqmd_e_form (eV/atom), oqmd_band_gap (eV); of bulk_modulus and shear_modulus (GPa).

    Nulls and NaN are missing labels; columns of other names are not read, whatever energy they hold.  Raises ValueError
    where a column is missing.
    """
    path = Path(path)
    try:
        file = parquet_file(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no parquet file: {error}") from error
    names = file.schema_arrow.names
    id_name = "mp_id" if "mp_id" in names else "id"
    missing = [name for name in (id_name, *CELL, "atomic_numbers", "frac_coords") if name not in names]
    if missing:
        raise ValueError(f"{path} is no file of crystals: it has no column {', '.join(missing)}")
    labels = {name: f"column {name}, {unit}" for name, unit in LABELS.items() if name in names}
    metadata = {"kind": "parquet", "name": path.name, "labels": labels}
    return Source(metadata, partial(_records, path, id_name), file.metadata.num_rows)


def _records(path, id_name):
    row = 0
    try:
        for batch in parquet_file(path).iter_batches(batch_size=1000):
            for content in batch.to_pylist():
                yield _record(content, content[id_name], id_name, f"{path.name} row {row}")
                row += 1
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        place = f"{path.name} row {row}"
        yield refused(place, place, f"the rest of the file cannot be read: {error}")


def _record(content, id, id_name, place):
    try:
        if id is None or id == "":
            raise RejectedCrystal(f"no {id_name}")
        columns = read_labels(**{name: content.get(name) for name in LABELS})
    except RejectedCrystal as error:
        return refused(place if id in (None, "") else str(id), place, str(error))
    others = {"formula": content.get("reduced_formula"), "split": content.get("split")}
    columns |= {name: value for name, value in others.items() if value is not None}
    return Record(str(id), place, content, crystal_of_row, columns)


def crystal_of_row(id, row):
    """Crystal of a row (a dict) of the columns above; raises RejectedCrystal."""
    with refusing("row of a crystal"):
        numbers = np.array(row["atomic_numbers"], dtype=np.int64)
        frac = np.array(row["frac_coords"], dtype=np.float64)
    if frac.size != 3 * len(numbers):
        raise RejectedCrystal(f"{len(numbers)} atoms but {frac.size} coordinates")
    cell = [row[name] for name in CELL]
    if any(value is None for value in cell):
        raise RejectedCrystal("an incomplete cell")
    return check(Crystal(id, lattice_from_cell(*cell), numbers, frac.reshape(-1, 3), np.ones(len(numbers))))
