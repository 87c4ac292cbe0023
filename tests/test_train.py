"""Trainings as users start them: real processes on a real, small dataset."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from test_datasets import rock_salt

from xxlib import PROJECT, launch, train
from xxlib.datasets.batches import make_batch
from xxlib.datasets.sources import Source, parsed
from xxlib.datasets.sources.formulas import formulas
from xxlib.datasets.store import Dataset, DatasetError
from xxlib.models.build import build
from xxlib.models.config import EncoderConfig, FusionConfig, ModelConfig
from xxlib.prepare import prepare
from xxlib.training import parallel, runs, state
from xxlib.training import run as loop
from xxlib.training.config import Budget, ConfigError, Data, Machine, RunConfig
from xxlib.training.examples import examples_of
from xxlib.training.judging import evaluate_formulas
from xxlib.training.metrics import KNOWN, NEW
from xxlib.training.objectives import step_gradients
from xxlib.training.records import KEYS, curve, select, value
from xxlib.training.starts import start_from

CPU = torch.device("cpu")
TINY_ENCODER = EncoderConfig(d_model=32, n_layers=2, n_heads=2, d_ff=32)
WIDE = dataclasses.replace(TINY_ENCODER, d_model=64)
DEEP = FusionConfig(n_layers=3, n_heads=2, d_ff=32)
TINY = ModelConfig(
    encoders={"composition": TINY_ENCODER, "xrd": TINY_ENCODER},
    fusion=FusionConfig(n_layers=2, n_heads=2, d_ff=32), d_fused=32,
)  # fmt: skip


def rock_salt_dataset(folder, unlabelled_every=None):
    """48 rock salts whose energy follows the cell and the anion."""
    records = []
    for i in range(48):
        first, second, a = (3, 11, 19, 37)[i % 4], (9, 17, 35)[i % 3], 4.0 + 0.05 * i
        known = {"e_form": -0.1 * second + 0.8 * (a - 5), "split": ("train", "val", "test")[max(0, i % 6 - 3)]}
        if unlabelled_every and i % unlabelled_every == 0:
            del known["e_form"]
        records.append(parsed(rock_salt(a, first, second, f"rs-{i}"), "here", **known))
    prepare(Source({"name": "rock salts"}, lambda: iter(records)), folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return rock_salt_dataset(tmp_path_factory.mktemp("trainings") / "rock-salts")


def config(dataset, name="tiny", modalities=("composition", "xrd"), dropout=0.1, **changes):
    model = TINY if len(modalities) > 1 else TINY.only(*modalities)
    run = RunConfig(
        name=name, preset="tiny", data=Data(dataset=str(dataset)), model=dataclasses.replace(model, dropout=dropout),
        budget=Budget(batch_size=8, n_steps=40, learning_rate=1e-3), machine=Machine(n_threads=1),
    )  # fmt: skip
    return run.but(**changes)


def series(records, metric, target=None, split="val", **view):
    """Values of a metric, one a step."""
    return curve(records, metric, target, split, **view)[1]


def run_folder(tmp_path, run):
    folder = tmp_path / run.name
    folder.mkdir(parents=True)
    run.save(folder / "run.json")
    return folder


def start(folder, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "xxlib.train", str(folder / "run.json")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_it_learns_sixteen_crystals(dataset, tmp_path):
    """Both modalities are needed: the anion is in the composition, the cell in the pattern."""
    run = config(dataset, n_steps=400, batch_size=16, learning_rate=2e-3, dropout=0.0)
    folder = run_folder(tmp_path, run)
    loop.train(run, folder)
    losses = series(runs.metrics(folder), "loss", split="train")
    assert losses[-1] < 0.01 < losses[0]


def test_a_finished_run_leaves_what_the_readme_promises(dataset, tmp_path):
    run = config(dataset, targets=("e_form", "crystal_system"))
    folder = run_folder(tmp_path, run)
    process = start(folder)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "sample/s" in errors and re.search(r"test, from composition \+ xrd: e_form mae \d", out)
    names = {path.name for path in folder.iterdir()}
    assert names == {"run.json", "metrics.jsonl", "model.safetensors", "model.safetensors.sha256",
                     "predictions.parquet", "results.json"}  # fmt: skip
    result, records = runs.results(folder), runs.metrics(folder)
    assert all(tuple(one) == KEYS for one in records + result["metrics"])
    steps, samples = curve(records, "samples", split="train")
    assert steps == list(range(1, 41)) and samples == [8 * step for step in steps]
    assert result["samples"] == 40 * 8
    steps, errors = curve(records, "error")
    assert steps == list(range(2, 41, 2))
    losses = [series(records, "loss", target, "train") for target in (None, *run.objectives.targets)]
    assert np.allclose(losses[0], np.sum(losses[1:], axis=0))
    for metric in ("samples_per_s", "seconds"):
        assert min(series(records, metric, split="train")) > 0
    best = int(np.argmin(errors))
    assert result["best_step"] == steps[best]
    mae = value(result["metrics"], "mae", "e_form", "val")
    assert mae == pytest.approx(series(records, "mae", "e_form")[best])
    table = pq.read_table(folder / "predictions.parquet").to_pandas()
    assert list(table) == ["id", "split", "e_form_predicted", "crystal_system_predicted"]
    assert set(table.split) == {"val", "test"}
    data = Dataset(dataset)
    labels = dict(zip(data.column("id"), data.labels["e_form"]))
    test = table[table.split == "test"]
    mae = np.abs(test.id.map(labels) - test.e_form_predicted).mean()
    assert mae == pytest.approx(value(result["metrics"], "mae", "e_form"), rel=1e-4)
    assert set(result) == {"name", "parameters", "samples", "best_step", "seconds", "hardware", "commit", "metrics"}


def test_a_search_never_sees_test(dataset, tmp_path):
    run = config(dataset, n_steps=2, evaluate_test=False)
    folder = run_folder(tmp_path, run)
    result = loop.train(run, folder)
    assert {one["split"] for one in result["metrics"]} == {"val"}
    assert set(pq.read_table(folder / "predictions.parquet")["split"].to_pylist()) == {"val"}


def test_normalisers_know_train_only(dataset, tmp_path):
    run = config(dataset, n_steps=1)
    folder = run_folder(tmp_path, run)
    loop.train(run, folder)
    _, metadata = runs.load_model(folder)
    values = Dataset(dataset).labels["e_form"][Dataset(dataset).indices("train")]
    assert metadata["normalisers"]["e_form"] == {
        "mean": pytest.approx(values.mean()),
        "std": pytest.approx(values.std()),
    }


def test_two_seeded_runs_are_bitwise_equal_and_a_seed_matters(dataset, tmp_path):
    weights = {}
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        run = config(dataset, name=name, seed=seed, n_steps=10)
        folder = run_folder(tmp_path, run)
        loop.train(run, folder)
        weights[name] = load_file(folder / "model.safetensors")
    same = [bool((weights["one"][name] == weights["two"][name]).all()) for name in weights["one"]]
    other = [bool((weights["one"][name] == weights["other"][name]).all()) for name in weights["one"]]
    assert all(same) and not all(other)


def test_averaged_weights_are_judged_and_go_on_to_the_same_bits(dataset, tmp_path):
    """The mean of the weights of the last steps, the earlier the less; the training itself does not change."""
    run = config(dataset, n_steps=6, averaged=0.5)
    whole, first, plain = (
        state.prepare(one, run_folder(tmp_path / name, run), CPU)
        for name, one in (("whole", run), ("half", run), ("plain", run.but(averaged=0.0)))
    )
    weights = []
    while whole.step < 6:
        state.step(whole)
        state.step(plain)
        weights.append(plain.model.heads["e_form"].weight.detach().clone())
    while first.step < 3:
        state.step(first)
    state.checkpoint(first)
    second = state.prepare(run, first.folder, CPU)
    state.resume(second)
    while second.step < 6:
        state.step(second)
    mean = weights[0]
    for later in weights[1:]:
        mean = mean * (2 / 3) + later / 3
    for finished in (whole, second):
        assert torch.equal(finished.model.heads["e_form"].weight, weights[-1])
        assert torch.allclose(finished.judged.heads["e_form"].weight, mean, atol=1e-6)
    expected, found = whole.judged.state_dict(), second.judged.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected), "bitwise"
    assert plain.judged is plain.model


def test_jitter_is_of_training_alone(dataset, tmp_path):
    """The gradient differs from that of the fractions as they are; what is judged does not see it."""
    both = [state.prepare(config(dataset, dropout=0.0, jitter=jitter), tmp_path, CPU) for jitter in (0.0, 0.2)]
    judged = [loop.evaluate_val(run) for run in both]
    assert judged[0] == judged[1]
    losses = [step_gradients(run.model.train(), run.examples, run.config, 0, CPU)["e_form"] for run in both]
    assert losses[0] != losses[1]


def test_what_elements_add_is_known_before_the_first_step(dataset, tmp_path):
    """The energies of these rock salts follow the anion and the cell: with its head at zero a model knows the first."""
    model = dataclasses.replace(TINY, element_terms=True)
    run = state.prepare(config(dataset, model=model), tmp_path, CPU)
    torch.nn.init.zeros_(run.model.heads["e_form"].weight), torch.nn.init.zeros_(run.model.heads["e_form"].bias)
    knows = value(loop.evaluate_val(run), "mae", "e_form", "val", given="composition + xrd")
    normaliser = run.examples.normalisers["e_form"]
    assert knows < 0.6 * normaliser.std and run.model.element_terms["e_form"].weight.grad is None
    before = run.model.element_terms["e_form"].weight.clone()
    state.step(run)
    assert torch.equal(run.model.element_terms["e_form"].weight, before)


@pytest.mark.stress
def test_a_compiled_run_goes_on_to_the_same_bits(dataset, tmp_path):
    """In micro-batches with recomputed layers; what it computes is what the plain form does."""
    run = config(dataset, n_steps=6, micro_batch=4, checkpointing=True, compile=True)
    whole, first, plain = (
        state.prepare(run.but(compile=compiled), run_folder(tmp_path / name, run), CPU)
        for name, compiled in (("whole", True), ("half", True), ("plain", False))
    )
    while whole.step < 6:
        state.step(whole)
    while first.step < 3:
        state.step(first)
    state.checkpoint(first)
    second = state.prepare(run, first.folder, CPU)
    state.resume(second)
    while second.step < 6:
        state.step(second)
    expected, found = whole.model.state_dict(), second.model.state_dict()
    assert list(expected) == list(found) == list(plain.model.state_dict())
    assert all(torch.equal(expected[name], found[name]) for name in expected), "bitwise"
    while plain.step < 6:
        state.step(plain)
    assert float(plain.sums["e_form"]) == pytest.approx(float(whole.sums["e_form"]), rel=1e-3)


def test_a_damaged_state_is_refused_in_one_line(dataset, tmp_path):
    folder = run_folder(tmp_path, config(dataset))
    runs.save_state(folder, {"step": 3})
    with open(folder / "state.pt", "r+b") as file:
        file.seek(300)
        file.write(b"\xff")
    with pytest.raises(SystemExit, match=r"^train: .*state\.pt does not match its sha256.*train again$"):
        train.main([str(folder / "run.json")])


@pytest.mark.parametrize("lost", ["config", "model", "optimizer", "sums", "step"])
def test_a_state_that_lacks_something_is_refused_in_one_line(dataset, tmp_path, lost):
    run = state.prepare(config(dataset), run_folder(tmp_path, config(dataset)), CPU)
    state.step(run)
    state.checkpoint(run)
    saved = runs.load_state(run.folder)
    del saved[lost]
    runs.save_state(run.folder, saved)
    with pytest.raises((ConfigError, runs.CheckpointError)) as error:
        state.resume(state.prepare(config(dataset), run.folder, CPU))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["key", "dataset", "grid"])
def test_what_does_not_fit_is_one_clear_line(dataset, tmp_path, damage):
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    run = config(copy)
    folder = run_folder(tmp_path, run)
    words = {"key": "unknown key colour", "dataset": "does not match its sha256", "grid": "grid"}[damage]
    if damage == "key":
        values = json.loads((folder / "run.json").read_text()) | {"colour": "blue"}
        (folder / "run.json").write_text(json.dumps(values))
    elif damage == "dataset":
        os.truncate(copy / "shard-00000.arrow", 1000)
    else:
        meta = json.loads((copy / "dataset.json").read_text())
        meta["grid"]["step"] = 0.01
        (copy / "dataset.json").write_text(json.dumps(meta))
    process = start(folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in errors
    assert words in errors.strip().splitlines()[-1]


def test_launch_trains_once_and_tells_why_it_failed(dataset, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    run = config(dataset, n_steps=4)
    result = launch.train(run)
    assert result == runs.results(tmp_path / "tiny") and "sample/s" in capfd.readouterr().err
    before = (tmp_path / "tiny" / "results.json").stat().st_mtime_ns
    assert launch.train(run) == result and (tmp_path / "tiny" / "results.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="another run"):
        launch.train(config(dataset, n_steps=5))
    with pytest.raises(launch.TrainingFailed, match=r"lost failed \(exit status 1\):\n.*dataset\.json is missing"):
        launch.train(config(tmp_path / "nowhere", name="lost"))
    assert str(PROJECT) not in (tmp_path / "tiny" / "results.json").read_text()


@pytest.mark.parametrize("kind", ["late", "gated", "experts", "mutual_attention"])
def test_every_fusion_learns_sixteen_crystals(dataset, tmp_path, kind):
    """As the one above: anion and cell; of late fusion the sum of both; experts are kept in use, which is recorded."""
    model = dataclasses.replace(TINY, fusion=dataclasses.replace(TINY.fusion, kind=kind))
    run = config(dataset, n_steps=400, batch_size=16, learning_rate=2e-3)
    run = run.but(model=dataclasses.replace(model, dropout=0.0))
    folder = run_folder(tmp_path, run)
    result = loop.train(run, folder)
    records = runs.metrics(folder)
    losses = series(records, "loss", "e_form", split="train")
    assert losses[-1] < 0.02 < losses[0]
    assert value(result["metrics"], "mae", "e_form", "test") > 0
    balance = series(records, "balance", split="train")
    assert (len(balance) > 0) == (kind == "experts") and all(0 <= loss < 0.2 * 3 for loss in balance)
    assert {one["target"] for one in records} == {None, "e_form"}


# ---------------------------------------------------------------- pretraining and what follows it


CONTRASTIVE, MASKED = {"contrastive": (("composition", "xrd"),)}, {"masked": ("xrd",)}
PRETRAINING = {"targets": (), **CONTRASTIVE, **MASKED}
LOSSES = ("contrastive composition + xrd", "masked xrd")


@pytest.fixture(scope="module")
def pretrained(dataset, tmp_path_factory):
    """Folder of a run that pretrained with both objectives."""
    run = config(dataset, name="pretrained", n_steps=20, **PRETRAINING)
    folder = run_folder(tmp_path_factory.mktemp("pretrained"), run)
    loop.train(run, folder)
    return folder


def test_pretraining_leaves_losses_and_no_predictions(pretrained):
    result, records = runs.results(pretrained), runs.metrics(pretrained)
    assert not (pretrained / "predictions.parquet").exists()
    assert {one["metric"] for one in result["metrics"]} == {"error", *LOSSES, "retrieval composition + xrd"}
    for split, whole in (("train", "loss"), ("val", "error")):
        losses = [series(records, name, split=split) for name in (whole, *LOSSES)]
        assert np.allclose(losses[0], np.sum(losses[1:], axis=0)) and len(losses[0]) == 20
    assert {one["split"] for one in result["metrics"]} == {"val"}


@pytest.mark.parametrize("modalities", [("composition", "xrd"), ("xrd",)])
def test_masked_modelling_learns_sixteen_crystals(dataset, tmp_path, modalities):
    """The same hidden tokens of the same crystals, before and after."""
    run = config(dataset, n_steps=120, batch_size=16, n_train=16, learning_rate=5e-3, hidden_rate=0.3, dropout=0.0,
                 modalities=modalities, targets=(), **MASKED)  # fmt: skip
    assert_learns_what_is_hidden(run, "masked xrd", tmp_path, 0.9)


def test_masked_elements_are_learned_too(dataset, tmp_path):
    """Which anion it is follows from the cation, the cell being given: from the tokens of the composition alone."""
    run = config(dataset, n_steps=60, batch_size=16, n_train=16, learning_rate=5e-3, hidden_rate=0.3, dropout=0.0,
                 modalities=("composition",), targets=(), masked=("composition",))  # fmt: skip
    assert_learns_what_is_hidden(run, "masked composition", tmp_path, 0.5)


def assert_learns_what_is_hidden(config, loss, folder, share):
    run = state.prepare(config, folder, CPU)
    run.examples.rows["val"] = run.examples.rows["train"]
    before = value(loop.evaluate_val(run), loss, split="val")
    while run.step < config.budget.n_steps:
        state.step(run)
    assert value(loop.evaluate_val(run), loss, split="val") < share * before


def test_contrastive_learning_tells_sixteen_crystals_apart(dataset, tmp_path):
    run = config(dataset, n_steps=100, batch_size=16, n_train=16, learning_rate=3e-3, dropout=0.0, targets=(),
                 **CONTRASTIVE)  # fmt: skip
    folder = run_folder(tmp_path, run)
    loop.train(run, folder)
    losses = series(runs.metrics(folder), LOSSES[0], split="train")
    assert losses[-1] < 0.5 * losses[0]


def test_fine_tuning_starts_from_the_encoders_and_a_new_head(dataset, pretrained):
    before, _ = runs.load_model(pretrained)
    run = state.prepare(config(dataset, initial=str(pretrained)), pretrained, CPU)
    after = run.model.state_dict()
    shared = [name for name in after if not name.startswith("heads.")]
    assert shared and all((after[name] == before[name]).all() for name in shared)
    assert set(before) - set(after) == {"logit_scales.composition+xrd", "encoders.xrd.mask",
                                        "guess.xrd.project.weight", "guess.xrd.project.bias"}  # fmt: skip
    scratch = state.prepare(config(dataset), pretrained, CPU)
    assert sum(len(group["params"]) for group in run.optimizer.param_groups) == len(list(run.model.parameters()))
    assert any((after[name] != tensor).any() for name, tensor in scratch.model.state_dict().items())


def test_both_start_from_the_encoder_of_one(dataset, tmp_path):
    """The encoder of the other modality and the fusion are new; a frozen run cannot have new ones."""
    alone = config(dataset, "alone", modalities=("composition",), n_steps=2)
    loop.train(alone, run_folder(tmp_path, alone))
    before, _ = runs.load_model(tmp_path / "alone")
    both = config(dataset, initial=str(tmp_path / "alone"))
    after = state.prepare(both, tmp_path, CPU).model.state_dict()
    scratch = state.prepare(config(dataset), tmp_path, CPU).model.state_dict()
    same = {name for name in after if name.startswith("encoders.composition.")}
    assert same and all(torch.equal(after[name], before[name]) for name in same)
    assert all(torch.equal(after[name], scratch[name]) for name in set(after) - same)
    with pytest.raises(ConfigError, match=r"lacks encoders\.xrd"):
        state.prepare(both.but(frozen=True), tmp_path, CPU)


def test_a_silent_fusion_begins_with_the_heads_of_one(dataset, tmp_path):
    alone = config(dataset, "alone", modalities=("xrd",), n_steps=2)
    loop.train(alone, run_folder(tmp_path, alone))
    before, _ = runs.load_model(tmp_path / "alone")
    both = config(dataset, initial=str(tmp_path / "alone"))
    silent = dataclasses.replace(both.model, fusion=dataclasses.replace(both.model.fusion, silent=True))
    for run, same in ((both, False), (both.but(model=silent), True)):
        after = state.prepare(run, tmp_path, CPU).model.state_dict()
        assert torch.equal(after["heads.e_form.weight"], before["heads.e_form.weight"]) == same


def test_each_row_trains_what_it_has(dataset, tmp_path):
    """Formulas without pattern, of another database's labels: a target that val does not have is not judged there."""
    table = "formula,oqmd_e_form,split\n" + "".join(f"Ca{n}O,{-n / 10},train\n" for n in range(1, 9))
    (tmp_path / "formulas.csv").write_text(table)
    prepare(formulas(tmp_path / "formulas.csv"), tmp_path / "formulas", n_workers=1, progress=False)
    run = config(dataset, also=(str(tmp_path / "formulas"),), targets=("e_form", "oqmd_e_form"), one_target=False)
    result = loop.train(run.but(likelihood=True), run_folder(tmp_path, run))
    assert np.isfinite(value(result["metrics"], "error", split="val"))
    assert {one["target"] for one in result["metrics"]} == {None, "e_form"}
    losses = series(runs.metrics(tmp_path / "tiny"), "loss", "oqmd_e_form", split="train")
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_what_is_remembered_is_told_from_what_is_not(dataset):
    """Where the formula of some crystals of test is in train, their metrics and those of the others."""
    examples = examples_of(config(dataset, targets=("e_form", "crystal_system")))
    ids = np.array([int(name.removeprefix("rs-")) for name in examples.dataset.column("id")])
    rows = {"train": np.flatnonzero(ids % 12 < 5), "test": np.flatnonzero(ids % 12 > 2)}  # twelve formulas
    examples = dataclasses.replace(examples, rows=rows)
    error = np.where(ids[rows["test"]] % 12 < 5, 0.1, 0.3)
    predicted = {"e_form": examples.dataset.labels["e_form"][rows["test"]] + error,
                 "crystal_system": np.eye(7)[np.where(error > 0.2, 0, 6)]}  # fmt: skip
    both = ("composition", "xrd")
    records = evaluate_formulas(examples, "test", predicted, both)
    known, new = (select(records, split=f"test, {part}") for part in (KNOWN, NEW))
    assert value(known, "mae", "e_form", f"test, {KNOWN}") == pytest.approx(0.1)
    assert value(new, "mae", "e_form", f"test, {NEW}") == pytest.approx(0.3)
    assert value(known, "accuracy", "crystal_system", f"test, {KNOWN}") == 1 and len(new) == len(known)
    apart = dataclasses.replace(examples, rows=rows | {"test": np.flatnonzero(ids % 12 > 4)})
    predicted = {name: values[error > 0.2] for name, values in predicted.items()}
    assert evaluate_formulas(apart, "test", predicted, both) == []


