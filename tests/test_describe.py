"""Descriptions of a dataset: what robocrystallographer writes, in processes that may die; and what a model reads."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_datasets import rock_salt
from test_structures import dataset  # noqa: F401, a fixture

from xxlib.datasets.batches import COLLATE, MAX_LETTERS, has_modalities, make_batch
from xxlib.datasets.preparing.describing import description
from xxlib.datasets.store import DESCRIPTIONS, Dataset, DatasetError, joined
from xxlib.describe import PART, describe, main

# Of its form; what it writes of some crystals is slow, cannot be, or ends its process.
STAND_IN = """
import os, time
class StructureCondenser:
    def condense_structure(self, structure):
        return structure
class StructureDescriber:
    def __init__(self, describe_oxidation_states):
        assert describe_oxidation_states is False
    def describe(self, structure):
        time.sleep(float(os.environ.get("SLOW", 0)))
        what = os.environ.get(structure.composition.reduced_formula)
        if what == "wrong":
            raise ValueError("no sites\\nat all")
        if what == "dies":
            os.kill(os.getpid(), 9)
        return f"{structure.composition.reduced_formula} – a salt of {len(structure)} atoms"
"""


@pytest.fixture
def salts(tmp_path, monkeypatch):
    """Folder of a dataset of eight salts with structures, and a stand-in for robocrystallographer on the path."""
    from test_datasets import listed

    from xxlib.datasets.sources import parsed
    from xxlib.prepare import prepare

    (tmp_path / "path" / "robocrys").mkdir(parents=True)
    (tmp_path / "path" / "robocrys" / "__init__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "path"), os.environ.get("PYTHONPATH", "")]))
    pairs = [(z, x) for z in (11, 19, 37, 55) for x in (17, 35)]
    records = [parsed(rock_salt(5.0 + 0.2 * k, *pair, f"s{k}"), "here", split=("train", "val", "test")[k % 3])
               for k, pair in enumerate(pairs)]  # fmt: skip
    prepare(listed(*records), tmp_path / "salts", progress=False, structure=True)
    return tmp_path / "salts"


def test_every_crystal_is_described(salts):
    main([str(salts), "--workers", "2"])
    assert not (salts / PART).exists()
    table = pq.read_table(salts / DESCRIPTIONS).to_pydict()
    assert table["id"] == [f"s{k}" for k in range(8)] and table["description"][0] == "NaCl – a salt of 8 atoms"
    assert Dataset(salts).descriptions[1] == "NaBr – a salt of 8 atoms"
    with pytest.raises(SystemExit, match="is there already: remove it to have it written anew"):
        main([str(salts)])


def test_a_crystal_that_cannot_be_described_is_said(salts, monkeypatch, capsys):
    monkeypatch.setenv("KCl", "wrong")
    monkeypatch.setenv("RbCl", "dies")
    main([str(salts)])
    said = capsys.readouterr().out
    assert "2 crystals have no description" in said and "s2: ValueError: no sites at all" in said
    assert "s4: its process died, twice (SIGKILL)" in said
    assert (Dataset(salts).descriptions == "").sum() == 2


def test_one_beyond_the_time_limit_is_given_up(salts, monkeypatch):
    monkeypatch.setenv("SLOW", "30")
    refused = describe(salts, n_workers=8, time_limit=0.2, progress=False)
    assert len(refused) == 8 and set(refused.values()) == {"longer than 0.2 s, twice"}


def test_killed_it_goes_on_where_it_was(salts):
    """kill -9 between two crystals, in the middle of a line, too."""
    command = [sys.executable, "-m", "xxlib.describe", str(salts)]
    process = subprocess.Popen(command, env=os.environ | {"SLOW": "0.5"}, stderr=subprocess.DEVNULL)
    while not (salts / PART).exists() or len((salts / PART).read_text().splitlines()) < 2:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [json.loads(line) for line in (salts / PART).read_text().splitlines()]
    with open(salts / PART, "a") as file:
        file.write('["s7", "Cs')
    with open(salts / PART, "r+") as file:  # what was written is taken as it is
        file.write(json.dumps([before[0][0], "of mine", ""]).ljust(len(json.dumps(before[0]))))
    describe(salts, progress=False)
    said = Dataset(salts).descriptions
    assert said[0] == "of mine" and said[7] == "CsBr – a salt of 8 atoms" and (said != "").all()


def test_a_damaged_beginning_is_named(salts):
    (salts / PART).write_text('["s0", "of mine", ""]\n["s1", 3\n')
    with pytest.raises(DatasetError, match=r"descriptions\.part\.jsonl is damaged .*: remove it, and the"):
        describe(salts, progress=False)


def test_what_cannot_be_described_is_refused(salts, tmp_path, monkeypatch):
    monkeypatch.setattr("xxlib.describe.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="is not installed: pip install inflect pubchempy && pip install --no-deps"):
        main([str(salts)])
    from test_datasets import listed

    from xxlib.datasets.sources import parsed
    from xxlib.prepare import prepare

    prepare(listed(parsed(rock_salt(5.6, 11, 17, "x"), "here", split="train")), tmp_path / "plain", progress=False)
    with pytest.raises(DatasetError, match="has no structures to describe: prepare it with --structure"):
        describe(tmp_path / "plain")


def test_a_batch_has_what_is_written(salts, tmp_path):
    """In UTF-8; what is beyond the limit is cut; of a crystal without a line nothing is given."""
    words = {"s0": "Sel – gemme", "s1": "x" * (MAX_LETTERS + 5), "s2": None}
    pq.write_table(pa.table({"id": list(words), "description": list(words.values())}), salts / DESCRIPTIONS)
    data, rows = Dataset(salts), np.arange(4)
    batch = make_batch(data, rows, ("description", "structure"))
    letters = batch.inputs["description"].letters
    assert letters.shape == (4, MAX_LETTERS) and bytes(letters[0][letters[0] > 0].tolist()).decode() == words["s0"]
    assert batch.given["description"].tolist() == [True, True, False, False]
    assert has_modalities(data, rows, ("description",))["description"].equal(batch.given["description"])
    nothing = batch.only(("structure",)).inputs["description"]
    assert nothing.pad.all() and joined(data, data).descriptions.tolist() == 2 * data.descriptions.tolist()
    (salts / DESCRIPTIONS).write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"descriptions\.parquet cannot be read .* it needs columns id and descr"):
        COLLATE["description"](Dataset(salts), rows)
    (salts / DESCRIPTIONS).unlink()
    with pytest.raises(DatasetError, match=r"descriptions\.parquet is missing: python -m xxlib.describe"):
        COLLATE["description"](Dataset(salts), rows)


def test_robocrystallographer_writes_of_a_crystal():
    pytest.importorskip("robocrys", reason="pip install inflect pubchempy; pip install --no-deps robocrys matminer")
    said = description(rock_salt(5.64, 11, 17, "x"))
    assert "Halite" in said and "Fm-3m" in said and "bond lengths are 2.82" in said
