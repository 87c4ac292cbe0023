"""How well the lines of crystals explain a pattern: their scale, their cells, what they leave.

Lines lie on an axis of ln q, on which another scale of the cell is a shift.  Heights are square roots of
intensities, so that weak lines count.
"""

import numpy as np
from numba import njit
from scipy import fft

from xxlib.candidates.calculated import angle_of, forms_of, gaussian, profile, sums_of_roots
from xxlib.diffraction.kernel import FAST
from xxlib.diffraction.patterns import TWO_THETA
from xxlib.diffraction.wavelengths import CU_KA

BINS, FIRST, WIDTH = 4096, np.log(0.30), 0.001  # of ln q, q in 1/angstrom
LN_2PI = np.log(2 * np.pi)
MOST_SHIFT = 0.06  # of ln q: how far the lengths of a cell may be off
COARSE = 0.007  # standard deviation in ln q of the lines that give the scale
WIDTHS = (0.016, 0.008, 0.004, 0.002)  # of those that give the cell, one after the other
MOVES = (0.02, 0.01, 0.005, 0.002)  # first moves of a parameter in each, relative
LEAST_MOVE, TURNS = 2e-4, 16  # where a search ends
FREQUENCIES = fft.rfftfreq(BINS, d=WIDTH)
LOW, HIGH = (2 * np.sin(np.radians(angle / 2)) / CU_KA for angle in TWO_THETA[[0, -1]])  # 1/d, 1/angstrom
FINE = 5e-5  # 1/angstrom: step of 1/d in a table of a spectrum, which saves a logarithm a line


def _smeared(observed, sigma):
    """Fourier transform (BINS / 2 + 1,) of the lines of a pattern as Gaussians of a width in ln q."""
    return _transform(observed.ln_q, observed.height, np.array([0, len(observed.height)]), sigma)[0]


def _transform(ln_q, heights, ends, sigma):
    """Fourier transforms (n, BINS / 2 + 1) of the lines of n crystals as Gaussians of a width in ln q."""
    dense = np.zeros((len(ends) - 1, BINS))
    spread((ln_q - FIRST) / WIDTH, heights, ends, dense)
    gauss = np.exp(-2 * (np.pi * FREQUENCIES * sigma) ** 2).astype(np.float32)
    return fft.rfft(dense.astype(np.float32), axis=1) * gauss


@njit(**FAST)
def spread(places, heights, ends, dense):
    """Add heights (N,) at places (N,), in bins, of n crystals to the rows of dense (n, bins), shared by two bins."""
    last = dense.shape[1] - 1
    for c in range(len(dense)):
        for j in range(ends[c], ends[c + 1]):
            i = int(np.floor(places[j]))
            if 0 <= i < last:
                dense[c, i] += heights[j] * (1 - (places[j] - i))
                dense[c, i + 1] += heights[j] * (places[j] - i)


def scales(observed, g2, intensity, ends):
    """Of n crystals the cosine (n,) with the Observed lines where their scale fits best, and the shift (n,) of ln q.

    g2: 1/d^2 (N,) of their lines, laid end to end, intensity (N,), ends (n + 1,).
    """
    own = _smeared(observed, COARSE)
    theirs = _transform(0.5 * np.log(g2) + LN_2PI, np.sqrt(intensity), ends, COARSE)

    def power(x):
        return np.maximum(fft.irfft(np.abs(x) ** 2, n=BINS, axis=-1)[..., 0], 1e-12)

    product = fft.irfft(own * np.conj(theirs), n=BINS, axis=1) / np.sqrt(power(own) * power(theirs))[:, None]
    reach = int(MOST_SHIFT / WIDTH)
    product = np.concatenate([product[:, -reach:], product[:, : reach + 1]], axis=1)
    each, best = np.arange(len(product)), np.clip(product.argmax(1), 1, 2 * reach - 1)
    left, top, right = (product[each, best + k] for k in (-1, 0, 1))
    slope, curve = left - right, np.minimum(left - 2 * top + right, -1e-9)
    beside = np.clip(0.5 * slope / curve, -0.5, 0.5)  # of a bin
    return top - 0.25 * slope * beside, (best + beside - reach) * WIDTH


