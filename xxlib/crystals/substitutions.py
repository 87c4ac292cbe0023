"""Which element or ion may take the place of which: the chemistry of generated crystals.

Ions are drawn from pymatgen's data-mined substitution probabilities (Hautier et al., Inorg. Chem. 50, 656 (2011)),
elements of alloys by similar radius and electronegativity.  Where nothing fits, RejectedCrystal is raised.
"""

import itertools
from functools import lru_cache

import numpy as np

from xxlib.crystals.crystal import RejectedCrystal

LAST_ELEMENT = 94
# Noble gases, and elements whose bond lengths DLSVolumePredictor does not know.
LEFT_OUT = (2, 10, 18, 36, 54, 84, 85, 86, 87, 88)
ELEMENTS = tuple(z for z in range(1, LAST_ELEMENT + 1) if z not in LEFT_OUT)  # that crystals are made of

RADIUS_SCALE, ELECTRONEGATIVITY_SCALE = 0.15, 0.3  # angstrom, Pauling: differences that halve the likeness


@lru_cache(maxsize=1)
def likeness():
    """How alike two elements are, 0 to 1, by their atomic numbers: (95, 95); 0 for those left out."""
    from pymatgen.core import Element

    z = list(ELEMENTS)
    radius = np.array([float(Element.from_Z(n).atomic_radius) for n in z])
    electronegativity = np.array([Element.from_Z(n).X for n in z])
    distance = ((radius[:, None] - radius) / RADIUS_SCALE) ** 2
    distance += ((electronegativity[:, None] - electronegativity) / ELECTRONEGATIVITY_SCALE) ** 2
    table = np.zeros((LAST_ELEMENT + 1, LAST_ELEMENT + 1))
    table[np.ix_(z, z)] = np.exp(-distance / 2)
    return table


@lru_cache(maxsize=1)
def ions():
    """Atomic numbers (k,) and charges (k,) of ions, and how likely each replaces another: (k, k), old by new."""
    from pymatgen.core.structure_prediction.substitution_probability import SubstitutionProbability

    mined = SubstitutionProbability()
    # Its species are a set: sorted, or the order would change from process to process.
    table = sorted((ion.Z, int(ion.oxi_state), ion) for ion in mined.species if ion.Z in ELEMENTS)
    likely = np.array([[mined.cond_prob(new, old) for *_, new in table] for *_, old in table])
    return np.array([z for z, *_ in table]), np.array([charge for _, charge, _ in table]), likely


def ions_of(elements, amounts):
    """Ions (rows of `ions()`) that make these amounts neutral, the likeliest of several; None where there are none."""
    numbers, charges, likely = ions()
    commonness = likely.sum(0)  # how readily an ion replaces others
    choices = itertools.product(*[np.flatnonzero(numbers == z) for z in elements])
    neutral = [choice for choice in choices if amounts @ charges[list(choice)] == 0]
    if not neutral:
        return None
    return tuple(int(ion) for ion in max(neutral, key=lambda choice: commonness[list(choice)].prod()))


def new_ions(rng, old, amounts):
    """An ion in place of each old one, neutral in sum: a list like `old`."""
    _, charges, likely = ions()
    *free, last = rng.permutation(len(old))
    new = [0] * len(old)
    for kind in free:
        new[kind] = _draw(rng, likely[old[kind]])
    excess = sum(amounts[kind] * charges[new[kind]] for kind in free)
    new[last] = _draw(rng, likely[old[last]] * (amounts[last] * charges == -excess))
    return new


def new_elements(rng, old):
    """An element in place of each old one: a list like `old`."""
    return [_draw(rng, likeness()[z]) for z in old]


def another_ion(rng, present, kind):
    """An ion for part of the places of present[kind]: of the same charge and of an element not yet present."""
    numbers, charges, likely = ions()
    fits = (charges == charges[present[kind]]) & ~np.isin(numbers, numbers[present])
    return _draw(rng, likely[present[kind]] * fits)


def another_element(rng, present, kind):
    """An element, not yet present, for part of the places of present[kind]."""
    weights = likeness()[present[kind]].copy()
    weights[present] = 0
    return _draw(rng, weights)


def _draw(rng, weights):
    if not weights.sum() > 0:
        raise RejectedCrystal("nothing fits in its place")
    return int(rng.choice(len(weights), p=weights / weights.sum()))
