"""Losses, schedule, configuration, checkpoints: the parts of a training, each alone."""

import dataclasses
import json
import math
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xxlib.datasets import splits, writing
from xxlib.models.build import build
from xxlib.models.config import FusionConfig, ModelConfig
from xxlib.models.fusion import ExpertsFusion
from xxlib.models.inputs import Composition, Pattern, Tokens
from xxlib.models.layers import recompute_layers
from xxlib.models.xxact import count_parameters
from xxlib.training import runs
from xxlib.training.config import ConfigError, RunConfig, from_dict
from xxlib.training.losses import (
    RELATION_TEMPERATURE,
    balance_loss,
    contrastive_loss,
    masked_element_loss,
    masked_xrd_loss,
    relational_loss,
    target_counts,
    target_losses,
)
from xxlib.training.masking import hidden_elements, hidden_tokens
from xxlib.training.metrics import classification_metrics, limit_of_composition, regression_metrics
from xxlib.training.presets import PRESETS
from xxlib.training.records import curve, record, select, value
from xxlib.training.relations import amounts, amplitudes
from xxlib.training.schedule import learning_rate

# ---------------------------------------------------------------- losses


def test_losses_are_mean_square_and_cross_entropy():
    predictions = {"e_form": torch.tensor([1.0, 2.0]), "crystal_system": torch.zeros(2, 7)}
    targets = {"e_form": torch.tensor([0.0, 4.0]), "crystal_system": torch.tensor([3, 6])}
    losses = target_losses(predictions, targets)
    assert losses["e_form"].item() == pytest.approx((1 + 4) / 2)
    assert losses["crystal_system"].item() == pytest.approx(math.log(7))
    assert target_losses(predictions, targets, absolute=True)["e_form"].item() == pytest.approx((1 + 2) / 2)


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


def test_samples_that_lack_a_modality_are_no_pairs():
    first, second, scale = torch.randn(6, 4), torch.randn(6, 4), torch.tensor(1.0)
    paired = torch.tensor([True, False, True, True, False, True])
    expected = contrastive_loss(first[paired], second[paired], scale).item()
    assert contrastive_loss(first, second, scale, paired=paired).item() == pytest.approx(expected, rel=1e-6)
    parts = [contrastive_loss(first, second, scale, part, paired).item() for part in (slice(0, 2), slice(2, 6))]
    assert sum(parts) == pytest.approx(expected, rel=1e-6)
    assert contrastive_loss(first, second, scale, paired=torch.ones(6, dtype=torch.bool)).item() == pytest.approx(
        contrastive_loss(first, second, scale).item(), rel=1e-6
    )


def test_the_loss_of_elements_is_of_hidden_ones_alone():
    logits, ids = torch.randn(2, 3, 119, requires_grad=True), torch.tensor([[3, 9, 0], [11, 17, 8]])
    hidden = torch.tensor([[False, True, False], [True, False, False]])
    loss = masked_element_loss(logits, ids, hidden)
    expected = -(logits[0, 1].log_softmax(-1)[9] + logits[1, 0].log_softmax(-1)[11]) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, hidden)


def test_a_masked_loss_without_hidden_tokens_is_zero():
    tokens = torch.rand(2, 17, 250)
    assert masked_xrd_loss(tokens + 1, tokens, torch.zeros(2, 17, dtype=torch.bool)).item() == 0


def test_relational_loss_is_the_divergence_of_similarities_to_the_others():
    learned, measured = torch.randn(5, 4), torch.rand(5, 9)
    expected = []
    for i in range(5):
        others = [j for j in range(5) if j != i]
        said, true = (
            torch.stack([F.cosine_similarity(x[i], x[j], dim=0) for j in others]).div(RELATION_TEMPERATURE).softmax(0)
            for x in (learned, measured)
        )
        expected.append((true * (true / said).log()).sum().item())
    loss = relational_loss(learned, measured)
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-5) and loss > 0
    parts = [relational_loss(learned, measured, part).item() for part in (slice(0, 2), slice(2, 5))]
    assert sum(parts) == pytest.approx(loss.item(), rel=1e-5)
    turned = 3 * measured @ torch.linalg.qr(torch.randn(9, 9))[0]
    assert relational_loss(turned, measured).item() == pytest.approx(0, abs=1e-5)


