"""Controls in a notebook over look(): a thin shell."""

import base64
import html
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from xxlib.answering.predictor import Predictor
from xxlib.candidate_list import COLUMNS, LISTED, Candidate
from xxlib.datasets.store import Dataset
from xxlib.looks import VIEWS, Choice, Seen, crystals_of, first_reasons, look
from xxlib.plots.views import parts
from xxlib.scans.scan import ANODES

if TYPE_CHECKING:
    from ipywidgets import VBox


def explore(predictor: Predictor, dataset: Dataset | None = None, rows: Iterable[int] | None = None) -> "VBox":
    """Controls and what is seen: choose a crystal or upload a scan, say what is known of it, look at it in four ways.

    dataset, rows: crystals to choose from; those that the checkpoint brings along where None.
    """
    import ipywidgets

    dataset = predictor.unseen if dataset is None else dataset
    rows = np.arange(len(dataset)) if rows is None else rows
    wide, narrow = (
        {"style": {"description_width": "initial"}, "layout": {"width": size}} for size in ("270px", "170px")
    )
    crystals = crystals_of(dataset, rows)
    crystal = ipywidgets.Dropdown(options=crystals, value=int(rows[0]), description="sample", **wide)
    upload = ipywidgets.FileUpload(description="upload a scan", layout={"width": "150px"})
    formula = ipywidgets.Text(description="formula", placeholder="if known", continuous_update=False, **narrow)
    elements = ipywidgets.Text(
        description="or elements", placeholder="Na Cl", continuous_update=False, **wide | {"layout": {"width": "210px"}}
    )
    anodes = [("as in the file", ""), *((name, name) for name in ANODES)]
    anode = ipywidgets.Dropdown(options=anodes, description="anode", **narrow)
    number = ipywidgets.Text(description="scan number", placeholder="0, 1, ...", continuous_update=False, **narrow)
    view = ipywidgets.ToggleButtons(options=VIEWS, style={"button_width": "auto"})
    angles = [(f"{part} degree", k) for k, part in enumerate(parts(), 1)]
    hidden = ipywidgets.SelectMultiple(options=angles, description="hide", rows=4, **narrow)
    targets = [(target.title, name) for name, target in predictor.targets.items()]
    first = first_reasons(predictor)
    target = ipywidgets.Dropdown(options=targets, value=first, description="reasons for", **wide)
    picture, bars, drawn = (ipywidgets.Image(format="png", layout={"max_width": "100%"}) for _ in range(3))
    text, heading, said = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
    candidates = ipywidgets.Select(rows=LISTED + 1, layout={"width": "100%"})
    candidates.add_class("xxlib-candidates")  # see STYLE
    state = {"file": None, "quiet": False, "candidates": ()}

    def show(_=None):
        if state["quiet"]:  # several controls are being set: the picture waits for the last
            return
        hidden.layout.display = None if view.value == "hidden parts" else "none"
        target.layout.display = None if view.value == VIEWS[0] else "none"
        draw(Seen(text="...", answered=True))  # what was seen before is of another choice
        row = None if crystal.value == UPLOADED else crystal.value
        choice = Choice(crystal=row, file=state["file"], number=number.value, anode=anode.value, formula=formula.value,
                        elements=elements.value, view=view.value, hidden=hidden.value, target=target.value)  # fmt: skip
        draw(look(predictor, choice, dataset))

    def draw(seen):
        text.value = preformatted(seen.text, "pre" if seen.answered else "b")
        fill(picture, seen.picture)
        fill(bars, seen.bars)
        state["candidates"] = ()  # nothing is drawn while the list changes
        head, *lines = columns([COLUMNS, *(one.row for one in seen.candidates)])
        candidates.options = [(line, place) for place, line in enumerate(lines)]
        candidates.index = seen.chosen if lines else None
        heading.value = f"{STYLE}{preformatted(head)}"
        for part in (candidates, heading, said):
            part.layout.display = None if lines else "none"
        state["candidates"] = seen.candidates
        choose_candidate()

    def fill(image, png):
        """A picture, and nothing where there is none."""
        image.value, image.layout.display = png, None if png else "none"

    def choose_candidate(_=None):
        if state["candidates"] and candidates.index is not None:
            one = state["candidates"][candidates.index]
            fill(drawn, one.picture)
            said.value = preformatted(one.text) + saving(one)
        elif not state["candidates"]:
            fill(drawn, b"")
            said.value = ""

    def start_with(row, file=None):
        """Another crystal or another file: nothing that belonged to the one before stays."""
        state["quiet"] = True
        try:
            state["file"] = file
            own = [] if file is None else [(f"your scan: {file[0]}", UPLOADED)]
            crystal.options = [*own, *crystals]
            crystal.value, anode.value, number.value, elements.value = row, "", "", ""
            formula.value = "" if file else str(dataset.column("formula")[row])
            hidden.value, target.value = (), first
            anode.layout.display = number.layout.display = None if file else "none"
        finally:
            state["quiet"] = False
        show()

    def choose(_=None):
        if not state["quiet"] and crystal.value != UPLOADED:
            start_with(crystal.value)

    def receive(_):
        if upload.value:
            file = upload.value[-1]
            upload.value = ()  # or the same file, uploaded again, would go unseen
            start_with(UPLOADED, (file["name"], bytes(file["content"])))

    def know(change):
        """A formula says which elements there are: one of the two is known, or neither."""
        other = elements if change["owner"] is formula else formula
        if change["new"].strip() and other.value and not state["quiet"]:
            state["quiet"], other.value = True, ""
            state["quiet"] = False
        show()

    candidates.observe(choose_candidate, "index")
    crystal.observe(choose, "value")
    upload.observe(receive, "value")
    for control in (formula, elements):
        control.observe(know, "value")
    for control in (anode, number, view, hidden, target):
        control.observe(show, "value")
    choose()
    row = {"flex_flow": "row wrap", "align_items": "center"}
    known = ipywidgets.HBox([crystal, upload, formula, elements, anode, number], layout=row)
    how = ipywidgets.HBox([view, target, hidden], layout=row)
    left = ipywidgets.VBox([picture, drawn], layout={"width": "51%"})
    right = ipywidgets.VBox([text, bars, heading, candidates, said], layout={"width": "48%"})
    whole = ipywidgets.VBox([known, how, ipywidgets.HBox([left, right])])
    live = whole._repr_mimebundle_

    def with_still(**options):
        still = stacked(image.value for image in (picture, bars, drawn))
        return live(**options) | {"image/png": base64.b64encode(still).decode()}

    whole._repr_mimebundle_ = with_still  # a notebook that is read and not trusted shows no controls
    return whole


UPLOADED = "uploaded"  # value of the sample that is a file
PRINT = "font: 10.5px/1.35 monospace; white-space: pre-wrap; word-break: normal; margin: 0"
STYLE = "<style>.xxlib-candidates select { font: 10.5px monospace; overflow-x: auto }</style>"


def stacked(pngs: Iterable[bytes]) -> bytes:
    """One PNG of several, one below the other; those that are empty are left out."""
    from PIL import Image

    pictures = [Image.open(io.BytesIO(png)) for png in pngs if png]
    sizes = [one.size for one in pictures] or [(1, 1)]
    whole, y = Image.new("RGB", (max(w for w, _ in sizes), sum(h for _, h in sizes)), "white"), 0
    for one in pictures:
        whole.paste(one, (0, y))
        y += one.height
    file = io.BytesIO()
    whole.save(file, "png")
    return file.getvalue()


def preformatted(words: str, tag: str = "pre") -> str:
    """HTML of words whose lines are kept, and wrapped where they are too long."""
    return f'<{tag} style="{PRINT}">{html.escape(words)}</{tag}>'


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
