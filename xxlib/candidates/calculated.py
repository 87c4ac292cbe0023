"""The pattern of a crystal of known symmetry, and how it changes with all that it depends on.

Parameters: the k free ones of the reciprocal metric, the r coordinates in which atoms may move without losing their
site symmetry, and a look: what instrument and powder make of the lines.
"""

import numpy as np
from numba import njit

from xxlib.candidates.lines import expanded, factors
from xxlib.diffraction.kernel import FAST
from xxlib.diffraction.patterns import (
    CURVATURE,
    GAUSSIAN_AREA,
    LORENTZIAN_AREA,
    N_POINTS,
    REACH,
    START,
    STEP,
    TAIL,
    VOIGT_REACH,
)  # fmt: skip
from xxlib.diffraction.texture import march
from xxlib.diffraction.wavelengths import ANODES, CU_KA

# The look of a pattern.  B of all atoms, angstrom^2; logarithm of March's coefficient; shift of 2 theta, degree;
# standard deviation of the peaks where theta is 0, degree, and what it gains with tan theta, relative; share of a peak
# that is Lorentzian, of its area, and that is K-alpha2; logarithm of the scale.
LOOK = ("thermal", "texture", "shift", "width", "broadening", "lorentzian", "ka2", "scale")
THERMAL, TEXTURE, SHIFT, WIDTH, BROADENING, LORENTZIAN, KA2, SCALE = range(len(LOOK))
DOUBLET = 2 * np.degrees(1) * (ANODES["Cu"][1] - ANODES["Cu"][0]) / CU_KA  # degree: from K-alpha1 to 2, over tan theta
FAINTEST = 4e-6  # of the strongest peak: less is not drawn
SAME_AREA = float(GAUSSIAN_AREA / LORENTZIAN_AREA)  # height of a Lorentzian peak over that of a Gaussian


