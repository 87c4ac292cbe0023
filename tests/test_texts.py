"""Texts as an input: descriptions of crystals, the encoder that reads them, trainings."""

import dataclasses

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from study import archive, experiments
from study import texts as study
from test_datasets import listed, rock_salt
from test_structures import (
    dataset,  # noqa: F401, a fixture
    finished,
    garnet_like,
    primitive_rock_salt,
    structure_of,
    supercell,
    written_otherwise,
)
from test_train import CPU, TINY, TINY_ENCODER, config

from xxlib import PROJECT
from xxlib.answering.explain import attention_of_layers, attention_similarities
from xxlib.crystals.crystal import Crystal, RejectedCrystal
from xxlib.crystals.descriptions import NUMBER_OF, WORDS, description
from xxlib.datasets.batches import Batch, collate_text, has_modalities, make_batch
from xxlib.datasets.sources import parsed
from xxlib.datasets.sources.parquet import parquet
from xxlib.datasets.store import Dataset, DatasetError
from xxlib.datasets.structures import texts
from xxlib.models.build import build, guessable
from xxlib.models.config import EncoderConfig, FusionConfig
from xxlib.models.encoders.text import MAX_WORDS, N_WORDS
from xxlib.models.inputs import Text
from xxlib.models.xxact import count_parameters
from xxlib.prepare import prepare
from xxlib.training import run as loop
from xxlib.training import runs, state
from xxlib.training.config import ConfigError, from_dict
from xxlib.training.examples import examples_of
from xxlib.training.judging import View, views
from xxlib.training.objectives import step_gradients
from xxlib.training.records import curve

GRAPH = EncoderConfig(kind="cgcnn", d_model=16, n_layers=2)
MIXED = "ignore:1 of 49 crystals"


def text_model(*others, kind="cross_attention", query="structure"):
    """The model that reads a text and these modalities, asked by the query."""
    encoders = {name: GRAPH if name == "structure" else TINY_ENCODER for name in (*others, "text")}
    memory = tuple(name for name in encoders if name != query)
    fusion = FusionConfig(kind=kind, query=query, memory=memory, n_layers=2, n_heads=2, d_ff=32) if others else None
    return dataclasses.replace(TINY, encoders=encoders, fusion=fusion)


def text_of(*crystals):
    """The Text of crystals."""
    said = [[NUMBER_OF[word] for word in _words(description(crystal))] for crystal in crystals]
    ids = np.zeros((len(said), max(map(len, said))), np.int64)
    for row, own in zip(ids, said):
        row[: len(own)] = own
    return Text(torch.from_numpy(ids))


def _words(said):
    """A description in the words of the template again, each as long as it can be."""
    pieces, found = said.split(" "), []
    while pieces:
        n = next(n for n in range(8, 0, -1) if " ".join(pieces[:n]) in NUMBER_OF)
        found.append(" ".join(pieces[:n]))
        pieces = pieces[n:]
    return found


# ---------------------------------------------------------------- descriptions


def test_what_is_said_of_known_crystals():
    perovskite = Crystal("x", 4.0 * np.eye(3), np.array([56, 22, 8, 8, 8]), np.array(
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]), np.ones(5))  # fmt: skip
    assert description(perovskite) == (
        "Ba Ti O 3 is cubic in space group 221 with 13.0 cubic angstrom an atom ; 1 Ba with 12 neighbours: 12 O at 2.85"
        " ; 1 Ti with 6 neighbours: 6 O at 2.00 ; 3 O with 2 neighbours: 2 Ti at 2.00"
    )
    bcc = Crystal("x", 3.16 * np.eye(3), np.array([74, 74]), np.array([[0, 0, 0], [0.5] * 3]), np.ones(2))
    assert description(bcc).endswith("; 1 W with 8 neighbours: 8 W at 2.75")
    stretched = dataclasses.replace(perovskite, lattice=np.diag([4.0, 4.0, 4.3]))
    assert "is tetragonal in space group 123" in description(stretched)
    assert "; 1 Ti with 6 neighbours: 6 O at 2.00 to 2.15 ;" in description(stretched)
    moved = perovskite.frac_coords + np.array([0, 0, 0.075]) * (np.arange(5) == 2)[:, None]  # one O towards Ti
    off_centre = dataclasses.replace(perovskite, lattice=np.diag([4.0, 4.0, 4.2]), frac_coords=moved)
    assert "; 1 Ti with 6 neighbours: 6 O at 1.80 to 2.40 ;" in description(off_centre), (
        "not the first step: the largest"
    )


