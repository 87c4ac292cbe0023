"""The kernel of diffraction: lattices and atoms in, lines out, compiled; `diffraction` says what it computes.

Half of reciprocal space, a row of l at a time (F(-h) is the conjugate of F(h)); the sums over the atoms of each element
from tables of exp(2 pi i m x); a bucket sort by |g|^3, evenly spread there; then scattering factors, angles and LP once
for each distinct |g|.
"""

import numpy as np
from numba import njit

MERGE_TOLERANCE = 1e-5  # degree
SMALLEST_INTENSITY = 1e-3  # of 100
SAME = 1 + 1e-13  # |g|^2 of the reflections of one family differ by rounding only
S2_STEP, TAYLOR_TERMS = 1 / 600, 8  # of the scattering-factor table, per angstrom^2: good to 1e-11 of f
LANES = 4  # doubles in a vector register: the atoms of an element are padded to a multiple of it

FAST = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}


@njit(**FAST)
def of_all(crystals, options):
    """Lines of every crystal, laid end to end: two_theta, intensity, hkl, offsets, strongest, as PackedSticks has them.

    crystals: the fields of PackedCrystals.  options: table of scattering factors (99, steps, TAYLOR_TERMS), thermal B
    (99,) in angstrom^2, wavelength in angstrom, lowest and highest angle in degree, whether hkl is asked for.
    """
    lattices, numbers, frac, occupancies, offsets = crystals
    with_hkl = options[-1]
    space = _space(lattices, options)
    two_theta, intensity, hkl = _room(space[-1], with_hkl)
    n_kept, strongest = np.zeros(len(lattices), np.int64), np.zeros(len(lattices))
    for c in range(len(lattices)):
        atoms, lines = slice(offsets[c], offsets[c + 1]), slice(space[c], space[c + 1])
        n_kept[c], strongest[c] = _of_one(
            lattices[c], numbers[atoms], frac[atoms], occupancies[atoms], options,
            two_theta[lines], intensity[lines], hkl[lines],
        )  # fmt: skip
    # Without the gaps between crystals.
    ends = np.zeros(len(space), np.int64)
    ends[1:] = np.cumsum(n_kept)
    kept = _room(ends[-1], with_hkl)
    for c in range(len(n_kept)):
        here, there = slice(ends[c], ends[c + 1]), slice(space[c], space[c] + n_kept[c])
        kept[0][here], kept[1][here] = two_theta[there], intensity[there]
        if with_hkl:
            kept[2][here] = hkl[there]
    return kept[0], kept[1], kept[2], ends, strongest


@njit(**FAST)
def _space(lattices, options):
    """Offsets (n + 1,) of as many lines as each crystal has reflections in half of reciprocal space."""
    _, _, wavelength, _, high, _ = options
    space = np.zeros(len(lattices) + 1, np.int64)
    for c in range(len(lattices)):
        _, lengths, metric = _cell(lattices[c])
        g_max = 2 * np.sin(np.radians(high / 2)) / wavelength
        space[c + 1] = space[c] + _rows(lengths, metric, g_max)[-1, 3]
    return space


@njit(**FAST)
def _room(n_lines, with_hkl):
    """Arrays for two_theta, intensity, hkl of some lines."""
    return np.empty(n_lines), np.empty(n_lines), np.empty((n_lines if with_hkl else 0, 3), np.int16)