def test_an_encoder_may_come_from_a_run_of_its_modality_alone(dataset, tmp_path):
    """The other one and the fusion are new, each as without a start; a frozen run needs all of them."""
    alone = config(dataset, name="alone", modalities=("xrd",), n_steps=2)
    folder = run_folder(tmp_path, alone)
    loop.train(alone, folder)
    before = runs.load_model(folder)[0]
    joint = config(dataset, initial=str(folder))
    after, new = (state.prepare(one, folder, CPU).model.state_dict() for one in (joint, config(dataset)))
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name] if name.startswith("encoders.xrd.") else new[name]), name
    assert not torch.equal(after["encoders.xrd.cls"], new["encoders.xrd.cls"])
    with pytest.raises(ConfigError, match=r"lacks encoders\.composition"):
        state.prepare(config(dataset, initial=str(folder), frozen=True), folder, CPU)
    with pytest.raises(ConfigError, match="lacks an encoder of this model"):
        state.prepare(config(dataset, modalities=("composition",), initial=str(folder)), folder, CPU)


def test_transfer_trains_the_head_alone(dataset, pretrained, tmp_path):
    run = config(dataset, initial=str(pretrained), frozen=True, n_steps=10)
    folder = run_folder(tmp_path, run)
    result = loop.train(run, folder)
    before, (after, _) = runs.load_model(pretrained)[0], runs.load_model(folder)
    assert all((after[name] == before[name]).all() for name in after if not name.startswith("heads."))
    losses = series(runs.metrics(folder), "loss", split="train")
    assert losses[-1] != losses[0] and result["best_step"] > 0


