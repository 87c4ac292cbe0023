"""What known crystals warn of: another anode, another formula, a second phase."""

import numpy as np
import pytest

from xxlib import PROJECT
from xxlib.predict import Predictor
from xxlib.scans.conditioning import condition
from xxlib.scans.reading import read_scan
from xxlib.scans.scan import Scan

EXAMPLES = PROJECT / "data" / "examples"


@pytest.fixture(scope="module")
def model():
    return Predictor.load()


def of_crystals(answer):
    """Its warnings that known crystals give."""
    words = "explain the scan", "explains the scan", "second phase"
    return [warning for warning in answer.warnings if any(one in warning for one in words)]


@pytest.mark.parametrize("formula", ["NaCl", "LaB6"])
def test_a_right_scan_is_not_warned_of(model, formula):
    answer = model.answer_or_refuse(formula, EXAMPLES / f"{formula}.uxd")
    assert answer.explanation.none < 0.1 and not of_crystals(answer)


@pytest.mark.parametrize(("formula", "told"), [("NaCl", "Co"), ("NaCl", "Mo"), ("LaB6", "Fe"), ("LaB6", "Cr")])
def test_a_wrong_anode_is_noticed_and_the_right_one_named(model, formula, told):
    """Also where a cell of another size explains the lines, as for NaCl with Co: all spacings are off by one factor."""
    answer = model.answer_or_refuse(formula, EXAMPLES / f"{formula}.uxd", told)
    (sentence,) = of_crystals(answer)
    assert f"Crystals of {formula} explain the scan if it was measured with Cu" in sentence


def test_a_wrong_formula_is_noticed_and_the_right_crystal_named(model):
    (sentence,) = of_crystals(model.answer_or_refuse("LaMnO3", EXAMPLES / "NaCl.uxd"))
    assert "No known crystal explains the scan as LaMnO3, and NaCl (mp-22862) does: check the formula" in sentence


def test_a_second_phase_is_named(model):
    """A scan of NaCl with a fifth of the intensity of silicon, on its angles."""
    salt = read_scan(EXAMPLES / "NaCl.uxd")
    lines, heights = (28.44, 47.30, 56.12, 69.13, 76.38, 88.03), (100, 55, 30, 6, 11, 12)  # of silicon, Cu K-alpha
    silicon = sum(h * np.exp(-0.5 * ((salt.two_theta - x) / 0.06) ** 2) for x, h in zip(lines, heights))
    mixed = salt.intensity + 0.2 * salt.intensity.max() * silicon / 100
    scan = Scan(two_theta=salt.two_theta, intensity=mixed, wavelength=condition(salt).wavelength)
    (sentence,) = of_crystals(model.answer_or_refuse("NaCl", scan))
    assert "Lines that remain are those of Si" in sentence and "is it a second phase?" in sentence
