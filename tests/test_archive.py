"""What is kept of a run says what the run said; the committed records are whole."""

import json

import numpy as np
import pandas as pd
import pytest
from study import archive, knowledge, latent, texts
from study.variants import variant

from xxlib import PROJECT
from xxlib.datasets.store import Dataset
from xxlib.datasets.targets import TARGETS
from xxlib.training import runs


@pytest.fixture(scope="module")
def trained(trained_run):
    """Folder of a finished run of two targets on the embedded dataset, with its latent space."""
    folder = trained_run("kept", n_steps=20, targets=("e_form", "crystal_system"))
    latent.describe(folder)
    return folder


@pytest.fixture
def kept(trained, tmp_path, monkeypatch):
    """The place where what is kept of that run lies."""
    monkeypatch.setattr(runs, "RUNS", trained.parent)
    monkeypatch.setattr(archive, "RESULTS", tmp_path)
    archive.keep(trained.name)
    return tmp_path


def test_a_record_says_what_the_run_folder_says(trained, kept):
    here, there = archive.read(trained.name, trained.parent), archive.read(trained.name, kept)
    assert here.metrics == there.metrics and here.config == there.config
    assert [here.parameters, here.samples, here.seconds] == [there.parameters, there.samples, there.seconds]
    for metric, target, split in (("mae", "e_form", "val"), ("error", None, "val"), ("loss", None, "train")):
        (samples, values), (same, kept_values) = (of.curve(metric, target, split) for of in (here, there))
        assert len(samples) and np.array_equal(samples, same) and kept_values == pytest.approx(values, rel=1e-7)
    assert archive.value(trained.name, "mae", "e_form", place=kept, exchanged="xrd") > 0
    with pytest.raises(KeyError, match="no mae of band_gap on test"):
        archive.value(trained.name, "mae", "band_gap", place=kept)


def test_errors_are_those_of_the_run_and_of_its_metrics(trained, kept):
    for target, metric in (("e_form", "mae"), ("crystal_system", "accuracy")):
        here, there = (archive.errors(trained.name, target, place) for place in (trained.parent, kept))
        assert here.equals(there) and len(here) == len(Dataset(PROJECT / "data" / "demo").indices("test"))
        value = archive.value(trained.name, metric, target, place=kept)
        assert here.mean() == pytest.approx(value if metric == "mae" else 100 - value, rel=1e-5)
    table = archive.predictions(trained.name, kept)
    assert {"formula", "split", "e_form", "e_form_predicted"} <= set(table)
    likeliest = np.stack(table["crystal_system_likeliest"])
    assert likeliest.shape == (len(table), 5) and (likeliest[:, 0] == table["crystal_system_predicted"]).all()
    assert all(len(set(row)) == 5 for row in likeliest[:20])
    assert archive.errors("never", "e_form", kept) is None and archive.read("never", kept) is None


def test_a_latent_space_is_kept_with_its_crystals(trained, kept):
    here, there = (archive.latent(trained.name, place) for place in (trained.parent, kept))
    assert here.index.equals(there.index) and set(there["crystal_system"]) > {"cubic", "monoclinic"}
    for name in ("PC 1", "PC 2", *latent.SPACES):
        assert np.allclose(here[name], there[name])
    assert there.attrs["variance"] == here.attrs["variance"] and len(there.attrs["variance"]) == 2


def test_ids_and_labels_are_kept_once(trained, kept):
    assert sorted(path.name for path in kept.iterdir()) == ["crystals", "latent", "predictions", "runs"]
    assert [path.name for path in (kept / "crystals").iterdir()] == ["demo.parquet"]
    columns = set(pd.read_parquet(kept / "predictions" / f"{trained.name}.parquet"))
    assert columns == {"row", "e_form_predicted", "crystal_system_predicted"}


def test_labels_are_kept_of_every_target_whose_gain_has_an_interval(tmp_path):
    targets = {name for run in [*knowledge.lines().values(), *texts.runs()] for name in run.objectives.targets}
    assert "log_bulk_modulus" in targets and targets <= set(archive.crystals("data/demo", tmp_path))


def test_a_search_keeps_no_predictions(trained_run, tmp_path, monkeypatch):
    folder = trained_run("search", n_steps=4, evaluate_test=False)
    monkeypatch.setattr(runs, "RUNS", folder.parent)
    monkeypatch.setattr(archive, "RESULTS", tmp_path)
    archive.keep(folder.name)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_committed_records_are_whole():
    """Every finished run of the tables has predictions of `test` that give its metric; the crystals are there once."""
    names = archive.names()
    assert len(names) >= 180 and len(archive.crystals("data/mp36k")) == 34634
    assert archive.crystals("data/mp36k").index.is_unique and archive.crystals("data/nomad2018").index.is_unique
    for name in names[::12]:
        record = archive.read(name)
        assert record.config["name"] == name
        judged = record.config["objectives"]["targets"] if record.config["evaluate_test"] else ()
        for target in set(judged) & set(archive.KEPT):
            metric = "mae" if TARGETS[target].kind == "regression" else "accuracy"
            value = archive.value(name, metric, target)
            error = archive.errors(name, target).mean()
            assert error == pytest.approx(value if metric == "mae" else 100 - value, rel=1e-5)


def test_a_place_is_that_of_the_preset():
    assert archive.place("small") == archive.RESULTS and archive.place("smoke") == runs.RUNS
    assert archive.label("smoke") == "demo, CHGNet labels, not DFT"
    json.dumps(archive.read(variant("small", "bimodal", "multi").name).config)