def test_a_description_is_that_of_the_crystal():
    """Not of the cell, its origin, orientation and the order of its atoms."""
    random = np.random.default_rng(1)
    for crystal in [garnet_like(seed) for seed in range(4)] + [rock_salt(5.65, 11, 17, "NaCl")]:
        same = written_otherwise(crystal, random)
        for how, other in same.items():
            assert description(other) == description(crystal), how
    assert description(primitive_rock_salt(5.65, 11, 17)) == description(rock_salt(5.65, 11, 17, "NaCl"))
    assert description(rock_salt(5.75, 11, 17, "x")) != description(rock_salt(5.65, 11, 17, "x"))


def test_every_word_has_one_number():
    """That of an element is its atomic number; all that can be said is among them."""
    assert len(NUMBER_OF) == len(WORDS) == N_WORDS and WORDS[0] == "" and WORDS[26] == "Fe"
    huge = supercell(primitive_rock_salt(5.6, 11, 17), 6, 6, 5)
    numbers = np.full(len(huge.atomic_numbers), 11)
    numbers[0] = 55
    for crystal in (
        dataclasses.replace(huge, atomic_numbers=numbers),  # an amount of 359
        Crystal("x", 7.9 * np.eye(3), np.array([55]), np.zeros((1, 3)), np.ones(1)),  # 493 cubic angstrom an atom
    ):
        assert " ".join(_words(description(crystal))) == description(crystal)
    assert "Cs Na 200 is" in description(dataclasses.replace(huge, atomic_numbers=numbers))
    assert "with 100.0 cubic angstrom an atom ; 1 Cs with 6 neighbours: 6 Cs at 7.90" in description(crystal)


def test_what_cannot_be_described_is_refused():
    salt = rock_salt(5.6, 11, 17, "x")
    with pytest.raises(RejectedCrystal, match="a site of several elements"):
        description(dataclasses.replace(salt, occupancies=np.array([0.5] + [1.0] * 7)))
    with pytest.raises(RejectedCrystal, match="atom 1 \\(Na\\) shares its site"):
        description(dataclasses.replace(salt, frac_coords=np.repeat(salt.frac_coords[:4], 2, axis=0)))


# ---------------------------------------------------------------- the encoder


def test_padding_and_what_shares_a_batch_change_nothing():
    torch.manual_seed(0)
    model = build(text_model(), {"e_form": 1}).eval()
    crystals = [garnet_like(0), rock_salt(5.6, 11, 17, "x")]
    text = text_of(*crystals)
    x, pad = model.encoders["text"](text)
    assert x.shape == (2, 1 + text.word_ids.shape[1], 32) and not pad[:, 0].any()
    assert pad[:, 1:].equal(text.word_ids == 0) and pad[1].any()
    assert torch.allclose(model.encoders["text"](text, cls_only=True).x, x[:, :1], atol=1e-5)
    alone = model.encoders["text"](text_of(crystals[1])).x
    assert torch.allclose(x[1, : alone.shape[1]], alone[0], atol=1e-5)
    empty = model.encoders["text"](text.without(torch.tensor([True, False])))
    assert torch.isfinite(empty.x).all() and empty.pad[0, 1:].all() and torch.allclose(empty.x[1, 0], x[1, 0])


def test_the_order_of_words_counts():
    model = build(text_model(), {"e_form": 1}).eval()
    text = text_of(rock_salt(5.6, 11, 17, "x"))
    turned = Text(text.word_ids.flip(1))
    x, y = (model({"text": one}).predictions["e_form"] for one in (text, turned))
    assert not torch.allclose(x, y, atol=1e-4)


def test_parameters_are_counted():
    D, d_ff, n_layers, d_fused = 32, 32, 2, 32
    layer = 4 * D * D + 4 * D + 2 * D * d_ff + d_ff + D + 4 * D
    encoder = build(text_model(), {"e_form": 1}).encoders["text"]
    own = (N_WORDS + 1 + 1 + MAX_WORDS) * D
    assert count_parameters(encoder) == own + n_layers * layer + D * d_fused + d_fused


