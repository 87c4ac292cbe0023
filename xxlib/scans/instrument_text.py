"""Text files of diffractometers and refinement programs: UXD, Philips UDF, Rigaku DAT and RAS, GSAS, pdCIF."""

import re

import numpy as np

from xxlib.scans.scan import DAMAGED, Scan, ScanError, check_count, even_steps, source


def read_uxd(text):
    """Scans of a Bruker UXD file: `_KEY=value` lines, then the numbers of a scan below `_COUNTS` or its like."""
    scans, keys, kind = [], {}, None
    numbers = []

    def finish():
        if kind is not None:
            scans.append(_uxd_scan(kind, dict(keys), numbers.copy()))
            numbers.clear()

    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith(";"):
            continue
        if line.startswith("_"):
            name, _, value = line[1:].partition("=")
            finish()
            kind = None
            if not value and re.fullmatch(r"(2THETA)?(COUNTS|CPS)(TIME)?", name.strip()):
                kind = name.strip()
            keys[name.strip()] = value.strip().strip("'")
        elif kind is not None:
            numbers.extend(line.split())
    finish()
    return scans


def _uxd_scan(kind, keys, numbers):
    values = _floats(numbers)
    width = 1 + kind.startswith("2THETA") + kind.endswith("TIME")
    if len(values) % width:
        raise ScanError(f"the numbers below _{kind} do not fill their {width} columns. {DAMAGED}")
    columns = values.reshape(-1, width).T
    start, step = _key(keys, "START") or _key(keys, "2THETA"), _key(keys, "STEPSIZE")
    if kind.startswith("2THETA"):
        angle, intensity = columns[:2]
    elif start is None or step is None:
        raise ScanError(f"the header has no _START and _STEPSIZE. {DAMAGED}")
    else:
        angle, intensity = even_steps(start, step, columns.shape[1]), columns[0]
    promised = _key(keys, "STEPCOUNT")
    if promised:
        check_count(len(intensity), int(promised))
    return Scan(
        two_theta=angle, intensity=intensity, unit="counts per second" if "CPS" in kind else "counts",
        format="Bruker UXD", scan_axis=keys.get("DRIVE"), sample=keys.get("SAMPLE", ""),
        time_per_step=columns[-1] if kind.endswith("TIME") else _key(keys, "STEPTIME"),
        **source(keys.get("ANODE"), _key(keys, "WL1"), _key(keys, "WL2"), _key(keys, "WLRATIO", zero=True)),
    )  # fmt: skip


def read_udf(text):
    """The scan of a Philips UDF file: `key, value, .../` lines, then the counts below RawScan."""
    head, _, body = text.partition("RawScan")
    keys = {}
    for line in head.splitlines():
        name, _, value = line.partition(",")
        keys[name.strip()] = value.strip().rstrip("/").strip().rstrip(",").strip()
    if "/" not in body:
        raise ScanError(f"the counts do not end with the mark '/'. {DAMAGED}")
    counts = _floats(body.partition("/")[0].replace(",", " ").split())
    start, stop = _floats(keys.get("DataAngleRange", "").replace(",", " ").split() or ["nan", "nan"])
    step = _key(keys, "ScanStepSize")
    if not step or not np.isfinite([start, stop]).all():
        raise ScanError(f"the header has no DataAngleRange and ScanStepSize. {DAMAGED}")
    n = round((stop - start) / step) + 1
    check_count(len(counts), n)
    return [
        Scan(
            two_theta=even_steps(start, step, n),
            intensity=counts[:n],
            format="Philips UDF",
            sample=keys.get("SampleIdent", ""),
            time_per_step=_key(keys, "ScanStepTime"),
            **source(
                keys.get("Anode"), _key(keys, "LabdaAlpha1"), _key(keys, "LabdaAlpha2"),
                _key(keys, "RatioAlpha21", zero=True),
            ),
        )
    ]  # fmt: skip


