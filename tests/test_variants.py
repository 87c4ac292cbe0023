"""Names of runs, the plan of those behind the tables of mp36k, and how they are trained and kept."""

import shutil

import pytest
import torch
from study import archive, experiments, floor, learning_rates, mp90k, plus, schedule, variants
from study.variants import MULTI, RATES, pretraining, variant

from xxlib.training import runs
from xxlib.training.config import from_dict
from xxlib.training.records import record

RESULTS = archive.RESULTS


def test_a_name_says_what_sets_a_run_apart():
    both = pretraining("small", "both")
    multi = variant("small", "bimodal", "multi")
    tuned = variant("small", "bimodal", "e_form", both, seed=2, n_steps=4000, n_train=870)
    assert (both.name, multi.name) == ("pretrain-both-s0", "bimodal-multi-s0")
    assert tuned.name == "bimodal-e_form-steps4000-n870-from-both-s2" and tuned.initial == "data/runs/pretrain-both-s0"
    frozen = variant("small", "bimodal", "band_gap", multi, frozen=True)
    assert frozen.name == "bimodal-band_gap-frozen-from-multi-s0" and frozen.frozen
    likely = variant("small", "bimodal", "multi", likelihood=True)
    assert likely.name == "bimodal-multi-likelihood-s0" and likely.objectives.likelihood
    masked = pretraining("smoke", "mxm", hidden_rate=0.1, hidden_span=2, unlabelled="data/generated50k")
    assert masked.name == "smoke-pretrain-mxm-rate0.1-span2-with-generated50k-s0"
    assert variant("smoke", "xrd", "e_form", masked).name.endswith("-from-mxm-rate0.1-span2-with-generated50k-s0")
    assert multi.objectives.targets == MULTI and both.objectives.targets == () and both.objectives.pretrains
    assert (both.objectives.contrastive, both.objectives.masked) == ((("composition", "xrd"),), ("xrd",))
    assert variant("small", "mat2vec", "e_form").model.element_vectors == "mat2vec"


def test_no_two_runs_of_the_plan_share_a_name():
    having = [experiment for experiment in experiments.EXPERIMENTS if hasattr(experiment, "runs")]
    planned = [config for experiment in having for config in experiment.runs()]
    of = experiments.planned()
    assert all(of[config.name] == config for config in planned)
    searched = learning_rates.runs()
    assert len({config.name for config in searched}) == len(searched) == 30
    for kind in RATES:
        rates = [config.budget.learning_rate for config in learning_rates.search(kind)]
        assert tuple(rates[:4]) == learning_rates.TRIED and rates == sorted(set(rates)), kind
        assert len(rates) == 4 + len(learning_rates.HIGHER.get(kind, ()))
    assert {variants.kind(config) for config in planned} == {*RATES, None}


def test_every_learning_rate_is_the_one_that_the_search_found_best_on_val():
    assert {kind: learning_rates.best(kind) for kind in RATES} == RATES
    searched = {config.name for config in learning_rates.runs()}
    for config in experiments.planned().values():
        kind = variants.kind(config)
        if config.name not in searched and kind:
            assert config.budget.learning_rate == RATES[kind], config.name


def test_a_rate_at_which_the_pattern_is_ignored_is_not_chosen(tmp_path):
    for config in learning_rates.search("bimodal"):
        error, ignores = {2.5e-4: (0.4, True), 5e-4: (0.5, False)}.get(config.budget.learning_rate, (0.1, False))
        finish(tmp_path, config, error, ignores)
    assert learning_rates.best("bimodal", tmp_path) == 5e-4, "nor is one above HIGHEST"
    (tmp_path / "runs" / "search-bimodal-lr0.002.json").unlink()
    assert learning_rates.best("bimodal", tmp_path) is None, "the search has not finished"


