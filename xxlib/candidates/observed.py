"""A pattern as the search for known crystals sees it: its lines, its noise, the width of its peaks."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks, peak_widths

from xxlib.candidates.calculated import WIDTH, gaussian
from xxlib.diffraction.patterns import N_POINTS, POINTS_PER_TOKEN, SIGMA, STEP, TWO_THETA
from xxlib.diffraction.wavelengths import CU_KA

KINDS = ("ideal", "scan")  # of patterns: simulated, or with noise
NOISELESS = 0.02  # of 100: below, nothing is smoothed
SMOOTHING = 0.05  # degree, standard deviation, of a pattern with noise
LEAST_PEAK, STANDS_OUT = 0.05, 6.0  # prominence of a line: of 100, and in standard deviations of the noise
STRONGEST = 20  # lines that tell the width of the peaks
FWHM = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian, in standard deviations
# What is expected of a scan's look, as calculated.LOOK has it, and the standard deviations.  The shift of 2 theta is
# that of diffractometers, displacement among it.
EXPECTED = np.array([1.0, 0.0, 0.0, 0.0, 0.3, 0.3, 1 / 3, 0.0])
ERRORS = np.array([2.0, 0.4, 0.3, np.inf, 1.0, 0.3, 0.2, np.inf])
SIMULATED = np.array([0.0, 0.0, 1e-4, np.inf, 0.0, 0.0, 0.0, np.inf])  # those of a simulated pattern
FIXED = np.where(np.arange(8) == WIDTH, 0.0, SIMULATED)  # those of one whose peaks have the usual width
HELD = (1e-4, 3e-3)  # of simulated patterns, of scans
EXPLAINED = 0.05  # of a point: a calculated pattern of so much explains it
WIDTHS = (0.03, 0.4)  # degree, between which a width is believed


@dataclass(frozen=True, eq=False)
class Observed:
    """A pattern, and its lines."""

    root: np.ndarray  # (4250,) square root of the intensity (0-100) above the noise
    measured: np.ndarray  # (4250,) bool
    two_theta: np.ndarray  # (p,) degree, of the lines
    height: np.ndarray  # (p,) of the lines, square root of the intensity
    width: float  # degree, standard deviation of the peaks
    noise: float  # of 100, standard deviation of a point; 0: simulated

    @property
    def look(self):
        """What is expected of its look (8,), and standard deviations (8,): of a simulated one the width of peaks."""
        if self.kind == "scan":
            return gaussian(self.width) + EXPECTED, ERRORS
        usual = abs(self.width / SIGMA - 1) < 0.03
        return gaussian(SIGMA if usual else self.width), np.where(usual, FIXED, SIMULATED)

    @property
    def kind(self):
        """What it is, one of KINDS."""
        return KINDS[self.noise > 0]

    @property
    def held(self):
        """Weight of what holds atoms and cell in a refinement, of the sum of squares: noise must not move them."""
        return HELD[self.kind == "scan"]

    @property
    def ln_q(self):
        """Logarithm (p,) of q in 1/angstrom."""
        return np.log(4 * np.pi * np.sin(np.radians(self.two_theta / 2)) / CU_KA)

    @classmethod
    def of(cls, pattern, measured=None, step=STEP):
        """Of a pattern (4250,) on the grid, intensity 0-100, background taken away.

        measured: (4250,) bool, which points were; all of them where None.  step: degree, between the points of the
        scan that the pattern was made from: nearer ones share their noise.
        """
        measured = np.ones(N_POINTS, bool) if measured is None else measured
        pattern = np.where(measured, np.maximum(pattern, 0.0), 0.0).astype(np.float64)
        noise = _noise(pattern[measured], max(1, round(step / STEP + 0.4)))
        smooth = noise > NOISELESS
        if smooth:
            pattern = np.where(measured, gaussian_filter1d(pattern, SMOOTHING / STEP), 0.0)
            noise = _noise(pattern[measured], 2 + round(2 * SMOOTHING / STEP))
        else:
            noise = 0.0
        least = max(LEAST_PEAK, STANDS_OUT * noise)
        peaks, shapes = find_peaks(pattern, prominence=least)
        left, middle, right = pattern[peaks - 1], pattern[peaks], pattern[peaks + 1]
        slope, curve = left - right, left - 2 * middle + right
        beside = np.clip(0.5 * slope / np.minimum(curve, -1e-12), -0.5, 0.5)  # of a step
        return cls(
            root=np.sqrt(np.maximum(pattern - 2 * noise, 0.0)),
            measured=measured,
            two_theta=TWO_THETA[peaks] + STEP * beside,
            height=np.sqrt(np.maximum(middle - 0.25 * slope * beside, 0.0)),
            width=_width(pattern, peaks, shapes["prominences"]),
            noise=noise,
        )

    @classmethod
    def of_sample(cls, sample):
        """Of a Sample that has a pattern."""
        conditioned = sample.conditioned
        if conditioned is None:
            return cls.of(sample.pattern, np.repeat(~sample.hidden, POINTS_PER_TOKEN))
        inside = (conditioned.covered[0] <= TWO_THETA) & (conditioned.covered[1] >= TWO_THETA)
        return cls.of(
            sample.pattern, inside & np.isfinite(conditioned.resampled), np.median(np.diff(conditioned.two_theta))
        )

    def without(self, calculated):
        """What is left where a calculated pattern (4250,), of the same scale, is not: another Observed."""
        own = self.root**2
        return Observed.of(np.where(calculated > EXPLAINED * own, 0.0, own), self.measured)


def _noise(intensity, lag):
    """Standard deviation of the noise of a point: of second differences of intensities (n,) over a lag."""
    if len(intensity) <= 2 * lag:
        return 0.0
    curve = intensity[: -2 * lag] - 2 * intensity[lag:-lag] + intensity[2 * lag :]
    return float(1.4826 * np.median(np.abs(curve)) / np.sqrt(6))


def _width(pattern, peaks, prominences):
    """Standard deviation of peaks, degree: the median of the strongest that stand alone."""
    strongest = peaks[np.argsort(-prominences)[:STRONGEST]]
    if not len(strongest):
        return SIGMA
    # The narrower half: the others are several lines.
    widths = np.sort(peak_widths(pattern, strongest, rel_height=0.5)[0])
    return float(np.clip(widths[: max(1, len(widths) // 2)].mean() * STEP / FWHM, *WIDTHS))
