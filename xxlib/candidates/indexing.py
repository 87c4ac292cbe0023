"""Cells that explain the lines of a pattern where no crystal is known: indexing.

For each of the 14 Bravais lattices: cells are solved from a few lines that are given small indices, kept where they
have the first lines, and refined by all.  What a cell is worth is its evidence: how much likelier the places of the
lines are with it than by chance, as de Wolff's figure of merit has it (J. Appl. Cryst. 1, 108 (1968)): near lines
count, and among many calculated ones a near one is nothing.  Trial of small indices: Werner, Eriksson and Westdahl,
J. Appl. Cryst. 18, 367 (1985).
"""

import itertools
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit

from xxlib.candidates.standard import cell_of
from xxlib.candidates.symmetry import FREE, standard_halls
from xxlib.crystals.crystal import crystal_system
from xxlib.diffraction.kernel import FAST
from xxlib.diffraction.wavelengths import CU_KA

# Pearson symbols, those of high symmetry first: its crystal family, and the centring.
LATTICES = ("cF", "cI", "cP", "hR", "hP", "tI", "tP", "oF", "oI", "oC", "oP", "mC", "mP", "aP")
FAMILIES = {"c": "cubic", "h": "hexagonal", "t": "tetragonal", "o": "orthorhombic", "m": "monoclinic", "a": "triclinic"}
CENTRINGS = "PIFCR"
# Of a family: how many reflections are tried for how many of the first lines.
TRIED = {"cubic": (8, 6), "tetragonal": (16, 8), "hexagonal": (16, 8), "orthorhombic": (20, 8), "monoclinic": (15, 8)}
AXES, OFF_AXES = 7, 9  # of a triclinic cell: first lines that may be of an axis, and of a plane between two
LEAST_LINES, MOST_LINES, FIRST = 4, 40, 10  # lines; of those to search with the first ones that a cell must have
SEARCHED = 25  # lines that a cell is chosen by before it is refined
KEPT = 12  # cells of a lattice that are refined
POINTS = {"P": 1, "C": 2, "I": 2, "R": 3, "F": 4}  # of the lattice, in a cell
VOLUMES, LENGTHS = (8.0, 2500.0), (1.4, 60.0)  # cubic angstrom a point, angstrom of the edges of a cell
SPARE = 6  # times as many lines as were seen may be calculated
# Reflections that are one line, without their inverses.
EQUAL = {"cubic": 12, "tetragonal": 6, "hexagonal": 6, "orthorhombic": 4, "monoclinic": 2, "triclinic": 1}
ROOM = 6000  # calculated reflections
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


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell that explains lines."""

    lattice: str  # one of LATTICES
    metric: np.ndarray  # (6,) reciprocal, as standard.reciprocal has it, of the conventional cell
    shift: float  # degree of 2 theta
    evidence: float  # natural logarithm
    explained: int  # lines
    lines: int  # of the pattern

    @property
    def cell(self):
        """a, b, c (angstrom), alpha, beta, gamma (degree): (6,)."""
        return cell_of(self.metric)

    @property
    def volume(self):
        """Cubic angstrom."""
        return 1 / np.sqrt(_determinant(self.metric))


@cache
def lattices_of():
    """Place in LATTICES of the lattice of each space group by its number (231,); 0 is none."""
    import spglib

    places = np.full(231, -1)
    for number in range(1, 231):
        symbol = spglib.get_spacegroup_type(int(standard_halls()[number])).international_short
        family = {"trigonal": "hexagonal"}.get(system := crystal_system(number), system)
        centring = {"A": "C", "B": "C"}.get(symbol[0], symbol[0])
        places[number] = LATTICES.index({long: short for short, long in FAMILIES.items()}[family] + centring)
    return places


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
    basis = np.array(FREE[family], float)
    task = Task(
        *(values[:SEARCHED] for values in lines), first, accuracy.near, accuracy.sigma,
        SPARE * EQUAL[family] * (first[-1] + 1), np.full(KEPT, -np.inf), np.zeros((KEPT, 6)),
        np.empty(ROOM), np.empty((ROOM, 3), np.int64),
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
        metric, _ = _refined(task.q, task.degree, metric, *how, accuracy.near, accuracy.shift)
        metric, shift = _refined(q, degree, metric, *how, 3 * accuracy.sigma, accuracy.shift)
        evidence, explained = _evidence(q - shift * degree, degree, chance, metric, centring, accuracy.sigma)
        if explained:
            cells.append(Cell(lattice, metric, shift, evidence, explained, len(q)))
    return cells


@cache
def _solutions(lattice):
    """Matrices (s, f, f) that make the free parameters of a cell from the q of f lines: one a choice of indices."""
    grid = np.array([hkl for hkl in itertools.product(range(-2, 3), repeat=3) if hkl > (0, 0, 0)])
    grid = grid[[_has(CENTRINGS.index(lattice[1]), *hkl) for hkl in grid]]
    family = FAMILIES[lattice[0]]
    forms = _forms(grid.T) @ np.array(FREE[family], float).T
    _, first = np.unique(forms, axis=0, return_index=True)
    grid, forms = grid[first], forms[first]
    smallest = np.argsort((grid**2).sum(1) + 0.01 * np.abs(grid).max(1), kind="stable")
    forms = forms[smallest[: TRIED[family][0]]]
    chosen = np.array(list(itertools.permutations(range(len(forms)), forms.shape[1])))
    matrices = forms[chosen]
    return np.linalg.inv(matrices[np.abs(np.linalg.det(matrices)) > 1e-6])


def _forms(hkl):
    """hh, kk, ll, kl, hl, hk (..., 6) of h, k and l."""
    h, k, l = hkl
    return np.stack([h * h, k * k, l * l, k * l, h * l, h * k], -1).astype(float)


@njit(**FAST)
def _has(centring, h, k, l):
    """Whether a lattice of a centring, by its place in CENTRINGS, has a reflection."""
    if centring == 1:
        return (h + k + l) % 2 == 0
    if centring == 2:
        return (h + k) % 2 == 0 and (k + l) % 2 == 0
    if centring == 3:
        return (h + k) % 2 == 0
    return centring == 0 or (-h + k + l) % 3 == 0


@njit(**FAST)
def _determinant(metric):
    """Of the reciprocal metric: 1 / volume^2; not above 0 where it is of no cell."""
    a, b, c, d, e, f = metric[0], metric[1], metric[2], metric[3] / 2, metric[4] / 2, metric[5] / 2
    return a * (b * c - d * d) - f * (f * c - d * e) + e * (f * d - b * e)


@njit(**FAST)
def _is_cell(metric, points):
    """Whether a metric is of a cell of VOLUMES and LENGTHS, of so many lattice points."""
    a, b, c, d, e, f = metric[0], metric[1], metric[2], metric[3] / 2, metric[4] / 2, metric[5] / 2
    determinant = _determinant(metric)
    of_point = determinant * points**2
    if a <= 0 or b <= 0 or c <= 0 or not VOLUMES[1] ** -2 <= of_point <= VOLUMES[0] ** -2:
        return False
    shortest, longest = LENGTHS[0] ** 2 * determinant, LENGTHS[1] ** 2 * determinant
    edges = (b * c - d * d, a * c - e * e, a * b - f * f)
    return min(edges) > shortest and max(edges) < longest


@njit(**FAST)
def _reflections(metric, centring, most, room, q, hkl):
    """How many reflections have q up to `most`, without their inverses; q (ROOM,) and hkl (ROOM, 3) hold them.

    -1 where there are more than `room`.
    """
    a, b, c, d, e, f = metric[0], metric[1], metric[2], metric[3] / 2, metric[4] / 2, metric[5] / 2
    scale, n = most / _determinant(metric), 0
    h_most, k_most, l_most = (
        int(np.sqrt(scale * (b * c - d * d))), int(np.sqrt(scale * (a * c - e * e))),
        int(np.sqrt(scale * (a * b - f * f))),
    )  # fmt: skip
    if (h_most + 1) * (2 * k_most + 1) * (2 * l_most + 1) > 10 * room:
        return -1
    for h in range(h_most + 1):
        for k in range(-k_most if h else 0, k_most + 1):
            for l in range(-l_most if h or k else 1, l_most + 1):
                if not _has(centring, h, k, l):
                    continue
                value = h * h * a + k * k * b + l * l * c + 2 * (k * l * d + h * l * e + h * k * f)
                if value <= most:
                    if n == room:
                        return -1
                    q[n], hkl[n, 0], hkl[n, 1], hkl[n, 2] = value, h, k, l
                    n += 1
    return n


@njit(**FAST)
def _evidence(q, degree, chance, metric, centring, sigma):
    """Logarithm of how much likelier the places of the lines are with a cell than by chance; how many it explains.

    A line is off a calculated one, of which there are so many a degree, as errors are; or it is of something else.
    """
    calculated, hkl = np.empty(ROOM), np.empty((ROOM, 3), np.int64)
    n = _reflections(metric, centring, q[-1] + 1.6 * degree[-1], ROOM, calculated, hkl)
    if n <= 0:
        return -np.inf, 0
    calculated, distinct = np.sort(calculated[:n]), 0
    for i in range(n):
        if distinct == 0 or calculated[i] - calculated[distinct - 1] > 1e-5 * calculated[i]:
            calculated[distinct] = calculated[i]
            distinct += 1
    calculated = calculated[:distinct]
    evidence, explained = 0.0, 0
    for i in range(len(q)):
        low, place, high = np.searchsorted(calculated, np.array([q[i] - 1.5 * degree[i], q[i], q[i] + 1.5 * degree[i]]))
        density = max(high - low, 1) / 3.0
        off = np.inf
        if place < distinct:
            off = min(off, calculated[place] - q[i])
        if place > 0:
            off = min(off, q[i] - calculated[place - 1])
        off /= degree[i] * sigma
        evidence += np.log(chance[i] + (1 - chance[i]) * np.exp(-0.5 * off**2) / (np.sqrt(2 * np.pi) * sigma * density))
        explained += off < 3
    return evidence, explained


@njit(**FAST)
def _refined(q, degree, metric, basis, centring, points, near, shift_error):
    """Metric (6,) and shift (degree) by least squares of the lines that are near a calculated one."""
    n_free, shift = len(basis), 0.0
    calculated, hkl = np.empty(ROOM), np.empty((ROOM, 3), np.int64)
    for turn in range(4):
        n = _reflections(metric, centring, q[-1] + degree[-1], ROOM, calculated, hkl)
        if n <= 0:
            break
        matrix, right = np.zeros((n_free + 1, n_free + 1)), np.zeros(n_free + 1)
        matrix[-1, -1] = 1 / shift_error**2 if shift_error > 0 else 1e12
        used = 0
        for i in range(len(q)):
            nearest = np.argmin(np.abs(calculated[:n] - (q[i] - shift * degree[i])))
            off = abs(calculated[nearest] - (q[i] - shift * degree[i]))
            if off > (near if turn < 2 else near / 2) * degree[i]:
                continue
            h, k, l = hkl[nearest]
            forms = np.array([h * h, k * k, l * l, k * l, h * l, h * k], np.float64)
            row = np.append(basis @ forms, degree[i])
            weight = (0.02 * degree[i]) ** -2
            matrix += weight * np.outer(row, row)
            right += weight * q[i] * row
            used += 1
        if used <= n_free:
            break
        # A parameter that no line tells stays what it is.
        hold = 1e-6 * np.diag(matrix)[:n_free].max()
        for p in range(n_free):
            place = np.argmax(basis[p])
            matrix[p, p] += hold
            right[p] += hold * metric[place] / basis[p, place]
        solved = np.linalg.solve(matrix, right)
        tried = basis.T @ solved[:n_free]
        if not _is_cell(tried, points):
            break
        metric, shift = tried, solved[-1]
    return metric, shift


@njit(**FAST)
def _try(metric, centring, task):
    """Put a metric among the best of a Task where it is of a cell that has all but one of the first lines."""
    last, missed = task.first[-1], 0
    most = task.q[last] + task.near * task.degree[last]
    n = _reflections(metric, centring, most, task.most, task.calculated, task.hkl)
    if n <= 0:
        return
    for i in task.first:
        has, near = False, task.near * task.degree[i]
        for j in range(n):
            if abs(task.calculated[j] - task.q[i]) <= near:
                has = True
                break
        missed += not has
        if missed > 1:
            return
    evidence, _ = _evidence(task.q, task.degree, task.chance, metric, centring, 2 * task.sigma)
    place = np.argmin(task.scores)
    for k in range(KEPT):
        if task.scores[k] > -np.inf and np.abs(task.metrics[k] - metric).max() < 2e-4 * metric[:3].sum():
            place = k  # the same cell
            break
    if evidence > task.scores[place]:
        task.scores[place], task.metrics[place] = evidence, metric


@njit(**FAST)
def _is_chosen(metric, n_free, centring):
    """Whether a metric is that of one among the settings of its cell: shortest axes, of increasing length."""
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
            if _is_chosen(metric, n_free, centring) and _is_cell(metric, points):
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
                                if _is_cell(metric, 1):
                                    _try(metric, 0, task)
