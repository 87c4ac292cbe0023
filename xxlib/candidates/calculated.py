"""The pattern of a crystal of known symmetry, and how it changes with its cell and with the places of its atoms.

Parameters: the k free ones of the reciprocal metric, the coordinates in which atoms may move without losing their site
symmetry, a shift of 2 theta, the width of the peaks (degree), the logarithm of the scale.
"""

import numpy as np
from numba import njit

from xxlib.candidates.lines import expanded, factors
from xxlib.diffraction.kernel import FAST
from xxlib.diffraction.patterns import N_POINTS, REACH, START, STEP
from xxlib.diffraction.wavelengths import CU_KA


@njit(**FAST)
def forms_of(hkl, basis):
    """What each free parameter of a reciprocal metric adds to 1/d^2 of reflections (n, 3): (n, k); basis: (k, 6)."""
    out = np.empty((len(hkl), len(basis)))
    for i in range(len(hkl)):
        h, k, l = float(hkl[i, 0]), float(hkl[i, 1]), float(hkl[i, 2])
        for p in range(len(basis)):
            b = basis[p]
            out[i, p] = b[0] * h * h + b[1] * k * k + b[2] * l * l + b[3] * k * l + b[4] * h * l + b[5] * h * k
    return out


@njit(**FAST)
def free_directions(rotations, translations, centrings, x):
    """Directions (r, 3), fractional, in which an atom at x (3,) may move without losing its site symmetry."""
    mean, n = np.zeros((3, 3)), 0
    for o in range(len(rotations)):
        for c in range(len(centrings)):
            apart = 0.0
            for i in range(3):
                d = translations[o, i] + centrings[c, i] - x[i]
                for j in range(3):
                    d += rotations[o, i, j] * x[j]
                apart = max(apart, abs(d - np.round(d)))
            if apart < 1e-3:
                for i in range(3):
                    for j in range(3):
                        mean[i, j] += rotations[o, i, j]
                n += 1
    mean /= n
    out, r = np.zeros((3, 3)), 0
    for j in range(3):  # the columns of a projector, orthogonalised
        v = mean[:, j].copy()
        for k in range(r):
            v -= (v * out[k]).sum() * out[k]
        length = np.sqrt((v * v).sum())
        if length > 1e-3:
            out[r] = v / length
            r += 1
    return out[:r]


@njit(**FAST)
def atoms_of(group, unit, movable):
    """Atoms of a primitive cell, and how they may move.

    group: rotations, translations, centrings, ....  unit: frac (a, 3), numbers (a,), occupancies (a,) of the asymmetric
    unit.  movable: whether they may move at all.
    Returns of each atom which of the unit it is an image of and by which operation (m,), its place among the elements
    (m,), its occupancy (m,); the elements (e,); and directions (r, 3) of the unit's atoms, of which atom a owns
    owner[a]:owner[a + 1].
    """
    rotations, translations, centrings, _ = group
    frac, numbers, occupancies = unit
    _, kinds, source, operation = expanded(rotations, translations, centrings, frac, numbers)
    elements = np.unique(kinds)
    owner, directions, n_free = np.zeros(len(frac) + 1, np.int64), np.zeros((3 * len(frac), 3)), 0
    for a in range(len(frac)):
        if movable:
            own = free_directions(rotations, translations, centrings, frac[a])
            directions[n_free : n_free + len(own)] = own
            n_free += len(own)
        owner[a + 1] = n_free
    places = np.searchsorted(elements, kinds)
    return source, operation, places, occupancies[source], elements, directions[:n_free], owner