@njit(**FAST)
def _of_one(lattice, numbers, frac, occupancies, options, two_theta, intensity, hkl):
    """Writes the lines of one crystal to the start of two_theta, intensity, hkl; returns (number, what 100 is)."""
    table, thermal, wavelength, low, high, with_hkl = options
    axes, lengths, metric = _cell(lattice)
    g2_min = (2 * np.sin(np.radians(low / 2)) / wavelength) ** 2
    g_max = 2 * np.sin(np.radians(high / 2)) / wavelength
    rows = _rows(lengths, metric, g_max)
    elements, starts, places, weights = _by_element(numbers, frac, occupancies, axes)
    g2, sums = _reflections(rows, metric, starts, places, weights)
    order = _by_length(g2, g_max * g_max)

    # A family: reflections of one length.
    family_g2, family_start, n_families = np.empty(len(g2)), np.empty(len(g2) + 1, np.int32), 0
    for i in range(len(order)):
        value = g2[order[i]]
        if value >= g2_min and (n_families == 0 or value > family_g2[n_families - 1] * SAME):
            family_g2[n_families], family_start[n_families] = value, i
            n_families += 1
    family_start[n_families] = len(order)
    family_g2 = family_g2[:n_families]
    factors = _factors(elements, family_g2, table, thermal)

    n_lines, strongest = 0, 0.0
    for u in range(n_families):
        f2 = 0.0
        for position in range(family_start[u], family_start[u + 1]):
            i = order[position]
            re, im = 0.0, 0.0
            for e in range(len(elements)):
                re += factors[u, e] * sums[i, e, 0]
                im += factors[u, e] * sums[i, e, 1]
            f2 += re * re + im * im
        sin2 = min(wavelength * wavelength * family_g2[u] / 4, 1.0)
        lorentz_polarisation = (1 + (1 - 2 * sin2) ** 2) / (sin2 * np.sqrt(1 - sin2))
        angle = 2 * np.degrees(np.arcsin(np.sqrt(sin2)))
        if n_lines == 0 or angle - two_theta[n_lines - 1] >= MERGE_TOLERANCE:
            two_theta[n_lines], intensity[n_lines] = angle, 0.0
            if with_hkl:
                i = order[family_start[u]]
                row = np.searchsorted(rows[:, 3], i, side="right") - 1
                hkl[n_lines, axes[0]], hkl[n_lines, axes[1]] = rows[row, 0], rows[row, 1]
                hkl[n_lines, axes[2]] = rows[row, 2] + i - rows[row, 3]
            n_lines += 1
        intensity[n_lines - 1] += 2 * f2 * lorentz_polarisation
        strongest = max(strongest, intensity[n_lines - 1])

    kept = 0
    for i in range(n_lines):
        scaled = intensity[i] / strongest * 100
        if scaled > SMALLEST_INTENSITY:
            two_theta[kept], intensity[kept] = two_theta[i], scaled
            if with_hkl:
                hkl[kept] = hkl[i]
            kept += 1
    return kept, strongest


@njit(**FAST)
def _cell(lattice):
    """Axes by increasing length, these lengths, and the reciprocal metric (00, 11, 22, 01, 02, 12) in that order.

    The longest axis goes innermost, where a row of reflections is then longest.
    """
    x, y, z = 0, 1, 2
    xx, yy, zz = _dot(lattice, 0, 0), _dot(lattice, 1, 1), _dot(lattice, 2, 2)
    if xx > yy:
        x, y, xx, yy = y, x, yy, xx
    if yy > zz:
        y, z, yy, zz = z, y, zz, yy
    if xx > yy:
        x, y, xx, yy = y, x, yy, xx
    xy, xz, yz = _dot(lattice, x, y), _dot(lattice, x, z), _dot(lattice, y, z)
    det = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    diagonal = (yy * zz - yz * yz) / det, (xx * zz - xz * xz) / det, (xx * yy - xy * xy) / det
    mixed = (xz * yz - xy * zz) / det, (xy * yz - xz * yy) / det, (xy * xz - yz * xx) / det
    return (x, y, z), (np.sqrt(xx), np.sqrt(yy), np.sqrt(zz)), diagonal + mixed


@njit(**FAST)
def _dot(vectors, i, j):
    return vectors[i, 0] * vectors[j, 0] + vectors[i, 1] * vectors[j, 1] + vectors[i, 2] * vectors[j, 2]


