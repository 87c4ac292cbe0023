"""Cells that explain the lines of a pattern where no crystal is known: indexing.

For each of the 14 Bravais lattices: cells are solved from a few lines that are given small indices, kept where they
have the first lines, and refined by all; the one of most evidence is the lattice's.  Trial of small indices: Werner,
Eriksson and Westdahl, J. Appl. Cryst. 18, 367 (1985).
"""

import itertools
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit

from xxlib.candidates.calculated import forms_of
from xxlib.candidates.cells import (
    CENTRINGS,
    FAMILIES,
    LATTICES,
    POINTS,
    ROOM,
    Cell,
    evidence_of,
    has,
    is_cell,
    refined,
    reflections,
)
from xxlib.candidates.symmetry import FREE
from xxlib.diffraction.kernel import FAST
from xxlib.diffraction.wavelengths import CU_KA

# Of a family: how many reflections are tried for how many of the first lines.
TRIED = {"cubic": (8, 6), "tetragonal": (16, 8), "hexagonal": (16, 8), "orthorhombic": (20, 8), "monoclinic": (15, 8)}
AXES, OFF_AXES = 7, 9  # of a triclinic cell: first lines that may be of an axis, and of a plane between two
LEAST_LINES, MOST_LINES, FIRST = 4, 40, 10  # lines; of those to search with the first ones that a cell must have
SEARCHED = 25  # lines that a cell is chosen by before it is refined
KEPT = 12  # cells of a lattice that are refined
SPARE = 6  # times as many lines as were seen may be calculated
# Reflections that are one line, without their inverses.
EQUAL = {"cubic": 12, "tetragonal": 6, "hexagonal": 6, "orthorhombic": 4, "monoclinic": 2, "triclinic": 1}
CHANCE, DOUBT = 0.02, 0.3  # probability that a line is of something else: of a simulated pattern or strong, or weak
NATS = 3.0  # a line: a cell of so much evidence that explains every line of a simulated pattern ends the search


class Task(NamedTuple):
    """A search: what is sought, and what was found."""

    q: np.ndarray  # (l,) of the lines that a cell is chosen by, 1/d^2 in angstrom^-2
    degree: np.ndarray  # (l,) of 2 theta, in q
    chance: np.ndarray  # (l,) probability that a line is of something else
    first: np.ndarray  # places of lines that a cell must have
    near: float  # degree
    sigma: float  # degree
    most: int  # reflections that it may have among the first lines
    scores: np.ndarray  # (KEPT,) evidence of the best
    metrics: np.ndarray  # (KEPT, 6) reciprocal
    calculated: np.ndarray  # (ROOM,) to work in, as the next
    hkl: np.ndarray  # (ROOM, 3)


@dataclass(frozen=True)
class Accuracy:
    """How accurate lines are."""

    least: float  # of 100: weaker lines are left out
    strong: float  # of 100: lines that the search begins with
    sigma: float  # degree, standard deviation of their places
    near: float  # degree: of the search
    shift: float  # degree, standard deviation of a shift that all have


ACCURACIES = {
    "ideal": Accuracy(least=0.3, strong=0.0, sigma=0.012, near=0.06, shift=0.0),
    "scan": Accuracy(least=1.5, strong=10.0, sigma=0.035, near=0.2, shift=0.15),
}


def index(observed):
    """The best Cell of each lattice that has one, for the lines of an Observed: a list, in the order of LATTICES.

    Empty where there are fewer than LEAST_LINES.  A search that has found what explains every line goes no lower.
    """
    accuracy = ACCURACIES[observed.kind]
    chosen = np.flatnonzero(observed.height**2 > accuracy.least)[:MOST_LINES]
    if len(chosen) < LEAST_LINES:
        return []
    theta, intensity = np.radians(observed.two_theta[chosen] / 2), observed.height[chosen] ** 2
    q = (2 * np.sin(theta) / CU_KA) ** 2
    degree = np.radians(1.0) * 4 * np.sin(theta) * np.cos(theta) / CU_KA**2  # of 2 theta, in q
    chance = np.where(intensity >= accuracy.strong, CHANCE, DOUBT)
    # A cell must have the first strong lines; it is solved from these and, where they are few, from the next strongest.
    strongest = np.argsort(-intensity[:SEARCHED], kind="stable")
    n_strong = np.count_nonzero(intensity[:SEARCHED] >= accuracy.strong)
    first, solved = (np.sort(strongest[: max(n_strong, least)])[:FIRST] for least in (LEAST_LINES, FIRST))
    lines, found, done = (q, degree, chance), [], None
    for lattice in LATTICES:
        family = FAMILIES[lattice[0]]
        if done not in (None, family):
            break
        cells = _cells(lattice, lines, first, solved, accuracy)
        if cells:
            best = max(cells, key=lambda cell: cell.evidence)
            found.append(best)
            if best.explained >= len(q) - 1 and best.evidence > NATS * len(q) and observed.kind == "ideal":
                done = family
    return found


