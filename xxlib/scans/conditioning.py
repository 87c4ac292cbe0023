"""A Scan -> pattern on the grid, as the models know patterns: Cu K-alpha, 5-90 degree, no background, maximum 100.

    angle         zero shift and sample displacement are taken back
    wavelength    sin(theta) scales with it, as the lattice spacing d stays; intensities scale with the
                  Lorentz-polarisation factor
    grid          the mean over each grid interval, so that areas of peaks stay what they are
    background    subtracted
    K-alpha2      stripped (Rachinger 1948), where asked for

What a scan does not cover is zero, and said: `covered`, `tokens_outside`.
"""

from dataclasses import dataclass
from pathlib import Path
from warnings import catch_warnings, simplefilter

import numpy as np

from xxlib.diffraction.axes import along, two_theta_of
from xxlib.diffraction.patterns import N_POINTS, STEP, TWO_THETA, render_one, restrict, tokens_outside
from xxlib.diffraction.scattering import Sticks
from xxlib.diffraction.wavelengths import ANODES, CU_KA, KA2_RATIO
from xxlib.scans.scan import LARGEST_WAVELENGTH, LEAST_WAVELENGTH, Scan, ScanError, source

LEAST_RANGE = 5.0  # degree on the grid, one token: with less there is nothing to say
LEAST_ANGLE = 0.01  # degree: below is the direct beam, where the correction has no limit
COARSE_STEP = 0.1  # degree: sigma of the simulated peaks
SAME_WAVELENGTH = 0.005  # relative: K-alpha1 and the mean of the doublet differ by 0.001
GAP = 1.0  # degree on the grid: points farther apart than this are the ends of two measured ranges
FEATURELESS = "No peak stands clearly out of the noise: is the sample amorphous, the scan too short?"
BACKGROUND_STIFFNESS = 1e6  # lambda of the Whittaker smoother on the grid, step 0.02 degree


@dataclass(frozen=True, eq=False, kw_only=True)
class Conditioned:
    """A pattern on the grid, and the steps that led to it."""

    pattern: np.ndarray  # (4250,) float32, maximum 100, zero outside `covered`
    covered: tuple[float, float]  # degree on the grid, first and last measured point
    tokens_outside: np.ndarray  # (17,) bool, True = nothing of this token was measured
    wavelength: float  # angstrom, what the scan was taken to be measured with
    two_theta: np.ndarray  # (n,) degree, as measured, zero shift and displacement taken back
    intensity: np.ndarray  # (n,) as measured, in `unit`
    unit: str  # "counts", or "counts per second", also where the counting time varied
    resampled: np.ndarray  # (4250,) on the grid, NaN outside `covered`
    background: np.ndarray  # (4250,) NaN outside `covered`
    warnings: tuple[str, ...]  # plain sentences, those of the Scan first
    axis: str = "two_theta"  # of the scan: along q or d its lines stand where they do, whatever the wavelength

    def save_xy(self, path: str | Path) -> None:
        """Write the pattern, as far as it was measured, as two columns that read_scan and other programs read."""
        first, last = self.covered
        inside = (first <= TWO_THETA) & (last >= TWO_THETA)
        head = f"# no background, maximum 100\n# wavelength = {CU_KA} angstrom (Cu Kalpha)\n# 2theta_deg intensity\n"
        rows = "".join(f"{x:.2f} {y:.4f}\n" for x, y in zip(TWO_THETA[inside], self.pattern[inside]))
        Path(path).write_text(head + rows)


