"""A candidate against the whole pattern: cell, atoms and look refined together, in what its symmetry leaves free.

Levenberg-Marquardt (Marquardt 1963) on the square roots of both patterns, so that strong and weak peaks count as their
counting noise lets them.  Derivatives are analytic, but for those of the scattering and Lorentz-polarisation factors by
the cell, which are small.
"""

import numpy as np
from numba import njit

from xxlib.candidates.calculated import (
    LOOK,
    SCALE,
    atoms_of,
    equal_directions,
    forms_of,
    lines,
    profile,
    slopes_of,
    sums_of_roots,
    texture_of,
)  # fmt: skip
from xxlib.candidates.lines import families
from xxlib.diffraction.kernel import FAST
from xxlib.diffraction.patterns import N_POINTS
from xxlib.diffraction.texture import PREFERRED
from xxlib.diffraction.wavelengths import CU_KA

TURNS, TRIES = 20, 9  # of the search; of the damping in each
LEAST_GAIN = 5e-3  # of what holds, below which a turn is the last
FLOOR = 0.02  # of 100, added below the root: where there is nothing, the root has no slope
LOWEST, HIGHEST = (2 * np.sin(np.radians(angle / 2)) / CU_KA for angle in (4.0, 91.0))  # 1/d of the lines, 1/angstrom
MOST_MOVE = 0.02  # fractional: an atom moves no farther in a turn
TRIED = 0.4  # logarithm of March's coefficient
HOLD = 0.05  # angstrom: standard deviation of how far atoms move from where the known crystal has them
STRAIN = 0.05  # likewise of the parameters of the reciprocal metric, of the largest of them
LEAST = np.array([-1.0, -1.2, -0.6, 0.02, -0.5, 0.0, 0.005, -np.inf])  # of a look, between which it is believed
MOST = np.array([8.0, 1.2, 0.6, 0.6, 6.0, 1.0, 0.6, np.inf])


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
    scale, slopes, rest = np.exp(log_scale), np.zeros((N_POINTS, columns.shape[1])), np.zeros(N_POINTS)
    for i in range(N_POINTS):
        if not measured[i] or pattern[i] <= 0:
            continue
        value = np.sqrt(scale * pattern[i] + FLOOR)
        rest[i] = root[i] - value
        for p in range(columns.shape[1]):
            slopes[i, p] = 0.5 * scale / value * columns[i, p]
    return slopes.T @ slopes, slopes.T @ rest


