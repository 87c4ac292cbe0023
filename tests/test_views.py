"""Looking at a sample: what the figures show is what the model does; controls are thin."""

import base64
import io
import re
from dataclasses import replace
from datetime import datetime
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from pymatgen.core import Structure
from test_plots import at_print_size

from xxlib import PROJECT, candidate_list, looks, widgets
from xxlib.answering import explain
from xxlib.answering.inference import batch_of
from xxlib.crystals.crystal import Crystal, lattice_from_cell
from xxlib.datasets.store import Dataset
from xxlib.diffraction.patterns import N_POINTS, TWO_THETA, render, render_one
from xxlib.diffraction.scattering import sticks
from xxlib.models import layers
from xxlib.models.build import build
from xxlib.plots import views
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
    figure = looks.see_reconstruction(model, answer, hidden=(5, 6))
    pattern, guessed = figure.axes[0].lines
    seen = np.isfinite(guessed.get_ydata()).reshape(17, 250)
    assert seen.any(1).tolist() == [k in (4, 5) for k in range(17)] and seen[4:6].all()
    assert np.array_equal(pattern.get_ydata(), answer.sample.pattern)
    assert "hidden" in words(figure) and "not measured" in words(figure)
    other = looks.see_reconstruction(model, answer, hidden=(5, 9)).axes[0].lines[1].get_ydata()
    assert not np.allclose(other[1000:1250], guessed.get_ydata()[1000:1250]), "what is hidden is not seen"


def test_the_figure_of_an_answer_shows_its_numbers(model, answer):
    figure = looks.see_answer(model, answer, {"e_form": -2.05, "crystal_system": 6.0})
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
    figure = looks.see_neighbours(model, answer)
    assert all(formula in words(figure) for formula in table["formula"])


def test_a_training_crystal_is_its_own_neighbour(model):
    row = 7
    pattern = looks.patterns_of(model.training, [row])[0]
    answer = model.answer([read_sample(str(model.training.column("formula")[row]), pattern)])[0]
    assert model.neighbours(answer)["id"][0] == model.training.column("id")[row]


def test_views_of_one_input(model):
    alone = model.answer([read_sample(None, SCAN)])[0]
    for see in (looks.see_answer, looks.see_reconstruction, looks.see_neighbours):
        assert isinstance(see(model, alone), Figure)
    with pytest.raises(ValueError, match="give both"):
        looks.see_attention(model, alone)
    composition = model.answer([read_sample("NaCl")])[0]
    assert isinstance(looks.see_neighbours(model, composition), Figure)


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


@pytest.mark.parametrize("name", ["answer", "reconstruction", "attention", "attribution", "neighbours", "candidate"])
def test_every_view_is_at_print_size(model, answer, name):
    figures = {
        "reconstruction": lambda: looks.see_reconstruction(model, answer, hidden=(5, 6)),
        "attribution": lambda: looks.see_attribution(model, answer, "e_form"),
        "candidate": lambda: candidate_list.see_candidate(answer.explanation, title="NaCl"),
    }
    assert not at_print_size(figures.get(name, lambda: getattr(looks, f"see_{name}")(model, answer))())


# ---------------------------------------------------------------- known crystals


def lines_at(angles, height=100.0):
    """A pattern (4250,) of lines of one height."""
    angles = np.array(angles, float)
    return height / 100 * render(angles, np.ones(len(angles)), np.array([0, len(angles)]))[0]


@pytest.fixture(scope="module")
def rock_salt(model):
    return model.explanation("NaCl", SCAN)