@pytest.mark.parametrize(
    ("query", "kind"), [("structure", "cross_attention"), ("text", "cross_attention"), ("text", "concat")]
)
def test_a_fusion_may_lack_a_text(query, kind):
    """Then what it says decides nothing."""
    torch.manual_seed(0)
    model = build(text_model("structure", kind=kind, query=query), {"e_form": 1}, partial=True).eval()
    crystals, others = (garnet_like(0), garnet_like(1)), (garnet_like(2), garnet_like(1))
    absent = torch.tensor([True, False])
    given = {"structure": ~absent | True, "text": ~absent}
    graphs = structure_of(*crystals)
    answers = [
        model({"structure": graphs, "text": text_of(*said).without(absent)}, given).predictions["e_form"]
        for said in (crystals, others)
    ]
    whole = model({"structure": graphs, "text": text_of(*crystals)}).predictions["e_form"]
    assert torch.allclose(*answers, atol=1e-5) and torch.allclose(whole[1], answers[0][1], atol=1e-5)
    assert not torch.allclose(whole[0], answers[0][0], atol=1e-4)


# ---------------------------------------------------------------- batches


def test_a_batch_has_the_texts_of_its_rows(dataset):  # noqa: F811
    """The last row has a site of two elements: no text."""
    data, rows = Dataset(dataset), np.array([40, 48, 3])
    batch = make_batch(data, rows, ("text", "structure"))
    assert batch.given["text"].tolist() == [True, False, True] == batch.given["structure"].tolist()
    assert has_modalities(data, rows, ("text",))["text"].equal(batch.given["text"])
    for row, ids in zip(rows, batch.inputs["text"].word_ids.tolist()):
        said = " ".join(WORDS[number] for number in ids if number)
        assert said == ("" if row == 48 else description(data.crystal(row)))
    nothing, has = collate_text(data, rows[1:2])
    assert not has.any() and nothing.word_ids.shape == (1, 1) and nothing.pad.all()


def test_a_text_says_what_was_drawn(dataset):  # noqa: F811
    run = config(dataset, model=text_model(), distortions="candidate")
    assert views(run) == [View(("text",)), View(("text",), distortions="candidate")]
    from xxlib.crystals.distortions import DISTORTIONS, draw

    data, rows = Dataset(dataset), np.arange(8)
    drawn = draw(DISTORTIONS["candidate"], 8, 0)
    changed, true = (collate_text(data, rows, drawn=one)[0].word_ids for one in (drawn, None))
    assert changed.shape != true.shape or not changed.equal(true)
    assert make_batch(data, rows, ("text",), distorted=drawn).inputs["text"].word_ids.equal(changed)
    with pytest.raises(ConfigError, match="distortions are of structures: the model reads none"):
        config(dataset, distortions="candidate")


@pytest.mark.filterwarnings(MIXED)
def test_long_texts_are_cut_and_counted(dataset, monkeypatch):  # noqa: F811
    from xxlib.datasets import batches
    from xxlib.training import examples

    for module in (batches, examples):
        monkeypatch.setattr(module, "MAX_WORDS", 10)
    with pytest.warns(UserWarning, match="32 of the first 32 texts are longer than 10 words: what is beyond is not"):
        examples_of(config(dataset, model=text_model()))
    data, rows = Dataset(dataset), np.arange(5)
    ids = collate_text(data, rows)[0].word_ids
    assert ids.shape == (5, 10) and [WORDS[k] for k in ids[2].tolist()] == texts(data, rows)[2][:10]


def test_what_has_no_text_is_said(dataset, tmp_path):  # noqa: F811
    with pytest.warns(UserWarning, match="1 of 49 crystals are formulas alone, have sites of several elements"):
        examples_of(config(dataset, model=text_model()))
    plain = tmp_path / "plain"
    records = [parsed(rock_salt(4 + k, 3, 9, f"{k}"), "here", e_form=-1.0 * k, split=split)
               for k, split in enumerate(("train", "train", "val", "test"))]  # fmt: skip
    prepare(listed(*records), plain, progress=False)
    with pytest.raises(DatasetError, match="plain has no structures, which this model reads: prepare it with --struct"):
        examples_of(config(plain, model=text_model()))
    data = Dataset(dataset)
    data.labels["space_group"] = np.full(len(data), np.nan)
    with pytest.raises(DatasetError, match="crystal rs-2: no space group, which a text says"):
        collate_text(data, np.array([2]))


