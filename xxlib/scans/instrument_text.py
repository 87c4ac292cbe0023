"""Text files of diffractometers and refinement programs: UXD, Philips UDF, Rigaku DAT and RAS, GSAS."""

import re
from contextlib import suppress
from itertools import chain, islice

import numpy as np

from xxlib.scans.checks import agreed_steps, attempt, check_count, header_warnings, lines_of, numbers
from xxlib.scans.scan import DAMAGED, MAX_POINTS, MAX_SCANS, Scan, ScanError, source

MOST_WORDS = 3 * MAX_POINTS  # of one scan: up to three columns


def read_uxd(text):
    """Scans of a Bruker UXD file: `_KEY=value` lines, then the numbers of a scan below `_COUNTS` or its like."""
    scans, keys, kind, words = [], {}, None, []
    is_cut = not text.endswith(("\n", "\r"))
    for line in chain(lines_of(text), ["_"]):
        line = line.strip()
        if line.startswith("_"):
            name, _, value = (part.strip() for part in line[1:].partition("="))
            if kind:
                append(scans, attempt(_uxd_scan, kind, keys, words, is_cut))
                words = []
                for of_one_scan in ("START", "2THETA", "THETA", "STEPCOUNT"):
                    keys.pop(of_one_scan, None)
            kind = name if not value and re.fullmatch(r"(2THETA)?(COUNTS|CPS)(TIME)?", name) else None
            keys[name] = value.strip("'")
        elif kind and not line.startswith(";"):
            extend(words, line.split(None, MOST_WORDS))
    return scans


def _uxd_scan(kind, keys, words, is_cut):
    values = numbers(words)
    width = 1 + kind.startswith("2THETA") + kind.endswith("TIME")
    if len(values) % width:
        raise ScanError(f"the numbers below _{kind} do not fill their {width} columns. {DAMAGED}")
    columns = values.reshape(-1, width).T
    check_count(columns.shape[1], fact(keys, "STEPCOUNT") or None)
    start, place, step = (fact(keys, name) for name in ("START", "2THETA", "STEPSIZE"))
    drive = re.sub(r"[^A-Z0-9]", "", keys.get("DRIVE", "").upper())
    if start is not None and place is not None and abs(start - place) > 1e-3 and drive in ("", "COUPLED", "2THETA"):
        raise ScanError(f"the header contradicts itself: _START is {start:g}, _2THETA {place:g} degree. {DAMAGED}")
    start = place if start is None else start
    if kind.startswith("2THETA"):
        angle, intensity = columns[:2]
        warnings = header_warnings(angle, start, step)
    else:
        angle, warnings = agreed_steps(columns.shape[1], start, step, None)
        intensity = columns[0]
    if is_cut and "STEPCOUNT" not in keys:
        warnings = (
            *warnings,
            "The file does not state how many points there are and ends within a line: is it complete?",
        )
    return Scan(
        two_theta=angle, intensity=intensity, unit="counts per second" if "CPS" in kind else "counts",
        format="Bruker UXD", scan_axis=keys.get("DRIVE"), sample=keys.get("SAMPLE", ""), warnings=warnings,
        time_per_step=columns[-1] if kind.endswith("TIME") else _hint(keys, "STEPTIME"),
        **source(keys.get("ANODE"), _hint(keys, "WL1"), _hint(keys, "WL2"), _hint(keys, "WLRATIO", zero=True)),
    )  # fmt: skip


def read_udf(text):
    """The scan of a Philips UDF file: `key, value, .../` lines, then the counts below RawScan."""
    head, _, body = text.partition("RawScan")
    keys = {}
    for line in lines_of(head):
        name, _, value = line.partition(",")
        keys[name.strip()] = value.strip().rstrip("/").strip().rstrip(",").strip()
    body, mark, rest = body.partition("/")
    if not mark:
        raise ScanError(f"the counts do not end with the mark '/'. {DAMAGED}")
    if re.match(r"[\s,]*\d", rest):
        raise ScanError(f"further numbers follow the mark '/' that ends the counts. {DAMAGED}")
    counts = numbers(body.replace(",", " "))
    ends = numbers(keys.get("DataAngleRange", "").replace(",", " "), "for DataAngleRange")
    start, stop = ends if len(ends) == 2 else (None, None)
    angle, warnings = agreed_steps(len(counts), start, fact(keys, "ScanStepSize"), stop)
    return [
        Scan(
            two_theta=angle, intensity=counts, format="Philips UDF", sample=keys.get("SampleIdent", ""),
            time_per_step=_hint(keys, "ScanStepTime"), warnings=warnings,
            **source(keys.get("Anode"), _hint(keys, "LabdaAlpha1"), _hint(keys, "LabdaAlpha2"),
                     _hint(keys, "RatioAlpha21", zero=True)),
        )
    ]  # fmt: skip