def test_only_samples_that_have_both_modalities_are_related():
    learned, measured = torch.randn(6, 4, requires_grad=True), torch.rand(6, 9)
    paired = torch.tensor([True, False, True, True, False, True])
    loss = relational_loss(learned, measured, paired=paired)
    assert loss.item() == pytest.approx(relational_loss(learned[paired], measured[paired]).item(), rel=1e-5)
    loss.backward()
    assert torch.equal(learned.grad.abs().sum(1) > 0, paired)
    for alone in (torch.arange(6) == 2, torch.zeros(6, dtype=torch.bool)):
        assert relational_loss(learned, measured, paired=alone).item() == 0
    assert relational_loss(learned[:0], measured[:0]).item() == 0


def test_alike_is_what_was_measured_alike():
    """Order and padding of elements do not matter, nor how strong a pattern is; roots of intensities are compared."""
    salt = Composition(torch.tensor([[11, 17, 0], [17, 11, 0]]), torch.tensor([[0.25, 0.75, 0], [0.75, 0.25, 0]]))
    assert amounts(salt).shape == (2, 119) and torch.equal(*amounts(salt)) and amounts(salt)[0, 17] == 0.75
    lines = torch.zeros(2, 17, 250)
    lines[0, 3, 5], lines[1, 3, 5], lines[1, 9, 7] = 100, 25, 9
    one, other = amplitudes(Pattern(lines))
    assert F.cosine_similarity(one, other, dim=0).item() == pytest.approx(5 / math.sqrt(25 + 9))


def test_experts_that_are_used_alike_cost_nothing():
    """N sum(u^2) / sum(u)^2 - 1, the square of standard deviation over mean; parts add up, gradients too."""
    assert balance_loss(torch.full((6, 4), 0.25)).item() == pytest.approx(0, abs=1e-6)
    assert balance_loss(F.one_hot(torch.zeros(6, dtype=torch.long), 4).float()).item() == pytest.approx(3)
    weights = torch.randn(7, 4).softmax(1).requires_grad_()
    used = weights.sum(0)
    whole = (used.std(correction=0) / used.mean()).square()
    (expected,) = torch.autograd.grad(whole, weights, retain_graph=True)
    assert balance_loss(weights).item() == pytest.approx(whole.item(), rel=1e-4)
    parts = [balance_loss(weights[part], used.detach()) for part in (slice(0, 2), slice(2, 7))]
    (found,) = torch.autograd.grad(sum(parts), weights)
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-4)
    # What is the same for all experts of a sample does not move the softmax behind the weights.
    found, expected = (g - g.mean(1, keepdim=True) for g in (found, expected))
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_balance_loss_brings_experts_back_into_use():
    """From a gate that sends nearly all samples to the same two of four."""
    torch.manual_seed(0)
    fusion = ExpertsFusion(FusionConfig(kind="experts", n_layers=1, d_ff=8), 6, 0.0)
    encoded = {name: Tokens(1 + torch.randn(64, 1, 6)) for name in ("xrd", "composition")}
    fusion.gate.weight.data[:2] = 0.5
    optimizer, losses = torch.optim.Adam([fusion.gate.weight, fusion.noise.weight], lr=0.02), []
    for _ in range(200):
        losses.append(balance_loss(fusion(encoded)[1]))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0] > 0.8 and losses[-1] < 0.1


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


def test_hidden_elements_are_real_ones_and_never_none():
    lengths = np.random.default_rng(0).integers(1, 7, 20_000)
    hidden = hidden_elements(lengths, 0.2, seed=3)
    assert hidden.shape == (20_000, 6) and hidden.any(1).all()
    assert not hidden[np.arange(6) >= lengths[:, None]].any()
    assert hidden[lengths == 6].mean() == pytest.approx(0.2 + 0.8**6 / 6, abs=0.01)
    assert np.array_equal(hidden, hidden_elements(lengths, 0.2, seed=3))


@pytest.mark.parametrize("span", [2, 5, 17])
def test_spans_are_contiguous(span):
    masked = hidden_tokens(5000, rate=0.02, span=span)
    padded = np.pad(masked, ((0, 0), (1, 1))).astype(int)
    lengths = np.flatnonzero(np.diff(padded) == -1) - np.flatnonzero(np.diff(padded) == 1)
    assert lengths.min() == span and masked.any(1).all()


# ---------------------------------------------------------------- the masked model