def gaussian(width):
    """The look (8,) of a pattern of Gaussian peaks of a width, degree, and nothing else."""
    look = np.zeros(len(LOOK))
    look[WIDTH] = width
    return look


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
def lines(parameters, basis, forms, hkl, count, group, frac, atoms, axes, table, slopes):
    """2 theta (n,), its change with 1/d^2 (n,), and intensity (n,) of reflections; slopes (n, r + 2) are written.

    parameters: as the module has them.  basis: (k, 6), forms: forms_of(hkl, basis).  frac: (a, 3) where nothing has
    moved.  atoms: those of atoms_of.  axes: (q, 3) indices of the equal directions of a texture; (0, 3): there is none.
    slopes: how intensities change with each coordinate, with B, and with the texture; (n, 0): they are not asked for.
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
    n_moves = len(directions)
    look = parameters[k + n_moves :]
    textured = texture_of(hkl, parameters[:k] @ basis, axes, look[TEXTURE])
    slopes[:] = 0.0
    for i in range(n):
        angle[i], bend[i] = angle_of(g2[i])
        angle[i] += look[SHIFT]
        h, q, l = hkl[i, 0], hkl[i, 1], hkl[i, 2]
        re = im = 0.0
        for j in range(m):
            phase = 2 * np.pi * (h * where[j, 0] + q * where[j, 1] + l * where[j, 2])
            weight = f[i, places[j]] * occupancies[j]
            cosines[j], sines[j] = weight * np.cos(phase), weight * np.sin(phase)
            re += cosines[j]
            im += sines[j]
        scale[i] *= textured[i, 0] * np.exp(-0.5 * look[THERMAL] * g2[i])
        intensity[i] = scale[i] * (re * re + im * im)
        if slopes.shape[1]:
            for j in range(m):
                first = owner[source[j]]
                turn = 4 * np.pi * scale[i] * (im * cosines[j] - re * sines[j])
                for r in range(owner[source[j] + 1] - first):
                    slopes[i, first + r] += turn * (h * moves[j, r, 0] + q * moves[j, r, 1] + l * moves[j, r, 2])
            slopes[i, n_moves] = -0.5 * g2[i] * intensity[i]
            slopes[i, n_moves + 1] = textured[i, 1] * intensity[i]
    return angle, bend, intensity


@njit(**FAST)
def texture_of(hkl, metric, axes, texture):
    """What a texture makes of reflections (n, 3): factors, and how their logarithms change with it: (n, 2).

    metric: reciprocal (6,).  axes: as lines() takes them.
    """
    out = np.ones((len(hkl), 2))
    out[:, 1] = 0.0
    if not len(axes):
        return out
    a, b, c, bc, ac, ab = metric[0], metric[1], metric[2], metric[3] / 2, metric[4] / 2, metric[5] / 2
    reciprocal, step = np.array([[a, ab, ac], [ab, b, bc], [ac, bc, c]]), 1e-4
    for i in range(len(hkl)):
        own = hkl[i].astype(np.float64)
        out[i, 0] = march(np.exp(texture), own, reciprocal, axes)
        out[i, 1] = (march(np.exp(texture + step), own, reciprocal, axes) / out[i, 0] - 1) / step
    return out


@njit(**FAST)
def equal_directions(axis, laue):
    """Indices (q, 3) of what a Laue group (p, 3, 3) makes equal to an axis (3,), one of each and its opposite."""
    out, n = np.zeros((len(laue), 3)), 0
    for o in range(len(laue)):
        image, known = np.zeros(3), False
        for i in range(3):
            for j in range(3):
                image[i] += axis[j] * laue[o, j, i]
        for q in range(n):
            known = known or np.abs(out[q] - image).max() < 0.5 or np.abs(out[q] + image).max() < 0.5
        if not known:
            out[n] = image
            n += 1
    return out[:n]


@njit(**FAST)
def angle_of(g2):
    """2 theta in degree of a line with 1/d^2, and d(2 theta) / d(1/d^2)."""
    sine = min(0.5 * CU_KA * np.sqrt(max(g2, 1e-9)), 0.9999)
    theta = np.arcsin(sine)
    return 2 * np.degrees(theta), np.degrees(0.25 * CU_KA * CU_KA / (sine * np.cos(theta)))


@njit(**FAST)
def peaks_of(angle, look):
    """Of a line at 2 theta, degree: tan theta, the offsets of its two peaks, their width, and what that has gained.

    K-alpha1 and 2 lie so that their mean is at the angle.
    """
    tangent = np.tan(np.radians(min(max(angle, 0.1), 175.0)) / 2)
    gained = max(1 + look[BROADENING] * tangent, 0.2)
    apart = DOUBLET * tangent
    return tangent, -look[KA2] * apart, (1 - look[KA2]) * apart, look[WIDTH] * gained, gained


@njit(**FAST)
def points_of(angle, sigma, height, lorentzian):
    """The points of the grid, first and last + 1, on which a peak at an angle has more than FAINTEST; its height."""
    if height <= FAINTEST:
        return 0, 0
    reach = min(np.sqrt(2 * np.log(height / FAINTEST)), REACH)
    if lorentzian > 0:
        tail = lorentzian * SAME_AREA * height / FAINTEST
        reach = max(reach, min(np.sqrt(CURVATURE * max(tail - 1, 0.0)), VOIGT_REACH))
    place, reach = (angle - START) / STEP, reach * sigma / STEP
    first = min(max(0, int(np.ceil(place - reach))), N_POINTS)
    return first, max(first, min(N_POINTS, int(place + reach) + 1))


@njit(**FAST)
def peak(u, lorentzian):
    """A peak, of the area of a Gaussian of height 1, at u standard deviations; its slopes by u and by its share."""
    gauss = np.exp(-0.5 * u * u)
    if lorentzian <= 0:
        return gauss, -u * gauss, 0.0
    below = 1 / (1 + u * u / CURVATURE)
    lorentz = SAME_AREA * max(below - TAIL, 0.0) / (1 - TAIL)
    slope = -2 * SAME_AREA * u * below * below / (CURVATURE * (1 - TAIL))
    rest = 1 - lorentzian
    return rest * gauss + lorentzian * lorentz, lorentzian * slope - rest * u * gauss, lorentz - gauss


@njit(**FAST)
def profile(angle, intensity, look):
    """Pattern (4250,) of lines at 2 theta (n,), degree, in a look: pseudo-Voigt peaks."""
    pattern, share, strongest = np.zeros(N_POINTS), look[LORENTZIAN], intensity.max()
    for j in range(len(angle)):
        _, first_offset, second_offset, sigma, gained = peaks_of(angle[j], look)
        for offset, part in ((first_offset, 1 - look[KA2]), (second_offset, look[KA2])):
            height, place = intensity[j] * part / gained, angle[j] + offset
            first, end = points_of(place, sigma, height / strongest, share)
            for i in range(first, end):
                pattern[i] += height * peak((START + STEP * i - place) / sigma, share)[0]
    return pattern


@njit(**FAST)
def slopes_of(angle, bend, intensity, slopes, forms, look, pattern):
    """How the pattern (4250,) changes with each parameter: (4250, k + r + 8)."""
    k, r, share, second = forms.shape[1], slopes.shape[1] - 2, look[LORENTZIAN], look[KA2]
    out, s, strongest = np.zeros((N_POINTS, k + r + len(LOOK))), k + r, intensity.max()
    for j in range(len(angle)):
        tangent, one, two, sigma, gained = peaks_of(angle[j], look)
        first, end = points_of(angle[j] + one, sigma, intensity[j] * (1 - second) / gained / strongest, share)
        if second > 0:
            begin, stop = points_of(angle[j] + two, sigma, intensity[j] * second / gained / strongest, share)
            if stop > begin:
                first, end = min(first, begin), max(end, stop)
        for i in range(first, end):
            x = START + STEP * i - angle[j]
            u = (x - one) / sigma
            height, by_u, by_share = peak(u, share)
            by_width, by_ka2 = u * by_u, 0.0
            if second > 0:
                v = (x - two) / sigma
                other, by_v, other_by_share = peak(v, share)
                by_ka2 = other - height
                height, by_u = (1 - second) * height + second * other, (1 - second) * by_u + second * by_v
                by_width = (1 - second) * by_width + second * v * by_v
                by_share = (1 - second) * by_share + second * other_by_share
            own, row = intensity[j] / gained, out[i]
            by_angle, height = -own * by_u / sigma, height / gained
            for p in range(k):
                row[p] += by_angle * bend[j] * forms[j, p]
            for p in range(r + 2):  # coordinates, B, texture
                row[k + p] += height * slopes[j, p]
            row[s + SHIFT] += by_angle
            row[s + WIDTH] -= own * by_width / look[WIDTH]
            row[s + BROADENING] -= tangent * (own * by_width / gained + intensity[j] * height / gained)
            row[s + LORENTZIAN] += own * by_share
            row[s + KA2] += own * by_ka2 - by_angle * DOUBLET * tangent
    out[:, s + SCALE] = pattern
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
