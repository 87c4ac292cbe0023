"""Scan: one theta-2theta scan of a diffractometer, and what every scan must satisfy whatever file it came from."""

import re
from dataclasses import dataclass, replace

import numpy as np

from xxlib.diffraction.wavelengths import ANODES, KA2_RATIO

MAX_POINTS = 1_000_000
MOST_INTENSE = 1e18  # of a detector; a float32 holds its square
WIDEST_STEP = 1.0  # degree; of a scan at most 0.2
MAX_SCANS = 5000  # of one file
MAX_BYTES = 50_000_000  # of a file, and of all that is unpacked from it
DAMAGED = "The file seems cut off or damaged: export or copy it again"

COUPLED = {"gonio", "coupled", "2thetatheta", "twothetatheta", "2thetaomega", "omega2theta", "thetatheta",
           "lockedcoupled", "unlockedcoupled", "coupledtwothetatheta", "twothetaomega", "theta2theta",
           "coupled2thetatheta", "omegatwotheta"}  # fmt: skip
DETECTOR_ONLY = {"2theta", "twotheta", "detector", "tth"}
NOT_POWDER = {"omega", "theta", "thetas", "phi", "chi", "psi", "khi", "x", "y", "z", "thetaomega", "psdfixed"}
MAPS = re.compile("rocking|reciprocalspace|polefigure|fixed$|^still$")


LEAST_WAVELENGTH, LARGEST_WAVELENGTH = 0.05, 3.0  # angstrom, of powder diffraction


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
    axis: str = "two_theta"  # what was recorded; of "q" and "d" the angles above are those at `wavelength`
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
    """Fields of a Scan for a tube: what the file says (None or 0 = does not), completed from the anode.

    Raises ScanError for wavelengths (angstrom) and ratios that no tube has.
    """
    anode = (anode or "").strip().capitalize()[:2] or None
    stated = [value for value in (ka1, ka2) if value]
    if not all(LEAST_WAVELENGTH < value < LARGEST_WAVELENGTH for value in stated):
        values = " and ".join(f"{value:g}" for value in stated)
        raise ScanError(f"the header states {values} angstrom, no wavelength of powder diffraction. Repair the header")
    if ratio is not None and not 0 <= ratio <= 1:
        raise ScanError(f"the header states {ratio:g} for the intensity of Kα2 over Kα1. Repair the header (0 to 1)")
    if not ka1:
        ka1, ka2, _ = ANODES.get(anode, (None, None, None))
    if not ka1:
        return {"anode": anode}
    if not ka2:
        return {"anode": anode, "ka1": ka1, "wavelength": ka1}
    ratio = KA2_RATIO if ratio is None else ratio
    return {"anode": anode, "ka1": ka1, "ka2": ka2, "ka2_ratio": ratio,
            "wavelength": (ka1 + ratio * ka2) / (1 + ratio)}  # fmt: skip


def axis_warnings(axis):
    """Warnings about a scan along an axis, by its name in the file; raises ScanError where it is no powder scan."""
    name = (axis or "").lower().replace("θ", "theta").replace("ω", "omega")
    name = re.sub(r"[^a-z0-9]", "", name).removesuffix("scan")
    if name in NOT_POWDER or MAPS.search(name):
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
    largest = np.abs(intensity).max()
    if largest > MOST_INTENSE or 0 < largest < 1 / MOST_INTENSE:
        raise ScanError(
            f"the largest intensity is {largest:.3g}, which no detector counts. Check which column was taken"
        )
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

    _check_steps(np.diff(angle))
    if (intensity < 0).any():
        negative = 100 * (intensity < 0).mean()
        warnings.append(f"{negative:.1f} % of the intensities are negative: was a background subtracted already?")
    if not (intensity > 0).any():
        raise ScanError(
            "no intensity is above zero: there is nothing to see. Check the shutter, and which column was taken"
        )
    if (intensity == intensity[0]).all():
        raise ScanError("all intensities are equal: there is nothing to see. Check which column was taken")
    anode = ANODES.get(scan.anode)
    if anode and scan.wavelength and abs(scan.wavelength / anode[2] - 1) > 0.01:
        warnings.append(
            f"The header names a {scan.anode} anode and states {scan.wavelength:.5g} angstrom, which is not its Kα: "
            "the wavelength was taken."
        )
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


def _check_steps(steps):
    """Raise ScanError for a list of peaks: the steps of a scan are small, and hardly change from point to point."""
    if len(steps) < 4:
        return
    low, middle, high = np.quantile(steps, [0.1, 0.5, 0.9])
    change = np.maximum(steps[1:], steps[:-1]) > 2.5 * np.minimum(steps[1:], steps[:-1])
    if middle > WIDEST_STEP or (high > 2.5 * low and change.mean() > 0.25):
        raise ScanError(
            f"the {len(steps) + 1} points lie {low:.3g} to {high:.3g} degree apart: a list of peaks, not a scan. "
            "Export the scan itself"
        )
