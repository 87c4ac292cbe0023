"""What a scientist has of a sample -> a Sample: a formula, a diffractometer file, or both."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xxlib.crystals.compositions import atoms_of_formula, composition_of_formula
from xxlib.diffraction.patterns import N_POINTS, N_TOKENS
from xxlib.scans.axes import in_angstrom, scan_along
from xxlib.scans.conditioning import FEATURELESS, Conditioned, condition
from xxlib.scans.reading import read_scan
from xxlib.scans.scan import Scan, ScanError, checked

LARGEST = 1e15  # counts; beyond, an intensity overflowed
OVERFLOW = "an intensity of {:.3g}, which no detector counts: divide all by a number, or export the scan again"


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """One sample as the models take it; what was not given of it is empty."""

    formula: str  # as given, "" = not given
    element_ids: np.ndarray  # (E,) atomic numbers, E = 0 where no formula was given
    fractions: np.ndarray  # (E,)
    name: str  # of the file or what the pattern was given as, "" = none
    pattern: np.ndarray  # (4250,) float32, maximum 100; zero where nothing was measured
    hidden: np.ndarray  # (17,) bool, True = nothing of this token was measured
    conditioned: Conditioned | None = None  # the steps from a scan to the pattern
    warnings: tuple[str, ...] = ()  # plain sentences

    @property
    def modalities(self) -> tuple[str, ...]:
        """What was given: ("composition", "xrd") or one of them."""
        given = {"composition": len(self.element_ids) > 0, "xrd": not self.hidden.all()}
        return tuple(name for name in given if given[name])

    @property
    def elements(self) -> list[str]:
        """Symbols (E,) of the elements."""
        from pymatgen.core import Element

        return [Element.from_Z(int(z)).symbol for z in self.element_ids]


def read_sample(
    formula: str | None = None, pattern: Any = None, *, anode: str | float | None = None, scan: int | None = None
) -> Sample:
    """The Sample of a formula ("LaMnO3"), a pattern, or both.

    pattern: path of a diffractometer file, a Scan, a Conditioned, a pair (two_theta, intensity) in degree, a table of
    two_theta (degree), q (1/angstrom) or d (angstrom) and intensity, or intensities (4250,) on the grid.
    anode: "Cu", "Mo", ... or angstrom, where the file does not state the wavelength.  scan: which one, from 0, of a
    file with several.
    Raises ValueError (ScanError where it is the pattern) with the reason and what to do; also where no peak stands out
    of the noise, which a model would answer as readily as any other pattern.
    """
    if formula is None and pattern is None:
        raise ValueError("neither a formula nor a pattern was given: give at least one of them")
    element_ids, fractions, doubts = np.zeros(0, np.uint8), np.zeros(0, np.float32), ()
    if formula is not None:
        element_ids, fractions = composition_of_formula(formula)
        _, doubts = atoms_of_formula(formula)
    name, conditioned, warnings = "", None, ()
    values, hidden = np.zeros(N_POINTS, np.float32), np.ones(N_TOKENS, bool)
    if isinstance(pattern, str | Path):
        name, pattern = printable(Path(pattern).name), read_scan(pattern, scan)
    elif isinstance(pattern, pd.DataFrame):
        name, pattern = "table", checked(_scan_of_table(pattern))
    elif isinstance(pattern, Scan):
        name, pattern = pattern.sample or "scan", checked(pattern)
    elif (pair := pair_of(pattern)) is not None:
        name, pattern = "arrays", _scan_of_pair(*pair)
    if isinstance(pattern, Scan):
        if np.abs(pattern.intensity).max() > LARGEST:
            raise ScanError(f"{name}: {OVERFLOW.format(np.abs(pattern.intensity).max())}.")
        try:
            pattern = condition(pattern, anode)
        except ScanError as error:
            raise ScanError(f"{name}: {error}.") from None
    if isinstance(pattern, Conditioned):
        if FEATURELESS in pattern.warnings:
            raise ScanError(f"{name or 'scan'}: {FEATURELESS} Give the formula alone, or measure longer.")
        conditioned, values, hidden = pattern, pattern.pattern, pattern.tokens_outside
        name, warnings = name or "scan", tuple(dict.fromkeys(pattern.warnings))
    elif pattern is not None:
        name, values, hidden = "array", _on_the_grid(pattern), np.zeros(N_TOKENS, bool)
    return Sample(
        formula="" if formula is None else str(formula), element_ids=element_ids, fractions=fractions, name=name,
        pattern=values, hidden=hidden, conditioned=conditioned, warnings=(*doubts, *warnings),
    )  # fmt: skip


def pair_of(pattern: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """(two_theta, intensity) of a pattern given as two lists of numbers, two rows or two columns; None of all else.

    Two lists of 4250 numbers, none of them in one order as angles are, are two patterns on the grid.
    """
    if not isinstance(pattern, list | tuple) and np.ndim(pattern) == 2:
        pattern = list(np.asarray(pattern) if len(pattern) == 2 else np.asarray(pattern).T)
    if not isinstance(pattern, list | tuple) or len(pattern) != 2:
        return None
    if any(isinstance(values, str | Path | Scan | Conditioned) or np.ndim(values) != 1 for values in pattern):
        return None
    try:
        pair = tuple(np.asarray(values, np.float64) for values in pattern)
    except (TypeError, ValueError):
        return None
    return pair if any(len(values) != N_POINTS or _in_one_order(values) for values in pair) else None


def _scan_of_table(table):
    """The Scan of a table of two columns, by the name of the first."""
    if table.shape[1] != 2:
        raise ScanError(f"the table has {table.shape[1]} columns: give two, two_theta (or q, or d) and the intensity")
    values, intensity = (table.iloc[:, k].to_numpy(np.float64) for k in (0, 1))
    label = str(table.columns[0])
    axis = re.match(r"[qd](?![a-z])", label, re.IGNORECASE)
    if not axis:
        return _scan_of_pair(values, intensity)
    values, doubts = in_angstrom(axis[0].lower(), values, label if len(label) > 1 else f"{label}_a")
    return scan_along(axis[0].lower(), values, intensity, format="table", warnings=tuple(doubts))


def _in_one_order(values):
    return bool((np.diff(values) > 0).all() or (np.diff(values) < 0).all())


def _scan_of_pair(two_theta, intensity):
    if not _in_one_order(two_theta) and _in_one_order(intensity):
        raise ScanError("the second of the two arrays seems to hold the angles: give (two_theta, intensity)")
    return checked(Scan(two_theta=two_theta, intensity=intensity, format="arrays"))


def printable(name: str) -> str:
    """The name of a file whose bytes may be no UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _on_the_grid(intensity):
    """Intensities (4250,) that are on the grid already, scaled to a maximum of 100."""
    advice = "for a scan with angles of its own give its file, or Scan(two_theta=..., intensity=...)"
    try:
        intensity = np.asarray(intensity, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a pattern is a file, a Scan or numbers; this is {type(intensity).__name__}") from error
    if intensity.shape != (N_POINTS,):
        raise ValueError(
            f"the array has the shape {intensity.shape}, a pattern on the grid of 5.00 to 89.98 degree has "
            f"({N_POINTS},): {advice}"
        )
    if not np.isfinite(intensity).all():
        raise ValueError(f"not all intensities of the array are finite numbers: {advice}")
    if np.abs(intensity).max() > LARGEST:
        raise ValueError(f"the array holds {OVERFLOW.format(np.abs(intensity).max())}")
    if intensity.min() < 0:
        raise ValueError(f"the array holds negative intensities: subtract no more than its background, or {advice}")
    if not intensity.max() > 0 or intensity.min() == intensity.max():
        raise ValueError("all intensities of the array are equal: there is nothing to see")
    return (intensity / intensity.max() * 100).astype(np.float32)