# ---------------------------------------------------------------- attention


def test_attention_of_atoms_to_words_is_compared_layer_by_layer():
    """In pairs of a crystal's own atoms; equal atoms attend equally; padding is attended by none and to none."""
    torch.manual_seed(0)
    model = build(text_model("structure"), {"e_form": 1}).eval()
    salt, other = primitive_rock_salt(5.6, 11, 17), garnet_like(0, 7)
    inputs = {"structure": structure_of(salt, other), "text": text_of(salt, other)}
    batch = Batch(inputs=inputs, given={name: torch.ones(2, dtype=torch.bool) for name in inputs}, targets={})
    weights = attention_of_layers(model, batch)
    assert len(weights) == 2 and all(torch.allclose(w.sum(-1), torch.ones(2, 8), atol=1e-5) for w in weights)
    words = inputs["text"].word_ids
    assert weights[0].shape == (2, 8, 1 + words.shape[1])
    assert not weights[0][0, :, 1:][:, words[0] == 0].any() and weights[0][0, :, 1:][:, words[0] > 0].all()
    similar = attention_similarities(model, batch)
    assert similar.shape == (2, 1 + 21) and (similar > 0).all() and (similar < 1 + 1e-5).all()
    w = weights[1][1, 1:].numpy()
    first, second = w[0], w[1]
    assert np.isclose(similar[1, 1], first @ second / np.linalg.norm(first) / np.linalg.norm(second), atol=1e-5)
    twins = {"structure": structure_of(supercell(salt, 2, 1, 1)), "text": text_of(salt)}
    batch = Batch(inputs=twins, given={name: torch.ones(1, dtype=torch.bool) for name in twins}, targets={})
    pairs = attention_similarities(model, batch)[1]  # of two cations and two anions: both kinds are twins
    assert np.isclose(pairs, 1, atol=1e-5).sum() == 2


# ---------------------------------------------------------------- runs


def trained(tmp_path, run):
    """Train a run; its losses."""
    (tmp_path / run.name).mkdir()
    run.save(tmp_path / run.name / "run.json")
    loop.train(run, tmp_path / run.name)
    return curve(runs.metrics(tmp_path / run.name), "loss", split="train", given=None)[1]


@pytest.mark.filterwarnings(MIXED)
@pytest.mark.parametrize(
    "learns",
    [
        {},
        {"targets": (), "masked": ("structure",), "hidden_rate": 0.5},
        {"targets": (), "contrastive": (("structure", "text"),)},
    ],
    ids=["targets", "masked nodes", "contrastive"],
)
def test_micro_batches_have_the_gradient_of_the_whole(dataset, tmp_path, learns):  # noqa: F811
    gradients = []
    for micro_batch in (None, 3):
        run = config(dataset, model=text_model("structure"), dropout=0.0, micro_batch=micro_batch, **learns)
        run = dataclasses.replace(run, model=dataclasses.replace(run.model, dropout=0.0))
        run = state.prepare(run, tmp_path / f"{micro_batch}", CPU)
        losses = step_gradients(run.model, run.examples, run.config, 0, CPU)
        gradients.append([p.grad for p in run.model.parameters() if p.grad is not None] + list(losses.values()))
    assert len(gradients[0]) > 20
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-3) for a, b in zip(*gradients))


@pytest.mark.filterwarnings(MIXED)
def test_masked_nodes_are_guessed_with_the_help_of_the_text(dataset, tmp_path):  # noqa: F811
    """Half of the atoms are hidden; then it is fine-tuned."""
    assert guessable(text_model("structure")) == ("structure",) and guessable(text_model()) == ()
    with pytest.raises(ConfigError, match="masked 'text': out of this model come the tokens of structure"):
        config(dataset, model=text_model("structure"), targets=(), masked=("text",))
    learns = {"targets": (), "masked": ("structure",), "hidden_rate": 0.5, "n_steps": 80, "learning_rate": 3e-3}
    run = config(dataset, name="pretrained", model=text_model("structure"), **learns)
    losses = trained(tmp_path, run)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5]), losses
    said = build(run.model, {}, masked=("structure",))
    hidden = structure_of(garnet_like(0)).hide(torch.ones(1, 7, dtype=torch.bool))
    guesses = [said.eval()({"structure": hidden, "text": text_of(garnet_like(k))}, tokens=True).fused.x for k in (0, 1)]
    assert not torch.allclose(*guesses, atol=1e-4), "the text does not reach the guess"
    start = config(
        dataset, name="start", model=text_model("structure"), initial=str(tmp_path / "pretrained"), n_steps=4
    )
    begun = state.prepare(start, tmp_path / "start", CPU).model.state_dict()
    kept = runs.load_model(tmp_path / "pretrained")[0]
    for name in ("encoders.text.embed.weight", "fusion.layers.0.cross_attention.qkv.weight"):
        assert torch.equal(begun[name], kept[name])
    assert from_dict(start.as_dict()) == start


