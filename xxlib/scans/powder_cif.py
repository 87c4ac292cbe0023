"""Powder CIF: the patterns of its data blocks, and the radiation, which may be stated in another block."""

import re
from itertools import islice

from xxlib.diffraction.wavelengths import ANODES
from xxlib.scans.checks import agreed_steps, attempt, check_count, header_warnings, lines_of, numbers
from xxlib.scans.scan import DAMAGED, MAX_POINTS, MAX_SCANS, Scan, ScanError, source

MAX_QUOTED_LINE = 2048  # characters, the limit of CIF 1.1: the search for the ends of quotes is not linear
WORD = re.compile(r"""'((?:[^']|'(?=\S))*)'(?!\S)|"((?:[^"]|"(?=\S))*)"(?!\S)|(#.*)|(\S+)""")
ANODE = re.compile(rf"({'|'.join(ANODES)})(?![a-z])(?![ -]?K[ \\-]*(?:b|β))", re.IGNORECASE)
STAGES = {
    "meas": ("counts_total", "intensity_total", "intensity_net", "counts"),
    "proc": ("intensity_total", "intensity_net", "intensity"),
}
ANGLES = {"meas": ("2theta_scan", "2theta_corrected", "2theta"), "proc": ("2theta_corrected", "2theta_scan", "2theta")}
NO_ANGLE = {
    "_pd_meas_time_of_flight": "a time of flight: a neutron pattern",
    "_pd_proc_d_spacing": "the lattice spacing d",
    "_pd_proc_recip_len_q": "the scattering vector Q",
    "_pd_proc_energy_detection": "an energy",
    "_pd_meas_position": "a position on the detector",
}


def read_pdcif(text):
    """Scans of a powder CIF, one for each data block with a pattern."""
    blocks = list(islice(_blocks(text), MAX_SCANS + 1))
    if len(blocks) > MAX_SCANS:
        raise ScanError(f"the file holds more than {MAX_SCANS} data blocks. Export one scan only")
    apart = [block for block in blocks if not _has_pattern(block)]
    elsewhere = _stated(apart) or _stated(blocks), _probes(apart)
    scans = [scan for block in blocks if _has_pattern(block) for scan in attempt(_scan, block, *elsewhere)]
    if scans:
        return scans
    tags = {tag for block in blocks for tag in block}
    if any(tag.startswith("_pd_calc_intensity") for tag in tags):
        raise ScanError("this CIF holds a calculated pattern, no measured one")
    if any(tag.startswith(("_cell_length", "_atom_site")) for tag in tags):
        raise ScanError(
            "this CIF holds a crystal structure but no measured pattern. Give it to the crystal reader instead"
        )
    raise ScanError("this CIF holds no measured pattern (no intensities of _pd_meas or _pd_proc). Export one as .xy")


def _has_pattern(block):
    return any(isinstance(block.get(f"_pd_{stage}_{name}"), list) for stage in STAGES for name in STAGES[stage])


def _scan(block, elsewhere, probes):
    n = 0
    for stage, names in STAGES.items():
        for name in names:
            column = block.get(f"_pd_{stage}_{name}")
            if not isinstance(column, list) or not _words_of(column):
                continue
            n = len(column)
            for other in (stage, *(s for s in STAGES if s != stage)):
                angles = _angles(block, other, n)
                if angles is not None:
                    return _of(block, elsewhere, probes, stage, column, *angles)
    listed = {len(block[tag]) for tag in block if "_2theta_" in tag and isinstance(block[tag], list)}
    if listed:
        raise ScanError(f"{max(listed)} angles but {n} intensities. {DAMAGED}")
    for tag, what in NO_ANGLE.items():
        if tag in block:
            raise ScanError(f"its intensities are given against {what}, not 2θ. Export the scan against 2θ")
    raise ScanError("this CIF holds intensities but no 2θ (_pd_meas_2theta_scan or its range). Export the scan as .xy")


def _angles(block, stage, n):
    """Angles (n,) of a stage, as words or numbers, and warnings; or None."""
    first, last, step = (_one(block, f"_pd_{stage}_2theta_range_{end}") for end in ("min", "max", "inc"))
    points = _one(block, f"_pd_{stage}_number_of_points")
    for name in ANGLES[stage]:
        column = block.get(f"_pd_{stage}_{name}")
        if isinstance(column, list) and len(column) == n:
            check_count(n, points)
            return column, (first, step, last)
    if first is None or (step is None and last is None):
        return None
    check_count(n, points)
    return agreed_steps(n, first, step, last)


def _of(block, elsewhere, probes, stage, column, angle, facts):
    """The Scan of intensities (n,) and angles, both as they stand there."""
    warnings = []
    if isinstance(angle, list):
        present = [k for k, pair in enumerate(zip(angle, column)) if not {"?", "."} & set(pair)]
        listed, column = numbers([angle[k] for k in present]), [column[k] for k in present]
        if len(present) < len(angle):
            warnings.append(
                f"{len(angle) - len(present)} of {len(angle)} points are marked as unknown: they were left out."
            )
        warnings += header_warnings(listed, *facts)
        angle = listed
    else:
        warnings += facts
    fields = _wavelength(block, stage)
    if not fields and any(_differ(elsewhere[0]["wavelength"], other["wavelength"]) for other in elsewhere[1:]):
        warnings.append("Other blocks of the file state several wavelengths, that of the pattern none: none was taken.")
    elif not fields and elsewhere:
        fields = elsewhere[0]
    told = f"{_probes([block])} {probes}"
    radiation = next((kind for kind in ("neutron", "electron") if re.search(rf"\b{kind}\b", told)), "x-ray")
    return Scan(two_theta=angle, intensity=numbers(column), format="pdCIF", radiation=radiation,
                **fields | {"warnings": (*warnings, *fields.get("warnings", ()))})  # fmt: skip


