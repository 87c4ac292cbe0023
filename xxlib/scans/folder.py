"""A folder of scans, and a list of what they are -> a table, one row a sample; and whether they are a series."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

COLUMNS = {  # what the columns of a list may be called, in small letters
    "pattern": ("file", "filename", "file name", "scan file", "path", "pattern"),
    "formula": ("formula", "composition"),
    "anode": ("anode", "tube", "wavelength"),
    "scan": ("scan", "number", "scan number"),
}
NUMBER = re.compile(r"\d+(?:\.\d+)?")
UNITS = {
    "temperature": ("K", "C", "degC", "°C"), "time": ("s", "min", "h"), "voltage": ("V", "mV"),
    "pressure": ("bar", "kbar", "MPa", "GPa"),
}  # fmt: skip
QUANTITIES = {unit: quantity for quantity, units in UNITS.items() for unit in units}


class Series(NamedTuple):
    """What changes from scan to scan of a series."""

    label: str  # name and unit, "temperature (K)"
    values: np.ndarray  # (n,)


def samples_of(place, formulas=None, without=()) -> pd.DataFrame:
    """Table of samples: pattern (a Path or None), formula, anode, scan, and whatever else the list has.

    place: a folder, or a list of files.  formulas: a list of them, .csv with a column `formula` and one `file` (with or
    without its suffix; empty: the formula alone), and perhaps `anode`, `scan` and others.  The rows of the list come
    first; then, without a formula, the files of `place` that it does not name.  What it names and the folder lacks is a
    row.  without: files of the folder that are no scans, such as the answers of an earlier time.
    Raises ValueError where there is no file, or the list cannot be understood.
    """
    one_folder = isinstance(place, str | Path)
    besides = {Path(path).resolve() for path in (*without, *([formulas] if formulas else []))}
    files = _files(place, besides) if one_folder else sorted(map(Path, place), key=_by_numbers)
    if formulas is None:
        if one_folder and not files:
            inside = ", ".join(sorted(path.name for path in Path(place).iterdir() if path.is_dir())[:5])
            raise ValueError(f"{place} holds no file" + (f": give one of its folders ({inside})" if inside else ""))
        return _without_formula(files)
    table = _list_of(Path(formulas))
    folder = Path(place) if one_folder else Path(formulas).parent
    by_name: dict[str, list[Path]] = {}
    for path in files or _files(folder, besides):
        for name in {path.name, path.stem}:
            by_name.setdefault(name, []).append(path)
    patterns = []
    for line, name in enumerate(table["pattern"], 2):
        named = by_name.get(name, []) if name else []
        if len(named) > 1:
            there = " and ".join(sorted(path.name for path in named))
            raise ValueError(f"{formulas}, line {line}: {name!r} may be {there}: write the whole name")
        patterns.append(named[0] if named else folder / name if name else None)
    table["pattern"] = pd.Series(patterns, dtype=object)
    rest = [path for path in files if path not in set(patterns)]
    if not len(table) and not rest:
        raise ValueError(f"{formulas} names no sample")
    return pd.concat([table, _without_formula(rest)], ignore_index=True) if rest else table


def _without_formula(files):
    return pd.DataFrame({"pattern": files, "formula": None, "anode": None, "scan": None}, dtype=object)


def _files(folder, besides):
    """The files of a folder in the order of their names, numbers as numbers; hidden ones are no scans."""
    there = [path for path in Path(folder).iterdir() if path.is_file() and path.name[0] != "."]
    return sorted((path for path in there if path.resolve() not in besides), key=_by_numbers)


def _by_numbers(path):
    words = NUMBER.split(path.name)
    return [*zip(words, map(float, NUMBER.findall(path.name)), strict=False), (words[-1], 0.0)]


def _list_of(path):
    """The list as a table of texts, its columns by our names; an empty cell is None."""
    if path.suffix.lower() in (".xls", ".xlsx", ".ods"):
        raise ValueError(f"{path.name} is a workbook: save the sheet as .csv")
    try:
        content = path.read_bytes()
        text = (
            content.decode("utf-8-sig")
            if not content.startswith((b"\xff\xfe", b"\xfe\xff"))
            else content.decode("utf-16")
        )
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    rows = _rows(text)
    names = [name.strip() for name in rows[0]] if rows else []
    ours = {}
    for ours_name, theirs in COLUMNS.items():
        for name in names:
            if name.lower().replace("_", " ") in theirs:
                ours.setdefault(name, ours_name)
    if "pattern" not in ours.values() or "formula" not in ours.values():
        raise ValueError(
            f"{path.name} needs columns called `file` and `formula`; its first line has {', '.join(names) or 'nothing'}"
        )
    wrong = next((i for i, row in enumerate(rows, 1) if len(row) != len(names)), None)
    if wrong:
        raise ValueError(f"{path.name}, line {wrong}: {len(rows[wrong - 1])} cells, but {len(names)} columns")
    cells = [[cell.strip() or None for cell in row] for row in rows[1:]]
    table = pd.DataFrame(cells, columns=names, dtype=object).rename(columns=ours)
    if table.columns.duplicated().any():
        twice = ", ".join(table.columns[table.columns.duplicated()])
        raise ValueError(f"{path.name}: two columns say the same ({twice})")
    for name in ("anode", "scan"):
        given = [_number(cell) for cell in table[name]] if name in table else [None] * len(table)
        table[name] = pd.Series(given, dtype=object)
    return table


def _rows(text):
    """Rows of cells of a .csv, whatever separates them, blank lines left out."""
    first = text.lstrip().split("\n", 1)[0]
    separator = max(";\t,", key=first.count)
    return [row for row in csv.reader(text.splitlines(), delimiter=separator) if any(cell.strip() for cell in row)]


def _number(cell):
    """A cell as a whole number or a number where it is one."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return cell
    return int(value) if value.is_integer() else value


