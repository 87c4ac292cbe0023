"""Patterns in part and modalities that are absent: the model, the draws, a training with both."""

import dataclasses
import json
import re
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from test_train import CPU, TINY, config, rock_salt_dataset, run_folder

from xxlib import launch, train
from xxlib.answering.inference import trained
from xxlib.datasets.batches import Batch, drawn_absent, drawn_effects, make_batch
from xxlib.datasets.store import Dataset
from xxlib.diffraction.effects import EFFECTS
from xxlib.models.config import ModelConfig
from xxlib.models.encoders import XRDEncoder
from xxlib.models.xxact import build, count_parameters
from xxlib.training import runs, steps
from xxlib.training.config import ConfigError, from_dict
from xxlib.training.examples import examples_of
from xxlib.training.judging import View, evaluate, views
from xxlib.training.losses import target_losses
from xxlib.training.metrics import IGNORES, ignores_pattern

MEASURED = {"augmentation": "laboratory", "modality_dropout": 0.2}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return rock_salt_dataset(tmp_path_factory.mktemp("partial") / "rock-salts")


def some_batch(n=4):
    random = torch.Generator().manual_seed(0)
    return Batch(
        element_ids=torch.randint(1, 90, (n, 3), generator=random),
        fractions=torch.full((n, 3), 1 / 3),
        tokens=100 * torch.rand(n, 17, 250, generator=random),
        targets={},
    )


# ---------------------------------------------------------------- the model


def test_mask_is_the_only_addition_to_the_pinned_counts():
    with torch.device("meta"):
        plain, partial = (build(ModelConfig(), {"e_form": 1}, partial=partial) for partial in (False, True))
    assert count_parameters(partial) - count_parameters(plain) == 250
    assert count_parameters(partial.xrd_encoder) == 6_840_576 and count_parameters(partial.fusion) == 94_534_656


