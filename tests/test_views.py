"""Looking at a sample: what the figures show is what the model does; controls are thin."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from xxlib import PROJECT, widgets
from xxlib.answering import explain
from xxlib.answering.predictor import batch_of
from xxlib.datasets.store import Dataset
from xxlib.diffraction.patterns import N_POINTS
from xxlib.models import layers
from xxlib.models.build import build
from xxlib.predict import Predictor
from xxlib.scans.samples import read_sample

SCAN = PROJECT / "data" / "examples" / "NaCl.uxd"


@pytest.fixture(scope="module")
def model(checkpoint):
    return Predictor.load(checkpoint)


@pytest.fixture(scope="module")
def answer(model):
    return model.answer([read_sample("NaCl", SCAN)])[0]


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_attributions_add_up_to_the_answer(model, answer):
    network, batch = model.ensemble.members[0].model, batch_of(answer.sample)
    points, elements, rest = explain.attribution(network, batch, "e_form")
    assert points.shape == (N_POINTS,) and elements.shape == (2,)
    vectors, inputs = network.encoders["composition"].element_vectors, batch.inputs
    hook = vectors.register_forward_hook(lambda _, __, out: torch.zeros_like(out))
    with torch.no_grad():
        nothing = network(inputs | {"xrd": inputs["xrd"]._replace(tokens=torch.zeros_like(inputs["xrd"].tokens))})
        hook.remove()
        whole = network(inputs)
    difference = float(whole.predictions["e_form"] - nothing.predictions["e_form"])
    assert points.sum() + elements.sum() - rest == pytest.approx(difference, abs=1e-3)
    assert abs(rest) < 0.1 * max(1, abs(difference))
    assert (points[:250] == 0).all(), "below 10 degree nothing was measured"


def test_attention_is_that_of_the_model(model, answer, monkeypatch):
    """The weights with which the fusion itself mixes the elements, of its own queries and keys."""
    network, batch, used = model.ensemble.members[0].model, batch_of(answer.sample), []
    attend = layers.plain_attention

    def watched(q, k, v, mask=None):
        if q.shape[2] == 18 and k.shape[2] == 3:
            used.append((q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf).softmax(-1).mean(1)[0])
        return attend(q, k, v, mask)

    monkeypatch.setattr(layers, "plain_attention", watched)
    weights = explain.cross_attention(network, batch)
    assert weights.shape == (18, 3) and weights.sum(1) == pytest.approx(1)
    assert len(used) == len(network.fusion.layers)
    assert np.allclose(weights, torch.stack(used).mean(0).detach(), atol=1e-6)
    assert weights.std(1).max() > 0.01, "not all places alike"


def test_only_hidden_tokens_are_guessed(model, answer):
    figure = widgets.see_reconstruction(model, answer, hidden=(5, 6))
    pattern, guessed = figure.axes[0].lines
    seen = np.isfinite(guessed.get_ydata()).reshape(17, 250)
    assert seen.any(1).tolist() == [k in (4, 5) for k in range(17)] and seen[4:6].all()
    assert np.array_equal(pattern.get_ydata(), answer.sample.pattern)
    assert "hidden" in words(figure) and "not measured" in words(figure)
    other = widgets.see_reconstruction(model, answer, hidden=(5, 9)).axes[0].lines[1].get_ydata()
    assert not np.allclose(other[1000:1250], guessed.get_ydata()[1000:1250]), "what is hidden is not seen"


def test_the_figure_of_an_answer_shows_its_numbers(model, answer):
    figure = widgets.see_answer(model, answer, {"e_form": -2.05, "crystal_system": 6.0})
    value, low, high = answer.values["e_form"]
    assert f"{value:.2f}" in words(figure) and "eV/atom" in words(figure)
    (bars,) = figure.axes[0].containers
    assert np.ravel(bars.lines[2][0].get_segments()[0])[[1, 3]] == pytest.approx([low, high])
    shown = [bar.get_width() for bar in figure.axes[-1].patches]
    assert shown == pytest.approx([100 * share for share in answer.probabilities["crystal_system"].values()])


def test_neighbours_are_training_crystals(model, answer):
    table = model.neighbours(answer)
    demo = Dataset(PROJECT / "data" / "demo")
    train = set(demo.column("id")[demo.indices("train")])
    assert len(table) == 5 and set(table["id"]) <= train
    figure = widgets.see_neighbours(model, answer)
    assert all(formula in words(figure) for formula in table["formula"])


def test_a_training_crystal_is_its_own_neighbour(model):
    row = 7
    pattern = widgets.patterns_of(model.training, [row])[0]
    answer = model.answer([read_sample(str(model.training.column("formula")[row]), pattern)])[0]
    assert model.neighbours(answer)["id"][0] == model.training.column("id")[row]


def test_views_of_one_input(model):
    alone = model.answer([read_sample(None, SCAN)])[0]
    for see in (widgets.see_answer, widgets.see_reconstruction, widgets.see_neighbours):
        assert isinstance(see(model, alone), Figure)
    with pytest.raises(ValueError, match="give both"):
        widgets.see_attention(model, alone)
    composition = model.answer([read_sample("NaCl")])[0]
    assert isinstance(widgets.see_neighbours(model, composition), Figure)


def test_what_a_model_cannot_show_is_said(model, answer):
    batch, network = batch_of(answer.sample), model.ensemble.members[0]
    config = network.config.model
    concat = replace(config, fusion=replace(config.fusion, kind="concat"))
    for other in (build(config.only("xrd"), {"e_form": 1}), build(concat, {"e_form": 1})):
        with pytest.raises(ValueError, match="no fusion by cross-attention"):
            explain.cross_attention(other, batch)
    for other in (network.model, None):
        with pytest.raises(ValueError, match=r"pretrain one \(masked=\('xrd',\)\)"):
            explain.reconstruct(other, batch, np.ones(17, bool))


class Controls:
    """Those of the explorer, and what it shows."""

    def __init__(self, model, **options):
        view, row = widgets.explore(model, **options).children
        controls, (self.picture, self.text) = (part.children for part in row.children)
        self.view, (self.crystal, self.upload, self.formula, self.anode, self.number, self.hidden, self.target) = (
            view, controls
        )  # fmt: skip

    def receive(self, name, content):
        file = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
        self.upload.value = ({**file, "last_modified": datetime(2026, 11, 29)},)

    def looks(self):
        """What is chosen and what is shown."""
        return (self.crystal.value, self.formula.value, self.anode.value, self.number.value,
                bytes(self.picture.value), self.text.value)  # fmt: skip


PHOTOGRAPH = b"\xff\xd8\xff\xe0" + bytes(100)
RAS = "*RAS_DATA_START\n" + "".join(
    '*RAS_HEADER_START\n*HW_XG_TARGET_NAME "Cu"\n*RAS_HEADER_END\n*RAS_INT_START\n'
    + "".join(f"{x:.2f} {20 + 500 * np.exp(-200 * (x - line) ** 2) + k % 7:.0f} 1.0\n" for k, x in enumerate(angles))
    + "*RAS_INT_END\n"
    for line, angles in ((31.7, np.arange(25, 42, 0.05)), (45.4, np.arange(42, 60, 0.05)))
)


def test_controls_change_the_picture(model):
    controls = Controls(model)
    seen = [bytes(controls.picture.value)]
    controls.crystal.index = 2
    seen.append(bytes(controls.picture.value))
    controls.view.value = "tokens"
    seen.append(bytes(controls.picture.value))
    controls.hidden.value = (8,)
    seen.append(bytes(controls.picture.value))
    assert len(set(seen)) == 4 and all(value.startswith(b"\x89PNG") for value in seen)
    controls.formula.value = "LaMno3"
    assert "no chemical formula" in controls.text.value and not controls.picture.value
    controls.receive("NaCl.uxd", SCAN.read_bytes())
    assert "NaCl.uxd, answered from xrd" in controls.text.value
    assert controls.formula.value == "" and controls.crystal.value is None


def test_a_refused_upload_leaves_nothing_of_what_was_before(model):
    controls = Controls(model)
    controls.receive("photograph.xy", PHOTOGRAPH)
    assert controls.crystal.value is None and controls.formula.value == ""
    for change in ("NaCl", "KCl", ""):
        controls.formula.value = change
        assert "photograph.xy: this is a JPEG" in controls.text.value and not controls.picture.value
    controls.crystal.index = 1
    assert controls.picture.value and "photograph" not in controls.text.value
    controls.crystal.value = None
    assert "photograph.xy: this is a JPEG" in controls.text.value, "the file that was uploaded last"


def test_the_same_file_again_is_seen(model):
    controls = Controls(model)
    controls.receive("NaCl.uxd", SCAN.read_bytes())
    first = controls.looks()
    controls.crystal.index = 1
    assert "NaCl.uxd" not in controls.text.value
    controls.receive("NaCl.uxd", SCAN.read_bytes())
    assert controls.looks() == first


@pytest.mark.parametrize("change", ["formula", "anode", "number"])
def test_another_file_starts_anew(model, change):
    """What is shown of a file does not depend on what was chosen for the one before."""
    controls = Controls(model)
    controls.receive("two.ras", RAS.encode())
    first = controls.looks()
    assert "two.ras, answered from xrd" in controls.text.value
    getattr(controls, change).value = {"formula": "KCl", "anode": "Co", "number": "1"}[change]
    assert controls.looks()[4:] != first[4:]
    controls.receive("NaCl.uxd", SCAN.read_bytes())
    fresh = Controls(model)
    fresh.receive("NaCl.uxd", SCAN.read_bytes())
    assert controls.looks() == fresh.looks()
    controls.receive("two.ras", RAS.encode())
    assert controls.looks() == first


def test_the_scan_of_a_file_with_several(model):
    controls = Controls(model)
    controls.receive("two.ras", RAS.encode())
    assert "choose another with the control `scan`" in controls.text.value
    first = bytes(controls.picture.value)
    controls.number.value = "1"
    assert controls.picture.value != first and "control" not in controls.text.value
    for value, why in (("2", "there is no scan 2"), ("x", "is no number of a scan"), ("\u00b2", "is no number")):
        controls.number.value = value
        assert why in controls.text.value and not controls.picture.value


def test_the_truth_is_shown_of_the_crystal_only(model, monkeypatch):
    truths = []
    monkeypatch.setattr(widgets.views, "answer", lambda *given: truths.append(given[4]) or Figure())
    controls = Controls(model)
    own = controls.formula.value
    for formula in ("NaCl", own, ""):
        controls.formula.value = formula
    controls.receive("NaCl.uxd", SCAN.read_bytes())
    controls.formula.value = own
    assert [bool(truth) for truth in truths] == [True, False, True, True, False, False]


def test_whatever_goes_wrong_is_said_and_leaves_no_picture(model, monkeypatch):
    controls = Controls(model)
    for error, sentence in ((MemoryError(), "more memory"), (ZeroDivisionError("by zero"), "ZeroDivisionError")):
        monkeypatch.setattr(widgets, "see_attention", lambda *_, error=error: (_ for _ in ()).throw(error))
        controls.view.value = "attention"
        assert sentence in controls.text.value and not controls.picture.value and "\n" not in controls.text.value
        controls.view.value = "answer"
        assert controls.picture.value
