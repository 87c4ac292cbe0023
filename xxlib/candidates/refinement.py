"""A candidate against the whole pattern: cell and atoms refined together, in what its symmetry leaves free.

Levenberg-Marquardt on the square roots of both patterns, so that strong and weak peaks count as their counting noise
lets them.  Parameters: the free ones of the reciprocal metric, the free coordinates of the asymmetric unit, the scale,
and of measured patterns a shift of 2 theta and the width of the peaks.  Derivatives are analytic, but for those of the
scattering and Lorentz-polarisation factors by the cell, which are small.
"""

import numpy as np
from numba import njit

from xxlib.candidates.lines import expanded, families
from xxlib.diffraction.kernel import FAST, S2_STEP
from xxlib.diffraction.patterns import N_POINTS, REACH, START, STEP
from xxlib.diffraction.wavelengths import CU_KA

TURNS, TRIES = 20, 9  # of the search; of the damping in each
LEAST_GAIN = 5e-7  # of the sum of squares: below, a turn is the last
FLOOR = 0.02  # of 100, added below the root: where there is nothing, the root has no slope
LOWEST, HIGHEST = (2 * np.sin(np.radians(angle / 2)) / CU_KA for angle in (4.0, 91.0))  # 1/d of the lines, 1/angstrom
MOST_MOVE = 0.02  # fractional: an atom moves no farther in a turn
HOLD = 0.05  # angstrom: standard deviation of how far atoms move from where the known crystal has them
STRAIN = 0.05  # likewise of the parameters of the reciprocal metric, of the largest of them


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
def _factors(hkl, count, g2, elements, table):
    """Scattering factors (n, e) of reflections, and multiplicity x Lorentz-polarisation (n,)."""
    f, lp = np.empty((len(hkl), len(elements))), np.empty(len(hkl))
    for i in range(len(hkl)):
        s2 = g2[i] / 4
        node = min(int(s2 / S2_STEP), table.shape[1] - 1)
        t = s2 / S2_STEP - node - 0.5
        for e in range(len(elements)):
            c = table[elements[e], node]
            f[i, e] = c[0] + t * (c[1] + t * (c[2] + t * (c[3] + t * (c[4] + t * (c[5] + t * (c[6] + t * c[7]))))))
        sin2 = min(CU_KA * CU_KA * g2[i] / 4, 0.999999)
        lp[i] = count[i] * (1 + (1 - 2 * sin2) ** 2) / (sin2 * np.sqrt(1 - sin2))
    return f, lp


@njit(**FAST)
def _intensities(hkl, f, lp, places, kinds, shares, source, moves, owner, slopes):
    """Intensity (n,) of reflections; written to slopes (n, p): how it changes as an atom of the unit moves along u.

    places (m, 3), kinds (m,), shares (m,), source (m,): atoms of a primitive cell.  moves (m, 3, 3): of each, the
    directions in which it moves with those of its atom of the unit; owner (a + 1,): the parameters of these.
    """
    n, m = len(hkl), len(places)
    out, cosines, sines = np.empty(n), np.empty(m), np.empty(m)
    for i in range(n):
        h, k, l = hkl[i, 0], hkl[i, 1], hkl[i, 2]
        re = im = 0.0
        for j in range(m):
            phase = 2 * np.pi * (h * places[j, 0] + k * places[j, 1] + l * places[j, 2])
            w = f[i, kinds[j]] * shares[j]
            cosines[j], sines[j] = w * np.cos(phase), w * np.sin(phase)
            re += cosines[j]
            im += sines[j]
        out[i] = lp[i] * (re * re + im * im)
        for p in range(slopes.shape[1]):
            slopes[i, p] = 0.0
        if slopes.shape[1]:
            for j in range(m):
                a = source[j]
                turn = 4 * np.pi * lp[i] * (im * cosines[j] - re * sines[j])
                for r in range(owner[a + 1] - owner[a]):
                    along = h * moves[j, r, 0] + k * moves[j, r, 1] + l * moves[j, r, 2]
                    slopes[i, owner[a] + r] += along * turn
    return out


