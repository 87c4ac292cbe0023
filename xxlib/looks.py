"""What is seen of a sample: the figures of a model and of known crystals, and of a choice at controls all of it.

A notebook calls the see_* functions; the controls of widgets.py and the page of serve.py call look().
"""

import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from xxlib.answering import explain
from xxlib.answering.answer import SampleAnswer, in_terms_of, reason
from xxlib.answering.calibration import LEVEL
from xxlib.answering.inference import batch_of
from xxlib.answering.predictor import Predictor
from xxlib.answering.questions import sample_of
from xxlib.candidate_list import Candidate, candidates_of
from xxlib.candidates.known import KnownCrystals
from xxlib.crystals.elements import atomic_number
from xxlib.datasets.batches import make_batch
from xxlib.datasets.store import Dataset
from xxlib.datasets.targets import TARGETS
from xxlib.diffraction.patterns import N_TOKENS, unpatchify
from xxlib.plots import views
from xxlib.plots.style import png
from xxlib.scans.reading import MAX_BYTES

VIEWS = ("answer", "hidden parts", "attention", "similar training crystals")
CONTROLS = {"scan": "the control `scan number`", "anode": "the control `anode`"}  # Python's arguments, as called here


def see_answer(predictor: Predictor, answer: SampleAnswer, labels: dict | None = None) -> Figure:
    """Figure of an answer with its intervals; labels: the truth by target, where it is known."""
    labels = labels or {}
    called = {name: f"{TARGETS[name].title} ({TARGETS[name].unit})" for name in answer.values}
    values = {called[name]: value for name, value in answer.values.items()}
    truth = {called[name]: labels[name] for name in called if name in labels}
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
    """Figure of the scan with its background, and of what its parts and the elements push the answer for a target by.

    Where only one of pattern and formula was given there is nothing to weigh, and the scan alone is drawn.  Raises
    ValueError without a pattern.
    """
    sample = answer.sample
    if "xrd" not in sample.modalities:
        raise ValueError("this view is of a pattern: give one")
    if len(sample.modalities) < 2:
        return views.reasons(sample.pattern, sample.conditioned, title=answer.title)
    member, index, scale = predictor.ensemble.answering(target)[0], None, 1.0
    what, quantity = TARGETS[target].title, TARGETS[target].unit
    if TARGETS[target].kind == "classification":
        first = next(iter(answer.probabilities[target]))
        index, what, quantity = TARGETS[target].classes.index(first), f"{what} {first}", "logit"
    else:
        scale = member.normalisers[target].std
    points, elements, _ = explain.attribution(member.model, batch_of(sample), target, index)
    shares = ", ".join(f"{name} {scale * share:+.2f}" for name, share in zip(sample.elements, elements))
    pushes = (
        f"What pushes {what} up and down ({quantity}): {shares}; the pattern {scale * points.sum():+.2f}, by its parts:"
    )
    return views.reasons(sample.pattern, sample.conditioned, scale * points, pushes, quantity, answer.title)


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
    anode: str = ""  # of the tube, "" = as the file says
    formula: str = ""  # "" = not known
    elements: str = ""  # all that may be in it, "Na Cl", where the formula is not known; "" = nothing known
    view: str = VIEWS[0]
    hidden: tuple[int, ...] = ()  # parts of the pattern, from 1, that the model is to reconstruct
    target: str = ""  # whose reasons are shown, "" = first_reasons


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is seen of a Choice."""

    text: str  # sentences; why not, where it is not answered
    picture: bytes = b""  # PNG, of the view; in the first one the scan, with the reasons of the answer
    bars: bytes = b""  # PNG of the answer; of the first view
    answered: bool = False
    candidates: tuple[Candidate, ...] = ()  # of the first view
    chosen: int = 0  # which of them is seen first


def look(predictor: Predictor, choice: Choice, dataset: Dataset | None = None) -> Seen:
    """What is Seen of a Choice.

    dataset: crystals that are chosen from; those that the checkpoint brings along where None.
    """
    dataset = predictor.unseen if dataset is None else dataset
    try:
        sample, elements, labels = _chosen(choice, dataset, predictor.ensemble.targets)
        if choice.view == VIEWS[0]:
            return _whole(predictor, choice, sample, elements, labels)
        answer = predictor.answer([sample])[0]
        figure = {
            "hidden parts": lambda: see_reconstruction(predictor, answer, choice.hidden),
            "attention": lambda: see_attention(predictor, answer),
            "similar training crystals": lambda: see_neighbours(predictor, answer),
        }[choice.view]()
        text = f"{answer.title}: {ABOUT[choice.view]}"
        return Seen(text=text, picture=png(figure), answered=True)
    except Exception as error:  # whatever it is, who looks reads a sentence
        return Seen(text=in_terms_of(reason(error), CONTROLS))


ABOUT = {  # the views that are of one figure
    "hidden parts": "what a model makes of the parts of the pattern that you hide from it.",
    "attention": "how much each part of the pattern attends to each element, inside the model.",
    "similar training crystals": "the crystals of training that the model takes for most like it.",
}


def _whole(predictor, choice, sample, elements, labels):
    """What is Seen of the first view: the scan, the answer with its reasons, the known crystals; each, if it can be."""
    answer, seen, lines = None, {}, []
    picture, known = views.reasons(sample.pattern, sample.conditioned), predictor.known or KnownCrystals.load()
    try:
        answer = predictor.answer([sample])[0]
    except ValueError as error:  # a refusal; known crystals may explain the scan all the same
        lines += [reason(error), *(f"  ! {warning}" for warning in sample.warnings)]
    else:
        lines.append(str(replace(answer, explanation=None)))  # whose candidates the list has
        seen["bars"] = png(see_answer(predictor, answer, labels), False)
        try:
            picture = see_attribution(predictor, answer, choice.target or first_reasons(predictor))
        except ValueError as error:
            lines.append(f"  no reasons: {reason(error)}")
    try:
        explanation = None if answer is None or elements is not None else answer.explanation
        second = (None, 0.0) if answer is None else answer.second
        if explanation is None:
            explanation = known.explain(sample, elements=elements)
        seen["candidates"], seen["chosen"] = candidates_of(explanation, second)
    except ValueError as error:
        lines.append(f"  no known crystals: {reason(error)}")
    text = in_terms_of("\n".join(lines), CONTROLS)
    return Seen(text=text, picture=png(picture, False), answered=answer is not None, **seen)


def first_reasons(predictor: Predictor) -> str:
    """The target whose reasons are shown first: the crystal system, which the pattern says most of."""
    return max(predictor.ensemble.targets, key=lambda name: name == "crystal_system")


def _chosen(choice, dataset, targets):
    """The Sample of a Choice, the atomic numbers of its elements, and the truth by target, which a crystal with another
    formula does not have."""
    formula, elements = choice.formula.strip() or None, None
    if choice.elements.strip():
        if formula:
            raise ValueError("a formula and elements were given: leave one of the two empty")
        elements = elements_of(choice.elements)
    if choice.crystal is not None:
        row = choice.crystal
        own = str(dataset.column("formula")[row])
        sample = sample_of(formula, patterns_of(dataset, [row])[0])
        labels = {name: dataset.labels[name][row] for name in targets} if formula in (None, own) else {}
        labels = {name: value for name, value in labels.items() if np.isfinite(value)}
        return replace(sample, name=str(dataset.column("id")[row])), elements, labels
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
        return sample_of(formula, path, choice.anode or None, int(number) if number else None), elements, {}


def elements_of(words: str) -> list[int]:
    """Atomic numbers of "Na, Cl" or "Na Cl"; raises ValueError where one is no element."""
    try:
        return sorted({atomic_number(symbol) for symbol in re.split(r"[\s,;]+", words.strip()) if symbol})
    except (KeyError, ValueError):
        raise ValueError(f"{words!r} is no list of elements: write their symbols, Na Cl O") from None


def crystals_of(dataset: Dataset, rows: Iterable[int]) -> list[tuple[str, int]]:
    """(formula and id, row) of crystals to choose from."""
    formulas, ids = dataset.column("formula")[rows], dataset.column("id")[rows]
    return [(f"{formula}  {id}", int(row)) for formula, id, row in zip(formulas, ids, rows)]


def _needs_both(answer):
    if len(answer.sample.modalities) < 2:
        raise ValueError("this view relates a composition to a pattern: give both")
