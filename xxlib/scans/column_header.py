"""What the lines above columns of numbers state: which axis it is, the wavelength, the kind of scan, its range.

Every expression is searched in one line of at most MAX_LINE characters, and none takes more than linear time.
"""

import re

from xxlib.diffraction.wavelengths import ANODES
from xxlib.scans.axes import NAMES
from xxlib.scans.scan import LARGEST_WAVELENGTH, LEAST_WAVELENGTH, ScanError, source

MAX_LINE = 1000  # characters of a line that are looked at
HC = 12.398419843  # angstrom keV

ANGLE = re.compile(r"2[\s_*-]{0,3}(θ|ϑ|th)|(two|2)[ _-]*theta|tth|angle|position|pos\b", re.IGNORECASE)
INTENSITY = re.compile(r"int|count|cps|obs|psd|^y$|^i$", re.IGNORECASE)
ERROR = re.compile(r"err|sig|esd|std|dev|unc|weight|σ|^e$|^s$", re.IGNORECASE)
INVERSE_LENGTH = (
    r"1\s?/\s?(å|a\b|ang|nm)|(å|\ba|_a|ang|angstroms?|nm)\s?\^?[{(]?[-−]\s?[12]|inverse\s(nano|ang|å)|reciprocal"
)
# An axis is named by a label alone, or before its unit or the name of the next column.
NEXT = r"(\s*[(\[/_^*<{].*|\s+(i|y|g|f|s|int\w*|counts?|cps|obs\w*|sig\w*|err\w*)\b.*|\s*)$"
NOT_AN_ANGLE = {
    what: re.compile(f"({pattern}){NEXT}" + (f"|.*({anywhere})" if anywhere else ""), re.IGNORECASE)
    for what, pattern, anywhere in (
        (
            "the scattering vector Q",
            r"(log(10)? ?\()?q\)?|momentum transfer|scattering vector|wave ?vector",
            INVERSE_LENGTH,
        ),
        ("the lattice spacing d", r"d([ _-]?(spacings?|values?|space))?|interplanar (spacing|distance)s?", None),
        ("a distance r (a pair distribution function G(r)?)", r"r|distances?", None),
        ("ω, the angle of the sample", r"omega|ω|om", None),
        ("θ, not 2θ", r"theta|θ|th", None),
        ("an angle of the sample or azimuth", r"chi|χ|phi|φ|psi|ψ|azimuth\w*", None),
        ("an energy", r"(photon |x-?ray )?energy|e|kev|ev", None),
        ("a channel number", r"channels?( ?(no\.?|number))?", None),
        ("a time of flight", r"tof|time[ -]of[ -]flight", None),
        ("a time", r"time", None),
        ("a temperature", r"temp(erature)?", None),
        ("a wavelength", r"wave ?length|lambda|λ", None),
        ("a wavenumber", r"wave ?numbers?|raman shift", r"cm\s?\^?[{(]?[-−]\s?1|1\s?/\s?cm"),
    )
}
SURE = ("the scattering vector Q", "the lattice spacing d", "a distance r (a pair distribution function G(r)?)",
        "a time of flight", "a wavenumber")  # fmt: skip
EDGES = " \t#!;%*'\"([->"
AXIS_KEY = re.compile(r"(x[ _-]?)?(radial[ _-]?)?(units?|axis|label)\s?[=:]\s?|x\s?[=:]\s?|L\s(?=\S)", re.IGNORECASE)
VALUE = re.compile(r"[=:]|[\s\])]\d+([.,]\d+)?\s?\S{0,6}$")  # a line that states the value of something
RADIAN = re.compile(r"\brad(ian)?s?\b|_rad\b", re.IGNORECASE)