def _stated(blocks):
    """Fields of a Scan of every block that states a wavelength."""
    fields = (attempt(_wavelength, block, "meas")[0] for block in blocks)
    return [tube for tube in fields if isinstance(tube, dict) and tube]


def _probes(blocks):
    """What blocks state of the kind of radiation, in small letters."""
    tags = ("_diffrn_radiation_probe", "_diffrn_radiation_type", "_diffrn_source", "_diffrn_source_type")
    return " ".join(word for block in blocks for tag in tags for word in _words_of(block.get(tag))).lower()


def _wavelength(block, stage):
    """Fields of a Scan from what one block states of the wavelength, {} where it states nothing."""
    tags = ["_diffrn_radiation_wavelength", "_diffrn_radiation_wavelength_value"]
    tags = ["_pd_proc_wavelength", *tags] if stage == "proc" else [*tags, "_pd_proc_wavelength"]
    stated = [values for values in (_positive(block.get(tag)) for tag in tags) if values]
    types = " ".join(_words_of(block.get("_diffrn_radiation_type")) + _words_of(block.get("_diffrn_source_target")))
    match = ANODE.match(types)
    anode = match[1].capitalize() if match else None
    if not stated:
        return source(anode) if anode else {}
    values, warnings = sorted(set(stated[0])), []
    if len(values) == 2 and not _differ(*values):
        weights = _positive(block.get("_diffrn_radiation_wavelength_wt"))
        weight = dict(zip(stated[0], weights)) if len(weights) == len(stated[0]) else {}
        ratio = weight[values[1]] / weight[values[0]] if weight else None
        fields = source(anode, *values, ratio)
    else:
        fields = {"anode": anode, "wavelength": source(None, stated[0][0])["wavelength"]}
        if len(values) > 1:
            warnings.append(f"The file states {len(values)} wavelengths: the first, {stated[0][0]:g}, was taken.")
    for values in stated[1:]:
        if _differ(fields["wavelength"], values[0]):
            warnings.append(f"The file states {stated[0][0]:g} and {values[0]:g} angstrom: the first was taken.")
    return fields | {"warnings": tuple(warnings)}


def _words_of(value):
    """Words of a value or of a column, without those that are unknown."""
    values = value if isinstance(value, list) else [value]
    return [word for word in values if word not in (None, "?", ".")]


def _positive(value):
    return [number for number in numbers(_words_of(value)) if number > 0]


def _differ(one, other):
    return one is not None and other is not None and abs(one / other - 1) > 0.005


def _one(block, tag):
    """A single number of a block, or None where it is missing or unknown."""
    value = block.get(tag)
    return None if value in (None, "?", ".") or isinstance(value, list) else float(numbers([value])[0])


def _blocks(text):
    """Values by tag of each data block: a word, or the words of a column; small letters, "_" for the dots of DDLm."""
    block, names, words, tag = None, None, [], None

    def finish():
        if names and words:
            if len(words) % len(names) and any(name.startswith("_pd_") for name in names):
                raise ScanError(f"the table of {names[0]} ends in the middle of a row. {DAMAGED}")
            block.update({name: words[k :: len(names)] for k, name in enumerate(names)})

    for kind, word in _words(text):
        if kind == "plain":
            if names and block is not None:
                words += word
                if len(words) > MAX_POINTS * len(names):
                    raise ScanError(f"a table has more than {MAX_POINTS} rows, more than a scan has points")
            elif tag:
                block[tag], tag = word[0], None
            continue
        quoted = kind == "quoted"
        start = "" if quoted else word[:5].lower()
        if start == "data_":
            if block is not None:
                finish()
                yield block
            block, names, words, tag = {}, None, [], None
        elif block is None:
            continue
        elif word.lower() == "loop_" and not quoted:
            finish()
            names, words, tag = [], [], None
        elif start.startswith("_"):
            name = word.lower().replace(".", "_")
            if names is None or words:
                finish()
                names, words, tag = None, [], name
                block[name] = None
            else:
                names.append(name)
        elif names:
            words.append(word)
        elif tag:
            block[tag], tag = word, None
    if block is not None:
        finish()
        yield block


def _words(text):
    """("word", it), ("quoted", it) or ("plain", numbers and such of a whole line) of a CIF, without the comments."""
    field = None
    for line in lines_of(text):
        if field is not None:
            if line.startswith(";"):
                yield "quoted", "".join(field)
                field, line = None, line[1:]
            else:
                field += [line] if len(field) < 20 else []
                continue
        elif line.startswith(";"):
            field = [line[1:]]
            continue
        if "'" not in line and '"' not in line and "#" not in line:
            words = line.split(None, 4 * MAX_POINTS)
            if "_" in line:
                yield from (("word", word) for word in words)
            elif words:
                yield "plain", words
        elif len(line) > MAX_QUOTED_LINE:
            raise ScanError(
                f"a line with quotes has more than {MAX_QUOTED_LINE} characters, the limit of CIF. {DAMAGED}"
            )
        else:
            for match in WORD.finditer(line):
                if match[3] is None:
                    yield "quoted" if match[4] is None else "word", match[1] or match[2] or match[4] or ""
    if field is not None:
        raise ScanError(f"a text field opened by ; is never closed. {DAMAGED}")