def test_the_figure_of_a_candidate_is_scan_calculated_difference_and_lines():
    observed, first, second = lines_at([20, 30, 40, 50]), lines_at([20, 30], 90), lines_at([40, 60], 30)
    measured = (TWO_THETA > 10) & (TWO_THETA < 80)
    phases = [("NaCl", first, np.array([20.0, 30.0])), ("MgO", second, np.array([40.0, 60.0]))]
    figure = views.candidate(observed, measured, phases, np.array([50.0]), np.array([60.0]), "a scan")
    figure.draw_without_rendering()
    top, middle, bottom = figure.axes
    scan, calculated = (line.get_ydata() for line in top.get_lines())
    difference = bottom.get_lines()[0].get_ydata()
    for shown, true in ((scan, observed), (calculated, first + second), (difference, observed - first - second)):
        assert np.allclose(shown[measured], true[measured]) and np.isnan(shown[~measured]).all()
    ticks = [np.array(lines.get_segments())[:, 0, 0].tolist() for lines in middle.collections]
    assert ticks == [[20, 30], [40, 60]]
    assert [label.get_text() for label in middle.get_yticklabels()] == ["NaCl", "MgO"]
    marks, absent = [points for points in top.collections if len(points.get_offsets())]
    assert absent.get_offsets()[:, 0].tolist() == [60] and "1 line calculated and absent" in words(figure)
    assert marks.get_offsets()[:, 0].tolist() == [50] and marks.get_offsets()[0, 1] > 100
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in top.patches]
    assert np.allclose(spans, [(5, 10), (80, 89.98)])
    assert "1 line unexplained" in words(figure) and "a scan" in words(figure)
    assert "2θ (degree)" in bottom.get_xlabel() and "0-100" in top.get_ylabel()
    assert figure.get_figwidth() == 7.2, "inches: two columns of a journal"


def test_a_scan_that_nothing_explains_has_no_calculated_pattern():
    figure = views.candidate(lines_at([20, 30]), np.ones(N_POINTS, bool), [], np.array([20.0, 30.0]))
    figure.draw_without_rendering()
    assert len(figure.axes[0].get_lines()) == 1 and "2 lines unexplained" in words(figure)
    assert not figure.axes[1].collections
    nothing = views.candidate(np.zeros(N_POINTS), np.zeros(N_POINTS, bool), [], np.zeros(0))
    nothing.draw_without_rendering()


def test_the_lines_of_a_candidate_are_where_the_scan_has_them(rock_salt):
    figure = candidate_list.see_candidate(rock_salt)
    ticks = np.array(figure.axes[1].collections[0].get_segments())[:, 0, 0]
    strongest = rock_salt.observed.two_theta[np.argsort(-rock_salt.observed.height)[:6]]
    assert (np.abs(strongest[:, None] - ticks).min(1) < 0.1).all(), "0.08 between K alpha 1 and the mean at 84 degree"
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["NaCl"]
    assert f"{len(rock_salt.unexplained(1))} lines unexplained" in words(figure)
    none = candidate_list.see_candidate(rock_salt, 0)
    assert f"{len(rock_salt.observed.two_theta)} lines unexplained" in words(none)
    with pytest.raises(ValueError, match="no candidate 99"):
        candidate_list.see_candidate(rock_salt, 99)


def test_lines_of_a_second_phase_are_explained(model):
    """Strontium titanate with a fifth of rutile, of which the user says nothing."""
    cubic, rutile = (
        lattice_from_cell(3.905, 3.905, 3.905, 90, 90, 90),
        lattice_from_cell(4.594, 4.594, 2.959, 90, 90, 90),
    )
    places = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    main = Crystal("SrTiO3", cubic, np.array([38, 22, 8, 8, 8]), places, np.ones(5))
    places = np.array([[0, 0, 0], [5, 5, 5], [3.05, 3.05, 0], [6.95, 6.95, 0], [8.05, 1.95, 5], [1.95, 8.05, 5]]) / 10
    other = Crystal("TiO2", rutile, np.array([22, 22, 8, 8, 8, 8]), places, np.ones(6))
    mixture = 0.8 * render_one(sticks(main)) + 0.2 * render_one(sticks(other))
    explanation = model.explanation("SrTiO3", mixture)
    second, _ = model.known.second_phase(explanation, (8, 22, 38))
    alone, both = (candidate_list.see_candidate(explanation, 1, other) for other in (None, second))
    marked = [int(re.search(r"(\d+) lines? unexplained", words(figure) + " 0 lines unexplained")[1])
              for figure in (alone, both)]  # fmt: skip
    assert marked[0] == len(explanation.unexplained(1)) > 2 * marked[1]
    assert len(alone.axes[1].collections) == 1 and len(both.axes[1].collections) == 2