NUMBER = re.compile(r"(?<![\w.])(\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?)(?![\d.])")
UNITS = {"m": 1e10, "nm": 10.0, "pm": 0.01, "å": 1.0, "a": 1.0}
UNIT = r"(?:(pm|pico\w+)|(nm|nano\w+)|(å\w*|a(?:ng\w*)?)|(m(?:et(?:er|re)s?)?))(?![a-zà-ÿ])"
UNIT_AFTER = re.compile(rf"\s{{0,3}}[(\[]?\s?{UNIT}", re.IGNORECASE)
UNIT_BEFORE = re.compile(rf"[(\[/_]\s?{UNIT}|\sin\s{UNIT}", re.IGNORECASE)
LAMBDA = r"(?:wave[ _-]?length|\blambda|λ|\bwl)"
RATIO = re.compile(r"(?:alpha|α|a)[ _-]?2\s?/\s?k?[ _-]?(?:alpha|α|a)[ _-]?1", re.IGNORECASE)
LINES = {
    "ka1": re.compile(rf"\bk?[ _-]?(?:alpha|α)[ _-]?1|\bka[ _-]?1\b|{LAMBDA}[ _-]?1(?=\s?[=:,(\[])", re.IGNORECASE),
    "ka2": re.compile(rf"\bk?[ _-]?(?:alpha|α)[ _-]?2|\bka[ _-]?2\b|{LAMBDA}[ _-]?2(?=\s?[=:,(\[])", re.IGNORECASE),
    "any": re.compile(
        r"wave[ _-]?length(?:[ _]?\d(?=\s?[=:,(\[]))?|\blambda(?:\d(?=\s?[=:,(\[]))?|λ|\bwl\b", re.IGNORECASE
    ),
}
BETA = re.compile(r"\bk?[ _-]?(beta|β)", re.IGNORECASE)
ENERGY = re.compile(r"(?:photon|beam|x-?ray|incident)?[ _-]?energy\b", re.IGNORECASE)
EV = re.compile(r"[\s(\[_]{0,2}(k?)eV\b", re.IGNORECASE)
ELEMENTS = "|".join(ANODES)
ANODE = (
    re.compile(rf"\b(?:anode|target|tube)\b.{{0,20}}?\b({ELEMENTS})\b", re.IGNORECASE),
    re.compile(rf"(?<![A-Za-z])({ELEMENTS})[ _-]{{0,2}}K[ _-]{{0,2}}(?:α|alpha|a[12]?\b|\d|\b)", re.IGNORECASE),
)
SCAN_AXIS = re.compile(r"\b(?:scan[ _-]?(?:axis|type)|drive)\b[\s:=,\"']{1,6}([^,;\"'\n]{1,60})", re.IGNORECASE)
MODES = re.compile(r"(continuous|step|fixed ?time|pre-?set|normal|standard|ct|ft)\b(?! ?θ)", re.IGNORECASE)


def facts_of(head, names, at, n):
    """Fields of a Scan and warnings from the lines above the numbers; raises ScanError where the axis is not 2θ.

    head: the lines.  names: those of the columns, or None.  at: places of angle and intensity.  n: points.
    Among the fields "radian" is True where the angles are in radian, and "along" names an axis of q or d and its label.
    """
    head = [line[:MAX_LINE] for line in head]
    fields, warnings = _axis(head, names[at[0]] if names else "")
    if re.search(r"\bcps\b|counts?\s?(/|per|_per_)\s?s", head[-1] if head else "", re.IGNORECASE):
        fields["unit"] = "counts per second"
    for line in head:
        named = SCAN_AXIS.search(line)
        if named and not MODES.match(named[1].strip()):
            fields["scan_axis"] = named[1].strip()
    tube, doubts = wavelength_of(head)
    count = head[-1].strip(EDGES) if head else ""
    if re.fullmatch(r"\d{2,7}", count) and int(count) != n:  # the last line above the numbers, in .chi files
        doubts = [*doubts, f"The header states {count} points, the file holds {n}: is it complete?"]
    return fields | tube, [*warnings, *doubts]


def _axis(head, name):
    """{"radian": True}, {"along": ("q", label)} or {}, and warnings.

    The line nearest to the numbers that names an axis counts.
    """
    labels = [(name.strip(EDGES), True, True)] if name else []
    for label, is_axis, is_name in labels + [_label(line) for line in reversed(head)]:
        if ANGLE.match(label) or (is_name and ANGLE.search(label)):
            if RADIAN.search(label):
                return {"radian": True}, ["The angles were in radian: they were converted to degree."]
            return {}, []
        for what, pattern in NOT_AN_ANGLE.items():
            if pattern.match(label) and (is_axis or (what in SURE and label.lower() not in ("d", "r"))):
                axis = next((axis for axis, name in NAMES.items() if name == what), None)
                if axis and not label.lower().startswith("log"):
                    return {"along": (axis, label)}, []
                raise ScanError(f"the first column is {what} ({label[:40]!r}), not 2θ in degree. Export it against 2θ")
    return {}, []


