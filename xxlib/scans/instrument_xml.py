"""XML and zipped XML: PANalytical .xrdml, Rigaku .rasx, Bruker .brml.

External entities and document types are refused, and nothing is unpacked beyond a size no scan has.
"""

import io
import re
import zipfile
from contextlib import suppress

import numpy as np

from xxlib.scans.scan import DAMAGED, Scan, ScanError, check_count, even_steps, source

MAX_UNPACKED = 100_000_000  # bytes of one member
MAX_MEMBERS = 2000


def read_xrdml(data):
    """Scans of a PANalytical file."""
    scans = []
    for measurement in _children(_xml(data), "xrdMeasurement"):
        wavelength = _first(measurement, "usedWavelength")
        tube = source(
            _value(measurement, "anodeMaterial"), _number(wavelength, "kAlpha1"), _number(wavelength, "kAlpha2"),
            _number(wavelength, "ratioKAlpha2KAlpha1"),
        )  # fmt: skip
        for scan in _children(measurement, "scan"):
            scans.append(_xrdml_scan(scan, tube))
    return scans


def _xrdml_scan(scan, tube):
    points = _first(scan, "dataPoints")
    values = _value(points, "counts") or _value(points, "intensities")
    if not values:
        raise ScanError(f"the scan has no intensities. {DAMAGED}")
    intensity = np.array(values.split(), float)
    warnings = []
    # In files of version 2 the counts are as the detector gave them behind its attenuator.
    factors = _value(points, "beamAttenuationFactors")
    if factors and _value(points, "counts"):
        factors = np.array(factors.split(), float)
        check_count(len(factors), len(intensity))
        if np.ptp(factors) > 0:
            intensity = intensity * factors
            warnings.append("The beam attenuator changed during the scan: counts were multiplied by its factor.")
    if scan.get("status") not in (None, "Completed"):
        warnings.append(f"The status of the scan is {scan.get('status')!r}: it may end early.")
    times = _value(points, "countingTimes")
    times = np.array(times.split(), float) if times else _number(points, "commonCountingTime")
    axis = scan.get("scanAxis")
    return Scan(
        two_theta=_xrdml_angles(points, len(intensity), axis), intensity=intensity, format="PANalytical XRDML",
        scan_axis=axis, time_per_step=times, warnings=tuple(warnings), **tube,
    )  # fmt: skip


def _xrdml_angles(points, n, axis):
    for positions in _children(points, "positions"):
        if positions.get("axis") == "2Theta":
            every = _value(positions, "listPositions")
            if every:
                angles = np.array(every.split(), float)
                if len(angles) != n:
                    raise ScanError(f"{len(angles)} angles but {n} intensities. {DAMAGED}")
                return angles
            start, stop = _number(positions, "startPosition"), _number(positions, "endPosition")
            if start is not None and stop is not None and n > 1 and start != stop:
                return even_steps(start, (stop - start) / (n - 1), n)
    raise ScanError(f"2θ did not move during this scan (axis {axis}): a rocking curve? Export the θ-2θ scan")