@njit(**FAST)
def _profile(angle, intensity, sigma, pattern):
    """Write the pattern (4250,) of lines at 2 theta (n,), degree: Gaussians of a width."""
    pattern[:] = 0.0
    reach = REACH * sigma / STEP
    for j in range(len(angle)):
        place = (angle[j] - START) / STEP
        for i in range(max(0, int(np.ceil(place - reach))), min(N_POINTS - 1, int(place + reach)) + 1):
            u = (i - place) * STEP / sigma
            pattern[i] += intensity[j] * np.exp(-0.5 * u * u)


@njit(**FAST)
def _angles(g2, shift, out, slope):
    """2 theta (n,) in degree of lines with 1/d^2, and d(2 theta) / d(1/d^2)."""
    for j in range(len(g2)):
        sine = min(0.5 * CU_KA * np.sqrt(max(g2[j], 1e-9)), 0.9999)
        theta = np.arcsin(sine)
        out[j] = 2 * np.degrees(theta) + shift
        slope[j] = np.degrees(0.25 * CU_KA * CU_KA / (sine * np.cos(theta)))


@njit(**FAST)
def _images(rotations, translations, frac, directions, owner, places, source, operation, moves):
    """Write where the atoms of a primitive cell are (m, 3), and how they move (m, 3, 3), of those of the unit."""
    for j in range(len(places)):
        a, o = source[j], operation[j]
        for i in range(3):
            places[j, i] = translations[o, i]
            for x in range(3):
                places[j, i] += rotations[o, i, x] * frac[a, x]
            for r in range(owner[a + 1] - owner[a]):
                moves[j, r, i] = 0.0
                for x in range(3):
                    moves[j, r, i] += rotations[o, i, x] * directions[owner[a] + r, x]