def finish(place, config, error=1.0, ignores=False):
    """A record as if a run had finished."""
    val = [record("val", "error", error)]
    for exchanged, value in ((None, 1), ("xrd", 1 if ignores else 1.5)):
        val.append(record("val", "mae", value, target="e_form", given=("composition", "xrd"), exchanged=exchanged))
    about = {"parameters": 1, "samples": config.budget.samples, "best_step": 1, "seconds": 1.0}
    about |= {"hardware": "an abacus", "commit": "none", "curves": []}
    archive.save(archive.Record(name=config.name, config=config.as_dict(), metrics=val, **about), place)


def test_every_start_is_itself_planned():
    of = experiments.planned()
    for config in of.values():
        if config.initial:
            start = of[config.initial.removeprefix("data/runs/")]
            theirs, own = start.model, config.model
            shared = theirs.encoders.keys() & own.encoders.keys()
            assert shared and all(theirs.encoders[name] == own.encoders[name] for name in shared)
            assert None in (theirs.fusion, own.fusion) or theirs.fusion == own.fusion
            assert start.data.split == config.data.split


def test_committed_runs_are_those_of_the_plan():
    """A committed run has the name, and apart from its machine the config, that the plan gives it."""
    of = experiments.planned()
    configs = [archive.read(name).config for name in archive.names()]
    trained = [from_dict(config) for config in configs if config["preset"] not in ("floor", "stand_ins")]
    boosted = {config["name"] for config in configs if config["preset"] == "floor"}
    names = {floor.name(target, dataset=of) for target in floor.TARGETS for of in (floor.DATASET, mp90k.DATASET)}
    assert names <= boosted <= names | set(plus.BOOSTING.values())
    stand_ins = {config["name"] for config in configs if config["preset"] == "stand_ins"}
    assert stand_ins <= set(plus.STAND_INS.values())
    for config in trained:
        assert of[config.name].is_same_run(config), config.name


