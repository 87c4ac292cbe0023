"""The text of a CIF file: the one structure in it, as it is written, and refusals of what pymatgen would read past."""

import re
import warnings
from collections import namedtuple

import numpy as np

from xxlib.crystals.crystal import MAX_ATOMS, RejectedCrystal, check_size
from xxlib.crystals.elements import ATOMIC_NUMBERS, ISOTOPES, atomic_number

MAX_LINE = 2048  # characters, the limit of CIF 1.1; pymatgen's search for quotes is quadratic in it
MAX_COORDINATE = 10.0  # of a cell vector: beyond are Cartesian coordinates and slips

CELL_TAGS = [f"_cell_length_{axis}" for axis in "abc"] + ["_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma"]
FRACT_TAGS = [f"_atom_site_fract_{axis}" for axis in "xyz"]
OPTIONAL_TAGS = ["_atom_site_type_symbol", "_atom_site_occupancy", "_atom_site_calc_flag"]
OPERATION_TAGS = ["_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz"]
NAME_TAGS = ["_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt"]
NUMBER_TAGS = ["_symmetry_Int_Tables_number", "_space_group_IT_number"]
# Names are the same in any case, and in DDLm with a dot; pymatgen knows one spelling.
HALL_TAGS = ["_space_group_name_Hall", "_symmetry_space_group_name_Hall"]
SPELLINGS = {tag.lower(): tag for tag in (*NAME_TAGS, *NUMBER_TAGS, *HALL_TAGS, "_cell_formula_units_Z")}
UNREADABLE = re.compile(  # of magnetic and modulated structures; not _dft_cell_magn_moment, a computed number
    "_(space_group|symmetry)_(symop_)?(magn|ssg)|_magnetic_|_atom_sites?_(.*_)?(moment|magn|modul|fourier)"
    "|_cell_(modul|wave_vector|subsystem)"
)

NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?:\(\d+\))?")  # 5.431(2): the uncertainty is dropped
ATOM_TYPE = re.compile(r"([A-Za-z]{1,2})(?:\d*\.?\d*[+-]|[+-]\d+|0)?")  # Fe, FE, Fe3+, Fe2.5+, Fe+3, Fe0, Fe0+
ATOM_LABEL = re.compile(r"([A-Za-z]{1,2})(?![A-Za-z])[\w()'*+-]*")  # Fe, Fe1, Fe1A, Fe(1), O1', Fe3+
SITE_LABEL = re.compile(r"([A-Z][a-z])(?:[TMAX]|[Oo]ct|[Tt]et)\d*[*']?")  # of minerals: MgT, CaM1, FeT2, AlOct
QUOTED = re.compile(r"""(?<!\S)(?:'.*?'|".*?")(?!\S)""")
WORD = re.compile(rf"{QUOTED.pattern}|(?<!\S)#.*|(?<!\S)(?:_|data_|loop_|save_|global_|stop_)\S*", re.IGNORECASE)
OPEN_QUOTE = re.compile(r"""(?<!\S)(?:['"]|(#))""")  # or a comment, whichever comes first

Site = namedtuple("Site", "label symbol frac_coords occupancy")  # one row of the list of atoms


def text_of(data):
    """What is written in the file: ASCII, without blank lines."""
    check_size(len(data))
    text = data.decode("utf-8-sig", errors="replace")
    if "\0" in text:
        raise RejectedCrystal("not a CIF: NUL bytes, as in binary files, UTF-16 and after a crash")
    # pymatgen drops what is not ASCII, a typographic minus before a coordinate with it: as "?" it makes no number.
    text = text.encode("ascii", errors="replace").decode("ascii")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]  # pymatgen is quadratic in blank lines
    if not lines:
        raise RejectedCrystal("an empty file")
    in_text_field = False
    for i, line in enumerate(lines):
        if line.startswith(";"):
            in_text_field = not in_text_field
        if in_text_field:  # what looks like data there is none
            lines[i] = re.sub(r"^(\s*)(?=_|data_|loop_|save_|global_|#)", r"\1> ", line, flags=re.IGNORECASE)
            continue
        if len(line) > MAX_LINE:
            raise RejectedCrystal(f"not a CIF: a line of more than {MAX_LINE} characters")
        if "'" in line or '"' in line:
            opened = OPEN_QUOTE.search(QUOTED.sub("", line))
            if opened and not opened[1]:
                raise RejectedCrystal(f"a quote is never closed: {line.strip()[:60]}")
        lines[i] = WORD.sub(_plain, line)
    if in_text_field:
        raise RejectedCrystal("a text field opened by ; is never closed: truncated?")
    return "\n".join(lines)


def _plain(word):
    """A data name or keyword in the spelling that pymatgen knows; a quoted value without marks of a comment."""
    if word[0][0] in "'\"":
        return word[0].replace("#", "?")
    if word[0][0] == "_":
        name = word[0].lower().replace(".", "_")
        return SPELLINGS.get(name, name)
    start, keyword = re.match(r"([a-z]*_|)(.*)", word[0], re.IGNORECASE).groups()
    return start.lower() + keyword