@njit(**FAST)
def refined(start, basis, group, unit, table, root, measured, sigma, shift_error, held, with_atoms):
    """Cell and atoms of one candidate, refined.

    start: (k,) free parameters of the reciprocal metric, basis: (k, 6) what each stands for.  group: rotations,
    translations, centrings, laue.  unit: frac (a, 3), numbers (a,), occupancies (a,).  root: (4250,) square root of
    the pattern; measured: (4250,) bool.  sigma: width of the peaks, degree, where it starts;
    shift_error: standard deviation of a shift of 2 theta, degree, that is expected.  held: weight of what holds atoms,
    cell and shift, of the sum of squares.
    Returns parameters (k,), frac (a, 3), shift of 2 theta and width (degree), score (cosine of the roots), the way of
    each free coordinate (angstrom), the covariance of the parameters (k, k), the pattern (4250,) on the scale of
    the one observed, and the number of its reflections that are not equal by symmetry.
    """
    rotations, translations, centrings, laue = group
    frac, numbers, occupancies = unit
    k, shift, frac = len(start), 0.0, frac.copy()
    cell = start.copy()
    places, kinds, source, operation = expanded(rotations, translations, centrings, frac, numbers)
    # What may move: the directions of all atoms of the unit, one after the other.
    owner, directions, n_free = np.zeros(len(frac) + 1, np.int64), np.zeros((3 * len(frac), 3)), 0
    for a in range(len(frac)):
        if with_atoms:
            own = free_directions(rotations, translations, centrings, frac[a])
            directions[n_free : n_free + len(own)] = own
            n_free += len(own)
        owner[a + 1] = n_free
    elements, n_elements = np.empty(len(places), np.int64), 0
    shares = np.empty(len(places))
    for j in range(len(places)):
        shares[j] = occupancies[source[j]]
        known = -1
        for e in range(n_elements):
            if elements[e] == kinds[j]:
                known = e
        if known < 0:
            elements[n_elements] = kinds[j]
            known = n_elements
            n_elements += 1
        kinds[j] = known
    metric = np.zeros(6)
    for p in range(k):
        metric += cell[p] * basis[p]
    hkl, count = families(metric, laue, centrings, LOWEST, HIGHEST)
    n = len(hkl)
    forms = np.empty((n, k))
    for i in range(n):
        h, q, l = float(hkl[i, 0]), float(hkl[i, 1]), float(hkl[i, 2])
        for p in range(k):
            forms[i, p] = (
                basis[p, 0] * h * h + basis[p, 1] * q * q + basis[p, 2] * l * l
                + basis[p, 3] * q * l + basis[p, 4] * h * l + basis[p, 5] * h * q
            )  # fmt: skip
    moves = np.zeros((len(places), 3, 3))
    _images(rotations, translations, frac, directions, owner, places, source, operation, moves)
    size = k + n_free + 3  # then the shift, the width, and the logarithm of the scale
    slopes, unmoved = np.empty((n, n_free)), np.empty((n, 0))
    angle, bend, trial_angle, trial_bend = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    pattern, trial_pattern = np.empty(N_POINTS), np.empty(N_POINTS)
    # How far a fractional step is, so that atoms are held alike in any cell.
    lengths = np.empty(n_free)
    for p in range(n_free):
        d = directions[p]
        lengths[p] = 0.0
        for i in range(3):
            lengths[p] += d[i] * d[i] / max(metric[i], 1e-9)
        lengths[p] = np.sqrt(lengths[p])
    moved = np.zeros(n_free)
    g2 = forms @ cell
    f, lp = _factors(hkl, count, g2, elements[:n_elements], table)
    intensity = _intensities(hkl, f, lp, places, kinds, shares, source, moves, owner, slopes)
    strongest = max(intensity.max(), 1e-12)
    lp /= strongest
    intensity /= strongest
    slopes /= strongest
    _angles(g2, shift, angle, bend)
    _profile(angle, intensity, sigma, pattern)
    total = product = own = 0.0
    for i in range(N_POINTS):
        if measured[i]:
            total += root[i] * root[i]
            product += root[i] * np.sqrt(pattern[i])
            own += pattern[i]
    scale = np.log(max((product / max(own, 1e-12)) ** 2, 1e-9))
    hold, hold_of_shift = held * total / HOLD**2, held * total / shift_error**2
    hold_of_cell = held * total / (STRAIN * np.abs(start).max()) ** 2
    error = 0.0
    for i in range(N_POINTS):
        if measured[i]:
            error += (root[i] - np.sqrt(np.exp(scale) * pattern[i] + FLOOR)) ** 2
    damping, columns = 1e-3, np.zeros((N_POINTS, size))
    normal, inverse = np.zeros((size, size)), np.zeros((k, k))
    for _turn in range(TURNS):
        columns[:] = 0.0
        reach = REACH * sigma / STEP
        for j in range(n):
            place = (angle[j] - START) / STEP
            for i in range(max(0, int(np.ceil(place - reach))), min(N_POINTS - 1, int(place + reach)) + 1):
                u = (i - place) * STEP / sigma
                height = np.exp(-0.5 * u * u)
                by_angle = intensity[j] * height * u / sigma
                for p in range(k):
                    columns[i, p] += by_angle * bend[j] * forms[j, p]
                for p in range(n_free):
                    columns[i, k + p] += height * slopes[j, p]
                columns[i, k + n_free] += by_angle
                columns[i, k + n_free + 1] += by_angle * u  # by the width
        size_of_scale = np.exp(scale)
        normal[:] = 0.0
        right = np.zeros(size)
        for i in range(N_POINTS):
            if not measured[i] or pattern[i] <= 0:
                continue
            value = np.sqrt(size_of_scale * pattern[i] + FLOOR)
            rest, slope = root[i] - value, 0.5 * size_of_scale / value
            columns[i, size - 1] = pattern[i]
            for p in range(size):
                c = slope * columns[i, p]
                columns[i, p] = c
                right[p] += c * rest
                for q in range(p + 1):
                    normal[p, q] += c * columns[i, q]
        for p in range(n_free):
            normal[k + p, k + p] += hold * lengths[p] ** 2
            right[k + p] -= hold * lengths[p] ** 2 * moved[p]
        for p in range(k):
            normal[p, p] += hold_of_cell
            right[p] -= hold_of_cell * (cell[p] - start[p])
        normal[k + n_free, k + n_free] += hold_of_shift
        right[k + n_free] -= hold_of_shift * shift
        for p in range(size):
            for q in range(p):
                normal[q, p] = normal[p, q]
        better = False
        for _ in range(TRIES):
            damped = normal.copy()
            for p in range(size):
                damped[p, p] += damping * normal[p, p] + 1e-9 * (1 + normal[p, p])
            step = np.linalg.solve(damped, right)
            longest = 0.0
            for p in range(n_free):
                longest = max(longest, abs(step[k + p]))
            if longest > MOST_MOVE:
                step *= MOST_MOVE / longest
            new_cell, new_frac, new_moved = cell + step[:k], frac.copy(), moved + step[k : k + n_free]
            for a in range(len(frac)):
                for r in range(owner[a], owner[a + 1]):
                    new_frac[a] += step[k + r] * directions[r]
            new_shift = shift + step[k + n_free]
            new_sigma = max(sigma + step[k + n_free + 1], 0.5 * sigma)
            new_g2 = forms @ new_cell
            if new_g2.min() <= 0 or abs(new_shift) > 0.6 or new_sigma > 0.6 or new_sigma < 0.02:
                damping *= 8
                continue
            _images(rotations, translations, new_frac, directions, owner, places, source, operation, moves)
            new_f, new_lp = _factors(hkl, count, new_g2, elements[:n_elements], table)
            new_lp /= strongest
            new_intensity = _intensities(hkl, new_f, new_lp, places, kinds, shares, source, moves, owner, unmoved)
            _angles(new_g2, new_shift, trial_angle, trial_bend)
            _profile(trial_angle, new_intensity, new_sigma, trial_pattern)
            new_scale, new_error = scale + min(max(step[size - 1], -1.0), 1.0), 0.0
            for i in range(N_POINTS):
                if measured[i]:
                    new_error += (root[i] - np.sqrt(np.exp(new_scale) * trial_pattern[i] + FLOOR)) ** 2
            pull = (((new_moved * lengths) ** 2).sum() - ((moved * lengths) ** 2).sum()) * hold
            pull += hold_of_shift * (new_shift**2 - shift**2)
            pull += hold_of_cell * (((new_cell - start) ** 2).sum() - ((cell - start) ** 2).sum())
            if new_error + pull < error:
                gain = (error - new_error - pull) / max(total, 1e-12)
                cell, frac, moved, shift, sigma, scale, g2 = (
                    new_cell, new_frac, new_moved, new_shift, new_sigma, new_scale, new_g2
                )  # fmt: skip
                error, f, lp = new_error, new_f, new_lp
                pattern[:], angle[:], bend[:] = trial_pattern, trial_angle, trial_bend
                intensity = _intensities(hkl, f, lp, places, kinds, shares, source, moves, owner, slopes)
                damping, better = max(damping / 5, 1e-7), gain > LEAST_GAIN
                break
            damping *= 5
        if not better:
            break
    product = own = 0.0
    n_points = 0
    for i in range(N_POINTS):
        if measured[i]:
            product += np.sqrt(pattern[i]) * root[i]
            own += pattern[i]
            n_points += pattern[i] > 0
    score = product / np.sqrt(max(own * total, 1e-24))
    inverse = np.linalg.inv(normal + 1e-9 * np.diag(1 + np.diag(normal)))[:k, :k] * error / max(n_points - size, 1)
    return cell, frac, shift, sigma, score, moved * lengths, inverse, np.exp(scale) * pattern, n