def read_rigaku_dat(text):
    """Scans of a Rigaku .dat file: `*KEY = value` lines, then the intensities of a scan below `*COUNT`."""
    scans, keys, words, counting = [], {}, [], False
    for line in chain(lines_of(text), ["*END"]):
        line = line.strip()
        if not line.startswith("*"):
            extend(words, line.replace(",", " ").split(None, MOST_WORDS) if counting else [])
            continue
        if counting:
            append(scans, attempt(_dat_scan, keys, words))
            words = []
            for of_one_scan in ("START", "STOP", "COUNT"):
                keys.pop(of_one_scan, None)
        name, _, value = (part.strip() for part in line[1:].partition("="))
        keys[name] = value
        counting = name == "COUNT" and value != "0"
    return scans


def _dat_scan(keys, words):
    promised = fact(keys, "COUNT")
    check_count(len(words), promised)
    angle, warnings = agreed_steps(len(words), *(fact(keys, name) for name in ("START", "STEP", "STOP")))
    return Scan(
        two_theta=angle, intensity=numbers(words), format="Rigaku DAT", warnings=warnings,
        unit="counts per second" if keys.get("YUNIT", "").lower() in ("cps", "counts/s") else "counts",
        scan_axis=keys.get("SCAN_AXIS") or keys.get("SCAN_MODE"), sample=keys.get("SAMPLE", ""),
        time_per_step=_hint(keys, "SPEED") if keys.get("SPEED_DIM", "").startswith("sec") else None,
        **source(None, _hint(keys, "WAVE_LENGTH1"), _hint(keys, "WAVE_LENGTH2")),
    )  # fmt: skip


def read_rigaku_ras(text):
    """Scans of a Rigaku .ras file: `*KEY "value"` lines, then angle, intensity and attenuator factor."""
    scans, keys, rows = [], {}, None
    for line in lines_of(text):
        line = line.strip()
        name, _, value = line.partition(" ")
        if name == "*RAS_HEADER_START":
            keys, rows = {}, None
        elif name == "*RAS_INT_START":
            rows = []
        elif name == "*RAS_INT_END" and rows is not None:
            append(scans, attempt(_ras_scan, keys, rows))
            rows = None
        elif rows is None and name.startswith("*"):
            keys[name[1:]] = value.strip().strip('"')
        elif line and rows is not None:
            extend(rows, [line], MAX_POINTS)
    if rows is not None:
        scans.append(ScanError(f"the intensities do not end with *RAS_INT_END. {DAMAGED}"))
    return scans


def _ras_scan(keys, rows):
    table = table_of(rows)
    check_count(len(table), fact(keys, "MEAS_DATA_COUNT") or None)
    intensity, warnings = attenuated(table)
    start, step, stop = (fact(keys, f"MEAS_SCAN_{name}") for name in ("START", "STEP", "STOP"))
    speed = _hint(keys, "MEAS_SCAN_SPEED")
    return Scan(
        two_theta=table[:, 0], intensity=intensity, format="Rigaku RAS",
        warnings=(*warnings, *header_warnings(table[:, 0], start, step or None, stop)),
        unit="counts per second" if keys.get("MEAS_SCAN_UNIT_Y", "").lower() == "cps" else "counts",
        scan_axis=keys.get("MEAS_SCAN_AXIS_X"), sample=keys.get("FILE_SAMPLE", ""),
        time_per_step=60 * step / speed if step and speed and keys.get("MEAS_SCAN_SPEED_UNIT") == "deg/min" else None,
        **source(keys.get("HW_XG_TARGET_NAME"), _hint(keys, "HW_XG_WAVE_LENGTH_ALPHA1"),
                 _hint(keys, "HW_XG_WAVE_LENGTH_ALPHA2")),
    )  # fmt: skip


def table_of(rows):
    """Table (n, 2 or 3) of lines with angle, intensity and perhaps the factor of an attenuator."""
    cells = [line.split(None, 3)[:3] for line in islice(rows, MAX_POINTS + 1)]
    if len(cells) > MAX_POINTS:
        raise ScanError(f"a scan of more than {MAX_POINTS} points, more than one has. Export one scan only")
    if not cells or len({len(row) for row in cells}) > 1 or len(cells[0]) < 2:
        raise ScanError(f"the scan is no table of angles and intensities. {DAMAGED}")
    return numbers([word for row in cells for word in row]).reshape(len(cells), -1)