def condition(
    scan: Scan,
    wavelength: float | str | None = None,
    *,
    background: bool = True,
    strip_ka2: bool = False,
    zero_shift: float = 0.0,
    displacement: float = 0.0,
    radius: float | None = None,
) -> Conditioned:
    """Conditioned pattern of a Scan.

    wavelength: angstrom, or the name of an anode ("Mo"), where the file does not state it or is wrong.
    background: False where it was subtracted already.
    strip_ka2: remove the K-alpha2 peaks (off by default: see below).
    zero_shift: degree that the instrument adds to 2 theta.
    displacement, radius: mm by which the sample lies below the axis, mm from it to the detector; lines then appear at
    2 theta - 2 (displacement / radius) cos(theta).
    Raises ScanError where the scan covers less than 5 degree of the grid or holds no X-ray intensity.

    Polarisation is that of an unpolarised beam without monochromator.  strip_ka2 is off because it helps only where
    lines are nearly as wide as the simulated ones: against patterns of sigma 0.1 the mean error of doublet patterns
    (25 crystals, 0-100) is 0.98 as they are and 1.19 stripped where the instrument's sigma is 0.03 degree, 0.50 and
    0.57 at 0.05, 0.44 and 0.21 at 0.08.  At equal widths it always helps (0.3-0.6 becomes 0.01-0.04).
    """
    if scan.radiation != "x-ray":
        raise ScanError(f"this is a {scan.radiation} pattern: the models know X-ray intensities only")
    warnings = list(scan.warnings)
    taken = _wavelength(scan, wavelength, warnings)
    if strip_ka2:
        ka1, ka2, ratio = _doublet(scan, taken)
        taken = ka1
    if scan.step > COARSE_STEP:
        warnings.append(
            f"The step of {scan.step:.3g} degree is coarser than {COARSE_STEP} degree: peaks are poorly seen."
        )

    intensity, unit = scan.intensity, scan.unit
    if isinstance(scan.time_per_step, np.ndarray) and scan.unit == "counts":
        intensity, unit = intensity / scan.time_per_step, "counts per second"
    two_theta = scan.two_theta
    if scan.axis != "two_theta":  # its lines stand where they do: another wavelength changes their angles
        two_theta = two_theta_of("q", along("q", two_theta, scan.wavelength), taken)
        two_theta, intensity = two_theta[np.isfinite(two_theta)], intensity[np.isfinite(two_theta)]
    two_theta = _true_angles(two_theta, zero_shift, displacement, radius)
    angle, scaled = to_cu(two_theta, intensity, taken)
    resampled = resample(angle, scaled)
    measured = np.flatnonzero(np.isfinite(resampled))
    if len(measured) < LEAST_RANGE / STEP:
        raise ScanError(
            f"measured with {taken:.5g} angstrom from {two_theta[0]:.4g} to {two_theta[-1]:.4g} degree, the scan "
            f"covers {len(measured) * STEP:.2g} of the 85 degree between 5 and 90 that the models know (Cu Kα). "
            "Measure a wider range, or check the wavelength"
        )
    covered = float(TWO_THETA[measured[0]]), float(TWO_THETA[measured[-1]])
    for k in np.flatnonzero(np.diff(measured) > 1):
        left, right = TWO_THETA[measured[[k, k + 1]]]
        warnings.append(f"Between {left:.4g} and {right:.4g} degree (Cu Kα) nothing was measured: the pattern is zero.")

    below = np.where(np.isfinite(resampled), 0.0, np.nan)
    if background:
        below[measured] = background_of(resampled[measured])
    net = np.nan_to_num(resampled - below)
    _say_if_featureless(net[measured], warnings)
    if strip_ka2:
        net = without_ka2(net, ka1, ka2, ratio)
    if not (net > 0).any():
        raise ScanError(
            "nothing stands above the background between 5 and 90 degree (Cu Kα). Was the right scan taken?"
        )
    pattern, _ = restrict(np.maximum(net, 0).astype(np.float32), *covered)
    outside = tokens_outside(np.isfinite(resampled))
    return Conditioned(
        pattern=pattern, covered=covered, tokens_outside=outside, wavelength=taken, two_theta=two_theta,
        intensity=intensity, unit=unit, resampled=resampled, background=below, warnings=tuple(warnings), axis=scan.axis,
    )  # fmt: skip


def to_cu(two_theta: np.ndarray, intensity: np.ndarray, wavelength: float) -> tuple[np.ndarray, np.ndarray]:
    """Angles (degree) and intensities as Cu K-alpha would have given them; what it cannot reach is left out.

    Intensity is per degree: besides the Lorentz-polarisation factor it changes as the distance of two points does.
    """
    seen = (two_theta > LEAST_ANGLE) & (np.sin(np.radians(two_theta / 2)) * CU_KA / wavelength < 1) & (two_theta < 180)
    old = np.radians(two_theta[seen] / 2)
    new = np.arcsin(np.sin(old) * CU_KA / wavelength)
    stretch = CU_KA / wavelength * np.cos(old) / np.cos(new)  # d(new) / d(old)
    return 2 * np.degrees(new), intensity[seen] * lorentz_polarisation(new) / lorentz_polarisation(old) / stretch