def test_committed_tables_are_those_of_the_committed_runs(tmp_path):
    experiments.write_tables(tmp_path)
    written = sorted(path.name for path in tmp_path.glob("*.csv"))
    assert {"table_1.csv", "table_5.csv", "runs.csv"} <= set(written) and len(written) == 28
    for name in written:
        assert (tmp_path / name).read_text() == (RESULTS / name).read_text(), f"{name}: python -m study --tables"


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The RunConfigs that schedule.train began, which are finished at once, in folders of their own."""
    begun = []

    def train(config, detach):
        begun.append(config)
        folder = tmp_path / "runs" / config.name
        if archive.read(config.name, tmp_path / "runs") is None:
            folder.mkdir(parents=True, exist_ok=True)
            runs.save_weights(folder, {"heads.weight": torch.tensor([1 / 3])}, {"name": config.name})
            config.save(folder / "run.json")
            about = {"parameters": 1, "samples": 8, "best_step": 1, "seconds": 1.0, "hardware": "", "commit": ""}
            runs.write_json(folder / "results.json", {"name": config.name, "metrics": [], **about})

    monkeypatch.setattr(archive, "RESULTS", tmp_path / "committed")
    monkeypatch.setattr(runs, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(schedule, "POLL", 0)
    monkeypatch.setattr(experiments, "write_tables", lambda folder, place: None)
    monkeypatch.setattr(schedule.launch, "train", train)
    monkeypatch.setattr(schedule.launch, "attach", lambda name: runs.results(tmp_path / "runs" / name))
    monkeypatch.setattr(schedule.latent, "describe", lambda folder: None)
    return begun


def planned(*names):
    return [experiments.planned()[name] for name in names]


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_run_comes_after_its_start(trained, at_once):
    wanted = planned(*(f"bimodal-e_form-from-both-s{seed}" for seed in (0, 1)))
    assert schedule.train(wanted, 1, at_once, minutes=1) == {}
    names = [config.name for config in trained]
    assert names == ["pretrain-both-s0", *(config.name for config in wanted)]
    assert [config.machine.n_threads for config in trained] == [1] * 3
    schedule.train(wanted, 1, at_once, minutes=1)
    assert len(trained) == 3, "what has finished is skipped"


def test_what_starts_from_a_run_that_failed_is_left_out(trained, monkeypatch):
    attach = schedule.launch.attach

    def failing(name):
        if name == "pretrain-both-s0":
            raise schedule.launch.TrainingFailed("pretrain-both-s0 failed: no room")
        return attach(name)

    monkeypatch.setattr(schedule.launch, "attach", failing)
    wanted = planned("bimodal-e_form-from-both-s0", "bimodal-e_form-s0")
    assert schedule.train(wanted, 1, 2, minutes=1) == {"pretrain-both-s0": "pretrain-both-s0 failed: no room"}
    assert sorted(config.name for config in trained) == ["bimodal-e_form-s0", "pretrain-both-s0"]


@pytest.mark.parametrize("ending", ["time is over", "interrupted"])
def test_what_is_under_way_is_stopped(trained, tmp_path, monkeypatch, ending):
    """In time, or by Ctrl-C: every run that still has a process is asked to save its state, and nothing is kept."""
    stopped, owned = [], []

    def sleep(seconds):
        owned.extend(config.name for config in trained)
        if ending == "interrupted":
            raise KeyboardInterrupt

    monkeypatch.setattr(schedule.time, "sleep", sleep)
    monkeypatch.setattr(schedule.processes, "owner", lambda folder: folder.name in owned)
    monkeypatch.setattr(schedule.launch, "stop", stopped.append)
    wanted = planned("search-xrd-lr0.001", "search-xrd-lr0.002", "search-fcn-lr0.001")
    if ending == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            schedule.train(wanted, 1, 2, minutes=1)
    else:
        assert schedule.train(wanted, 1, 2, minutes=0.005) == {}
    assert stopped == [config.name for config in trained] == [config.name for config in wanted[:2]]
    assert not (tmp_path / "committed").exists()


def test_weights_are_committed_until_nothing_starts_from_them(trained, tmp_path):
    """In another session, where data/runs is empty, a start is not trained again; its last follower removes it."""
    name = "bimodal-multi-s1"
    followers = schedule.waiting(name)
    assert len(followers) > 1
    schedule.train(planned(name), 1, 1, minutes=1)
    shutil.rmtree(tmp_path / "runs")
    committed = tmp_path / "committed" / "weights" / name
    assert runs.load_model(committed)[0]["heads.weight"].dtype == torch.half
    for follower in followers:
        assert (committed / "model.safetensors").exists()
        schedule.train([follower], 1, 1, minutes=1)
        assert runs.load_model(tmp_path / "runs" / name)[1] == {"name": name}
    assert [config.name for config in trained].count(name) == 1
    assert not committed.exists() and schedule.done(name)


def test_a_start_without_weights_is_trained_again_for_them_alone(trained, tmp_path):
    start, follower = planned("pretrain-both-s0", "bimodal-e_form-from-both-s0")
    schedule.train([start], 1, 1, minutes=1)
    archive.drop_weights(start.name)
    (tmp_path / "runs" / start.name / "results.json").unlink()  # its weights are those of a run under way
    path = tmp_path / "committed" / "runs" / f"{start.name}.json"
    path.write_text(path.read_text().replace('"seconds": 1.0', '"seconds": 2.0'))
    schedule.train([follower], 1, 1, minutes=1)
    assert [config.name for config in trained].count(start.name) == 2
    assert schedule.done(start.name).seconds == 2 and archive.weights(start.name)


def test_the_list_estimates_from_runs_alike(monkeypatch):
    untrained = [f"bimodal-{budget}-s0" for budget in ("e_form-steps4000-n869", "multi-steps16000")]
    done = schedule.done
    monkeypatch.setattr(schedule, "done", lambda name: None if name in untrained else done(name))
    table = schedule.listed(list(experiments.planned().values())).set_index("run")
    assert table.loc["composition-e_form-s0", "state"] == "done"
    took = archive.read("composition-e_form-s0").seconds / 60
    assert table.loc["composition-e_form-s0", "minutes"] == pytest.approx(took, abs=0.1)
    half, full = table.loc[untrained, "minutes"]
    assert half > 10 and full == pytest.approx(4 * half, rel=0.02)