@njit(**FAST)
def _rows(lengths, metric, g_max):
    """Rows of reflections with |g| <= g_max: h, k, first l, reflections before it; a last row closes the list."""
    aa, bb, cc, ab, ac, bc = metric
    # |h| = |g . a| <= |g| |a|
    h_max, k_max = int(g_max * lengths[0] + 1e-9), int(g_max * lengths[1] + 1e-9)
    rows = np.empty(((h_max + 1) * (2 * k_max + 1) + 1, 4), np.int32)
    n_rows, n_reflections = 0, 0
    for h in range(h_max + 1):
        for k in range(-k_max if h else 0, k_max + 1):
            centre = -(ac * h + bc * k) / cc
            room = g_max * g_max - (aa * h * h + bb * k * k + 2 * ab * h * k - cc * centre * centre)
            if room < 0:
                continue
            reach = np.sqrt(room / cc)
            first, last = int(np.ceil(centre - reach)), int(np.floor(centre + reach))
            if h == 0 and k == 0:
                first = 1
            if last >= first:
                rows[n_rows, 0], rows[n_rows, 1], rows[n_rows, 2], rows[n_rows, 3] = h, k, first, n_reflections
                n_rows += 1
                n_reflections += last - first + 1
    rows[n_rows, 3] = n_reflections
    return rows[: n_rows + 1]


@njit(**FAST)
def _by_element(numbers, frac, occupancies, axes):
    """Distinct elements (G,), starts of their atoms (G + 1,), coordinates (3, P) and occupancies (P,), 0 = padding."""
    count = np.zeros(99, np.int64)
    for number in numbers:
        count[number] += 1
    elements = np.flatnonzero(count)
    starts = np.zeros(len(elements) + 1, np.int64)
    for e in range(len(elements)):
        starts[e + 1] = starts[e] + (count[elements[e]] + LANES - 1) // LANES * LANES
        count[elements[e]] = starts[e]
    places, weights = np.zeros((3, starts[-1])), np.zeros(starts[-1])
    for j in range(len(numbers)):
        p = count[numbers[j]]
        count[numbers[j]] += 1
        places[0, p], places[1, p], places[2, p] = frac[j, axes[0]], frac[j, axes[1]], frac[j, axes[2]]
        weights[p] = occupancies[j]
    return elements, starts, places, weights


@njit(**FAST)
def _multiply(a, b, sign, out):
    """out = a b, or a conj(b) where sign is -1; complex numbers as (2, P), real parts first."""
    # One output a loop: with more the compiler gives up proving that they do not overlap.
    for j in range(out.shape[1]):
        out[0, j] = a[0, j] * b[0, j] - sign * a[1, j] * b[1, j]
    for j in range(out.shape[1]):
        out[1, j] = a[1, j] * b[0, j] + sign * a[0, j] * b[1, j]


@njit(**FAST)
def _powers(x, order):
    """exp(2 pi i m x) for m = 0..order: (order + 1, 2, P)."""
    out = np.empty((order + 1, 2, len(x)))
    out[0, 0], out[0, 1] = 1.0, 0.0
    if order > 0:
        for j in range(len(x)):
            out[1, 0, j], out[1, 1, j] = np.cos(2 * np.pi * x[j]), np.sin(2 * np.pi * x[j])
    for m in range(2, order + 1):
        _multiply(out[m - 1], out[1], 1.0, out[m])
    return out


