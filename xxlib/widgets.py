"""Controls in a notebook over look(): a thin shell."""

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from xxlib.answering.predictor import Predictor
from xxlib.datasets.store import Dataset
from xxlib.diffraction.patterns import N_TOKENS
from xxlib.looks import COLUMNS, LISTED, VIEWS, Candidate, Choice, crystals_of, look
from xxlib.scans.scan import ANODES

if TYPE_CHECKING:
    from ipywidgets import VBox


def explore(predictor: Predictor, dataset: Dataset | None = None, rows: Iterable[int] | None = None) -> "VBox":
    """Controls and a figure: choose a crystal or upload a scan, change the formula, look at it in six ways.

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
    heading, save = ipywidgets.HTML(), ipywidgets.HTML()
    candidates = ipywidgets.Select(rows=LISTED + 1, layout={"width": "100%"})
    candidates.add_class("xxlib-candidates")  # see TABLE
    state = {"file": None, "quiet": False, "candidates": ()}

    def show(_=None):
        if state["quiet"]:  # several controls are being set: the picture waits for the last
            return
        list_of((), 0)
        picture.value, text.value = b"", "..."  # what was seen before is of another choice
        choice = Choice(crystal=crystal.value, file=state["file"], number=number.value, anode=anode.value,
                        formula=formula.value, view=view.value, hidden=hidden.value, target=target.value)  # fmt: skip
        seen = look(predictor, choice, dataset)
        list_of(seen.candidates, seen.chosen)
        tag = "pre" if seen.answered else "b"
        picture.value, text.value = seen.picture, f"<{tag}>{html.escape(seen.text)}</{tag}>"

    def list_of(found, chosen):
        """The candidates of what is shown, and nothing where it has none."""
        state["candidates"] = ()  # nothing is drawn while the list changes
        head, *rows = columns([COLUMNS, *(one.row for one in found)])
        candidates.options = [(row, place) for place, row in enumerate(rows)]
        candidates.index = chosen if found else None
        heading.value = f"{TABLE}<pre>{html.escape(head)}</pre>"
        candidates.layout.display = heading.layout.display = None if found else "none"
        state["candidates"] = found
        save.value = saving(found[chosen]) if found else ""

    def choose_candidate(_):
        if state["candidates"] and candidates.index is not None:
            one = state["candidates"][candidates.index]
            save.value, picture.value, text.value = saving(one), one.picture, f"<pre>{html.escape(one.text)}</pre>"

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

    candidates.observe(choose_candidate, "index")
    crystal.observe(choose, "value")
    upload.observe(receive, "value")
    for control in (formula, anode, number, view, hidden, target):
        control.observe(show, "value")
    choose()
    parts = [heading, candidates, picture, save, text]
    shown = ipywidgets.VBox(parts, layout={"align_items": "flex-start"})  # pictures keep their size
    controls = ipywidgets.VBox([crystal, upload, formula, anode, number, hidden, target])
    return ipywidgets.VBox([view, ipywidgets.HBox([controls, shown])])


TABLE = "<style>.xxlib-candidates select { font-family: monospace } .xxlib-candidates { max-width: 60em }</style>"


def columns(rows: Iterable[Iterable[str]]) -> list[str]:
    """Rows of words as lines of equal columns; spaces are such that a browser keeps them."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths)).replace(" ", "\xa0") for row in rows]


def saving(candidate: Candidate) -> str:
    """HTML of a link that saves the CIF file of a Candidate; "" where it has none."""
    if not candidate.cif:
        return ""
    address = f"data:chemical/x-cif;charset=utf-8,{quote(candidate.cif)}"
    return f'<a download="{html.escape(candidate.file)}" href="{address}">save {html.escape(candidate.file)}</a>'