@pytest.mark.parametrize("changes", [{}, {"micro_batch": 3}, {"targets": ("e_form", "crystal_system")}])
def test_frozen_encoders_read_each_crystal_once(dataset, pretrained, changes):
    """The gradient of a head is that of encoders which read the crystals again at each step."""
    run = config(dataset, initial=str(pretrained), frozen=True, **changes)
    run = state.prepare(run, pretrained, CPU)
    assert run.examples.cls.shape == (48, 32)
    plain = dataclasses.replace(run.examples, cls=None)
    gradients = []
    for examples in (run.examples, plain):
        run.model.eval().zero_grad()
        losses = step_gradients(run.model, examples, run.config, 3, CPU)
        heads = [p.grad.clone() for p in run.model.heads.parameters()]
        gradients.append([*losses.values(), *heads])
    assert all(torch.allclose(*pair, rtol=1e-4, atol=1e-6) for pair in zip(*gradients))


@pytest.mark.parametrize("changes", [{"effects": "laboratory"}, {"n_steps": 2}])
def test_they_read_them_again_where_that_is_needed_or_cheaper(dataset, pretrained, changes):
    """Patterns that differ from step to step; fewer samples than crystals."""
    run = config(dataset, initial=str(pretrained), frozen=True, **changes)
    assert state.prepare(run, pretrained, CPU).examples.cls is None


