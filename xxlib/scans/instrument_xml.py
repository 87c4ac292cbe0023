"""XML and zipped XML: PANalytical .xrdml, Rigaku .rasx, Bruker .brml.

External entities and document types are refused, and nothing is unpacked beyond a size no scan has.
"""

import io
import re
import zipfile
from contextlib import suppress
from xml.etree import ElementTree

import numpy as np

from xxlib.scans.checks import agreed_steps, attempt, check_count, header_warnings, lines_of, numbers
from xxlib.scans.instrument_text import attenuated, table_of
from xxlib.scans.scan import DAMAGED, MAX_BYTES, MAX_POINTS, MAX_SCANS, Scan, ScanError, source

MAX_MEMBERS = 2000
MAX_ELEMENTS = MAX_POINTS + 100_000  # of an XML document: a .brml has one for each point


def read_xrdml(data):
    """Scans of a PANalytical file."""
    scans = []
    for measurement in _children(_xml(data), "xrdMeasurement"):
        tube = attempt(_xrdml_tube, measurement)[0]
        for scan in _children(measurement, "scan")[: MAX_SCANS + 1]:
            scans += attempt(_xrdml_scan, scan, tube)
    return scans


def _xrdml_scan(scan, tube):
    if isinstance(tube, ScanError):
        raise tube
    points = _first(scan, "dataPoints")
    name = next((name for name in ("counts", "intensities") if _value(points, name)), None)
    if not name:
        raise ScanError(f"the scan (status {scan.get('status')}) holds no intensities. Measure or export it again")
    intensity = numbers(_value(points, name))
    # In files of version 2 the counts are as the detector gave them behind its attenuator.
    factors = _value(points, "beamAttenuationFactors")
    factors = numbers(factors) if factors and name == "counts" else np.ones(len(intensity))
    check_count(len(factors), len(intensity))
    intensity, warnings = attenuated(np.stack([factors, intensity, factors], 1))
    unit = (_first(points, name).get("unit") or "counts").lower()
    times = _value(points, "countingTimes")
    times = numbers(times) if times else _number(points, "commonCountingTime")
    axis = scan.get("scanAxis")
    angle, doubts = _xrdml_angles(points, len(intensity), axis)
    if scan.get("status") not in (None, "Completed"):
        doubts = (
            f"The status of the scan is {scan.get('status')!r}: if the end position in the file is the planned one, "
            f"its angles are wrong (here {len(angle)} points to {angle[-1]:.5g} degree). Compare a known line.",
        )
    return Scan(
        two_theta=angle, intensity=intensity, format="PANalytical XRDML", scan_axis=axis, time_per_step=times,
        unit="counts per second" if unit in ("cps", "counts/s") else "counts", warnings=(*warnings, *doubts),
        **tube,
    )  # fmt: skip


def _xrdml_tube(measurement):
    wavelength = _first(measurement, "usedWavelength")
    anode = _value(measurement, "anodeMaterial")
    if wavelength is not None and (wavelength.get("intended") or "").replace("-", "").lower().startswith("kbeta"):
        return source(None, _number(wavelength, "kBeta"))
    return source(anode, *(_number(wavelength, name) for name in ("kAlpha1", "kAlpha2", "ratioKAlpha2KAlpha1")))


def _xrdml_angles(points, n, axis):
    """Angles (n,) and warnings."""
    ends = {}
    for positions in _children(points, "positions"):
        every = _value(positions, "listPositions")
        if every and positions.get("axis") == "2Theta":
            angles = numbers(every)
            if len(angles) != n:
                raise ScanError(f"{len(angles)} angles but {n} intensities. {DAMAGED}")
            return angles, ()
        ends[positions.get("axis")] = _number(positions, "startPosition"), _number(positions, "endPosition")
    start, stop = ends.get("2Theta", (None, None))
    if start is None or stop is None or start == stop:
        raise ScanError(f"2θ did not move during this scan (axis {axis}): a rocking curve? Export the θ-2θ scan")
    if None not in ends.get("Omega", (None,)):
        turned = ends["Omega"][1] - ends["Omega"][0]
        if turned and abs(stop - start - 2 * turned) > 1.5 * abs(stop - start) / max(n - 1, 1):
            raise ScanError(
                f"the header contradicts itself: 2θ runs from {start:g} to {stop:g} degree, ω over {turned:g}, which "
                f"is not half of that. {DAMAGED}"
            )
    angle, warnings = agreed_steps(n, start, None, stop)
    step = (stop - start) / (n - 1)
    # Steps are round numbers, or start and stop are not (line detectors).
    if all(abs(round(x, 3) - x) < 1e-7 for x in (start, stop)) and abs(round(step, 4) - step) > 1e-6:
        warnings = (
            f"{n} points from {start:g} to {stop:g} degree are {step:.6g} apart, no round step: is the list of counts "
            "complete, the end the measured one?",
        )
    return angle, warnings


