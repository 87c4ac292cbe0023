"""Lines of crystals whose symmetry is known: a structure factor for one reflection of each family, not for all.

As diffraction.kernel computes them, but in the standard cell, from the atoms of a primitive one, and with the
multiplicity that symmetry gives a family: up to 24 times fewer structure factors.
"""

import numpy as np
from numba import njit

from xxlib.diffraction.kernel import FAST, S2_STEP

SAME_PLACE = 1e-3  # fractional: images of an atom closer than this are one
WEAKEST = 0.01  # of 100: weaker lines are left out


@njit(**FAST)
def expanded(rotations, translations, centrings, frac, numbers):
    """Atoms of a primitive cell, in coordinates of the standard one, of those of the asymmetric unit.

    frac: (a, 3), numbers: (a,).  Returns (n, 3), (n,), of each atom which of the unit it is an image of (n,), and by
    which operation (n,).
    """
    g, most = len(rotations), len(rotations) * len(frac)
    places, kinds, source = np.empty((most, 3)), np.empty(most, np.int64), np.empty((2, most), np.int64)
    n = 0
    for a in range(len(frac)):
        first = n
        for o in range(g):
            x = np.empty(3)
            for i in range(3):
                x[i] = translations[o, i]
                for j in range(3):
                    x[i] += rotations[o, i, j] * frac[a, j]
                x[i] -= np.floor(x[i])
            there = False
            for k in range(first, n):
                for c in range(len(centrings)):
                    apart = 0.0
                    for i in range(3):
                        d = x[i] - places[k, i] - centrings[c, i]
                        d -= np.round(d)
                        apart = max(apart, abs(d))
                    if apart < SAME_PLACE:
                        there = True
                        break
                if there:
                    break
            if not there:
                places[n] = x
                kinds[n], source[0, n], source[1, n] = numbers[a], a, o
                n += 1
    return places[:n], kinds[:n], source[0, :n], source[1, :n]


@njit(**FAST)
def _compared(h, k, l, operation):
    """Whether what an operation (3, 3) makes of hkl is lexicographically larger (1), the same (0) or smaller (-1)."""
    hkl = (h, k, l)
    for axis in range(3):
        image = h * operation[0, axis] + k * operation[1, axis] + l * operation[2, axis]
        if image != hkl[axis]:
            return 1 if image > hkl[axis] else -1
    return 0


@njit(**FAST)
def families(metric, laue, centrings, g_min, g_max):
    """One reflection (n, 3) int16 of each family with g_min <= |g| <= g_max, and how many it has (n,).

    metric: reciprocal, (hh, kk, ll, kl, hl, hk) of 1/d^2.  What the centring forbids is left out.
    """
    det_h = metric[1] * metric[2] - metric[3] * metric[3] / 4
    det_k = metric[0] * metric[2] - metric[4] * metric[4] / 4
    det_l = metric[0] * metric[1] - metric[5] * metric[5] / 4
    det = (
        metric[0] * det_h
        - metric[5] / 2 * (metric[5] / 2 * metric[2] - metric[3] * metric[4] / 4)
        + metric[4] / 2 * (metric[5] * metric[3] / 4 - metric[1] * metric[4] / 2)
    )
    h_max = int(g_max * np.sqrt(max(det_h / det, 0.0)) + 1e-9)
    k_max = int(g_max * np.sqrt(max(det_k / det, 0.0)) + 1e-9)
    l_max = int(g_max * np.sqrt(max(det_l / det, 0.0)) + 1e-9)
    room = 64
    hkl, count = np.empty((room, 3), np.int16), np.empty(room, np.int64)
    n = 0
    for h in range(h_max, -1, -1):
        for k in range(k_max, -k_max - 1, -1):
            for l in range(l_max, -l_max - 1, -1):
                g2 = (
                    metric[0] * h * h + metric[1] * k * k + metric[2] * l * l
                    + metric[3] * k * l + metric[4] * h * l + metric[5] * h * k
                )  # fmt: skip
                if g2 > g_max * g_max or g2 < g_min * g_min:
                    continue
                allowed = True
                for c in range(1, len(centrings)):
                    phase = h * centrings[c, 0] + k * centrings[c, 1] + l * centrings[c, 2]
                    allowed = allowed and abs(phase - np.round(phase)) < 1e-3
                if not allowed:
                    continue
                fixed, larger = 0, False  # of the family the lexicographically largest stands for all
                for o in range(len(laue)):
                    order = _compared(h, k, l, laue[o])
                    if order > 0:
                        larger = True
                        break
                    fixed += order == 0
                if larger:
                    continue
                if n == room:
                    room *= 2
                    more, more_count = np.empty((room, 3), np.int16), np.empty(room, np.int64)
                    more[:n], more_count[:n] = hkl[:n], count[:n]
                    hkl, count = more, more_count
                hkl[n, 0], hkl[n, 1], hkl[n, 2] = h, k, l
                count[n] = len(laue) // fixed
                n += 1
    return hkl[:n], count[:n]


@njit(**FAST)
def factors(count, g2, elements, table, wavelength):
    """Scattering factors (n, e) of reflections with |g|^2 (n,), and multiplicity x Lorentz-polarisation (n,)."""
    f, scale = np.empty((len(g2), len(elements))), np.empty(len(g2))
    for i in range(len(g2)):
        s2 = g2[i] / 4
        node = min(int(s2 / S2_STEP), table.shape[1] - 1)
        t = s2 / S2_STEP - node - 0.5
        for e in range(len(elements)):
            c = table[elements[e], node]
            f[i, e] = c[0] + t * (c[1] + t * (c[2] + t * (c[3] + t * (c[4] + t * (c[5] + t * (c[6] + t * c[7]))))))
        sin2 = min(wavelength * wavelength * s2, 0.999999)
        scale[i] = count[i] * (1 + (1 - 2 * sin2) ** 2) / (sin2 * np.sqrt(1 - sin2))
    return f, scale