def series_of(samples: pd.DataFrame, along: str | None = None) -> Series | None:
    """What changes over a table of samples_of; None where nothing does, or there are fewer than three samples.

    It is the column `along`; else the first column of the list, besides ours, of numbers that differ everywhere; else
    the one number in which the names of the files differ, if all are of one formula.
    Raises ValueError where there is no such column of numbers.
    """
    others = [name for name in samples if name not in COLUMNS]
    if along is not None and along not in others:
        raise ValueError(f"the list has no column {along!r}; it has {', '.join(others) or 'no other columns'}")
    for name in others if along is None else [along]:
        values = pd.to_numeric(samples[name], errors="coerce").to_numpy(float)
        if along is not None and not np.isfinite(values).any():
            raise ValueError(f"the column {along!r} holds no numbers")
        if along is not None or _changes(values):
            return Series(_with_unit(name), values)
    paths = [path for path in samples["pattern"] if path is not None]
    if len(paths) < len(samples) or samples["formula"].nunique(dropna=False) > 1:
        return None
    names = [path.stem for path in paths]
    numbers = [NUMBER.findall(name) for name in names]
    if len({NUMBER.sub("#", name) for name in names}) > 1 or not numbers or not numbers[0]:
        return None
    columns = np.array(numbers, float).T
    varying = [k for k, column in enumerate(columns) if len(set(column)) > 1]
    if len(varying) != 1 or not _changes(columns[varying[0]]):
        return None
    unit = re.match(r"[\s_-]?(°?[A-Za-z]+)(?![A-Za-z])", NUMBER.split(names[0])[varying[0] + 1])
    named = unit and QUANTITIES.get(unit[1])
    return Series(f"{named} ({unit[1]})" if named else "number in the file's name", columns[varying[0]])


def _with_unit(name):
    """temperature_K -> temperature (K)."""
    quantity, _, unit = name.rpartition("_")
    return f"{quantity} ({unit})".replace("_", " ") if quantity and unit in QUANTITIES else name.replace("_", " ")


def _changes(values):
    return len(values) > 2 and bool(np.isfinite(values).all()) and len(set(values)) == len(values)
