"""Columns of text: angle, intensity and perhaps its error, in whatever dialect a program wrote them."""

import re
from itertools import islice, pairwise

import numpy as np

from xxlib.scans.axes import in_angstrom, scan_along
from xxlib.scans.checks import lines_of
from xxlib.scans.column_header import ANGLE, ERROR, INTENSITY, facts_of
from xxlib.scans.scan import MAX_POINTS, Scan, ScanError

COMMENTS = ("#", "!", "%", "//", ";", "*", "'")
GROUPED = r"[+-]?\d{{1,3}}({0}\d{{3}})+"  # digits in groups of three behind a mark
LIKE_A_NUMBER = re.compile(
    r"[+-]?(\d[\d.,'\u00a0\u202f]*|\d{1,3}( \d{3})+([.,]\d+)?|[.,]\d+)([edED][+-]?\d+)?|[+-]?(nan|inf|infinity)",
    re.IGNORECASE,
)
LIKE_A_ROW = re.compile(r"[\s,;]*[+-]?[\d.][\d\s.,;+\-eEdDnaNifI'\u00a0\u202f]*")
MAX_LINE = 100_000  # characters
GAPS = re.compile(r"\s{2,}|\t")
MAX_OTHERS = 20_000  # lines that are no rows of numbers


def read_columns(text):
    """Scans of a text of columns; where the angles fall back and start anew, the next scan begins."""
    separator = _separator(text)
    head, rows, lines, others, singles = _sorted_lines(text, separator)
    if len(singles) > max(2, 20 * len(rows)):
        raise ScanError("there is one number a line: the angles are missing. Export two columns, 2θ and intensity")
    if not rows:
        raise ScanError("this text holds no columns of numbers. Export the scan as two columns, 2θ and intensity (.xy)")
    if not any(map(ANGLE.search, head[-3:])):
        _check_columns(rows)
    columns, places, n_cells = _columns(rows, lines)
    names = _names(head, separator, places, n_cells)
    at, warnings = _choose(names, len(columns))
    decimal = _decimal_mark(columns, separator)
    angle, intensity = (columns[k] for k in at)
    present = [bool(a) for a in angle]
    for i, a, b in zip(lines, angle, intensity):
        if bool(a) != bool(b):
            raise ScanError(
                f"line {i} has an {'angle without intensity' if a else 'intensity without angle'}. Repair it"
            )
    before = np.append(0, np.cumsum(present))
    lines = [i for i, here in zip(lines, present) if here]
    angle, intensity = (_to_numbers([word for word in column if word], decimal, lines) for column in (angle, intensity))
    for k, i, line in others:
        # Words stand above a further scan, which begins at lower angles, and below the last one.
        k = before[k]
        if (0 < k < len(angle) and angle[k] > angle[k - 1]) or (k == len(angle) and line[0].isdigit()):
            raise ScanError(f"line {i} ({line[:40]!r}) cannot be read as numbers. Repair or remove it")
    pieces = _pieces(angle)
    fields, doubts = facts_of(head, names, at, len(angle))
    if fields.pop("radian", False):
        angle = np.degrees(angle)
    warnings = (*warnings, *doubts)
    if along := fields.pop("along", None):
        angle, doubts = in_angstrom(along[0], angle, along[1])
        fields |= {"warnings": (*warnings, *doubts)}
        return [scan_along(along[0], angle[piece], intensity[piece], **fields) for piece in pieces]
    return [Scan(two_theta=angle[piece], intensity=intensity[piece], warnings=warnings, **fields) for piece in pieces]


def _sorted_lines(text, separator):
    """Lines above the first row, cells of the rows, their line numbers, other lines below, lines of a single number."""
    head, rows, lines, others, singles = [], [], [], [], []
    n_cells, last_single = 0, None
    for i, line in enumerate(lines_of(text), 1):
        if len(line) > MAX_LINE:
            raise ScanError(
                f"line {i} has {len(line)} characters: no row of a table. Export two columns, 2θ and intensity"
            )
        line = line.strip(" \r\n")
        if not line or (rows and line.startswith(COMMENTS)):
            continue
        cells = [word.strip() for word in (line.replace('"', "") if '"' in line else line).split(separator)]
        filled = [cell for cell in cells if cell]
        if len(filled) >= 2 and all(map(LIKE_A_NUMBER.fullmatch, filled)):
            if last_single and not rows:
                head.append(last_single)  # the number of points, in some formats
            lines.append(i)
            rows.append(cells)
            n_cells += len(cells)
        elif len(filled) == 1 and len(rows) < 2 and LIKE_A_NUMBER.fullmatch(filled[0]):
            singles.append(filled)
            last_single = line
            if rows and len(singles) < 20:
                others.append((len(rows), i, line))
        elif filled and not rows:
            head.append(line)
        elif filled:
            others.append((len(rows), i, line[:60]))
        if max(len(rows), len(singles), n_cells / 10) > MAX_POINTS:
            raise ScanError(f"there are more than {MAX_POINTS} points, more than a scan has. Export one scan only")
        if len(head) + len(others) > MAX_OTHERS:
            raise ScanError(f"more than {MAX_OTHERS} lines are no rows of a table, such as line {i} ({line[:40]!r})")
    return head, rows, lines, others, singles