def test_frozen_encoders_have_no_dropout(dataset, pretrained):
    run = state.prepare(config(dataset, initial=str(pretrained), frozen=True, dropout=0.5), pretrained, CPU)
    state.step(run)
    assert not run.model.training


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": dataclasses.replace(TINY, encoders=dict.fromkeys(TINY.encoders, WIDE))}, "is of another model"),
        ({"split": "random"}, "has seen crystals that judge this run"),
        ({"left_out": "chalcogenides"}, "has seen crystals that judge this run"),
        ({"model": dataclasses.replace(TINY, fusion=DEEP)}, "lacks fusion.layers.2"),
    ],
)
def test_an_initial_run_that_does_not_fit_is_refused(dataset, pretrained, changes, words):
    run = config(dataset, initial=str(pretrained), **changes)
    with pytest.raises((ConfigError, runs.CheckpointError), match=words) as error:
        start_from(build(run.model, {"e_form": 1}), run)
    assert "\n" not in str(error.value)


def test_unlabelled_crystals_join_without_what_is_judged(dataset, tmp_path):
    """The second dataset holds every composition; those of val and test stay out, by composition, not by name."""
    records = [parsed(rock_salt(4.4, 3, 17, "u-0"), "here", formula="ClLi", split="test"),
               *(parsed(rock_salt(5.0, z, 16, f"u-{z}"), "here", split="val") for z in (12, 20))]  # fmt: skip
    prepare(Source({"name": "unlabelled"}, lambda: iter(records)), tmp_path / "more", progress=False)
    alone = examples_of(config(dataset, **PRETRAINING))
    judged = alone.dataset.column("formula")[np.concatenate([alone.rows["val"], alone.rows["test"]])]
    assert "LiCl" in judged
    both = examples_of(config(dataset, unlabelled=str(tmp_path / "more"), **PRETRAINING))
    added = both.rows["train"][len(alone.rows["train"]) :]
    assert set(both.dataset.column("id")[added]) == {"u-12", "u-20"}
    assert np.array_equal(both.rows["val"], alone.rows["val"])
    free = examples_of(config(dataset, unlabelled=str(tmp_path / "more"), unlabelled_alone=True, **PRETRAINING))
    assert np.array_equal(free.rows["train"], added), "unlabelled crystals alone"
    batch = make_batch(both.dataset, added)
    assert batch.inputs["composition"].element_ids.tolist() == [[12, 16], [16, 20]]