@njit(**FAST)
def lines(parameters, forms, hkl, count, group, frac, atoms, table, slopes):
    """2 theta (n,), its change with 1/d^2 (n,), and intensity (n,) of reflections; slopes (n, r) are written.

    parameters: as the module has them.  forms: forms_of(hkl).  frac: (a, 3) where nothing has moved.  atoms: those of
    atoms_of.  slopes: how intensities change with each coordinate; (n, 0): they are not asked for.
    """
    k, n, m = forms.shape[1], len(hkl), len(atoms[0])
    rotations, translations, _, _ = group
    source, operation, places, occupancies, elements, directions, owner = atoms
    now = frac.copy()
    for a in range(len(frac)):
        for r in range(owner[a], owner[a + 1]):
            now[a] += parameters[k + r] * directions[r]
    where, moves = np.zeros((m, 3)), np.zeros((m, 3, 3))
    for j in range(m):
        a, o = source[j], operation[j]
        for i in range(3):
            where[j, i] = translations[o, i]
            for x in range(3):
                where[j, i] += rotations[o, i, x] * now[a, x]
                for r in range(owner[a + 1] - owner[a]):
                    moves[j, r, i] += rotations[o, i, x] * directions[owner[a] + r, x]
    g2 = forms @ parameters[:k]
    f, scale = factors(count, g2, elements, table, CU_KA)
    angle, bend, intensity = np.empty(n), np.empty(n), np.empty(n)
    cosines, sines = np.empty(m), np.empty(m)
    shift = parameters[k + len(directions)]
    slopes[:] = 0.0
    for i in range(n):
        angle[i], bend[i] = angle_of(g2[i])
        angle[i] += shift
        h, q, l = hkl[i, 0], hkl[i, 1], hkl[i, 2]
        re = im = 0.0
        for j in range(m):
            phase = 2 * np.pi * (h * where[j, 0] + q * where[j, 1] + l * where[j, 2])
            weight = f[i, places[j]] * occupancies[j]
            cosines[j], sines[j] = weight * np.cos(phase), weight * np.sin(phase)
            re += cosines[j]
            im += sines[j]
        intensity[i] = scale[i] * (re * re + im * im)
        if slopes.shape[1]:
            for j in range(m):
                first = owner[source[j]]
                turn = 4 * np.pi * scale[i] * (im * cosines[j] - re * sines[j])
                for r in range(owner[source[j] + 1] - first):
                    slopes[i, first + r] += turn * (h * moves[j, r, 0] + q * moves[j, r, 1] + l * moves[j, r, 2])
    return angle, bend, intensity


@njit(**FAST)
def angle_of(g2):
    """2 theta in degree of a line with 1/d^2, and d(2 theta) / d(1/d^2)."""
    sine = min(0.5 * CU_KA * np.sqrt(max(g2, 1e-9)), 0.9999)
    theta = np.arcsin(sine)
    return 2 * np.degrees(theta), np.degrees(0.25 * CU_KA * CU_KA / (sine * np.cos(theta)))


@njit(**FAST)
def points_of(angle, sigma):
    """The points of the grid, first and last + 1, on which a peak at an angle with a width has something."""
    place, reach = (angle - START) / STEP, REACH * sigma / STEP
    first = min(max(0, int(np.ceil(place - reach))), N_POINTS)
    return first, max(first, min(N_POINTS, int(place + reach) + 1))


@njit(**FAST)
def profile(angle, intensity, sigma):
    """Pattern (4250,) of lines at 2 theta (n,), degree: Gaussians of a width."""
    pattern = np.zeros(N_POINTS)
    for j in range(len(angle)):
        first, end = points_of(angle[j], sigma)
        for i in range(first, end):
            u = (START + STEP * i - angle[j]) / sigma
            pattern[i] += intensity[j] * np.exp(-0.5 * u * u)
    return pattern


@njit(**FAST)
def slopes_of(angle, bend, intensity, slopes, forms, sigma, pattern):
    """How the pattern (4250,) changes with each parameter: (4250, k + r + 3)."""
    k, r = forms.shape[1], slopes.shape[1]
    out = np.zeros((N_POINTS, k + r + 3))
    for j in range(len(angle)):
        first, end = points_of(angle[j], sigma)
        for i in range(first, end):
            u = (START + STEP * i - angle[j]) / sigma
            height = np.exp(-0.5 * u * u)
            by_angle = intensity[j] * height * u / sigma
            for p in range(k):
                out[i, p] += by_angle * bend[j] * forms[j, p]
            for p in range(r):
                out[i, k + p] += height * slopes[j, p]
            out[i, k + r] += by_angle
            out[i, k + r + 1] += by_angle * u  # by the width
    out[:, k + r + 2] = pattern  # by the logarithm of the scale
    return out


@njit(**FAST)
def sums_of_roots(root, measured, pattern):
    """Of two patterns, one by its root: sum of the products of the roots, of the first, of the second."""
    product = first = second = 0.0
    for i in range(N_POINTS):
        if measured[i]:
            product += root[i] * np.sqrt(pattern[i])
            first += root[i] * root[i]
            second += pattern[i]
    return product, max(first, 1e-12), max(second, 1e-12)
