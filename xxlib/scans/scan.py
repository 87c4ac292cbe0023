"""Scan: one theta-2theta scan of a diffractometer, and what every scan must satisfy whatever file it came from."""

import re
from dataclasses import dataclass, replace

import numpy as np

from xxlib.diffraction.wavelengths import ANODES, KA2_RATIO

MAX_POINTS = 1_000_000
DAMAGED = "The file seems cut off or damaged: export or copy it again"

COUPLED = {"gonio", "coupled", "2thetatheta", "twothetatheta", "2thetaomega", "omega2theta", "thetatheta",
           "lockedcoupled", "unlockedcoupled", "coupledtwothetatheta", "twothetaomega", "theta2theta"}  # fmt: skip
DETECTOR_ONLY = {"2theta", "twotheta", "detector", "tth"}
NOT_POWDER = {"omega", "theta", "thetas", "phi", "chi", "psi", "khi", "x", "y", "z", "rockingcurve", "rocking",
              "thetaomega", "reciprocalspacemap", "psdfixed"}  # fmt: skip


class ScanError(ValueError):
    """The file is no powder pattern that can be used; the message says why and what to do."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scan:
    """One scan as the diffractometer recorded it."""

    two_theta: np.ndarray  # (n,) float64, degree, increasing
    intensity: np.ndarray  # (n,) float64, as recorded
    unit: str = "counts"  # or "counts per second"
    format: str = "columns"  # what kind of file it was
    wavelength: float | None = None  # angstrom; of a K-alpha doublet the mean, weighted by intensity
    ka1: float | None = None  # angstrom
    ka2: float | None = None  # angstrom
    ka2_ratio: float | None = None  # intensity of K-alpha2 over K-alpha1
    anode: str | None = None
    radiation: str = "x-ray"  # or "neutron"
    scan_axis: str | None = None
    time_per_step: float | np.ndarray | None = None  # second; (n,) where it varies
    sample: str = ""
    warnings: tuple[str, ...] = ()  # plain sentences

    @property
    def step(self):
        """Median distance between two points, degree."""
        return float(np.median(np.diff(self.two_theta)))

    def __str__(self):
        first, last = self.two_theta[[0, -1]]
        wavelength = f"{self.wavelength:.5g} angstrom" if self.wavelength else "wavelength not stated"
        return f"{first:.2f}-{last:.2f} degree, {len(self.two_theta)} points, {wavelength} ({self.format})"


def source(anode=None, ka1=None, ka2=None, ratio=None):
    """Fields of a Scan for a tube: what the file says (None or 0 = does not), completed from the anode."""
    anode = (anode or "").strip().capitalize()[:2] or None
    if not ka1:
        ka1, ka2, _ = ANODES.get(anode, (None, None, None))
    if not ka1:
        return {"anode": anode}
    if not ka2:
        return {"anode": anode, "ka1": ka1, "wavelength": ka1}
    ratio = KA2_RATIO if ratio is None else ratio
    return {"anode": anode, "ka1": ka1, "ka2": ka2, "ka2_ratio": ratio,
            "wavelength": (ka1 + ratio * ka2) / (1 + ratio)}  # fmt: skip


def even_steps(start, step, n):
    """Angles (n,) of a scan in even steps."""
    if not 0 < n <= MAX_POINTS:
        raise ScanError(f"the header promises {n} points. {DAMAGED}")
    if not (np.isfinite(start) and np.isfinite(step) and 1e-6 < abs(step) < 180):
        raise ScanError(f"the header says start {start:g}, step {step:g} degree. {DAMAGED}")
    return start + step * np.arange(n)


def check_count(n, promised):
    """Raise ScanError where a file holds fewer intensities than its header promises."""
    if n < promised:
        raise ScanError(f"the header promises {promised} points, the file holds {n}. {DAMAGED}")


def axis_warnings(axis):
    """Warnings about a scan along an axis, by its name in the file; raises ScanError where it is no powder scan."""
    name = re.sub(r"[^a-z0-9]", "", (axis or "").lower()).removesuffix("scan")
    if name in NOT_POWDER:
        raise ScanError(
            f"this is a scan of {axis} (a rocking curve or a map), not a θ-2θ powder scan. Export the θ-2θ scan"
        )
    if name in DETECTOR_ONLY:
        return (f"The detector alone moved (axis {axis}, grazing incidence?): relative intensities differ from θ-2θ.",)
    if name and name not in COUPLED:
        return (f"The scan axis is called {axis!r}: taken as θ-2θ.",)
    return ()


def checked(scan):
    """The same Scan with increasing, distinct angles; raises ScanError where it is no usable pattern."""
    angle, intensity = (np.asarray(values, np.float64) for values in (scan.two_theta, scan.intensity))
    time, warnings = scan.time_per_step, [*scan.warnings, *axis_warnings(scan.scan_axis)]
    if len(angle) != len(intensity):
        raise ScanError(f"{len(angle)} angles but {len(intensity)} intensities. {DAMAGED}")
    if len(angle) < 2:
        raise ScanError(f"the file holds {len(angle)} point(s), a scan needs more. Export the whole scan")
    if len(angle) > MAX_POINTS:
        raise ScanError(f"{len(angle)} points are more than a scan has (limit {MAX_POINTS}). Export one scan only")
    for values, name in ((angle, "angle"), (intensity, "intensity")):
        if not np.isfinite(values).all():
            at = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ScanError(f"the {name} of point {at + 1} is no finite number. Remove or repair this point")
    if isinstance(time, np.ndarray) and (len(time) != len(angle) or not (time > 0).all()):
        raise ScanError(f"the counting times are not {len(angle)} numbers above zero. {DAMAGED}")
    _check_angles(angle)

    if (np.diff(angle) <= 0).any():
        if (np.diff(angle) < 0).all():
            warnings.append("The scan ran from high to low angles: it was turned round.")
        elif (np.diff(angle) < 0).any():
            warnings.append("The angles were not in increasing order: they were sorted.")
        order = np.argsort(angle, kind="stable")
        angle, intensity = angle[order], intensity[order]
        time = time[order] if isinstance(time, np.ndarray) else time
        angle, place, n = np.unique(angle, return_inverse=True, return_counts=True)
        if len(angle) < len(place):
            if len(angle) < max(2, len(place) / 2):
                raise ScanError(
                    f"{len(place)} points have only {len(angle)} different angles. Is the first column really 2θ? "
                    "If the file has decimal commas, let another character separate the columns"
                )
            warnings.append(f"{len(place) - len(angle)} points repeat an angle: their intensities were averaged.")
            intensity = np.bincount(place, intensity) / n
            time = np.bincount(place, time) / n if isinstance(time, np.ndarray) else time

    if (intensity < 0).any():
        negative = 100 * (intensity < 0).mean()
        warnings.append(f"{negative:.1f} % of the intensities are negative: was a background subtracted already?")
    if not (intensity > 0).any():
        raise ScanError(
            "no intensity is above zero: there is nothing to see. Check the shutter, and which column was taken"
        )
    if (intensity == intensity[0]).all():
        raise ScanError("all intensities are equal: there is nothing to see. Check which column was taken")
    if scan.radiation == "neutron":
        warnings.append("This is a neutron pattern: its intensities are not those of X-rays.")
    return replace(scan, two_theta=angle, intensity=intensity, time_per_step=time, warnings=tuple(warnings))


def _check_angles(angle):
    low, high = angle.min(), angle.max()
    if high > 180 or low < -180:
        raise ScanError(
            f"2θ runs from {low:g} to {high:g}, more than 180 degree. Is the first column really 2θ in degree "
            "(not channels, energies or intensities)?"
        )
    if high <= np.pi and len(angle) >= 50:
        raise ScanError(
            f"2θ runs from {low:.3g} to {high:.3g}: is it in radian? Convert the angles to degree "
            "(or name the column 2theta_rad)"
        )