def test_further_datasets_train_with_the_labels_they_have(dataset, tmp_path):
    """Their val, test and experimental train nothing, nor what is judged in the first dataset, nor a crystal twice."""
    labelled = {"e_form": 7.0, "split": "train"}
    records = [parsed(rock_salt(4.4, 3, 17, "m-judged"), "here", formula="ClLi", **labelled),
               parsed(rock_salt(5.0, 12, 16, "m-labelled"), "here", **labelled),
               parsed(rock_salt(5.0, 20, 16, "m-unlabelled"), "here", split="train"),
               *(parsed(rock_salt(5.0, 38, 16, f"m-{split}"), "here", split=split) for split in ("val", "test")),
               parsed(rock_salt(4.0, 3, 9, "rs-0"), "here", split="train")]  # fmt: skip
    prepare(Source({"name": "more"}, lambda: iter(records)), tmp_path / "more", progress=False)
    again = parsed(rock_salt(5.0, 12, 34, "n-0"), "here", split="train")
    prepare(Source({"name": "again"}, lambda: iter([again, records[1]])), tmp_path / "again", progress=False)
    alone = examples_of(config(dataset))
    both = examples_of(config(dataset, also=(str(tmp_path / "more"), str(tmp_path / "again"))))
    added = both.rows["train"][len(alone.rows["train"]) :]
    assert both.dataset.column("id")[added].tolist() == ["m-labelled", "m-unlabelled", "n-0"]
    assert both.dataset.labels["e_form"][added].tolist() == pytest.approx([7, np.nan, np.nan], nan_ok=True)
    assert all(np.array_equal(both.rows[split], alone.rows[split]) for split in ("val", "test"))
    labels = both.dataset.labels["e_form"][both.rows["train"]]
    assert both.normalisers["e_form"].mean == pytest.approx(np.nanmean(labels)) != alone.normalisers["e_form"].mean
    batch = make_batch(both.dataset, added)
    assert batch.inputs["composition"].element_ids.tolist() == [[12, 16], [16, 20], [12, 34]]


