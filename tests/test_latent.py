"""Latent space: which vectors, which components, which scores, which neighbours."""

import dataclasses
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from study import latent
from study.variants import variant
from test_datasets import folder  # noqa: F401, a fixture
from test_models import TINY, WIDTHS

from xxlib import PROJECT
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.datasets.batches import make_batch
from xxlib.datasets.store import Dataset
from xxlib.diffraction.patterns import grid
from xxlib.models.build import build
from xxlib.training import embeddings, runs


@pytest.fixture(scope="module")
def dataset(folder):  # noqa: F811
    return Dataset(folder)


def test_embeddings_are_the_cls_of_the_rows_asked_for(dataset, monkeypatch):
    monkeypatch.setattr(embeddings, "BATCH", 3)
    model, rows = build(TINY, WIDTHS), np.array([7, 1, 5, 2, 9])
    found = embeddings.embeddings(model, dataset, rows, TINY.modalities)
    batch = make_batch(dataset, rows)
    with torch.no_grad():
        output = model.eval()(batch.inputs, batch.given)
    assert set(found) == {"fused", "composition", "xrd"}
    for name, tokens in {"fused": output.fused, **output.encoded}.items():
        assert found[name].shape == (5, TINY.d_fused) and np.allclose(found[name], tokens.x[:, 0], atol=1e-5)


def test_a_unimodal_model_has_no_vectors_of_what_it_does_not_read(dataset):
    config = dataclasses.replace(TINY.only("xrd"), architecture="fcn")
    found = embeddings.embeddings(build(config, WIDTHS), dataset, np.arange(2), ("xrd",))
    assert set(found) == {"fused", "xrd"} and np.array_equal(found["fused"], found["xrd"])


def test_a_finished_run_is_described_without_its_weights(tmp_path):
    """What Table 5 and Figure 2 draw is that of the run's own model, on its own test."""
    config = variant("smoke", "bimodal", "multi")
    model = build(config.model, config.widths)
    normalisers = {"e_form": {"mean": 0.0, "std": 1.0}}
    runs.save_model(tmp_path, model, {"config": config.as_dict(), "normalisers": normalisers, "grid": grid()})
    latent.describe(tmp_path)
    demo = Dataset(PROJECT / "data" / "demo")
    rows = demo.indices("test")
    vectors = embeddings.embeddings(model, demo, rows, config.model.modalities)["fused"]
    points = pd.read_parquet(tmp_path / "latent.parquet")
    assert list(points["id"]) == list(demo.column("id")[rows])
    expected, shares = latent.principal_components(vectors)
    assert np.allclose(points[["PC 1", "PC 2"]], expected, atol=1e-4)
    assert points.attrs["variance"] == pytest.approx(shares.tolist())
    wanted = latent.silhouettes(vectors, np.asarray(demo.column("crystal_system")[rows]))
    assert np.allclose(points[latent.SPACES], wanted, atol=1e-4) and not wanted.isna().any(axis=None)


def clusters(n=20, spread=0.1, D=6):
    """n crystals of each system around a corner of its own, and the corner of each."""
    rng = np.random.default_rng(0)
    systems = np.repeat(CRYSTAL_SYSTEMS, n)
    corners = 10 * rng.normal(size=(7, D))
    return np.repeat(corners, n, axis=0) + spread * rng.normal(size=(7 * n, D)), systems


def test_principal_components_are_those_of_greatest_variance():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 5)) * [1, 9, 1, 3, 1]
    points, shares = latent.principal_components(vectors)
    assert points.shape == (500, 2) and abs(np.corrcoef(points[:, 0], vectors[:, 1])[0, 1]) > 0.99
    total = np.square(vectors - vectors.mean(0)).sum()
    assert shares == pytest.approx(np.square(points).sum(0) / total)


def means(vectors, systems, **options):
    """Table of the means over each crystal system of the silhouettes of vectors."""
    scores = latent.silhouettes(vectors, systems, **options)
    return latent.mean_silhouettes(scores.assign(crystal_system=systems))


def test_silhouettes_tell_systems_that_are_apart_from_a_mixture():
    vectors, systems = clusters()
    apart = means(vectors, systems)
    assert (apart["all dimensions"] > 0.95).all()
    shuffled = means(vectors, np.random.default_rng(0).permutation(systems))
    assert shuffled.loc["mean", "all dimensions"] < 0
    assert list(apart.index) == [*CRYSTAL_SYSTEMS, "mean"] and apart.loc["mean", "crystals"] == 140


