"""JCAMP-DX, the exchange format of spectra, with a powder pattern in it."""

import re
from itertools import chain

import numpy as np

from xxlib.scans.column_header import wavelength_of
from xxlib.scans.instrument_text import append, extend, fact
from xxlib.scans.scan import (
    DAMAGED,
    Scan,
    ScanError,
    agreed_steps,
    attempt,
    check_count,
    header_warnings,
    lines_of,
    numbers,
)


def read_jcamp(text):
    """Scans of a JCAMP-DX file: `##KEY=value` lines, then pairs, or with (X++(Y..Y)) an angle and its intensities."""
    scans, keys, name, lines = [], {}, "", []
    for line in chain(lines_of(text), ["##END="]):
        line = line.partition("$$")[0].strip()
        if not line.startswith("##"):
            extend(lines, [line] if line and name in ("XYDATA", "XYPOINTS") else [])
            continue
        if name in ("XYDATA", "XYPOINTS"):
            append(scans, attempt(_jcamp_scan, keys, name, lines))
            lines = []
        name, _, value = line[2:].partition("=")
        name = re.sub(r"[\s_/-]", "", name).upper()
        keys[name] = value.strip()
    if not scans:
        raise ScanError("this JCAMP-DX file holds no XYDATA or XYPOINTS (a list of peaks?). Export the scan as .xy")
    return scans


def _jcamp_scan(keys, name, lines):
    unit = re.sub(r"[^a-zθ0-9]", "", keys.get("XUNITS", "").lower())
    if unit and not re.search("2th|2θ|twoth|deg|angle", unit):
        raise ScanError(f"its first column is in {keys['XUNITS'][:40]!r}, not 2θ in degree. Export the scan against 2θ")
    text = " ".join(lines)
    if re.search(r"[A-DF-Za-df-z@%]|\d[+-]\d", text):
        raise ScanError("its numbers are packed (JCAMP-DX ASDF). Export it unpacked (AFFN), or as .xy")
    if name == "XYPOINTS" or "XY..XY" in keys[name].replace(" ", "").upper():
        table = numbers(re.sub(r"[,;]", " ", text))
        if len(table) % 2:
            raise ScanError(f"the points of XYPOINTS are no pairs of angle and intensity. {DAMAGED}")
        angle, intensity = table[::2], table[1::2]
        check_count(len(angle), fact(keys, "NPOINTS"))
        warnings = header_warnings(angle, fact(keys, "FIRSTX"), fact(keys, "DELTAX"), fact(keys, "LASTX"))
    else:
        rows = [numbers(line.replace(",", " ")) for line in lines]
        if not rows or min(map(len, rows)) < 2:
            raise ScanError(f"the lines of XYDATA are not an angle and its intensities each. {DAMAGED}")
        intensity = np.concatenate([row[1:] for row in rows])
        first = np.cumsum([0, *(len(row) - 1 for row in rows[:-1])])
        check_count(len(intensity), fact(keys, "NPOINTS"))
        scale = fact(keys, "XFACTOR") or 1.0
        start, stop = (fact(keys, key) for key in ("FIRSTX", "LASTX"))
        start = rows[0][0] * scale if start is None else start
        angle, warnings = agreed_steps(len(intensity), start, fact(keys, "DELTAX"), stop)
        if np.abs(angle[first] - scale * np.array([row[0] for row in rows])).max() > 0.51 * abs(angle[1] - angle[0]):
            raise ScanError(f"the angles at the beginnings of the lines contradict DELTAX or FIRSTX. {DAMAGED}")
    factor = fact(keys, "YFACTOR") or 1.0
    tube, doubts = wavelength_of([f"{key} {value[:200]}" for key, value in keys.items()])
    return Scan(
        two_theta=angle,
        intensity=factor * intensity,
        format="JCAMP-DX",
        sample=keys.get("TITLE", ""),
        warnings=(*warnings, *doubts),
        **tube,
    )