def test_cells_are_strained_where_reflections_are_known(dataset, tmp_path):
    """Not without them in silence: one dataset that lacks them is named."""
    records = [parsed(rock_salt(5.0, 12, 16, "m-0"), "here", split="train")]
    prepare(Source({"name": "more"}, lambda: iter(records)), tmp_path / "more", progress=False, hkl=True)
    for also in ((), (str(tmp_path / "more"),)):
        with pytest.raises(DatasetError, match="has no reflections, which effects 'strained' need"):
            examples_of(config(dataset, effects="strained", also=also))


def test_a_smaller_training_set_is_the_beginning_of_a_larger_one(dataset):
    rows = {n: examples_of(config(dataset, n_train=n)).rows["train"] for n in (8, 16, 32)}
    assert np.array_equal(rows[8], rows[16][:8]) and np.array_equal(rows[16], rows[32][:16])
    assert len(set(rows[32])) == 32 and set(rows[32]) <= set(examples_of(config(dataset)).rows["train"])
    assert not np.array_equal(rows[8], examples_of(config(dataset, n_train=8, seed=1)).rows["train"])
    with pytest.raises(DatasetError, match="n_train asks for 4000"):
        examples_of(config(dataset, n_train=4000))


# ---------------------------------------------------------------- other machines, rows that lack something


