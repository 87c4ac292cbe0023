"""Losses, schedule, configuration, checkpoints: the parts of a training, each alone."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xxlib.datasets import splits
from xxlib.models.config import ModelConfig
from xxlib.models.layers import recompute_layers
from xxlib.models.xxact import build, count_parameters
from xxlib.training import runs
from xxlib.training.config import PRESETS, ConfigError, RunConfig, from_dict
from xxlib.training.losses import contrastive_loss, masked_xrd_loss, target_counts, target_losses
from xxlib.training.masking import hidden_tokens
from xxlib.training.metrics import classification_metrics, limit_of_composition, regression_metrics
from xxlib.training.schedule import learning_rate

# ---------------------------------------------------------------- losses


def test_losses_are_mean_square_and_cross_entropy():
    predictions = {"e_form": torch.tensor([1.0, 2.0]), "crystal_system": torch.zeros(2, 7)}
    targets = {"e_form": torch.tensor([0.0, 4.0]), "crystal_system": torch.tensor([3, 6])}
    losses = target_losses(predictions, targets)
    assert losses["e_form"].item() == pytest.approx((1 + 4) / 2)
    assert losses["crystal_system"].item() == pytest.approx(math.log(7))


def test_missing_labels_count_for_nothing_and_give_no_gradient():
    prediction = torch.tensor([1.0, 5.0], requires_grad=True)
    logits = torch.randn(2, 7, requires_grad=True)
    targets = {"e_form": torch.tensor([0.0, math.nan]), "crystal_system": torch.tensor([-1, 2])}
    losses = target_losses({"e_form": prediction, "crystal_system": logits}, targets)
    sum(losses.values()).backward()
    assert losses["e_form"].item() == 1 and prediction.grad[1] == 0
    assert logits.grad[0].abs().sum() == 0 and logits.grad[1].abs().sum() > 0


def test_drawn_targets_share_out_the_batch():
    """Each example gives the gradient of its own target alone, and the losses add up to the mean over the batch."""
    prediction = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    logits = torch.randn(3, 7, requires_grad=True)
    targets = {"e_form": torch.zeros(3), "crystal_system": torch.tensor([0, 1, 2])}
    losses = target_losses({"e_form": prediction, "crystal_system": logits}, targets, drawn=torch.tensor([0, 1, 0]))
    sum(losses.values()).backward()
    assert losses["e_form"].item() == pytest.approx((1 + 9) / 3)
    assert (prediction.grad != 0).tolist() == [True, False, True]
    assert (logits.grad.abs().sum(1) > 0).tolist() == [False, True, False]


def test_parts_of_a_batch_add_up():
    predictions, targets = torch.randn(5), torch.tensor([1.0, math.nan, 0.0, 2.0, math.nan])
    whole = target_losses({"e_form": predictions}, {"e_form": targets})["e_form"]
    counts = target_counts({"e_form": targets})
    parts = [target_losses({"e_form": predictions[part]}, {"e_form": targets[part]}, counts=counts)["e_form"]
             for part in (slice(0, 2), slice(2, 5))]  # fmt: skip
    assert counts["e_form"] == 3 and sum(parts) == pytest.approx(whole.item())


def test_contrastive_loss_of_identical_embeddings_is_log_b():
    same = torch.ones(10, 4)
    assert contrastive_loss(same, same, torch.tensor(2.0)).item() == pytest.approx(math.log(10), rel=1e-6)


def test_contrastive_loss_is_symmetric_cross_entropy_of_cosines():
    composition, xrd, scale = torch.randn(6, 4), torch.randn(6, 4), torch.tensor(math.log(1 / 0.07))
    cosines = torch.tensor([[F.cosine_similarity(c, x, dim=0) for x in xrd] for c in composition])
    rows, columns = (cosines / 0.07).log_softmax(1).diag(), (cosines / 0.07).log_softmax(0).diag()
    loss = contrastive_loss(composition, xrd, scale)
    assert loss.item() == pytest.approx(-(rows.mean() + columns.mean()).item() / 2, rel=1e-5)
    assert contrastive_loss(3 * composition, xrd, scale).item() == pytest.approx(loss.item(), rel=1e-5)
    parts = [contrastive_loss(composition, xrd, scale, part).item() for part in (slice(0, 4), slice(4, 6))]
    assert sum(parts) == pytest.approx(loss.item(), rel=1e-5)


def test_masked_loss_is_of_hidden_tokens_alone():
    tokens, masked = torch.rand(3, 17, 250) * 100, torch.zeros(3, 17, dtype=torch.bool)
    masked[0, 4] = masked[2, 0] = masked[2, 16] = True
    reconstructed = torch.zeros_like(tokens, requires_grad=True)
    loss = masked_xrd_loss(reconstructed, tokens, masked)
    expected = np.mean([np.mean(tokens[i, j].numpy() ** 2) for i, j in ((0, 4), (2, 0), (2, 16))])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert torch.equal(reconstructed.grad.abs().sum(-1) > 0, masked)


def test_a_masked_loss_without_hidden_tokens_is_zero():
    tokens = torch.rand(2, 17, 250)
    assert masked_xrd_loss(tokens + 1, tokens, torch.zeros(2, 17, dtype=torch.bool)).item() == 0


# ---------------------------------------------------------------- masking


def test_five_percent_hides_seven_and_a_half():
    """0.05 + 0.95^17 / 17, because a pattern never hides nothing."""
    masked = hidden_tokens(40_000, rate=0.05)
    assert masked.shape == (40_000, 17) and masked.any(1).all()
    assert masked.mean() == pytest.approx(0.05 + 0.95**17 / 17, abs=0.001) == pytest.approx(0.0746, abs=0.001)
    assert np.abs(masked.mean(0) - masked.mean()).max() < 0.006, "every token equally"
    assert (masked.sum(1) == 1).mean() == pytest.approx(0.95**17 + 17 * 0.05 * 0.95**16, abs=0.01)


def test_hidden_tokens_depend_on_the_seed_alone():
    assert np.array_equal(hidden_tokens(50, seed=(1, 2)), hidden_tokens(50, seed=(1, 2)))
    assert not np.array_equal(hidden_tokens(50, seed=(1, 2)), hidden_tokens(50, seed=(1, 3)))


@pytest.mark.parametrize("span", [2, 5, 17])
def test_spans_are_contiguous(span):
    masked = hidden_tokens(5000, rate=0.02, span=span)
    padded = np.pad(masked, ((0, 0), (1, 1))).astype(int)
    lengths = np.flatnonzero(np.diff(padded) == -1) - np.flatnonzero(np.diff(padded) == 1)
    assert lengths.min() == span and masked.any(1).all()


# ---------------------------------------------------------------- the masked model


def test_hidden_tokens_are_not_seen_and_mask_is_learned():
    model = build(PRESETS["smoke"].model, {}, ("mxm",)).eval()
    assert model.logit_scale is None
    ids, fractions = torch.tensor([[3, 9]]), torch.tensor([[0.5, 0.5]])
    tokens, masked = torch.rand(1, 17, 250) * 100, torch.zeros(1, 17, dtype=torch.bool)
    masked[0, 3] = True
    changed = tokens.clone()
    changed[0, 3] = 0
    reconstructed = model(ids, fractions, tokens, masked).reconstructed
    assert torch.equal(reconstructed, model(ids, fractions, changed, masked).reconstructed)
    assert reconstructed.shape == tokens.shape and (reconstructed >= 0).all()
    masked_xrd_loss(reconstructed, tokens, masked).backward()
    assert model.mask.grad.abs().sum() > 0


def test_every_point_of_a_hidden_token_can_learn_from_the_first_step():
    """A point that is below zero for every pattern has no gradient, and stays there."""
    torch.manual_seed(0)
    model = build(PRESETS["small"].model, {}, ("mxm",)).eval()
    ids, fractions = torch.tensor([[3, 9]]).expand(8, 2), torch.full((8, 2), 0.5)
    tokens, masked = torch.rand(8, 17, 250) * 4, torch.zeros(8, 17, dtype=torch.bool)
    masked[:, 3] = True
    assert (model(ids, fractions, tokens, masked).reconstructed > 0).float().mean() > 0.99


def test_temperature_starts_at_007_and_is_learned():
    model = build(PRESETS["smoke"].model, {}, ("contrastive",))
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07) and model.logit_scale.requires_grad


def test_pretraining_adds_nothing_to_encoders_and_fusion():
    with torch.device("meta"):
        plain, masked = (build(ModelConfig(), {}, objectives) for objectives in ((), ("contrastive", "mxm")))
    extra = count_parameters(masked) - count_parameters(plain)
    assert extra == 1 + 250 + 768 * 250 + 250 and count_parameters(masked.fusion) == 94_534_656


def test_recomputed_layers_give_the_same_gradient():
    """With dropout, and each layer computed twice."""
    models = [build(PRESETS["smoke"].model, {"e_form": 1}).train() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    recompute_layers(models[1])
    inputs = torch.tensor([[3, 9], [11, 17]]), torch.full((2, 2), 0.5), torch.rand(2, 17, 250) * 100
    calls = [0, 0]
    for k, model in enumerate(models):
        model.fusion.layers[0].norm1.register_forward_hook(lambda *_, k=k: calls.__setitem__(k, calls[k] + 1))
        torch.manual_seed(0)
        model(*inputs).predictions["e_form"].square().sum().backward()
    assert calls == [1, 2]
    for (name, one), (_, two) in zip(*(model.named_parameters() for model in models)):
        assert torch.equal(one.grad, two.grad), name


# ---------------------------------------------------------------- zero-shot families


@pytest.mark.parametrize(
    ("formula", "families"),
    [
        ({30: 1, 16: 1}, {"chalcogenides"}),
        ({38: 1, 22: 1, 8: 3}, {"perovskites"}),  # SrTiO3
        ({56: 1, 40: 1, 16: 3}, {"chalcogenides", "perovskites"}),  # BaZrS3
        ({20: 1, 6: 1, 8: 3}, set()),  # CaCO3: carbon is no metal
        ({38: 2, 22: 1, 8: 4}, set()),
        ({13: 1, 28: 3}, {"intermetallics"}),
        ({14: 1, 28: 3}, set()),  # silicon is no metal
        ({29: 1}, set()),  # an element
        ({11: 1, 17: 1}, set()),
    ],
)
def test_families(formula, families):
    fractions = np.array(list(formula.values()), np.float32) / sum(formula.values())
    found = {name for name, is_member in splits.FAMILIES.items() if is_member(list(formula), fractions)}
    assert found == families


def test_a_family_left_out_is_test_and_nothing_else():
    before = ["train", "train", "val", "val", "test", "test", "experimental", "experimental"]
    assigned = splits.by_family(before, [True, False] * 4)
    assert assigned.tolist() == ["test", "train", "test", "val", "test", "", "experimental", "experimental"]


# ---------------------------------------------------------------- schedule


def test_learning_rate_warms_up_linearly_and_falls_as_a_cosine():
    rates = np.array([learning_rate(step, 1000, 5e-4) for step in range(1000)])
    assert rates[0] == pytest.approx(1e-6) and rates[100] == pytest.approx(5e-4) and rates[-1] == pytest.approx(1e-7)
    assert np.allclose(np.diff(rates[:101]), (5e-4 - 1e-6) / 100)
    middle = 100 + (999 - 100) / 2
    assert np.interp(middle, np.arange(1000), rates) == pytest.approx((5e-4 + 1e-7) / 2, rel=1e-3)
    assert (np.diff(rates[100:]) < 0).all()


@pytest.mark.parametrize("n_steps", [1, 2, 3, 11])
def test_the_shortest_runs_have_a_learning_rate(n_steps):
    assert all(0 < learning_rate(step, n_steps, 1e-3) <= 1e-3 for step in range(n_steps))


# ---------------------------------------------------------------- configuration


def test_presets_survive_json(tmp_path):
    for preset in PRESETS.values():
        preset.save(tmp_path / "run.json")
        assert RunConfig.load(tmp_path / "run.json") == preset


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rte": 1}, "unknown key learning_rte"),
        ({"model": {"depth": 3}}, r"unknown key model\.depth"),
        ({"targets": ["melting_point"]}, "melting_point"),
        ({"precision": "fp8"}, "fp8"),
        ({"split": "by_eye"}, "by_eye"),
        ({"n_steps": 0}, "n_steps"),
        ({"n_steps": None}, "missing key n_steps"),
        ({"model": 3}, "model"),
        ({"objectives": ["mxm"]}, "either targets or"),
        ({"targets": []}, "either targets or"),
        ({"objectives": ["clip"], "targets": []}, "choose from contrastive, mxm"),
        ({"left_out": "oxides"}, "choose from None, chalcogenides"),
        ({"frozen": True}, "`initial`"),
        ({"unlabelled": "data/demo"}, "only join pretraining"),
        ({"n_train": 0}, "n_train 0 must be positive"),
        ({"hidden_rate": 0}, "hidden_rate"),
        ({"hidden_span": 18}, "hidden_span"),
        ({"micro_batch": 0}, "micro_batch"),
        ({"initial": "x", "model": {"architecture": "fcn", "modalities": ["xrd"]}}, "leave objectives and initial out"),
    ],
)
def test_a_wrong_run_is_one_clear_line(tmp_path, change, words):
    values = dataclasses.asdict(PRESETS["smoke"]) | change
    values = {name: value for name, value in values.items() if value is not None}
    with pytest.raises(ConfigError, match=words) as error:
        from_dict(values)
    assert "\n" not in str(error.value)
    (tmp_path / "run.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"run\.json"):
        RunConfig.load(tmp_path / "run.json")


def test_a_run_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json is not JSON"):
        RunConfig.load(tmp_path / "run.json")


# ---------------------------------------------------------------- files


def test_a_flipped_bit_and_a_cut_are_noticed(tmp_path):
    path = tmp_path / "state.pt"
    runs.write_checked(path, b"0123456789" * 100)
    assert runs.read_checked(path) == b"0123456789" * 100
    for damaged in (b"1" + b"0123456789" * 100, b"0123456789" * 99, b""):
        path.write_bytes(damaged)
        with pytest.raises(runs.CheckpointError, match=r"state\.pt does not match its sha256"):
            runs.read_checked(path)


def test_a_file_fits_its_sidecar_at_every_moment_of_an_exchange(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    runs.write_checked(path, b"old")
    replace, seen = runs.os.replace, []

    def watched(source, target):
        replace(source, target)
        seen.append(runs.read_checked(path))

    monkeypatch.setattr(runs.os, "replace", watched)
    runs.write_checked(path, b"new")
    assert seen == [b"old", b"new", b"new"]
    assert len((tmp_path / "state.pt.sha256").read_text().splitlines()) == 1


def test_a_model_carries_what_prediction_needs(tmp_path):
    model = torch.nn.Linear(3, 2)
    runs.save_model(tmp_path, model, {"normalisers": {"e_form": {"mean": 1.0, "std": 2.0}}})
    tensors, about = runs.load_model(tmp_path)
    assert torch.equal(tensors["weight"], model.weight) and about["normalisers"]["e_form"]["std"] == 2.0


def test_a_line_of_metrics_cut_off_by_a_kill_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert runs.metrics(tmp_path) == [{"step": 1}, {"step": 2}]


def test_runs_from_before_pretraining_are_still_read():
    """The committed runs' run.json lack the fields that came later."""
    values = dataclasses.asdict(PRESETS["small"])
    later = ("objectives", "initial", "frozen", "hidden_rate", "hidden_span", "unlabelled", "left_out", "n_train")
    later += ("micro_batch", "checkpointing", "compile", "augmentation", "modality_dropout", "one_target", "likelihood")
    for name in later:
        del values[name]
    assert from_dict(values) == PRESETS["small"]


