"""Batches: what a step sees of each modality, of whole rows and of rows that lack something."""

import numpy as np
import pytest
import torch
from test_datasets import listed, rock_salt, rock_salts

from xxlib.crystals.crystal import Crystal
from xxlib.datasets import batches
from xxlib.datasets.sources import parsed
from xxlib.datasets.sources.formulas import formulas
from xxlib.datasets.store import Dataset, joined
from xxlib.datasets.targets import TARGETS, Normaliser
from xxlib.diffraction import patterns
from xxlib.diffraction.effects import EFFECTS, Effects, draw
from xxlib.diffraction.scattering import sticks
from xxlib.diffraction.wavelengths import CU_KA
from xxlib.prepare import prepare
from xxlib.training import draws

NORMALISERS = {"e_form": Normaliser(-5.0, 2.0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 rock salts; every third without e_form."""
    folder = tmp_path_factory.mktemp("batches") / "rock-salts"
    records = [parsed(crystal, "here", split="train", **({"e_form": -float(i)} if i % 3 else {}))
               for i, crystal in enumerate(rock_salts())]  # fmt: skip
    prepare(listed(*records), folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def mixed(folder, tmp_path_factory):
    """The rock salts, and after them two formulas with a label and without a crystal."""
    place = tmp_path_factory.mktemp("formulas")
    (place / "labels.csv").write_text("formula,e_form\nTiO2,-3\nMgO,-2.5\n")
    prepare(formulas(place / "labels.csv"), place / "formulas", progress=False)
    return joined(Dataset(folder), Dataset(place / "formulas"))


def test_a_batch_is_the_patterns_compositions_and_labels_of_its_rows(folder):
    dataset, rows = Dataset(folder), np.array([4, 3, 11])
    targets = [TARGETS["e_form"], TARGETS["crystal_system"]]
    batch = batches.make_batch(dataset, rows, targets=targets, normalisers=NORMALISERS)
    composition, pattern = batch.inputs["composition"], batch.inputs["xrd"]
    crystals = rock_salts()
    assert pattern.tokens.shape == (3, 17, 250) and composition.element_ids.shape == (3, 2) and len(batch) == 3
    for b, row in enumerate(rows):
        exact = patterns.render_one(sticks(crystals[row]))
        assert np.abs(patterns.unpatchify(pattern.tokens[b]).numpy() - exact).max() < 0.06  # stored as f4 and f2
        assert composition.element_ids[b].tolist() == sorted(set(crystals[row].atomic_numbers.tolist()))
    assert torch.allclose(composition.fractions.sum(1), torch.ones(3))
    assert all(has.all() for has in batch.given.values())
    assert batch.targets["e_form"][0] == (-4 + 5) / 2 and torch.isnan(batch.targets["e_form"][1])
    assert batch.targets["crystal_system"].tolist() == [6, 6, 6]


def test_the_volume_follows_the_cell_that_is_measured(tmp_path):
    """ln(angstrom^3 per atom); under effects that of the changed cell, whose lines stand where the pattern has them."""
    crystals = rock_salts()
    rows = np.arange(len(crystals))
    records = [parsed(one, "here") for one in crystals]
    prepare(listed(*records), tmp_path / "crystals", hkl=True, structure=True, progress=False)
    dataset = Dataset(tmp_path / "crystals")
    expected = np.log([one.volume / 8 for one in crystals])
    assert np.allclose(batches.labels_of(dataset, "log_volume", rows), expected)
    drawn = draw(Effects(cell=(5.0, 5.0), lattice=(-3.0, 1.0)), len(rows), 0)
    labels = batches.labels_of(dataset, "log_volume", rows, drawn)
    assert np.allclose(batches.labels_of(dataset, "log_volume", rows), expected), "what is stored stays"
    signals = patterns.unpatchify(batches.make_batch(dataset, rows, ("xrd",), drawn=drawn).inputs["xrd"].tokens.numpy())
    for one, signal, label in zip(crystals, signals, labels):
        a = (8 * np.exp(label)) ** (1 / 3)
        line = 2 * np.degrees(np.arcsin(CU_KA / a))  # 200
        near = np.abs(patterns.TWO_THETA - line) < 0.3
        assert signal[near].argmax() == pytest.approx(near.sum() // 2, abs=2), f"{one.id}: 200 is not at {line:.2f}"
    assert np.std(labels - expected) > 0.03


@pytest.mark.parametrize("modality", ["composition", "xrd"])
def test_only_what_is_asked_for_is_made(folder, modality):
    batch = batches.make_batch(Dataset(folder), np.arange(3), (modality,))
    assert list(batch.inputs) == list(batch.given) == [modality]


def test_inputs_may_come_from_other_rows(folder):
    rows, others = np.array([0, 1]), np.array([5, 6])
    batch = batches.make_batch(Dataset(folder), rows, rows_of={"xrd": others})
    own, other = (batches.make_batch(Dataset(folder), which).inputs for which in (rows, others))
    assert torch.equal(batch.inputs["xrd"].tokens, other["xrd"].tokens)
    assert torch.equal(batch.inputs["composition"].element_ids, own["composition"].element_ids)


def test_a_row_without_a_pattern_has_none(mixed):
    """All of its tokens are hidden; the others are as without it, under effects, too."""
    rows = np.array([2, 12, 7, 13])
    assert np.isnan(batches.labels_of(mixed, "log_volume", rows)).all()
    for drawn in (None, draws.drawn_effects(EFFECTS["laboratory"], 0, 4, 0)):
        batch = batches.make_batch(mixed, rows, targets=[TARGETS["e_form"]], normalisers=NORMALISERS, drawn=drawn)
        tokens, hidden = batch.inputs["xrd"]
        assert batch.given["xrd"].tolist() == [True, False, True, False] and batch.given["composition"].all()
        assert hidden[[1, 3]].all() and (tokens[[1, 3]] == 0).all()
        some = None if drawn is None else drawn[np.array([0, 2])]
        whole = batches.make_batch(mixed, rows[[0, 2]], drawn=some).inputs["xrd"]
        assert torch.equal(tokens[[0, 2]], whole.tokens)
        assert torch.equal(hidden[[0, 2]], torch.zeros(2, 17, dtype=torch.bool) if drawn is None else whole.hidden)
        assert batch.targets["e_form"][[1, 3]].tolist() == [1.0, 1.25]
    none = batches.make_batch(mixed, np.array([12, 13]))
    assert none.inputs["xrd"].hidden.all() and not none.given["xrd"].any()
    assert batches.has_modalities(mixed, rows, ("xrd",))["xrd"].tolist() == [True, False, True, False]


def test_what_is_taken_away_is_empty(folder):
    batch = batches.make_batch(Dataset(folder), np.arange(2))
    less = batch.without({"composition": torch.tensor([True, False]), "xrd": torch.tensor([False, True])})
    assert less.inputs["composition"].element_ids.tolist()[0] == [0, 0] != batch.inputs["composition"][0].tolist()[0]
    assert less.inputs["xrd"].hidden.all(1).tolist() == [False, True]
    assert [has.tolist() for has in less.given.values()] == [[False, True], [True, False]]
    alone = batch.only(("xrd",))
    assert not alone.given["composition"].any() and alone.given["xrd"].all() and alone.inputs["xrd"].hidden is None


def test_samples_that_are_in_no_dataset(folder):
    dataset, rows = Dataset(folder), np.array([3, 8])
    of_rows = batches.make_batch(dataset, rows).inputs
    ids, fractions = ([dataset.take(name, [row])[0] for row in rows] for name in ("element_ids", "fractions"))
    signals = patterns.unpatchify(of_rows["xrd"].tokens.numpy())
    ids.append(ids[0][:0]), fractions.append(fractions[0][:0])
    hidden = np.zeros((3, 17), bool)
    hidden[1] = True
    batch = batches.sample_batch(ids, fractions, np.concatenate([signals, signals[:1]]), hidden)
    assert torch.equal(batch.inputs["composition"].element_ids[:2], of_rows["composition"].element_ids)
    assert torch.equal(batch.inputs["composition"].fractions[:2], of_rows["composition"].fractions)
    assert torch.equal(batch.inputs["xrd"].tokens[:2], of_rows["xrd"].tokens)
    assert batch.given["composition"].tolist() == [True, True, False]
    assert batch.given["xrd"].tolist() == [True, False, True]


def test_a_gpu_renders_the_same_batch_from_sticks(folder, monkeypatch):
    """All but the transfer, which is left out here; its compositions are padded so that 1 + E is a multiple of 8."""
    monkeypatch.setattr(batches, "send", lambda tensor, device: tensor)
    rows, targets = np.array([4, 3, 11]), [TARGETS["crystal_system"]]
    here = batches.make_batch(Dataset(folder), rows, targets=targets)
    there = batches.make_batch(Dataset(folder), rows, targets=targets, device=torch.device("cuda"))
    tokens = there.inputs["xrd"].tokens
    assert (tokens - here.inputs["xrd"].tokens).abs().max() < 1e-3 and tokens.dtype == torch.float32
    ids, fractions, _ = there.inputs["composition"]
    assert ids.shape == fractions.shape == (3, 7)
    assert torch.equal(ids[:, :2], here.inputs["composition"].element_ids) and not ids[:, 2:].any()
    assert torch.equal(there.targets["crystal_system"], here.targets["crystal_system"])


def test_compositions_are_padded_with_nothing(tmp_path):
    several = rock_salt(5.0, 11, 17, "mixed")
    numbers = np.array([11, 11, 19, 19, 17, 17, 17, 35])
    several = Crystal("mixed", several.lattice, numbers, several.frac_coords, np.ones(8))
    source = listed(parsed(rock_salts()[0], "", split="train"), parsed(several, "", split="train"))
    prepare(source, tmp_path / "d", progress=False)
    (element_ids, fractions, _), has = batches.collate_composition(Dataset(tmp_path / "d"), np.array([0, 1]))
    assert element_ids.tolist() == [[3, 9, 0, 0], [11, 17, 19, 35]] and has.all()
    assert np.allclose(fractions, [[0.5, 0.5, 0, 0], [0.25, 0.375, 0.25, 0.125]])


def test_every_epoch_sees_every_crystal_once_and_depends_on_nothing_else():
    rows = np.arange(100, 137)
    seen = np.concatenate([draws.training_rows(rows, step, 10, seed=5) for step in range(37)])
    for epoch in range(10):
        assert sorted(seen[37 * epoch : 37 * (epoch + 1)]) == list(rows)
    assert not np.array_equal(seen[:37], seen[37:74])
    assert np.array_equal(draws.training_rows(rows, 9, 10, seed=5), seen[90:100])
    assert not np.array_equal(draws.training_rows(rows, 9, 10, seed=6), seen[90:100])


@pytest.mark.parametrize("n", [2, 3, 10])
def test_exchanged_rows_are_all_of_other_crystals(n):
    rows = 5 * np.arange(n)
    exchanged = batches.exchanged_rows(rows)
    assert sorted(exchanged) == list(rows) and (exchanged != rows).all()


def test_drawn_targets_are_uniform_and_repeatable():
    drawn = torch.cat([draws.drawn_targets(2, step, 100, seed=0) for step in range(50)])
    assert abs(drawn.float().mean().item() - 0.5) < 0.03
    assert torch.equal(draws.drawn_targets(2, 7, 100, seed=0), drawn[700:800])