@pytest.mark.parametrize("changes", [{"micro_batch": 3}, {"n_threads": 2, "checkpointing": True}])
def test_a_run_goes_on_on_another_machine(dataset, tmp_path, changes):
    """As the same run, to the same result but for rounding."""
    losses = []
    for name, there in (("whole", {}), ("moved", changes)):
        folder = run_folder(tmp_path, config(dataset, name=name, dropout=0.0))
        for stop, machine in ((3, {}), (6, there)):
            run = state.prepare(config(dataset, name=name, dropout=0.0, **machine), folder, CPU)
            state.resume(run)
            while run.step < stop:
                state.step(run)
            state.checkpoint(run)
        losses.append(float(run.sums["e_form"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    with pytest.raises(ConfigError, match="holds the state of another run"):
        state.resume(state.prepare(config(dataset, name="whole", dropout=0.0, seed=1), tmp_path / "whole", CPU))


def test_launch_takes_up_a_run_with_other_threads(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    launch._written(config(dataset))
    launch._written(config(dataset, n_threads=2))
    assert RunConfig.load(tmp_path / "tiny" / "run.json").machine.n_threads == 2
    (tmp_path / "tiny" / "results.json").write_text('{"name": "tiny", "metrics": []}')
    launch.train(config(dataset))
    assert RunConfig.load(tmp_path / "tiny" / "run.json").machine.n_threads == 2, "what a finished run was stays"


def test_only_the_first_process_reads_all_of_a_dataset(dataset, tmp_path, monkeypatch):
    """To compare it with its checksums: the others take its word."""
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    meta = json.loads((copy / "dataset.json").read_text())
    meta["shards"][0]["sha256"] = "0" * 64
    (copy / "dataset.json").write_text(json.dumps(meta))
    monkeypatch.setattr(parallel, "rank", lambda: 1)
    assert len(examples_of(config(copy)).dataset) == 48
    monkeypatch.setattr(parallel, "rank", lambda: 0)
    with pytest.raises(DatasetError, match="does not match its sha256"):
        examples_of(config(copy))