def _check_columns(rows):
    """Raise ScanError for a block of intensities, whose angles are stated above it as start, step and stop."""
    first = [row[0].replace(",", ".") for row in rows[1:] if len(row) > 3]
    if len(first) < max(5, len(rows) / 2):
        return
    try:
        steps = np.diff(np.array(first, np.float64))
    except ValueError:
        return  # said later, with the line
    if max((steps > 0).mean(), (steps < 0).mean()) < 0.8:
        raise ScanError(
            f"its lines of {max(map(len, rows))} numbers do not begin with an angle that runs: this is a block of "
            "intensities (start, step, stop above it?), the angles are missing. Export two columns, 2θ and intensity"
        )


def _separator(text):
    """What stands between the numbers: ";", ",", a tab or None for any white space."""
    lines = (line[:MAX_LINE].replace('"', "") for line in lines_of(text))
    matching = (line.strip(" \r\n") for line in lines if LIKE_A_ROW.fullmatch(line))
    like = [line.strip() if "\t" not in line.strip() else line for line in islice(matching, 500)]
    if not like:
        return None
    share = {mark: sum(mark in line for line in like) / len(like) for mark in ";\t"}
    if share[";"] > 0.5:
        return ";"
    if share["\t"] > 0.5:
        cut = [[word.strip() for word in line.split("\t") if word.strip()] for line in like]
        if all(len(row) > 1 and all(LIKE_A_NUMBER.fullmatch(field) for field in row) for row in cut):
            return "\t"
    if sum(", " in line or ",\t" in line for line in like) > len(like) / 2:
        return ","
    if sum(len(line.split(None, 2)) > 1 for line in like) > len(like) / 2:
        return None
    return "," if sum("," in line for line in like) > len(like) / 2 else None


def _columns(rows, lines):
    """Columns of words without those that are blank, their places, and how many columns there were with them."""
    if len({len(row) for row in rows}) > 1:
        rows = [[cell for cell in row if cell] for row in rows]
        _width(rows, lines)
    columns = [[row[k] for row in rows] for k in range(len(rows[0]))]
    places = [k for k, column in enumerate(columns) if any(column)]
    return [columns[k] for k in places], places, len(columns)


def _names(head, separator, places, n_cells):
    """Names of the columns from the last line of the header that has one for each, or None."""
    for line in reversed(head):
        line = line[:5000].replace('"', "")
        raw = line.split(separator)
        if len(raw) == n_cells:
            raw = [raw[k] for k in places]
        for names in (raw, [name for name in raw if name.strip()], line.strip("#!;%* ").split(), GAPS.split(line)):
            names = [name.strip(" #!;%*") for name in names]
            if len(names) == len(places) and any(ANGLE.search(name) or INTENSITY.search(name) for name in names):
                return names
    return None


def _choose(names, width):
    """Which columns hold the angle and the intensity, and warnings."""
    at = 0, 1
    if width > 2 and names:
        angles = [k for k, name in enumerate(names) if ANGLE.search(name)]
        others = [k for k in range(width) if k not in angles]
        if len(angles) > 1 and angles[0] + 1 in others:
            at = angles[0], angles[0] + 1  # samples side by side
        elif angles and others:
            at = angles[0], next((k for k in others if INTENSITY.search(names[k])), others[0])
    named = names and width == 3 and not any(ERROR.search(names[k]) or not names[k] for k in {0, 1, 2} - set(at))
    if width > 3 or (named and ANGLE.search(names[at[0]]) and at == (0, 1)):
        return at, [f"There are {width} columns: number {at[0] + 1} was taken as 2θ, {at[1] + 1} as the intensity."]
    return at, []


def _width(rows, numbers):
    widths = np.array([len(row) for row in rows])
    width = int(np.bincount(widths).argmax())
    if (widths != width).any():
        odd = int(np.flatnonzero(widths != width)[0])
        raise ScanError(
            f"line {numbers[odd]} has {widths[odd]} numbers, most lines have {width}. Repair the line, or export again"
        )
    return width


def _decimal_mark(columns, separator):
    if separator == ",":
        if len(columns) > 2 and all(re.fullmatch(r"[+-]?\d+", word) for column in columns for word in column if word):
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


def _pieces(angle):
    """Slices of the scans, one after the other; the whole where falling angles are disorder, not a new beginning."""
    falls = np.flatnonzero(np.diff(angle) < 0) + 1
    edges = [0, *falls.tolist(), len(angle)]
    if len(falls) and min(np.diff(edges)) >= 10:
        return [slice(first, last) for first, last in pairwise(edges)]
    return [slice(None)]
