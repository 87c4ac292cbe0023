"""A CIF file -> Crystal.

pymatgen parses the file.  It also reads broken files without a word and changes some crystals on the way (an atom of
occupancy 0 vanishes, the coordinate "." becomes 0, an unknown space group becomes P1), so what the file says is checked
before, and what pymatgen made of it after.
"""

import re
import stat
import warnings
from collections import namedtuple
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from xxlib.crystals.crystal import (
    MAX_ATOMS,
    MAX_FILE_BYTES,
    RejectedCrystal,
    check_cell,
    crystal_from_structure,
    lattice_from_cell,
)

MAX_LINE = 2048  # characters, the limit of CIF 1.1; pymatgen's search for quotes is quadratic in it
MAX_OPERATIONS = 192  # of the largest space groups, in their conventional cell
MAX_COORDINATE = 10.0  # of a cell vector: beyond are Cartesian coordinates and slips
SAME_PLACE = 1e-4  # of a cell vector: pymatgen takes sites this close for one
SAME_ATOM = 0.1  # angstrom: images of a site this close are one atom

CELL_TAGS = [f"_cell_length_{axis}" for axis in "abc"] + ["_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma"]
FRACT_TAGS = [f"_atom_site_fract_{axis}" for axis in "xyz"]
OPTIONAL_TAGS = ["_atom_site_type_symbol", "_atom_site_occupancy", "_atom_site_calc_flag"]
OPERATION_TAGS = ["_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz"]
GROUP_TAGS = ["_symmetry_Int_Tables_number", "_space_group_IT_number"]
GROUP_TAGS += ["_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt"]
# Groups with two origins in International Tables: their name alone does not say which.
TWO_ORIGINS = {48, 50, 59, 68, 70, 85, 86, 88, 125, 126, 129, 130, 133, 134, 137, 138, 141, 142, 201, 203, 222, 224}
TWO_ORIGINS |= {227, 228}

NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?:\(\d+\))?")  # 5.431(2): the uncertainty is dropped
ATOM_TYPE = re.compile(r"([A-Za-z]{1,2})(?:\d*\.?\d*[+-]|[+-]\d+|0)?")  # Fe, FE, Fe3+, Fe2.5+, Fe+3, Fe0, Fe0+
ATOM_LABEL = re.compile(r"([A-Za-z]{1,2})(?![A-Za-z])[\w()'*+-]*")  # Fe, Fe1, Fe1A, Fe(1), O1', Fe3+
OPERATION = re.compile(r"[-+xyz\d./*\s]+(?:,[-+xyz\d./*\s]+){2}", re.IGNORECASE)
QUOTED = re.compile(r"""(?<!\S)(?:'.*?'|".*?")(?!\S)""")
OPEN_QUOTE = re.compile(r"""(?<!\S)(?:['"]|(#))""")  # or a comment, whichever comes first

Site = namedtuple("Site", "label symbol frac_coords occupancy")  # one row of the list of atoms


def crystal_from_cif(path, id):
    """Crystal of the one structure in a CIF file, its cell as written.

    Raises RejectedCrystal with the reason for a file that cannot be read, that holds no or several structures, or that
    pymatgen does not read as it is written.
    """
    try:
        about = Path(path).stat()
        if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for, a device has no end
            raise RejectedCrystal("cannot be read: a folder, pipe or device")
        _check_size(about.st_size)
        return crystal_from_cif_bytes(Path(path).read_bytes(), id)
    except OSError as error:
        raise RejectedCrystal(f"cannot be read: {error.strerror}") from error


