"""Sticks: the powder diffraction lines of crystals, as pymatgen 2024.11.13's XRDCalculator defines them.

    intensity(hkl) = |sum_j occupancy_j f_j(s^2) exp(2 pi i hkl.x_j)|^2 * LP(theta),  s = 1 / (2 d)
    f(s^2)         = (Z - 41.78214 s^2 sum_i a_i exp(-b_i s^2)) exp(-B s^2)          (De Graef & McHenry, ch. 12)
    LP(theta)      = (1 + cos^2 2 theta) / (sin^2 theta cos theta)

Lines closer than 1e-5 degree to the first of their group are one line; lines below 1e-3 of 100 are left out.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from math import factorial

import numpy as np

from xxlib.crystals.crystal import MAX_ELEMENT, RejectedCrystal
from xxlib.crystals.elements import ATOMIC_NUMBERS
from xxlib.diffraction.kernel import S2_STEP, TAYLOR_TERMS, of_all
from xxlib.diffraction.wavelengths import CU_KA, emission_lines

STORED_RANGE = (4.0, 91.0)  # degree: one more than the pattern on either side, so that a shift leaves no hole
PATTERN_RANGE = (5.0, 90.0)  # degree: what the paper's patterns show


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


def sticks_of(packed, wavelength=CU_KA, two_theta_range=STORED_RANGE, *, hkl=False, debye_waller=None):
    """PackedSticks of PackedCrystals; threads that share many crystals run side by side.

    wavelength: angstrom or a name, as wavelengths.emission_lines takes it.  two_theta_range: degree.
    hkl: also give one reflection of each line.
    debye_waller: atomic number -> B in angstrom^2; 0 where an element is missing.
    """
    low, high = map(float, two_theta_range)  # numba would compile once more for integers
    thermal = np.zeros(99)
    for number, b in (debye_waller or {}).items():
        thermal[number] = b
    crystals = (packed.lattices, packed.atomic_numbers, packed.frac_coords, packed.occupancies, packed.offsets)
    parts = []
    for angstrom, weight in emission_lines(wavelength):
        table = scattering_factors(int(np.sin(np.radians(high / 2)) ** 2 / angstrom**2 / S2_STEP) + 1)
        parts.append((weight, PackedSticks(*of_all(crystals, (table, thermal, angstrom, low, high, hkl)))))
    return parts[0][1] if len(parts) == 1 else _added(parts)


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
    # The table of pymatgen.analysis.diffraction.xrd, whose import takes seconds: in every worker process.
    file = files("pymatgen.analysis.diffraction") / "atomic_scattering_params.json"
    s2 = S2_STEP * (np.arange(n_steps) + 0.5)
    table = np.zeros((99, n_steps, TAYLOR_TERMS))
    for symbol, coefficients in json.loads(file.read_text()).items():
        z = ATOMIC_NUMBERS.get(symbol)
        if z is None or z > MAX_ELEMENT:  # isotopes among them
            continue
        a, b = np.array(coefficients).T[:, :, None]
        for n in range(TAYLOR_TERMS):
            # n-th derivative of s^2 exp(-b s^2)
            derivative = ((-b) ** n * s2 + (n * (-b) ** (n - 1) if n else 0)) * np.exp(-b * s2)
            table[z, :, n] = -41.78214 * (a * derivative).sum(0) * S2_STEP**n / factorial(n)
        table[z, :, 0] += z
    return table
