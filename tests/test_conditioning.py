"""From a scan to the grid: physics of wavelength and intensity, backgrounds that are known, honest ranges."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from xxlib.crystals.crystal import Crystal, lattice_from_cell
from xxlib.diffraction.patterns import STEP, TWO_THETA, render_one, restrict
from xxlib.diffraction.scattering import Sticks, sticks
from xxlib.diffraction.wavelengths import ANODES, CU_KA
from xxlib.scans.conditioning import background_of, better_anode, condition, resample, without_ka2
from xxlib.scans.reading import read_scan
from xxlib.scans.scan import Scan, ScanError, source

FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
NACL = Crystal(
    "NaCl", lattice_from_cell(5.64, 5.64, 5.64, 90, 90, 90), np.array([11] * 4 + [17] * 4),
    np.concatenate([FCC, FCC + 0.5]), np.ones(8),
)  # fmt: skip
LINES = sticks(NACL)


def drawn(two_theta, lines, sigma=0.05, heights=None):
    """Sum of Gaussians at the angles (n,)."""
    heights = lines.intensity if heights is None else heights
    out = np.zeros(len(two_theta))
    for angle, height in zip(lines.two_theta, heights):
        near = np.abs(two_theta - angle) < 6 * sigma
        out[near] += height * np.exp(-0.5 * ((two_theta[near] - angle) / sigma) ** 2)
    return out


def measured(start=5.0, stop=90.0, step=0.02, wavelength=CU_KA, sigma=0.05, background=0.0, **fields):
    """A Scan of rock salt without noise."""
    two_theta = np.arange(start, stop + step / 2, step)
    lines = sticks(NACL, wavelength, (1.0, 150.0))
    intensity = drawn(two_theta, lines, sigma) + background
    return Scan(two_theta=two_theta, intensity=intensity, wavelength=wavelength, **fields)


def peak(two_theta, intensity, angle, reach=0.8):
    """Centre (degree) and area of a peak near an angle."""
    near = np.abs(two_theta - angle) < reach
    weights = intensity[near].astype(np.float64)
    return weights @ two_theta[near] / weights.sum(), np.trapezoid(weights, two_theta[near])


def mean_wavelength(anode):
    return source(anode)["wavelength"]


@pytest.mark.parametrize("step", [0.005, 0.02])
@pytest.mark.parametrize("anode", ["Mo", "Co", "Cr", "Ag", "Fe", "Cu"])
def test_any_wavelength_comes_to_stand_as_cu(anode, step):
    wavelength = mean_wavelength(anode)
    scan = measured(2, 140, step, wavelength, 0.03)
    conditioned = condition(scan, background=False)
    assert conditioned.wavelength == wavelength and not conditioned.warnings
    angle = np.arange(5, 90, 0.001)
    expected = drawn(angle, LINES, 0.03)
    seen = [a for a in LINES.two_theta[LINES.intensity > 2] if a + 1 < conditioned.covered[1]]
    assert len(seen) >= 6
    ours = np.array([peak(TWO_THETA, conditioned.pattern, a) for a in seen])
    truth = np.array([peak(angle, expected, a) for a in seen])
    assert np.abs(ours[:, 0] - truth[:, 0]).max() < 0.005
    strongest = truth[:, 1].argmax()
    assert ours[:, 1] / ours[strongest, 1] == pytest.approx(truth[:, 1] / truth[strongest, 1], rel=0.01)


def test_what_the_wavelength_cannot_reach_is_not_covered():
    conditioned = condition(measured(10, 80, 0.02, mean_wavelength("Cr")), background=False)
    for end, angle in zip((10, 80), conditioned.covered):
        d = mean_wavelength("Cr") / 2 / np.sin(np.radians(end / 2))
        assert angle == pytest.approx(2 * np.degrees(np.arcsin(CU_KA / 2 / d)), abs=STEP)
    conditioned = condition(measured(2, 60, 0.01, mean_wavelength("Mo")), background=False)
    assert conditioned.covered == (5.0, pytest.approx(89.98))


@pytest.mark.parametrize("step", [0.001, 0.01, 0.013, 0.017, 0.02, 0.03, 0.05])
def test_resampling_keeps_areas_and_places_whatever_the_step(step):
    two_theta = np.arange(10.003, 60, step)
    lines = Sticks(np.array([20.0, 33.337, 50.011]), np.array([100.0, 40.0, 7.0]), np.zeros((3, 3), int))
    out = resample(two_theta, drawn(two_theta, lines, 0.1))
    for angle, height in zip(lines.two_theta, lines.intensity):
        centre, area = peak(TWO_THETA, out, angle)
        assert centre == pytest.approx(angle, abs=1e-3)
        assert area == pytest.approx(height * 0.1 * np.sqrt(2 * np.pi), rel=1e-3)
    inside = np.isfinite(out)
    assert TWO_THETA[inside][[0, -1]] == pytest.approx([10.02, np.floor(two_theta[-1] / STEP) * STEP], abs=STEP / 2)


def test_resampling_averages_noise_of_fine_steps():
    two_theta = np.arange(5, 90, 0.002)
    out = resample(two_theta, np.random.default_rng(0).normal(100, 10, len(two_theta)))
    inside = out[np.isfinite(out)]
    assert inside.mean() == pytest.approx(100, abs=0.2)
    assert inside.std() == pytest.approx(10 / np.sqrt(10), rel=0.1)


def test_a_step_that_is_too_coarse_is_said():
    assert condition(measured(step=0.05)).warnings == ()
    (said,) = condition(measured(step=0.15)).warnings
    assert "step of 0.15 degree" in said


def test_zero_shift_and_displacement_are_taken_back():
    scan = measured()
    truth = scan.two_theta
    moved = truth + 0.15 - 2 * np.degrees(0.2 / 200) * np.cos(np.radians(truth / 2))
    scan = Scan(two_theta=moved, intensity=scan.intensity, wavelength=CU_KA)
    crooked = condition(scan, background=False).pattern
    straight = condition(scan, zero_shift=0.15, displacement=0.2, radius=200, background=False).pattern
    for angle in LINES.two_theta[LINES.intensity > 5]:
        assert peak(TWO_THETA, straight, angle)[0] == pytest.approx(angle, abs=2e-3)
        assert abs(peak(TWO_THETA, crooked, angle)[0] - angle) > 0.03
    with pytest.raises(ScanError, match="needs the radius"):
        condition(scan, displacement=0.2)


# Backgrounds: simulated scans, with everything known


def simulated(shared_data, n, seed):
    """(peaks, background, scan with counting noise), each (4250,), of n reference crystals; strongest peak = 100."""
    from scipy.special import voigt_profile

    table = pq.read_table(shared_data / "mp36k" / "sticks_pymatgen_2024.11.13.parquet").to_pylist()
    rng = np.random.default_rng(seed)
    x = (TWO_THETA - 5) / 85
    for row in table[:: len(table) // n][:n]:
        sigma = rng.uniform(0.03, 0.09)
        gamma = rng.uniform(0.01, 0.06) if rng.random() < 0.75 else rng.uniform(0.1, 0.3)  # a quarter nanocrystalline
        peaks = np.zeros(len(x))
        for angle, height in zip(row["two_theta"], row["intensity"]):
            if height > 0.02:
                near = np.abs(TWO_THETA - angle) < 6
                width = gamma / np.cos(np.radians(angle / 2))
                peaks[near] += (
                    height * voigt_profile(TWO_THETA[near] - angle, sigma, width) / voigt_profile(0, sigma, width)
                )
        peaks *= 100 / peaks.max()
        below = rng.uniform(1, 10) + rng.uniform(-3, 3) * x + rng.uniform(-3, 3) * x**2
        below += rng.uniform(0, 40) * np.exp(-x * rng.uniform(8, 40))  # scattering by air
        if rng.random() < 0.6:  # glass
            below += rng.uniform(1, 15) * np.exp(-0.5 * ((TWO_THETA - rng.uniform(18, 32)) / rng.uniform(3, 7)) ** 2)
        below = np.maximum(below, 0.3)
        counts = 10 ** rng.uniform(2.5, 4.5) / 100
        yield peaks, below, rng.poisson((peaks + below) * counts) / counts


def errors(cases, method):
    """Root mean square error of a background for each case, and the relative error of the area above it."""
    found = [(method(scan), peaks, below, scan) for peaks, below, scan in cases]
    return (
        np.array([np.sqrt(np.mean((ours - below) ** 2)) for ours, _, below, _ in found]),
        np.array([(scan - ours).sum() / peaks.sum() - 1 for ours, peaks, _, scan in found]),
    )


def test_a_known_background_is_found(shared_data):
    cases = list(simulated(shared_data, 10, 0))
    rms, area = errors(cases, background_of)
    without, _ = errors(cases, np.zeros_like)
    assert without.mean() > 5.5
    assert rms.mean() < 0.8 and rms.max() < 1.6
    assert np.median(np.abs(area)) < 0.2


@pytest.mark.stress
def test_the_chosen_background_is_the_best_of_those_tried(shared_data):
    from pybaselines import Baseline

    fit = Baseline()
    methods = {
        "iarPLS of roots": background_of,
        "SNIP": lambda y: fit.snip(y, max_half_window=50, decreasing=True, smooth_half_window=5)[0],
        "arPLS": lambda y: fit.arpls(y, lam=1e5)[0],
        "asLS": lambda y: fit.asls(y, lam=1e6, p=0.01)[0],
        "iarPLS": lambda y: fit.iarpls(y, lam=1e5)[0],
        "drPLS": lambda y: fit.drpls(y, lam=1e6)[0],
        "opening": lambda y: fit.mor(y, half_window=50)[0],
        "none": np.zeros_like,
    }
    cases = [case for seed in (0, 5) for case in simulated(shared_data, 30, seed)]
    found = {name: errors(cases, method) for name, method in methods.items()}
    for name, (rms, area) in found.items():
        print(
            f"{name:16} rms {rms.mean():.2f}  median {np.median(rms):.2f}  area {100 * np.median(np.abs(area)):.0f} %"
        )
    assert min(found, key=lambda name: found[name][0].mean()) == "iarPLS of roots"


def test_peak_areas_stay_when_the_background_goes():
    below = 30 * np.exp(-(measured().two_theta - 5) / 30) + 5
    scan = measured(background=below)
    counts = np.random.default_rng(0).poisson(scan.intensity * 1000) * 1.0  # 100,000 in the strongest line
    covered = condition(Scan(two_theta=scan.two_theta, intensity=counts, wavelength=CU_KA)).pattern
    strong = LINES.two_theta[LINES.intensity > 5]
    ours = np.array([peak(TWO_THETA, covered, angle, 0.3)[1] for angle in strong])
    truth = LINES.intensity[LINES.intensity > 5]
    assert ours / ours.max() == pytest.approx(truth / truth.max(), rel=0.03)
    kept = condition(scan, background=False)
    assert kept.pattern[0] > 20 and np.nanmax(kept.background) == 0


def test_ka2_is_stripped_to_the_pattern_of_one_wavelength():
    two_theta = np.arange(5, 90.01, 0.02)
    ka1, ka2, _ = ANODES["Cu"]
    first, second = (sticks(NACL, wavelength, (1.0, 150.0)) for wavelength in (ka1, ka2))
    scale = first.intensity.max()
    intensity = drawn(two_theta, first, 0.06, first.intensity / scale) + 0.5 * drawn(
        two_theta, second, 0.06, second.intensity / second.intensity.max()
    )
    scan = Scan(two_theta=two_theta, intensity=intensity, **source("Cu"))
    truth = drawn(TWO_THETA, LINES, 0.06)
    truth *= 100 / truth.max()
    as_it_is = np.abs(condition(scan, background=False).pattern - truth).mean()
    stripped = condition(scan, background=False, strip_ka2=True)
    assert stripped.wavelength == ka1
    assert np.abs(stripped.pattern - truth).mean() < 0.05 < 0.15 < as_it_is
    named = Scan(two_theta=two_theta, intensity=intensity)
    assert np.array_equal(condition(named, "Cu", background=False, strip_ka2=True).pattern, stripped.pattern)
    with pytest.raises(ScanError, match="no Kα2 to strip"):
        condition(scan, 0.4133, strip_ka2=True)


def test_stripping_undoes_the_doublet_at_every_angle():
    """Close lines at low angles, wide ones at high angles: the sum of a signal and its shifted half gives it back."""
    ka1, ka2, _ = ANODES["Co"]
    signal = lambda angle: 5 + np.exp(-0.5 * ((angle - 40) / 3) ** 2)  # noqa: E731
    place = 2 * np.degrees(np.arcsin(np.sin(np.radians(TWO_THETA / 2)) * ka1 / ka2))
    back = without_ka2(signal(TWO_THETA) + 0.5 * signal(place), ka1, ka2, 0.5)
    assert np.abs(back[50:] - signal(TWO_THETA[50:])).max() < 2e-3


# Ranges


def test_a_short_scan_says_what_it_covers():
    conditioned = condition(measured(18, 52.3, background=3.0))
    assert conditioned.covered == pytest.approx((18, 52.3), abs=STEP)
    # 5-10 and 10-15 below, 55 and above: outside; 15-20 and 50-55 are partly inside
    assert np.flatnonzero(conditioned.tokens_outside).tolist() == [0, 1, *range(10, 17)]
    inside = (TWO_THETA >= 17.99) & (TWO_THETA <= 52.31)
    assert not conditioned.pattern[~inside].any() and conditioned.pattern.dtype == np.float32
    assert conditioned.pattern.shape == (4250,) and conditioned.pattern.max() == pytest.approx(100)
    assert np.isnan(conditioned.resampled[~inside]).all() and np.isnan(conditioned.background[~inside]).all()


def test_a_gap_between_two_ranges_is_not_filled():
    scan = measured(background=20.0)
    seen = (scan.two_theta < 29.995) | (scan.two_theta > 61.995)
    two_theta, intensity = scan.two_theta[seen], scan.intensity[seen]
    conditioned = condition(Scan(two_theta=two_theta, intensity=intensity, wavelength=CU_KA))
    (said,) = conditioned.warnings
    assert said == "Between 29.98 and 62 degree (Cu Kα) nothing was measured: the pattern is zero."
    assert np.flatnonzero(conditioned.tokens_outside).tolist() == list(range(5, 11))
    gap = (TWO_THETA > 29.99) & (TWO_THETA < 61.99)
    assert not conditioned.pattern[gap].any() and np.isnan(conditioned.resampled[gap]).all()


def test_restrict_in_training():
    full = np.stack(
        [render_one(LINES), render_one(Sticks(np.array([30.0, 70.0]), np.array([10.0, 100.0]), np.zeros((2, 3))))]
    )
    seen, outside = restrict(full, 20.0, 60.0)
    assert seen.dtype == np.float32 and seen.shape == full.shape
    assert np.flatnonzero(~outside).tolist() == list(range(3, 12))  # the point 60.00 belongs to token 11
    inside = (TWO_THETA > 19.99) & (TWO_THETA < 60.01)
    assert not seen[:, ~inside].any()
    assert seen[0][inside] == pytest.approx(full[0][inside])
    assert seen[1][inside] == pytest.approx(10 * full[1][inside], rel=1e-5)
    alone, same = restrict(full[1], 20.0, 60.0)
    assert np.array_equal(alone, seen[1]) and np.array_equal(same, outside)
    everything, none = restrict(full, 5.0, 89.98)
    assert everything == pytest.approx(full, rel=1e-6) and not none.any()
    with pytest.raises(ValueError, match="no intensity between 75 and 80 degree"):
        restrict(full[1], 75.0, 80.0)


@pytest.mark.parametrize(
    ("scan", "options", "words"),
    [
        (measured(1, 8), {}, "covers 3 of the 85 degree"),
        (measured(100, 140), {}, "covers 0 of the 85 degree"),
        (measured(5, 60), {"wavelength": 15.4}, "wavelength of 15.4 angstrom"),
        (measured(5, 60), {"wavelength": "Ku"}, "Give one of Cu, Mo, Co"),
        (Scan(two_theta=measured().two_theta, intensity=-1 + measured().intensity * 0), {}, "above the background"),
        (measured(5, 60, radiation="neutron"), {}, "neutron pattern"),
    ],
)
def test_what_cannot_be_conditioned_is_said(scan, options, words):
    with pytest.raises(ScanError, match=words):
        condition(scan, **options)


def test_doubts_about_the_wavelength_are_said():
    unknown = Scan(two_theta=measured().two_theta, intensity=measured().intensity)
    assert "does not state the wavelength: Cu Kα" in condition(unknown).warnings[0]
    assert condition(unknown, "Cu").warnings == condition(unknown, 1.5406).warnings == ()
    (said,) = condition(measured(), "Co").warnings
    assert said == "The file states 1.5418 angstrom, 1.7903 angstrom was given and taken."
    (said,) = condition(measured(1, 40, 0.005, 0.4133)).warnings
    assert "synchrotron" in said


def test_no_peaks_are_said():
    rng = np.random.default_rng(0)
    two_theta = np.arange(5, 90, 0.02)
    glass = 200 + 300 * np.exp(-0.5 * ((two_theta - 22) / 6) ** 2)
    conditioned = condition(Scan(two_theta=two_theta, intensity=rng.poisson(glass) * 1.0, wavelength=CU_KA))
    assert "No peak stands clearly" in conditioned.warnings[0]
    crystal = rng.poisson(glass + 500 * drawn(two_theta, LINES) / 100)
    assert not condition(Scan(two_theta=two_theta, intensity=crystal * 1.0, wavelength=CU_KA)).warnings


def test_variable_counting_time_is_divided_out():
    even = measured()
    time = np.where(even.two_theta < 50, 1.0, 7.0)
    scan = Scan(two_theta=even.two_theta, intensity=even.intensity * time, wavelength=CU_KA, time_per_step=time)
    conditioned = condition(scan)
    assert np.allclose(conditioned.pattern, condition(even).pattern, atol=1e-4)
    assert conditioned.unit == "counts per second"
    rates = Scan(two_theta=even.two_theta, intensity=even.intensity, wavelength=CU_KA, time_per_step=time,
                 unit="counts per second")  # fmt: skip
    assert np.allclose(condition(rates).pattern, condition(even).pattern, atol=1e-4)


@pytest.mark.parametrize("true", ["Mo", "Co", "Cr", "Fe"])
def test_a_wrong_anode_is_noticed_where_the_lines_are_known(true):
    scan = measured(4, 120, 0.02, mean_wavelength(true), background=5.0)
    anode, fits = better_anode(condition(scan, "Cu"), LINES)
    assert anode == true and next(iter(fits)) == true and fits[true] > 0.6 > fits["taken"] + 0.3
    anode, fits = better_anode(condition(scan), LINES)
    assert anode is None and fits["taken"] > 0.6


def test_a_full_way_from_real_files(shared_data):
    for name in ("corundum_philips.rd", "corundum_nist1976_bruker.uxd"):
        conditioned = condition(read_scan(shared_data / "formats" / name))
        # corundum, PDF 46-1212
        for angle in (25.578, 35.152, 43.355, 52.549, 57.496):
            near = np.abs(TWO_THETA - angle) < 0.5
            assert TWO_THETA[near][conditioned.pattern[near].argmax()] == pytest.approx(angle, abs=0.08)
    quiet = TWO_THETA[conditioned.pattern < 3]
    assert len(quiet) > 3000


@pytest.mark.stress
def test_every_measured_pattern_can_be_conditioned(shared_data, tmp_path):
    table = pq.read_table(shared_data / "measured" / "patterns.parquet", columns=["two_theta", "intensity"])
    for row in table.to_pylist():
        path = tmp_path / "scan.xy"
        path.write_text("".join(f"{x:.4f} {y:.6g}\n" for x, y in zip(row["two_theta"], row["intensity"])))
        conditioned = condition(read_scan(path), "Cu")
        assert np.isfinite(conditioned.pattern).all() and conditioned.pattern.max() == pytest.approx(100)