def attenuated(table):
    """Intensities (n,) as they were before the attenuator, and warnings; table: (n, 2 or 3)."""
    if table.shape[1] > 2 and not np.isfinite(table[:, 2]).all():
        raise ScanError(f"a factor of the attenuator is no finite number. {DAMAGED}")
    if table.shape[1] > 2 and (table[:, 2] != table[0, 2]).any():
        warning = "The attenuator changed during the scan: intensities were multiplied by its factor."
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by its place later
            return table[:, 1] * table[:, 2], (warning,)
    return table[:, 1], ()


def read_gsas(text):
    """Scans of a GSAS data file (BANK lines; STD, ESD, FXY and FXYE of constant wavelength); angles in 0.01 degree."""
    scans, head, bank, lines = [], [], None, []
    for line in chain(lines_of(text), ["BANK"]):
        if line.startswith("BANK"):
            if bank:
                append(scans, attempt(_gsas_scan, "".join(head), bank, lines))
            bank, lines = line, []
        elif bank is None:
            head.append(line)
        elif line.strip() and not line.startswith("#"):
            extend(lines, [line.rstrip("\r\n")], MAX_POINTS)
    return scans


def _gsas_scan(head, bank, lines):
    fields = bank.split()
    if len(fields) < 7:
        raise ScanError(f"the line {bank.strip()[:60]!r} does not state number, binning, start and step. {DAMAGED}")
    # Without a type the numbers are of type STD.
    kind = fields[-1] if fields[-1].isalpha() else "STD"
    if not fields[4].startswith("CONS"):
        raise ScanError(f"the scan is binned as {fields[4]}: a time-of-flight measurement, not one of X-rays")
    if kind not in ("STD", "ESD", "FXY", "FXYE"):
        raise ScanError(f"GSAS data of type {kind} are not supported. Export the scan as .xy or .fxye")
    promised, n_lines = _whole(fields[2]), _whole(fields[3])
    start, step = numbers(fields[5:7], "for start and step on the line BANK") / 100
    if kind.startswith("FXY"):
        check_count(len(lines), promised)
        table = table_of(lines)
        angle, intensity = table[:, 0] / 100, table[:, 1]
        warnings = header_warnings(angle, start, step)
    else:
        # Eight characters a number: with STD the first two are the number of detectors, with ESD errors alternate.
        cells = [line[at : at + 8] for line in lines for at in range(0, 80, 8) if line[at : at + 8].strip()]
        intensity = numbers([cell[2:].strip() if kind == "STD" else cell.strip() for cell in cells])
        intensity = intensity[::2] if kind == "ESD" else intensity
        if len(lines) > n_lines or (intensity[promised:] != 0).any():  # zeros fill up the last line
            check_count(len(intensity), promised)
            raise ScanError(f"the line BANK promises {n_lines} lines, the file holds {len(lines)}. {DAMAGED}")
        intensity = intensity[:promised]
        check_count(len(intensity), promised)
        angle, warnings = agreed_steps(promised, start, step, None)
    stated = re.search(r"wavelength\s*=\s*(\d[\d.]*)", head, re.IGNORECASE)
    named = re.search(r"sample name\s*=\s*(.*)", head)
    return Scan(
        two_theta=angle, intensity=intensity, format=f"GSAS {kind}", sample=named[1].strip() if named else "",
        warnings=warnings, wavelength=source(None, float(numbers([stated[1]])[0]))["wavelength"] if stated else None,
    )  # fmt: skip


def extend(words, more, most=MOST_WORDS):
    """Add to the words or lines of one scan, which are counted while they are read."""
    words += more
    if len(words) > most:
        raise ScanError(f"a scan of more than {MAX_POINTS} points, more than one has. Export one scan only")


def append(scans, more):
    """Add to the scans of a file, which are counted while they are read."""
    scans += more
    if len(scans) > MAX_SCANS:
        raise ScanError(f"the file holds more than {MAX_SCANS} scans. Export one scan only")


def fact(keys, name):
    """A number of a header, or None where it has none; raises ScanError for what is no number."""
    words = str(keys.get(name, "")).split()
    if not words:
        return None
    with suppress(ValueError):
        value = float(words[0])
        if np.isfinite(value) and "_" not in words[0]:
            return value
    raise ScanError(f"the header's {name} is {words[0][:20]!r}, no number. {DAMAGED}")


def _hint(keys, name, zero=False):
    """A number that the angles do not follow from; None where it is missing, unreadable or (unless allowed) zero."""
    with suppress(ScanError):
        value = fact(keys, name)
        return value if value or zero else None
    return None


def _whole(word):
    if not re.fullmatch(r"\d{1,9}", word):
        raise ScanError(f"where a number of points should be there is {word[:20]!r}. {DAMAGED}")
    return int(word)
