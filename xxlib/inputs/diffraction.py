"""Sticks: the powder diffraction lines of crystals, as pymatgen 2024.11.13's XRDCalculator defines them.

    intensity(hkl) = |sum_j occupancy_j f_j(s^2) exp(2 pi i hkl.x_j)|^2 * LP(theta),  s = 1 / (2 d)
    f(s^2)         = (Z - 41.78214 s^2 sum_i a_i exp(-b_i s^2)) exp(-B s^2)          (De Graef & McHenry, ch. 12)
    LP(theta)      = (1 + cos^2 2 theta) / (sin^2 theta cos theta)

Lines closer than 1e-5 degree to the first of their group are one line; lines below 1e-3 of 100 are left out.

How the kernel does it: half of reciprocal space, a row of l at a time (F(-h) is the conjugate of F(h)); the sums over
the atoms of each element from tables of exp(2 pi i m x); a bucket sort by |g|^3, evenly spread there; then scattering
factors, angles and LP once for each distinct |g|.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from math import factorial

import numpy as np
from numba import njit, prange

from xxlib.inputs.crystals import RejectedCrystal

# Anode: K-alpha1, K-alpha2 and their weighted mean in angstrom, as pymatgen has them.
ANODES = {
    "Cu": (1.54056, 1.54439, 1.54184),
    "Mo": (0.70930, 0.71359, 0.71073),
    "Co": (1.78896, 1.79285, 1.79026),
    "Cr": (2.28970, 2.29361, 2.29100),
    "Fe": (1.93604, 1.93998, 1.93735),
    "Ag": (0.559421, 0.563813, 0.560885),
}
CU_KA = ANODES["Cu"][2]
STORED_RANGE = (4.0, 91.0)  # degree: one more than the pattern on either side, so that a shift leaves no hole
PATTERN_RANGE = (5.0, 90.0)  # degree: what the paper's patterns show

MERGE_TOLERANCE = 1e-5  # degree
SMALLEST_INTENSITY = 1e-3  # of 100
SAME = 1 + 1e-13  # |g|^2 of the reflections of one family differ by rounding only
S2_STEP, TAYLOR_TERMS = 1 / 600, 8  # of the scattering-factor table, per angstrom^2: good to 1e-11 of f
LANES = 4  # doubles in a vector register: the atoms of an element are padded to a multiple of it

FAST = {"cache": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}


@dataclass(frozen=True, eq=False)
class Sticks:
    """The lines of one crystal, by increasing angle."""

    two_theta: np.ndarray  # (p,) float64, degree
    intensity: np.ndarray  # (p,) float64, strongest = 100
    hkl: np.ndarray  # (p, 3) int16, one reflection of each line; (0, 3) where it was not asked for


@dataclass(frozen=True, eq=False)
class PackedCrystals:
    """Many crystals, laid end to end; crystal c owns the atoms offsets[c]:offsets[c + 1]."""

    lattices: np.ndarray  # (n, 3, 3) float64, angstrom
    atomic_numbers: np.ndarray  # (N,) int64
    frac_coords: np.ndarray  # (N, 3) float64
    occupancies: np.ndarray  # (N,) float64
    offsets: np.ndarray  # (n + 1,) int64


@dataclass(frozen=True, eq=False)
class PackedSticks:
    """The sticks of many crystals, laid end to end; crystal c owns offsets[c]:offsets[c + 1], which may be empty."""

    two_theta: np.ndarray  # (p,) float64, degree, increasing within a crystal
    intensity: np.ndarray  # (p,) float64, strongest of each crystal = 100
    hkl: np.ndarray  # (p, 3) int16, one reflection of each line; (0, 3) where it was not asked for
    offsets: np.ndarray  # (n + 1,) int64
    strongest: np.ndarray  # (n,) float64, what 100 stands for, in the formula's units

    def __getitem__(self, c):
        """Sticks of crystal c; raises RejectedCrystal where it has no line."""
        lines = slice(self.offsets[c], self.offsets[c + 1])
        if lines.start == lines.stop:
            raise RejectedCrystal("no diffraction line within the range of angles")
        return Sticks(self.two_theta[lines], self.intensity[lines], self.hkl[lines])


def pack(crystals):
    """PackedCrystals of Crystal objects."""
    n_atoms = [len(crystal.atomic_numbers) for crystal in crystals]
    return PackedCrystals(
        np.array([crystal.lattice for crystal in crystals], np.float64).reshape(-1, 3, 3),
        np.concatenate([crystal.atomic_numbers for crystal in crystals] or [np.zeros(0, np.int64)]),
        np.concatenate([crystal.frac_coords for crystal in crystals] or [np.zeros((0, 3))]),
        np.concatenate([crystal.occupancies for crystal in crystals] or [np.zeros(0)]),
        np.cumsum([0, *n_atoms]),
    )


def sticks(crystal, wavelength=CU_KA, two_theta_range=STORED_RANGE, debye_waller=None):
    """Diffraction lines of one Crystal; arguments as in sticks_of.

    Raises RejectedCrystal where no line falls into the range.
    """
    return sticks_of(pack([crystal]), wavelength, two_theta_range, hkl=True, debye_waller=debye_waller)[0]


def sticks_of(packed, wavelength=CU_KA, two_theta_range=STORED_RANGE, *, hkl=False, debye_waller=None, parallel=False):
    """PackedSticks of PackedCrystals.

    wavelength: angstrom, or a name: "CuKa" (the weighted mean), "CuKa1", "CuKa2", "CuKa12" (the doublet, 2 to 1), and
    so for Mo, Co, Cr, Fe, Ag.  two_theta_range: degree.  hkl: also give one reflection of each line.
    debye_waller: atomic number -> B in angstrom^2; 0 where an element is missing.
    parallel: use every core (numba's threads); False in a process that has siblings.
    """
    low, high = map(float, two_theta_range)  # numba would compile once more for integers
    thermal = np.zeros(99)
    for number, b in (debye_waller or {}).items():
        thermal[number] = b
    run = _of_all_in_parallel if parallel else _of_all
    crystals = (packed.lattices, packed.atomic_numbers, packed.frac_coords, packed.occupancies, packed.offsets)
    parts = []
    for angstrom, weight in emission_lines(wavelength):
        table = scattering_factors(int(np.sin(np.radians(high / 2)) ** 2 / angstrom**2 / S2_STEP) + 1)
        parts.append((weight, PackedSticks(*run(*crystals, table, thermal, angstrom, low, high, hkl))))
    return parts[0][1] if len(parts) == 1 else _added(parts)


def emission_lines(wavelength):
    """((angstrom, weight), ...) of a wavelength in angstrom or by name, as in sticks_of; raises ValueError."""
    if not isinstance(wavelength, str):
        return ((float(wavelength), 1.0),)
    anode, line = wavelength[:2], wavelength[2:]
    if anode in ANODES and line in ("Ka", "Ka1", "Ka2", "Ka12"):
        first, second, mean = ANODES[anode]
        return {
            "Ka": ((mean, 1.0),),
            "Ka1": ((first, 1.0),),
            "Ka2": ((second, 1.0),),
            "Ka12": ((first, 2 / 3), (second, 1 / 3)),
        }[line]
    raise ValueError(
        f"no wavelength {wavelength!r}: give angstrom, or {', '.join(ANODES)} followed by Ka, Ka1, Ka2, Ka12"
    )


def _added(parts):
    """PackedSticks of several (weight, PackedSticks) of the same crystals, brought to one scale."""
    n = len(parts[0][1].strongest)
    scale = [weight * lines.strongest for weight, lines in parts]
    owner = np.concatenate([np.repeat(np.arange(n), np.diff(lines.offsets)) for _, lines in parts])
    two_theta = np.concatenate([lines.two_theta for _, lines in parts])
    intensity = np.concatenate(
        [lines.intensity * np.repeat(s, np.diff(lines.offsets)) for s, (_, lines) in zip(scale, parts)]
    )
    order = np.lexsort((two_theta, owner))
    offsets = np.searchsorted(owner[order], np.arange(n + 1))
    strongest = np.zeros(n)
    np.maximum.at(strongest, owner, intensity)
    intensity *= 100 / strongest[owner]
    hkl = np.concatenate([lines.hkl for _, lines in parts])
    return PackedSticks(two_theta[order], intensity[order], hkl[order] if len(hkl) else hkl, offsets, strongest / 100)


@lru_cache(maxsize=8)
def scattering_factors(n_steps):
    """Taylor coefficients of f(s^2) for Z = 0-98 about the middle of each step of s^2: (99, n_steps, TAYLOR_TERMS).

    The variable of the polynomial is (s^2 - middle) / S2_STEP.
    """
    from pymatgen.core import Element

    # The table of pymatgen.analysis.diffraction.xrd, whose import takes seconds: in every worker process.
    file = files("pymatgen.analysis.diffraction") / "atomic_scattering_params.json"
    s2 = S2_STEP * (np.arange(n_steps) + 0.5)
    table = np.zeros((99, n_steps, TAYLOR_TERMS))
    for symbol, coefficients in json.loads(file.read_text()).items():
        z = Element(symbol).Z
        if symbol in ("D", "T") or z > 98:
            continue
        a, b = np.array(coefficients).T[:, :, None]
        for n in range(TAYLOR_TERMS):
            # n-th derivative of s^2 exp(-b s^2)
            derivative = ((-b) ** n * s2 + (n * (-b) ** (n - 1) if n else 0)) * np.exp(-b * s2)
            table[z, :, n] = -41.78214 * (a * derivative).sum(0) * S2_STEP**n / factorial(n)
        table[z, :, 0] += z
    return table


@njit(**FAST)
def _of_all(lattices, numbers, frac, occupancies, offsets, table, thermal, wavelength, low, high, with_hkl):
    space = _space(lattices, wavelength, high)
    out = _outputs(space, with_hkl)
    for c in range(len(lattices)):
        atoms, lines = slice(offsets[c], offsets[c + 1]), slice(space[c], space[c + 1])
        out[3][c + 1], out[4][c] = _of_one(
            lattices[c], numbers[atoms], frac[atoms], occupancies[atoms], table, thermal, wavelength, low, high,
            with_hkl, out[0][lines], out[1][lines], out[2][lines],
        )  # fmt: skip
    return _compact(space, out, with_hkl)


@njit(parallel=True, **FAST)
def _of_all_in_parallel(lattices, numbers, frac, occupancies, offsets, table, thermal, wavelength, low, high, with_hkl):
    space = _space(lattices, wavelength, high)
    out = _outputs(space, with_hkl)
    # Every n_blocks-th crystal by size: each thread gets its share of the large ones.
    by_size = np.argsort(np.diff(space) * np.diff(offsets))
    n_blocks = min(len(lattices), 256)
    for block in prange(n_blocks):
        for c in by_size[block::n_blocks]:
            atoms, lines = slice(offsets[c], offsets[c + 1]), slice(space[c], space[c + 1])
            out[3][c + 1], out[4][c] = _of_one(
                lattices[c], numbers[atoms], frac[atoms], occupancies[atoms], table, thermal, wavelength, low, high,
                with_hkl, out[0][lines], out[1][lines], out[2][lines],
            )  # fmt: skip
    return _compact(space, out, with_hkl)


@njit(**FAST)
def _space(lattices, wavelength, high):
    """Offsets (n + 1,) of as many lines as each crystal has reflections in half of reciprocal space."""
    space = np.zeros(len(lattices) + 1, np.int64)
    for c in range(len(lattices)):
        _, lengths, metric = _cell(lattices[c])
        g_max = 2 * np.sin(np.radians(high / 2)) / wavelength
        space[c + 1] = space[c] + _rows(lengths, metric, g_max)[-1, 3]
    return space


@njit(**FAST)
def _outputs(space, with_hkl):
    """Room for two_theta, intensity, hkl, offsets of the kept lines, strongest intensity."""
    n_lines, n = space[-1], len(space) - 1
    hkl = np.empty((n_lines if with_hkl else 0, 3), np.int16)
    return np.empty(n_lines), np.empty(n_lines), hkl, np.zeros(n + 1, np.int64), np.zeros(n)


@njit(**FAST)
def _compact(space, out, with_hkl):
    """The lines that were kept, without the gaps between crystals."""
    offsets = np.cumsum(out[3])
    two_theta, intensity = np.empty(offsets[-1]), np.empty(offsets[-1])
    hkl = np.empty((offsets[-1] if with_hkl else 0, 3), np.int16)
    for c in range(len(space) - 1):
        n = offsets[c + 1] - offsets[c]
        two_theta[offsets[c] : offsets[c + 1]] = out[0][space[c] : space[c] + n]
        intensity[offsets[c] : offsets[c + 1]] = out[1][space[c] : space[c] + n]
        if with_hkl:
            hkl[offsets[c] : offsets[c + 1]] = out[2][space[c] : space[c] + n]
    return two_theta, intensity, hkl, offsets, out[4]


@njit(**FAST)
def _of_one(
    lattice, numbers, frac, occupancies, table, thermal, wavelength, low, high, with_hkl, two_theta, intensity, hkl
):
    """Writes the lines of one crystal to the start of two_theta, intensity, hkl; returns (number, what 100 is)."""
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
                    cos, sin, cos1, sin1 = (
                        phase_l[m, 0, j],
                        phase_l[m, 1, j],
                        phase_l[m + 1, 0, j],
                        phase_l[m + 1, 1, j],
                    )
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
