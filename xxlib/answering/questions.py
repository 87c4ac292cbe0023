"""What is asked of a model: one sample, lists with an entry a sample, or a table of samples."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xxlib.diffraction.patterns import N_POINTS, N_TOKENS
from xxlib.scans.samples import Sample, pair_of, printable, read_sample

LISTS = (list, tuple, np.ndarray, pd.Series, pd.Index)


def several(formula: Any, pattern: Any, anode: Any, scan: Any) -> list[bool]:
    """Whether each of the four is a list with an entry a sample.

    One sample's are intensities, or angles and intensities: of numbers alone only anodes and scans are a list.
    """
    lists = [isinstance(given, LISTS) for given in (formula, pattern, anode, scan)]
    return [many and not _is_one_pattern(given) for many, given in zip(lists, (formula, pattern))] + lists[2:]


def columns_of(table: pd.DataFrame, *others: Any) -> tuple:
    """(formula, pattern, anode, scan) of a table of samples; raises ValueError where it has none of these columns."""
    names = ("formula", "pattern", "anode", "scan")
    if any(other is not None for other in others):
        raise ValueError("a table of samples was given, and something besides: make it a column of the table")
    if not {"formula", "pattern"} & set(table):
        raise ValueError(f"a table of samples has columns formula, pattern, anode, scan; this has {', '.join(table)}")
    return tuple(table.get(name) for name in names)


def _is_one_pattern(given):
    if pair_of(given) is not None:
        return True
    if isinstance(given, list | tuple):
        return len(given) > 0 and all(isinstance(one, int | float | np.number) for one in given)
    return given.ndim == 0 or (given.ndim == 1 and given.dtype.kind in "fiu")


def aligned(*given: Any) -> list[tuple]:
    """(formula, pattern, anode, scan) of each sample; where one is missing in a table (NaN), it is None."""
    many_of = several(*given)
    lengths = [len(value) for value, many in zip(given, many_of) if many]
    if len(set(lengths)) > 1:
        names = [name for name, many in zip(("formulas", "patterns", "anodes", "scans"), many_of) if many]
        counts = " but ".join(f"{n} {name}" for n, name in zip(lengths, names))
        raise ValueError(f"{counts}: give one of each for every sample")
    columns = [list(value) if many else [value] * lengths[0] for value, many in zip(given, many_of)]
    return [tuple(None if _is_missing(value) else value for value in sample) for sample in zip(*columns)]


def _is_missing(value):
    return value is pd.NA or (isinstance(value, float) and np.isnan(value))


def sample_of(
    formula: str | None = None,
    pattern: Any = None,
    anode: str | float | None = None,
    scan: int | None = None,
) -> Sample:
    """The Sample of what was given; raises ValueError where it cannot be read."""
    formula, pattern, anode, scan = (
        given.item() if isinstance(given, np.ndarray | np.generic) and np.ndim(given) == 0 else given
        for given in (formula, pattern, anode, scan)
    )  # of numpy's scalars what they hold
    if scan is not None:
        if not isinstance(pattern, str | Path):
            raise ValueError(f"scan={scan} chooses among the scans of a file, and no file was given: leave it out")
        whole = isinstance(scan, int | np.integer) or (isinstance(scan, float) and scan.is_integer())
        if not whole or isinstance(scan, bool):
            raise ValueError(f"scan={scan!r} is no number of a scan: give a whole number, from 0")
        scan = int(scan)
    return read_sample(formula, pattern, anode=anode, scan=scan)


def unread(formula: Any, pattern: Any) -> Sample:
    """What there is to name of a sample that could not be read."""
    name = printable(Path(pattern).name) if isinstance(pattern, str | Path) else "" if pattern is None else "array"
    return Sample(
        formula="" if formula is None else str(formula), element_ids=np.zeros(0, np.uint8),
        fractions=np.zeros(0, np.float32), name=name, pattern=np.zeros(N_POINTS, np.float32),
        hidden=np.ones(N_TOKENS, bool),
    )  # fmt: skip
