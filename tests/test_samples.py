"""Samples: formulas with their doubts, scans given as arrays, and what is no pattern."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xxlib.diffraction.patterns import N_POINTS
from xxlib.predict import Predictor
from xxlib.scans.samples import read_sample
from xxlib.scans.scan import Scan, ScanError

ANGLES = np.arange(10, 80, 0.02)


def counts(peaks=(27.3, 31.7, 45.4, 56.5)):
    """Intensities at ANGLES: peaks of 800 on a background of 20."""
    noise = np.random.default_rng(0).normal(0, 0.5, len(ANGLES))
    return 20 + noise + sum(800 * np.exp(-0.5 * ((ANGLES - peak) / 0.08) ** 2) for peak in peaks)


PAIRS = {
    "tuple": (ANGLES, counts()),
    "lists": [ANGLES.tolist(), counts().tolist()],
    "rows": np.array([ANGLES, counts()]),
    "columns": np.column_stack([ANGLES, counts()]),
    "table": pd.DataFrame({"2theta": ANGLES, "counts": counts()}),
    "downwards": (ANGLES[::-1], counts()[::-1]),
}


@pytest.mark.parametrize("name", PAIRS)
def test_angles_and_intensities_are_one_scan(name):
    sample = read_sample("NaCl", PAIRS[name], anode="Cu")
    expected = read_sample("NaCl", Scan(two_theta=ANGLES, intensity=counts()), anode="Cu")
    assert np.array_equal(sample.pattern, expected.pattern) and sample.modalities == ("composition", "xrd")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ((counts(), ANGLES), "give (two_theta, intensity)"),
        ((ANGLES, counts()[:-1]), "3500 angles but 3499 intensities"),
        ((ANGLES, np.where(ANGLES < 20, np.nan, counts())), "no finite number"),
        ((ANGLES, 1e300 * counts()), "which no detector counts"),
        (Scan(two_theta=ANGLES, intensity=1e305 * counts()), "which no detector counts"),
        (1e36 * np.arange(N_POINTS), "which no detector counts"),
        (np.full(N_POINTS, np.inf), "finite numbers"),
    ],
)
def test_arrays_that_cannot_be_a_scan(pattern, reason):
    with pytest.raises(ValueError) as caught:
        read_sample("NaCl", pattern, anode="Cu")
    assert reason in str(caught.value)


def test_intensities_near_zero_are_scaled():
    pattern = 1e-300 * (1 + np.arange(N_POINTS) % 50)
    assert np.isclose(read_sample(None, pattern).pattern.max(), 100)


@pytest.mark.parametrize(
    ("formula", "warning"),
    [
        ("C12H22O11", "probably molecular"),
        ("Xe", "probably molecular"),
        ("C60", "probably molecular"),
        ("SIO2", "did you mean SiO2?"),
        ("CuSO4.5H2O", "was read as CuSO4 + 5H2O"),
    ],
)
def test_doubts_of_a_formula_are_warnings_of_its_sample(formula, warning):
    assert any(warning in text for text in read_sample(formula).warnings)
    assert read_sample("LaMnO3").warnings == ()


def test_a_file_name_that_is_no_utf8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.xy"))
    path.write_text("".join(f"{x:.2f} {y:.2f}\n" for x, y in zip(ANGLES, counts())))
    assert read_sample(None, path, anode="Cu").name.encode() == "caf\ufffd.xy".encode()


@pytest.fixture(scope="module")
def model(checkpoint):
    return Predictor.load(checkpoint)


@pytest.mark.parametrize("make", [list, tuple, np.array, pd.Series, pd.Index, lambda f: np.array(f, object)])
def test_formulas_in_any_list_are_a_row_each(model, make):
    table = model(make(["NaCl", "KCl"]), None)
    assert table["formula"].tolist() == ["NaCl", "KCl"]
    assert table["refused"].tolist() == ["", ""]


def test_what_a_table_lacks_is_not_given(model):
    table = model(pd.Series(["NaCl", np.nan]), [None, PAIRS["tuple"]])
    assert table["answered_from"].tolist() == ["composition", "xrd"]


def test_a_pair_is_one_sample_and_two_pairs_are_two(model):
    assert len(model("NaCl", PAIRS["tuple"], anode="Cu")) == 1
    assert len(model(["NaCl", "KCl"], PAIRS["tuple"], anode="Cu")) == 2  # one scan for both
    assert len(model(["NaCl", "KCl"], [PAIRS["tuple"], PAIRS["columns"]], anode="Cu")) == 2
    with pytest.raises(ScanError, match="two_theta, intensity"):
        model("NaCl", (counts(), ANGLES))


def test_intensities_on_the_grid_are_one_pattern_in_any_list(model):
    pattern = 1.0 + 50 * (np.arange(N_POINTS) % 500 == 0)
    for given in (pattern, list(pattern), pd.Series(pattern)):
        assert len(model("NaCl", given)) == 1
    assert len(model("NaCl", np.stack([pattern, pattern[::-1], pattern]))) == 3
    assert len(model("NaCl", [pattern, pattern[::-1]])) == 2
