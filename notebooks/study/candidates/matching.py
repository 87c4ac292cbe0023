"""How well the lines of crystals explain a pattern: their scale, their cells, what they leave.

Lines lie on an axis of ln q, on which another scale of the cell is a shift.  Heights are square roots of
intensities, so that weak lines count.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import fft

from xxlib.diffraction.kernel import FAST
from xxlib.diffraction.patterns import N_POINTS, REACH, SIGMA, START, STEP, TWO_THETA
from xxlib.diffraction.wavelengths import CU_KA

BINS, FIRST, WIDTH = 4096, np.log(0.30), 0.001  # of ln q, q in 1/angstrom
LN_2PI = np.log(2 * np.pi)
MOST_SHIFT = 0.06  # of ln q: how far the lengths of a cell may be off
COARSE = 0.004  # standard deviation in ln q of the lines that give the scale
WIDTHS = (0.008, 0.004, 0.002)  # of those that give the cell, one after the other
MOVES = (0.012, 0.005, 0.002)  # first moves of a parameter in each, relative
LEAST_MOVE, TURNS = 2e-4, 16  # where a search ends
POLISH, LEAST_POLISH = 1e-3, 1e-5  # first and last move against the whole pattern, relative
LEAST_PEAK = 0.05  # of 100
FREQUENCIES = fft.rfftfreq(BINS, d=WIDTH)
LOW, HIGH = (np.log(4 * np.pi * np.sin(np.radians(angle / 2)) / CU_KA) for angle in TWO_THETA[[0, -1]])  # ln q


@dataclass(frozen=True, eq=False)
class Observed:
    """The lines of a pattern."""

    ln_q: np.ndarray  # (p,)
    height: np.ndarray  # (p,) square root of the intensity

    @classmethod
    def of(cls, pattern):
        """The maxima of a pattern (4250,), intensity 0-100, to a part of a step."""
        left, middle, right = pattern[:-2], pattern[1:-1], pattern[2:]
        here = np.flatnonzero((middle > left) & (middle >= right) & (middle > LEAST_PEAK))
        slope, curve = left[here] - right[here], left[here] - 2 * middle[here] + right[here]
        beside = np.clip(0.5 * slope / np.minimum(curve, -1e-12), -0.5, 0.5)  # of a step
        two_theta = TWO_THETA[here + 1] + STEP * beside
        return cls(
            np.log(4 * np.pi * np.sin(np.radians(two_theta / 2)) / CU_KA),
            np.sqrt(middle[here] - 0.25 * slope * beside),
        )

    def smeared(self, sigma):
        """Fourier transform (BINS / 2 + 1,) of the lines as Gaussians of a width in ln q."""
        return _transform(self.ln_q, self.height, np.array([0, len(self.ln_q)]), sigma)[0]


def _transform(ln_q, heights, ends, sigma):
    """Fourier transforms (n, BINS / 2 + 1) of the lines of n crystals as Gaussians of a width in ln q."""
    dense = np.zeros((len(ends) - 1, BINS))
    _spread(ln_q, heights, ends, dense)
    gauss = np.exp(-2 * (np.pi * FREQUENCIES * sigma) ** 2).astype(np.float32)
    return fft.rfft(dense.astype(np.float32), axis=1) * gauss


@njit(**FAST)
def _spread(ln_q, heights, ends, dense):
    for c in range(len(dense)):
        for j in range(ends[c], ends[c + 1]):
            place = (ln_q[j] - FIRST) / WIDTH
            i = int(np.floor(place))
            if 0 <= i < BINS - 1:
                dense[c, i] += heights[j] * (1 - (place - i))
                dense[c, i + 1] += heights[j] * (place - i)


def scales(observed, g2, intensity, ends):
    """Of n crystals the cosine (n,) with the Observed lines where their scale fits best, and the shift (n,) of ln q.

    g2: 1/d^2 (N,) of their lines, laid end to end, intensity (N,), ends (n + 1,).
    """
    own = observed.smeared(COARSE)
    theirs = _transform(0.5 * np.log(g2) + LN_2PI, np.sqrt(intensity), ends, COARSE)

    def power(x):
        return np.maximum(fft.irfft(np.abs(x) ** 2, n=BINS, axis=-1)[..., 0], 1e-12)

    product = fft.irfft(own * np.conj(theirs), n=BINS, axis=1) / np.sqrt(power(own) * power(theirs))[:, None]
    reach = int(MOST_SHIFT / WIDTH)
    product = np.concatenate([product[:, -reach:], product[:, : reach + 1]], axis=1)
    best = product.argmax(1)
    return product[np.arange(len(product)), best], (best - reach) * WIDTH


def refine(observed, metrics, free, hkl, intensity, ends):
    """Refined reciprocal metrics (n, 6) of crystals, in the parameters that their symmetry leaves free.

    metrics: (n, 6), where they start.  free: (n, 6, 6), symmetry.free_parameters.  hkl: (N, 3) and intensity (N,) of
    their lines, ends (n + 1,).
    """
    forms, n_free, start = np.zeros((len(hkl), 6)), free.any(-1).sum(-1), np.zeros((len(metrics), 6))
    quadratic = products(hkl)
    for c in range(len(metrics)):
        lines = slice(ends[c], ends[c + 1])
        forms[lines] = quadratic[lines] @ free[c].T
        # Of the parameters that a symmetry makes equal, the mean.
        start[c] = free[c] @ metrics[c] / np.maximum((free[c] ** 2).sum(-1), 1)
    spectra = fft.irfft(np.stack([observed.smeared(np.sqrt(2) * width) for width in WIDTHS]), n=BINS, axis=1)
    parameters = _refined(start, n_free, forms, np.sqrt(intensity), ends, spectra.astype(np.float64))
    return np.einsum("nk,nkj->nj", parameters, free)


def products(hkl):
    """What a reciprocal metric multiplies: hh, kk, ll, kl, hl, hk (N, 6) of reflections (N, 3)."""
    h, k, l = hkl.astype(np.float64).T
    return np.stack([h * h, k * k, l * l, k * l, h * l, h * k], axis=1)


@njit(**FAST)
def _agreement(parameters, forms, weights, spectrum):
    """Agreement of lines with a smeared spectrum (BINS,), per length of their weights; 1/d^2 = forms @ parameters."""
    total, norm = 0.0, 1e-9
    for j in range(len(weights)):
        g2 = 0.0
        for k in range(len(parameters)):
            g2 += forms[j, k] * parameters[k]
        if g2 <= 0:
            return -1.0
        ln_q = 0.5 * np.log(g2) + LN_2PI
        if ln_q < LOW or ln_q > HIGH:
            continue
        place = (ln_q - FIRST) / WIDTH
        i = int(place)
        share = place - i
        total += weights[j] * (spectrum[i] * (1 - share) + spectrum[i + 1] * share)
        norm += weights[j] * weights[j]
    return total / np.sqrt(norm)


@njit(**FAST)
def _refined(start, n_free, forms, weights, ends, spectra):
    """Parameters (n, 6) that agree best: a search along each of the free ones, in ever sharper spectra."""
    out = start.copy()
    for c in range(len(start)):
        own, lines = out[c, : n_free[c]], slice(ends[c], ends[c + 1])
        of_lines, heights = forms[lines, : n_free[c]], weights[lines]
        unit = np.maximum(np.abs(own), 0.05 * np.abs(own).max())
        for r in range(len(spectra)):
            best, move = _agreement(own, of_lines, heights, spectra[r]), MOVES[r]
            for _ in range(TURNS):
                moved = False
                for k in range(len(own)):
                    for sign in (1.0, -1.0):
                        before = own[k]
                        own[k] += sign * move * unit[k]
                        value = _agreement(own, of_lines, heights, spectra[r])
                        if value > best:
                            best, moved = value, True
                            break
                        own[k] = before
                if not moved:
                    move *= 0.5
                    if move < LEAST_MOVE:
                        break
    return out


def polish(pattern, metrics, free, hkl, intensity, ends, which, sigma=SIGMA):
    """Reciprocal metrics (k, 6) of some crystals and their scores (k,), refined against the whole pattern (4250,).

    metrics, free, hkl, intensity, ends: of all of n crystals, as refine() takes them.  which: (k,) places among them.
    """
    root = np.sqrt(np.maximum(pattern, 0.0)).astype(np.float64)
    out, scores = np.empty((len(which), 6)), np.empty(len(which))
    for i, c in enumerate(which):
        lines, basis = slice(ends[c], ends[c + 1]), free[c][free[c].any(-1)]
        forms = products(hkl[lines]) @ basis.T
        start = basis @ metrics[c] / (basis**2).sum(-1)
        parameters, scores[i] = _polished(start, forms, intensity[lines], root, sigma)
        out[i] = parameters @ basis
    return out, scores


@njit(**FAST)
def _polished(start, forms, intensity, root, sigma):
    own = start.copy()
    unit = np.maximum(np.abs(own), 0.05 * np.abs(own).max())
    best, move = _profile_score(own, forms, intensity, root, sigma), POLISH
    while move > LEAST_POLISH:
        moved = False
        for k in range(len(own)):
            for sign in (1.0, -1.0):
                before = own[k]
                own[k] += sign * move * unit[k]
                value = _profile_score(own, forms, intensity, root, sigma)
                if value > best:
                    best, moved = value, True
                    break
                own[k] = before
        if not moved:
            move *= 0.4
    return own, best


@njit(**FAST)
def _profile_score(parameters, forms, intensity, root, sigma):
    g2 = np.zeros(len(forms))
    for j in range(len(forms)):
        for k in range(len(parameters)):
            g2[j] += forms[j, k] * parameters[k]
    return _cosine(calculated(g2, intensity, sigma), root)


@njit(**FAST)
def _cosine(pattern, root):
    product, own, other = 0.0, 1e-12, 1e-12
    for i in range(N_POINTS):
        product += np.sqrt(pattern[i]) * root[i]
        own += pattern[i]
        other += root[i] * root[i]
    return product / np.sqrt(own * other)


def profile_scores(pattern, metrics, hkl, intensity, ends, sigma=SIGMA):
    """Cosine (n,) of the square roots of a pattern (4250,) and those of crystals; sigma: of their peaks, degree."""
    g2 = np.einsum("Nj,Nj->N", products(hkl), np.repeat(metrics, np.diff(ends), axis=0))
    return _profile_scores(np.sqrt(np.maximum(pattern, 0.0)).astype(np.float64), g2, intensity, ends, sigma)


@njit(**FAST)
def _profile_scores(root, g2, intensity, ends, sigma):
    scores = np.zeros(len(ends) - 1)
    for c in range(len(scores)):
        lines = slice(ends[c], ends[c + 1])
        scores[c] = _cosine(calculated(g2[lines], intensity[lines], sigma), root)
    return scores


@njit(**FAST)
def calculated(g2, intensity, sigma):
    """Pattern (4250,) of lines with 1/d^2 (n,): Gaussians of a width in degree."""
    pattern = np.zeros(N_POINTS)
    for j in range(len(g2)):
        sine = 0.5 * CU_KA * np.sqrt(max(g2[j], 0.0))
        if sine >= 1:
            continue
        place = (2 * np.degrees(np.arcsin(sine)) - START) / STEP
        reach = REACH * sigma / STEP
        for i in range(max(0, int(np.ceil(place - reach))), min(N_POINTS - 1, int(place + reach)) + 1):
            u = (i - place) * STEP / sigma
            pattern[i] += intensity[j] * np.exp(-0.5 * u * u)
    return pattern
