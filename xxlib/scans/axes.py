"""A scan along the scattering vector q or the lattice spacing d -> a Scan along 2θ."""

import re

import numpy as np

from xxlib.diffraction.axes import two_theta_of
from xxlib.diffraction.wavelengths import CU_KA
from xxlib.scans.scan import Scan, ScanError

NAMES = {"q": "the scattering vector Q", "d": "the lattice spacing d"}
UNITS = {"q": "1/angstrom", "d": "angstrom"}
# Without a unit: a laboratory's q ends at 1.5 to 8 1/angstrom or 15 to 80 1/nm.
SURELY_ANGSTROM, SURELY_NM = 12.0, 30.0


def scan_along(axis: str, values, intensity, wavelength: float | None = None, **fields) -> Scan:
    """The Scan of intensities (n,) along q (1/angstrom) or d (angstrom); fields: what else is known of a Scan.

    Lines of q and d stand where they do whatever the wavelength (angstrom).  Where it is not known, Cu K-alpha is taken
    for what it does to the intensities, and a warning says so.
    Raises ScanError where the wavelength reaches none of these values, or, known, not all of them.
    """
    values, intensity = np.asarray(values, np.float64), np.asarray(intensity, np.float64)
    if axis == "d" and not (values > 0).all():
        raise ScanError(f"{NAMES[axis]} is not above zero everywhere. Check which column was taken")
    warnings, taken = list(fields.pop("warnings", ())), wavelength or CU_KA
    two_theta = two_theta_of(axis, values, taken)
    reached = np.isfinite(two_theta)
    if not reached.any() or (wavelength and not reached.all()):
        beyond = values[~reached]
        raise ScanError(
            f"{taken:.5g} angstrom does not reach {NAMES[axis]} of {beyond.min():.4g} to {beyond.max():.4g} "
            f"{UNITS[axis]}. Check its unit, and the wavelength"
        )
    if not wavelength:
        warnings.append(
            f"The scan is along {NAMES[axis]} and its wavelength is not stated: Cu Kα was taken for the intensities."
        )
    if not reached.all():
        warnings.append(
            f"{(~reached).sum()} of {len(values)} points are beyond what Cu Kα reaches: they were left out."
        )
    order = np.argsort(two_theta[reached], kind="stable") if axis == "d" else slice(None)
    return Scan(
        two_theta=two_theta[reached][order], intensity=intensity[reached][order], wavelength=taken, axis=axis,
        warnings=tuple(warnings), **fields,
    )  # fmt: skip


def in_angstrom(axis, values, label):
    """Values (n,) in UNITS, by the unit that the label of the column states, and warnings where it states none."""
    if re.search(r"nm|nano", label, re.IGNORECASE):
        return (values / 10 if axis == "q" else values * 10), []
    if re.search(r"å|(\b|_|/)a(\b|_)|ang", label, re.IGNORECASE):
        return values, []
    largest = np.abs(values).max(initial=0)
    if axis == "d" or largest <= SURELY_ANGSTROM:
        return values, [f"The unit of {NAMES[axis]} is not stated: {UNITS[axis]} was taken."]
    if largest >= SURELY_NM:
        return values / 10, [f"The unit of {NAMES[axis]} is not stated: 1/nm was taken."]
    raise ScanError(
        f"the first column is {NAMES[axis]} up to {largest:.3g}, without a unit. Name the column Q_A^-1 or Q_nm^-1"
    )
