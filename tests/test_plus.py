"""Answers of several models and what each counts."""

import numpy as np
import pandas as pd
import pytest
from study import archive, floor, plus
from test_leads import kept


def test_weights_have_the_least_absolute_error():
    rng = np.random.default_rng(0)
    said = rng.normal(size=(400, 3))
    assert plus.least_absolute(said, said @ [0.7, 0.3, 0]) == pytest.approx([0.7, 0.3, 0], abs=1e-6)
    noisy = said[:, 0] + rng.normal(scale=0.3, size=400)
    found = plus.least_absolute(said, noisy)
    assert found.min() >= 0 and found.sum() == pytest.approx(1)
    assert np.abs(said @ found - noisy).mean() <= np.abs(said[:, 0] - noisy).mean()


@pytest.fixture
def place(tmp_path):
    """Four crystals, two of val and two of test, and two runs with answers for each."""
    energies = {"e_form": [-1.0, -2.0, -3.0, -4.0]} | dict.fromkeys(("band_gap", "crystal_system", "space_group"), 0.0)
    crystals = pd.DataFrame(
        {"id": list("abcd"), "formula": list("ABCD"), "split": ["val"] * 2 + ["test"] * 2} | energies
    )
    archive._write(crystals, tmp_path / "crystals" / "mp36k.parquet")
    for config, errors in zip(plus.seeds("composition", "e_form"), ([0.1, 0.1, 0.3, 0.3], [-0.3, -0.3, 0.1, 0.1])):
        kept(tmp_path, config, ["c", "d"], crystals["e_form"][2:] + errors[2:])
        (tmp_path / "val_predictions").mkdir(exist_ok=True)
        said = pd.DataFrame({"row": [0, 1], "e_form_predicted": np.float32(crystals["e_form"][:2] + errors[:2])})
        archive._write(said, tmp_path / "val_predictions" / f"{config.name}.parquet")
    return tmp_path


def test_weights_are_those_of_val_and_test_is_not_asked(place):
    kinds = [[config.name] for config in plus.seeds("composition", "e_form")[:2]]
    assert plus.weights(kinds, "e_form", place) == pytest.approx([0.75, 0.25], abs=1e-5)  # on test it were 0 and 1
    for name in (name for kind in kinds for name in kind):
        (place / "predictions" / f"{name}.parquet").unlink()
    assert plus.weights(kinds, "e_form", place) == pytest.approx([0.75, 0.25], abs=1e-5)
    (place / "val_predictions" / f"{kinds[1][0]}.parquet").unlink()
    assert plus.weights(kinds, "e_form", place) is None and plus.weights(kinds[:1], "e_form", place) is None


def test_all_data_have_the_models_of_equal_data_too():
    for given, target, data in plus.GOALS:
        equal, every = ({name for kind in plus.kinds(given, target, of) for name in kind} for of in ("equal", data))
        assert equal - every <= {plus.BOOSTING["equal"]}  # that of all data has learned from the same crystals


def test_thorough_boosting_reads_the_fraction_of_each_element(rock_salts, tmp_path):
    fractions = floor.element_fractions(rock_salts)
    assert fractions.shape == (len(rock_salts), 119) and (fractions.sum(1) == 1).all()
    floor.floor(rock_salts, "e_form", tmp_path / "boosting-e_form-s0", thorough=True)
    record = archive.read("boosting-e_form-s0", tmp_path)
    assert record.config["model"]["max_iter"] == floor.THOROUGH["max_iter"]