def test_the_list_of_candidates_ends_with_none_of_these(model):
    found, chosen = candidate_list.candidates_of(model.known.explain(read_sample("NaCl", SCAN)))
    table = model.candidates("NaCl", SCAN)
    listed = candidate_list.see_list(model.explanation("NaCl", SCAN)).drop(columns="exchange")
    assert 1 < len(found) <= candidate_list.LISTED + 1 and found[-1].row[1] == "none of these" and not found[-1].cif
    assert all(one.picture.startswith(b"\x89PNG") for one in found) and len({one.picture for one in found}) > 1
    for one, rank in zip(found[:-1], range(len(table))):
        probability, name, group, _, score = one.row
        assert probability == f"{table.probability[rank]:.1%}" and score == f"{table.score[rank]:.3f}"
        assert table.id[rank] in name and f"({table.space_group[rank]})" in group
        assert listed.iloc[rank].tolist() == [*one.row]
        structure = Structure.from_str(one.cif, fmt="cif")
        assert structure.reduced_formula == "NaCl"
        assert structure.volume / len(structure) == pytest.approx(table.volume_per_atom[rank], rel=1e-3)
    first = found[[one.row[1].startswith("NaCl ") for one in found].index(True)]
    assert re.fullmatch(r"5\.64\d*\(\d+\)", first.row[3]) and first.row[2] == "Fm-3m (225)"
    assert first.file.startswith("NaCl_") and "formula known" in first.text
    shares = [*table.probability[: candidate_list.LISTED], table.attrs["none_of_these"]]
    assert chosen == min(np.argmax(shares), len(found) - 1)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [(5.64072, 0.0006, "5.6407(6)"), (5.64072, 0.012, "5.64(1)"), (9.9996, 0.001, "10.000(1)"), (90.0, 0.0, "90.0000"),
     (243.786, 3.2, "244(3)"), (1.5, 0.0996, "1.5(1)"), (2.0, np.nan, "2.0000"), (3.14159265, 1e-9, "3.141593(1)")],
)  # fmt: skip
def test_an_uncertainty_is_in_units_of_the_last_digit(value, error, words):
    assert candidate_list.with_error(value, error) == words


def test_a_cell_is_told_without_what_its_symmetry_fixes():
    errors = {f"{name}_error": 0.01 for name in ("a", "b", "c", "alpha", "beta", "gamma")}
    lengths = {"a": 4.0, "b": 5.0, "c": 6.0}
    right = {"alpha": 90.0, "beta": 90.0, "gamma": 90.0}
    assert candidate_list.cell_in_words(errors | lengths | right) == "a 4.00(1) b 5.00(1) c 6.00(1)"
    assert candidate_list.cell_in_words(errors | lengths | right | {"b": 4.0, "c": 4.0}) == "a 4.00(1)"
    hexagonal = errors | lengths | right | {"b": 4.0, "gamma": 120.0}
    assert candidate_list.cell_in_words(hexagonal) == "a 4.00(1) c 6.00(1)"
    oblique = errors | lengths | right | {"beta": 99.2}
    assert candidate_list.cell_in_words(oblique).endswith("c 6.00(1) β 99.20(1)")
    assert candidate_list.lengths_in_words(oblique) == "4.00(1) 5.00(1) 6.00(1)"


class Controls:
    """Those of the explorer, and what it shows."""

    def __init__(self, model, **options):
        known, how, shown = (part.children for part in widgets.explore(model, **options).children)
        self.crystal, self.upload, self.formula, self.elements, self.anode, self.number = known
        self.view, self.target, self.hidden = how
        (self.picture, self.drawn), right = (part.children for part in shown)
        self.text, self.bars, self.heading, self.candidates, self.said = right

    def receive(self, name, content):
        file = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
        self.upload.value = ({**file, "last_modified": datetime(2026, 11, 29)},)

    def listed(self):
        """Rows of the list of candidates that is seen."""
        hidden = self.candidates.layout.display == self.heading.layout.display == self.said.layout.display == "none"
        assert hidden == (not self.candidates.options) == (not self.drawn.value) == (not self.said.value)
        for image in (self.picture, self.bars, self.drawn):
            assert (image.layout.display == "none") == (not image.value), "an empty picture is hidden"
        return [label for label, _ in self.candidates.options]

    def looks(self):
        """What is chosen and what is shown."""
        return (self.crystal.label, self.formula.value, self.anode.value, self.number.value,
                *(bytes(image.value) for image in (self.picture, self.bars, self.drawn)), self.text.value)  # fmt: skip


