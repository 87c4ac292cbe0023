"""Sticks -> patterns as a laboratory measures them and `conditioning` leaves them, under drawn effects.

lines      lattice, strained cell, thermal motion, texture, zero shift, sample displacement, widths, impurities
pattern    K-alpha2, what is left of the background, counting noise, measured range
"""

import numpy as np
from numba import njit

from xxlib.diffraction import patterns
from xxlib.diffraction.effects import ABSENT, FWHM, RADIUS
from xxlib.diffraction.patterns import N_POINTS, START, STEP, TWO_THETA, restrict
from xxlib.diffraction.texture import PREFERRED, equal_axes, march, metric_tensor, square, strained, symmetries
from xxlib.diffraction.wavelengths import ANODES, CU_KA, KA2_RATIO

SCHERRER = 0.9  # shape factor, for widths at half maximum
N_IMPURITY_LINES = 8
KNOTS, BETWEEN = 35, 125  # of the curve that background subtraction leaves: one each 2.5 degree, and points in between
FAINTEST = 0.02  # of 100: weaker lines, a thousandth of all intensity, are left out
LEAST_SEEN = 1.0  # of 100: with no stronger line than this inside the range, the whole pattern is measured


def augmented(two_theta, intensity, offsets, drawn, hkl=None, lattices=None):
    """Patterns (B, 4250) of crystals under drawn effects, and which tokens (B, 17) were not measured.

    two_theta (degree, Cu K-alpha), intensity: (p,); crystal b owns offsets[b]:offsets[b + 1].  drawn: Drawn of the B.
    hkl (p, 3), lattices (B, 6): a, b, c (angstrom), alpha, beta, gamma (degree), for texture.
    Points outside the measured range are zero, the maximum inside is 100.  A crystal with nothing to see in the range
    drawn for it is measured whole.
    """
    values = drawn.values
    if hkl is None:
        hkl, lattices = np.zeros((0, 3)), np.zeros((0, 6))
    lines = _lines(
        np.asarray(two_theta, np.float64), np.asarray(intensity, np.float64), np.asarray(offsets, np.int64), drawn.keys,
        values["lattice"] / 100, values["thermal"], values["line_scatter"], values["zero_shift"],
        2 * np.degrees(values["displacement"] / RADIUS), values["instrument"],
        np.degrees(SCHERRER * CU_KA / (10 * values["size"])), np.degrees(4 * values["strain"] / 100),
        values["impurity"], values["texture"], values["cell"] / 100,
        np.asarray(hkl, np.float64), np.asarray(lattices, np.float64),
    )  # fmt: skip
    signals = patterns.render(*lines[:3], lines[3], mixing=lines[4])
    start, end = (np.where(values["cut"], values[name], ABSENT[name]) for name in ("start", "end"))
    _measure(
        signals, drawn.keys, values["ka2"] * KA2_RATIO, values["overlap"], values["residue"],
        values["background"] / 100, values["counts"], start, end,
    )  # fmt: skip
    return restrict(signals, start, end)


def expansion(drawn, lattices):
    """What drawn effects add to the logarithm of the volume of crystals (B,); lattices (B, 6) as augmented takes them.

    As that, they strain no cell where there are no reflections: then lattices is None.
    """
    change = 3 * np.log1p(drawn.values["lattice"] / 100)
    if lattices is None:
        return change
    return change + _strained_volumes(drawn.keys, drawn.values["cell"] / 100, np.asarray(lattices, np.float64))


@njit(cache=True)
def _strained_volumes(keys, cell, lattices):
    out = np.zeros(len(keys))
    for b in range(len(keys)):
        if cell[b] > 0:
            metric = metric_tensor(lattices[b])
            moved = strained(metric, symmetries(metric), _strain(keys[b], cell[b]))
            out[b] = np.log(np.linalg.det(moved) / np.linalg.det(metric)) / 2
    return out


