"""Space groups in their standard settings: operations, reflections that are equal by symmetry, free cell parameters."""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from xxlib.crystals.crystal import crystal_system

# Of the reciprocal metric 1/d^2 = sum_k p_k c_k(hkl): which of hh, kk, ll, kl, hl, hk each free parameter multiplies.
FREE = {
    "cubic": ((1, 1, 1, 0, 0, 0),),
    "hexagonal": ((1, 1, 0, 0, 0, 1), (0, 0, 1, 0, 0, 0)),  # and trigonal, in hexagonal axes
    "tetragonal": ((1, 1, 0, 0, 0, 0), (0, 0, 1, 0, 0, 0)),
    "orthorhombic": ((1, 0, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0), (0, 0, 1, 0, 0, 0)),
    "monoclinic": ((1, 0, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0), (0, 0, 1, 0, 0, 0), (0, 0, 0, 0, 1, 0)),
    "triclinic": tuple(tuple(row) for row in np.eye(6, dtype=int)),
}
FREE["trigonal"] = FREE["hexagonal"]


@dataclass(frozen=True, eq=False)
class SpaceGroup:
    """A space group in the setting of a Hall number, without its centring translations."""

    rotations: np.ndarray  # (g, 3, 3) int64, of fractional coordinates
    translations: np.ndarray  # (g, 3) float64
    centrings: np.ndarray  # (c, 3) float64, (0, 0, 0) first
    laue: np.ndarray  # (p, 3, 3) int64, of hkl (hkl @ laue), the inversion among them


@cache
def space_group(hall):
    """The SpaceGroup of a Hall number (1-530)."""
    import spglib

    operations = spglib.get_symmetry_from_database(hall)
    rotations, translations = operations["rotations"].astype(np.int64), operations["translations"] % 1.0
    identity = (rotations == np.eye(3, dtype=int)).all((1, 2))
    centrings = translations[identity]
    centrings = centrings[np.lexsort(centrings.T[::-1])]
    _, first = np.unique(rotations.reshape(-1, 9), axis=0, return_index=True)
    both = np.concatenate([rotations[first], -rotations[first]])
    laue = np.unique(both.reshape(-1, 9), axis=0).reshape(-1, 3, 3)
    return SpaceGroup(rotations[first], translations[first], centrings, laue)


@lru_cache(maxsize=1)
def standard_halls():
    """Hall number (231,) of the standard setting of each space group, by its number; 0 is none.

    That of spglib.standardize_cell: the first, of R groups hexagonal axes.
    """
    import spglib

    halls = np.zeros(231, np.int64)
    for hall in range(530, 0, -1):
        halls[spglib.get_spacegroup_type(hall).number] = hall
    return halls


@lru_cache(maxsize=1)
def packed_groups():
    """Operations of all space groups, laid end to end, for lines.lines_of: group s is at place s - 1.

    rotations, translations, laue, centrings; and where each group's begin (231, 3), the first two sharing a column.
    """
    groups = [space_group(int(hall)) for hall in standard_halls()[1:]]
    parts = [[getattr(group, name) for group in groups] for name in ("rotations", "translations", "laue", "centrings")]
    ends = np.stack([np.cumsum([0, *map(len, parts[k])]) for k in (0, 2, 3)], axis=1)
    return *(np.concatenate(part) for part in parts), ends


@lru_cache(maxsize=1)
def free_parameters():
    """FREE of the crystal system of each space group by its number, padded with zeros: (231, 6, 6)."""
    table = np.zeros((231, 6, 6))
    for number in range(1, 231):
        free = np.array(FREE[crystal_system(number)], float)
        table[number, : len(free)] = free
    return table