def test_silhouettes_are_those_of_the_crystals_in_their_order():
    vectors, systems = clusters()
    vectors[3] = vectors[-1]  # a triclinic crystal among the cubic ones
    scores = latent.silhouettes(vectors, systems)["all dimensions"]
    assert scores[3] < -0.9 and (scores.drop(3) > 0.8).all()


def test_the_mean_silhouette_is_over_systems_not_crystals():
    """Two tight systems far apart, of one of which most crystals sit with the other."""
    corners = np.concatenate([np.zeros((90, 3)), np.ones((10, 3))])
    vectors = corners + 1e-3 * np.random.default_rng(0).normal(size=(100, 3))
    systems = np.array(["cubic"] * 80 + ["trigonal"] * 20)
    found = means(vectors, systems)["all dimensions"]
    assert found["mean"] == pytest.approx((found["cubic"] + found["trigonal"]) / 2)
    with pytest.raises(ValueError, match="here are cubic"):
        latent.silhouettes(vectors[:80], systems[:80])


def test_silhouettes_of_many_crystals_are_of_a_seeded_sample(monkeypatch):
    monkeypatch.setattr(latent, "SILHOUETTE_CRYSTALS", 50)
    vectors, systems = clusters(spread=20)
    first, again, other = (latent.silhouettes(vectors, systems, seed) for seed in (0, 0, 1))
    assert len(first) == 140 and first.notna().all(axis=1).sum() == 50
    assert means(vectors, systems).loc["mean", "crystals"] == 50
    assert first.equals(again) and not first.equals(other)


def test_the_difference_of_two_models_has_an_error_over_the_crystals_of_each_system():
    def model(*scores):
        systems = ["cubic"] * 4 + ["trigonal"] * 2
        return pd.DataFrame({"id": list("abcdef"), "crystal_system": systems, "all dimensions": scores})

    before = model(0.0, 0.1, 0.2, 0.3, -0.1, -0.2)
    after = model(0.1, 0.4, 0.3, 0.6, -0.1, 0.2)  # more by 0.1, 0.3, 0.1, 0.3; 0, 0.4
    change, error = latent.difference(before, after.sample(frac=1, random_state=0))
    assert change == pytest.approx((0.2 + 0.2) / 2)
    cubic, trigonal = np.std([0.1, 0.3, 0.1, 0.3], ddof=1) / 2, np.std([0, 0.4], ddof=1) / 2**0.5
    assert error == pytest.approx(np.hypot(cubic, trigonal) / 2)


def test_neighbours_come_by_distance_with_their_labels(dataset):
    rows = np.array([11, 4, 6, 2])
    vectors = np.array([[0.0, 0], [3, 4], [0, 1], [0, 2]])
    table = latent.neighbours(vectors, dataset, rows, "rs-4", n=2)
    assert list(table["id"]) == ["rs-4", "rs-2", "rs-6"]  # from (3, 4): 0, sqrt(13), sqrt(18)
    assert list(table["distance"]) == pytest.approx([0, 13**0.5, 18**0.5])
    assert list(table["formula"]) == list(dataset.column("formula")[[4, 2, 6]])
    assert list(table["crystal system"]) == ["cubic"] * 3
    assert table["formation energy (eV/atom)"].tolist()[:2] == [-4, -2] and np.isnan(table.loc[2].iloc[3])
    by_formula = latent.neighbours(vectors, dataset, rows, table.loc[0, "formula"], n=2)
    assert list(by_formula["id"]) == list(table["id"])
    with pytest.raises(ValueError, match=r"none of the 4 crystals .* 'rs-5'; ids are like rs-11"):
        latent.neighbours(vectors, dataset, rows, "rs-5")


def test_twins_do_not_hide_the_material_itself(dataset):
    table = latent.neighbours(np.zeros((6, 2)), dataset, np.arange(6), "rs-5", n=3)
    assert table.loc[0, "id"] == "rs-5" and len(table) == 4 and table["id"].is_unique


@pytest.mark.stress  # numba compiles for most of a minute
def test_umap_keeps_neighbours_together():
    pytest.importorskip("umap", reason="pip install -e '.[umap]'")
    vectors, systems = clusters(n=8)
    points = latent.umap(vectors)
    assert points.shape == (56, 2)
    assert means(points, systems).loc["mean", "all dimensions"] > 0.5


def test_umap_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '.\[umap\]'"):
        latent.umap(np.zeros((5, 3)))