def some_inputs(tokens, hidden=None):
    n = len(tokens)
    composition = Composition(torch.tensor([[3, 9]]).expand(n, 2), torch.full((n, 2), 0.5))
    return {"composition": composition, "xrd": Pattern(tokens, hidden)}


def guessed(model, tokens, hidden):
    return model.guess["xrd"](model(some_inputs(tokens, hidden), tokens=True).fused.x[:, 1:])


def test_hidden_tokens_are_not_seen_and_mask_is_learned():
    model = build(PRESETS["smoke"].model, {}, masked=("xrd",)).eval()
    assert len(model.logit_scales) == 0
    tokens, hidden = torch.rand(1, 17, 250) * 100, torch.zeros(1, 17, dtype=torch.bool)
    hidden[0, 3] = True
    changed = tokens.clone()
    changed[0, 3] = 0
    reconstructed = guessed(model, tokens, hidden)
    assert torch.equal(reconstructed, guessed(model, changed, hidden))
    assert reconstructed.shape == tokens.shape and (reconstructed >= 0).all()
    masked_xrd_loss(reconstructed, tokens, hidden).backward()
    assert model.encoders["xrd"].mask.grad.abs().sum() > 0


def test_every_point_of_a_hidden_token_can_learn_from_the_first_step():
    """A point that is below zero for every pattern has no gradient, and stays there."""
    torch.manual_seed(0)
    model = build(PRESETS["small"].model, {}, masked=("xrd",)).eval()
    tokens, hidden = torch.rand(8, 17, 250) * 4, torch.zeros(8, 17, dtype=torch.bool)
    hidden[:, 3] = True
    assert (guessed(model, tokens, hidden) > 0).float().mean() > 0.99


def test_temperatures_start_at_007_and_are_learned():
    (scale,) = build(PRESETS["smoke"].model, {}, contrastive=(("composition", "xrd"),)).logit_scales.values()
    assert scale.exp().item() == pytest.approx(1 / 0.07) and scale.requires_grad


def test_pretraining_adds_nothing_to_encoders_and_fusion_but_a_mask():
    pretraining = {"contrastive": (("composition", "xrd"),), "masked": ("xrd",)}
    with torch.device("meta"):
        plain, masked = (build(ModelConfig(), {}, **more) for more in ({}, pretraining))
    extra = count_parameters(masked) - count_parameters(plain)
    assert extra == 1 + 250 + 768 * 250 + 250 and count_parameters(masked.fusion) == 94_534_656


