"""Baselines: published parameter counts and formulas, invariances, learning; and the floor below all networks."""

import dataclasses
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from study.floor import composition_statistics, element_properties, floor
from study.tables import CRYSTAL_SYSTEM, results_table, summary_table
from test_datasets import rock_salt
from test_models import WIDTHS, inputs

from xxlib import PROJECT
from xxlib.crystals.compositions import mat2vec
from xxlib.datasets.sources import Source, parsed
from xxlib.datasets.store import Dataset
from xxlib.models import baselines
from xxlib.models.baselines import FCNMLP
from xxlib.models.config import ARCHITECTURES, ELEMENT_VECTORS, ModelConfig
from xxlib.models.encoders import ELEMENT_FEATURES, MAX_Z
from xxlib.models.xxact import build, count_parameters
from xxlib.prepare import prepare
from xxlib.train import train
from xxlib.training.config import RunConfig
from xxlib.training.losses import robust_l1, target_losses
from xxlib.training.runs import load_model

BASELINES = [name for name in ARCHITECTURES if name != "xxact"]


def config(architecture, **changes):
    sizes = {"d_model": 32, "n_layers": 1, "n_heads": 2, "composition_d_ff": 32, "dropout": 0.0}
    return ModelConfig(architecture=architecture, modalities=ARCHITECTURES[architecture], **(sizes | changes))


def published(architecture, **changes):
    """The size of the publication, without memory for its weights."""
    with torch.device("meta"):
        return build(
            ModelConfig(architecture=architecture, modalities=ARCHITECTURES[architecture], **changes), {"y": 1}
        )


# ---------------------------------------------------------------- sizes


def test_fcn_mlp_has_the_papers_parameters():
    with torch.device("meta"):
        original = FCNMLP(ModelConfig(architecture="fcn_mlp"), {"y": 1}, n_points=8192)
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
    model = build(config(architecture), WIDTHS).eval()
    element_ids, fractions, tokens = inputs()
    output = model(element_ids, fractions, tokens)
    assert output.predictions["e_form"].shape == (3,) and output.predictions["crystal_system"].shape == (3, 7)
    assert output.cls.ndim == 2 and len(output.cls) == 3
    reads = ARCHITECTURES[architecture]
    assert (output.composition_cls is not None, output.xrd_cls is not None) == ("composition" in reads, "xrd" in reads)
    other_tokens = model(element_ids, fractions, tokens.flip(0)).predictions["e_form"]
    other_elements = model(element_ids.flip(0), fractions.flip(0), tokens).predictions["e_form"]
    assert torch.equal(other_tokens, output.predictions["e_form"]) == ("xrd" not in reads)
    assert torch.equal(other_elements, output.predictions["e_form"]) == ("composition" not in reads)


@pytest.mark.parametrize("architecture", ["fcn_mlp", "crabnet"])
def test_order_of_elements_and_padding_do_not_matter(architecture):
    model = build(config(architecture), WIDTHS).eval()
    element_ids, fractions, tokens = inputs()
    order = torch.tensor([2, 0, 3, 1])
    padded = [torch.nn.functional.pad(x[:, order], (1, 4)) for x in (element_ids, fractions)]
    expected, shuffled = model(element_ids, fractions, tokens), model(*padded, tokens)
    for name in WIDTHS:
        assert torch.allclose(shuffled.predictions[name], expected.predictions[name], atol=1e-5)
    assert torch.allclose(shuffled.cls, expected.cls, atol=1e-5)


