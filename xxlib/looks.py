"""What is seen of a sample: the figures of a model and of known crystals, and of a choice at controls all of it.

A notebook calls the see_* functions; the controls of widgets.py and the page of serve.py call look().
"""

import io
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from xxlib.answering import explain
from xxlib.answering.answer import SampleAnswer, in_terms_of, reason
from xxlib.answering.calibration import LEVEL
from xxlib.answering.phases import ALWAYS, EXPLAINED, UNEXPLAINED
from xxlib.answering.predictor import Predictor, batch_of
from xxlib.answering.questions import sample_of
from xxlib.candidates.explanation import CELL, SAME_PLACE, Explanation
from xxlib.candidates.known import KnownCrystals
from xxlib.crystals.compositions import reduced_formula
from xxlib.crystals.elements import atomic_number
from xxlib.datasets.batches import make_batch
from xxlib.datasets.store import Dataset
from xxlib.datasets.targets import TARGETS
from xxlib.diffraction.patterns import N_TOKENS, unpatchify
from xxlib.diffraction.scattering import sticks
from xxlib.plots import views
from xxlib.scans.reading import MAX_BYTES
from xxlib.scans.samples import Sample

VIEWS = ("answer", "hidden parts", "attention", "similar training crystals")
CONTROLS = {"scan": "the control `scan number`", "anode": "the control `anode`"}  # Python's arguments, as called here
LISTED = 6  # candidates at most
DOTS = 110  # an inch, of pictures that are seen on a screen
COLUMNS = ("probability", "known crystal", "space group", "cell (Å)", "score")  # of the list of candidates


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


def see_candidate(
    explanation: Explanation, rank: int = 1, second: Explanation | None = None, title: str = ""
) -> Figure:
    """Figure of a scan and of what a known crystal explains of it.

    explanation: an Explanation.  rank: of the candidate, from 1; 0 = none of them.  second: the Explanation of the
    lines that the candidate leaves, whose first is drawn beside it; None = nothing is known of these.
    """
    observed, phases = explanation.observed, []
    if not rank:
        return views.candidate(observed.root**2, observed.measured, phases, observed.two_theta, title=title)
    for one, place in ((explanation, rank), *([] if second is None else [(second, 1)])):
        crystal, shift = one.crystal(place), one.matches.shifts[one.order[place - 1]]
        phases.append((_formula(crystal), one.pattern(place), sticks(crystal).two_theta + shift))
    unexplained = explanation.unexplained(rank)
    if second is not None:
        others = np.setdiff1d(second.observed.two_theta, second.unexplained(1))
        near = np.abs(unexplained[:, None] - others) < SAME_PLACE
        unexplained = unexplained[~near.any(1)]
    return views.candidate(observed.root**2, observed.measured, phases, unexplained, explanation.absent(rank), title)


