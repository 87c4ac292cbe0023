"""What splits share: planted duplicates are found, and nothing else."""

import numpy as np
import pytest
from test_datasets import listed, rock_salt

from xxlib import PROJECT
from xxlib.datasets.duplicates import SAME_PATTERN, leakage, same_patterns
from xxlib.datasets.sources import parsed
from xxlib.datasets.splits import by_random
from xxlib.datasets.store import Dataset
from xxlib.prepare import prepare


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Of NaCl in train, val holds a copy, test one 0.01 angstrom larger and one 0.02 angstrom larger; LiF is in val."""
    folder = tmp_path_factory.mktemp("data") / "planted"
    records = [
        parsed(rock_salt(5.60, 11, 17, "NaCl"), "", split="train"),
        parsed(rock_salt(4.03, 3, 9, "LiF"), "", split="val"),
        parsed(rock_salt(5.60, 11, 17, "copy"), "", split="val"),
        parsed(rock_salt(5.61, 11, 17, "near"), "", split="test"),
        parsed(rock_salt(5.62, 11, 17, "far"), "", split="test"),
        parsed(rock_salt(4.03, 3, 9, "LiF"), "", split="experimental"),
    ]
    prepare(listed(*records), folder, n_workers=1, progress=False)
    return Dataset(folder)


def test_shared_ids_and_formulas_are_counted(planted):
    table = leakage(planted).set_index("splits")
    assert table.loc["val, experimental"].tolist() == [1, 1]
    assert table.loc["train, val"].tolist() == table.loc["train, test"].tolist() == [0, 1]
    assert table.loc["train, experimental"].tolist() == [0, 0]
    assert len(table) == 6


def test_planted_duplicates_are_listed_and_nothing_else(planted):
    table = same_patterns(planted)
    found = {(row.id, row.id_2): row.cosine for row in table.itertuples()}
    assert set(found) == {("NaCl", "copy"), ("NaCl", "near"), ("copy", "near"), ("LiF", "LiF")}
    assert found["NaCl", "copy"] == pytest.approx(1) and SAME_PATTERN < found["NaCl", "near"] < 0.9999
    near = table.set_index(["id", "id_2"]).loc["NaCl", "near"]
    assert (near["split"], near["split_2"], near["formula"], near["space_group_2"]) == ("train", "test", "NaCl", 225)
    assert table["cosine"].is_monotonic_decreasing


def test_within_a_split_nothing_leaks(planted):
    one = np.array(["train"] * len(planted))
    assert len(leakage(planted, one)) == len(same_patterns(planted, one)) == 0


def test_demo_shares_no_formula_and_shares_some_when_split_at_random():
    demo = Dataset(PROJECT / "data" / "demo")
    assert leakage(demo)[["ids", "formulas"]].to_numpy().sum() == 0
    dealt = leakage(demo, by_random(demo.column("split")))
    assert dealt["ids"].sum() == 0 and dealt["formulas"].sum() > 0