@njit(**FAST)
def intensities(hkl, count, metric, places, kinds, occupancies, elements, table, wavelength):
    """|g|^2 (n,) and intensity (n,), strongest 100, of reflections as families() gives them.

    places: (m, 3), kinds: (m,) index into elements (atomic numbers); table: scattering factors.
    """
    n, m = len(hkl), len(places)
    g2, out = np.empty(n), np.empty(n)
    h_max = np.zeros(3, np.int64)
    for i in range(n):
        for a in range(3):
            h_max[a] = max(h_max[a], abs(hkl[i, a]))
    cos, sin = np.empty((3, h_max.max() + 1, m)), np.empty((3, h_max.max() + 1, m))
    for a in range(3):
        for j in range(m):
            c, s = np.cos(2 * np.pi * places[j, a]), np.sin(2 * np.pi * places[j, a])
            re, im = 1.0, 0.0
            for p in range(h_max[a] + 1):
                cos[a, p, j], sin[a, p, j] = re, im
                re, im = re * c - im * s, re * s + im * c
    weight = np.empty(m)
    for i in range(n):
        h, k, l = hkl[i, 0], hkl[i, 1], hkl[i, 2]
        g2[i] = (
            metric[0] * h * h + metric[1] * k * k + metric[2] * l * l
            + metric[3] * k * l + metric[4] * h * l + metric[5] * h * k
        )  # fmt: skip
    f, scale = factors(count, g2, elements, table, wavelength)
    strongest = 0.0
    for i in range(n):
        h, k, l = hkl[i, 0], hkl[i, 1], hkl[i, 2]
        for j in range(m):
            weight[j] = f[i, kinds[j]] * occupancies[j]
        sign_k, sign_l = (1.0 if k >= 0 else -1.0), (1.0 if l >= 0 else -1.0)
        ch, sh, ck, sk, cl, sl = cos[0, h], sin[0, h], cos[1, abs(k)], sin[1, abs(k)], cos[2, abs(l)], sin[2, abs(l)]
        re, im = 0.0, 0.0
        for j in range(m):
            a, b = ch[j] * ck[j] - sign_k * sh[j] * sk[j], sign_k * ch[j] * sk[j] + sh[j] * ck[j]
            re += weight[j] * (a * cl[j] - sign_l * b * sl[j])
            im += weight[j] * (sign_l * a * sl[j] + b * cl[j])
        out[i] = scale[i] * (re * re + im * im)
        strongest = max(strongest, out[i])
    if strongest > 0:
        for i in range(n):
            out[i] *= 100 / strongest
    return g2, out


@njit(**FAST)
def lines_of(crystals, groups, table, wavelength, g_min, g_max):
    """Lines of many crystals, laid end to end: hkl (N, 3), |g|^2 (N,), intensity (N,), offsets (n + 1,).

    crystals: metrics (n, 6), groups (n,) places in `groups`, places (m, 3), numbers (m,), occupancies (m,) and offsets
    (n + 1,) of the atoms of their asymmetric units.  groups: rotations, translations, laue, centrings of space groups
    with the offsets of each (operations, laue, centrings).
    """
    metrics, kind, frac, numbers, occupancies, offsets = crystals
    rotations, translations, laue, centrings, ends = groups
    room, n_lines = 1024, 0
    hkl, g2, intensity = np.empty((room, 3), np.int16), np.empty(room), np.empty(room)
    line_offsets = np.zeros(len(metrics) + 1, np.int64)
    slot = np.full(99, -1)
    for c in range(len(metrics)):
        s, atoms = kind[c], slice(offsets[c], offsets[c + 1])
        centring = centrings[ends[s, 2] : ends[s + 1, 2]]
        places, z, unit, _ = expanded(
            rotations[ends[s, 0] : ends[s + 1, 0]], translations[ends[s, 0] : ends[s + 1, 0]], centring,
            frac[atoms], numbers[atoms],
        )  # fmt: skip
        some, count = families(metrics[c], laue[ends[s, 1] : ends[s + 1, 1]], centring, g_min, g_max)
        elements, n_elements = np.empty(len(z), np.int64), 0
        for j in range(len(z)):
            if slot[z[j]] < 0:
                slot[z[j]] = n_elements
                elements[n_elements] = z[j]
                n_elements += 1
        kinds, share = np.empty(len(z), np.int64), np.empty(len(z))
        for j in range(len(z)):
            kinds[j], share[j] = slot[z[j]], occupancies[offsets[c] + unit[j]]
        squares, heights = intensities(
            some, count, metrics[c], places, kinds, share, elements[:n_elements], table, wavelength
        )
        for e in range(n_elements):
            slot[elements[e]] = -1
        for i in range(len(some)):
            if heights[i] < WEAKEST:
                continue
            if n_lines == room:
                room *= 2
                hkl2, g22, intensity2 = np.empty((room, 3), np.int16), np.empty(room), np.empty(room)
                hkl2[:n_lines], g22[:n_lines], intensity2[:n_lines] = hkl[:n_lines], g2[:n_lines], intensity[:n_lines]
                hkl, g2, intensity = hkl2, g22, intensity2
            hkl[n_lines], g2[n_lines], intensity[n_lines] = some[i], squares[i], heights[i]
            n_lines += 1
        line_offsets[c + 1] = n_lines
    return hkl[:n_lines], g2[:n_lines], intensity[:n_lines], line_offsets
