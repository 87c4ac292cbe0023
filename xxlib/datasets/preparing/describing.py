"""Crystals -> what robocrystallographer writes of them: the work that worker processes do."""

import warnings

from xxlib.crystals.crystal import RejectedCrystal
from xxlib.datasets.preparing.rows import attempt


def written(time_limit, crystals):
    """(id, description, why there is none) of each Crystal.

    One that takes longer than the limit (s) ends this process by SIGALRM: only for processes that may die (workers.py).
    """
    found = []
    for crystal in crystals:
        said = attempt(time_limit, lambda crystal=crystal: [description(crystal)])
        found.append((crystal.id, "", said) if isinstance(said, str) else (crystal.id, *said, ""))
    return found


def description(crystal):
    """A Crystal in the words of robocrystallographer, without the oxidation states that it guesses.

    Raises whatever it raises, and RejectedCrystal where a site has several elements.
    """
    from pymatgen.core import Structure
    from robocrys import StructureCondenser, StructureDescriber

    if (crystal.occupancies < 1).any():
        raise RejectedCrystal("a site of several elements: a description needs one element a site")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = Structure(crystal.lattice, crystal.atomic_numbers, crystal.frac_coords)
        condensed = StructureCondenser().condense_structure(structure)
        return StructureDescriber(describe_oxidation_states=False).describe(condensed)