@njit(cache=True, error_model="numpy")
def _lines(
    two_theta, intensity, offsets, keys, lattice, thermal, scatter, zero_shift, tilt, instrument, size, strain,
    impurity, texture, cell, hkl, lattices,
):  # fmt: skip
    """Angle, intensity of the lines of the patterns, their offsets, standard deviations and Lorentzian shares."""
    n = len(two_theta) + N_IMPURITY_LINES * len(keys)
    angles, heights = np.empty(n), np.empty(n, np.float32)
    sigmas, mixings = np.empty(n, np.float32), np.empty(n, np.float32)
    ends = np.zeros(len(keys) + 1, np.int64)
    k = 0
    for b in range(len(keys)):
        key, first = keys[b], offsets[b]
        strongest = intensity[first : offsets[b + 1]].max()
        if len(hkl):
            metric = metric_tensor(lattices[b])
            group = symmetries(metric)
            axes = equal_axes(group, PREFERRED[int(_uniform(key, np.uint64(50)) * len(PREFERRED))])
            reciprocal = np.linalg.inv(metric)
            moved = np.linalg.inv(strained(metric, group, _strain(key, cell[b]))) if cell[b] > 0 else reciprocal
        extra = N_IMPURITY_LINES if impurity[b] > 0 else 0
        for i in range(first - extra, offsets[b + 1]):
            if i < first:
                place = np.uint64(first - 1 - i)
                sine = np.sin(np.radians(START + STEP * N_POINTS * _uniform(key, 2 * place)) / 2)
                height = impurity[b] / 100 * strongest * (_uniform(key, 2 * place + np.uint64(1)) if place else 1.0)
            else:
                if intensity[i] < FAINTEST / 100 * strongest:
                    continue
                sine = np.sin(np.radians(two_theta[i]) / 2) / (1 + lattice[b])
                if len(hkl) and cell[b] > 0:
                    sine *= np.sqrt(square(moved, hkl[i]) / square(reciprocal, hkl[i]))
                if sine >= 1:
                    continue
                height = intensity[i] * np.exp(-2 * thermal[b] * (sine / CU_KA) ** 2)
                if len(hkl):
                    height *= march(texture[b], hkl[i], reciprocal, axes)
                elif scatter[b] > 0:
                    height *= np.exp(scatter[b] * _normal(key, 1000 + i - first))
            cosine = np.sqrt(1 - sine * sine)
            width, share = _pseudo_voigt(instrument[b], size[b] / cosine + strain[b] * sine / cosine)
            angles[k] = 2 * np.degrees(np.arcsin(sine)) + zero_shift[b] - tilt[b] * cosine
            heights[k], sigmas[k], mixings[k] = height, width / FWHM, share
            k += 1
        ends[b + 1] = k
    return angles[:k], heights[:k], ends, sigmas[:k], mixings[:k]


@njit(cache=True)
def _strain(key, deviation):
    """A symmetric tensor (3, 3) of normal numbers."""
    strain, number = np.empty((3, 3)), 30
    for i in range(3):
        for j in range(i + 1):
            strain[i, j] = strain[j, i] = deviation * _normal(key, number) * (1.0 if i == j else np.sqrt(0.5))
            number += 1
    return strain


@njit(inline="always")
def _pseudo_voigt(gaussian, lorentzian):
    """Full width at half maximum and Lorentzian share of the convolution of a Gaussian and a Lorentzian.

    Thompson, Cox and Hastings, J. Appl. Cryst. 20, 79 (1987).
    """
    r = lorentzian / gaussian
    width = gaussian * (1 + r * (2.69269 + r * (2.42843 + r * (4.47163 + r * (0.07842 + r))))) ** 0.2
    q = lorentzian / width
    return width, 1.36603 * q - 0.47719 * q**2 + 0.11116 * q**3


def _doublet():
    """Where K-alpha1 and K-alpha2 of each point stand in a pattern of their mean wavelength: (4, 4250).

    Each is the number of a point and how far it lies beyond that, in points.
    """
    sines = np.sin(np.radians(TWO_THETA / 2))
    places = [(2 * np.degrees(np.arcsin(sines * CU_KA / line)) - START) / STEP for line in ANODES["Cu"][:2]]
    places = [np.clip(place, 0, N_POINTS - 1) for place in places]  # beyond the ends, what stands there
    points = [np.minimum(place.astype(np.int64), N_POINTS - 2) for place in places]
    return np.stack([points[0], places[0] - points[0], points[1], places[1] - points[1]]).astype(np.float32)


DOUBLET = _doublet()