def crystal_from_cif_bytes(data, id):
    """Crystal of the content of a CIF file; raises RejectedCrystal as crystal_from_cif does."""
    from pymatgen.io.cif import CifFile, CifParser

    text = _text(data)
    file = _listen("a loop with no row or an incomplete one: truncated?", CifFile.from_str, text)
    block = _structure_block(file, text)
    cell = [_number(block.data.get(tag), tag) for tag in CELL_TAGS]
    if min(cell) <= 0 or max(cell[3:]) >= 180:
        raise RejectedCrystal(f"impossible cell {', '.join(f'{value:g}' for value in cell)}")
    lattice = lattice_from_cell(*cell)
    check_cell(lattice)
    sites = _sites(block.data)
    parser = _listen("pymatgen cannot read it", CifParser.from_str, text)
    turns, shifts = _operations(parser, block, lattice)
    n_places = sum(_multiplicity(place, turns, shifts, lattice) for place in _places(sites))
    if n_places > MAX_ATOMS:  # before pymatgen, which is quadratic in them
        raise RejectedCrystal(f"{n_places:.0f} atoms, more than {MAX_ATOMS}")

    # check_occu=True would rescale occupancies.  The errors to ignore are blocks without atoms.
    options = {"primitive": False, "check_occu": False, "on_error": "ignore"}
    (structure,) = _listen("pymatgen cannot read it", parser.parse_structures, **options)
    if any("implicit hydrogens" in warning for warning in parser.warnings):
        raise RejectedCrystal("hydrogens without coordinates (_atom_site_attached_hydrogens)")
    if not np.allclose(structure.lattice.parameters, cell, rtol=1e-6):
        raise RejectedCrystal(f"pymatgen reads the cell {cell} as {structure.lattice.parameters}")
    _check_sites(structure, sites)
    if len(structure) != n_places:
        raise RejectedCrystal(
            f"{len(structure)} places, {n_places:g} if images within {SAME_ATOM:g} angstrom are one: "
            "a special position with too few digits?"
        )
    _check_formula(structure, block.data.get("_chemical_formula_sum"), block.data.get("_cell_formula_units_Z"))
    # pymatgen's own matrix has cos(90 degree) = 6e-17.
    return replace(crystal_from_structure(structure, id), lattice=lattice)


def _check_size(size):
    if size > MAX_FILE_BYTES:
        raise RejectedCrystal(f"too large: {size / 1e6:.1f} MB, more than {MAX_FILE_BYTES / 1e6:g}")


def _text(data):
    """What is written in the file: ASCII, without blank lines."""
    _check_size(len(data))
    text = data.decode("utf-8-sig", errors="replace")
    if "\0" in text:
        raise RejectedCrystal("not a CIF: NUL bytes, as in binary files, UTF-16 and after a crash")
    # pymatgen drops what is not ASCII, a typographic minus before a coordinate with it: as "?" it makes no number.
    text = text.encode("ascii", errors="replace").decode("ascii")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]  # pymatgen is quadratic in blank lines
    if not lines:
        raise RejectedCrystal("an empty file")
    if max(map(len, lines)) > MAX_LINE:
        raise RejectedCrystal(f"not a CIF: a line of more than {MAX_LINE} characters")
    in_text_field = False
    for line in lines:
        if line.startswith(";"):
            in_text_field = not in_text_field
        elif not in_text_field and ("'" in line or '"' in line):
            opened = OPEN_QUOTE.search(QUOTED.sub("", line))
            if opened and not opened[1]:
                raise RejectedCrystal(f"a quote is never closed: {line.strip()[:60]}")
    if in_text_field:
        raise RejectedCrystal("a text field opened by ; is never closed: truncated?")
    return "\n".join(lines)