def read_rigaku_dat(text):
    """Scans of a Rigaku .dat file: `*KEY = value` lines, then the intensities of a scan below `*COUNT`."""
    scans, keys, numbers, promised = [], {}, [], 0
    for line in [*text.splitlines(), "*END"]:
        line = line.strip()
        if not line.startswith("*"):
            numbers.extend(line.replace(",", " ").split() if promised else [])
            continue
        if promised:
            check_count(len(numbers), promised)
            start, step = _key(keys, "START", zero=True), _key(keys, "STEP")
            if start is None or step is None:
                raise ScanError(f"the header has no *START and *STEP. {DAMAGED}")
            per_second = keys.get("YUNIT", "").lower() in ("cps", "counts/s")
            scans.append(
                Scan(
                    two_theta=even_steps(start, step, promised), intensity=_floats(numbers[:promised]),
                    unit="counts per second" if per_second else "counts", format="Rigaku DAT",
                    scan_axis=keys.get("SCAN_AXIS") or keys.get("SCAN_MODE"), sample=keys.get("SAMPLE", ""),
                    time_per_step=_key(keys, "SPEED") if keys.get("SPEED_DIM", "").startswith("sec") else None,
                    **source(None, _key(keys, "WAVE_LENGTH1"), _key(keys, "WAVE_LENGTH2")),
                )
            )  # fmt: skip
            numbers, promised = [], 0
        name, _, value = line[1:].partition("=")
        keys[name.strip()] = value.strip()
        if name.strip() == "COUNT":
            promised = int(_key(keys, "COUNT") or 0)
    return scans


def read_rigaku_ras(text):
    """Scans of a Rigaku .ras file: `*KEY "value"` lines, then angle, intensity and attenuator factor."""
    scans = []
    for head, body in re.findall(r"\*RAS_HEADER_START(.*?)\*RAS_INT_START(.*?)(?=\*RAS_INT_END)", text, re.DOTALL):
        keys = dict(re.findall(r'^\*(\S+)\s+"(.*?)"', head, re.MULTILINE))
        rows = [line.split() for line in body.splitlines() if line.strip()]
        table = _floats([number for row in rows for number in row[:3]]).reshape(len(rows), -1)
        if table.shape[1] < 2:
            raise ScanError(f"the scan is no table of angles and intensities. {DAMAGED}")
        promised = _key(keys, "MEAS_DATA_COUNT")
        if promised:
            check_count(len(table), int(promised))
        intensity, warnings = table[:, 1], ()
        if table.shape[1] > 2 and np.ptp(table[:, 2]) > 0:
            intensity = intensity * table[:, 2]
            warnings = ("The attenuator changed during the scan: intensities were multiplied by its factor.",)
        speed, step = _key(keys, "MEAS_SCAN_SPEED"), _key(keys, "MEAS_SCAN_STEP")
        scans.append(
            Scan(
                two_theta=table[:, 0], intensity=intensity, format="Rigaku RAS", warnings=warnings,
                unit="counts per second" if keys.get("MEAS_SCAN_UNIT_Y", "").lower() == "cps" else "counts",
                scan_axis=keys.get("MEAS_SCAN_AXIS_X"), sample=keys.get("FILE_SAMPLE", ""),
                time_per_step=60 * step / speed if step and keys.get("MEAS_SCAN_SPEED_UNIT") == "deg/min" else None,
                **source(keys.get("HW_XG_TARGET_NAME"), _key(keys, "HW_XG_WAVE_LENGTH_ALPHA1"),
                         _key(keys, "HW_XG_WAVE_LENGTH_ALPHA2")),
            )
        )  # fmt: skip
    return scans


