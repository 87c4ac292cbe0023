"""What known crystals warn of: another anode, another formula, a second phase."""

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from xxlib import PROJECT
from xxlib.crystals.crystal import Crystal
from xxlib.diffraction.scattering import sticks
from xxlib.diffraction.wavelengths import ANODES, CU_KA
from xxlib.predict import Predictor
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


def test_along_q_no_anode_is_doubted(model):
    """The lines stand where they do, here where those of Co stand that is taken for Cu."""
    salt = read_scan(EXAMPLES / "NaCl.uxd")
    q = 4 * np.pi * np.sin(np.radians(salt.two_theta / 2)) / CU_KA * ANODES["Co"][2] / CU_KA
    answer = model.answer_or_refuse("NaCl", pd.DataFrame({"q": q, "intensity": salt.intensity}))
    assert answer.sample.conditioned.axis == "q" and not any("anode" in warning for warning in answer.warnings)


def test_a_wrong_formula_is_noticed_and_the_right_crystal_named(model):
    (sentence,) = of_crystals(model.answer_or_refuse("LaMnO3", EXAMPLES / "NaCl.uxd"))
    assert "No known crystal explains the scan as LaMnO3, and NaCl (mp-22862) does: check the formula" in sentence


def test_a_second_phase_is_named(model):
    """A scan of NaCl to which the lines of Na2O were added, on the angles of the scan."""
    salt = read_scan(EXAMPLES / "NaCl.uxd")
    oxide = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.55), ["O", "Na"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    numbers, ones = np.array(oxide.atomic_numbers), np.ones(len(oxide))
    lines = sticks(Crystal("Na2O", oxide.lattice.matrix, numbers, oxide.frac_coords, ones))
    peaks = np.exp(-0.5 * ((salt.two_theta - lines.two_theta[:, None]) / 0.06) ** 2)
    mixed = salt.intensity + 0.2 * salt.intensity.max() * (lines.intensity[:, None] / 100 * peaks).sum(0)
    answer = model.answer_or_refuse("NaCl", Scan(two_theta=salt.two_theta, intensity=mixed, wavelength=CU_KA))
    (sentence,) = of_crystals(answer)
    assert "is it a second phase?" in sentence and 0.03 < answer.second[1] < 0.2
    assert "Na2O" in answer.second[0].table().known_formula[:2].tolist()