def listen(reason, read, *args, **kwargs):
    """Result of a call of pymatgen, whose exceptions and warnings of lost text become RejectedCrystal."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = read(*args, **kwargs)
        except Exception as error:  # whatever it runs into: ValueError, ZeroDivisionError, OverflowError, KeyError, ...
            why = " ".join(str(error).split())[:200]
            raise RejectedCrystal(f"{reason} ({type(error).__name__}: {why})") from error
    for warning in caught:
        if "Possible issue in CIF file" in str(warning.message):
            raise RejectedCrystal(
                f"stray text {str(warning.message).split(': ', 1)[-1][:60]!r}: not quoted, or truncated?"
            )
    return result


def structure_block(file, text):
    """The one data block that holds atoms; its `data` are values by tag, lists where the tag is in a loop."""
    blocks = [block for block in file.data.values() if set(FRACT_TAGS) & set(block.data)]
    if not blocks:
        raise RejectedCrystal("no atoms with fractional coordinates" if file.data else "not a CIF: no data_ block")
    if len(blocks) > 1:
        raise RejectedCrystal(f"more than one structure: {len(blocks)} data blocks hold atoms")
    # Counted in the text, because of blocks with one name, and of loops in one block, pymatgen keeps only the last.
    for tag in FRACT_TAGS + CELL_TAGS + OPERATION_TAGS:
        count = len(re.findall(rf"^\s*{tag}(?!\S)", text, re.MULTILINE))
        if count > sum(tag in block.data for block in file.data.values()):
            raise RejectedCrystal(f"more than one structure: {tag} occurs {count} times")
    tags = [tag for block in file.data.values() for tag in block.data]
    unreadable = [tag for tag in tags if UNREADABLE.match(tag)]
    if unreadable:
        raise RejectedCrystal(f"a magnetic or modulated structure ({unreadable[0]})")
    return blocks[0]


def number(value, tag):
    """The number that a value of the file is; raises RejectedCrystal where it is none."""
    if value is None:
        raise RejectedCrystal(f"no {tag}")
    match = NUMBER.fullmatch(value) if isinstance(value, str) else None
    if not match or np.isinf(float(match[1])):
        raise RejectedCrystal(f"{tag} is {value!r}, not a number")
    return float(match[1])


def sites_of(data):
    """(the list of atoms, as Site; whether the formula must confirm their elements).

    Raises RejectedCrystal for the first that is no atom of an element.
    """
    needed = ["_atom_site_label", *FRACT_TAGS]
    columns = {tag: data[tag] for tag in (*needed, *OPTIONAL_TAGS) if tag in data}
    labels = columns.get("_atom_site_label", [])
    missing = [tag for tag in needed if tag not in columns]
    if missing or not all(isinstance(values, list) and len(values) == len(labels) for values in columns.values()):
        raise RejectedCrystal(f"an incomplete list of atoms (needed: {', '.join(needed)})")
    if len(labels) > MAX_ATOMS:
        raise RejectedCrystal(f"{len(labels)} atoms, more than {MAX_ATOMS}")
    if "dum" in columns.get("_atom_site_calc_flag", ()):
        raise RejectedCrystal("a dummy atom (_atom_site_calc_flag is dum)")
    types, occupancies = columns.get("_atom_site_type_symbol"), columns.get("_atom_site_occupancy", ["1"] * len(labels))
    formula = set(re.findall("[A-Z][a-z]?", str(data.get("_chemical_formula_sum", ""))))
    sites, to_confirm = [], False
    for i, label in enumerate(labels):
        symbol, clear = _element_of_label(label, formula) if types is None else (_symbol(types[i], ATOM_TYPE), True)
        to_confirm |= not clear
        frac = [number(columns[tag][i], f"{tag} of {label}") for tag in FRACT_TAGS]
        if max(map(abs, frac)) > MAX_COORDINATE:
            raise RejectedCrystal(f"the coordinates of {label} are no fractions of the cell vectors: {frac}")
        occupancy = number(occupancies[i], f"_atom_site_occupancy of {label}")
        if not 0 < occupancy <= 1:
            raise RejectedCrystal(f"occupancy {occupancy:g} of {label} outside (0, 1]")
        sites.append(Site(label, symbol, np.array(frac), occupancy))
    return sites, to_confirm


def _element_of_label(label, formula):
    """(element of a label, whether it is clear without the formula, whose elements are given as a set).

    Mineral databases write element + name of the site: MgT, CaM1, OA1.  The case counts: "CA1" may be calcium or the
    carbon atom A1.  Raises RejectedCrystal where neither label nor formula decides.
    """
    match = ATOM_LABEL.fullmatch(label) or SITE_LABEL.fullmatch(label)
    if match and label.startswith(match[1]) and match[1] in {*ATOMIC_NUMBERS, *ISOTOPES}:
        return _symbol(match[1], ATOM_TYPE), True
    if re.match("wat", label, re.IGNORECASE):
        raise RejectedCrystal(f"water ({label}) without coordinates of its hydrogens")
    elements = [symbol for symbol in (label[:2].title(), label[:1].upper()) if symbol in ATOMIC_NUMBERS]
    options = [symbol for symbol in elements if symbol in formula]
    if len(options) == 1 or (options and label[1:2].islower()):
        return options[0], False
    if not elements or not re.fullmatch(r"[\w()'*+-]+", label):
        raise RejectedCrystal(f"{label!r} is no element")
    raise RejectedCrystal(f"the element of {label!r} is not clear: add _atom_site_type_symbol")


def _symbol(text, pattern):
    """Element of a type symbol or label.  Raises RejectedCrystal, also for D and T."""
    match = pattern.fullmatch(text)
    symbol = match[1].title() if match else ""
    atomic_number(symbol if symbol in ISOTOPES or symbol in ATOMIC_NUMBERS else text)
    return symbol
