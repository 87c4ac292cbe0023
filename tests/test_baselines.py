"""Baselines: published parameter counts and formulas, invariances, learning."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_models import WIDTHS, changed, inputs

from xxlib.crystals.compositions import mat2vec
from xxlib.datasets.batches import MODALITIES
from xxlib.models import baselines
from xxlib.models.baselines import FCNMLP
from xxlib.models.build import ARCHITECTURES, build
from xxlib.models.config import ELEMENT_VECTORS, EncoderConfig, ModelConfig
from xxlib.models.encoders.composition import ELEMENT_FEATURES, MAX_Z
from xxlib.models.inputs import Composition, Pattern
from xxlib.models.xxact import count_parameters
from xxlib.training.config import Budget, ConfigError, Data, Machine, RunConfig
from xxlib.training.losses import robust_l1, target_losses
from xxlib.training.records import value
from xxlib.training.run import train
from xxlib.training.runs import load_model

BASELINES = [name for name in ARCHITECTURES if name != "xxact"]
BUDGET = Budget(batch_size=16, n_steps=100, learning_rate=2e-3)


SMALL = EncoderConfig(d_model=32, n_layers=1, n_heads=2, d_ff=32)


def config(architecture, encoder=SMALL, **changes):
    encoders = dict.fromkeys(ARCHITECTURES[architecture].reads, encoder)
    return ModelConfig(architecture=architecture, encoders=encoders, fusion=None, **({"dropout": 0.0} | changes))


def published(architecture, **changes):
    """The size of the publication, without memory for its weights."""
    with torch.device("meta"):
        return build(config(architecture, EncoderConfig(d_ff=2048), **changes), {"y": 1})


# ---------------------------------------------------------------- sizes


def test_fcn_mlp_has_the_papers_parameters():
    with torch.device("meta"):
        original = FCNMLP(config("fcn_mlp"), {"y": 1}, n_points=8192)
    assert count_parameters(original) == 1_879_937  # as its authors' notebook prints
    assert count_parameters(published("fcn_mlp")) == 1_879_937 - 65_536 == 1_814_401  # as arXiv 2507.01054 says


def test_fcn_has_its_parameters():
    convolutions = 1_574_160
    assert count_parameters(published("fcn")) == convolutions + (3 * 512 * 64 + 64) + (64 + 1)


def test_crabnet_has_its_parameters():
    """11,987,206 as its code prints with mat2vec; learned vectors add 119 x 200."""
    assert count_parameters(published("crabnet", element_vectors="mat2vec")) == 11_987_206
    assert count_parameters(published("crabnet")) == 11_987_206 + 119 * 200


def test_twelve_pools_leave_one_point_of_4250():
    convolutions = baselines.Convolutions(0.0, 0.0)
    assert convolutions(torch.rand(1, 17, 250)).shape == (1, 512, 1, 1)
    assert convolutions(torch.rand(1, 32, 256)).shape == (1, 512, 1, 2)


def test_convolutions_are_those_published():
    """One-dimensional, LeakyReLU before the pool: the same to rounding, values and gradients."""
    fast, tokens = baselines.Convolutions(0.0, 0.0), 100 * torch.rand(3, 17, 250)
    x = tokens.flatten(1)[:, None] / 100
    for layer in fast:
        if isinstance(layer, torch.nn.Conv2d):
            x = F.max_pool1d(F.leaky_relu(F.conv1d(x, layer.weight[:, :, 0], layer.bias, padding=1), 0.3), 2)
    assert torch.allclose(fast(tokens)[:, :, 0], x, atol=1e-6)
    assert x.std() > 1e-3
    gradients = [torch.autograd.grad(y.square().sum(), fast.parameters()) for y in (x, fast(tokens))]
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(*gradients))


# ---------------------------------------------------------------- what they read and return


@pytest.mark.parametrize("architecture", BASELINES)
def test_a_baseline_answers_like_every_model(architecture):
    model, batch = build(config(architecture), WIDTHS).eval(), inputs()
    output = model(batch)
    assert output.predictions["e_form"].shape == (3,) and output.predictions["crystal_system"].shape == (3, 7)
    assert output.fused.x.ndim == 3 and output.fused.x.shape[:2] == (3, 1)
    reads = ARCHITECTURES[architecture].reads
    assert set(output.encoded) == set(reads)
    for modality in MODALITIES:
        after = model(changed(batch, modality, lambda x: x.flip(0))).predictions["e_form"]
        assert torch.equal(after, output.predictions["e_form"]) == (modality not in reads)


@pytest.mark.parametrize("architecture", ["fcn_mlp", "crabnet"])
def test_order_of_elements_and_padding_do_not_matter(architecture):
    model, batch = build(config(architecture), WIDTHS).eval(), inputs()
    order = torch.tensor([2, 0, 3, 1])
    padded = changed(batch, "composition", lambda x: torch.nn.functional.pad(x[:, order], (1, 4)))
    expected, shuffled = model(batch), model(padded)
    for name in WIDTHS:
        assert torch.allclose(shuffled.predictions[name], expected.predictions[name], atol=1e-5)
    assert torch.allclose(shuffled.fused.x, expected.fused.x, atol=1e-5)


def test_crabnet_is_the_mean_over_elements_of_its_residual_network():
    """By hand for one crystal of two elements: the last formula of the published forward()."""
    model = build(config("crabnet"), WIDTHS).eval()
    batch = inputs()
    output = model(batch)
    element_vectors, pad = model.encoders["composition"](batch["composition"])
    assert pad[0].tolist() == [False, False, True, True]  # no CLS
    says = []
    for x in element_vectors[0, :2]:
        for layer, shortcut in zip(model.residual_network.layers, model.residual_network.shortcuts):
            y = layer(x)
            x = torch.where(y > 0, y, 0.01 * y) + shortcut(x)
        says.append(model.residual_network.out(x))
    value, log_std, gate, *logits = ((says[0] + says[1]) / 2).tolist()
    assert output.predictions["e_form"][0].item() == pytest.approx(value / (1 + math.exp(-gate)), abs=1e-5)
    assert output.log_std["e_form"][0].item() == pytest.approx(log_std, abs=1e-5)
    assert output.predictions["crystal_system"][0].tolist() == pytest.approx(logits, abs=1e-5)
    assert "crystal_system" not in output.log_std


def test_fractions_are_jittered_in_training_alone():
    torch.manual_seed(0)
    fractions = torch.tensor([[0.25, 0.75, 0.0]]).expand(20_000, 3)
    moved = Composition(torch.ones(20_000, 3, dtype=torch.long), fractions).jittered(baselines.JITTER).fractions
    assert torch.allclose(moved.sum(1), torch.ones(20_000)) and (moved[:, 2] == 0).all()
    ratio = (moved[:, 0] / moved[:, 1]) / (0.25 / 0.75)
    assert abs(ratio.mean().item() - 1) < 1e-3
    assert ratio.std().item() == pytest.approx(0.02 * math.sqrt(2), rel=0.03)
    model = build(config("crabnet"), WIDTHS)
    batch = inputs()
    assert not torch.equal(model(batch).fused.x, model(batch).fused.x)
    model.eval()
    assert torch.equal(model(batch).fused.x, model(batch).fused.x)


# ---------------------------------------------------------------- losses


def test_robust_l1_is_least_at_the_true_spread():
    """Minimal over log_std where exp(log_std) is the standard deviation of a Laplace distribution: sqrt(2) |error|."""
    value = robust_l1(torch.tensor([3.0]), torch.tensor([math.log(2)]), torch.tensor([1.0]))
    assert value.item() == pytest.approx(math.sqrt(2) * 2 / 2 + math.log(2))
    log_std = torch.linspace(-2, 2, 4001)
    losses = robust_l1(torch.full((4001,), 3.0), log_std, torch.full((4001,), 2.0))
    assert log_std[losses.argmin()].exp().item() == pytest.approx(math.sqrt(2), rel=1e-2)


def test_an_uncertainty_makes_the_loss_robust_and_missing_labels_still_count_for_nothing():
    prediction, log_std = torch.tensor([1.0, 5.0]), torch.tensor([0.5, 0.5], requires_grad=True)
    targets = {"e_form": torch.tensor([0.0, math.nan])}
    losses = target_losses({"e_form": prediction}, targets, log_std={"e_form": log_std})
    assert losses["e_form"].item() == pytest.approx(math.sqrt(2) * math.exp(-0.5) + 0.5)
    losses["e_form"].backward()
    assert log_std.grad[0] != 0 and log_std.grad[1] == 0


# ---------------------------------------------------------------- configuration, element vectors


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ModelConfig(architecture="resnet"), "choose from xxact, fcn, fcn_mlp, crabnet"),
        (ModelConfig(architecture="fcn"), "'fcn' reads xrd: give encoders of that"),
        (dataclasses.replace(ModelConfig().only("xrd"), architecture="fcn_mlp"), "'fcn_mlp' reads composition and xrd"),
    ],
)
def test_what_does_not_fit_is_refused(model, words):
    with pytest.raises(ConfigError, match=words):
        RunConfig(name="x", preset="tiny", data=Data(dataset="x"), budget=BUDGET, model=model)


def test_mat2vec_is_200_numbers_for_each_of_118_elements():
    pytest.importorskip("elementembeddings", reason="pip install -e '.[mat2vec]'")
    vectors = mat2vec()
    assert vectors.shape == (MAX_Z + 1, ELEMENT_FEATURES) and vectors.dtype == np.float32
    assert (vectors[0] == 0).all() and np.isfinite(vectors).all() and (np.abs(vectors[1:]).sum(1) > 1).all()
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    assert (unit @ unit[26])[[27, 28]].min() > (unit @ unit[26])[[9, 54]].max(), (
        "iron is like cobalt, not like fluorine"
    )


def test_mat2vec_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("xxlib.crystals.compositions.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '.\[mat2vec\]'"):
        mat2vec()


def test_fixed_element_vectors_do_not_train_and_are_never_forgotten():
    assert ELEMENT_VECTORS == ("learned", "mat2vec", "learned + mat2vec")
    model = build(config("crabnet", element_vectors="mat2vec"), WIDTHS).eval()
    batch = inputs()
    assert model(batch).predictions["e_form"].isnan().all(), "vectors that were not set must not pass for vectors"
    vectors = torch.rand(MAX_Z + 1, ELEMENT_FEATURES)
    model.encoders["composition"].set_element_vectors(vectors)
    model(batch).predictions["e_form"].sum().backward()
    weight = model.encoders["composition"].element_vectors.weight
    assert weight.grad is None and torch.equal(weight, vectors)
    assert model.encoders["composition"].embed.weight.grad.abs().sum() > 0


def test_learned_vectors_beside_fixed_ones():
    model = build(config("crabnet", element_vectors="learned + mat2vec"), WIDTHS).eval()
    encoder = model.encoders["composition"]
    encoder.set_element_vectors(torch.rand(MAX_Z + 1, ELEMENT_FEATURES))
    model(inputs()).predictions["e_form"].sum().backward()
    assert encoder.fixed_vectors.weight.grad is None and encoder.element_vectors.weight.grad.abs().sum() > 0
    assert encoder.embed_fixed.weight.grad.abs().sum() > 0


# ---------------------------------------------------------------- learning


def test_crabnet_trains_as_a_run_with_mat2vec_in_its_checkpoint(rock_salts, tmp_path):
    pytest.importorskip("elementembeddings", reason="pip install -e '.[mat2vec]'")
    run = RunConfig(
        name="crabnet", preset="tiny", data=Data(dataset=str(rock_salts.folder)), budget=BUDGET,
        machine=Machine(n_threads=1), model=config("crabnet", element_vectors="mat2vec"),
    )  # fmt: skip
    result = train(run, tmp_path)
    assert value(result["metrics"], "mae", "e_form") < 0.3, "less than a third of the spread"
    tensors, _ = load_model(tmp_path)
    assert np.array_equal(tensors["encoders.composition.element_vectors.weight"], mat2vec())


@pytest.mark.parametrize("architecture", BASELINES)
def test_a_baseline_learns_sixteen_crystals(architecture):
    torch.manual_seed(0)
    element_ids = torch.randint(1, 90, (16, 3))
    fractions = torch.rand(16, 3) + 0.1
    fractions = fractions / fractions.sum(1, keepdim=True)
    tokens = torch.zeros(16, 17 * 250)
    for row in tokens:
        row[torch.randint(0, 4250, (40,))] = torch.rand(40) * 100
    targets = {"e_form": torch.randn(16), "crystal_system": torch.arange(16) % 7}
    model = build(config(architecture), WIDTHS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4 if architecture == "fcn" else 1e-3)
    for _ in range(200):
        output = model({"composition": Composition(element_ids, fractions), "xrd": Pattern(tokens.view(16, 17, 250))})
        error = (output.predictions["e_form"] - targets["e_form"]).abs().mean()
        right = output.predictions["crystal_system"].argmax(1) == targets["crystal_system"]
        if error < 0.1 and right.all():
            break
        sum(target_losses(output.predictions, targets, log_std=output.log_std).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert error < 0.1 and right.all()
