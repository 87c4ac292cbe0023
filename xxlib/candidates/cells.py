"""Cells of the 14 Bravais lattices against the lines of a pattern: what reflections a cell has, and what it is worth.

What a cell is worth is its evidence: how much likelier the places of the lines are with it than by chance, as
de Wolff's figure of merit has it (J. Appl. Cryst. 1, 108 (1968)): near lines count, and among many calculated ones a
near one is nothing.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit

from xxlib.candidates.calculated import forms_of
from xxlib.candidates.library import volume_of
from xxlib.candidates.standard import cell_of
from xxlib.candidates.symmetry import standard_halls
from xxlib.crystals.crystal import crystal_system
from xxlib.diffraction.kernel import FAST

# Pearson symbols, those of high symmetry first: its crystal family, and the centring.
LATTICES = ("cF", "cI", "cP", "hR", "hP", "tI", "tP", "oF", "oI", "oC", "oP", "mC", "mP", "aP")
FAMILIES = {"c": "cubic", "h": "hexagonal", "t": "tetragonal", "o": "orthorhombic", "m": "monoclinic", "a": "triclinic"}
CENTRINGS = "PIFCR"
POINTS = {"P": 1, "C": 2, "I": 2, "R": 3, "F": 4}  # of the lattice, in a cell
VOLUMES, LENGTHS = (8.0, 2500.0), (1.4, 60.0)  # cubic angstrom a point, angstrom of the edges of a cell
ROOM = 6000  # calculated reflections


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
        return float(volume_of(self.metric))


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


@njit(**FAST)
def has(centring, h, k, l):
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
def is_cell(metric, points):
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
def reflections(metric, centring, most, room, q, hkl):
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
                if not has(centring, h, k, l):
                    continue
                value = h * h * a + k * k * b + l * l * c + 2 * (k * l * d + h * l * e + h * k * f)
                if value <= most:
                    if n == room:
                        return -1
                    q[n], hkl[n, 0], hkl[n, 1], hkl[n, 2] = value, h, k, l
                    n += 1
    return n


@njit(**FAST)
def evidence_of(q, degree, chance, metric, centring, sigma, calculated, hkl):
    """Logarithm of how much likelier the places of the lines are with a cell than by chance; how many it explains.

    A line is off a calculated one, of which there are so many a degree, as errors are; or it is of something else.
    calculated, hkl: of ROOM, to work in.
    """
    n = reflections(metric, centring, q[-1] + 1.6 * degree[-1], ROOM, calculated, hkl)
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
def refined(q, degree, metric, basis, centring, points, near, shift_error, calculated, hkl):
    """Metric (6,) and shift (degree) by least squares of the lines that are near a calculated one.

    calculated, hkl: of ROOM, to work in.
    """
    n_free, shift = len(basis), 0.0
    for turn in range(4):
        n = reflections(metric, centring, q[-1] + degree[-1], ROOM, calculated, hkl)
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
            row = np.append(forms_of(hkl[nearest : nearest + 1], basis)[0], degree[i])
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
        if not is_cell(tried, points):
            break
        metric, shift = tried, solved[-1]
    return metric, shift
