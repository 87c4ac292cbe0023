"""Descriptions: a crystal in words, by a template of our own.

    Ba Ti O 3 is cubic in space group 221 with 13.0 cubic angstrom an atom ; 1 Ba with 12 neighbours: 12 O at 2.85 ; ...

Formula, symmetry, volume, then the sites: of each element those that have equal neighbours, how many they are of a
formula unit, their neighbours by element, and how far away the nearest and the furthest of these are.  What depends on
how a cell is chosen, its edges and its origin, is not said.  robocrystallographer says more, in seconds a crystal.
"""

import itertools
from functools import reduce
from math import gcd

import numpy as np

from xxlib.crystals.crystal import CRYSTAL_SYSTEMS, RejectedCrystal, crystal_system, space_group
from xxlib.crystals.elements import SYMBOLS
from xxlib.crystals.neighbours import RADIUS, check_nearest, neighbours

GAP = 1.1  # neighbours of a site end where the next atom is so many times further away, and the step is the largest
SAME_GAP = 1e-3  # steps as large as this to each other are equally large: the nearer one counts
DISTANCE_STEP, VOLUME_STEP = 0.05, 0.5  # angstrom, cubic angstrom: how exactly they are said
NUDGE = 1e-3  # of a step: what lies between two is rounded up, whichever way it was computed
MOST, MOST_NEIGHBOURS, LARGEST_VOLUME = 200, 40, 100  # more is said as this many
LAST_GROUP = 230


def _distances(before):
    return [f"{before} {k * DISTANCE_STEP:.2f}" for k in range(round(RADIUS / DISTANCE_STEP) + 1)]


# All words there are, by their number; 0 is padding, and an element has its atomic number.
WORDS = (
    "",
    *SYMBOLS,
    *(f"is {system}" for system in CRYSTAL_SYSTEMS),
    *(f"in space group {n}" for n in range(1, LAST_GROUP + 1)),
    *(f"with {k * VOLUME_STEP:.1f} cubic angstrom an atom" for k in range(round(LARGEST_VOLUME / VOLUME_STEP) + 1)),
    *(f"{n}" for n in range(1, MOST + 1)),
    *(f"; {n}" for n in range(1, MOST + 1)),
    *(f"with {n} neighbours:" for n in range(MOST_NEIGHBOURS + 1)),
    *_distances("at"),
    *_distances("to"),
)
NUMBER_OF = {word: number for number, word in enumerate(WORDS)}


def description(crystal):
    """A Crystal in words; takes the time of a search for its symmetry.

    Raises RejectedCrystal where a site has several elements or two atoms, or an atom stands alone.
    """
    if (crystal.occupancies < 1).any():
        raise RejectedCrystal("a site of several elements: a description needs one element a site")
    offsets = [0, len(crystal.atomic_numbers)]
    graph = neighbours(crystal.lattice[None], crystal.frac_coords, offsets)
    check_nearest(crystal.atomic_numbers, graph.nearest)
    volumes, groups = [crystal.volume], [space_group(crystal)]
    return " ".join(words(crystal.atomic_numbers, offsets, volumes, groups, graph)[0])


def words(numbers, offsets, volumes, groups, graph):
    """The words of crystals, laid end to end: a list of each.

    numbers: (N,) atomic numbers; offsets: (n + 1,); volumes: (n,) of the cells, cubic angstrom; groups: (n,) numbers
    of space groups; graph: their Neighbours.
    """
    numbers = np.asarray(numbers, np.int64)
    rows, starts = _bonded(numbers, graph)
    said = []
    for c, (start, end) in enumerate(itertools.pairwise(offsets)):
        sites = {}  # element and neighbours (element, number) of a site -> distances (nearest, furthest) of its atoms
        for atom in range(start, end):
            own = rows[starts[atom] : starts[atom + 1]]  # (k, 4)
            sites.setdefault((numbers[atom], own[:, :2].tobytes()), []).append(own)
        said.append([
            *_formula(numbers[start:end]),
            f"is {crystal_system(groups[c])}",
            f"in space group {groups[c]}",
            f"with {_rounded(volumes[c] / (end - start), VOLUME_STEP, LARGEST_VOLUME):.1f} cubic angstrom an atom",
            *_sites(sites),
        ])  # fmt: skip
    return said


def _formula(numbers):
    elements, amounts = np.unique(numbers, return_counts=True)
    for z, amount in zip(elements[::-1], amounts[::-1] // np.gcd.reduce(amounts)):
        yield SYMBOLS[z - 1]
        if amount > 1:
            yield f"{min(amount, MOST)}"


def _sites(sites):
    """Words of the sites of a crystal, those of heavy elements first."""
    unit = reduce(gcd, map(len, sites.values()))
    for (z, _), atoms in sorted(sites.items(), reverse=True):
        rows = np.stack(atoms)  # (atoms, k, 4)
        nearest, furthest = rows[:, :, 2].min(0), rows[:, :, 3].max(0)
        yield f"; {min(len(atoms) // unit, MOST)}"
        yield SYMBOLS[z - 1]
        yield f"with {min(rows[0, :, 1].sum(), MOST_NEIGHBOURS)} neighbours:"
        for k in np.argsort(nearest, kind="stable"):
            yield f"{min(rows[0, k, 1], MOST)}"
            yield SYMBOLS[rows[0, k, 0] - 1]
            yield f"at {nearest[k] * DISTANCE_STEP:.2f}"
            if furthest[k] > nearest[k]:
                yield f"to {furthest[k] * DISTANCE_STEP:.2f}"


def _bonded(numbers, graph):
    """The neighbours of atoms, up to the gap, by element: rows (R, 4) of atomic number, how many there are, and of the
    nearest and the furthest of them the distance in steps; those of atom i from starts[i] to starts[i + 1]."""
    centres, distances, atoms = graph.centres, graph.distances, np.arange(len(numbers) + 1)
    steps = np.append(np.where(centres[1:] == centres[:-1], distances[1:] / distances[:-1], 0), 0)
    largest = np.zeros(len(numbers))
    np.maximum.at(largest, centres, steps)
    ends = np.flatnonzero(steps >= np.maximum(GAP, largest[centres] - SAME_GAP))
    last = np.searchsorted(centres, atoms[1:]) - 1  # of all neighbours: there may be no gap
    last[centres[ends[::-1]]] = ends[::-1]  # the first of several stays
    kept = np.arange(len(centres)) <= last[centres]
    centres, others = centres[kept], numbers[graph.others[kept]]
    lengths = np.floor(distances[kept] / DISTANCE_STEP + 0.5 + NUDGE).astype(np.int64)
    order = np.lexsort((lengths, others, centres))
    centres, others, lengths = centres[order], others[order], lengths[order]
    first = np.flatnonzero(np.diff(centres * 1000 + others, prepend=-1))  # of each atom and element
    end = np.append(first[1:], len(centres))
    rows = np.stack([others[first], end - first, lengths[first], lengths[end - 1]], axis=1)
    return rows, np.searchsorted(centres[first], atoms)


def _rounded(value, step, largest):
    return min(np.floor(value / step + 0.5 + NUDGE) * step, largest)