@njit(**FAST)
def _reflections(rows, metric, starts, places, weights):
    """|g|^2 (n,) of every reflection and sum_j occupancy_j exp(2 pi i hkl.x_j) for each element: (n, G, 2)."""
    aa, bb, cc, ab, ac, bc = metric
    n_rows, n_elements = len(rows) - 1, len(starts) - 1
    h_max, k_max, l_max = 0, 0, 1
    for r in range(n_rows):
        first, last = rows[r, 2], rows[r, 2] + rows[r + 1, 3] - rows[r, 3] - 1
        h_max, k_max = max(h_max, rows[r, 0]), max(k_max, abs(rows[r, 1]))
        l_max = max(l_max, (last - first + 1) // 2 + 1, abs((first + last) // 2))
    phase_h, phase_k, phase_l = _powers(places[0], h_max), _powers(places[1], k_max), _powers(places[2], l_max)
    for h in range(h_max + 1):
        phase_h[h, 0] *= weights
        phase_h[h, 1] *= weights
    g2, sums = np.empty(rows[-1, 3]), np.empty((rows[-1, 3], n_elements, 2))
    plane, centred = np.empty((2, len(weights))), np.empty((2, len(weights)))
    for r in range(n_rows):
        h, k, first, begin, end = rows[r, 0], rows[r, 1], rows[r, 2], rows[r, 3], rows[r + 1, 3]
        base = aa * h * h + bb * k * k + 2 * ab * h * k
        slope = 2 * (ac * h + bc * k)
        for i in range(begin, end):
            l = first + i - begin
            g2[i] = base + l * (slope + cc * l)
        # Summed over m = 0.. around the centre of the row, where l = centre + m and l = centre - m share products.
        centre = (2 * first + end - begin - 1) // 2
        middle = begin + centre - first
        up, down = end - 1 - middle, middle - begin
        _multiply(phase_h[h], phase_k[abs(k)], 1.0 if k >= 0 else -1.0, plane)
        _multiply(plane, phase_l[abs(centre)], 1.0 if centre >= 0 else -1.0, centred)
        for e in range(n_elements):
            # Unsigned: an index that could be negative would keep the loop over atoms from being vectorised.
            atoms = range(np.uint64(starts[e]), np.uint64(starts[e + 1]))
            for m in range(0, max(up, down) + 1, 2):
                rc, is_, rs, ic = 0.0, 0.0, 0.0, 0.0
                rc1, is1, rs1, ic1 = 0.0, 0.0, 0.0, 0.0
                for j in atoms:
                    re, im = centred[0, j], centred[1, j]
                    cos, sin = phase_l[m, 0, j], phase_l[m, 1, j]
                    cos1, sin1 = phase_l[m + 1, 0, j], phase_l[m + 1, 1, j]
                    rc += re * cos
                    is_ += im * sin
                    rs += re * sin
                    ic += im * cos
                    rc1 += re * cos1
                    is1 += im * sin1
                    rs1 += re * sin1
                    ic1 += im * cos1
                if m <= up:
                    sums[middle + m, e, 0], sums[middle + m, e, 1] = rc - is_, ic + rs
                if m <= down:
                    sums[middle - m, e, 0], sums[middle - m, e, 1] = rc + is_, ic - rs
                if m + 1 <= up:
                    sums[middle + m + 1, e, 0], sums[middle + m + 1, e, 1] = rc1 - is1, ic1 + rs1
                if m + 1 <= down:
                    sums[middle - m - 1, e, 0], sums[middle - m - 1, e, 1] = rc1 + is1, ic1 - rs1
    return g2, sums


@njit(**FAST)
def _by_length(g2, g2_max):
    """Indices of the reflections by increasing |g|^2, except within families."""
    n = len(g2)
    # The number of reflections grows as |g|^3: buckets of equal size in it hold one each on average.
    bucket, starts = np.empty(n, np.int32), np.zeros(n + 1, np.int32)
    for i in range(n):
        x = g2[i] / g2_max
        bucket[i] = min(int(x * np.sqrt(x) * n), n - 1)
        starts[bucket[i] + 1] += 1
    for b in range(n):
        starts[b + 1] += starts[b]
    order = np.empty(n, np.int32)
    for i in range(n):
        order[starts[bucket[i]]] = i
        starts[bucket[i]] += 1
    for i in range(1, n):  # insertion: within buckets only, because these are in order
        index = order[i]
        j = i - 1
        while j >= 0 and g2[order[j]] > g2[index] * SAME:
            order[j + 1] = order[j]
            j -= 1
        order[j + 1] = index
    return order


@njit(**FAST)
def _factors(elements, g2, table, thermal):
    """Scattering factors (u, G) at |g|^2 (u,), thermal motion included."""
    out = np.empty((len(g2), len(elements)))
    for e in range(len(elements)):
        b = thermal[elements[e]]
        for u in range(len(g2)):
            s2 = g2[u] / 4
            node = min(int(s2 / S2_STEP), table.shape[1] - 1)
            t = s2 / S2_STEP - node - 0.5
            c = table[elements[e], node]
            f = c[0] + t * (c[1] + t * (c[2] + t * (c[3] + t * (c[4] + t * (c[5] + t * (c[6] + t * c[7]))))))
            out[u, e] = f * np.exp(-b * s2) if b != 0 else f
    return out