def test_recomputed_layers_give_the_same_gradient():
    """With dropout, and each layer computed twice."""
    models = [build(PRESETS["smoke"].model, {"e_form": 1}).train() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    recompute_layers(models[1])
    inputs = some_inputs(torch.rand(2, 17, 250) * 100)
    calls = [0, 0]
    for k, model in enumerate(models):
        model.fusion.layers[0].norm1.register_forward_hook(lambda *_, k=k: calls.__setitem__(k, calls[k] + 1))
        torch.manual_seed(0)
        model(inputs).predictions["e_form"].square().sum().backward()
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


BOTH = [["composition", "xrd"]]
NO_NAMES = ("", ".", "..", "../run", "a/b", "/tmp/run", "a\\b", "a\nb", "a\n", " a", "a ", "-a", ".a", "a\0b",
            "$(a)", "a;b", "a'b", 'a"b', "a*", "#a", "a%jb", "x" * 101)  # fmt: skip


@pytest.mark.parametrize(
    ("group", "change", "words"),
    [
        (None, {"learning_rte": 1}, "unknown key learning_rte"),
        ("budget", {"learning_rte": 1}, r"unknown key budget\.learning_rte"),
        ("model", {"depth": 3}, r"unknown key model\.depth"),
        ("model", {"encoders": {"xrd": {"depth": 3}}}, r"unknown key model\.encoders\.xrd\.depth"),
        ("objectives", {"targets": ["melting_point"]}, "melting_point"),
        ("budget", {"precision": "fp8"}, "fp8"),
        ("data", {"split": "by_eye"}, "by_eye"),
        ("budget", {"n_steps": 0}, "n_steps"),
        ("budget", {"n_steps": None}, r"missing key budget\.n_steps"),
        (None, {"model": 3}, "model must be an object"),
        (None, {"data": None}, "missing key data"),
        ("data", {"jitter": 1.0}, r"jitter 1\.0 must be from 0 to 1"),
        ("budget", {"averaged": 1.5}, r"averaged 1\.5 must be from 0 to 1"),
        (
            None,
            {"data": {"dataset": "x", "split": "random"}, "objectives": {"targets": ["least_e_form"]}},
            "may be one",
        ),
        ("objectives", {"absolute": True, "likelihood": True}, "absolute errors or likelihood"),
        ("objectives", {"contrastive": BOTH}, "either targets or"),
        ("objectives", {"targets": []}, "either targets or"),
        ("objectives", {"contrastive": [["xrd", "xrd"]], "targets": []}, "give two of the modalities composition, xrd"),
        ("objectives", {"contrastive": [["xrd", "text"]], "targets": []}, "give two of the modalities"),
        ("objectives", {"relational": [["xrd", "xrd"]], "targets": []}, "relational .*: give two of the modalities"),
        ("objectives", {"relational": [["structure", "xrd"]], "targets": []}, "relational .*: give two of the"),
        ("objectives", {"relational": [["xrd", "composition"]]}, "either targets or"),
        ("objectives", {"masked": ["composition"], "targets": []}, "masked 'composition': out of this model come"),
        ("objectives", {"masked": ["text"], "targets": []}, "masked 'text'"),
        ("data", {"left_out": "oxides"}, "choose from None, chalcogenides"),
        (None, {"frozen": True}, "`initial`"),
        ("data", {"unlabelled": "data/demo"}, "only join pretraining"),
        ("data", {"unlabelled_alone": True}, "needs `unlabelled`"),
        ("data", {"also": ["data/demo"], "dataset": "data/demo"}, "also data/demo: give each dataset once"),
        ("data", {"also": "data/demo"}, r"data\.also is 'data/demo': it must be a list of texts"),
        ("data", {"n_train": 0}, "n_train 0 must be positive"),
        ("objectives", {"hidden_rate": 0}, "hidden_rate"),
        ("objectives", {"hidden_span": 18}, "hidden_span"),
        ("machine", {"micro_batch": 0}, "micro_batch"),
        ("model", {"fusion": None}, "several modalities needs a fusion"),
        ("budget", {"n_steps": 10.5}, r"budget\.n_steps is 10\.5: it must be a whole number"),
        ("budget", {"n_steps": 10.0}, r"budget\.n_steps is 10\.0: it must be a whole number"),
        ("budget", {"n_steps": True}, r"budget\.n_steps is True"),
        ("budget", {"batch_size": "64"}, r"budget\.batch_size is '64': it must be a whole number"),
        ("budget", {"learning_rate": math.nan}, r"budget\.learning_rate is nan: it must be a finite number"),
        ("budget", {"learning_rate": math.inf}, r"budget\.learning_rate is inf"),
        ("budget", {"learning_rate": "1e-3"}, r"budget\.learning_rate is '1e-3': it must be a finite number"),
        ("budget", {"learning_rate": 10**400}, r"budget\.learning_rate is 1000"),
        ("budget", {"precision": ["bf16"]}, r"budget\.precision is \('bf16',\): it must be a text"),
        ("data", {"unlabelled_alone": "no"}, r"data\.unlabelled_alone is 'no': it must be true or false"),
        ("data", {"absent_rate": "0.2"}, r"data\.absent_rate is '0\.2'"),
        ("data", {"n_train": 100.5}, r"data\.n_train is 100\.5: it must be a whole number or null"),
        ("data", {"dataset": 3}, r"data\.dataset is 3: it must be a text"),
        ("data", {"effects": ["laboratory"]}, r"data\.effects is .* a text or null"),
        ("objectives", {"one_target": 1}, r"objectives\.one_target is 1: it must be true or false"),
        ("objectives", {"targets": "e_form"}, r"objectives\.targets is 'e_form': it must be a list of texts"),
        ("objectives", {"targets": [3]}, r"objectives\.targets is \(3,\): it must be a list of texts"),
        (
            "objectives",
            {"contrastive": [["xrd"]]},
            r"objectives\.contrastive is .*: it must be a list of pairs of texts",
        ),
        ("objectives", {"contrastive": ["ab"]}, r"objectives\.contrastive is .*: it must be a list of pairs of texts"),
        ("machine", {"n_threads": 1.5}, r"machine\.n_threads is 1\.5"),
        ("machine", {"compile": None}, r"machine\.compile is None: it must be true or false"),
        ("model", {"dropout": "0.1"}, r"model\.dropout is '0\.1'"),
        ("model", {"dropout": 1.0}, r"dropout 1\.0 must be at least 0 and below 1"),
        ("model", {"d_fused": 64.0}, r"model\.d_fused is 64\.0"),
        ("model", {"d_fused": -64}, "d_fused -64 must be a whole number from 1 to"),
        (
            "model",
            {"encoders": {"xrd": {"n_layers": 1_000_000}}},
            "encoder of xrd: n_layers 1000000 must be a whole number",
        ),
        ("model", {"encoders": {"xrd": {"n_heads": 0}}}, "encoder of xrd: n_heads 0 must be"),
        (
            "model",
            {"encoders": {"xrd": {"d_model": 16_384, "n_layers": 500, "d_ff": 65_536}}},
            r"a model of .* weights",
        ),
        (
            "model",
            {"encoders": {"xrd": {"d_ff": None}}},
            r"model\.encoders\.xrd\.d_ff is None: it must be a whole number",
        ),
        (None, {"seed": "0"}, "seed is '0': it must be a whole number"),
        (None, {"seed": -1}, "seed -1 must be from 0"),
        (None, {"frozen": "false"}, "frozen is 'false': it must be true or false"),
        (None, {"evaluate_test": 0}, "evaluate_test is 0: it must be true or false"),
        (None, {"initial": 5}, "initial is 5: it must be a text or null"),
        (None, {"preset": None}, "preset is None: it must be a text"),
        (None, {"name": 3}, "name is 3: it must be a text"),
        *((None, {"name": name}, "a run's name is that of its folder") for name in NO_NAMES),
    ],
)
def test_a_wrong_run_is_one_clear_line(tmp_path, group, change, words):
    values = json.loads(json.dumps(PRESETS["smoke"].as_dict()))
    within = values if group is None else values[group]
    within.update(change)
    for name in {"n_steps", "data"} & {key for key, changed in change.items() if changed is None}:
        del within[name]
    with pytest.raises(ConfigError, match=words) as error:
        from_dict(values)
    assert "\n" not in str(error.value)
    (tmp_path / "run.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"run\.json"):
        RunConfig.load(tmp_path / "run.json")


def test_a_wrong_value_in_a_notebook_is_refused_where_it_is_given():
    for changes in (
        {"n_steps": 1e4},
        {"learning_rate": "1e-3"},
        {"seed": 1.0},
        {"name": "a/b"},
        {"targets": ["e_form"]},
    ):
        with pytest.raises(ConfigError):
            PRESETS["smoke"].but(**changes)


@pytest.mark.parametrize("name", ["a", "Größe 2", "bimodal-e_form-s0", "lr=1e-3, wide (2)", "x" * 100, "0.5+x@y"])
def test_a_name_that_a_folder_can_have_is_one(name):
    assert PRESETS["smoke"].but(name=name).name == name


def test_a_run_file_that_is_no_file_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, words in (
        ("pipe.json", "is no file"),
        (".", "is no file"),
        ("none", "is no file"),
        ("deep.json", "JSON"),
    ):
        with pytest.raises(ConfigError, match=words):
            RunConfig.load(tmp_path / name)


def test_a_masked_objective_without_tokens_is_refused():
    concat = dataclasses.replace(PRESETS["smoke"].model.fusion, kind="concat")
    model = dataclasses.replace(PRESETS["smoke"].model, fusion=concat)
    with pytest.raises(ConfigError, match="come the tokens of no modality"):
        PRESETS["smoke"].but(model=model, targets=(), masked=("xrd",))


def test_only_what_is_measured_teaches():
    graph = PRESETS["structure"].model.encoders
    fusion = dataclasses.replace(PRESETS["smoke"].model.fusion, query="xrd", memory=("structure",))
    encoders = {"xrd": PRESETS["smoke"].model.encoders["xrd"], **graph}
    run = PRESETS["smoke"].but(model=dataclasses.replace(PRESETS["smoke"].model, encoders=encoders, fusion=fusion))
    assert run.but(targets=(), relational=(("xrd", "structure"),)).objectives.pretrains
    with pytest.raises(ConfigError, match="of which the first, that teaches, is composition or xrd"):
        run.but(targets=(), relational=(("structure", "xrd"),))


def test_experts_are_balanced_over_a_whole_batch():
    experts = dataclasses.replace(PRESETS["smoke"].model.fusion, kind="experts")
    run = PRESETS["smoke"].but(model=dataclasses.replace(PRESETS["smoke"].model, fusion=experts))
    with pytest.raises(ConfigError, match="micro_batch: experts are kept in use over a whole batch"):
        run.but(micro_batch=8)


def test_a_baseline_has_no_pretraining():
    model = dataclasses.replace(PRESETS["smoke"].model.only("xrd"), architecture="fcn")
    with pytest.raises(ConfigError, match="leave contrastive, relational, taught, masked and initial out"):
        PRESETS["smoke"].but(model=model, initial="x")


def test_a_run_of_the_first_design_is_told_what_became_of_each_key():
    values = {"name": "old", "dataset": "data/demo", "n_steps": 3, "micro_batch": 4, "augmentation": None}
    with pytest.raises(
        ConfigError, match=r"first design: .*dataset is data\.dataset.*n_steps is budget\.n_steps"
    ) as error:
        from_dict(values | {"model": {"d_model": 64}})
    assert "micro_batch is machine.micro_batch, augmentation is data.effects" in str(error.value)
    assert "\n" not in str(error.value)


def test_values_are_changed_by_their_own_names():
    run = PRESETS["smoke"].but(name="x", n_steps=3, targets=("band_gap",), effects="laboratory", n_threads=1, seed=4)
    assert (run.name, run.budget.n_steps, run.objectives.targets, run.data.effects) == (
        "x",
        3,
        ("band_gap",),
        "laboratory",
    )
    assert (run.machine.n_threads, run.seed, run.budget.batch_size) == (1, 4, 64)
    with pytest.raises(TypeError, match="colour"):
        run.but(colour="blue")
    assert run.is_same_run(run.but(micro_batch=3)) and not run.is_same_run(run.but(n_steps=4))


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
    replace, seen = writing.os.replace, []

    def watched(source, target):
        replace(source, target)
        seen.append(runs.read_checked(path))

    monkeypatch.setattr(writing.os, "replace", watched)
    runs.write_checked(path, b"new")
    assert seen == [b"old", b"new", b"new"]
    assert len((tmp_path / "state.pt.sha256").read_text().splitlines()) == 1


def test_a_model_carries_what_prediction_needs(tmp_path):
    model = torch.nn.Linear(3, 2)
    runs.save_model(tmp_path, model, {"normalisers": {"e_form": {"mean": 1.0, "std": 2.0}}})
    tensors, metadata = runs.load_model(tmp_path)
    assert torch.equal(tensors["weight"], model.weight) and metadata["normalisers"]["e_form"]["std"] == 2.0


def test_a_line_of_metrics_cut_off_by_a_kill_is_left_out(tmp_path):
    lines = [record("train", "loss", 1.0, step=step) for step in (1, 2)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"st')
    assert runs.metrics(tmp_path) == lines
    for damage in ('{"st\n', "3\n", "{}\n", json.dumps(lines[0] | {"value": "no"}) + "\n"):
        (tmp_path / "metrics.jsonl").write_text(text + damage + text)
        with pytest.raises(runs.CheckpointError, match=r"metrics\.jsonl is damaged, line 3 \(.*remove that line"):
            runs.metrics(tmp_path)


# ---------------------------------------------------------------- records


def test_records_are_found_by_what_they_are_of():
    both, one = ("composition", "xrd"), ("xrd",)
    records = [record("val", "mae", v, step=s, target="e_form", given=both) for s, v in ((1, 3.0), (2, 2.0))]
    records += [record("val", "mae", 9.0, step=2, target="e_form", given=one), record("val", "error", 1, step=2)]
    records += [record("val", "mae", 8.0, step=2, target="e_form", given=both, exchanged="xrd")]
    assert curve(records, "mae", "e_form") == ([1, 2], [3.0, 2.0]), "from all modalities, the first there is"
    assert value(records, "mae", "e_form", "val", given="xrd") == 9 and value(records, "mae", "e_form") is None
    assert value(records, "mae", "e_form", "val", exchanged="xrd") == 8
    assert [r["metric"] for r in select(records, step=2, given=None)] == ["error"]


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
