"""Columns of text: angle, intensity and perhaps its error, in whatever dialect a program wrote them."""

import re
from itertools import pairwise

import numpy as np

from xxlib.diffraction.wavelengths import ANODES
from xxlib.scans.scan import Scan, ScanError, source

COMMENTS = ("#", "!", "%", "//", ";", "*", "'")
GROUPED = r"[+-]?\d{{1,3}}({0}\d{{3}})+"  # digits in groups of three behind a mark
LIKE_A_NUMBER = re.compile(
    r"[+-]?(\d[\d.,'\u00a0\u202f]*|\d{1,3}( \d{3})+([.,]\d+)?|[.,]\d+)([edED][+-]?\d+)?|[+-]?(nan|inf|infinity)",
    re.IGNORECASE,
)
ANGLE = re.compile(r"2\s*[-_*]?\s*(θ|ϑ|th)|(two|2)[ _-]*theta|tth|angle|position|pos\b", re.IGNORECASE)
INTENSITY = re.compile(r"int|count|cps|obs|psd|^y$|^i$", re.IGNORECASE)
NOT_AN_ANGLE = {
    "the scattering vector Q": r"^[\"'(#\s]*q\b|1/(å|a\b|nm)|(å|a|nm)\^?-1|momentum|scattering vector",
    "the lattice spacing d": r"^[\"'(#\s]*d\b|d[ _-]?(spacing|value)|interplanar",
    "ω, the angle of the sample": r"omega|ω",
    "an energy": r"energy|kev",
    "a channel number": r"channel",
    "a time of flight": r"\btof\b|time of flight",
    "θ, not 2θ": r"^[\"'(#\s]*(theta|θ|th)\b",
}


def read_columns(text):
    """Scans of a text of columns; where the angles fall back and start anew, the next scan begins."""
    lines = text.replace('"', "").splitlines()
    if not any(line.strip() for line in lines):
        raise ScanError("the file is empty. Export or copy it again")
    separator = _separator(lines)
    numbers, rows, head, others = [], [], [], []
    for i, line in enumerate(lines, 1):
        line = line.strip()
        fields = _fields(line, separator)
        if len(fields) >= 2 and all(LIKE_A_NUMBER.fullmatch(field) for field in fields):
            numbers.append(i)
            rows.append(fields)
        elif line and not rows:
            head.append(line)
        elif line and not line.startswith(COMMENTS):
            others.append((len(rows), i, line))
    if not rows:
        if sum(bool(LIKE_A_NUMBER.fullmatch(line.strip())) for line in lines) > 2:
            raise ScanError("there is one number a line: the angles are missing. Export two columns, 2θ and intensity")
        raise ScanError("this text holds no columns of numbers. Export the scan as two columns, 2θ and intensity (.xy)")
    width = _width(rows, numbers)
    columns = [[row[k] for row in rows] for k in range(width)]
    names = _names(head, separator, width)
    at = _choose(names, width)
    decimal = _decimal_mark(columns, separator)
    angle, intensity = (_to_numbers(columns[k], decimal, numbers) for k in at)
    for k, i, line in others:
        # Words stand above a further scan, which begins at lower angles, and below the last one.
        if (k < len(angle) and angle[k] > angle[k - 1]) or (k == len(angle) and line[0].isdigit()):
            raise ScanError(f"line {i} ({line[:40]!r}) cannot be read as numbers. Repair or remove it")
    fields, warnings = _of_header(head, names[at[0]] if names else (head[-1] if head else ""), width, at)
    if fields.pop("radian", False):
        angle = np.degrees(angle)
    return [
        Scan(two_theta=angle[piece], intensity=intensity[piece], warnings=tuple(warnings), **fields)
        for piece in _pieces(angle)
    ]


def _separator(lines):
    """What stands between the numbers: ";", ",", a tab or None for any white space."""
    pattern = re.compile(r"\s*[+-]?[\d.][\d\s.,;+\-eEdDnaNifI'\u00a0\u202f]*")
    like = [line.strip() for line in lines if pattern.fullmatch(line)][:500]
    if not like:
        return None
    share = {mark: sum(mark in line for line in like) / len(like) for mark in ";\t"}
    if share[";"] > 0.5:
        return ";"
    if share["\t"] > 0.5:
        cut = [[word.strip() for word in line.split("\t") if word.strip()] for line in like]
        if all(len(row) > 1 and all(LIKE_A_NUMBER.fullmatch(field) for field in row) for row in cut):
            return "\t"
    if sum(bool(re.search(r",\s", line)) for line in like) > len(like) / 2:
        return ","
    if sum(bool(re.search(r"\S\s+\S", line)) for line in like) > len(like) / 2:
        return None
    return "," if sum("," in line for line in like) > len(like) / 2 else None


def _fields(line, separator):
    return [word.strip() for word in line.split(separator) if word.strip()]


def _width(rows, numbers):
    widths = np.array([len(row) for row in rows])
    width = int(np.bincount(widths).argmax())
    if (widths != width).any():
        odd = int(np.flatnonzero(widths != width)[0])
        raise ScanError(
            f"line {numbers[odd]} has {widths[odd]} numbers, most lines have {width}. Repair the line, or export again"
        )
    return width