def refine(observed, metrics, free, hkl, intensity, ends):
    """Refined reciprocal metrics (n, 6) of crystals, in the parameters that their symmetry leaves free.

    metrics: (n, 6), where they start.  free: (n, 6, 6), symmetry.free_parameters.  hkl: (N, 3) and intensity (N,) of
    their lines, ends (n + 1,).
    """
    n_free = free.any(-1).sum(-1)
    # Of the parameters that a symmetry makes equal, the mean.
    start = np.einsum("nkj,nj->nk", free, metrics) / np.maximum((free**2).sum(-1), 1)
    spectra = fft.irfft(np.stack([_smeared(observed, np.sqrt(2) * width) for width in WIDTHS]), n=BINS, axis=1)
    inverse_d = FINE * np.arange(1, int(HIGH / FINE) + 3)
    place = (np.log(2 * np.pi * inverse_d) - FIRST) / WIDTH
    tables = np.stack([np.interp(place, np.arange(BINS), spectrum) for spectrum in spectra]).astype(np.float32)
    heights = np.sqrt(intensity, dtype=np.float32)
    parameters = _refined(start, n_free, free.astype(np.float64), hkl, heights, ends, tables)
    return np.einsum("nk,nkj->nj", parameters, free)


@njit(**FAST)
def _agreement(parameters, forms, weights, table):
    """Agreement of lines with a smeared spectrum, per length of their weights; 1/d^2 = forms @ parameters.

    table: the spectrum at 1/d = FINE, 2 FINE, ...
    """
    total, norm = np.float32(0), np.float32(1e-9)
    low, high, per_step, one = np.float32(LOW), np.float32(HIGH), np.float32(1 / FINE), np.float32(1)
    for j in range(len(weights)):
        g2 = np.float32(0)
        for k in range(len(parameters)):
            g2 += forms[j, k] * parameters[k]
        g = np.sqrt(g2)
        if not (low < g < high):
            if not g2 > 0:
                return np.float32(-1)
            continue
        place = g * per_step - one
        i = int(place)
        share = place - np.float32(i)
        total += weights[j] * (table[i] * (one - share) + table[i + 1] * share)
        norm += weights[j] * weights[j]
    return total / np.sqrt(norm)


@njit(**FAST)
def _refined(start, n_free, free, hkl, weights, ends, spectra):
    """Parameters (n, 6) that agree best: a search along each of the free ones, in ever sharper spectra."""
    out = start.astype(np.float32)
    for c in range(len(start)):
        own, lines = out[c, : n_free[c]], slice(ends[c], ends[c + 1])
        of_lines, heights = forms_of(hkl[lines], free[c, : n_free[c]]).astype(np.float32), weights[lines]
        unit = np.maximum(np.abs(own), np.float32(0.05) * np.abs(own).max())
        for r in range(len(spectra)):
            best, move = _agreement(own, of_lines, heights, spectra[r]), np.float32(MOVES[r])
            for _ in range(TURNS):
                moved = False
                for k in range(len(own)):
                    for sign in (np.float32(1), np.float32(-1)):
                        before = own[k]
                        own[k] += sign * move * unit[k]
                        value = _agreement(own, of_lines, heights, spectra[r])
                        if value > best:
                            best, moved = value, True
                            break
                        own[k] = before
                if not moved:
                    move *= np.float32(0.5)
                    if move < LEAST_MOVE:
                        break
    return out


def profile_scores(observed, metrics, hkl, intensity, ends):
    """Cosine (n,) of the square roots of an Observed pattern and those of crystals, where it is measured."""
    return _profile_scores(observed.root, observed.measured, metrics, hkl, intensity, ends, gaussian(observed.width))


@njit(**FAST)
def _profile_scores(root, measured, metrics, hkl, intensity, ends, look):
    scores = np.zeros(len(metrics))
    for c in range(len(metrics)):
        lines = slice(ends[c], ends[c + 1])
        g2 = forms_of(hkl[lines], metrics[c : c + 1])[:, 0]
        angles = np.empty(len(g2))
        for j in range(len(g2)):
            angles[j] = angle_of(g2[j])[0]
        product, first, second = sums_of_roots(root, measured, profile(angles, intensity[lines], look))
        scores[c] = product / np.sqrt(first * second)
    return scores
