"""A CIF file -> Crystal.

pymatgen parses the file.  It also reads broken files without a word and changes some crystals on the way (an atom of
occupancy 0 vanishes, the coordinate "." becomes 0, an unknown space group becomes P1), so what the file says is checked
before, and what pymatgen made of it after.
"""

import re
import warnings
from contextlib import suppress
from dataclasses import replace

import numpy as np

from xxlib.crystals.cif_text import (
    CELL_TAGS,
    NAME_TAGS,
    NUMBER_TAGS,
    OPERATION_TAGS,
    listen,
    number,
    sites_of,
    structure_block,
    text_of,
)
from xxlib.crystals.crystal import MAX_ATOMS, RejectedCrystal, check_cell, content_of, lattice_from_cell
from xxlib.crystals.structures import crystal_from_structure

MAX_OPERATIONS = 192  # of the largest space groups, in their conventional cell
SAME_PLACE = 1e-4  # of a cell vector: pymatgen takes sites this close for one
SAME_ATOM = 0.1  # angstrom: images of a site this close are one atom

# Groups with two origins in International Tables: their name alone does not say which.
TWO_ORIGINS = {48, 50, 59, 68, 70, 85, 86, 88, 125, 126, 129, 130, 133, 134, 137, 138, 141, 142, 201, 203, 222, 224}
TWO_ORIGINS |= {227, 228}

SETTING = re.compile(r"(.+?)(?:\s*:\s*(\S+)|\s+([HRSZ]))")  # R -3 m :H; R -3 m H and F d -3 m Z in ICSD
OPERATION = re.compile(r"[-+xyz\d./*\s]+(?:,[-+xyz\d./*\s]+){2}", re.IGNORECASE)


def crystal_from_cif(path, id):
    """Crystal of the one structure in a CIF file, its cell as written.

    Raises RejectedCrystal with the reason for a file that cannot be read, that holds no or several structures, or that
    pymatgen does not read as it is written.
    """
    return crystal_from_cif_bytes(content_of(path), id)


def crystal_from_cif_bytes(data, id):
    """Crystal of the content of a CIF file; raises RejectedCrystal as crystal_from_cif does."""
    from pymatgen.io.cif import CifFile, CifParser

    text = text_of(data)
    file = listen("a loop with no row or an incomplete one: truncated?", CifFile.from_str, text)
    block = structure_block(file, text)
    cell = [number(block.data.get(tag), tag) for tag in CELL_TAGS]
    if min(cell) <= 0 or max(cell[3:]) >= 180:
        raise RejectedCrystal(f"impossible cell {', '.join(f'{value:g}' for value in cell)}")
    lattice = lattice_from_cell(*cell)
    check_cell(lattice)
    sites, to_confirm = sites_of(block.data)
    parser = listen("pymatgen cannot read it", CifParser.from_str, text)
    (parsed,) = (other for other in parser._cif.data.values() if other.header == block.header)
    if to_confirm:
        parsed.data["_atom_site_type_symbol"] = [site.symbol for site in sites]
    if not any(tag in block.data for tag in OPERATION_TAGS):
        block.data |= _operations_of_setting(block.data)
        parsed.data |= _operations_of_setting(block.data)
    turns, shifts = _operations(parser, block, lattice)
    n_places = sum(_multiplicity(place, turns, shifts, lattice) for place in _places(sites))
    if n_places > MAX_ATOMS:  # before pymatgen, which is quadratic in them
        raise RejectedCrystal(f"{n_places:.0f} atoms, more than {MAX_ATOMS}")

    # check_occu=True would rescale occupancies.  The errors to ignore are blocks without atoms.
    options = {"primitive": False, "check_occu": False, "on_error": "ignore"}
    (structure,) = listen("pymatgen cannot read it", parser.parse_structures, **options)
    if any("implicit hydrogens" in warning for warning in parser.warnings):
        tag = "_atom_site_attached_hydrogens"
        raise RejectedCrystal(f"hydrogens without coordinates ({tag if tag in block.data else 'a site O-H'})")
    if not np.allclose(structure.lattice.parameters, cell, rtol=1e-6):
        raise RejectedCrystal(f"pymatgen reads the cell {cell} as {structure.lattice.parameters}")
    _check_sites(structure, sites)
    if len(structure) != n_places:
        raise RejectedCrystal(
            f"{len(structure)} places, {n_places:g} if images within {SAME_ATOM:g} angstrom are one: "
            "a special position with too few digits?"
        )
    confirmed = _confirmed(structure, block.data.get("_chemical_formula_sum"), block.data.get("_cell_formula_units_Z"))
    if to_confirm and not confirmed:
        raise RejectedCrystal("the elements of the labels are not clear without a formula: add _atom_site_type_symbol")
    # pymatgen's own matrix has cos(90 degree) = 6e-17.
    return replace(crystal_from_structure(structure, id), lattice=lattice)


