"""A candidate against the whole pattern: cell and atoms refined together, in what its symmetry leaves free.

Levenberg-Marquardt (Marquardt 1963) on the square roots of both patterns, so that strong and weak peaks count as their
counting noise lets them.  Derivatives are analytic, but for those of the scattering and Lorentz-polarisation factors by
the cell, which are small.
"""

import numpy as np
from numba import njit

from xxlib.candidates.calculated import atoms_of, forms_of, lines, profile, slopes_of, sums_of_roots
from xxlib.candidates.lines import families
from xxlib.diffraction.kernel import FAST
from xxlib.diffraction.patterns import N_POINTS
from xxlib.diffraction.wavelengths import CU_KA

TURNS, TRIES = 20, 9  # of the search; of the damping in each
LEAST_GAIN = 5e-7  # of the sum of squares: below, a turn is the last
FLOOR = 0.02  # of 100, added below the root: where there is nothing, the root has no slope
LOWEST, HIGHEST = (2 * np.sin(np.radians(angle / 2)) / CU_KA for angle in (4.0, 91.0))  # 1/d of the lines, 1/angstrom
MOST_MOVE = 0.02  # fractional: an atom moves no farther in a turn
HOLD = 0.05  # angstrom: standard deviation of how far atoms move from where the known crystal has them
STRAIN = 0.05  # likewise of the parameters of the reciprocal metric, of the largest of them
MOST_SHIFT, LEAST_WIDTH, MOST_WIDTH = 0.6, 0.02, 0.6  # degree


@njit(**FAST)
def _misfit(root, measured, pattern, log_scale):
    """Sum of squares of what a pattern (4250,) on a scale leaves of the root (4250,) of another."""
    total, scale = 0.0, np.exp(log_scale)
    for i in range(N_POINTS):
        if measured[i]:
            total += (root[i] - np.sqrt(scale * pattern[i] + FLOOR)) ** 2
    return total


@njit(**FAST)
def _normal_equations(root, measured, pattern, log_scale, columns):
    """Matrix (p, p) and right side (p,) of the least squares of _misfit; columns (4250, p) of the pattern."""
    size, scale = columns.shape[1], np.exp(log_scale)
    matrix, right, own = np.zeros((size, size)), np.zeros(size), np.empty(size)
    for i in range(N_POINTS):
        if not measured[i] or pattern[i] <= 0:
            continue
        value = np.sqrt(scale * pattern[i] + FLOOR)
        rest, slope = root[i] - value, 0.5 * scale / value
        for p in range(size):
            own[p] = slope * columns[i, p]
            right[p] += own[p] * rest
            for q in range(p + 1):
                matrix[p, q] += own[p] * own[q]
    for p in range(size):
        for q in range(p):
            matrix[q, p] = matrix[p, q]
    return matrix, right


