"""The floor below all networks: gradient boosting on statistics of the elements."""

import json

import numpy as np
import pytest
from study import archive
from study.floor import composition_statistics, element_properties, floor, name
from study.tables import CRYSTAL_SYSTEM, results_table, summary_table
from test_datasets import rock_salt

from xxlib.datasets.sources import Source, parsed
from xxlib.datasets.sources.formulas import formulas
from xxlib.datasets.store import Dataset
from xxlib.prepare import prepare


def test_element_properties_are_those_of_the_elements():
    table = element_properties()
    assert table.shape == (119, 18) and np.isnan(table[0]).all() and np.isnan(table[104:]).all()
    z, group, period, _, electronegativity, mass = table[26, :6]
    assert (z, group, period) == (26, 8, 4) and electronegativity == 1.83 and mass == pytest.approx(55.845)
    assert table[26, -7:].tolist() == [2, 3, 2, 0, 6, 0, 8]  # common oxidation states; 4s2 3d6
    assert table[82, -5:].tolist() == [2, 2, 10, 14, 28]  # lead: 6s2 6p2 5d10 4f14
    assert np.isnan(table[10, 4]), "neon has no electronegativity, which is not one of 0"


def test_composition_statistics_are_weighted_by_fractions(tmp_path):
    crystals = [parsed(rock_salt(5.6, 11, 17, "NaCl"), "here", split="train")]
    prepare(Source({"name": "one"}, lambda: iter(crystals)), tmp_path / "one", progress=False)
    (row,) = composition_statistics(Dataset(tmp_path / "one"))
    assert row[:5].tolist() == [14, 3, 11, 17, 6]  # of Z: mean, standard deviation, least, greatest, range
    assert row[-2:].tolist() == [2, 0.5]


def test_the_floor_is_a_run_that_tables_read(rock_salts, tmp_path):
    result = floor(rock_salts, "e_form", tmp_path / "floor-e_form")
    floor(rock_salts, "crystal_system", tmp_path / "floor-crystal_system")
    mae = archive.value("floor-e_form", "mae", "e_form", place=tmp_path)
    assert mae < 50 and "CPU" in result["hardware"] and result["commit"]
    assert archive.errors("floor-e_form", "e_form", tmp_path).mean() == pytest.approx(mae, abs=1e-3)
    table = summary_table(results_table(tmp_path)).set_index("targets")
    assert table.loc["e_form", "test e_form mae (meV/atom)"] == pytest.approx(mae)
    assert table.loc["crystal_system", CRYSTAL_SYSTEM] == 100
    assert set(table["model"]) == {"gradient boosting on element statistics, floor"}


def test_the_floor_learns_from_further_formulas(rock_salts, tmp_path):
    """From those of their `train` that have the label."""
    (tmp_path / "more.csv").write_text("formula,e_form,split\nNaF,-1,train\nKI,-5,train\nKBr,,train\nKF,-1,val\n")
    prepare(formulas(tmp_path / "more.csv"), tmp_path / "more", n_workers=1, progress=False)
    floor(rock_salts, "e_form", tmp_path / name("e_form", ["more"]), also=[Dataset(tmp_path / "more")])
    config = json.loads((tmp_path / "floor-e_form-with-more-s0" / "run.json").read_text())
    assert config["budget"]["batch_size"] == len(rock_salts.indices("train")) + 2
    assert config["data"]["also"] == [str(tmp_path / "more")]