def read_gsas(text):
    """Scans of a GSAS data file (BANK lines; STD, ESD, FXY and FXYE of constant wavelength); angles in 0.01 degree."""
    scans = []
    pieces = re.split(r"^(BANK .*)$", text, flags=re.MULTILINE)
    head = pieces[0]
    stated = re.search(r"wavelength\s*=\s*([\d.]+)", head, re.IGNORECASE)
    tube = {"wavelength": float(stated[1])} if stated else {}
    named = re.search(r"sample name\s*=\s*(.*)", head)
    for bank, body in zip(pieces[1::2], pieces[2::2]):
        fields = bank.split()
        n, binning, kind = int(fields[2]), fields[4], fields[-1]
        if not binning.startswith("CONS"):
            raise ScanError(f"the scan is binned as {binning}: a time-of-flight measurement, not one of X-rays")
        lines = [line.rstrip("\r") for line in body.splitlines() if line.strip() and not line.startswith("#")]
        if kind in ("FXY", "FXYE"):
            rows = [line.split() for line in lines]
            check_count(len(rows), n)
            table = _floats([number for row in rows[:n] for number in row[:2]]).reshape(n, 2)
            angle, intensity = table[:, 0] / 100, table[:, 1]
        elif kind in ("STD", "ESD"):
            # Eight characters a number: with STD the first two are the number of detectors, with ESD errors alternate.
            cells = [line[at : at + 8] for line in lines for at in range(0, 80, 8) if line[at : at + 8].strip()]
            numbers = _floats([cell[2:] if kind == "STD" else cell for cell in cells])
            numbers = numbers[::2] if kind == "ESD" else numbers
            check_count(len(numbers), n)
            angle, intensity = even_steps(float(fields[5]) / 100, float(fields[6]) / 100, n), numbers[:n]
        else:
            raise ScanError(f"GSAS data of type {kind} are not supported. Export the scan as .xy or .fxye")
        scans.append(
            Scan(
                two_theta=angle,
                intensity=intensity,
                format=f"GSAS {kind}",
                sample=named[1].strip() if named else "",
                **tube,
            )
        )
    return scans


def read_pdcif(text):
    """Scans of a powder CIF, one for each data block with a measured pattern."""
    import warnings

    from pymatgen.io.cif import CifFile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blocks = [block.data for block in CifFile.from_str(text).data.values()]
    scans = [scan for block in blocks if (scan := _pdcif_scan(block)) is not None]
    if not scans:
        raise ScanError(
            "this CIF holds a crystal structure but no measured pattern. Give it to the crystal reader instead"
        )
    return scans


def _pdcif_scan(block):
    for stage, intensities in (
        ("meas", ("_pd_meas_counts_total", "_pd_meas_intensity_total")),
        ("proc", ("_pd_proc_intensity_total", "_pd_proc_intensity_net")),
    ):
        intensity = next((block[name] for name in intensities if isinstance(block.get(name), list)), None)
        if intensity is None:
            continue
        n = len(intensity)
        every = block.get("_pd_meas_2theta_scan" if stage == "meas" else "_pd_proc_2theta_corrected")
        first, last, step = (block.get(f"_pd_{stage}_2theta_range_{end}") for end in ("min", "max", "inc"))
        if isinstance(every, list):
            angle = _floats(every)
        elif first and step:
            angle = even_steps(*_floats([first, step]), n)
            if last:
                check_count(n, round(np.ptp(_floats([first, last])) / _floats([step])[0]) + 1)
        else:
            continue
        wavelength = block.get("_diffrn_radiation_wavelength", "?")
        wavelength = wavelength[0] if isinstance(wavelength, list) else wavelength
        probe = str(block.get("_diffrn_radiation_probe", "x-ray")).lower()
        return Scan(
            two_theta=angle, intensity=_floats(intensity), format="pdCIF",
            wavelength=float(_floats([wavelength])[0]) if wavelength not in ("?", ".") else None,
            radiation="neutron" if "neutron" in probe else "x-ray",
        )  # fmt: skip
    return None


def _key(keys, name, zero=False):
    """A number of a header, or None where it is missing, unreadable or (unless `zero` is allowed) zero."""
    try:
        value = float(str(keys[name]).split()[0])
    except (KeyError, ValueError, IndexError):
        return None
    return value if value > 0 or (zero and value == 0) else None


def _floats(column):
    """Numbers (n,); of 119(17) the 119."""
    try:
        return np.array([float(word.partition("(")[0]) for word in column])
    except ValueError as error:
        raise ScanError(f"where a number should be there is something else ({error}). {DAMAGED}") from None