def _names(head, separator, width):
    """Names of the columns from the last line of the header that has one for each, or None."""
    for line in reversed(head):
        for names in (line.split(separator), line.strip("#!;%* ").split(), re.split(r"\s{2,}|\t", line)):
            names = [name.strip(" #!;%*") for name in names]
            if len(names) == width and any(ANGLE.search(name) or INTENSITY.search(name) for name in names):
                return names
    return None


def _choose(names, width):
    """Which columns hold the angle and the intensity."""
    if width > 2 and names:
        angles = [k for k, name in enumerate(names) if ANGLE.search(name)]
        if angles:
            others = [k for k in range(width) if k not in angles]
            return angles[0], next((k for k in others if INTENSITY.search(names[k])), others[0] if others else 1)
    return 0, 1


def _decimal_mark(columns, separator):
    if separator == ",":
        if len(columns) > 2 and all(re.fullmatch(r"[+-]?\d+", word) for column in columns for word in column):
            raise ScanError(
                "commas separate the columns and are decimal marks at once. Export with decimal points, or with "
                "semicolons between the columns"
            )
        return "."
    angles = columns[0]
    commas, points = any("," in word for word in angles), any("." in word for word in angles)
    if commas and points:
        raise ScanError("some angles have a decimal comma, others a decimal point. Export the file again")
    if commas or points:
        return "," if commas else "."
    rest = [word for column in columns[1:] for word in column if "," in word]
    if rest and not any("." in word for column in columns for word in column):
        if all(re.fullmatch(GROUPED.format(","), word) for word in rest):
            raise ScanError(
                f"it is not clear whether {rest[0]} is a number of thousands or has a decimal comma. Export without "
                "thousands separators"
            )
        return ","
    return "."


def _to_numbers(column, decimal, numbers):
    group = "," if decimal == "." else "."
    grouped = re.compile(GROUPED.format("[" + group + "'\u00a0\u202f ]") + rf"(\{decimal}\d*)?")
    values = np.empty(len(column))
    for i, word in enumerate(column):
        plain = re.sub("[" + group + "'\u00a0\u202f ]", "", word) if grouped.fullmatch(word) else word
        if decimal == ",":
            plain = plain.replace(".", "x").replace(",", ".")  # a point that groups nothing is no number
        try:
            values[i] = float(plain.replace("d", "e").replace("D", "e"))
        except ValueError:
            raise ScanError(f"line {numbers[i]}: {word!r} cannot be read as a number. Repair it") from None
    return values


def _of_header(head, axis, width, at):
    """Fields of a Scan and warnings from the lines above the numbers; raises ScanError where the axis is not 2θ."""
    text = "\n".join(head)
    if not ANGLE.search(axis):
        for what, pattern in NOT_AN_ANGLE.items():
            if re.search(pattern, axis, re.IGNORECASE):
                raise ScanError(
                    f"the first column is {what} ({axis[:40]!r}), not 2θ in degree. Export the scan against 2θ"
                )
    fields, warnings = {}, []
    if re.search(r"\brad(ian)?s?\b|_rad\b", axis, re.IGNORECASE):
        fields["radian"] = True
        warnings.append("The angles were in radian: they were converted to degree.")
    if re.search(r"\bcps\b|counts?\s*(/|per|_per_)\s*s", head[-1] if head else "", re.IGNORECASE):
        fields["unit"] = "counts per second"
    number = r"[^\d\n]{0,20}?(\d+[.,]\d+)"
    wavelengths = {
        name: float(match[1].replace(",", "."))
        for name, pattern in (
            ("ka1", r"k-?alpha-?1(?! *[/])"), ("ka2", r"k-?alpha-?2(?! */)"), ("ratio", r"k-?alpha-?2 */ *k-?alpha-?1"),
            ("any", r"(?:wave\s*length|lambda|λ)"),
        )
        if (match := re.search(pattern + number, text, re.IGNORECASE))
    }  # fmt: skip
    anode = re.search(rf"\b(?:anode|target|tube)\b[^\n]{{0,20}}?\b({'|'.join(ANODES)})\b", text, re.IGNORECASE)
    tube = source(anode and anode[1], wavelengths.get("ka1"), wavelengths.get("ka2"), wavelengths.get("ratio"))
    if "any" in wavelengths and "ka1" not in wavelengths and 0.1 < wavelengths["any"] < 3:
        tube = {"wavelength": wavelengths["any"]}
    axis_named = re.search(r"^\W*scan ?axis[\s,:;=]+([^\n,;]+)", text, re.IGNORECASE | re.MULTILINE)
    if axis_named:
        fields["scan_axis"] = axis_named[1].strip()
    if width > 3:
        warnings.append(f"There are {width} columns: number {at[0] + 1} was taken as 2θ, {at[1] + 1} as the intensity.")
    return fields | tube, warnings


def _pieces(angle):
    """Slices of the scans, one after the other; the whole where falling angles are disorder, not a new beginning."""
    falls = np.flatnonzero(np.diff(angle) < 0) + 1
    edges = [0, *falls.tolist(), len(angle)]
    if len(falls) and min(np.diff(edges)) >= 10:
        return [slice(first, last) for first, last in pairwise(edges)]
    return [slice(None)]