def lorentz_polarisation(theta: np.ndarray) -> np.ndarray:
    """LP factor of an unpolarised beam, as in `diffraction`; theta in radian."""
    return (1 + np.cos(2 * theta) ** 2) / (np.sin(theta) ** 2 * np.cos(theta))


def resample(two_theta: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """Intensities (4250,) on the grid, NaN where nothing was measured.

    Each is the mean of the line through the points over the grid interval: finer steps are averaged, coarser ones
    interpolated (not across gaps), and the area of a peak stays.
    """
    out = np.full(N_POINTS, np.nan)
    if len(two_theta) < 2:
        return out
    inside = (two_theta[0] - 1e-9 <= TWO_THETA) & (two_theta[-1] + 1e-9 >= TWO_THETA)
    steps = np.diff(two_theta)
    for k in np.flatnonzero(steps > GAP):
        inside &= (two_theta[k] + 1e-9 >= TWO_THETA) | (two_theta[k + 1] - 1e-9 <= TWO_THETA)
    areas = np.append(0, np.cumsum(steps * (intensity[1:] + intensity[:-1]) / 2))

    def area_up_to(angle):
        k = np.clip(np.searchsorted(two_theta, angle, "right") - 1, 0, len(steps) - 1)
        far = angle - two_theta[k]
        return areas[k] + far * intensity[k] + far**2 / 2 * (intensity[k + 1] - intensity[k]) / steps[k]

    left = np.maximum(TWO_THETA[inside] - STEP / 2, two_theta[0])
    right = np.minimum(TWO_THETA[inside] + STEP / 2, two_theta[-1])
    out[inside] = (area_up_to(right) - area_up_to(left)) / (right - left)
    return out


def background_of(intensity: np.ndarray) -> np.ndarray:
    """Background (m,) of intensities on the grid: iarPLS (Ye 2020) of their square roots.

    Counting noise grows with the root of the counts, so that of the square roots is the same everywhere, as the method
    takes it to be.  On 60 simulated scans with known backgrounds (tests/test_conditioning.py, stress) its root mean
    square error is 0.8 of 100, where the background itself has 8.4; SNIP 0.9, iarPLS and drPLS of the counts 1.1,
    arPLS 1.2, asLS 1.4, morphological opening 1.7.
    """
    from pybaselines import Baseline

    with catch_warnings():
        simplefilter("ignore")  # where the background is zero already, nothing lies below the fit
        return Baseline().iarpls(np.sqrt(np.maximum(intensity, 0)), lam=BACKGROUND_STIFFNESS)[0] ** 2


def without_ka2(intensity: np.ndarray, ka1: float, ka2: float, ratio: float) -> np.ndarray:
    """Intensities (4250,) with the K-alpha2 peaks removed, from low to high angles (Rachinger 1948)."""
    place = 2 * np.degrees(np.arcsin(np.sin(np.radians(TWO_THETA / 2)) * ka1 / ka2))
    position = (place - TWO_THETA[0]) / STEP
    out = intensity.astype(np.float64)
    for i in range(int(np.argmax(position >= 0)), N_POINTS):
        k = min(int(position[i]), i - 1)
        far = position[i] - k
        if k + 1 == i:  # closer than one step: the value that is sought stands on both sides
            out[i] = (intensity[i] - ratio * (1 - far) * out[k]) / (1 + ratio * far)
        else:
            out[i] = intensity[i] - ratio * ((1 - far) * out[k] + far * out[k + 1])
    return out


def better_anode(conditioned: Conditioned, sticks: Sticks) -> tuple[str | None, dict[str, float]]:
    """Which anode's wavelength fits known lines better than the one taken, or None; and how well each fits.

    sticks: the lines of the phase for Cu K-alpha, as `diffraction.sticks` gives them.  The fits are correlations of the
    square roots of the patterns: 1 is perfect, 0 is chance.
    """
    wavelengths = {"taken": conditioned.wavelength} | {name: source(name)["wavelength"] for name in ANODES}
    fits = {name: _fit(conditioned, sticks, wavelengths[name]) for name in wavelengths}
    fits = dict(sorted(fits.items(), key=lambda fit: -fit[1]))
    best = next(name for name in fits if name != "taken")
    other = abs(wavelengths[best] / conditioned.wavelength - 1) > SAME_WAVELENGTH
    return (best if other and fits[best] > fits["taken"] + 0.1 else None), fits


def _fit(conditioned, sticks, wavelength):
    """Correlation with the lines where they would stand, had the scan been measured with this wavelength."""
    ratio = wavelength / conditioned.wavelength
    sines = np.sin(np.radians(sticks.two_theta / 2)) * ratio
    seen = sines < 1
    angles = 2 * np.degrees(np.arcsin(sines[seen]))
    first, last = conditioned.covered
    # The sticks end at 91 degree: beyond where that comes to lie nothing is known of the lines.
    last = min(last, 2 * np.degrees(np.arcsin(min(1.0, np.sin(np.radians(45)) * ratio))))
    window = (first <= TWO_THETA) & (last >= TWO_THETA)
    inside = (angles > first) & (angles < last)
    if not inside.any() or not conditioned.pattern[window].any():
        return 0.0
    moved = type(sticks)(angles[inside], sticks.intensity[seen][inside], sticks.hkl[seen][inside])
    expected = render_one(moved)[window]
    return float(np.corrcoef(np.sqrt(expected), np.sqrt(conditioned.pattern[window]))[0, 1])


def _wavelength(scan, wavelength, warnings):
    """The wavelength to go by, angstrom; what is doubtful about it goes to the warnings."""
    if isinstance(wavelength, str):
        if wavelength not in ANODES:
            raise ScanError(f"there is no anode {wavelength!r} here. Give one of {', '.join(ANODES)}, or angstrom")
        wavelength = source(wavelength)["wavelength"]
    stated = scan.wavelength
    if wavelength and stated and scan.axis == "two_theta" and abs(wavelength / stated - 1) > SAME_WAVELENGTH:
        warnings.append(f"The file states {stated:.5g} angstrom, {wavelength:.5g} angstrom was given and taken.")
    if not wavelength and not stated:
        warnings.append("The file does not state the wavelength: Cu Kα (1.5418 angstrom) was taken.")
    taken = wavelength or stated or CU_KA
    if not LEAST_WAVELENGTH < taken < LARGEST_WAVELENGTH:
        raise ScanError(f"a wavelength of {taken:g} angstrom is not one of powder diffraction. Give it in angstrom")
    if all(abs(taken / source(name)["wavelength"] - 1) > SAME_WAVELENGTH for name in ANODES):
        warnings.append(
            f"{taken:.5g} angstrom is no Kα line (synchrotron?): intensities are corrected for an unpolarised beam."
        )
    return taken


def _doublet(scan, wavelength):
    """K-alpha1 and K-alpha2 (angstrom) and their ratio of intensities, of the file or else of the anode."""
    if scan.ka1 and scan.ka2 and abs(scan.wavelength / wavelength - 1) < SAME_WAVELENGTH:
        return scan.ka1, scan.ka2, scan.ka2_ratio
    for name, (ka1, ka2, _) in ANODES.items():
        if abs(source(name)["wavelength"] / wavelength - 1) < SAME_WAVELENGTH:
            return ka1, ka2, KA2_RATIO
    raise ScanError(f"{wavelength:.5g} angstrom is no Kα line: there is no Kα2 to strip. Leave strip_ka2 out")


def _true_angles(two_theta, zero_shift, displacement, radius):
    if displacement and not radius:
        raise ScanError("a sample displacement needs the radius of the goniometer (mm) besides. Give radius=")
    tilt = np.degrees(2 * displacement / radius) if displacement else 0.0
    return two_theta - zero_shift + tilt * np.cos(np.radians(two_theta / 2))


def _say_if_featureless(net, warnings):
    noise = 1.4826 * np.median(np.abs(np.diff(net))) / np.sqrt(2)
    if net.max() < 8 * noise:
        warnings.append(FEATURELESS)