@njit(**FAST)
def refined(start, basis, group, unit, table, root, measured, sigma, shift_error, held, movable):
    """Cell and atoms of one candidate, refined.

    start: (k,) free parameters of the reciprocal metric, basis: (k, 6) what each stands for.  group: rotations,
    translations, centrings, laue.  unit: frac (a, 3), numbers (a,), occupancies (a,).  root: (4250,) square root of
    the pattern; measured: (4250,) bool.  sigma: width of the peaks, degree, where it starts.  shift_error: standard
    deviation of a shift of 2 theta, degree, that is expected.  held: weight of what holds cell, atoms and shift, of the
    sum of squares.  movable: whether atoms move.
    Returns parameters (k,), frac (a, 3), shift of 2 theta and width (degree), score (cosine of the roots), the way of
    each free coordinate (angstrom), the covariance of the parameters (k, k), the pattern (4250,) on the scale of the
    one observed, and the number of its reflections that are not equal by symmetry.
    """
    k, frac, metric = len(start), unit[0], np.zeros(6)
    for p in range(k):
        metric += start[p] * basis[p]
    hkl, count = families(metric, group[3], group[2], LOWEST, HIGHEST)
    forms, atoms = forms_of(hkl, basis), atoms_of(group, unit, movable)
    directions, owner = atoms[5], atoms[6]
    r = len(directions)
    parameters = np.zeros(k + r + 3)
    parameters[:k], parameters[k + r + 1] = start, sigma
    slopes, unasked = np.empty((len(hkl), r)), np.empty((len(hkl), 0))
    angle, bend, intensity = lines(parameters, forms, hkl, count, group, frac, atoms, table, slopes)
    pattern = profile(angle, intensity, sigma)
    product, total, own = sums_of_roots(root, measured, pattern)
    parameters[-1] = np.log(max((product / own) ** 2, 1e-30))
    # What holds each parameter where it starts; how far a fractional step is, so that atoms are held alike in any cell.
    origin, stiffness, lengths = parameters.copy(), np.zeros(k + r + 3), np.zeros(r)
    stiffness[:k] = held * total / (STRAIN * np.abs(start).max()) ** 2
    for p in range(r):
        lengths[p] = np.sqrt((directions[p] ** 2 / np.maximum(metric[:3], 1e-9)).sum())
        stiffness[k + p] = held * total * (lengths[p] / HOLD) ** 2
    stiffness[k + r] = held * total / shift_error**2
    error, damping = _misfit(root, measured, pattern, parameters[-1]), 1e-3
    matrix = np.eye(k + r + 3)
    for _turn in range(TURNS):
        columns = slopes_of(angle, bend, intensity, slopes, forms, parameters[k + r + 1], pattern)
        matrix, right = _normal_equations(root, measured, pattern, parameters[-1], columns)
        right -= stiffness * (parameters - origin)
        for p in range(len(right)):
            matrix[p, p] += stiffness[p]
        gain = 0.0
        for _try in range(TRIES):
            damped = matrix.copy()
            for p in range(len(right)):
                damped[p, p] += damping * matrix[p, p] + 1e-9 * (1 + matrix[p, p])
            step = np.linalg.solve(damped, right)
            if r:
                step *= min(1.0, MOST_MOVE / max(np.abs(step[k : k + r]).max(), 1e-12))
            step[-1] = min(max(step[-1], -1.0), 1.0)
            trial = parameters + step
            width = trial[k + r + 1]
            damping *= 5
            if (forms @ trial[:k]).min() <= 0 or abs(trial[k + r]) > MOST_SHIFT or not LEAST_WIDTH < width < MOST_WIDTH:
                continue
            angle_there, _, there = lines(trial, forms, hkl, count, group, frac, atoms, table, unasked)
            pattern_there = profile(angle_there, there, width)
            misfit = _misfit(root, measured, pattern_there, trial[-1])
            pull = (stiffness * ((trial - origin) ** 2 - (parameters - origin) ** 2)).sum()
            if misfit + pull < error:
                gain, error, damping = (error - misfit - pull) / total, misfit, max(damping / 25, 1e-7)
                parameters, pattern = trial, pattern_there
                angle, bend, intensity = lines(trial, forms, hkl, count, group, frac, atoms, table, slopes)
                break
        if gain <= LEAST_GAIN:
            break
    product, total, own = sums_of_roots(root, measured, pattern)
    n_points = (measured & (pattern > 0)).sum()
    variance = error / max(n_points - len(parameters), 1)
    covariance = np.linalg.inv(matrix + 1e-9 * np.diag(1 + np.diag(matrix)))[:k, :k] * variance
    moved = parameters[k : k + r]
    frac = frac.copy()
    for a in range(len(frac)):
        for p in range(owner[a], owner[a + 1]):
            frac[a] += moved[p] * directions[p]
    score = product / np.sqrt(own * total)
    pattern = np.exp(parameters[-1]) * pattern
    shift, width = parameters[k + r], parameters[k + r + 1]
    return parameters[:k], frac, shift, width, score, moved * lengths, covariance, pattern, len(hkl)
