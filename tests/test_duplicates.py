"""What splits share: planted ids and formulas are counted, and nothing else."""

import numpy as np
import pytest
from test_datasets import listed, rock_salt

from xxlib import PROJECT
from xxlib.datasets.duplicates import leakage
from xxlib.datasets.sources import parsed
from xxlib.datasets.splits import by_random
from xxlib.datasets.store import Dataset
from xxlib.prepare import prepare


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """NaCl is in train, val and test under other ids, LiF in val and experimental under one."""
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


def test_within_a_split_nothing_leaks(planted):
    one = np.array(["train"] * len(planted))
    assert len(leakage(planted, one)) == 0


def test_demo_shares_no_formula_and_shares_some_when_split_at_random():
    demo = Dataset(PROJECT / "data" / "demo")
    assert leakage(demo)[["ids", "formulas"]].to_numpy().sum() == 0
    dealt = leakage(demo, by_random(demo.column("split")))
    assert dealt["ids"].sum() == 0 and dealt["formulas"].sum() > 0
