"""Patterns in part and modalities that are absent: the model, the draws, a training with both."""

import json
import re
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from test_models import changed
from test_train import CPU, TINY, config, rock_salt_dataset, run_folder, series

from xxlib import launch, train
from xxlib.datasets.batches import Batch, make_batch
from xxlib.datasets.store import Dataset
from xxlib.diffraction.effects import EFFECTS
from xxlib.models.build import build
from xxlib.models.config import ModelConfig
from xxlib.models.encoders.xrd import XRDEncoder
from xxlib.models.inputs import Composition, Pattern, Tokens
from xxlib.models.xxact import count_parameters
from xxlib.training import run as loop
from xxlib.training import runs, state, steps
from xxlib.training.config import ConfigError, from_dict
from xxlib.training.draws import drawn_absent, drawn_effects
from xxlib.training.examples import examples_of
from xxlib.training.judging import View, evaluate, views
from xxlib.training.losses import target_losses
from xxlib.training.metrics import IGNORES, ignores_pattern
from xxlib.training.objectives import step_gradients
from xxlib.training.records import curve, record, value
from xxlib.training.state import build_model

MEASURED = {"effects": "laboratory", "absent_rate": 0.2}
BOTH = ("composition", "xrd")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return rock_salt_dataset(tmp_path_factory.mktemp("partial") / "rock-salts")


def some_batch(n=4):
    random = torch.Generator().manual_seed(0)
    composition = Composition(torch.randint(1, 90, (n, 3), generator=random), torch.full((n, 3), 1 / 3))
    pattern = Pattern(100 * torch.rand(n, 17, 250, generator=random))
    everyone = {name: torch.ones(n, dtype=torch.bool) for name in BOTH}
    return Batch(inputs={"composition": composition, "xrd": pattern}, given=everyone, targets={})


def answer(model, batch, target="e_form"):
    return model(batch.inputs, batch.given).predictions[target]


# ---------------------------------------------------------------- the model


def test_mask_is_the_only_addition_to_the_pinned_counts():
    with torch.device("meta"):
        plain, partial = (build(ModelConfig(), {"e_form": 1}, partial=partial) for partial in (False, True))
    assert count_parameters(partial) - count_parameters(plain) == 250 == partial.encoders["xrd"].mask.numel()
    assert partial.encoders["composition"].mask is None and count_parameters(partial.fusion) == 94_534_656