def _formula(crystal):
    numbers, counts = np.unique(crystal.atomic_numbers, return_counts=True)
    return reduced_formula(numbers, counts / counts.sum())


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A row in the list of known crystals, and what is seen when it is chosen; the last one is "none of these"."""

    row: tuple[str, ...]  # by COLUMNS
    text: str  # sentences
    explanation: Explanation
    rank: int  # in it, from 1; 0 = none of these
    second: Explanation | None = None  # of the lines that it leaves
    file: str = ""  # name of a CIF file, "" = there is none

    @cached_property
    def picture(self) -> bytes:
        """PNG of the scan and what the crystal explains of it."""
        title = f"{self.row[1]}, {self.row[2]}" if self.rank else "none of the known crystals"
        return _png(see_candidate(self.explanation, self.rank, self.second, title))

    @cached_property
    def cif(self) -> str:
        """What the file holds, "" where there is none."""
        return self.explanation.cif(self.rank) if self.rank else ""


def see_list(explanation: Explanation, most: int = LISTED) -> pd.DataFrame:
    """The first candidates of an Explanation, in words: by COLUMNS, and the exchange of elements."""
    table = explanation.table().head(most)
    rows = [dict(zip(COLUMNS, _row(one))) for one in table.to_dict("records")]
    shown = pd.DataFrame(rows, columns=COLUMNS)
    shown.insert(2, "exchange", [words.replace("->", "→") for words in table.get("exchange", ())])
    return shown


def _row(one):
    """A row of Explanation.table() in words, by COLUMNS."""
    known = f"{one['known_formula']} ({one['id']})"
    return f"{one['probability']:.1%}", known, _symbol(one["space_group"]), lengths_in_words(one), f"{one['score']:.3f}"


def candidates_of(
    known: KnownCrystals, sample: Sample, explanation: Explanation | None = None, elements: list[int] | None = None
) -> tuple[tuple[Candidate, ...], int]:
    """The Candidates (k,) of a Sample, the likeliest first, and the place of the row that is likeliest.

    known: the KnownCrystals.  explanation: theirs of the sample; it is made where None.  elements: atomic numbers of
    all that may be in the sample, where its formula is not known.
    Raises NothingToExplain, a ValueError, where the pattern has too few lines.
    """
    if explanation is None:
        explanation = known.explain(sample, elements=elements)
    doubts = [f"! {sentence}" for sentence in explanation.notes]
    if len(explanation) > LISTED:
        more = explanation.probabilities[LISTED:]
        doubts.append(f"{len(more)} more candidates, with {more.sum():.1%} together, are not listed.")
    table, rows = explanation.table().head(LISTED), []
    if len(sample.element_ids):
        elements = sample.element_ids.tolist()
    for rank, one in enumerate(table.to_dict("records"), 1):
        second, share = None, 0.0
        if rank == 1 and elements and explanation.none < UNEXPLAINED:  # among all known crystals it takes too long
            second, share = known.second_phase(explanation, [*elements, *ALWAYS])
            second = None if second is None or second.none > EXPLAINED else second
        row, exchange = _row(one), one["exchange"].replace("->", "→")
        said = [
            f"{row[1]} of {one['source']}{f', {exchange}' if exchange else ''} ({explanation.setting})",
            f"{row[2]}, {one['crystal_system']}; {cell_in_words(one)}; {one['volume_per_atom']:.2f} Å³ an atom",
            f"lines: {one['lines_explained']} explained, {one['lines_unexplained']} unexplained, "
            f"{one['lines_absent']} calculated and absent",
        ]
        if second is not None:
            other = second.table().iloc[0]
            said.append(
                f"What it leaves is explained by {other.known_formula} ({other.id}), {share:.0%} of the intensity."
            )
        file = re.sub(r"[^\w.-]+", "_", f"{_formula(explanation.crystal(rank))}_{one['id']}") + ".cif"
        given = {"explanation": explanation, "rank": rank, "second": second, "file": file}
        rows.append(Candidate(row=row, text="\n".join(said + doubts), **given))
    said = [f"{explanation.none:.0%} that none of the known crystals is right ({explanation.setting})", ADVICE]
    row = (f"{explanation.none:.1%}", "none of these", *[""] * (len(COLUMNS) - 2))
    rows.append(Candidate(row=row, text="\n".join(said + doubts), explanation=explanation, rank=0))
    return tuple(rows), int(np.argmax([*table.get("probability", ()), explanation.none]))


ADVICE = (
    "If none is right: check the formula and the anode; with elements instead of a formula every compound of them is "
    "tried, with neither all known crystals; a crystal of your own is found when it is in the library (xxlib library)."
)


def _symbol(number):
    """A space group by symbol and number: "Fm-3m (225)"."""
    from pymatgen.symmetry.groups import sg_symbol_from_int_number

    return f"{sg_symbol_from_int_number(number)} ({number})"


def cell_in_words(one: dict) -> str:
    """The cell of a row of Explanation.table(), without what symmetry fixes: "a 5.6407(6)"; "a 4.95(1) β 99.2(1)"."""
    said = []
    for name, letter in zip(CELL, "abcαβγ"):
        value, error = one[name], one[f"{name}_error"]
        equal = name in "bc" and abs(value / one["a"] - 1) < 1e-6
        fixed = name not in "abc" and min(abs(value - 90), abs(value - 120)) < 1e-6
        if not equal and not fixed:
            said.append(f"{letter} {with_error(value, error)}")
    return " ".join(said)


def lengths_in_words(one: dict) -> str:
    """The lengths of a cell that differ: "5.6407(6)"; "4.95(1) 5.01(1) 6.33(2)"."""
    return re.sub(r"[abc] ", "", re.split(" ?[αβγ]", cell_in_words(one))[0])


def with_error(value: float, error: float) -> str:
    """A number with its standard deviation in units of the last digit: "5.6407(6)"."""
    if not 0 < error < np.inf:
        return f"{value:.4f}"
    digits = min(max(-int(f"{error:.0e}".partition("e")[2]), 0), 6)
    return f"{value:.{digits}f}({max(1, round(error * 10**digits))})"


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
        return Seen(text=text, picture=_png(figure), answered=True)
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
        seen["bars"] = _png(see_answer(predictor, answer, labels), False)
        try:
            picture = see_attribution(predictor, answer, choice.target or first_reasons(predictor))
        except ValueError as error:
            lines.append(f"  no reasons: {reason(error)}")
    try:
        explanation = None if answer is None else answer.explanation
        seen["candidates"], seen["chosen"] = candidates_of(known, sample, explanation, elements)
    except ValueError as error:
        lines.append(f"  no known crystals: {reason(error)}")
    text = in_terms_of("\n".join(lines), CONTROLS)
    return Seen(text=text, picture=_png(picture, False), answered=answer is not None, **seen)


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


def _png(figure, title=True):
    if not title and figure._suptitle:  # which stands beside the picture
        figure._suptitle.set(visible=False, in_layout=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DOTS)
    return buffer.getvalue()


def _needs_both(answer):
    if len(answer.sample.modalities) < 2:
        raise ValueError("this view relates a composition to a pattern: give both")