def read_zip(data):
    """Scans of a .rasx or .brml archive; raises ScanError for any other archive."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = archive.namelist()
    if len(names) > MAX_MEMBERS:
        raise ScanError(f"the archive has {len(names)} members, more than one scan has. Export one scan only")
    budget = [MAX_BYTES]
    profiles = _in_order(names, r"(?:^|/)Data\d+/Profile\d+\.txt$")
    if profiles:
        return [scan for profile in profiles for scan in attempt(_rasx_scan, archive, profile, budget)]
    raw = _in_order(names, r"(?:^|/)Experiment\d+/RawData\d+\.xml$")
    if raw:
        return [scan for name in raw for scan in attempt(_brml_scans, archive, name, budget)]
    if any(name.startswith("xl/") for name in names):
        raise ScanError("this is an Excel workbook. Save the sheet as CSV")
    raise ScanError("this zip archive holds no Rigaku or Bruker scan. Unpack it, or export the scan as .xy")


def _in_order(names, pattern):
    """The names that fit, by their numbers: RawData2 before RawData10."""
    return sorted(
        filter(re.compile(pattern).search, names), key=lambda name: [int(n) for n in re.findall(r"\d+", name)]
    )


def _rasx_scan(archive, profile, budget):
    text = _member(archive, profile, budget).decode("utf-8-sig")
    table = table_of(line for line in lines_of(text) if line.strip())
    conditions = re.sub(r"Profile(\d+)\.txt$", r"MesurementConditions\1.xml", profile)  # sic
    settings = _xml(_member(archive, conditions, budget)) if conditions in archive.namelist() else None
    scan = _first(settings, "ScanInformation")
    intensity, warnings = attenuated(table)
    check_count(len(table), _number(scan, "DataCount") or None)
    start, step, stop = (_number(scan, name) for name in ("Start", "Step", "Stop"))
    time = None
    if _value(scan, "SpeedUnit") == "deg/min" and _number(scan, "Speed") and step:
        time = 60 * step / _number(scan, "Speed")
    per_second = (_value(scan, "IntensityUnit") or "counts").lower() in ("cps", "counts/s")
    return Scan(
        two_theta=table[:, 0], intensity=intensity, unit="counts per second" if per_second else "counts",
        format="Rigaku RASX", scan_axis=_value(scan, "AxisName"), sample=_value(settings, "SampleName") or "",
        time_per_step=time, warnings=(*warnings, *header_warnings(table[:, 0], start, step or None, stop)),
        **source(
            _value(settings, "TargetName"),
            *(_number(settings, name) for name in ("WavelengthKalpha1", "WavelengthKalpha2")),
        ),
    )  # fmt: skip


def _brml_scans(archive, name, budget):
    """Scans of one member of a .brml, one for each measured route."""
    raw = _xml(_member(archive, name, budget))
    tube = source(
        _value(raw, "TubeMaterial"),
        *(_number(raw, name) for name in ("WaveLengthAlpha1", "WaveLengthAlpha2", "WaveLengthRatio")),
    )
    routes = _outermost(raw, "DataRoute")
    measured = [route for route in routes if route.get("RouteFlag") in (None, "Measured")] or routes
    if not measured:
        raise ScanError(f"{name} holds no measured points. Was this scan started?")
    return [scan for route in measured[: MAX_SCANS + 1] for scan in attempt(_brml_scan, route, tube)]


def _brml_scan(route, tube):
    rows = [point.text or "" for point in route.iter() if _tag(point) == "Datum"]
    width = rows[0].count(",") + 1 if rows else 0
    if not rows or any(row.count(",") + 1 != width for row in rows):
        raise ScanError(f"the archive holds no table of measured points. {DAMAGED}")
    if width * len(rows) > 4 * MAX_POINTS:
        raise ScanError(f"{len(rows)} points of {width} numbers are more than a scan has. Export one scan only")
    table = numbers([word for row in rows for word in row.split(",")]).reshape(len(rows), width)
    angle = intensity = None
    for view in _outermost(route, "RawDataView"):
        first, length = (_whole(view.get(name)) for name in ("Start", "Length"))
        fields = [element.get("FieldName") for element in view.iter() if _tag(element) == "FieldDefinitions"]
        if "TwoTheta" in fields:
            angle = table[:, first + fields.index("TwoTheta")]
        if _first(view, "Recording") is not None and intensity is None:
            if length > 1:
                raise ScanError("each point is a picture of an area detector. Export the integrated scan as .xy")
            intensity = table[:, first]
    if intensity is None:
        raise ScanError(f"the archive does not say which column is the intensity. {DAMAGED}")
    scan = _first(route, "ScanInformation")
    check_count(len(table), _number(scan, "MeasurementPoints") or None)
    start, step, stop = _brml_axis(scan, None if angle is None else angle[0])
    if angle is not None:
        warnings = header_warnings(angle, start, step, stop)
    elif start is None:
        raise ScanError("2θ is not among the axes of this scan. Export the θ-2θ scan")
    else:
        angle, warnings = agreed_steps(len(table), start, step, stop)
    if np.ptp(angle) == 0:
        raise ScanError("2θ did not move during this scan: a rocking curve? Export the θ-2θ scan")
    return Scan(
        two_theta=angle, intensity=intensity, format="Bruker BRML", time_per_step=_number(scan, "TimePerStep"),
        scan_axis=scan.get("VisibleName") or scan.get("ScanName") if scan is not None else None, warnings=warnings,
        **tube,
    )  # fmt: skip


def _brml_axis(scan, first):
    """Start, step and stop of 2theta as the header plans them, each None where it does not; first: the first angle."""
    for axis in _outermost(scan, "ScanAxisInfo") if scan is not None else ():
        if axis.get("AxisId") == "TwoTheta":
            start, stop = (_number(axis, name) for name in ("Start", "Stop"))
            shift = _number(axis, "Reference") or 0.0
            if first is not None and start is not None and abs(first - start) < abs(first - start - shift):
                shift = 0.0
            return (None if start is None else shift + start, _number(axis, "Increment"),
                    None if stop is None else shift + stop)  # fmt: skip
    return None, None, None


def _whole(value):
    if not re.fullmatch(r"\d{1,6}", value or ""):
        raise ScanError(f"a column of the table is given as {value!r}. {DAMAGED}")
    return int(value)


def _member(archive, name, budget):
    """Bytes of a member of an archive; all that is unpacked from it counts, whatever its own list of sizes says."""
    info = archive.getinfo(name)
    if info.flag_bits & 1:
        raise ScanError("the archive is encrypted. Unpack it with its password, or export the scan as .xy")
    pieces = []
    with archive.open(info) as file:
        # In small steps: bz2 and LZMA unpack whatever they are given at once.
        while piece := file.read(4096):
            pieces.append(piece)
            budget[0] -= len(piece)
            if budget[0] < 0:
                raise ScanError(f"the archive unpacks to more than {MAX_BYTES // 10**6} MB. Export one scan only")
    return b"".join(pieces)


def _xml(data):
    """Root of an XML document; document types and entities are refused, and elements counted while they are read."""
    import defusedxml
    from defusedxml.ElementTree import DefusedXMLParser

    n_elements = 0

    class Counting(ElementTree.TreeBuilder):
        def start(self, tag, attributes):
            nonlocal n_elements
            n_elements += 1
            if n_elements > MAX_ELEMENTS:
                raise ScanError(f"the XML has more than {MAX_ELEMENTS} elements. Export one scan only")
            return super().start(tag, attributes)

    parser = DefusedXMLParser(target=Counting(), forbid_dtd=True)
    try:
        parser.feed(data)
        return parser.close()
    except defusedxml.DefusedXmlException:
        raise ScanError("the XML defines a document type or entities, which no diffractometer writes") from None


def _tag(element):
    return element.tag.rpartition("}")[2]


def _outermost(element, name):
    """The elements of a name at any depth, in their order, none inside another."""
    outermost, stack = [], [element]
    while stack:
        at = stack.pop()
        if _tag(at) == name:
            outermost.append(at)
        else:
            stack.extend(reversed(at))
    return outermost


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


def _number(element, name):
    """A number, of a length in angstrom; None where there is none.  Raises ScanError for one that is not finite."""
    child, number = _first(element, name), None
    with suppress(TypeError, ValueError):
        number = float(_value(child, name))
    if number is None:
        return None
    if not np.isfinite(number):
        raise ScanError(f"the header's {name} is {number}, no number. {DAMAGED}")
    return number * {"nm": 10.0, "pm": 0.01}.get((child.get("unit") or child.get("Unit") or "").lower(), 1.0)
