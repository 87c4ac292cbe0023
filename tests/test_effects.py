"""What instruments and powders do to a pattern: each effect by its physics, ranges as at prediction, draws by seed."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from xxlib.diffraction import patterns
from xxlib.diffraction.effects import EFFECTS, RADIUS, Effects, draw
from xxlib.diffraction.patterns import TWO_THETA
from xxlib.diffraction.simulation import N_IMPURITY_LINES, augmented
from xxlib.diffraction.texture import equal_axes, march, metric_tensor, strained, symmetries
from xxlib.diffraction.wavelengths import ANODES, CU_KA
from xxlib.scans.conditioning import condition
from xxlib.scans.scan import Scan

LABORATORY = EFFECTS["laboratory"]


def seen(effects, two_theta, intensity=None, seed=0, n=1, **cell):
    """Patterns of n times the same lines under effects, and which tokens were not measured."""
    two_theta = np.atleast_1d(np.asarray(two_theta, float))
    intensity = np.full(len(two_theta), 100.0) if intensity is None else np.asarray(intensity, float)
    offsets = np.arange(n + 1) * len(two_theta)
    cell = {name: np.tile(values, (n, 1)) for name, values in cell.items()}
    return augmented(np.tile(two_theta, n), np.tile(intensity, n), offsets, draw(effects, n, seed), **cell)


def always(**effects):
    """Effects of which each has one value."""
    return Effects(**{name: value if name == "ka2" else (value, value) for name, value in effects.items()})


def peak(signal, angle, reach=1.0):
    """Centre (degree), area and full width at half maximum (degree) of a peak near an angle."""
    near = np.abs(TWO_THETA - angle) < reach
    x, y = TWO_THETA[near], signal[near].astype(np.float64)
    above = np.flatnonzero(y >= y.max() / 2)
    left, right = above[0], above[-1]
    start = np.interp(y.max() / 2, y[[left - 1, left]], x[[left - 1, left]])
    end = np.interp(-y.max() / 2, -y[[right, right + 1]], x[[right, right + 1]])
    return y @ x / y.sum(), y.sum() * 0.02, end - start


@pytest.fixture(scope="module")
def crystals(shared_data):
    """Sticks of 150 real crystals end to end: two_theta, intensity, offsets."""
    rows = pq.read_table(shared_data / "mp36k" / "sticks_pymatgen_2024.11.13.parquet").to_pylist()
    angles, heights = ([np.array(row[name]) for row in rows] for name in ("two_theta", "intensity"))
    return np.concatenate(angles), np.concatenate(heights), np.cumsum([0] + [len(a) for a in angles])


# ---------------------------------------------------------------- each effect alone


def test_without_effects_a_pattern_is_the_ideal_one(crystals):
    signals, masked = augmented(*crystals, draw(Effects(), 150, 0))
    assert np.abs(signals - patterns.render(*crystals)).max() < 0.5
    assert not masked.any() and signals.dtype == np.float32


def test_a_larger_cell_moves_lines_as_bragg_says():
    signals, _ = seen(always(lattice=1.0), [30, 60])
    for angle in (30, 60):
        d = CU_KA / 2 / np.sin(np.radians(angle / 2))
        expected = 2 * np.degrees(np.arcsin(CU_KA / 2 / (1.01 * d)))
        assert peak(signals[0], expected)[0] == pytest.approx(expected, abs=2e-3)


def test_thermal_motion_weakens_lines_at_high_angles():
    low, high = (peak(seen(always(thermal=2.0), [20, 80])[0][0], angle)[1] for angle in (20, 80))
    s2 = [(np.sin(np.radians(angle / 2)) / CU_KA) ** 2 for angle in (20, 80)]
    assert high / low == pytest.approx(np.exp(-2 * 2.0 * (s2[1] - s2[0])), rel=0.01)


def test_shifts_are_those_that_conditioning_takes_back():
    signals, _ = seen(always(zero_shift=0.1, displacement=0.2), [30, 60])
    for angle in (30, 60):
        expected = angle + 0.1 - np.degrees(2 * 0.2 / RADIUS) * np.cos(np.radians(angle / 2))
        assert peak(signals[0], expected)[0] == pytest.approx(expected, abs=1e-3)
    scan = Scan(two_theta=TWO_THETA, intensity=signals[0], wavelength=CU_KA)
    back = condition(scan, background=False, zero_shift=0.1, displacement=0.2, radius=RADIUS).pattern
    for angle in (30, 60):
        assert peak(back, angle)[0] == pytest.approx(angle, abs=2e-3)


def test_small_crystallites_widen_lines_as_scherrer_says():
    signals, _ = seen(always(instrument=0.02, size=8.0), [30, 80])
    for angle in (30, 80):
        scherrer = np.degrees(0.9 * CU_KA / (80 * np.cos(np.radians(angle / 2))))
        assert peak(signals[0], angle, 8)[2] == pytest.approx(scherrer, rel=0.03)


def test_strain_widens_lines_with_the_tangent():
    signals, _ = seen(always(instrument=0.02, strain=0.4), [30, 80])
    for angle in (30, 80):
        expected = np.degrees(4 * 0.004 * np.tan(np.radians(angle / 2)))
        assert peak(signals[0], angle, 8)[2] == pytest.approx(expected, rel=0.03)


def test_a_line_is_the_convolution_of_instrument_and_crystallites():
    """Against the convolution itself; the pseudo-Voigt is good to a percent."""
    signals, _ = seen(always(instrument=0.15, size=40.0), [40])
    x = np.arange(-8, 8.001, 0.002)
    half = np.degrees(0.9 * CU_KA / (400 * np.cos(np.radians(20)))) / 2
    voigt = np.convolve(np.exp(-np.log(2) * (x / 0.075) ** 2), 1 / (1 + (x / half) ** 2), "same")
    expected = 100 * np.interp(TWO_THETA - 40, x, voigt / voigt.max(), 0, 0)
    assert np.abs(signals[0] - expected).max() < 2.5  # 2.1 % of the Lorentzian are cut off, see patterns()


def test_ka2_stands_where_its_wavelength_says():
    signals, _ = seen(always(ka2=1.0, instrument=0.06), [80])
    for line, height in zip(ANODES["Cu"], (100, 50)):
        place = 2 * np.degrees(np.arcsin(np.sin(np.radians(40)) * line / CU_KA))
        near = np.abs(TWO_THETA - place) < 0.05
        assert abs(TWO_THETA[near][signals[0][near].argmax()] - place) < 0.02
        assert signals[0][near].max() == pytest.approx(height, rel=0.05)
    assert peak(signals[0], 80)[0] == pytest.approx(80, abs=4e-3)  # the mean wavelength is one of five digits
    seldom, _ = seen(Effects(ka2=0.3, instrument=(0.06, 0.06)), [80], n=400)
    split = (seldom[:, np.abs(TWO_THETA - 80.16) < 0.011] > 30).any(1)
    assert split.mean() == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize(
    ("lattice", "order", "equal"),
    [
        ((4, 4, 4, 90, 90, 90), 48, 6),
        ((4, 4, 4, 60, 60, 60), 48, 8),  # face-centred, primitive
        ((4, 4, 4, 109.4712, 109.4712, 109.4712), 48, 12),  # body-centred, primitive
        ((3, 3, 5, 90, 90, 120), 24, 2),
        ((5, 5, 5, 70, 70, 70), 12, 6),
        ((3, 3, 5, 90, 90, 90), 16, 2),
        ((3, 4, 5, 90, 90, 90), 8, 2),
        ((3, 4, 5, 90, 100, 90), 4, 2),
        ((3, 4, 5, 80, 100, 95), 2, 2),
        ((22.814, 22.814, 22.814, 7.787, 7.787, 7.787), 12, 6),  # a polytype of SiC, not reduced
    ],
)
def test_symmetry_of_lattices(lattice, order, equal):
    """Orders of the seven holohedries, and how many planes 001 is one of."""
    axes = equal_axes(symmetries(metric_tensor(np.array(lattice, float))), np.array([0, 0, 1.0]))
    assert len(axes) == order and len({tuple(axis) for axis in axes}) == equal


@pytest.mark.parametrize(
    ("lattice", "free"),
    [
        ((4, 4, 4, 90, 90, 90), 1),
        ((4, 4, 4, 60, 60, 60), 1),
        ((3, 3, 5, 90, 90, 120), 2),
        ((5, 5, 5, 70, 70, 70), 2),
        ((3, 3, 5, 90, 90, 90), 2),
        ((3, 4, 5, 90, 90, 90), 3),
        ((3, 4, 5, 90, 100, 90), 4),
        ((3, 4, 5, 80, 100, 95), 6),
        ((22.814, 22.814, 22.814, 7.787, 7.787, 7.787), 2),  # a polytype of SiC, not reduced
    ],
)
def test_a_strained_cell_keeps_its_symmetry(lattice, free):
    """Its lengths and angles change as far as their system leaves them free, and every symmetry stays one."""
    metric = metric_tensor(np.array(lattice, float))
    group = symmetries(metric)
    strains = np.random.default_rng(0).normal(scale=0.02, size=(40, 3, 3))
    strains += strains.transpose(0, 2, 1)
    cells = np.array([strained(metric, group, strain) for strain in strains])
    for cell in cells:
        assert all(np.allclose(axes @ cell @ axes.T, cell, rtol=1e-3, atol=1e-3) for axes in group)
        assert np.linalg.eigvalsh(cell).min() > 0
    changes = (cells - metric).reshape(40, 9)
    assert np.linalg.matrix_rank(changes, tol=0.01 * np.abs(changes).max()) == free
    if free == 6:
        factor = np.linalg.cholesky(metric)
        stretch = factor @ (np.eye(3) + strains[0])
        assert np.allclose(cells[0], stretch @ stretch.T)
    assert np.allclose(strained(metric, group, np.zeros((3, 3))), metric, rtol=1e-3, atol=1e-3)


def test_lines_move_with_the_strained_cell():
    """Of a cubic cell all lines by one factor; of a tetragonal one 100 and 200 by one, 001 by another."""
    hkl = np.tile(np.array([[1, 0, 0], [2, 0, 0], [0, 0, 1]], float), (60, 1))
    for c, splits in ((4.0, False), (6.0, True)):
        d = np.array([4, 2, c])
        angles = 2 * np.degrees(np.arcsin(CU_KA / (2 * d)))
        lines = np.tile(angles, 60), np.full(180, 100.0), np.arange(61) * 3
        lattices = np.tile([4, 4, c, 90, 90, 90.0], (60, 1))
        signals, _ = augmented(*lines, draw(always(cell=1.0), 60, 0), hkl, lattices)
        if not splits:
            assert ((signals > 50).sum(1) < 40).all(), "100 and 001 are one line"
            continue
        centres = np.array([[peak(signal, angle, 0.05 * angle)[0] for angle in angles] for signal in signals])
        factors = np.sin(np.radians(centres / 2)) / np.sin(np.radians(angles / 2))
        assert np.allclose(factors[:, 0], factors[:, 1], atol=2e-4)
        assert np.std(factors[:, 2]) == pytest.approx(0.01, rel=0.3)
        assert abs(np.corrcoef(factors[:, 0], factors[:, 2])[0, 1]) < 0.4
        again, _ = augmented(*lines, draw(Effects(), 60, 0), hkl, lattices)
        assert np.allclose(again, again[0], atol=0.01)


def test_texture_is_march_dollase():
    metric = metric_tensor(np.array([3, 3, 5, 90, 90, 120.0]))
    axes, reciprocal = equal_axes(symmetries(metric), np.array([0, 0, 1.0])), np.linalg.inv(metric)
    for hkl, alpha in (((0, 0, 2), 0), ((1, 0, 0), 90), ((1, 0, 1), 62.55)):  # tan(alpha) = 2 c / (sqrt(3) a)
        cosine, sine = np.cos(np.radians(alpha)), np.sin(np.radians(alpha))
        expected = (0.6**2 * cosine**2 + sine**2 / 0.6) ** -1.5
        assert march(0.6, np.array(hkl, float), reciprocal, axes) == pytest.approx(expected, rel=1e-3)
    sphere = np.random.default_rng(0).normal(size=(4000, 3))
    mean = np.mean([march(0.6, hkl, np.eye(3), np.array([[0, 0, 1.0]])) for hkl in sphere])
    assert mean == pytest.approx(1, abs=0.05), "texture creates no intensity"


def test_texture_acts_where_reflections_are_known_and_scatter_elsewhere():
    """Cubic h00 and 0k0 stay equal; with the preferred axis 001, 111 is weaker and with 111 stronger than they."""
    hkl, lattice = np.array([[1, 0, 0], [0, 2, 0], [1, 1, 1]], float), np.array([4, 4, 4, 90, 90, 90.0])
    effects = always(texture=0.5, line_scatter=0.5)
    signals, _ = augmented(
        np.tile([20.0, 40, 60], 60), np.full(180, 100.0), np.arange(61) * 3, draw(effects, 60, 0),
        np.tile(hkl, (60, 1)), np.tile(lattice, (60, 1)),
    )  # fmt: skip
    areas = np.array([[peak(signal, angle)[1] for angle in (20, 40, 60)] for signal in signals])
    assert np.allclose(areas[:, 0], areas[:, 1], rtol=0.01)
    ratios = areas[:, 2] / areas[:, 0]
    assert ratios.min() < 0.5 and ratios.max() > 2
    scattered, _ = seen(effects, [20, 40, 60], n=400)
    logs = np.log([[peak(signal, angle)[1] for angle in (20, 40)] for signal in scattered])
    assert np.std(logs[:, 0] - logs[:, 1]) == pytest.approx(0.5 * np.sqrt(2), rel=0.15)


def test_impurities_are_weak_lines_elsewhere():
    signals, _ = seen(always(impurity=10.0), [50], n=50)
    beside = np.abs(TWO_THETA - 50) > 1
    assert 9 < np.median(signals[:, beside].max(1)) < 15
    left, middle, right = (signals[:, beside][:, k : k - 2 or None] for k in range(3))
    peaks = ((middle > left) & (middle >= right) & (middle > 0.05)).sum(1)
    assert N_IMPURITY_LINES / 2 < peaks.mean() <= N_IMPURITY_LINES


def test_noise_is_that_of_the_counts():
    """Its variance is that of a Poisson distribution: of the peak, and of the background that was taken away."""
    signals, _ = seen(always(counts=400.0, background=25.0), [50], n=300)
    near, flank = np.abs(TWO_THETA - 50) < 0.2, np.abs(TWO_THETA - 50.1).argmin()
    clean = seen(Effects(), [50])[0][0]
    relative = signals * (clean[near].sum() / signals[:, near].sum(1, keepdims=True)) / 100  # the maximum is noisy, too
    assert relative[:, flank].std() == pytest.approx(np.sqrt((clean[flank] / 100 + 0.25) / 400), rel=0.15)
    floor = relative[:, TWO_THETA > 60]
    assert (floor == 0).mean() == pytest.approx(0.5, abs=0.02), "below zero is cut, as conditioning does"
    half_normal = np.sqrt(np.mean(floor**2)) / np.sqrt(0.5 * 0.25 / 400)
    assert half_normal == pytest.approx(1, abs=0.1)
    assert abs(np.corrcoef(floor[:, :-1].ravel(), floor[:, 1:].ravel())[0, 1]) < 0.01


def test_what_is_left_of_the_background_is_smooth():
    signals, _ = seen(always(residue=2.0), [50], n=200)
    floor = signals[:, TWO_THETA > 52]
    assert np.abs(np.diff(floor, axis=1)).max() < 0.3
    assert floor[floor > 0].std() == pytest.approx(2 * np.sqrt(1 - 2 / np.pi), rel=0.15)


def test_effects_resemble_what_conditioning_does_to_a_scan(crystals):
    """The same crystals with a known background and real counts, through condition(), and in the short way.

    Noise differs from one to the other, so that running means over half a degree are compared.
    """
    lines = always(instrument=0.1, size=60.0, strain=0.15, ka2=1.0)
    measured = dataclasses.replace(lines, overlap=(1.0, 1.0), background=(10.0, 10.0), counts=(3000.0, 3000.0))
    some = crystals[2][:31]
    chosen = crystals[0][: some[-1]], crystals[1][: some[-1]], some
    short, _ = augmented(*chosen, draw(measured, 30, 0))
    plain, _ = augmented(*chosen, draw(lines, 30, 0))
    below = 10 * (0.7 + np.exp(-(TWO_THETA - 5) / 10))
    random = np.random.default_rng(0)

    def smooth(signal):
        return np.convolve(signal, np.ones(25) / 25, "same")

    errors = []
    for whole, ours in zip(plain, short):
        scan = Scan(two_theta=TWO_THETA, intensity=random.poisson(30 * (whole + below)) * 1.0, wavelength=CU_KA)
        conditioned = condition(scan).pattern
        errors.append([np.abs(smooth(signal - conditioned)).mean() for signal in (ours, whole)])
    with_model, without = np.mean(errors, axis=0)
    assert with_model < 0.65 * without and with_model < 0.5


# ---------------------------------------------------------------- range


def test_a_short_range_is_seen_as_at_prediction(crystals):
    """Cut by drawn ranges, or measured over them and conditioned: the same pattern, the same tokens outside."""
    drawn = draw(Effects(start=LABORATORY.start, end=LABORATORY.end), 150, 1)
    signals, masked = augmented(*crystals, drawn)
    whole, _ = augmented(*crystals, draw(Effects(), 150, 1))
    assert signals.max(1) == pytest.approx(100) and masked.any(1).mean() > 0.9
    for b in range(0, 150, 10):
        start, end = drawn.values["start"][b], drawn.values["end"][b]
        inside = (start <= TWO_THETA) & (end >= TWO_THETA)
        scan = Scan(two_theta=TWO_THETA[inside], intensity=whole[b][inside], wavelength=CU_KA)
        conditioned = condition(scan, background=False)
        assert np.array_equal(conditioned.tokens_outside, masked[b])
        assert np.abs(conditioned.pattern - signals[b]).max() < 1.5  # the grid interval's mean rounds peaks
        assert (signals[b][~inside] == 0).all()
        tokens = patterns.patchify(inside)
        assert np.array_equal(masked[b], ~tokens.any(1)) and (tokens.any(1) & ~tokens.all(1)).sum() <= 2


def test_the_maximum_is_taken_inside_the_range():
    signals, masked = seen(always(start=20.0, end=50.0), [10, 30, 60], [100, 20, 50])
    assert signals[0].max() == signals[0][np.abs(TWO_THETA - 30) < 0.1].max() == pytest.approx(100)
    assert masked[0].tolist() == [True] * 3 + [False] * 7 + [True] * 7  # the last point, 50.00, is of the next token


def test_a_range_with_nothing_to_see_is_not_measured():
    signals, masked = seen(always(start=20.0, end=50.0), [10, 60])
    assert not masked.any() and signals[0].max() == pytest.approx(100)


def test_some_scans_are_whole():
    _, masked = seen(dataclasses.replace(always(start=20.0, end=50.0), cut=0.4), [30], n=1000)
    assert masked.any(1).mean() == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("angle", [4.5, 5.0, 5.3, 89.0, 89.5, 89.9, 89.98, 90.5])
def test_a_line_at_the_end_of_the_grid_is_a_number(angle):
    """K-alpha2 stands elsewhere than the mean wavelength, there beyond the grid."""
    effects = Effects(ka2=1.0, instrument=(0.05, 0.2), counts=(500.0, 1000.0))
    for seed in range(20):
        signals, _ = augmented([angle, 40.0], [100.0, 10.0], [0, 2], draw(effects, 1, seed))
        assert np.isfinite(signals).all() and signals.min() >= 0


# ---------------------------------------------------------------- draws


def test_a_part_is_rendered_as_in_the_whole(crystals):
    two_theta, intensity, offsets = crystals
    drawn = draw(LABORATORY, 150, (3, 14))
    whole, masked = augmented(*crystals, drawn)
    lines = slice(offsets[40], offsets[60])
    part, part_masked = augmented(two_theta[lines], intensity[lines], offsets[40:61] - offsets[40], drawn[40:60])
    assert np.array_equal(part, whole[40:60]) and np.array_equal(part_masked, masked[40:60])
    again, _ = augmented(*crystals, draw(LABORATORY, 150, (3, 14)))
    other, _ = augmented(*crystals, draw(LABORATORY, 150, (3, 15)))
    assert np.array_equal(again, whole) and not np.array_equal(other, whole)
    assert np.isfinite(whole).all() and (whole >= 0).all() and whole.max(1) == pytest.approx(100)


def test_draws_fill_their_ranges_and_nothing_else():
    values = draw(LABORATORY, 20_000, 0).values
    for field in dataclasses.fields(Effects):
        chosen = getattr(LABORATORY, field.name)
        if field.name in ("ideal", "ideal_width"):
            continue
        drawn = values[field.name]
        if field.name in ("ka2", "cut"):
            assert (drawn > 0).mean() == pytest.approx(chosen, abs=0.02)
            continue
        if chosen is None:
            assert field.name == "cell" and not drawn.any()
            continue
        low, high = chosen
        assert low <= drawn.min() < low + 0.01 * (high - low) and high - 0.01 * (high - low) < drawn.max() <= high
    assert np.median(values["counts"]) == pytest.approx(np.sqrt(500 * 100_000), rel=0.05)
    assert np.median(values["zero_shift"]) == pytest.approx(0, abs=0.005)


def test_some_are_ideal_but_for_their_strain(crystals):
    mixed = dataclasses.replace(LABORATORY, cell=(1.0, 5.0), ideal=0.3)
    drawn, without = draw(mixed, 10_000, 0), draw(dataclasses.replace(mixed, ideal=0.0), 10_000, 0)
    ideal = np.isinf(drawn.values["counts"])
    assert ideal.mean() == pytest.approx(0.3, abs=0.02) and (drawn.values["cell"] >= 1).all()
    for name, values in drawn.values.items():
        assert np.array_equal(values[~ideal], without.values[name][~ideal])
    of_some, strained = draw(mixed, 150, 0), draw(Effects(cell=(1.0, 5.0)), 150, 0)
    ideal = np.isinf(of_some.values["counts"])
    strained = type(strained)(strained.values | {"cell": of_some.values["cell"]}, of_some.keys)
    for one, other in zip(augmented(*crystals, of_some), augmented(*crystals, strained)):
        assert np.allclose(one[ideal], other[ideal], atol=1e-4) and not np.array_equal(one, other)


def test_ideal_patterns_of_every_width(crystals):
    """Gaussian lines as wide as drawn; all else is what it is without the widths."""
    mixed = dataclasses.replace(LABORATORY, ideal=0.3)
    drawn, before = draw(dataclasses.replace(mixed, ideal_width=(0.03, 0.4)), 10_000, 0), draw(mixed, 10_000, 0)
    ideal = np.isinf(drawn.values["counts"])
    widths = drawn.values["instrument"][ideal]
    assert 0.03 <= widths.min() < 0.031 and 0.395 < widths.max() <= 0.4
    assert np.median(widths) == pytest.approx(np.sqrt(0.03 * 0.4), rel=0.05)
    for name, values in drawn.values.items():
        same = ~ideal if name == "instrument" else slice(None)
        assert np.array_equal(values[same], before.values[name][same])
    one_width = draw(dataclasses.replace(mixed, ideal=1.0, ideal_width=(0.1, 0.1)), 150, 0)
    instrument = draw(Effects(instrument=(0.1, 0.1)), 150, 0)
    assert np.array_equal(augmented(*crystals, one_width)[0], augmented(*crystals, instrument)[0])


def test_a_draw_does_not_depend_on_the_other_effects():
    alone = draw(Effects(counts=LABORATORY.counts), 10, 5)
    among = draw(LABORATORY, 10, 5)
    assert np.array_equal(alone.values["counts"], among.values["counts"]) and np.array_equal(alone.keys, among.keys)