@pytest.mark.parametrize("training", [False, True])
def test_one_modality_alone_is_an_answer_that_the_other_does_not_change(training):
    torch.manual_seed(0)
    model = build(TINY, {"e_form": 1, "crystal_system": 7}, partial=True).train(training)
    batch = some_batch()
    for absent in BOTH:
        (given,) = set(BOTH) - {absent}
        other = changed(batch.inputs, absent, lambda x: x.flip(0) + 1)
        outputs = []
        for inputs in (batch.inputs, other):
            torch.manual_seed(1)
            alone = Batch(inputs=inputs, given=batch.given, targets={}).only((given,))
            assert not alone.given[absent].any() and alone.given[given].all()
            outputs.append(model(alone.inputs, alone.given).predictions)
        both = model(batch.inputs).predictions
        for name, values in outputs[0].items():
            assert torch.isfinite(values).all() and torch.equal(values, outputs[1][name])
            assert not torch.allclose(values, both[name])
    sum(values.square().sum() for values in outputs[0].values()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_modality_may_be_absent_from_some_examples_only():
    model, batch = build(TINY, {"e_form": 1}, partial=True).eval(), some_batch()
    absent = {
        "composition": torch.tensor([False, True, False, False]),
        "xrd": torch.tensor([False, False, True, False]),
    }
    mixed = answer(model, batch.without(absent))
    for i in range(4):
        alone = answer(model, batch.without({name: which[i].expand(4) for name, which in absent.items()}))[i]
        assert mixed[i].item() == pytest.approx(alone.item(), abs=1e-5)


def test_a_token_that_was_not_measured_is_not_seen():
    model, batch = build(TINY, {"e_form": 1}, partial=True).eval(), some_batch()
    tokens, hidden = batch.inputs["xrd"].tokens, torch.zeros(4, 17, dtype=torch.bool)
    hidden[:, [0, 16]] = True
    seen = [batch.inputs | {"xrd": Pattern(x, hidden)} for x in (tokens, torch.where(hidden[..., None], 7.0, tokens))]
    first, second = (model(inputs).predictions["e_form"] for inputs in seen)
    assert torch.equal(first, second)
    first.sum().backward()
    assert model.encoders["xrd"].mask.grad.abs().sum() > 0


# ---------------------------------------------------------------- draws


def test_modalities_are_absent_at_their_rate_and_never_both():
    everyone = dict.fromkeys(BOTH, torch.ones(50_000, dtype=torch.bool))
    absent = drawn_absent(0.2, everyone, 3, 0)
    assert [which.float().mean().item() for which in absent.values()] == pytest.approx([0.2, 0.2], abs=0.01)
    again, next_step = (drawn_absent(0.2, everyone, step, 0)["xrd"] for step in (3, 4))
    assert torch.equal(absent["xrd"], again) and not torch.equal(absent["xrd"], next_step)
    for rate, names in ((0.2, BOTH), (0.5, BOTH), (1 / 3, ("composition", "xrd", "text"))):
        drawn = torch.stack(list(drawn_absent(rate, dict.fromkeys(names, everyone["xrd"]), 0, 0).values()))
        assert not drawn.all(0).any() and drawn.float().mean().item() == pytest.approx(rate, abs=0.01)
        assert rate < 0.3 or drawn.any(0).float().mean() > 0.99


def test_a_sample_keeps_the_only_modality_that_it_has():
    given = {"composition": torch.ones(1000, dtype=torch.bool), "xrd": torch.arange(1000) % 2 == 0}
    absent = drawn_absent(0.5, given, 0, 0)
    left = {name: given[name] & ~absent[name] for name in given}
    assert (left["composition"] | left["xrd"]).all() and absent["composition"].any()


def test_effects_differ_from_step_to_step_and_with_the_seed():
    keys = [drawn_effects(EFFECTS["laboratory"], step, 8, seed).keys for step, seed in ((0, 0), (1, 0), (0, 1), (0, 0))]
    assert np.array_equal(keys[0], keys[3])
    assert len(set(np.concatenate(keys[:3]).tolist())) == 24


def test_a_batch_under_effects_is_masked_where_nothing_was_measured(dataset):
    data = Dataset(dataset)
    rows = np.arange(len(data))
    pattern = make_batch(data, rows, drawn=drawn_effects(EFFECTS["laboratory"], 0, len(rows), 0)).inputs["xrd"]
    ideal = make_batch(data, rows).inputs["xrd"]
    assert pattern.hidden.shape == (48, 17) and pattern.hidden.any() and ideal.hidden is None
    assert (pattern.tokens[pattern.hidden] == 0).all() and not torch.equal(pattern.tokens, ideal.tokens)


# ---------------------------------------------------------------- training


def test_a_run_is_judged_in_all_its_views(dataset, tmp_path):
    run = config(dataset, targets=("e_form", "crystal_system"), **MEASURED)
    folder = run_folder(tmp_path, run)
    records = loop.train(run, folder)["metrics"]
    for split in ("val", "test"):
        for view in views(run):
            given = " + ".join(view.given)
            of_view = {"split": split, "given": given, "effects": view.effects, "exchanged": view.exchanged}
            assert value(records, "mae", "e_form", **of_view) > 0
            assert 0 <= value(records, "accuracy", "crystal_system", **of_view) <= 1
    steps, errors = curve(runs.metrics(folder), "error")
    best = int(np.argmin(errors))
    assert runs.results(folder)["best_step"] == steps[best]
    _, metadata = runs.load_model(folder)
    mae = series(runs.metrics(folder), "mae", "e_form", effects="laboratory")[best]
    accuracy = series(runs.metrics(folder), "accuracy", "crystal_system", effects="laboratory")[best]
    expected = (mae / metadata["normalisers"]["e_form"]["std"] + 1 - accuracy) / 2
    assert errors[best] == pytest.approx(expected), "the epoch is chosen under the effects"
    assert set(pq.read_table(folder / "predictions.parquet")["split"].to_pylist()) == {"val", "test"}


def test_views_are_what_a_run_trains_for(dataset):
    composition, xrd = ("composition",), ("xrd",)
    assert views(config(dataset, modalities=xrd)) == [View(xrd)]
    assert views(config(dataset)) == [View(BOTH), View(BOTH, exchanged="xrd")]
    assert views(config(dataset, **MEASURED)) == [
        View(BOTH), View(BOTH, "laboratory"), View(composition), View(xrd), View(xrd, "laboratory"),
        View(BOTH, exchanged="xrd"),
    ]  # fmt: skip
    assert views(config(dataset, absent_rate=0.1)) == [
        View(BOTH), View(composition), View(xrd), View(BOTH, exchanged="xrd")
    ]  # fmt: skip


def test_exchanged_patterns_are_those_of_other_crystals(dataset, tmp_path):
    run = state.prepare(config(dataset), tmp_path, CPU)
    rows = run.examples.rows["val"]
    predicted = evaluate(run.model, run.examples, "val", run.config, CPU, View(BOTH, exchanged="xrd"))
    others = np.roll(rows, len(rows) // 2)
    own, other = (make_batch(run.examples.dataset, which).inputs for which in (rows, others))
    assert not (rows == others).any() and not torch.equal(own["xrd"].tokens, other["xrd"].tokens)
    with torch.no_grad():
        expected = run.model(own | {"xrd": other["xrd"]}).predictions["e_form"]
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
        assert [said, bool(warned), ignores_pattern(runs.results(folder)["metrics"])] == [name == "collapsed"] * 3
        monkeypatch.setattr(
            XRDEncoder, "forward", lambda self, *inputs, **more: Tokens(0 * forward(self, *inputs, **more).x)
        )


def test_a_model_that_hardly_reads_patterns_does_not_ignore_them():
    """What a pretrained model of E_f said after 3,479 labels on mp36k, and what a collapsed encoder would have."""

    def records(values, exchanged=None):
        view = {"target": "e_form", "given": BOTH, "exchanged": exchanged}
        return [record("val", metric, number, **view) for metric, number in values.items()]

    own = {"mae": 0.1133826, "r2": 0.9726868}
    assert not ignores_pattern(records(own) + records({"mae": 0.1134335, "r2": 0.9727082}, "xrd"))
    assert ignores_pattern(records(own) + records({name: x * (1 + 1e-7) for name, x in own.items()}, "xrd"))
    assert not ignores_pattern(records(own))


def test_effects_of_an_evaluation_are_fixed_and_matter(dataset, tmp_path):
    run = state.prepare(config(dataset, **MEASURED), tmp_path, CPU)
    views = [View(BOTH, effects) for effects in ("laboratory", "laboratory", None)]
    predicted = [evaluate(run.model, run.examples, "val", run.config, CPU, view)["e_form"] for view in views]
    assert np.array_equal(predicted[0], predicted[1]) and not np.allclose(predicted[0], predicted[2])


def test_a_stopped_run_goes_on_bitwise(dataset, tmp_path):
    weights = []
    for name, stops in (("whole", ()), ("stopped", (3, 7))):
        folder = run_folder(tmp_path, config(dataset, name=name, **MEASURED))
        for stop in (*stops, 10):
            run = state.prepare(config(dataset, name=name, **MEASURED), folder, CPU)
            state.resume(run)
            while run.step < stop:
                state.step(run)
            state.checkpoint(run)
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
        step_gradients(build_model(run), examples, run, 2, CPU)
    whole, *parts = seen
    whole, parts = whole.inputs["xrd"], [part.inputs["xrd"] for part in parts]
    assert len(parts) == 3 and torch.equal(whole.tokens, torch.cat([part.tokens for part in parts]))
    assert torch.equal(whole.hidden, torch.cat([part.hidden for part in parts]))


def test_by_likelihood_what_cannot_be_known_counts_little(dataset, tmp_path):
    """A regression says how wide its error is: wider where the composition, which decides, is not given."""
    run = config(dataset, n_steps=300, learning_rate=2e-3, dropout=0.0, absent_rate=0.3, likelihood=True)
    folder = run_folder(tmp_path, run)
    loop.train(run, folder)
    model = build_model(run).eval()
    runs.load_weights(model, runs.load_model(folder)[0], folder)
    assert model.heads["e_form"].out_features == 2
    batch = make_batch(Dataset(dataset), np.arange(48))
    with torch.no_grad():
        outputs = [model(batch.only(given).inputs) for given in (BOTH, ("xrd",))]
    given, absent = (output.log_std["e_form"] for output in outputs)
    assert outputs[0].predictions["e_form"].shape == (48,) and absent.mean() - given.mean() > 0.5
    zeros, ones = torch.zeros(2), torch.ones(2)
    loss = target_losses({"e_form": zeros}, {"e_form": ones}, log_std={"e_form": ones})
    assert loss["e_form"].item() == pytest.approx(2**0.5 * np.exp(-1) + 1, rel=1e-6)


def test_mask_carries_over_from_pretraining(dataset, tmp_path):
    masks = {}
    for objective, what in (("masked", ("xrd",)), ("contrastive", (BOTH,))):
        run = config(dataset, name=objective, n_steps=4, targets=(), **{objective: what})
        loop.train(run, run_folder(tmp_path, run))
        tensors, _ = runs.load_model(tmp_path / objective)
        following = config(dataset, name=f"after-{objective}", initial=str(tmp_path / objective), **MEASURED)
        model = state.prepare(following, tmp_path, CPU).model
        masks[objective] = tensors.get("encoders.xrd.mask"), model.encoders["xrd"].mask
    assert torch.equal(*masks["masked"])
    assert masks["contrastive"][0] is None and masks["contrastive"][1].requires_grad
    with pytest.raises(ConfigError, match=r"lacks encoders\.xrd\.mask"):
        state.prepare(following.but(frozen=True), tmp_path, CPU)


@pytest.mark.parametrize(
    ("group", "change", "words"),
    [
        ("data", {"effects": "kitchen"}, "choose from None, laboratory"),
        ("data", {"absent_rate": 0.6}, "between 0 and 1 / 2"),
        ("objectives", {"masked": ["xrd"], "targets": []}, "on targets alone"),
        ("model", {"architecture": "fcn_mlp", "fusion": None}, "for XxaCT-NN alone"),
    ],
)
def test_a_run_that_cannot_be_is_one_clear_line(group, change, words):
    values = json.loads(json.dumps(config("data/demo", **MEASURED).as_dict()))
    values[group] |= change
    with pytest.raises(ConfigError, match=words) as error:
        from_dict(values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"absent_rate": 0.1, "modalities": ("xrd",)}, "several modalities"),
        ({"effects": "laboratory", "modalities": ("composition",)}, "reads none"),
    ],
)
def test_what_a_model_of_one_modality_cannot_do(changes, words):
    with pytest.raises(ConfigError, match=words):
        config("data/demo", **changes)


def test_a_baseline_has_the_loss_of_its_publication():
    values = config("data/demo", likelihood=True).as_dict()
    values["model"] |= {"architecture": "fcn_mlp", "fusion": None}
    with pytest.raises(ConfigError, match="fcn_mlp has the loss of its publication"):
        from_dict(json.loads(json.dumps(values)))
