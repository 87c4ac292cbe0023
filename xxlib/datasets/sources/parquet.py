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


def oqmd(path):
    """The same of OQMD's crystals, whose energy and band gap are labels of their own in whatever columns they stand:
    e_form (or oqmd_e_form) is read as oqmd_e_form, band_gap as oqmd_band_gap."""
    return parquet(path, database="oqmd")


def parquet(path, database=""):
    """Source of a parquet file with columns mp_id (or id), a b c (angstrom), alpha beta gamma (degree),
    atomic_numbers, frac_coords (3n, flat) and any of e_form (eV/atom), band_gap (eV), space_group, reduced_formula,
    split; of OQMD's labels oqmd_e_form (eV/atom), oqmd_band_gap (eV); of bulk_modulus and shear_modulus (GPa).

    Nulls and NaN are missing labels; columns of other names are not read, whatever energy they hold.  Raises ValueError
    where a column is missing.  database: whose labels e_form and band_gap are, where not the Materials Project's.
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
    columns = label_columns(names, database)
    labels = {name: f"column {column}, {LABELS[name]}" for name, column in columns.items()}
    metadata = {"kind": database or "parquet", "name": path.name, "labels": labels}
    return Source(metadata, partial(_records, path, id_name, columns), file.metadata.num_rows)


def label_columns(names, database=""):
    """Label -> the column that holds it, of the names of a file's columns."""
    columns = {name: name for name in LABELS if name in names}
    for name in ("e_form", "band_gap") if database else ():
        columns = {f"{database}_{name}": columns.pop(name, None)} | columns  # a column of the label's own name counts
    return {name: column for name, column in columns.items() if column}


def _records(path, id_name, columns):
    row = 0
    try:
        for batch in parquet_file(path).iter_batches(batch_size=1000):
            for content in batch.to_pylist():
                yield _record(content, content[id_name], id_name, f"{path.name} row {row}", columns)
                row += 1
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        place = f"{path.name} row {row}"
        yield refused(place, place, f"the rest of the file cannot be read: {error}")


def _record(content, id, id_name, place, labels):
    try:
        if id is None or id == "":
            raise RejectedCrystal(f"no {id_name}")
        columns = read_labels(**{name: content[column] for name, column in labels.items()})
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
