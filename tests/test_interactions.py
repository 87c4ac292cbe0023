"""Shapley interactions between the elements of a formula."""

import itertools

import numpy as np
import pandas as pd
import pytest
from study import interactions

from xxlib import PROJECT
from xxlib.answering.inference import Ensemble, model_files
from xxlib.datasets.store import Dataset

pytest.importorskip("shapiq", reason="the extra `interactions` is not installed")


def test_own_values_and_pairs_add_up_to_the_whole():
    """Expected by hand: of a sum over elements and pairs each pair is its own interaction; of a product of three
    elements every pair has a third."""
    players = interactions.coalitions(3).astype(float)
    values = players @ np.array([1.0, 2.0, -1.0]) + 3 * players[:, 0] * players[:, 1]
    own, pairs = interactions.shapley(values, 3)
    assert np.allclose(pairs, [[0, 3, 0], [3, 0, 0], [0, 0, 0]])
    assert np.isclose(own.sum() + pairs[np.triu_indices(3, 1)].sum(), values[-1])
    own, pairs = interactions.shapley(players.prod(1), 3)
    assert np.isclose(own.sum() + pairs[np.triu_indices(3, 1)].sum(), 1)
    assert np.ptp(pairs[np.triu_indices(3, 1)]) < 1e-9 < pairs[0, 1]
    own, pairs = interactions.shapley([0.5], 1)
    assert own.tolist() == [0.5] and pairs.tolist() == [[0]]


def test_a_part_is_worth_what_a_run_says_of_it_alone(trained_run):
    """In eV for an atom of the whole formula."""
    run = trained_run("both")
    ensemble = Ensemble.load(model_files(run))
    formula = np.array([8, 22, 38], np.uint8), np.array([0.6, 0.2, 0.2], np.float32)  # SrTiO3
    oxide = np.array([8, 22], np.uint8), np.array([0.75, 0.25], np.float32)
    (whole,), (part,) = (interactions.worth(ensemble, [one]) for one in (formula, oxide))
    assert whole.shape == (7,) and part.shape == (3,)
    place = interactions.coalitions(3).tolist().index([True, True, False])
    assert whole[place] == pytest.approx(0.8 * part[-1], rel=1e-5)
    both = interactions.worth(ensemble, [formula, oxide])
    assert [len(one) for one in both] == [7, 3] and np.allclose(both[0], whole) and np.allclose(both[1], part)


def test_elements_have_the_kind_that_chemists_give_them():
    expected = {11: 0, 20: 0, 57: 1, 92: 1, 21: 1, 26: 2, 13: 3, 50: 3, 82: 3, 14: 4, 1: 4, 5: 4, 7: 5, 15: 5, 8: 6,
                34: 6, 9: 7, 53: 7}  # fmt: skip
    found = {z: interactions.kind(z) for z in expected}
    assert {z: interactions.KINDS[place] for z, place in found.items() if place != expected[z]} == {}


def test_pairs_are_averaged_by_kinds_and_said(tmp_path):
    """Of fewer than ten examples nothing is said."""
    rows = [(8, 20, -600.0), (20, 8, -400.0)] * 6 + [(8, 9, 5.0)] * 9
    table = interactions.by_kind(pd.DataFrame(rows, columns=["one", "other", "interaction"]))
    (row,) = table.to_dict("records")
    assert (row["one"], row["other"], row["pairs"]) == ("alkali, alkaline earth", "chalcogen", 12)
    assert row[interactions.VALUE] == pytest.approx(-500) and row[interactions.SIZE] == pytest.approx(500)
    assert interactions.findings(tmp_path) == ["Interactions between elements: no run is looked at."]
    runs = [table.assign(run=run.name) for run in interactions.compared().values()]
    runs[1] = runs[1].assign(**{interactions.VALUE: -450.0})
    pd.concat(runs).to_csv(tmp_path / "interactions.csv")
    said = interactions.findings(tmp_path)
    assert "alkali, alkaline earth with chalcogen -500" in said[0] and "(-500 and -450)" in said[3]
    (figure,) = interactions.figures(place=tmp_path).values()
    assert len(figure.axes) == len(runs) + 1  # and the scale of colours


def test_formulas_are_those_of_test_each_once():
    dataset = Dataset(PROJECT / "data" / "demo")
    found = interactions.formulas_of(dataset, 20)
    assert len({tuple(zip(*map(tuple, one))) for one in found}) == len(found) == 20
    assert all(2 <= len(ids) <= interactions.MOST for ids, _ in found)
    test = [tuple(dataset.take("element_ids", [row])[0]) for row in dataset.indices("test")]
    assert all(tuple(ids) in test for ids, _ in itertools.islice(found, 5))