@pytest.mark.filterwarnings(MIXED)
@pytest.mark.parametrize("others", [(), ("structure",), ("composition", "xrd")], ids=" and ".join)
def test_it_learns_from_texts(dataset, tmp_path, others):  # noqa: F811
    query = others[-1] if others else "text"
    run = config(dataset, name="learns", model=text_model(*others, query=query), n_steps=80, learning_rate=3e-3)
    losses = trained(tmp_path, run)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10]), losses


# ---------------------------------------------------------------- the study


def test_the_runs_of_the_study_fit_their_models(tmp_path):
    for preset in ("small", "smoke"):
        planned = list(study.lines(preset).values())
        assert len({one.name for one in planned}) == len(planned) == 21
        for k, one in enumerate(planned):
            objectives = one.objectives
            with torch.device("meta"):
                build(one.model, one.widths, contrastive=objectives.contrastive, masked=objectives.masked)
            if one.initial:
                assert one.initial.rpartition("/")[2] in {earlier.name for earlier in planned[:k]}
    cast = study.lines()["CAST"].model.fusion
    assert (cast.query, cast.memory, cast.n_layers, cast.n_heads) == ("structure", ("text",), 4, 8)
    assert study.lines()["masked node prediction, 50 % of the atoms"].objectives.hidden_rate == 0.5
    assert study in experiments.EXPERIMENTS
    smoke = study.runs("smoke")
    columns = pq.read_schema(PROJECT / "data" / "demo" / "crystals.parquet").names
    assert all(set(one.objectives.targets) <= set(columns) for one in smoke)
    assert all(one in planned for one in smoke) and len(study.table(smoke)) == len(smoke) == 3
    table = study.table()
    assert len(table) == 46 and table["knows the structure"].all()
    assert study.findings(tmp_path) == ["Texts: no run is finished."]


def test_a_row_says_what_is_taken_off_the_error_of_the_structure(tmp_path):
    lines = study.lines()
    for line, error in {"structure": 0.040, "CAST without masked nodes": 0.035, "CAST": 0.030}.items():
        finished(lines[line].name, lines[line], tmp_path, {"e_form": error, "band_gap": 10 * error})
    moduli = {"log_bulk_modulus": 0.08, "log_shear_modulus": 0.11}
    finished(lines["moduli, text"].name, lines["moduli, text"], tmp_path, moduli)
    table = study.table(place=tmp_path).set_index(["line", "target"])
    assert np.isclose(table.loc[("CAST", "e_form"), "less than the structure alone (%)"], 25)
    assert np.isclose(table.loc[("CAST", "e_form"), "test mae"], 30) and table.loc[("CAST", "e_form"), "reads"] == (
        "structure + text"
    )
    assert np.isclose(table.loc[("moduli, text", "log_shear_modulus"), "test mae"], 0.11)
    assert study.masked_nodes(tmp_path) == [
        "Masked node prediction takes 5 meV/atom off CAST's MAE of e_form (one seed).",
        "Masked node prediction takes 0.05 eV off CAST's MAE of band_gap (one seed).",
    ]
    assert "MAE of e_form on test (meV/atom): structure 40" in study.findings(tmp_path)[0]


