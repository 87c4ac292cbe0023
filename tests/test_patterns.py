"""Patterns: the grid, the peaks on it, and the tokens they are cut into."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from xxlib.datasets.batches import render_torch
from xxlib.diffraction import patterns
from xxlib.diffraction.patterns import N_POINTS, SIGMA, TWO_THETA, patchify, render_one, unpatchify
from xxlib.diffraction.scattering import Sticks


def make_sticks(two_theta, intensity=None):
    two_theta = np.atleast_1d(np.asarray(two_theta, float))
    intensity = np.full(len(two_theta), 100.0) if intensity is None else np.asarray(intensity, float)
    return Sticks(two_theta, intensity, np.zeros((len(two_theta), 3), np.int8))


def dense_sum(sticks, sigma=SIGMA, mixing=0.0):
    """The pattern by its definition, in float64: pseudo-Voigt peaks of the area of their sticks."""
    out = np.zeros(N_POINTS)
    for angle, area, s, eta in np.broadcast(sticks.two_theta, sticks.intensity, sigma, mixing):
        u, fwhm = (TWO_THETA - angle) / s, np.sqrt(8 * np.log(2))
        gaussian = np.exp(-0.5 * u**2)
        lorentzian = 1 / (1 + (2 * u / fwhm) ** 2)
        end = 1 / (1 + (2 * 8 / fwhm) ** 2)
        lorentzian = np.maximum(lorentzian - end, 0) / (1 - end)
        fine = np.linspace(-8, 8, 100_001)
        lorentzian_area = np.trapezoid((1 / (1 + (2 * fine / fwhm) ** 2) - end) / (1 - end), fine)
        profile = eta * lorentzian + (1 - eta) * gaussian
        out += area * profile / s / (eta * lorentzian_area + (1 - eta) * np.sqrt(2 * np.pi))
    return out * 100 / out.max()


@pytest.fixture(scope="module")
def real_sticks(shared_data):
    rows = pq.read_table(shared_data / "mp36k" / "sticks_pymatgen_2024.11.13.parquet")[:150].to_pylist()
    return [make_sticks(row["two_theta"], row["intensity"]) for row in rows]


def test_grid():
    assert TWO_THETA.shape == (4250,)
    assert TWO_THETA[0] == 5.0
    assert np.isclose(TWO_THETA[-1], 89.98, rtol=0, atol=1e-12)
    assert np.allclose(np.diff(TWO_THETA), 0.02, rtol=0, atol=1e-12)
    assert np.allclose(TWO_THETA, np.round(TWO_THETA, 2), rtol=0, atol=1e-12)
    assert patterns.grid() == {"start": 5.0, "step": 0.02, "n_points": 4250}


@pytest.mark.parametrize("shape", [(4250,), (3, 4250), (2, 3, 4250)])
def test_tokens_and_back(shape):
    signal = np.random.default_rng(0).random(shape, np.float32)
    tokens = patchify(signal)
    assert tokens.shape == (*shape[:-1], 17, 250)
    assert np.array_equal(unpatchify(tokens), signal)
    tensor = torch.from_numpy(signal)
    assert torch.equal(patchify(tensor), torch.from_numpy(tokens))
    assert torch.equal(unpatchify(patchify(tensor)), tensor)


def test_a_token_is_five_degrees():
    tokens = patchify(TWO_THETA)
    assert np.allclose(tokens[:, 0], 5.0 + 5.0 * np.arange(17))
    assert np.allclose(tokens[3], np.arange(20.0, 25.0 - 0.01, 0.02))


@pytest.mark.parametrize("angle", [30.0, 30.01, 30.004, 47.1237, 5.5, 89.5])
def test_one_stick_is_a_gaussian_at_its_angle(angle):
    signal = render_one(make_sticks(angle)).astype(np.float64)
    assert (signal.shape, render_one(make_sticks(angle)).dtype) == ((4250,), np.float32)
    assert signal.max() == pytest.approx(100, abs=1e-4)
    assert abs(TWO_THETA[signal.argmax()] - angle) <= 0.01 + 1e-9
    near = np.abs(TWO_THETA - angle) < 0.35
    weights = signal[near] / signal[near].sum()
    centre = weights @ TWO_THETA[near]
    assert abs(centre - angle) < 2e-4  # between grid points too
    assert abs(np.sqrt(weights @ (TWO_THETA[near] - centre) ** 2) - 0.1) < 1e-3
    assert np.abs(signal - dense_sum(make_sticks(angle))).max() < 2e-3
    assert (signal[np.abs(TWO_THETA - angle) > 0.7] == 0).all()


@pytest.mark.parametrize("sigma", [0.04, 0.1, 0.3])
def test_width_is_the_one_asked_for(sigma):
    signal = render_one(make_sticks(40.0), sigma=sigma).astype(np.float64)
    weights = signal / signal.sum()
    assert np.sqrt(weights @ (TWO_THETA - 40.0) ** 2) == pytest.approx(sigma, rel=2e-3)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
def test_real_patterns_are_the_exact_sum(real_sticks, sigma):
    for sticks in real_sticks[::10]:
        assert np.abs(render_one(sticks, sigma) - dense_sum(sticks, sigma)).max() < 2e-3


def test_each_peak_may_have_a_width_and_a_shape_of_its_own(real_sticks):
    random = np.random.default_rng(0)
    for sticks in real_sticks[::15]:
        sigma, mixing = random.uniform(0.03, 0.4, len(sticks.two_theta)), random.uniform(0, 1, len(sticks.two_theta))
        assert np.abs(render_one(sticks, sigma) - dense_sum(sticks, sigma)).max() < 2e-3
        assert np.abs(render_one(sticks, sigma, mixing) - dense_sum(sticks, sigma, mixing)).max() < 2e-3


@pytest.mark.parametrize("mixing", [0.0, 0.4, 1.0])
def test_width_at_half_maximum_does_not_depend_on_the_shape(mixing):
    signal = render_one(make_sticks(40.0), sigma=0.5, mixing=mixing)
    width = 0.02 * (signal >= 50).sum()
    assert width == pytest.approx(0.5 * np.sqrt(8 * np.log(2)), rel=0.04)  # the Lorentzian's own end takes 2 %


def test_a_peak_keeps_its_area():
    signal = render_one(make_sticks([30.0, 60.0], [80, 80]), sigma=np.array([0.05, 0.25]))
    low, high = signal[TWO_THETA < 45], signal[TWO_THETA > 45]
    assert low.sum() == pytest.approx(high.sum(), rel=1e-3)
    assert low.max() / high.max() == pytest.approx(5, rel=1e-2)


def test_each_crystal_may_be_shifted():
    sticks = make_sticks([30.0, 60.0], [80, 100])
    both = patterns.render(
        np.tile(sticks.two_theta, 2), np.tile(sticks.intensity, 2), [0, 2, 4], shift=np.array([0.1, -0.06])
    )
    for signal, shift in zip(both, (0.1, -0.06)):
        assert np.abs(signal - render_one(make_sticks(sticks.two_theta + shift, sticks.intensity))).max() < 1e-3


def test_torch_renders_the_same_patterns(real_sticks):
    some = [*real_sticks[:30], make_sticks([1.0, 4.7, 30.0, 89.9, 95.0])]
    two_theta = np.concatenate([sticks.two_theta for sticks in some]).astype(np.float32)
    intensity = np.concatenate([sticks.intensity for sticks in some]).astype(np.float16)
    offsets = np.cumsum([0] + [len(sticks.two_theta) for sticks in some])
    expected = patterns.render(two_theta, intensity, offsets)
    tensors = [torch.from_numpy(array) for array in (two_theta, intensity, offsets)]
    rendered = render_torch(*tensors).numpy()
    assert (rendered.shape, rendered.dtype) == ((31, 4250), np.float32)
    assert np.abs(rendered - expected).max() < 1e-3


def test_peaks_at_and_beyond_the_ends():
    inside = [20.0, 60.0]
    for angle in (4.0, 4.5, 4.6, 4.99, 5.0, 5.01, 89.97, 89.98, 89.99, 90.4, 90.5, 91.0):
        sticks = make_sticks([angle, *inside] if angle < 20 else [*inside, angle])
        signal = render_one(sticks)
        assert np.abs(signal - dense_sum(sticks)).max() < 2e-3
        assert np.isfinite(signal).all()
    # half of a peak at the very end is on the grid; of one half a degree beyond it nothing
    assert render_one(make_sticks([5.0, 20.0]))[0] == pytest.approx(100, abs=1e-3)
    assert render_one(make_sticks([4.5, 20.0]))[:100].max() < 1e-3


def test_peaks_far_from_the_grid_do_nothing():
    expected = render_one(make_sticks([20.0]))
    for angle in (-50.0, 0.0, 95.0, 170.0):
        assert np.array_equal(render_one(make_sticks([20.0, angle])), expected)


def test_batch_is_every_pattern_alone(real_sticks):
    some = real_sticks[:20]
    offsets = np.cumsum([0] + [len(sticks.two_theta) for sticks in some])
    # as they come from a dataset: float32 and float16
    two_theta = np.concatenate([sticks.two_theta for sticks in some]).astype(np.float32)
    intensity = np.concatenate([sticks.intensity for sticks in some]).astype(np.float16)
    batch = patterns.render(two_theta, intensity, offsets)
    assert (batch.shape, batch.dtype) == ((20, 4250), np.float32)
    for i in range(20):
        piece = slice(offsets[i], offsets[i + 1])
        assert np.array_equal(batch[i], render_one(make_sticks(two_theta[piece], intensity[piece])))
    assert np.allclose(batch.max(1), 100, rtol=1e-6)


def test_overlapping_peaks_add_up():
    signal = render_one(make_sticks([30.0, 30.0, 50.0], [50, 50, 100]))
    assert signal[TWO_THETA.searchsorted(30.0 - 1e-6)] == pytest.approx(100, abs=1e-3)
    assert signal[TWO_THETA.searchsorted(50.0 - 1e-6)] == pytest.approx(100, abs=1e-3)


def test_pattern_without_intensity_is_refused():
    with pytest.raises(ValueError, match="no intensity between 5 and 90 degree"):
        render_one(make_sticks([4.0, 91.0]))
    two_theta, intensity = np.array([30.0, 40.0, 92.0]), np.full(3, 100.0)
    with pytest.raises(ValueError, match="pattern 1 of the batch"):
        patterns.render(two_theta, intensity, np.array([0, 2, 3]))
    with pytest.raises(ValueError, match="pattern 1 of the batch"):
        patterns.render(two_theta, intensity, np.array([0, 2, 2]))  # no sticks at all
