"""Look at what a model does: a thin shell of controls over the functions of answering.explain and plots.views."""

import html
import io
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from xxlib.answering import explain
from xxlib.answering.calibration import LEVEL
from xxlib.answering.predictor import batch_of
from xxlib.datasets.batches import make_batch
from xxlib.datasets.targets import TARGETS
from xxlib.diffraction.patterns import N_TOKENS, unpatchify
from xxlib.plots import views
from xxlib.scans.reading import read_scan
from xxlib.scans.samples import read_sample
from xxlib.scans.scan import ANODES


def see_answer(predictor, answer, labels=None):
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


def see_reconstruction(predictor, answer, hidden=()):
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


def see_attention(predictor, answer):
    """Figure of the cross-attention from tokens to elements.  Raises ValueError without a formula."""
    _needs_both(answer)
    weights = explain.cross_attention(predictor.ensemble.members[0].model, batch_of(answer.sample))
    return views.attention(weights, answer.sample.elements, answer.title)


def see_attribution(predictor, answer, target):
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


def see_neighbours(predictor, answer):
    """Figure of the nearest training crystals with their simulated patterns, below that of the sample."""
    table, patterns = predictor.neighbours(answer), patterns_of(predictor.training, answer.nearest)
    names = [f"{formula}\n{system}" for formula, system in zip(table["formula"], table["crystal_system"])]
    pattern = answer.sample.pattern if "xrd" in answer.sample.modalities else None
    return views.neighbours(pattern, patterns, names, answer.title)


def patterns_of(dataset, rows):
    """Ideal patterns (n, 4250) of some rows of a Dataset."""
    return unpatchify(make_batch(dataset, rows, ("xrd",)).inputs["xrd"].tokens.numpy())


def explore(predictor, dataset=None, rows=None):
    """Controls and a figure: choose a crystal or upload a scan, change the formula, look at it in five ways.

    dataset, rows: crystals to choose from; those that the checkpoint brings along where None.
    """
    import ipywidgets

    dataset = predictor.unseen if dataset is None else dataset
    rows = np.arange(len(dataset)) if rows is None else rows
    formulas, ids = dataset.column("formula")[rows], dataset.column("id")[rows]
    options = {"style": {"description_width": "80px"}, "layout": {"width": "330px"}}
    crystals = [("(an uploaded scan)", None), *((f"{f}  {i}", int(row)) for f, i, row in zip(formulas, ids, rows))]
    crystal = ipywidgets.Dropdown(options=crystals, value=int(rows[0]), description="crystal", **options)
    upload = ipywidgets.FileUpload(description="upload a scan", layout={"width": "330px"})
    formula = ipywidgets.Text(description="formula", continuous_update=False, **options)
    anodes = [("as in the file", None), *((name, name) for name in ANODES)]
    anode = ipywidgets.Dropdown(options=anodes, description="anode", **options)
    names = ["answer", "tokens", "attention", "attribution", "known materials"]
    view = ipywidgets.ToggleButtons(options=names, style={"button_width": "130px"})
    tokens = range(1, N_TOKENS + 1)
    hidden = ipywidgets.SelectMultiple(options=tokens, description="hide tokens", rows=6, **options)
    target = ipywidgets.Dropdown(options=predictor.ensemble.targets, description="attributed", **options)
    picture, text = ipywidgets.Image(format="png"), ipywidgets.HTML()
    given = {"pattern": None, "name": "", "labels": None, "shown": None}

    def show(_=None):
        chosen = (formula.value, id(given["pattern"]), anode.value, view.value, hidden.value, target.value)
        if chosen == given["shown"]:
            return
        given["shown"] = chosen
        try:
            sample = read_sample(formula.value.strip() or None, given["pattern"], anode=anode.value)
            sample = replace(sample, name=given["name"])
            answer = predictor.answer([sample])[0]
            figure = {
                "answer": lambda: see_answer(predictor, answer, given["labels"]),
                "tokens": lambda: see_reconstruction(predictor, answer, hidden.value),
                "attention": lambda: see_attention(predictor, answer),
                "attribution": lambda: see_attribution(predictor, answer, target.value),
                "known materials": lambda: see_neighbours(predictor, answer),
            }[view.value]()
        except ValueError as error:
            refuse(error)
            return
        picture.value, text.value = _png(figure), f"<pre>{html.escape(str(answer))}</pre>"

    def choose(_=None):
        row = crystal.value
        if row is None:
            return
        given["pattern"] = patterns_of(dataset, [row])[0]
        given["name"] = ids[list(rows).index(row)]
        given["labels"] = {name: dataset.labels[name][row] for name in predictor.ensemble.targets}
        formula.value = str(dataset.column("formula")[row])
        show()

    def receive(_):
        for file in upload.value:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / Path(file["name"]).name
                path.write_bytes(file["content"])
                try:
                    given["pattern"] = read_scan(path)
                except ValueError as error:
                    refuse(error)
                    return
            given["name"], given["labels"] = path.name, None
            crystal.value, formula.value = None, ""  # not that of the crystal before
            show()

    def refuse(error):
        picture.value, text.value = b"", f"<b>{html.escape(str(error))}</b>"

    crystal.observe(choose, "value")
    upload.observe(receive, "value")
    for control in (formula, anode, view, hidden, target):
        control.observe(show, "value")
    choose()
    shown = ipywidgets.VBox([picture, text], layout={"align_items": "flex-start"})  # pictures keep their size
    controls = ipywidgets.VBox([crystal, upload, formula, anode, hidden, target])
    return ipywidgets.VBox([view, ipywidgets.HBox([controls, shown])])


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90)
    return buffer.getvalue()


def _needs_both(answer):
    if len(answer.sample.modalities) < 2:
        raise ValueError("this view relates a composition to a pattern: give both")
