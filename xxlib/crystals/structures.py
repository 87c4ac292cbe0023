"""Structures -> Crystal: pymatgen's objects, and the JSON of databases: pymatgen's dict, OPTIMADE's and JARVIS's.

The JSON is read without pymatgen's objects, which takes a tenth of the time; a test compares the two.
"""

import re
from contextlib import contextmanager
from functools import cache

import numpy as np

from xxlib.crystals.crystal import Crystal, RejectedCrystal, check
from xxlib.crystals.elements import atomic_number

SPECIES = re.compile(r"([A-Z][a-z]?)(?:\d*\.?\d*[+-])?")  # "Fe", "Fe3+": a charge changes no pattern
# Features of OPTIMADE that say: the list of sites is not all there is.
INCOMPLETE = {"assemblies", "implicit_atoms", "site_attachments", "unknown_positions"}


def crystal_from_structure(structure, id):
    """Crystal of a pymatgen Structure; partial occupancies are kept.  Raises RejectedCrystal."""
    numbers, sites, occupancies = [], [], []
    numbers_of = {}  # atomic number of each species met so far
    for i, site in enumerate(structure):
        for species, occupancy in site.species.items():
            if species not in numbers_of:
                element = getattr(species, "element", species)
                numbers_of[species] = atomic_number(getattr(element, "name", str(species)))
            numbers.append(numbers_of[species])
            sites.append(i)
            occupancies.append(occupancy)
    return check(
        Crystal(
            id=id,
            lattice=np.array(structure.lattice.matrix, dtype=np.float64),
            atomic_numbers=np.array(numbers, dtype=np.int64),
            frac_coords=np.array(structure.frac_coords, dtype=np.float64).reshape(-1, 3)[sites],
            occupancies=np.array(occupancies, dtype=np.float64),
        )
    )


def crystal_from_pymatgen_dict(structure, id):
    """Crystal of Structure.as_dict(), which Alexandria and the Materials Project store; raises RejectedCrystal."""
    with refusing("structure of pymatgen"):
        lattice = structure["lattice"]
        if not all(lattice.get("pbc", [True])):
            raise RejectedCrystal("not periodic in three directions")
        sites = structure["sites"]
        occupants = [[(species["element"], species["occu"]) for species in site["species"]] for site in sites]
        return _crystal(id, lattice["matrix"], [site["abc"] for site in sites], occupants)


def crystal_from_optimade(attributes, id):
    """Crystal of the attributes of a structure of the OPTIMADE specification, version 1; raises RejectedCrystal.

    lattice_vectors (3, 3) and cartesian_site_positions (n, 3) in angstrom.  A vacancy takes no place.
    """
    with refusing("structure of OPTIMADE"):
        if attributes.get("dimension_types", [1, 1, 1]) != [1, 1, 1]:
            raise RejectedCrystal("not periodic in three directions")
        features = INCOMPLETE & set(attributes.get("structure_features") or ())
        if features:
            raise RejectedCrystal(f"not all atoms are listed ({', '.join(sorted(features))})")
        species = {one["name"]: _occupants(one) for one in attributes["species"]}
        occupants = [species[name] for name in attributes["species_at_sites"]]
        return _crystal(
            id, attributes["lattice_vectors"], attributes["cartesian_site_positions"], occupants, cartesian=True
        )


def _occupants(species):
    if species.get("attached"):
        raise RejectedCrystal(f"atoms attached to {species['name']} have no coordinates")
    symbols, concentrations = species["chemical_symbols"], species["concentration"]
    if len(symbols) != len(concentrations):
        raise RejectedCrystal(f"{len(symbols)} elements but {len(concentrations)} concentrations of {species['name']}")
    return [pair for pair in zip(symbols, concentrations) if pair[0] != "vacancy"]


def crystal_from_jarvis_dict(atoms, id):
    """Crystal of jarvis-tools' Atoms.to_dict(); raises RejectedCrystal."""
    with refusing("atoms of JARVIS"):
        if not isinstance(atoms["cartesian"], bool):
            raise RejectedCrystal(f"`cartesian` is {atoms['cartesian']!r}"[:200])
        occupants = [[(symbol, 1.0)] for symbol in atoms["elements"]]
        return _crystal(id, atoms["lattice_mat"], atoms["coords"], occupants, cartesian=atoms["cartesian"])


@contextmanager
def refusing(what):
    """Errors of reading malformed data, whatever they are, become a RejectedCrystal: "no <what> ..."."""
    try:
        yield
    except RejectedCrystal:
        raise
    except KeyError as error:
        raise RejectedCrystal(f"no {what}: {error} is missing") from error
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        why = " ".join(str(error).split())[:100]
        raise RejectedCrystal(f"no {what} ({type(error).__name__}: {why})") from error


def _crystal(id, lattice, positions, occupants, cartesian=False):
    """Crystal of sites: positions (n, 3), and for each its occupants [(symbol, occupancy), ...]."""
    lattice, positions = np.array(lattice, np.float64), np.array(positions, np.float64)
    if lattice.shape != (3, 3):
        raise RejectedCrystal(f"cell vectors of shape {lattice.shape}, not (3, 3)")
    if positions.shape != (len(occupants), 3):
        raise RejectedCrystal(f"{len(occupants)} sites but coordinates of shape {positions.shape}")
    if cartesian:
        if not np.isfinite(lattice).all() or abs(np.linalg.det(lattice)) < 1e-6:
            raise RejectedCrystal("cell vectors that span no volume")
        positions = positions @ np.linalg.inv(lattice)
    return check(
        Crystal(
            id=id,
            lattice=lattice,
            atomic_numbers=np.array([_of_species(symbol) for site in occupants for symbol, _ in site], np.int64),
            frac_coords=positions[[i for i, site in enumerate(occupants) for _ in site]],
            occupancies=np.array([share for site in occupants for _, share in site], np.float64),
        )
    )


@cache
def _of_species(symbol):
    match = SPECIES.fullmatch(symbol)
    return atomic_number(match[1] if match else symbol)
