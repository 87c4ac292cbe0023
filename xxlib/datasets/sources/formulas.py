"""Formulas with labels and no crystals, of a table: what only the composition can learn from."""

import csv
from functools import partial
from pathlib import Path

import pyarrow as pa

from xxlib.crystals.crystal import RejectedCrystal
from xxlib.datasets.sources import Record, Source, check_file, parquet_file, read_labels, refused

FORMULA = ("formula", "reduced_formula")  # the column, whichever comes first
LABELS = {"e_form": "eV/atom", "band_gap": "eV", "oqmd_e_form": "eV/atom", "oqmd_band_gap": "eV", "volume": "A^3/atom"}
MAX_LENGTH = 300  # characters of a formula; pymatgen is quadratic in them


def formulas(path):
    """Source of a table, .csv or .parquet, with a column formula (or reduced_formula) and any of e_form (eV/atom),
    band_gap (eV), id, split; and of what another database says: oqmd_e_form (eV/atom), oqmd_band_gap (eV), volume
    (A^3 per atom).

    Empty fields are missing labels; columns of other names are not read.  Raises ValueError where there is no such
    column.
    """
    path = Path(path)
    check_file(path)
    try:
        rows = _parquet_rows(path) if path.suffix == ".parquet" else _csv_rows(path)
        names = next(rows)
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table, .csv in UTF-8 or .parquet: {error}") from error
    column = next((name for name in FORMULA if name in names), None)
    if column is None:
        raise ValueError(f"{path} is no table of formulas: it has no column {' or '.join(FORMULA)}")
    labels = {name: f"column {name}, {unit}" for name, unit in LABELS.items() if name in names}
    return Source({"kind": "formulas", "name": path.name, "labels": labels}, partial(_records, path, column))


def _records(path, column):
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _csv_rows(path)
    next(rows)
    place = path.name
    try:
        for number, (place, row) in enumerate(rows):
            place = f"{path.name} {place}"
            yield _record(row, row.get("id") or f"{path.stem}-{number}", place, column)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        yield refused(path.name, place, f"the rest of the table cannot be read: {error}")


def _record(row, id, place, column):
    try:
        if None in row:  # of csv: more fields than names
            raise RejectedCrystal(f"{len(row[None])} fields more than columns: a comma that is not quoted?")
        formula, split = row[column], row.get("split")
        if not isinstance(formula, str) or not formula.strip():
            raise RejectedCrystal("no formula")
        if len(formula) > MAX_LENGTH:
            raise RejectedCrystal(f"a formula of {len(formula)} characters, more than {MAX_LENGTH}")
        columns = read_labels(**{name: row.get(name) for name in LABELS})
    except RejectedCrystal as error:
        return refused(str(id), place, str(error))
    return Record(str(id), place, formula.strip(), None, columns | ({"split": split} if split else {}))


def _csv_rows(path):
    """Names of the columns, then (line, a dict) of each row."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        yield reader.fieldnames or []
        for row in reader:
            yield f"line {reader.line_num}", row


def _parquet_rows(path):
    """Names of the columns, then (row, a dict) of each row."""
    file = parquet_file(path)
    yield file.schema_arrow.names
    number = 0
    for batch in file.iter_batches(batch_size=1000):
        for row in batch.to_pylist():
            yield f"row {number}", row
            number += 1