def test_a_gain_that_is_a_loss_is_said_as_one(tmp_path, monkeypatch):
    """By hand: after masked nodes CAST is 5 and 10 meV/atom worse in two seeds, and 20 than after twice the steps."""
    lines = study.lines()
    said = {"CAST without masked nodes": 0.030, "CAST": 0.035, "CAST without masked nodes, second seed": 0.030}
    said |= {"CAST, second seed": 0.040, "CAST without masked nodes, twice the steps": 0.015}
    for line, error in said.items():
        finished(lines[line].name, lines[line], tmp_path, {"e_form": error, "band_gap": error})
    noise = pd.Series(np.random.default_rng(0).normal(size=50))
    errors = {lines[line].name: noise + 1000 * error for line, error in said.items()}
    monkeypatch.setattr(archive, "errors", lambda name, target, place: errors[name] if target == "e_form" else None)
    assert study.masked_node_gains("e_form", tmp_path) == pytest.approx([-5, -10])
    seeds, _, steps = study.masked_nodes(tmp_path)
    assert seeds.startswith("Masked node prediction adds 7.5 meV/atom to CAST's MAE of e_form")
    assert seeds.endswith(" (2 seeds after one pretraining, -10 to -5).")
    assert steps.startswith("After masked nodes CAST's MAE of e_form is 20 ± ")
    assert steps.endswith(" meV/atom larger than after as many steps with labels.")


def test_attention_is_kept_as_histograms_and_drawn(tmp_path):
    means = dict(zip(study.ATTENDING, (0.9, 0.8)))
    rows = [{"line": line, "layer": layer, "mean": means[line] + 0.02 * layer, "bin": k, "share": 0.04}
            for line in study.ATTENDING for layer in range(1, 5) for k in range(25)]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "text_attention.csv", index=False)
    (figure,) = study.figures(place=tmp_path).values()
    assert len(figure.axes) == 2 and [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        f"layer {k}" for k in range(1, 5)
    ]
    assert study.figures(place=tmp_path / "nowhere") == {} and study.attended(tmp_path / "nowhere") == []
    (said,) = study.attended(tmp_path)
    assert "a cosine of 0.92 to 0.98 on average" in said and "of 0.82 to 0.88 with them" in said


@pytest.mark.filterwarnings(MIXED)
def test_attention_of_a_run_is_read_from_its_folder(dataset, tmp_path):  # noqa: F811
    run = config(dataset, name="cast", model=text_model("structure"), n_steps=2)
    trained(tmp_path, run)
    similar = study.attention(tmp_path / "cast", n=5)
    assert similar.shape == (2, 5 * 28)  # eight atoms each


def test_moduli_are_labels_of_crystals(tmp_path):
    """Of a crystal that is labelled twice the mean; targets are logarithms; what is not positive is refused."""
    lattice = {"a": 5.6, "b": 5.6, "c": 5.6, "alpha": 90.0, "beta": 90.0, "gamma": 90.0}
    salt = rock_salt(5.6, 11, 17, "x")
    atoms = {"atomic_numbers": salt.atomic_numbers.tolist(), "frac_coords": salt.frac_coords.ravel().tolist()}
    names = ["mp-1", "mp-2", "mp-3"]
    pd.DataFrame([{"mp_id": name, "split": "train", **lattice, **atoms} for name in names]).to_parquet(
        tmp_path / "crystals.parquet")  # fmt: skip
    labels = {"mp_id": ["mp-1", "mp-1", "mp-2", "mp-3"], "k_vrh": [10.0, 30.0, 100.0, np.nan]}
    pd.DataFrame(labels | {"g_vrh": [1.0, 1.0, -5.0, 3.0]}).to_parquet(tmp_path / "labels.parquet")
    table = study.moduli_table(tmp_path / "labels.parquet", tmp_path / "crystals.parquet")
    assert table["mp_id"].tolist() == ["mp-1", "mp-2"] and table["bulk_modulus"].tolist() == [20.0, 100.0]
    table.to_parquet(tmp_path / "moduli.parquet")
    prepare(parquet(tmp_path / "moduli.parquet"), tmp_path / "moduli", progress=False, structure=True)
    data = Dataset(tmp_path / "moduli")
    assert data.column("id").tolist() == ["mp-1"] and data.meta["source"]["labels"]["bulk_modulus"].endswith("GPa")
    assert np.allclose(data.labels["log_bulk_modulus"], np.log10(20.0)) and data.labels["log_shear_modulus"][0] == 0
    rejected = pq.read_table(tmp_path / "moduli" / "rejects.parquet")["reason"].to_pylist()
    assert rejected == ["shear_modulus is -5.0"]