@pytest.mark.parametrize("training", [False, True])
def test_one_modality_alone_is_an_answer_that_the_other_does_not_change(training):
    torch.manual_seed(0)
    model = build(TINY, {"e_form": 1, "crystal_system": 7}, partial=True).train(training)
    batch, other = some_batch(), some_batch(8)
    other = dataclasses.replace(other, **{name: getattr(other, name)[4:] for name in ("element_ids", "tokens")})
    for absent, changed in (((False, True), "tokens"), ((True, False), "element_ids")):
        absent = torch.tensor([absent] * 4)
        found = []
        for what in (batch, dataclasses.replace(batch, **{changed: getattr(other, changed)})):
            torch.manual_seed(1)
            found.append(model(*what.without(absent).inputs).predictions)
            both = model(*what.inputs).predictions
        for name, values in found[0].items():
            assert torch.isfinite(values).all() and torch.equal(values, found[1][name])
            assert not torch.allclose(values, both[name])
    sum(values.square().sum() for values in found[0].values()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_modality_may_be_absent_from_some_examples_only():
    model = build(TINY, {"e_form": 1}, partial=True).eval()
    batch = some_batch()
    absent = torch.tensor([[False, False], [True, False], [False, True], [False, False]])
    mixed = model(*batch.without(absent).inputs).predictions["e_form"]
    for i, row in enumerate(absent):
        alone = model(*batch.without(row.expand(4, 2)).inputs).predictions["e_form"][i]
        assert mixed[i].item() == pytest.approx(alone.item(), abs=1e-5)


def test_a_token_that_was_not_measured_is_not_seen():
    model = build(TINY, {"e_form": 1}, partial=True)
    batch = some_batch()
    masked = torch.zeros(4, 17, dtype=torch.bool)
    masked[:, [0, 16]] = True
    batch = dataclasses.replace(batch, masked=masked)
    changed = dataclasses.replace(batch, tokens=torch.where(masked[..., None], 7.0, batch.tokens))
    model.eval()
    first, second = (model(*b.inputs).predictions["e_form"] for b in (batch, changed))
    assert torch.equal(first, second)
    first.sum().backward()
    assert model.mask.grad.abs().sum() > 0


# ---------------------------------------------------------------- draws


def test_modalities_are_absent_at_their_rate_and_never_both():
    absent = drawn_absent(0.2, 3, 50_000, 0)
    assert absent.float().mean(0).tolist() == pytest.approx([0.2, 0.2], abs=0.01)
    assert not absent.all(1).any()
    assert torch.equal(absent, drawn_absent(0.2, 3, 50_000, 0))
    assert not torch.equal(absent, drawn_absent(0.2, 4, 50_000, 0))
    assert not drawn_absent(0.5, 0, 1000, 0).all(1).any() and drawn_absent(0.5, 0, 1000, 0).any(1).all()


def test_effects_differ_from_step_to_step_and_with_the_seed():
    keys = [drawn_effects(EFFECTS["laboratory"], step, 8, seed).keys for step, seed in ((0, 0), (1, 0), (0, 1), (0, 0))]
    assert np.array_equal(keys[0], keys[3])
    assert len(set(np.concatenate(keys[:3]).tolist())) == 24


def test_a_batch_under_effects_is_masked_where_nothing_was_measured(dataset):
    data = Dataset(dataset)
    rows = np.arange(len(data))
    batch = make_batch(data, rows, drawn=drawn_effects(EFFECTS["laboratory"], 0, len(rows), 0))
    assert batch.masked.shape == (48, 17) and batch.masked.any() and len(batch.inputs) == 4
    assert (batch.tokens[batch.masked] == 0).all() and not torch.equal(batch.tokens, make_batch(data, rows).tokens)
    assert make_batch(data, rows).masked is None


# ---------------------------------------------------------------- training


def test_a_run_is_judged_in_all_its_views(dataset, tmp_path):
    run = config(dataset, targets=("e_form", "crystal_system"), **MEASURED)
    folder = run_folder(tmp_path, run)
    result = train.train(run, folder)
    assert {name: result[name] for name in MEASURED} == MEASURED
    for split in ("val", "test"):
        for view in ("", " laboratory", " composition alone", " pattern alone", " laboratory, pattern alone"):
            assert (
                result[f"{split}{view}/e_form_mae"] > 0 and 0 <= result[f"{split}{view}/crystal_system_accuracy"] <= 1
            )
    evaluated = [line for line in runs.metrics(folder) if "val/error" in line]
    best = min(evaluated, key=lambda line: line["val/error"])
    assert result["best_step"] == best["step"]
    _, about = runs.load_model(folder)
    std = about["normalisers"]["e_form"]["std"]
    expected = (best["val laboratory/e_form_mae"] / std + 1 - best["val laboratory/crystal_system_accuracy"]) / 2
    assert best["val/error"] == pytest.approx(expected), "the epoch is chosen under the effects"
    assert set(pq.read_table(folder / "predictions.parquet")["split"].to_pylist()) == {"val", "test"}


def test_views_are_what_a_run_trains_for(dataset):
    assert views(config(dataset, modalities=("xrd",))) == [View()]
    assert views(config(dataset)) == [View(), View(exchanged=True)]
    assert [view.words for view in views(config(dataset, **MEASURED))] == [
        "", "laboratory", "composition alone", "pattern alone", "laboratory, pattern alone", "exchanged patterns"
    ]  # fmt: skip
    assert [view.words for view in views(config(dataset, modality_dropout=0.1))] == [
        "", "composition alone", "pattern alone", "exchanged patterns"
    ]  # fmt: skip


def test_exchanged_patterns_are_those_of_other_crystals(dataset, tmp_path):
    run = train._prepare(config(dataset), tmp_path, CPU)
    rows = run.examples.rows["val"]
    _, predicted = evaluate(run.model, run.examples, "val", run.config, CPU, exchanged=True)
    others = np.roll(rows, len(rows) // 2)
    own, other = (make_batch(run.examples.dataset, which) for which in (rows, others))
    assert not (rows == others).any() and not torch.equal(own.tokens, other.tokens)
    with torch.no_grad():
        expected = run.model(own.element_ids, own.fractions, other.tokens).predictions["e_form"]
    assert np.allclose(run.examples.normalisers["e_form"].normalise(predicted["e_form"]), expected, atol=1e-5)


def test_a_model_that_ignores_patterns_is_noticed(dataset, tmp_path, capsys, monkeypatch):
    """As happens where the learning rate is too high: the encoder has one output for all patterns."""
    forward = XRDEncoder.forward
    for name in ("working", "collapsed"):
        folder = run_folder(tmp_path, config(dataset, name=name, targets=("e_form", "crystal_system")))
        train.main([str(folder / "run.json")])
        said = IGNORES in (printed := capsys.readouterr().err)
        assert bool(re.search(rf"collapsed after step \d+ {IGNORES}", printed)) == said, "while it trains, too"
        with warnings.catch_warnings(record=True) as warned:
            launch._outcome(folder)
        assert [said, bool(warned), ignores_pattern(runs.results(folder))] == [name == "collapsed"] * 3
        monkeypatch.setattr(
            XRDEncoder, "forward", lambda self, *inputs, **options: 0 * forward(self, *inputs, **options)
        )


def test_a_model_that_hardly_reads_patterns_does_not_ignore_them():
    """What a pretrained model of E_f said after 3,479 labels on mp36k, and what a collapsed encoder would have."""
    own = {"val/e_form_mae": 0.1133826, "val/e_form_r2": 0.9726868}
    assert not ignores_pattern(
        own | {"val exchanged patterns/e_form_mae": 0.1134335, "val exchanged patterns/e_form_r2": 0.9727082}
    )
    assert ignores_pattern(own | {f"val exchanged patterns/{n[4:]}": value * (1 + 1e-7) for n, value in own.items()})
    assert not ignores_pattern(own)


def test_effects_of_an_evaluation_are_fixed_and_matter(dataset, tmp_path):
    run = train._prepare(config(dataset, **MEASURED), tmp_path, CPU)
    laboratory = EFFECTS["laboratory"]
    found = [evaluate(run.model, run.examples, "val", run.config, CPU, effects)[1]["e_form"]
             for effects in (laboratory, laboratory, None)]  # fmt: skip
    assert np.array_equal(found[0], found[1]) and not np.allclose(found[0], found[2])


def test_a_stopped_run_goes_on_bitwise(dataset, tmp_path):
    weights = []
    for name, stops in (("whole", ()), ("stopped", (3, 7))):
        folder = run_folder(tmp_path, config(dataset, name=name, **MEASURED))
        for stop in (*stops, 10):
            run = train._prepare(config(dataset, name=name, **MEASURED), folder, CPU)
            train._resume(run)
            while run.step < stop:
                train._step(run)
            train._checkpoint(run)
        weights.append(run.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_micro_batches_have_the_effects_of_the_whole_batch(dataset, monkeypatch):
    """What is drawn for the third crystal of a step does not depend on how the step is divided."""
    seen = []
    plain = steps.make_batch
    monkeypatch.setattr(
        steps, "make_batch", lambda *arguments, **more: seen.append(plain(*arguments, **more)) or seen[-1]
    )
    for micro_batch in (None, 3):
        run = config(dataset, micro_batch=micro_batch, **MEASURED)
        examples = examples_of(run)
        steps.step_gradients(build(run.model, {"e_form": 1}, partial=True), examples, run, 2, CPU)
    whole, *parts = seen
    assert len(parts) == 3 and torch.equal(whole.tokens, torch.cat([part.tokens for part in parts]))
    assert torch.equal(whole.masked, torch.cat([part.masked for part in parts]))


def test_by_likelihood_what_cannot_be_known_counts_little(dataset, tmp_path):
    """A regression says how wide its error is: wider where the composition, which decides, is not given."""
    run = config(dataset, n_steps=300, learning_rate=2e-3, dropout=0.0, modality_dropout=0.3, likelihood=True)
    folder = run_folder(tmp_path, run)
    train.train(run, folder)
    model, _, _ = trained(folder / "model.safetensors")
    assert model.heads["e_form"].out_features == 2
    batch = make_batch(Dataset(dataset), np.arange(48))
    with torch.no_grad():
        outputs = [model(*batch.without(torch.tensor([[absent, False]] * 48)).inputs) for absent in (False, True)]
    given, absent = (output.log_std["e_form"] for output in outputs)
    assert outputs[0].predictions["e_form"].shape == (48,) and absent.mean() - given.mean() > 0.5
    zeros, ones = torch.zeros(2), torch.ones(2)
    loss = target_losses({"e_form": zeros}, {"e_form": ones}, log_std={"e_form": ones})
    assert loss["e_form"].item() == pytest.approx(2**0.5 * np.exp(-1) + 1, rel=1e-6)


def test_mask_carries_over_from_pretraining(dataset, tmp_path):
    masks = {}
    for objective in ("mxm", "contrastive"):
        run = config(dataset, name=objective, n_steps=4, targets=(), objectives=(objective,))
        train.train(run, run_folder(tmp_path, run))
        tensors, _ = runs.load_model(tmp_path / objective)
        following = config(dataset, name=f"after-{objective}", initial=str(tmp_path / objective), **MEASURED)
        masks[objective] = tensors.get("mask"), train._prepare(following, tmp_path, CPU).model.mask
    assert torch.equal(*masks["mxm"])
    assert masks["contrastive"][0] is None and masks["contrastive"][1].requires_grad
    with pytest.raises(ConfigError, match="lacks mask"):
        train._prepare(dataclasses.replace(following, frozen=True), tmp_path, CPU)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"augmentation": "kitchen"}, "choose from None, laboratory"),
        ({"modality_dropout": 0.6}, "between 0 and 0.5"),
        ({"modality_dropout": 0.1, "modalities": ("xrd",)}, "both modalities"),
        ({"augmentation": "laboratory", "modalities": ("composition",)}, "reads none"),
        ({"augmentation": "laboratory", "targets": (), "objectives": ("mxm",)}, "on targets alone"),
        ({"modality_dropout": 0.1, "architecture": "fcn_mlp"}, "on targets alone"),
        ({"likelihood": True, "architecture": "fcn_mlp"}, "fcn_mlp has the loss of its publication"),
    ],
)
def test_a_run_that_cannot_be_is_one_clear_line(change, words):
    values = json.loads(json.dumps(dataclasses.asdict(config("data/demo"))))
    model = {name: change.pop(name) for name in ("modalities", "architecture") if name in change}
    with pytest.raises(ConfigError, match=words) as error:
        from_dict(values | change | {"model": values["model"] | model})
    assert "\n" not in str(error.value)