def _cells(lattice, lines, first, solved, accuracy):
    """Refined Cells of a lattice.  first: places of lines that a cell must have; solved: of those it is solved from."""
    q, degree, chance = lines
    family, centring, points = FAMILIES[lattice[0]], CENTRINGS.index(lattice[1]), POINTS[lattice[1]]
    basis, room = np.array(FREE[family], float), (np.empty(ROOM), np.empty((ROOM, 3), np.int64))
    task = Task(
        *(values[:SEARCHED] for values in lines), first, accuracy.near, accuracy.sigma,
        SPARE * EQUAL[family] * (first[-1] + 1), np.full(KEPT, -np.inf), np.zeros((KEPT, 6)),
        *room,
    )  # fmt: skip
    if family == "triclinic":
        _search_triclinic(task, solved[:AXES], solved[:OFF_AXES])
    else:
        n_lines = min(TRIED[family][1], len(solved))
        if n_lines < len(basis):
            return []
        chosen = np.array([solved[list(places)] for places in itertools.combinations(range(n_lines), len(basis))])
        _search(task, _solutions(lattice), basis, centring, points, chosen)
    cells = []
    for metric in task.metrics[task.scores > -np.inf]:
        how = basis, centring, points
        metric, _ = refined(task.q, task.degree, metric, *how, accuracy.near, accuracy.shift, *room)
        metric, shift = refined(q, degree, metric, *how, 3 * accuracy.sigma, accuracy.shift, *room)
        places = q - shift * degree
        evidence, explained = evidence_of(places, degree, chance, metric, centring, accuracy.sigma, *room)
        if explained:
            cells.append(Cell(lattice, metric, shift, evidence, explained, len(q)))
    return cells


@cache
def _solutions(lattice):
    """Matrices (s, f, f) that make the free parameters of a cell from the q of f lines: one a choice of indices."""
    grid = np.array([hkl for hkl in itertools.product(range(-2, 3), repeat=3) if hkl > (0, 0, 0)])
    grid = grid[[has(CENTRINGS.index(lattice[1]), *hkl) for hkl in grid]]
    family = FAMILIES[lattice[0]]
    forms = forms_of(grid, np.array(FREE[family], float))
    _, first = np.unique(forms, axis=0, return_index=True)
    grid, forms = grid[first], forms[first]
    smallest = np.argsort((grid**2).sum(1) + 0.01 * np.abs(grid).max(1), kind="stable")
    forms = forms[smallest[: TRIED[family][0]]]
    chosen = np.array(list(itertools.permutations(range(len(forms)), forms.shape[1])))
    matrices = forms[chosen]
    return np.linalg.inv(matrices[np.abs(np.linalg.det(matrices)) > 1e-6])


@njit(**FAST)
def _try(metric, centring, task):
    """Put a metric among the best of a Task where it is of a cell that has all but one of the first lines."""
    last, missed = task.first[-1], 0
    most = task.q[last] + task.near * task.degree[last]
    n = reflections(metric, centring, most, task.most, task.calculated, task.hkl)
    if n <= 0:
        return
    for i in task.first:
        there, near = False, task.near * task.degree[i]
        for j in range(n):
            if abs(task.calculated[j] - task.q[i]) <= near:
                there = True
                break
        missed += not there
        if missed > 1:
            return
    room = task.calculated, task.hkl
    evidence, _ = evidence_of(task.q, task.degree, task.chance, metric, centring, 2 * task.sigma, *room)
    place = np.argmin(task.scores)
    for k in range(KEPT):
        if task.scores[k] > -np.inf and np.abs(task.metrics[k] - metric).max() < 2e-4 * metric[:3].sum():
            place = k  # the same cell
            break
    if evidence > task.scores[place]:
        task.scores[place], task.metrics[place] = evidence, metric


@njit(**FAST)
def _is_chosen(metric, n_free, centring):
    """Whether a metric is that of one among the settings of its cell: the longest axis first, angles near 90 degree."""
    a, b, c, e = metric[0], metric[1], metric[2], metric[4]
    if n_free == 3:
        return a <= b and (centring == 3 or b <= c)
    if n_free == 4:  # in C the reflections of h + 1 are others than those of h
        return 0 <= e <= 1.02 * min(c, a if centring == 0 else 2 * a) and (centring != 0 or a <= c)
    return True


@njit(**FAST)
def _search(task, solutions, basis, centring, points, chosen):
    """Fill a Task with cells that are solved from chosen lines (c, f)."""
    n_free = len(basis)
    for places in chosen:
        own = task.q[places]
        for s in range(len(solutions)):
            metric = np.zeros(6)
            for p in range(n_free):
                value = 0.0
                for i in range(n_free):
                    value += solutions[s, p, i] * own[i]
                for k in range(6):
                    metric[k] += value * basis[p, k]
            if _is_chosen(metric, n_free, centring) and is_cell(metric, points):
                _try(metric, centring, task)


@njit(**FAST)
def _search_triclinic(task, axes, planes):
    """The same of triclinic cells: three lines of the axes, and one of the plane between each two of them."""
    for i in range(len(axes)):
        for j in range(i + 1, len(axes)):
            for k in range(j + 1, len(axes)):
                a, b, c = task.q[axes[i]], task.q[axes[j]], task.q[axes[k]]
                for d in task.q[planes] - b - c:
                    for e in task.q[planes] - a - c:
                        for f in task.q[planes] - a - b:
                            for sign in (1.0, -1.0):
                                metric = np.array([a, b, c, sign * d, e, f])
                                if is_cell(metric, 1):
                                    _try(metric, 0, task)
