"""Sticks: the powder diffraction lines of a crystal, as pymatgen 2024.11.13's XRDCalculator defines them.

    intensity(hkl) = |sum_j occupancy_j f_j(s^2) exp(2 pi i hkl.x_j)|^2 * LP(theta),  s = 1 / (2 d)
    f(s^2)         = Z - 41.78214 s^2 sum_i a_i exp(-b_i s^2)                  (De Graef & McHenry, ch. 12)
    LP(theta)      = (1 + cos^2 2 theta) / (sin^2 theta cos theta)

Lines closer than 1e-5 degree to the first of their group are one line; lines below 1e-3 of 100 are left out.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from numba import njit

from xxlib.inputs.crystals import RejectedCrystal

CU_KA = 1.54184  # angstrom, the weighted Cu K-alpha doublet
STORED_RANGE = (4.0, 91.0)  # degree: one more than the pattern on either side, so that a shift leaves no hole
PATTERN_RANGE = (5.0, 90.0)  # degree: what the paper's patterns show

MERGE_TOLERANCE = 1e-5  # degree
SMALLEST_INTENSITY = 1e-3  # of 100
S2_NODES = 4096  # of the scattering-factor table: cubic interpolation is then good to 1e-11 of f


@dataclass(frozen=True, eq=False)
class Sticks:
    """The lines of one crystal, by increasing angle."""

    two_theta: np.ndarray  # (p,) float64, degree
    intensity: np.ndarray  # (p,) float64, strongest = 100
    hkl: np.ndarray  # (p, 3) int16, one reflection of each line


def sticks(crystal, wavelength=CU_KA, two_theta_range=STORED_RANGE):
    """Diffraction lines of a Crystal for a wavelength in angstrom, between two angles in degree.

    Raises RejectedCrystal where no line falls into the range.
    """
    low, high = map(float, two_theta_range)  # numba would compile once more for integers
    s2_max = (np.sin(np.radians(high / 2)) / wavelength) ** 2
    table = scattering_factors(float(s2_max))
    order = np.argsort(crystal.atomic_numbers, kind="stable")
    two_theta, intensity, hkl = _sticks(
        np.ascontiguousarray(crystal.lattice),
        crystal.atomic_numbers[order],
        crystal.frac_coords[order],
        crystal.occupancies[order],
        table,
        s2_max,
        float(wavelength),
        low,
        high,
    )
    if len(two_theta) == 0:
        raise RejectedCrystal(f"no diffraction line between {low:g} and {high:g} degree at {wavelength} angstrom")
    return Sticks(two_theta, intensity, hkl)


@lru_cache(maxsize=8)
def scattering_factors(s2_max):
    """Values and slopes of f(s^2) for Z = 0-98 on S2_NODES steps of s^2 from 0 to s2_max: (99, S2_NODES + 2, 2)."""
    from pymatgen.core import Element

    # The table of pymatgen.analysis.diffraction.xrd, whose import takes seconds: in every worker process.
    file = files("pymatgen.analysis.diffraction") / "atomic_scattering_params.json"
    step = s2_max / S2_NODES
    s2 = step * np.arange(S2_NODES + 2)
    table = np.zeros((99, len(s2), 2))
    for symbol, coefficients in json.loads(file.read_text()).items():
        z = Element(symbol).Z
        if symbol in ("D", "T") or z > 98:
            continue
        a, b = np.array(coefficients).T[:, :, None]
        gaussians = a * np.exp(-b * s2)
        table[z, :, 0] = z - 41.78214 * s2 * gaussians.sum(0)
        table[z, :, 1] = -41.78214 * (gaussians * (1 - b * s2)).sum(0) * step
    return table


@njit(cache=True, error_model="numpy")
def _phases(frac, order):
    """cos and sin of 2 pi m x for m = 0..order: (order + 1, n, 2)."""
    n = len(frac)
    out = np.empty((order + 1, n, 2))
    for j in range(n):
        cos, sin = np.cos(2 * np.pi * frac[j]), np.sin(2 * np.pi * frac[j])
        re, im = 1.0, 0.0
        for m in range(order + 1):
            out[m, j, 0] = re
            out[m, j, 1] = im
            re, im = re * cos - im * sin, re * sin + im * cos
    return out


@njit(cache=True, error_model="numpy")
def _row(h, k, metric, g2_max):
    """First and last l of the reflections (h k l) inside the sphere |g|^2 <= g2_max; last < first where none is."""
    centre = -(metric[0, 2] * h + metric[1, 2] * k) / metric[2, 2]
    nearest = metric[0, 0] * h * h + metric[1, 1] * k * k + 2 * metric[0, 1] * h * k - metric[2, 2] * centre * centre
    if nearest > g2_max:
        return 0, -1
    reach = np.sqrt((g2_max - nearest) / metric[2, 2])
    first, last = int(np.ceil(centre - reach)), int(np.floor(centre + reach))
    # Half of reciprocal space is enough: F(-h) is the conjugate of F(h).
    if h == 0 and k == 0:
        first = max(first, 1)
    return first, last


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _reflections(metric, orders, numbers, frac, occupancies, table, s2_max, g2_min, g2_max):
    """|g|^2, |F|^2 and (h, k, l) of half of the reflections with g2_min <= |g|^2 <= g2_max."""
    n = len(numbers)
    rows, count, widest = 0, 0, 0
    for h in range(orders[0] + 1):
        for k in range(-orders[1] if h else 0, orders[1] + 1):
            first, last = _row(h, k, metric, g2_max)
            if last >= first:
                rows, count, widest = rows + 1, count + last - first + 1, max(widest, last - first + 1)
    g2, f2, hkl = np.empty(count), np.empty(count), np.empty((count, 3), np.int16)

    phase_h, phase_k = _phases(frac[:, 0], orders[0]), _phases(frac[:, 1], orders[1])
    phase_l = _phases(frac[:, 2], orders[2])
    # cos and sin of 2 pi m z, contiguous in m: a row is summed over m = 0..half around its centre, where l = centre + m
    # and l = centre - m share the same four products.
    half_max = widest // 2 + 1
    cos_m, sin_m = np.empty((n, half_max)), np.empty((n, half_max))
    for j in range(n):
        for m in range(half_max):
            cos_m[j, m], sin_m[j, m] = phase_l[m, j, 0], phase_l[m, j, 1]
    cc, ss, cs, sc = np.empty(half_max), np.empty(half_max), np.empty(half_max), np.empty(half_max)
    re, im, s2_row = np.empty(2 * half_max), np.empty(2 * half_max), np.empty(2 * half_max)

    found = 0
    for h in range(orders[0] + 1):
        for k in range(-orders[1] if h else 0, orders[1] + 1):
            first, last = _row(h, k, metric, g2_max)
            if last < first:
                continue
            centre = (first + last) // 2
            half = max(last - centre, centre - first)
            plane = metric[0, 0] * h * h + metric[1, 1] * k * k + 2 * metric[0, 1] * h * k
            slope = 2 * (metric[0, 2] * h + metric[1, 2] * k)
            for m in range(2 * half + 1):
                l = centre - half + m
                s2_row[m] = (plane + slope * l + metric[2, 2] * l * l) / 4
                re[m] = im[m] = 0.0
            j = 0
            while j < n:
                z = numbers[j]
                for m in range(half + 1):
                    cc[m] = ss[m] = cs[m] = sc[m] = 0.0
                while j < n and numbers[j] == z:
                    hr, hi = phase_h[h, j, 0], phase_h[h, j, 1]
                    kr, ki = phase_k[abs(k), j, 0], phase_k[abs(k), j, 1]
                    lr, li = phase_l[abs(centre), j, 0], phase_l[abs(centre), j, 1]
                    if k < 0:
                        ki = -ki
                    if centre < 0:
                        li = -li
                    pr, pi = hr * kr - hi * ki, hr * ki + hi * kr
                    ar = occupancies[j] * (pr * lr - pi * li)
                    ai = occupancies[j] * (pr * li + pi * lr)
                    for m in range(half + 1):
                        cc[m] += ar * cos_m[j, m]
                        ss[m] += ai * sin_m[j, m]
                        cs[m] += ar * sin_m[j, m]
                        sc[m] += ai * cos_m[j, m]
                    j += 1
                for m in range(2 * half + 1):
                    position = s2_row[m] / s2_max * S2_NODES
                    node = min(int(position), S2_NODES)
                    t = position - node
                    f0, d0, f1, d1 = table[z, node, 0], table[z, node, 1], table[z, node + 1, 0], table[z, node + 1, 1]
                    # cubic Hermite interpolation
                    f = f0 + t * (d0 + t * (3 * (f1 - f0) - 2 * d0 - d1 + t * (2 * (f0 - f1) + d0 + d1)))
                    d = abs(m - half)
                    sign = 1.0 if m >= half else -1.0
                    re[m] += f * (cc[d] - sign * ss[d])
                    im[m] += f * (sc[d] + sign * cs[d])
            for m in range(first - centre + half, last - centre + half + 1):
                if 4 * s2_row[m] >= g2_min:
                    g2[found] = 4 * s2_row[m]
                    f2[found] = re[m] * re[m] + im[m] * im[m]
                    hkl[found, 0], hkl[found, 1], hkl[found, 2] = h, k, centre - half + m
                    found += 1
    return g2[:found], f2[:found], hkl[:found]


@njit(cache=True, error_model="numpy")
def _sticks(lattice, numbers, frac, occupancies, table, s2_max, wavelength, low, high):
    reciprocal = np.linalg.inv(lattice).T  # rows a*, b*, c*, without 2 pi
    # The longest cell vector goes innermost, where a row of reflections is then longest.
    lengths = np.sqrt((lattice**2).sum(1))
    axes = np.argsort(lengths)
    reciprocal = np.ascontiguousarray(reciprocal[axes])
    metric = reciprocal @ reciprocal.T
    g_min, g_max = 2 * np.sin(np.radians(low / 2)) / wavelength, 2 * np.sin(np.radians(high / 2)) / wavelength
    # |h| = |g . a| <= |g| |a|
    orders = np.floor(g_max * lengths[axes] + 1e-9).astype(np.int64)
    g2, f2, hkl = _reflections(
        metric, orders, numbers, np.ascontiguousarray(frac[:, axes]), occupancies, table, s2_max, g_min**2, g_max**2
    )
    order = np.argsort(g2)

    two_theta, intensity = np.empty(len(g2)), np.empty(len(g2))
    lines = np.empty((len(g2), 3), np.int16)
    n_lines, last_g2, angle, lorentz_polarisation = 0, -1.0, 0.0, 0.0
    for i in order:
        # Reflections of one family differ by rounding only: their angle and LP factor are those of the last one.
        if g2[i] > last_g2 * (1 + 1e-13):
            last_g2 = g2[i]
            sin = min(wavelength * np.sqrt(g2[i]) / 2, 1.0)
            cos_2theta = 1 - 2 * sin * sin
            angle = 2 * np.degrees(np.arcsin(sin))
            lorentz_polarisation = (1 + cos_2theta**2) / (sin * sin * np.sqrt(1 - sin * sin))
        if n_lines == 0 or angle - two_theta[n_lines - 1] >= MERGE_TOLERANCE:
            two_theta[n_lines] = angle
            intensity[n_lines] = 0.0
            for axis in range(3):
                lines[n_lines, axes[axis]] = hkl[i, axis]
            n_lines += 1
        intensity[n_lines - 1] += 2 * f2[i] * lorentz_polarisation
    two_theta, intensity, lines = two_theta[:n_lines], intensity[:n_lines], lines[:n_lines]
    if n_lines == 0:
        return two_theta, intensity, lines
    intensity *= 100 / intensity.max()
    kept = intensity > SMALLEST_INTENSITY
    return two_theta[kept], intensity[kept], lines[kept]