# ---------------------------------------------------------------- metrics


def test_regression_metrics():
    values = regression_metrics(np.array([0.0, 1.0, 2.0, np.nan]), np.array([0.0, 1.0, 5.0, 9.0]))
    assert values["mae"] == pytest.approx(1) and values["rmse"] == pytest.approx(math.sqrt(3))
    assert values["r2"] == pytest.approx(1 - 9 / 2)


def test_polymorphs_limit_what_a_composition_says():
    formulas = np.array(["TiO2", "TiO2", "TiO2", "NaCl", "C"])
    limit = limit_of_composition(formulas, np.array([-3.0, -3.1, -3.4, -2.0, np.nan]), "regression")
    assert limit == pytest.approx((0.1 + 0 + 0.3 + 0) / 4)
    assert limit_of_composition(formulas, np.array([0, 0, 1, 2, np.nan]), "classification") == 3 / 4


def test_classification_metrics():
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.9, 0.1], [0.3, 0.7]])
    values = classification_metrics(np.array([0, 0, 0, 1.0]), probabilities)
    assert values["accuracy"] == 1 and values["balanced_accuracy"] == 1
    values = classification_metrics(np.array([0, 1, np.nan, 1.0]), probabilities)
    assert values["accuracy"] == pytest.approx(2 / 3) and values["balanced_accuracy"] == pytest.approx(3 / 4)
    assert values["log_loss"] == pytest.approx(-np.log([0.8, 0.4, 0.7]).mean())