PHOTOGRAPH = b"\xff\xd8\xff\xe0" + bytes(100)
RAS = "*RAS_DATA_START\n" + "".join(
    '*RAS_HEADER_START\n*HW_XG_TARGET_NAME "Cu"\n*RAS_HEADER_END\n*RAS_INT_START\n'
    + "".join(f"{x:.2f} {20 + 500 * np.exp(-200 * (x - line) ** 2) + k % 7:.0f} 1.0\n" for k, x in enumerate(angles))
    + "*RAS_INT_END\n"
    for line, angles in ((31.7, np.arange(25, 42, 0.05)), (45.4, np.arange(42, 60, 0.05)))
)


def test_controls_are_a_picture_where_they_cannot_be_controls(model):
    """In a notebook that is read elsewhere, on paper, or not trusted."""
    explorer = widgets.explore(model)
    bundle = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    still = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    _, _, shown = explorer.children
    parts = [Image.open(io.BytesIO(one.value)) for column in shown.children for one in column.children
             if one.value and hasattr(one, "format")]  # fmt: skip
    assert len(parts) == 3 and still.height == sum(part.height for part in parts)


def test_controls_change_the_picture(model):
    controls = Controls(model)
    seen = [bytes(controls.picture.value)]
    controls.crystal.index = 2
    seen.append(bytes(controls.picture.value))
    controls.view.value = "hidden parts"
    seen.append(bytes(controls.picture.value))
    controls.hidden.value = (8,)
    seen.append(bytes(controls.picture.value))
    assert len(set(seen)) == 4 and all(value.startswith(b"\x89PNG") for value in seen)
    controls.formula.value = "LaMno3"
    assert "no chemical formula" in controls.text.value and not controls.picture.value
    controls.receive("NaCl.uxd", SCAN.read_bytes())
    assert "NaCl.uxd: what a model makes" in controls.text.value and controls.crystal.label == "your scan: NaCl.uxd"
    assert controls.formula.value == "" and controls.hidden.value == (), "they were of the scan before"


def test_controls_say_what_they_are_in_words(model):
    controls = Controls(model)
    choosers = (controls.crystal, controls.anode, controls.hidden, controls.target, controls.view)
    labels = [str(option[0] if isinstance(option, tuple) else option) for one in choosers for option in one.options]
    assert "5-10 degree" in labels and "crystal system" in labels and "similar training crystals" in labels
    assert not [label for label in labels if re.search("none|_|xrd|token", label, re.IGNORECASE)]
    assert all(option[1] is not None for one in choosers[:4] for option in one.options)


def test_a_formula_or_elements_are_known_or_nothing(model):
    controls = Controls(model)
    controls.receive("NaCl.uxd", SCAN.read_bytes())
    assert "nothing known" in controls.said.value
    controls.formula.value = "NaCl"
    assert "formula known" in controls.said.value
    controls.elements.value = "Na, Cl, O"
    assert controls.formula.value == "" and "elements known" in controls.said.value
    assert "answered from the pattern" in controls.text.value and "NaCl" in controls.listed()[0]
    controls.formula.value = "NaCl"
    assert controls.elements.value == "" and "formula known" in controls.said.value
    controls.elements.value = "Na Xy"
    assert "no list of elements" in controls.text.value and not controls.listed() and not controls.picture.value


def test_a_scan_that_the_model_refuses_is_explained_all_the_same(model, monkeypatch):
    monkeypatch.setattr(model, "elements", np.zeros_like(model.elements))
    controls = Controls(model)
    controls.receive("NaCl.uxd", SCAN.read_bytes())
    controls.formula.value = "NaCl"
    assert "knows nothing" in controls.text.value and not controls.bars.value
    assert controls.picture.value and "NaCl" in controls.listed()[0]


