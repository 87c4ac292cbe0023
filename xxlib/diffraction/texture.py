"""What the symmetry of a lattice makes equal: lines under texture, and lengths of a cell under strain."""

import numpy as np
from numba import njit

# Indices of what crystallites lie flat on, or grow along.
PREFERRED = np.array([(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1)], np.float64)
SAME = 0.01  # relative: lengths squared and products of vectors that symmetry makes equal


@njit(cache=True)
def metric_tensor(lattice):
    """(3, 3), angstrom^2, of a, b, c (angstrom), alpha, beta, gamma (degree)."""
    lengths, cosines = lattice[:3], np.cos(np.radians(lattice[3:]))
    metric = np.outer(lengths, lengths)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        metric[i, j] *= cosines[k]
        metric[j, i] = metric[i, j]
    return metric


@njit(cache=True)
def short_axes(metric):
    """Indices (3, 3) of three short vectors that span a lattice: none is made shorter by adding others, once each."""
    axes, shorter = np.eye(3), True
    while shorter:
        shorter = False
        for i in range(3):
            for number in range(9):
                vector = axes[i] + (number // 3 - 1) * axes[(i + 1) % 3] + (number % 3 - 1) * axes[(i + 2) % 3]
                if square(metric, vector) < (1 - 1e-6) * square(metric, axes[i]):
                    axes[i], shorter = vector, True
    return axes


@njit(cache=True)
def symmetries(metric):
    """Symmetries (n, 3, 3) of a lattice: the indices of a, b, c in the cells that have the same metric tensor.

    n is the order of its group.  Sought in short axes among the indices -1, 0, 1; there these are all there are.
    """
    axes = short_axes(metric)
    reduced = axes @ metric @ axes.T
    candidates, n_candidates = np.empty((3, 27, 3)), np.zeros(3, np.int64)
    for number in range(27):
        vector = np.array([number // 9 - 1.0, number // 3 % 3 - 1.0, number % 3 - 1.0])
        for i in range(3):
            if _same(reduced, vector, vector, i, i):
                candidates[i, n_candidates[i]] = vector
                n_candidates[i] += 1
    cells, n, back = np.empty((48, 3, 3)), 0, np.linalg.inv(axes)
    for a in candidates[0, : n_candidates[0]]:
        for b in candidates[1, : n_candidates[1]]:
            if not _same(reduced, a, b, 0, 1):
                continue
            for c in candidates[2, : n_candidates[2]]:
                if n < 48 and _same(reduced, a, c, 0, 2) and _same(reduced, b, c, 1, 2):
                    cells[n, 0], cells[n, 1], cells[n, 2] = a, b, c
                    cells[n] = np.rint(back @ np.ascontiguousarray(cells[n] @ axes))
                    n += 1
    return cells[:n]


@njit(cache=True)
def equal_axes(symmetries, hkl):
    """Indices (n, 3) of what the symmetries (n, 3, 3) of a lattice make equal to hkl (3,).

    Of the lattice and not of the crystal, because in a powder pattern the lines that it makes equal are one line.
    """
    axes = np.empty((len(symmetries), 3))
    for n in range(len(symmetries)):
        for i in range(3):
            axes[n, i] = (symmetries[n, i] * hkl).sum()
    return axes


@njit(cache=True)
def strained(metric, symmetries, strain):
    """The metric tensor (3, 3) of a lattice under a strain (3, 3), of which the symmetries (n, 3, 3) keep their part.

    strain: symmetric, in cartesian axes.  A cubic cell keeps the mean of three lengths, a triclinic cell all of it.
    """
    factor = np.ascontiguousarray(np.linalg.cholesky(metric))  # rows: the cell vectors
    vectors = factor + factor @ strain
    changed, mean = vectors @ vectors.T, np.zeros((3, 3))
    for n in range(len(symmetries)):
        cell = np.ascontiguousarray(symmetries[n])
        mean += cell @ np.ascontiguousarray(changed @ cell.T)
    return mean / len(symmetries)


@njit(cache=True)
def march(coefficient, hkl, reciprocal, axes):
    """Intensity of a line hkl (3,) of a textured powder, relative to that without texture.

    The mean over the preferred axes (n, 3), each at an angle alpha to hkl, of (r^2 cos^2 alpha + sin^2 alpha / r)^-3/2
    with March's coefficient r: below 1 for plates, above 1 for needles seen from the side.  Dollase, J. Appl. Cryst.
    19, 267 (1986).  reciprocal: metric tensor of the reciprocal lattice.
    """
    total, length = 0.0, _product(reciprocal, hkl, hkl)
    for axis in axes:
        square = _product(reciprocal, hkl, axis) ** 2 / (length * _product(reciprocal, axis, axis))
        factor = coefficient**2 * square + (1 - square) / coefficient
        total += 1 / (factor * np.sqrt(factor))
    return total / len(axes)


@njit(inline="always")
def square(metric, a):
    """The length squared of indices (3,)."""
    return _product(metric, a, a)


@njit(inline="always")
def _product(metric, a, b):
    total = 0.0
    for i in range(3):
        total += a[i] * (metric[i, 0] * b[0] + metric[i, 1] * b[1] + metric[i, 2] * b[2])
    return total


@njit(inline="always")
def _same(metric, a, b, i, j):
    """Whether a and b have the product of the cell's vectors i and j."""
    return abs(_product(metric, a, b) - metric[i, j]) < SAME * np.sqrt(metric[i, i] * metric[j, j])