def test_crabnet_is_the_mean_over_elements_of_its_residual_network():
    """By hand for one crystal of two elements: the last formula of the published forward()."""
    model = build(config("crabnet"), WIDTHS).eval()
    element_ids, fractions, tokens = inputs()
    output = model(element_ids, fractions, tokens)
    element_vectors, pad = model.composition_encoder(element_ids, fractions)
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
    moved = baselines.jittered(fractions)
    assert torch.allclose(moved.sum(1), torch.ones(20_000)) and (moved[:, 2] == 0).all()
    ratio = (moved[:, 0] / moved[:, 1]) / (0.25 / 0.75)
    assert abs(ratio.mean().item() - 1) < 1e-3
    assert ratio.std().item() == pytest.approx(0.02 * math.sqrt(2), rel=0.03)
    model = build(config("crabnet"), WIDTHS)
    batch = inputs()
    assert not torch.equal(model(*batch).cls, model(*batch).cls)
    model.eval()
    assert torch.equal(model(*batch).cls, model(*batch).cls)


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
    ("changes", "words"),
    [
        ({"architecture": "resnet"}, "choose from xxact, fcn, fcn_mlp, crabnet"),
        ({"architecture": "fcn"}, r"'fcn' reads \('xrd',\)"),
        ({"architecture": "fcn_mlp", "modalities": ("xrd",)}, "'fcn_mlp' reads"),
        ({"element_vectors": "word2vec"}, "choose from learned, mat2vec"),
        ({"element_vectors": "mat2vec", "modalities": ("xrd",)}, "no composition encoder"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        ModelConfig(**changes)


def test_runs_committed_before_there_were_baselines_still_load():
    paths = sorted((PROJECT / "data" / "results" / "runs").glob("*/run.json"))
    before = [path for path in paths if "architecture" not in json.loads(path.read_text())["model"]]
    assert before
    assert {(run.model.architecture, run.model.element_vectors) for run in map(RunConfig.load, before)} == {
        ("xxact", "learned")
    }


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
    assert ELEMENT_VECTORS == ("learned", "mat2vec")
    model = build(config("crabnet", element_vectors="mat2vec"), WIDTHS).eval()
    batch = inputs()
    assert model(*batch).predictions["e_form"].isnan().all(), "vectors that were not set must not pass for vectors"
    vectors = torch.rand(MAX_Z + 1, ELEMENT_FEATURES)
    model.composition_encoder.set_element_vectors(vectors)
    model(*batch).predictions["e_form"].sum().backward()
    weight = model.composition_encoder.element_vectors.weight
    assert weight.grad is None and torch.equal(weight, vectors)
    assert model.composition_encoder.embed.weight.grad.abs().sum() > 0


# ---------------------------------------------------------------- learning


@pytest.fixture(scope="module")
def rock_salts(tmp_path_factory):
    """240 crystals of 12 formulas, whose formation energy follows the anion; those of rubidium are tetragonal."""
    folder, records = tmp_path_factory.mktemp("data") / "rock-salts", []
    for i in range(240):  # boosting wants 20 crystals in a leaf
        first, second = (3, 11, 19, 37)[i % 4], (9, 17, 35)[i % 3]
        known = {"e_form": -0.1 * second, "split": ("train", "train", "val", "test")[i // 12 % 4]}
        crystal = rock_salt(4.0 + 0.005 * i, first, second, f"rs-{i}")
        if first == 37:
            crystal = dataclasses.replace(crystal, lattice=crystal.lattice * [1, 1, 1.2])
        records.append(parsed(crystal, "here", **known))
    prepare(Source({"name": "rock salts"}, lambda: iter(records)), folder, progress=False)
    return Dataset(folder)


def test_crabnet_trains_as_a_run_with_mat2vec_in_its_checkpoint(rock_salts, tmp_path):
    pytest.importorskip("elementembeddings", reason="pip install -e '.[mat2vec]'")
    run = RunConfig(
        name="crabnet", preset="tiny", dataset=str(rock_salts.folder), batch_size=16, n_steps=100, learning_rate=2e-3,
        n_threads=1, model=config("crabnet", element_vectors="mat2vec"),
    )  # fmt: skip
    result = train(run, tmp_path)
    assert result["test/e_form_mae"] < 0.3, "less than a third of the spread"
    tensors, _ = load_model(tmp_path)
    assert np.array_equal(tensors["composition_encoder.element_vectors.weight"], mat2vec())


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
        output = model(element_ids, fractions, tokens.view(16, 17, 250))
        error = (output.predictions["e_form"] - targets["e_form"]).abs().mean()
        right = output.predictions["crystal_system"].argmax(1) == targets["crystal_system"]
        if error < 0.1 and right.all():
            break
        sum(target_losses(output.predictions, targets, log_std=output.log_std).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert error < 0.1 and right.all()


# ---------------------------------------------------------------- the floor


def test_element_properties_are_those_of_the_elements():
    table = element_properties()
    assert table.shape == (119, 18) and np.isnan(table[0]).all() and np.isnan(table[104:]).all()
    z, group, period, _, electronegativity, mass = table[26, :6]
    assert (z, group, period) == (26, 8, 4) and electronegativity == 1.83 and mass == pytest.approx(55.845)
    assert table[26, -7:].tolist() == [2, 3, 2, 0, 6, 0, 8]  # common oxidation states; 4s2 3d6
    assert table[82, -5:].tolist() == [2, 2, 10, 14, 28]  # lead: 6s2 6p2 5d10 4f14
    assert np.isnan(table[10, 4]), "neon has no electronegativity, which is not one of 0"


def test_composition_statistics_are_weighted_by_fractions(tmp_path):
    crystals = [parsed(rock_salt(5.6, 11, 17, "NaCl"), "here", split="train")]
    prepare(Source({"name": "one"}, lambda: iter(crystals)), tmp_path / "one", progress=False)
    (row,) = composition_statistics(Dataset(tmp_path / "one"))
    assert row[:5].tolist() == [14, 3, 11, 17, 6]  # of Z: mean, standard deviation, least, greatest, range
    assert row[-2:].tolist() == [2, 0.5]


def test_the_floor_is_a_run_that_tables_read(rock_salts, tmp_path):
    result = floor(rock_salts, "e_form", tmp_path / "floor-e_form")
    floor(rock_salts, "crystal_system", tmp_path / "floor-crystal_system")
    assert result["test/e_form_mae"] < 0.05 and "CPU" in result["hardware"] and result["commit"]
    predictions = pq.read_table(tmp_path / "floor-e_form" / "predictions.parquet").to_pandas()
    assert list(predictions.columns) == ["id", "formula", "split", "e_form", "e_form_predicted"]
    mae = (predictions["e_form"] - predictions["e_form_predicted"])[predictions["split"] == "test"].abs().mean()
    assert mae == pytest.approx(result["test/e_form_mae"], abs=1e-6)
    table = summary_table(results_table(tmp_path)).set_index("targets")
    assert table.loc["e_form", "test e_form mae (meV/atom)"] == pytest.approx(1000 * result["test/e_form_mae"])
    assert table.loc["crystal_system", CRYSTAL_SYSTEM] == 100
    assert set(table["model"]) == {"gradient boosting on element statistics, floor"}
