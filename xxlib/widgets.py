"""Look at what a model does: a thin shell of controls over the functions of answering.explain and plots.views."""

import html
import io
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from xxlib.answering import explain
from xxlib.answering.answer import SampleAnswer, in_terms_of, reason
from xxlib.answering.calibration import LEVEL
from xxlib.answering.predictor import Predictor, batch_of, sample_of
from xxlib.datasets.batches import make_batch
from xxlib.datasets.store import Dataset
from xxlib.datasets.targets import TARGETS
from xxlib.diffraction.patterns import N_TOKENS, unpatchify
from xxlib.plots import views
from xxlib.scans.reading import MAX_BYTES
from xxlib.scans.scan import ANODES

if TYPE_CHECKING:  # a page does without ipywidgets
    from ipywidgets import VBox

VIEWS = ("answer", "tokens", "attention", "attribution", "known materials")
CONTROLS = {"scan": "the control `scan`", "anode": "the control `anode`"}  # what Python's arguments are called here


def see_answer(predictor: Predictor, answer: SampleAnswer, labels: dict | None = None) -> Figure:
    """Figure of an answer with its intervals; labels: the truth by target, where it is known."""
    labels, values = labels or {}, {}
    for name, value in answer.values.items():
        values[f"{name} ({TARGETS[name].unit})"] = value
    truth = {f"{name} ({TARGETS[name].unit})": labels[name] for name in answer.values if name in labels}
    name = next(iter(answer.probabilities), None)
    probabilities, sets = ({}, ()) if name is None else (answer.probabilities[name], answer.sets[name])
    if name in labels:
        truth["class"] = TARGETS[name].classes[int(labels[name])]
    return views.answer(values, probabilities, sets, LEVEL, truth, answer.title)


def see_reconstruction(predictor: Predictor, answer: SampleAnswer, hidden: Iterable[int] = ()) -> Figure:
    """Figure of the pattern with its tokens, and of what the model of masked modelling makes of the hidden ones.

    hidden: numbers of tokens, from 1.
    """
    sample = answer.sample
    marked = np.isin(np.arange(1, N_TOKENS + 1), list(hidden))
    unseen = marked | sample.hidden
    reconstructed = (
        explain.reconstruct(predictor.reconstructing, batch_of(sample), unseen) if marked.any() else sample.pattern
    )
    return views.reconstruction(sample.pattern, reconstructed, marked, sample.hidden, answer.title)


def see_attention(predictor: Predictor, answer: SampleAnswer) -> Figure:
    """Figure of the cross-attention from tokens to elements.  Raises ValueError without a formula."""
    _needs_both(answer)
    weights = explain.cross_attention(predictor.ensemble.members[0].model, batch_of(answer.sample))
    return views.attention(weights, answer.sample.elements, answer.title)


def see_attribution(predictor: Predictor, answer: SampleAnswer, target: str) -> Figure:
    """Figure of what moved the answer for a target: parts of the pattern, elements.  Raises ValueError without both."""
    _needs_both(answer)
    member, index, scale = predictor.ensemble.answering(target)[0], None, 1.0
    if TARGETS[target].kind == "classification":
        first = next(iter(answer.probabilities[target]))
        index, quantity = TARGETS[target].classes.index(first), f"logit of {first}"
    else:
        scale, quantity = member.normalisers[target].std, TARGETS[target].unit
    points, elements, _ = explain.attribution(member.model, batch_of(answer.sample), target, index)
    names = answer.sample.elements
    title = f"{answer.title}: {target}"
    return views.attribution(answer.sample.pattern, scale * points, names, scale * elements, quantity, title)


def see_neighbours(predictor: Predictor, answer: SampleAnswer) -> Figure:
    """Figure of the nearest training crystals with their simulated patterns, below that of the sample."""
    table, patterns = predictor.neighbours(answer), patterns_of(predictor.training, answer.nearest)
    names = [f"{formula}\n{system}" for formula, system in zip(table["formula"], table["crystal_system"])]
    pattern = answer.sample.pattern if "xrd" in answer.sample.modalities else None
    return views.neighbours(pattern, patterns, names, answer.title)