@njit(cache=True, error_model="numpy")
def _measure(signals, keys, ka2, overlap, residue, background, counts, start, end):
    """Writes to signals (B, 4250), maximum 100, what is measured of them, and to start, end the range."""
    row, noise, curve = np.empty(N_POINTS, np.float32), np.empty(N_POINTS, np.float32), np.empty(KNOTS, np.float32)
    for b in range(len(signals)):
        signal, key = signals[b], keys[b]
        if ka2[b] > 0:
            _split(signal, np.float32(ka2[b]), row)
        else:
            row[:] = signal
        first, last = int(np.ceil((start[b] - START) / STEP)), int((end[b] - START) / STEP)
        highest = _extreme(row, first, last + 1, np.float32(1))
        if highest < LEAST_SEEN:
            start[b], end[b] = START, START + STEP * (N_POINTS - 1)
            highest = _extreme(row, 0, N_POINTS, np.float32(1))
        before = np.float32(np.inf)
        for j in range(KNOTS):
            floor = -_extreme(row, BETWEEN * j, BETWEEN * (j + 1), np.float32(-1)) if j < KNOTS - 1 else before
            curve[j] = residue[b] * _normal(key, 100 + j) - overlap[b] * min(before, floor) * 100 / highest
            before = floor
        _noise(np.uint32(key), noise)
        noise *= np.float32(100 / np.sqrt(counts[b]))
        _count(row, np.float32(100) / highest, curve, np.float32(background[b]), noise, signal)


@njit(cache=True, fastmath={"nnan", "nsz", "reassoc"})
def _extreme(row, first, end, sign):
    """The largest value of sign * row from `first` up to `end`."""
    extreme = sign * row[first]
    for i in range(np.uint64(end - first)):
        extreme = max(extreme, sign * row[np.uint64(first) + i])
    return extreme


@njit(cache=True)
def _split(signal, ratio, out):
    """Writes to out the signal of K-alpha1 and K-alpha2 from that of their mean wavelength."""
    part1, part2 = np.float32(1) / (np.float32(1) + ratio), ratio / (np.float32(1) + ratio)
    for i in range(N_POINTS):
        k1, far1, k2, far2 = np.int32(DOUBLET[0, i]), DOUBLET[1, i], np.int32(DOUBLET[2, i]), DOUBLET[3, i]
        out[i] = part1 * (signal[k1] + far1 * (signal[k1 + 1] - signal[k1])) + part2 * (
            signal[k2] + far2 * (signal[k2 + 1] - signal[k2])
        )


@njit(cache=True, fastmath={"nnan", "nsz"})
def _count(row, scale, curve, background, noise, out):
    """Writes to out the row, scaled to 100, with the curve and the noise of its counts."""
    for j in range(KNOTS - 1):
        left, rise = curve[j], curve[j + 1] - curve[j]
        for i in range(BETWEEN):
            far = np.float32(i) * np.float32(1 / BETWEEN)
            far = far * far * (np.float32(3) - np.float32(2) * far)
            k = np.uint64(BETWEEN * j) + np.uint64(i)
            clean = row[k] * scale
            deviation = np.sqrt(clean * np.float32(0.01) + background) * noise[k]
            out[k] = max(clean + left + far * rise + deviation, np.float32(0))


# Random numbers that are functions of a key and a number, without state.


@njit(inline="always")
def _mixed(key, i):
    """64 random bits (Steele et al., SplitMix64)."""
    z = key + (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(inline="always")
def _uniform(key, i):
    return np.float64(_mixed(key, i) >> np.uint64(11)) / 2.0**53


@njit(inline="always")
def _normal(key, i):
    """A standard normal number (Box and Muller)."""
    radius = np.sqrt(-2 * np.log(1 - _uniform(key, np.uint64(2 * i))))
    return radius * np.cos(2 * np.pi * _uniform(key, np.uint64(2 * i + 1)))


@njit(cache=True)
def _noise(key, out):
    """Fills out with numbers of mean 0 and variance 1, nearly normal: sums of eight random bytes."""
    # In 32 bits and with Wellons' mixer, so that the loop is vectorised.
    for i in range(len(out)):
        z = np.uint32(key + np.uint32(i) * np.uint32(0x9E3779B1))
        total = np.uint32(0)
        for _ in range(2):
            z = np.uint32(np.uint32(z ^ (z >> np.uint32(16))) * np.uint32(0x21F0AAAD))
            z = np.uint32(np.uint32(z ^ (z >> np.uint32(15))) * np.uint32(0x735A2D97))
            z = np.uint32(z ^ (z >> np.uint32(15)))
            pairs = np.uint32(np.uint32(z & np.uint32(0xFF00FF)) + np.uint32((z >> np.uint32(8)) & np.uint32(0xFF00FF)))
            total = np.uint32(total + np.uint32(pairs & np.uint32(0xFFFF)) + np.uint32(pairs >> np.uint32(16)))
        out[i] = (np.float32(total) - np.float32(1020)) * np.float32(1 / 209.02)
