"""Names of runs, and the plan of those behind the tables of mp36k."""

import dataclasses
import importlib.util
import json
import shutil
import sys

import pandas as pd
import pytest
import torch
from study.variants import MULTI, pretraining, variant

from xxlib import PROJECT
from xxlib.training import runs
from xxlib.training.config import RunConfig

RESULTS = PROJECT / "data" / "results"


@pytest.fixture(scope="module")
def mp36k():
    """data/results/mp36k.py, which is a script and no package."""
    sys.path.insert(0, str(RESULTS))
    try:
        spec = importlib.util.spec_from_file_location("mp36k", RESULTS / "mp36k.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        yield script
    finally:
        sys.path.remove(str(RESULTS))


def test_a_name_says_what_sets_a_run_apart():
    both = pretraining("small", "both")
    multi = variant("small", "bimodal", "multi")
    tuned = variant("small", "bimodal", "e_form", both, seed=2, n_steps=4000, n_train=870)
    assert (both.name, multi.name) == ("pretrain-both-s0", "bimodal-multi-s0")
    assert tuned.name == "bimodal-e_form-steps4000-n870-from-both-s2" and tuned.initial == "data/runs/pretrain-both-s0"
    frozen = variant("small", "bimodal", "band_gap", multi, frozen=True)
    assert frozen.name == "bimodal-band_gap-frozen-from-multi-s0" and frozen.frozen
    likely = variant("small", "bimodal", "multi", likelihood=True)
    assert likely.name == "bimodal-multi-likelihood-s0" and likely.likelihood
    masked = pretraining("smoke", "mxm", hidden_rate=0.1, hidden_span=2, unlabelled="data/generated50k")
    assert masked.name == "smoke-pretrain-mxm-rate0.1-span2-with-generated50k-s0"
    assert variant("smoke", "xrd", "e_form", masked).name.endswith("-from-mxm-rate0.1-span2-with-generated50k-s0")
    assert multi.targets == MULTI and both.targets == () and both.objectives == ("contrastive", "mxm")
    assert variant("small", "mat2vec", "e_form").model.element_vectors == "mat2vec"


def test_no_two_runs_of_the_plan_share_a_name(mp36k):
    planned = [config for configs in mp36k.plan.parts().values() for config in configs]
    of = {config.name: config for config in planned}
    assert all(of[config.name] == config for config in planned)
    searches = {kind: mp36k.plan.search(kind) for kind in mp36k.plan.KINDS}
    for kind, searched in searches.items():
        rates = [config.learning_rate for config in searched]
        assert tuple(rates[:4]) == mp36k.plan.LEARNING_RATES and rates == sorted(set(rates)), kind
        assert len(rates) == 4 + len(mp36k.plan.HIGHER.get(kind, ()))
    names = [config.name for searched in searches.values() for config in searched]
    assert len(names) == len(set(names)) and not set(names) & set(of)
    assert {mp36k.plan.kind(config) for config in planned} == {*mp36k.plan.KINDS, "predictor"}


def test_every_start_is_itself_planned(mp36k):
    of = mp36k.by_name()
    for config in of.values():
        if config.initial:
            start = of[config.initial.removeprefix("data/runs/")]
            assert start.model == config.model and start.split == config.split


def test_committed_runs_are_those_of_the_plan(mp36k):
    """A committed run has the name, and apart from its threads the config, that the plan gives it."""
    of = mp36k.by_name()
    for path in sorted(RESULTS.glob("runs/*/run.json")):
        if not path.parent.name.startswith("floor-"):
            said = RunConfig.load(path)
            assert dataclasses.replace(of[said.name], n_threads=said.n_threads) == said


def test_committed_tables_are_those_of_the_committed_runs(mp36k, tmp_path, monkeypatch):
    monkeypatch.setattr(mp36k, "RESULTS", tmp_path)
    mp36k.write_tables()
    written = sorted(path.name for path in tmp_path.glob("*.csv"))
    assert "table_1.csv" in written and "table_5.csv" in written
    for name in written:
        assert (tmp_path / name).read_text() == (RESULTS / name).read_text(), f"{name}: mp36k.py --tables renews it"


@pytest.fixture
def trained(mp36k, tmp_path, monkeypatch):
    """The RunConfigs that mp36k.train began, which are finished at once, in folders of their own."""
    begun = []

    def begin(config, n_threads):
        begun.append(config)
        folder = tmp_path / "runs" / config.name
        if config.initial:
            mp36k.fetch(config.initial.removeprefix("data/runs/"))
        if runs.results(folder) is None:
            folder.mkdir(parents=True, exist_ok=True)
            runs.save_weights(folder, {"heads.weight": torch.tensor([1 / 3])}, {"name": config.name})
            # The lowest error is that of a model that ignores its patterns.
            error, ignores = {2e-3: (0.5, True), 5e-4: (1.0, False)}.get(config.learning_rate, (2.0, False))
            said = {"val/error": error, "val/e_form_mae": 1, "seconds": 1}
            said["val exchanged patterns/e_form_mae"] = 1 if ignores else 1.5
            (folder / "results.json").write_text(json.dumps(said))

    monkeypatch.setattr(mp36k, "COMMITTED", tmp_path / "committed")
    monkeypatch.setattr(runs, "RUNS", tmp_path / "runs")
    for name, stand_in in (("begin", begin), ("write_tables", lambda: None), ("POLL", 0)):
        monkeypatch.setattr(mp36k, name, stand_in)
    monkeypatch.setattr(mp36k.launch, "attach", lambda name: runs.results(tmp_path / "runs" / name))
    monkeypatch.setattr(mp36k.latent, "describe", lambda folder: None)
    return begun


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_run_comes_after_its_search_and_its_start(mp36k, trained, at_once):
    """And the rate that the search found best on val is the one it is trained with."""
    wanted = [mp36k.by_name()[f"bimodal-e_form-from-both-s{seed}"] for seed in (0, 1)]
    assert mp36k.train(wanted, 1, at_once, minutes=1) == {}
    names = [config.name for config in trained]
    assert names[:4] == [f"search-bimodal-lr{rate}" for rate in ("0.00025", "0.0005", "0.001", "0.002")]
    assert names[4:] == ["pretrain-both-s0", *(config.name for config in wanted)]
    assert [config.learning_rate for config in trained[4:]] == [5e-4] * 3
    mp36k.train(wanted, 1, at_once, minutes=1)
    assert len(trained) == 7, "what has finished is skipped"


def test_what_needs_a_run_that_failed_is_left_out(mp36k, trained, monkeypatch):
    def attach(name):
        if name == "pretrain-both-s0":
            raise mp36k.launch.TrainingFailed("pretrain-both-s0 failed: no room")
        return {"seconds": 1}

    monkeypatch.setattr(mp36k.launch, "attach", attach)
    wanted = [mp36k.by_name()[name] for name in ("bimodal-e_form-from-both-s0", "bimodal-e_form-s0")]
    assert mp36k.train(wanted, 1, 2, minutes=1) == {"pretrain-both-s0": "pretrain-both-s0 failed: no room"}
    assert [config.name for config in trained[4:]] == ["pretrain-both-s0", "bimodal-e_form-s0"]


@pytest.mark.parametrize("ending", ["time is over", "interrupted"])
def test_what_is_under_way_is_stopped(mp36k, trained, tmp_path, monkeypatch, ending):
    """In time, or by Ctrl-C: every run that still has a process is asked to save its state, and nothing is kept."""
    stopped = []

    def sleep(seconds):
        if ending == "interrupted":
            raise KeyboardInterrupt

    monkeypatch.setattr(mp36k.time, "sleep", sleep)
    monkeypatch.setattr(mp36k.processes, "owner", lambda folder: True)
    monkeypatch.setattr(mp36k.launch, "stop", stopped.append)
    wanted = [mp36k.by_name()[name] for name in ("search-xrd-lr0.001", "search-xrd-lr0.002", "search-fcn-lr0.001")]
    if ending == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            mp36k.train(wanted, 1, 2, minutes=1)
    else:
        assert mp36k.train(wanted, 1, 2, minutes=0.005) == {}
    assert stopped == [config.name for config in trained] == [config.name for config in wanted[:2]]
    assert not (tmp_path / "committed").exists()


def test_weights_are_committed_until_nothing_starts_from_them(mp36k, trained, tmp_path):
    """In another session, where data/runs is empty, a start is not trained again; its last follower removes it."""
    name = "bimodal-multi-s1"
    followers = mp36k.waiting(name)
    assert len(followers) > 1
    mp36k.train([mp36k.by_name()[name]], 1, 1, minutes=1)
    shutil.rmtree(tmp_path / "runs")
    committed = tmp_path / "committed" / name
    assert runs.load_model(committed)[0]["heads.weight"].dtype == torch.half
    for follower in followers:
        assert (committed / "model.safetensors").exists()
        mp36k.train([follower], 1, 1, minutes=1)
        assert runs.load_model(tmp_path / "runs" / name)[1] == {"name": name}
    assert [config.name for config in trained].count(name) == 1
    assert [path.name for path in committed.iterdir()] == ["results.json"]


def test_a_start_without_weights_is_trained_again_for_them_alone(mp36k, trained, tmp_path):
    start, follower = (mp36k.by_name()[f"{name}-s0"] for name in ("pretrain-both", "bimodal-e_form-from-both"))
    mp36k.train([start], 1, 1, minutes=1)
    committed = tmp_path / "committed" / start.name
    (committed / "model.safetensors").unlink()
    (tmp_path / "runs" / start.name / "results.json").unlink()  # its weights are those of a run under way
    (committed / "results.json").write_text('{"seconds": 2}')
    mp36k.train([follower], 1, 1, minutes=1)
    assert [config.name for config in trained].count(start.name) == 2
    assert runs.results(committed) == {"seconds": 2} and (committed / "model.safetensors").exists()


def test_the_list_estimates_from_runs_alike(mp36k, monkeypatch):
    untrained = [f"bimodal-{budget}-s0" for budget in ("e_form-steps4000-n869", "multi-steps16000")]
    results = runs.results
    monkeypatch.setattr(runs, "results", lambda folder: None if folder.name in untrained else results(folder))
    table = mp36k.listed(list(mp36k.by_name().values())).set_index("run")
    assert table.loc["composition-e_form-s0", "state"] == "done"
    took = pd.read_json(RESULTS / "runs" / "composition-e_form-s0" / "results.json", typ="series")["seconds"] / 60
    assert table.loc["composition-e_form-s0", "minutes"] == pytest.approx(took, abs=0.1)
    half, full = table.loc[untrained, "minutes"]
    assert half > 10 and full == pytest.approx(4 * half, rel=0.02)