def test_an_answer_without_reasons_is_an_answer(model, monkeypatch):
    monkeypatch.setattr(looks.explain, "attribution", lambda *_: (_ for _ in ()).throw(ValueError("install captum")))
    seen = looks.look(model, looks.Choice(crystal=0, formula=str(model.unseen.column("formula")[0])))
    assert seen.answered and seen.bars and seen.picture and "no reasons: install captum" in seen.text


def test_a_candidate_that_is_clicked_is_seen(model):
    controls = Controls(model)
    controls.receive("NaCl.uxd", SCAN.read_bytes())
    controls.formula.value = "NaCl"
    answered, rows = controls.looks()[4:6] + controls.looks()[7:], controls.listed()
    assert "none\xa0of\xa0these" in rows[-1] and "NaCl" in rows[0] + rows[1] and len(set(map(len, rows))) == 1
    seen = set()
    for place in range(len(rows)):
        controls.candidates.index = place
        seen.add((bytes(controls.drawn.value), controls.said.value))
        cif = unquote(controls.said.value.partition("utf-8,")[2].partition('"')[0])
        assert bool(cif) == (place < len(rows) - 1)
        assert not cif or Structure.from_str(cif, fmt="cif").reduced_formula == "NaCl"
    assert len(seen) == len(rows)
    assert controls.looks()[4:6] + controls.looks()[7:] == answered, "the answer stays beside them"


def test_candidates_are_of_what_is_shown_and_of_nothing_before(model):
    controls = Controls(model)
    controls.receive("NaCl.uxd", SCAN.read_bytes())
    controls.formula.value = "NaCl"
    first = controls.listed()
    controls.candidates.index = len(first) - 1
    controls.crystal.index = 2
    assert controls.listed() != first and "NaCl" not in controls.text.value + controls.said.value
    controls.receive("NaCl.uxd", SCAN.read_bytes())
    controls.formula.value = "NaCl"
    assert controls.listed() == first and controls.candidates.index == 0 and controls.said.value
    controls.view.value = "attention"
    assert not controls.listed() and not controls.bars.value and controls.picture.value
    controls.view.value = "answer"
    controls.formula.value = "LaMno3"
    assert not controls.listed() and not controls.picture.value and "no chemical formula" in controls.text.value
    controls.receive("few.xy", "\n".join(f"{x} {y}" for x, y in zip(TWO_THETA, 1 + lines_at([40]))).encode())
    assert (
        not controls.listed() and "no known crystals" in controls.text.value and "measure longer" in controls.text.value
    )
    assert controls.picture.value, "the scan is seen all the same"


def test_a_refused_upload_leaves_nothing_of_what_was_before(model):
    controls = Controls(model)
    controls.receive("photograph.xy", PHOTOGRAPH)
    assert controls.crystal.label == "your scan: photograph.xy" and controls.formula.value == ""
    for change in ("NaCl", "KCl", ""):
        controls.formula.value = change
        assert "photograph.xy: this is a JPEG" in controls.text.value and not controls.picture.value
        assert not controls.listed()
    controls.crystal.index = 1
    assert controls.picture.value and "photograph" not in controls.text.value
    assert "your scan" not in str(controls.crystal.options), "what is gone cannot be chosen"


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
    assert "two.ras, answered from the pattern" in controls.text.value
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
    assert "choose another with the control `scan number`" in controls.text.value
    first = bytes(controls.picture.value)
    controls.number.value = "1"
    assert controls.picture.value != first and "control" not in controls.text.value
    for value, why in (("2", "there is no scan 2"), ("x", "is no number of a scan"), ("\u00b2", "is no number")):
        controls.number.value = value
        assert why in controls.text.value and not controls.picture.value


def test_the_truth_is_shown_of_the_crystal_only(model, monkeypatch):
    truths = []
    monkeypatch.setattr(looks.views, "answer", lambda *given: truths.append(given[4]) or Figure())
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
        monkeypatch.setattr(looks, "see_attention", lambda *_, error=error: (_ for _ in ()).throw(error))
        controls.view.value = "attention"
        assert sentence in controls.text.value and not controls.picture.value and "\n" not in controls.text.value
        controls.view.value = "answer"
        assert controls.picture.value