@njit(**FAST)
def refined(start, look, expected, errors, basis, group, unit, axes, table, root, measured, held, movable):
    """Cell, atoms and look of one candidate, refined.

    start: (k,) free parameters of the reciprocal metric, basis: (k, 6) what each stands for.  look: (8,), as
    calculated.LOOK has it, where it starts; expected, errors: (8,) what is expected of it, and standard deviations of
    that: 0, it stays as it is; infinite, nothing is expected.  group: rotations, translations, centrings, laue.
    unit: frac (a, 3), numbers (a,), occupancies (a,).  axes: (q, 3) equal directions of a texture; (0, 3): none.
    root: (4250,) square root of the pattern; measured: (4250,) bool.  held: weight of what holds cell, atoms and look,
    of the sum of squares.  movable: whether atoms move.
    Returns parameters (k,), frac (a, 3), look (8,), score (cosine of the roots), the way of each free coordinate
    (angstrom), the covariance of the parameters (k, k), the pattern (4250,) on the scale of the one observed, and the
    number of its reflections that are not equal by symmetry.
    """
    k, frac, metric = len(start), unit[0], start @ basis
    hkl, count = families(metric, group[3], group[2], LOWEST, HIGHEST)
    forms, atoms = forms_of(hkl, basis), atoms_of(group, unit, movable)
    directions, owner = atoms[5], atoms[6]
    r = len(directions)
    s, n = k + r, k + r + len(LOOK)  # where the look begins, and ends
    parameters = np.zeros(n)
    parameters[:k], parameters[s:] = start, look
    slopes, unasked = np.empty((len(hkl), r + 2)), np.empty((len(hkl), 0))
    angle, bend, intensity = lines(parameters, basis, forms, hkl, count, group, frac, atoms, axes, table, slopes)
    pattern = profile(angle, intensity, look)
    product, total, own = sums_of_roots(root, measured, pattern)
    parameters[s + SCALE] = np.log(max((product / own) ** 2, 1e-30))
    # What holds each parameter where it starts; how far a fractional step is, so that atoms are held alike in any cell.
    origin, stiffness, lengths = parameters.copy(), np.zeros(n), np.zeros(r)
    origin[s : s + SCALE] = expected[:SCALE]
    stiffness[:k] = held * total / (STRAIN * np.abs(start).max()) ** 2
    for p in range(r):
        lengths[p] = np.sqrt((directions[p] ** 2 / np.maximum(metric[:3], 1e-9)).sum())
        stiffness[k + p] = held * total * (lengths[p] / HOLD) ** 2
    for p in range(len(LOOK)):
        stiffness[s + p] = held * total / max(errors[p], 1e-9) ** 2
    error, damping = _misfit(root, measured, pattern, parameters[s + SCALE]), 1e-3
    matrix = np.eye(n)
    for _turn in range(TURNS):
        columns = slopes_of(angle, bend, intensity, slopes, forms, parameters[s:], pattern)
        matrix, right = _normal_equations(root, measured, pattern, parameters[s + SCALE], columns)
        right -= stiffness * (parameters - origin)
        for p in range(n):
            matrix[p, p] += stiffness[p]
        for p in range(len(LOOK)):
            if errors[p] == 0:
                matrix[s + p], matrix[:, s + p], matrix[s + p, s + p], right[s + p] = 0.0, 0.0, 1.0, 0.0
        gain = 0.0
        for _try in range(TRIES):
            damped = matrix.copy()
            for p in range(n):
                damped[p, p] += damping * matrix[p, p] + 1e-9 * (1 + matrix[p, p])
            step = np.linalg.solve(damped, right)
            if r:
                step *= min(1.0, MOST_MOVE / max(np.abs(step[k:s]).max(), 1e-12))
            step[s + SCALE] = min(max(step[s + SCALE], -1.0), 1.0)
            trial = parameters + step
            for p in range(len(LOOK)):
                if errors[p] > 0:
                    trial[s + p] = min(max(trial[s + p], LEAST[p]), MOST[p])
            damping *= 5
            if (forms @ trial[:k]).min() <= 0:
                continue
            angle_there, _, there = lines(trial, basis, forms, hkl, count, group, frac, atoms, axes, table, unasked)
            pattern_there = profile(angle_there, there, trial[s:])
            misfit = _misfit(root, measured, pattern_there, trial[s + SCALE])
            pull = (stiffness * ((trial - origin) ** 2 - (parameters - origin) ** 2)).sum()
            if misfit + pull < error:
                gain, error, damping = (error - misfit - pull) / total, misfit, max(damping / 25, 1e-7)
                parameters, pattern = trial, pattern_there
                angle, bend, intensity = lines(
                    trial, basis, forms, hkl, count, group, frac, atoms, axes, table, slopes
                )  # fmt: skip
                break
        if gain <= LEAST_GAIN * held:
            break
    product, total, own = sums_of_roots(root, measured, pattern)
    n_points = (measured & (pattern > 0)).sum()
    variance = error / max(n_points - n, 1)
    covariance = np.linalg.inv(matrix + 1e-9 * np.diag(1 + np.diag(matrix)))[:k, :k] * variance
    moved = parameters[k:s]
    frac = frac.copy()
    for a in range(len(frac)):
        for p in range(owner[a], owner[a + 1]):
            frac[a] += moved[p] * directions[p]
    score = product / np.sqrt(own * total)
    pattern = np.exp(parameters[s + SCALE]) * pattern
    return parameters[:k], frac, parameters[s:], score, moved * lengths, covariance, pattern, len(hkl)


@njit(**FAST)
def preferred(start, look, basis, group, unit, table, root, measured):
    """The texture that explains a pattern best: its equal directions (q, 3), and the logarithm of March's coefficient.

    Arguments as refined() has them.  Tried are not slopes but whole textures: a cubic crystal has no slope.
    """
    k, no_axes = len(start), np.zeros((0, 3))
    hkl, count = families(start @ basis, group[3], group[2], LOWEST, HIGHEST)
    forms, atoms = forms_of(hkl, basis), atoms_of(group, unit, False)
    parameters = np.zeros(k + len(LOOK))
    parameters[:k], parameters[k:] = start, look
    unasked = np.empty((len(hkl), 0))
    angle, _, intensity = lines(parameters, basis, forms, hkl, count, group, unit[0], atoms, no_axes, table, unasked)
    squares = parameters[:k] @ forms.T
    most, best, chosen = -1.0, 0.0, equal_directions(PREFERRED[0], group[3])
    for a in range(len(PREFERRED)):
        axes = equal_directions(PREFERRED[a], group[3])
        for texture in (0.0, -TRIED, TRIED):
            if texture == 0 and a:
                continue
            textured = intensity * texture_of(hkl, start @ basis, axes, texture)[:, 0]
            for thermal in (-1.0, 0.0, 1.0):  # what is taken for thermal motion may have been texture
                changed = textured * np.exp(-0.5 * thermal * squares)
                product, total, own = sums_of_roots(root, measured, profile(angle, changed, look))
                if product / np.sqrt(total * own) > most:
                    most, best, chosen = product / np.sqrt(total * own), texture, axes
    return chosen, best
