"""Scaling: fits that find what made the points, intervals that hold the truth as often as they say."""

import numpy as np
import pytest
from study.power_laws import crossing, crossings, power_law
from study.pretraining import speed_up, steps_to_reach, value_at

SIZES = np.repeat([500, 1000, 2000, 4000, 8000, 16000], 3)


def points(a, b, c=0.0, noise=0.0, seed=0, n=SIZES):
    return (a * n**-b + c) * np.exp(noise * np.random.default_rng(seed).normal(size=len(n)))


def test_a_power_law_is_found_again():
    fit = power_law(SIZES, points(5000, 0.5))
    assert (fit.a, fit.b, fit.c) == (pytest.approx(5000), pytest.approx(0.5), 0)
    fit = power_law(SIZES, points(5000, 0.5, c=40), floor=True)
    assert (fit.a, fit.b, fit.c) == (
        pytest.approx(5000, rel=1e-3),
        pytest.approx(0.5, rel=1e-3),
        pytest.approx(40, rel=1e-3),
    )
    assert fit.error([1000, 4000]) == pytest.approx(5000 * np.array([1000, 4000]) ** -0.5 + 40, rel=1e-4)


def test_without_a_floor_none_is_invented():
    fit = power_law(SIZES, points(5000, 0.5, noise=0.03), floor=True)
    assert fit.interval("c")[0] == 0


@pytest.mark.parametrize("floor", [False, True])
def test_intervals_hold_the_truth_19_times_of_20(floor):
    """Of 100 series of points around a known law; the band at a size beyond them as well."""
    c = 40 if floor else 0
    held = np.zeros(2)
    for seed in range(100):
        fit = power_law(SIZES, points(5000, 0.5, c, noise=0.05, seed=seed), floor)
        low, high = fit.band([32000])
        held += [fit.interval("b")[0] < 0.5 < fit.interval("b")[1], low[0] < 5000 * 32000**-0.5 + c < high[0]]
    assert (held / 100 > 0.88).all() and (held / 100 < 1).all(), held / 100


@pytest.mark.filterwarnings("error")
def test_three_points_that_allow_almost_everything_still_have_a_band():
    """One degree of freedom: some draws are so steep that a has no number."""
    fits = [power_law((205, 821, 3285), errors) for errors in ((700, 300, 680), (670, 300, 592))]
    assert fits[0].draws[:, 0].max() > 710
    for fit in fits:
        low, high = fit.band((150, 1000, 4000))
        assert (low < fit.error((150, 1000, 4000))).all() and (fit.error((150, 1000, 4000)) < high).all()
    assert crossing(*fits)[1:] == (0, np.inf)


def test_a_crossing_has_an_interval_that_holds_it():
    truth = (20000 / 2000) ** (1 / (0.6 - 0.4))  # 20000 N^-0.6 = 2000 N^-0.4
    steep = [power_law(SIZES, points(20000, 0.6, noise=0.03, seed=seed)) for seed in range(20)]
    flat = [power_law(SIZES, points(2000, 0.4, noise=0.03, seed=100 + seed)) for seed in range(20)]
    at = [crossing(*lines) for lines in zip(steep, flat)]
    assert np.mean([low < truth < high for _, low, high in at]) > 0.8
    assert all(low < here < high for here, low, high in at)
    exact = crossing(power_law(SIZES, points(20000, 0.6)), power_law(SIZES, points(2000, 0.4)))
    assert exact == (pytest.approx(truth, rel=1e-3),) * 3


def test_lines_that_need_not_cross_have_an_open_interval():
    steep, flat = (power_law(SIZES, points(a, b, noise=0.1, seed=a)) for a, b in ((5000, 0.52), (3900, 0.48)))
    here, low, high = crossing(steep, flat)
    assert low < here < high == np.inf
    with pytest.raises(ValueError, match="do not cross"):
        crossing(power_law(SIZES, points(5000, 0.5)), power_law(SIZES, points(500, 0.5)))


def test_every_pair_of_lines_has_its_crossing_or_none():
    fits = {"a": power_law(SIZES, points(20000, 0.6)), "b": power_law(SIZES, points(2000, 0.4)),
            "c": power_law(SIZES, points(200, 0.4))}  # fmt: skip
    table = crossings(fits).set_index("lines")["training crystals"]
    assert table["a and b"] == pytest.approx(10**5, rel=1e-3) and table["a and c"] == pytest.approx(10**10, rel=1e-3)
    assert np.isnan(table["b and c"]), "parallel lines"
    assert len(crossings({})) == 0


@pytest.mark.parametrize(
    ("n", "errors", "floor", "words"),
    [
        ([1, 2], [2, 1], False, "2 points"),
        ([1, 1, 1], [2, 1, 2], False, "at 1 sizes"),
        ([1, 2, 4], [3, 2, 1], True, "3 parameters needs more"),
        ([1, 2, 4], [3, 2, 0], False, "positive"),
    ],
)
def test_points_that_make_no_fit_are_refused(n, errors, floor, words):
    with pytest.raises(ValueError, match=words):
        power_law(n, errors, floor)


# ---------------------------------------------------------------- speed-up

FALLING = (100, 200, 300, 400), (1.0, 0.6, 0.7, 0.4)  # steps, values


def test_steps_to_reach_a_value():
    assert steps_to_reach(*FALLING, 0.8) == pytest.approx(150)
    assert steps_to_reach(*FALLING, 0.5) == pytest.approx(300 + 100 * 0.2 / 0.3)
    assert steps_to_reach(*FALLING, 0.6) == pytest.approx(200)
    assert steps_to_reach(*FALLING, 2.0) == 100
    assert steps_to_reach(*FALLING, 0.3) == np.inf
    assert steps_to_reach((100, 200), (0.2, 0.6), 0.3, rising=True) == pytest.approx(125)


def test_a_value_after_a_share_of_training():
    assert value_at(*FALLING, 0.5) == pytest.approx(0.6)
    assert value_at(*FALLING, 0.375) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="at step 100, not after 5% of training"):
        value_at(*FALLING, 0.05)
    with pytest.raises(ValueError, match="nothing was evaluated"):
        value_at((), (), 0.05)


def test_speed_up_is_the_ratio_of_steps_to_the_quarter_of_scratch():
    steps = np.arange(50, 1001, 50)
    scratch, twice, five = ((steps, 1 - steps / slow) for slow in (2000, 1000, 400))  # 0.875 at step 250, 125, 50
    result = speed_up([scratch, scratch], [twice, five])
    assert result["ratios"] == pytest.approx([2, 5]) and result["mean"] == pytest.approx(3.5)
    assert result["std"] == pytest.approx(3 / np.sqrt(2))
    assert speed_up([scratch], [((50,), (1.0,))])["ratios"] == [0], "it never arrived"
    assert np.isnan(speed_up([scratch], [twice])["std"])
    with pytest.raises(ValueError, match="2 scratch and 1 pretrained"):
        speed_up([scratch, scratch], [twice])
    with pytest.raises(ValueError, match="not after 25% of training"):
        speed_up([((300, 400), (0.7, 0.4))], [twice])