def read_zip(data):
    """Scans of a .rasx or .brml archive; raises ScanError for any other archive."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = archive.namelist()
    if len(names) > MAX_MEMBERS:
        raise ScanError(f"the archive has {len(names)} members, more than one scan has. Export one scan only")
    profiles = sorted(name for name in names if re.search(r"Data\d+/Profile\d+\.txt$", name))
    if profiles:
        return [_rasx_scan(archive, profile) for profile in profiles]
    raw = sorted(name for name in names if re.search(r"Experiment\d+/RawData\d+\.xml$", name))
    if raw:
        return [_brml_scan(_xml(_member(archive, name))) for name in raw]
    if any(name.startswith("xl/") for name in names):
        raise ScanError("this is an Excel workbook. Save the sheet as CSV")
    raise ScanError("this zip archive holds no Rigaku or Bruker scan. Unpack it, or export the scan as .xy")


def _rasx_scan(archive, profile):
    rows = [line.split() for line in _member(archive, profile).decode("utf-8-sig").splitlines() if line.strip()]
    table = np.array(rows, float)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ScanError(f"{profile} is no table of angles and intensities. {DAMAGED}")
    conditions = re.sub(r"Profile(\d+)\.txt$", r"MesurementConditions\1.xml", profile)  # sic
    settings = _xml(_member(archive, conditions)) if conditions in archive.namelist() else None
    scan = _first(settings, "ScanInformation")
    intensity, warnings = table[:, 1], ()
    if table.shape[1] > 2 and np.ptp(table[:, 2]) > 0:
        intensity = intensity * table[:, 2]
        warnings = ("The attenuator changed during the scan: intensities were multiplied by its factor.",)
    promised = _number(scan, "DataCount")
    if promised:
        check_count(len(table), int(promised))
    time = None
    if _value(scan, "SpeedUnit") == "deg/min" and _number(scan, "Speed") and _number(scan, "Step"):
        time = 60 * _number(scan, "Step") / _number(scan, "Speed")
    per_second = (_value(scan, "IntensityUnit") or "counts").lower() in ("cps", "counts/s")
    return Scan(
        two_theta=table[:, 0], intensity=intensity, unit="counts per second" if per_second else "counts",
        format="Rigaku RASX", scan_axis=_value(scan, "AxisName"), sample=_value(settings, "SampleName") or "",
        time_per_step=time, warnings=warnings,
        **source(
            _value(settings, "TargetName"),
            *(_number(settings, name) for name in ("WavelengthKalpha1", "WavelengthKalpha2")),
        ),
    )  # fmt: skip


def _brml_scan(raw):
    routes = [route for route in raw.iter() if _tag(route) == "DataRoute"]
    route = next((route for route in routes if route.get("RouteFlag") in (None, "Measured")), None)
    rows = [point.text.split(",") for point in route.iter() if _tag(point) == "Datum"] if route is not None else []
    if not rows or len({len(row) for row in rows}) > 1:
        raise ScanError(f"the archive holds no table of measured points. {DAMAGED}")
    table = np.array(rows, float)
    angle = intensity = None
    for view in (element for element in route.iter() if _tag(element) == "RawDataView"):
        first = int(view.get("Start"))
        fields = [element.get("FieldName") for element in view.iter() if _tag(element) == "FieldDefinitions"]
        if "TwoTheta" in fields:
            angle = table[:, first + fields.index("TwoTheta")]
        if _first(view, "Recording") is not None and intensity is None:
            width = int(view.get("Length"))
            if width > 1:
                raise ScanError("each point is a picture of an area detector. Export the integrated scan as .xy")
            intensity = table[:, first]
    if intensity is None:
        raise ScanError(f"the archive does not say which column is the intensity. {DAMAGED}")
    scan = _first(route, "ScanInformation")
    if angle is None:
        angle = _brml_axis(scan, len(table))
    if np.ptp(angle) == 0:
        raise ScanError("2θ did not move during this scan: a rocking curve? Export the θ-2θ scan")
    return Scan(
        two_theta=angle, intensity=intensity, format="Bruker BRML", time_per_step=_number(scan, "TimePerStep"),
        scan_axis=scan.get("VisibleName") or scan.get("ScanName") if scan is not None else None,
        **source(
            _value(raw, "TubeMaterial"),
            *(_number(raw, name) for name in ("WaveLengthAlpha1", "WaveLengthAlpha2", "WaveLengthRatio")),
        ),
    )  # fmt: skip


def _brml_axis(scan, n):
    for axis in (element for element in scan.iter() if _tag(element) == "ScanAxisInfo"):
        if axis.get("AxisId") == "TwoTheta":
            return _number(axis, "Reference", 0.0) + even_steps(_number(axis, "Start"), _number(axis, "Increment"), n)
    raise ScanError("2θ is not among the axes of this scan. Export the θ-2θ scan")


def _member(archive, name):
    """Bytes of a member of an archive, up to a limit: the size in the archive's own list may be a lie."""
    with archive.open(name) as file:
        data = file.read(MAX_UNPACKED + 1)
    if len(data) > MAX_UNPACKED:
        raise ScanError(f"{name} unpacks to more than {MAX_UNPACKED // 10**6} MB, which no scan does")
    return data


def _xml(data):
    import defusedxml
    from defusedxml.ElementTree import fromstring

    try:
        return fromstring(data, forbid_dtd=True)
    except defusedxml.DefusedXmlException:
        raise ScanError("the XML defines a document type or entities, which no diffractometer writes") from None


def _tag(element):
    return element.tag.rpartition("}")[2]


def _children(element, name):
    return [child for child in element if _tag(child) == name]


def _first(element, name):
    """The first element of a name at any depth, or None."""
    if element is None:
        return None
    return next((child for child in element.iter() if _tag(child) == name), None)


def _value(element, name):
    child = _first(element, name)
    text = None if child is None else (child.get("Value") or child.text)
    return text.strip() or None if text else None


def _number(element, name, default=None):
    value = _value(element, name)
    with suppress(TypeError, ValueError):
        return float(value)
    return default