def _operations(parser, block, lattice):
    """Matrices (n, 3, 3) and shifts (n, 3) of the symmetry operations pymatgen will apply, to fractional coordinates.

    Raises RejectedCrystal where they are not those of the file, form no group or do not map the lattice on itself.
    """
    import spglib
    from scipy.spatial import cKDTree

    listed = [np.atleast_1d(block.data[tag]) for tag in OPERATION_TAGS if tag in block.data]
    if listed and len(listed[0]) > MAX_OPERATIONS:
        raise RejectedCrystal(f"{len(listed[0])} symmetry operations, more than {MAX_OPERATIONS}")
    for text in listed[0] if listed else ():
        if not OPERATION.fullmatch(text):
            raise RejectedCrystal(f"{text[:60]!r} is no symmetry operation")
    operations = listen("pymatgen cannot read the symmetry", parser.get_symops, block)
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

    if not listed:
        # pymatgen falls back to P1, and takes a Hall symbol for a Hermann-Mauguin one.
        names = {str(value) for tag, value in block.data.items() if tag.startswith(("_symmetry_", "_space_group_"))}
        unknown = [name for name in names - {"?", "."} if not name.isdigit()] if len(turns) == 1 else []
        if (unknown and not names & {"P 1", "P1", "1"}) or (
            len(turns) > 1 and any("name_hall" in warning.lower() for warning in parser.warnings)
        ):
            raise RejectedCrystal(f"a space group that pymatgen does not know: {', '.join(sorted(names))[:100]}")
    group = spglib.get_spacegroup_type_from_symmetry(np.rint(turns), shifts, lattice)
    other = _stated_groups(block.data) - {group.number if group else None}
    if group and other:
        raise RejectedCrystal(
            f"space group {min(other)} is stated, the symmetry operations are those of {group.number}"
        )
    if not listed and group is not None and group.number in TWO_ORIGINS:
        raise RejectedCrystal(f"{group.international_short} has two origins: list its symmetry operations")
    return turns, shifts


def _operations_of_setting(data):
    """The list of operations of a group name with a setting, "R -3 m :H", by its tag; {} where there is none."""
    import spglib
    from pymatgen.core.operations import SymmOp

    for name in (data[tag] for tag in NAME_TAGS if isinstance(data.get(tag), str)):
        match = SETTING.fullmatch(name.strip())
        if not match:
            continue
        group, setting = (re.sub(r"[\s_]", "", text) for text in (match[1], match[2] or match[3]))
        setting = {"S": "1", "Z": "2"}.get(setting.upper(), setting)
        for hall in range(1, 531):
            listed = spglib.get_spacegroup_type(hall)
            names = {listed.international.replace(" ", ""), listed.international_short}
            if group in names and setting.lower() == listed.choice.lower():
                found = spglib.get_symmetry_from_database(hall)
                pairs = zip(found["rotations"], found["translations"])
                texts = [SymmOp.from_rotation_and_translation(*pair).as_xyz_str() for pair in pairs]
                return {OPERATION_TAGS[1]: texts}
    return {}


def _stated_groups(data):
    """Numbers of the space groups that the file names, as far as pymatgen knows the names."""
    from pymatgen.symmetry.groups import SpaceGroup

    values = [str(data[tag]) for tag in NUMBER_TAGS + NAME_TAGS if tag in data]
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
        read = sum(structure[i].species.get_el_amt_dict().get(site.symbol, 0.0) for i in places)
        if abs(read - stated) > 1e-6:
            raise RejectedCrystal(f"occupancy {stated:g} of {site.label} is {read:g} after the symmetry operations")


def _confirmed(structure, formula, n_units):
    """Whether a formula in the file says that the atoms have its composition, within its usual two decimals.

    Raises RejectedCrystal where it says another one.
    """
    from pymatgen.core import Composition

    if not isinstance(formula, str) or len(formula) > 300:  # pymatgen is quadratic in it
        return False
    try:
        stated = {element.name: amount for element, amount in Composition(formula, strict=True).items()}
    except (ValueError, KeyError):
        return False  # "?", or in a style of its own
    read = structure.composition.get_el_amt_dict()
    scale = sum(stated.values()) / sum(read.values())
    tolerance = {symbol: 0.02 + 0.005 * amount for symbol, amount in stated.items()}
    differs = set(stated) != set(read) or any(abs(read[e] * scale - stated[e]) > tolerance[e] for e in stated)
    if len(stated) == 1 and isinstance(n_units, str) and n_units.isdigit():
        # Of an element only the number tells that an atom is missing.  pymatgen writes the formula of the whole cell.
        differs |= min(abs(1 / scale - 1), abs(1 / scale - int(n_units))) > 0.02 * int(n_units)
    if differs:
        raise RejectedCrystal(f"the formula is {formula}, the atoms give {structure.composition.formula}")
    return True
