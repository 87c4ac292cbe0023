"""Blocks of intensities, whose angles stand above them as start, step and stop: FullProf, DBWS, Jade."""

import re

import numpy as np

from xxlib.diffraction.wavelengths import ANODES
from xxlib.scans.column_header import wavelength_of
from xxlib.scans.scan import MAX_POINTS, Scan, ScanError, even_steps, numbers

NUMBER = re.compile(r"(?<![\w.])[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])")
LEAST_POINTS = 20


def read_block(head, rows):
    """[Scan] where a line above the numbers states start, step and stop of as many as there are; else None.

    head: lines above the numbers.  rows: words of each line of numbers, of which the first may be that line.
    Raises ScanError where the lines are no table of columns either.
    """
    lines = [(line[:200], rows) for line in head[-3:]]
    if len(rows) > 1:
        lines.append((" ".join(rows[0][:20]), rows[1:]))
    promised = None
    for line, body in reversed(lines):
        words = [float(word) for word in NUMBER.findall(line)][:12]
        n = sum(map(len, body))
        for start, step, stop in _ranges(words):
            points = (stop - start) / step + 1
            if abs(points - n) < 0.1:
                return [_scan(line, head, start, step, [word for row in body for word in row])]
            promised = promised or (start, step, stop, points)
    widths = {len(row) for row in rows[1:-1] or rows}
    if min(widths, default=0) < 4 or len(widths) > 1 or _runs(rows):
        return None
    if promised:
        start, step, stop, points = promised
        raise ScanError(
            f"from {start:g} to {stop:g} degree in steps of {step:g} are {points:.6g} points, the lines below hold "
            f"{sum(map(len, rows))} numbers. Export the scan as two columns, 2θ and intensity"
        )
    raise ScanError(
        f"each line holds {min(widths)} numbers, of which the first does not run as 2θ does: a block of intensities "
        "without angles. Export two columns, 2θ and intensity"
    )


def _ranges(words):
    """(start, step, stop) as the numbers of a line may be meant: start comes first."""
    for i, step in enumerate(words[1:], 1):
        for k, stop in enumerate(words[1:], 1):
            if (
                k != i
                and 0 < step <= 1
                and words[0] < stop <= 180
                and LEAST_POINTS <= (stop - words[0]) / step < MAX_POINTS
            ):
                yield words[0], step, stop


def _runs(rows):
    """Whether the first numbers of the lines run in one direction, as angles do."""
    try:
        first = np.array([row[0].replace(",", ".") for row in rows], np.float64)
    except ValueError:
        return True  # the reader of columns says what is wrong with it
    steps = np.diff(first)
    return len(steps) == 0 or max((steps > 0).mean(), (steps < 0).mean()) > 0.8


def _scan(line, head, start, step, words):
    anode = re.search(rf"\b({'|'.join(ANODES)})\s{{1,5}}(\d\.\d+)", line, re.IGNORECASE)
    tube, warnings = wavelength_of([*head, f"anode {anode[1]}, wavelength {anode[2]}" if anode else ""])
    per_second = re.search(r"\bcps\b", line, re.IGNORECASE)
    return Scan(
        two_theta=even_steps(start, step, len(words)), intensity=numbers(words), format="block of intensities",
        unit="counts per second" if per_second else "counts", warnings=tuple(warnings), **tube,
    )  # fmt: skip