def _listen(reason, read, *args, **kwargs):
    """Result of a call of pymatgen, whose exceptions and warnings of lost text become RejectedCrystal."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            result = read(*args, **kwargs)
        except Exception as error:  # whatever it runs into: ValueError, ZeroDivisionError, OverflowError, KeyError, ...
            why = " ".join(str(error).split())[:200]
            raise RejectedCrystal(f"{reason} ({type(error).__name__}: {why})") from error
    for warning in heard:
        if "Possible issue in CIF file" in str(warning.message):
            raise RejectedCrystal(
                f"stray text {str(warning.message).split(': ', 1)[-1][:60]!r}: not quoted, or truncated?"
            )
    return result


def _structure_block(file, text):
    """The one data block that holds atoms; its `data` are values by tag, lists where the tag is in a loop."""
    found = [block for block in file.data.values() if set(FRACT_TAGS) & set(block.data)]
    if not found:
        raise RejectedCrystal("no atoms with fractional coordinates" if file.data else "not a CIF: no data_ block")
    if len(found) > 1:
        raise RejectedCrystal(f"more than one structure: {len(found)} data blocks hold atoms")
    # Counted in the text, because of blocks with one name, and of loops in one block, pymatgen keeps only the last.
    for tag in FRACT_TAGS + CELL_TAGS + OPERATION_TAGS:
        count = len(re.findall(rf"^\s*{tag}(?!\S)", text, re.MULTILINE))
        if count > sum(tag in block.data for block in file.data.values()):
            raise RejectedCrystal(f"more than one structure: {tag} occurs {count} times")
    tags = [tag for block in file.data.values() for tag in block.data]
    foreign = [tag for tag in tags if re.search("_magn|_moment|_ssg|_modulat", tag)]
    if foreign:
        raise RejectedCrystal(f"a magnetic or modulated structure ({foreign[0]})")
    return found[0]


def _number(value, tag):
    if value is None:
        raise RejectedCrystal(f"no {tag}")
    match = NUMBER.fullmatch(value) if isinstance(value, str) else None
    if not match or np.isinf(float(match[1])):
        raise RejectedCrystal(f"{tag} is {value!r}, not a number")
    return float(match[1])


def _sites(data):
    """The list of atoms, as Site; raises RejectedCrystal for the first that is no atom of an element."""
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
    sites = []
    for i, label in enumerate(labels):
        symbol = _symbol(label, ATOM_LABEL) if types is None else _symbol(types[i], ATOM_TYPE)
        # The case of a label counts: "CA1" may be calcium or the carbon atom A1.
        if types is None and not label.startswith(symbol):
            raise RejectedCrystal(f"the element of {label!r} is not clear: add _atom_site_type_symbol")
        frac = [_number(columns[tag][i], f"{tag} of {label}") for tag in FRACT_TAGS]
        if max(map(abs, frac)) > MAX_COORDINATE:
            raise RejectedCrystal(f"the coordinates of {label} are no fractions of the cell vectors: {frac}")
        occupancy = _number(occupancies[i], f"_atom_site_occupancy of {label}")
        if not 0 < occupancy <= 1:
            raise RejectedCrystal(f"occupancy {occupancy:g} of {label} outside (0, 1]")
        sites.append(Site(label, symbol, np.array(frac), occupancy))
    return sites


def _symbol(text, pattern):
    """Element of a type symbol or label.  Raises RejectedCrystal, also for D and T."""
    from pymatgen.core import Element

    match = pattern.fullmatch(text)
    symbol = match[1].title() if match else ""
    if symbol in ("D", "T"):
        raise RejectedCrystal(f"isotope {symbol}: write H if its chemistry is meant")
    if not Element.is_valid_symbol(symbol):
        raise RejectedCrystal(f"{text!r} is no element")
    return symbol


def _operations(parser, block, lattice):
    """Matrices (n, 3, 3) and shifts (n, 3) of the symmetry operations pymatgen will apply, to fractional coordinates.

    Raises RejectedCrystal where they are not those of the file, form no group or do not map the lattice on itself.
    """
    import spglib
    from scipy.spatial import cKDTree

    listed = [np.atleast_1d(block.data[tag]) for tag in OPERATION_TAGS if tag in block.data]
    if listed and len(listed[0]) > MAX_OPERATIONS:
        raise RejectedCrystal(f"{len(listed[0])} symmetry operations, more than {MAX_OPERATIONS}")
    odd = [text for text in (listed[0] if listed else ()) if not OPERATION.fullmatch(text)]
    if odd:
        raise RejectedCrystal(f"{odd[0][:60]!r} is no symmetry operation")
    operations = _listen("pymatgen cannot read the symmetry", parser.get_symops, block)
    turns = np.array([operation.rotation_matrix for operation in operations])
    shifts = np.array([operation.translation_vector for operation in operations])
    if listed and len(listed[0]) != len(turns):
        raise RejectedCrystal(f"{len(listed[0])} symmetry operations, of which pymatgen reads {len(turns)}")

    # In a group, every operation maps the images of a general point on each other.
    images = (turns @ [0.1357, 0.2718, 0.3926] + shifts) % 1.0
    mapped = (np.einsum("nij,mj->nmi", turns, images) + shifts[:, None]) % 1.0
    if cKDTree(images, boxsize=1.0).query(mapped.reshape(-1, 3))[0].max() > 2e-3:
        raise RejectedCrystal(f"the {len(turns)} symmetry operations form no group: truncated or misspelt?")
    metric = lattice @ lattice.T
    if np.abs(turns.transpose(0, 2, 1) @ metric @ turns - metric).max() > 0.02 * metric.max():
        raise RejectedCrystal("the symmetry operations do not fit the cell")

    group = spglib.get_spacegroup_type_from_symmetry(np.rint(turns), shifts, lattice)
    other = _stated_groups(block.data) - {group.number if group else None}
    if group and other:
        raise RejectedCrystal(
            f"space group {min(other)} is stated, the symmetry operations are those of {group.number}"
        )
    if not listed:
        # pymatgen falls back to P1, and takes a Hall symbol for a Hermann-Mauguin one.
        names = {str(value) for tag, value in block.data.items() if tag.startswith(("_symmetry_", "_space_group_"))}
        unknown = len(turns) == 1 and names - {"?", "."} and not names & {"P 1", "P1", "1"}
        if unknown or (len(turns) > 1 and any("name_hall" in warning.lower() for warning in parser.warnings)):
            raise RejectedCrystal(f"a space group that pymatgen does not know: {', '.join(sorted(names))[:100]}")
        if group is not None and group.number in TWO_ORIGINS:
            raise RejectedCrystal(f"{group.international_short} has two origins: list its symmetry operations")
    return turns, shifts


def _stated_groups(data):
    """Numbers of the space groups that the file names, as far as pymatgen knows the names."""
    from pymatgen.symmetry.groups import SpaceGroup

    values = [str(data[tag]) for tag in GROUP_TAGS if tag in data]
    stated = {int(value) for value in values if value.isdigit()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in values:
            with suppress(ValueError):
                stated.add(SpaceGroup(name).int_number)
    return stated


def _places(sites):
    """Coordinates of the sites that do not share the place of an earlier one."""
    places = np.empty((0, 3))
    for site in sites:
        if not _near(places, site.frac_coords, SAME_PLACE).any():
            places = np.vstack([places, site.frac_coords])
    return places


def _near(frac_coords, place, tolerance):
    """Which (n,) of the coordinates (n, 3) differ from a place by less, across the faces of the cell."""
    delta = frac_coords - place
    return np.abs(delta - np.round(delta)).max(-1) < tolerance


def _multiplicity(place, turns, shifts, lattice):
    """Number of images: that of the operations, divided by that of those which leave the place where it is."""
    delta = turns @ place + shifts - place
    return len(turns) / (np.linalg.norm((delta - np.round(delta)) @ lattice, axis=1) < SAME_ATOM).sum()


def _check_sites(structure, sites):
    """Every site of the file is there, as the element and with the occupancy that are written."""
    written = np.array([site.frac_coords for site in sites])
    for site in sites:
        # Occupancies of one element at one place, as of Fe2+ and Fe3+, count together.
        here = [sites[i] for i in np.flatnonzero(_near(written, site.frac_coords, SAME_PLACE))]
        total = sum(other.occupancy for other in here)
        if total > 1 + 1e-3:  # 0.6667 + 0.3334 is a full site
            raise RejectedCrystal(f"atoms overlap: occupancies at the place of {site.label} sum to {total:g}")
        stated = sum(other.occupancy for other in here if other.symbol == site.symbol)
        # 0.3333 has become 1/3
        places = np.flatnonzero(_near(structure.frac_coords, site.frac_coords, 3 * SAME_PLACE))
        found = sum(structure[i].species.get_el_amt_dict().get(site.symbol, 0.0) for i in places)
        if abs(found - stated) > 1e-6:
            raise RejectedCrystal(f"occupancy {stated:g} of {site.label} is {found:g} after the symmetry operations")


def _check_formula(structure, formula, n_units):
    """The atoms have the composition of the formula in the file, where there is one, within its usual two decimals."""
    from pymatgen.core import Composition

    if not isinstance(formula, str) or len(formula) > 300:  # pymatgen is quadratic in it
        return
    try:
        stated = {element.name: amount for element, amount in Composition(formula, strict=True).items()}
    except (ValueError, KeyError):
        return  # "?", or in a style of its own
    found = structure.composition.get_el_amt_dict()
    scale = sum(stated.values()) / sum(found.values())
    tolerance = {symbol: 0.02 + 0.005 * amount for symbol, amount in stated.items()}
    differs = set(stated) != set(found) or any(abs(found[e] * scale - stated[e]) > tolerance[e] for e in stated)
    if len(stated) == 1 and isinstance(n_units, str) and n_units.isdigit():
        # Of an element only the number tells that an atom is missing.  pymatgen writes the formula of the whole cell.
        differs |= min(abs(1 / scale - 1), abs(1 / scale - int(n_units))) > 0.02 * int(n_units)
    if differs:
        raise RejectedCrystal(f"the formula is {formula}, the atoms give {structure.composition.formula}")