def _label(line):
    """What may name the first column on a line of the header; whether more than the label says so; False."""
    line = line.strip(EDGES)
    key = AXIS_KEY.match(line)
    label, *others = re.split(r"[,;\t|]|\s\s", line[key.end() :] if key else line, maxsplit=1)
    other = others[0].strip(EDGES) if others else ""
    label = label.strip(EDGES)[:80]
    if VALUE.search(label) or re.match(r"[+-]?\d(?!/)", other):
        return "", False, False  # the value of something
    return label, bool(key or INTENSITY.search(other or label) or re.search(r"[(\[_/]", label)), False


def wavelength_of(head):
    """Fields of a Scan and warnings from what lines of a header state of the wavelength."""
    stated, warnings, anode = {}, [], None
    for line in head:
        for pattern in ANODE:
            named = pattern.search(line)
            anode = anode or (named and named[1].capitalize())
        ratio = RATIO.search(line)
        if ratio and (number := NUMBER.search(line, ratio.end())):
            stated.setdefault("ratio", float(number[1].replace(",", ".")))
            continue
        if BETA.search(line):
            continue
        for kind, pattern in LINES.items():
            key = pattern.search(line)
            number = key and NUMBER.search(line, key.end())
            if number and number.start() - key.end() <= 40:
                value, doubt = _angstrom(line, key.end(), number)
                warnings += doubt
                if value:
                    stated.setdefault(kind, value)
                    break
        energy = ENERGY.match(line.strip(" \t#!;%*'\""))
        number = energy and NUMBER.search(line, line.index(energy[0]) + len(energy[0]))
        unit = number and (EV.match(line, number.end()) or EV.search(line, 0, number.start()))
        if unit and float(number[1].replace(",", ".")) > 0:
            stated["energy"] = HC / float(number[1].replace(",", ".")) * (1 if unit[1] else 1000)
    by_energy = stated.get("energy")
    if by_energy and not LEAST_WAVELENGTH < by_energy < LARGEST_WAVELENGTH:
        by_energy = None
    plain = stated.get("any")
    if stated.get("ka1") or not (plain or by_energy):
        return source(anode, stated.get("ka1"), stated.get("ka2"), stated.get("ratio")), warnings
    if plain and by_energy and abs(plain / by_energy - 1) > 0.005:
        warnings.append(
            f"The header states {plain:.5g} angstrom, but an energy of {by_energy:.5g}: the first was taken."
        )
    if not plain:
        warnings.append(f"The wavelength of {by_energy:.5g} angstrom follows from the energy that the header states.")
    return {"anode": anode, "wavelength": plain or by_energy}, warnings


def _angstrom(line, start, number):
    """A stated wavelength in angstrom, or None, and warnings; start: where the name of it ends in the line."""
    value = float(number[1].replace(",", "."))
    unit = UNIT_AFTER.match(line, number.end()) or UNIT_BEFORE.search(line, start - 1, number.start())
    if unit:
        kind = next(k % 4 for k, group in enumerate(unit.groups()) if group)
        value *= (0.01, 10.0, 1.0, 1e10)[kind]
    elif value < 1e-7:
        value *= 1e10  # in metres, as pyFAI writes them
    for name, (_, _, mean) in ANODES.items():
        if not unit and abs(10 * value / mean - 1) < 0.003:
            return mean, [f"The header's wavelength of {value:g}, without a unit, was taken as {name} Kα in nm."]
    if LEAST_WAVELENGTH < value < LARGEST_WAVELENGTH:
        return value, []
    return None, [
        f"The header states a wavelength of {value:g} angstrom, none of powder diffraction: it was not taken."
    ]
