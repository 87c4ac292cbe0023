"""2θ, scattering vector q and lattice spacing d of one wavelength: q = 4 pi sin(theta) / wavelength = 2 pi / d."""

import numpy as np

AXES = ("two_theta", "q", "d")


def along(axis: str, two_theta: np.ndarray, wavelength: float) -> np.ndarray:
    """Values along an axis of AXES (degree, 1/angstrom, angstrom) of angles (n,) in degree; wavelength: angstrom."""
    if axis == "two_theta":
        return two_theta
    q = 4 * np.pi * np.sin(np.radians(two_theta / 2)) / wavelength
    if axis == "q":
        return q
    if axis == "d":
        return 2 * np.pi / q
    raise ValueError(f"there is no axis {axis!r}: choose among {', '.join(AXES)}")


def two_theta_of(axis: str, values: np.ndarray, wavelength: float) -> np.ndarray:
    """Angles (n,) in degree of values along an axis, the inverse of `along`; NaN beyond the reach of the wavelength."""
    if axis == "two_theta":
        return values
    if axis not in AXES:
        raise ValueError(f"there is no axis {axis!r}: choose among {', '.join(AXES)}")
    with np.errstate(divide="ignore", invalid="ignore"):
        sine = wavelength / (2 * values) if axis == "d" else wavelength * values / (4 * np.pi)
        return 2 * np.degrees(np.arcsin(sine))