def patterns_of(dataset: Dataset, rows: Iterable[int]) -> np.ndarray:
    """Ideal patterns (n, 4250) of some rows of a Dataset."""
    return unpatchify(make_batch(dataset, rows, ("xrd",)).inputs["xrd"].tokens.numpy())


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is chosen at the controls, all of it: what is shown follows from this and from nothing before it."""

    crystal: int | None = None  # row of the crystals to choose from; None = the file
    file: tuple[str, bytes] | None = None  # name and content of an uploaded scan
    number: str = ""  # which scan of the file, "" = the first
    anode: str | None = None  # of the tube, None = as the file says
    formula: str = ""  # "" = the pattern alone
    view: str = VIEWS[0]
    hidden: tuple[int, ...] = ()  # tokens, from 1, that the model is to reconstruct
    target: str | None = None  # what the attribution is of


def look(predictor: Predictor, choice: Choice, dataset: Dataset | None = None) -> tuple[bytes, str, bool]:
    """(picture, text, True) of a Choice, or (b"", why not, False): a PNG, and sentences.

    dataset: crystals that are chosen from; those that the checkpoint brings along where None.
    """
    dataset = predictor.unseen if dataset is None else dataset
    try:
        sample, labels = _chosen(choice, dataset, predictor.ensemble.targets)
        answer = predictor.answer([sample])[0]
        figure = {
            "answer": lambda: see_answer(predictor, answer, labels),
            "tokens": lambda: see_reconstruction(predictor, answer, choice.hidden),
            "attention": lambda: see_attention(predictor, answer),
            "attribution": lambda: see_attribution(predictor, answer, choice.target),
            "known materials": lambda: see_neighbours(predictor, answer),
        }[choice.view]()
        return _png(figure), in_terms_of(str(answer), CONTROLS), True
    except Exception as error:  # whatever it is, who looks reads a sentence
        return b"", in_terms_of(reason(error), CONTROLS), False


def _chosen(choice, dataset, targets):
    """The Sample of a Choice, and the truth by target, which a crystal with another formula does not have."""
    formula = choice.formula.strip() or None
    if choice.crystal is not None:
        row = choice.crystal
        own = str(dataset.column("formula")[row])
        sample = sample_of(formula, patterns_of(dataset, [row])[0])
        labels = {name: dataset.labels[name][row] for name in targets} if formula in (None, own) else {}
        labels = {name: value for name, value in labels.items() if np.isfinite(value)}
        return replace(sample, name=str(dataset.column("id")[row])), labels
    if choice.file is None:
        raise ValueError("no scan was uploaded yet: upload one, or choose a crystal")
    name, content = Path(choice.file[0]).name[-60:].lstrip(".") or "scan", choice.file[1]
    if len(content) > MAX_BYTES:
        raise ValueError(f"{name} has {len(content) / 1e6:.0f} MB, and a scan has at most {MAX_BYTES // 10**6}")
    number = choice.number.strip()
    if number and not (number.isascii() and number.isdigit()):
        raise ValueError(f"{number!r} is no number of a scan: the first is 0, the next 1; empty takes the first")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return sample_of(formula, path, choice.anode, int(number) if number else None), {}


def explore(predictor: Predictor, dataset: Dataset | None = None, rows: Iterable[int] | None = None) -> "VBox":
    """Controls and a figure: choose a crystal or upload a scan, change the formula, look at it in five ways.

    dataset, rows: crystals to choose from; those that the checkpoint brings along where None.
    """
    import ipywidgets

    dataset = predictor.unseen if dataset is None else dataset
    rows = np.arange(len(dataset)) if rows is None else rows
    options = {"style": {"description_width": "80px"}, "layout": {"width": "330px"}}
    crystals = [("(an uploaded scan)", None), *crystals_of(dataset, rows)]
    crystal = ipywidgets.Dropdown(options=crystals, value=int(rows[0]), description="crystal", **options)
    upload = ipywidgets.FileUpload(description="upload a scan (at most 10 MB)", layout={"width": "330px"})
    formula = ipywidgets.Text(description="formula", continuous_update=False, **options)
    anodes = [("as in the file", None), *((name, name) for name in ANODES)]
    anode = ipywidgets.Dropdown(options=anodes, description="anode", **options)
    placeholder = "of a file with several: 0, 1, ..."
    number = ipywidgets.Text(description="scan", placeholder=placeholder, continuous_update=False, **options)
    view = ipywidgets.ToggleButtons(options=VIEWS, style={"button_width": "130px"})
    tokens = range(1, N_TOKENS + 1)
    hidden = ipywidgets.SelectMultiple(options=tokens, description="hide tokens", rows=6, **options)
    target = ipywidgets.Dropdown(options=predictor.ensemble.targets, description="attributed", **options)
    picture, text = ipywidgets.Image(format="png"), ipywidgets.HTML()
    state = {"file": None, "quiet": False}

    def show(_=None):
        if state["quiet"]:  # several controls are being set: the picture waits for the last
            return
        picture.value, text.value = b"", "..."  # what was seen before is of another choice
        choice = Choice(crystal=crystal.value, file=state["file"], number=number.value, anode=anode.value,
                        formula=formula.value, view=view.value, hidden=hidden.value, target=target.value)  # fmt: skip
        picture.value, sentences, answered = look(predictor, choice, dataset)
        tag = "pre" if answered else "b"
        text.value = f"<{tag}>{html.escape(sentences)}</{tag}>"

    def start_with(row, file):
        """Another crystal or another file: nothing that belonged to the one before stays."""
        state["quiet"] = True
        try:
            state["file"] = file or state["file"]
            crystal.value, anode.value, number.value = row, None, ""
            formula.value = "" if row is None else str(dataset.column("formula")[row])
            anode.disabled = number.disabled = row is not None
        finally:
            state["quiet"] = False
        show()

    def choose(_=None):
        if not state["quiet"]:
            start_with(crystal.value, None)

    def receive(_):
        if upload.value:
            file = upload.value[-1]
            upload.value = ()  # or the same file, uploaded again, would go unseen
            start_with(None, (file["name"], bytes(file["content"])))

    crystal.observe(choose, "value")
    upload.observe(receive, "value")
    for control in (formula, anode, number, view, hidden, target):
        control.observe(show, "value")
    choose()
    shown = ipywidgets.VBox([picture, text], layout={"align_items": "flex-start"})  # pictures keep their size
    controls = ipywidgets.VBox([crystal, upload, formula, anode, number, hidden, target])
    return ipywidgets.VBox([view, ipywidgets.HBox([controls, shown])])


def crystals_of(dataset: Dataset, rows: Iterable[int]) -> list[tuple[str, int]]:
    """(formula and id, row) of crystals to choose from."""
    formulas, ids = dataset.column("formula")[rows], dataset.column("id")[rows]
    return [(f"{formula}  {id}", int(row)) for formula, id, row in zip(formulas, ids, rows)]


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90)
    return buffer.getvalue()


def _needs_both(answer):
    if len(answer.sample.modalities) < 2:
        raise ValueError("this view relates a composition to a pattern: give both")
