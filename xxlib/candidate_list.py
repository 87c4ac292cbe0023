"""Known crystals that explain a sample, as a list to choose from: each in words, with its picture and its CIF file."""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from xxlib.candidates.explanation import CELL, SAME_PLACE, Explanation
from xxlib.crystals.compositions import reduced_formula
from xxlib.plots import views
from xxlib.plots.style import png

LISTED = 6  # candidates at most
COLUMNS = ("probability", "known crystal", "space group", "cell (Å)", "score")  # of the list


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
        phases.append((_formula(one.crystal(place)), one.pattern(place), one.two_theta(place)))
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
        return png(see_candidate(self.explanation, self.rank, self.second, title))

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
    explanation: Explanation, second: tuple[Explanation | None, float] = (None, 0.0)
) -> tuple[tuple[Candidate, ...], int]:
    """The Candidates (k,) of an Explanation, the likeliest first, and the place of the row that is likeliest.

    second: the Explanation of the lines that the first one leaves, and its share of the intensity.
    """
    doubts = [f"! {sentence}" for sentence in explanation.notes]
    if len(explanation) > LISTED:
        more = explanation.probabilities[LISTED:]
        doubts.append(f"{len(more)} more candidates, with {more.sum():.1%} together, are not listed.")
    table, rows = explanation.table().head(LISTED), []
    for rank, one in enumerate(table.to_dict("records"), 1):
        rest, share = second if rank == 1 else (None, 0.0)
        row, exchange = _row(one), one["exchange"].replace("->", "→")
        said = [
            f"{row[1]} of {one['source']}{f', {exchange}' if exchange else ''} ({explanation.setting})",
            f"{row[2]}, {one['crystal_system']}; {cell_in_words(one)}; {one['volume_per_atom']:.2f} Å³ an atom",
            f"lines: {one['lines_explained']} explained, {one['lines_unexplained']} unexplained, "
            f"{one['lines_absent']} calculated and absent",
        ]
        if rest is not None:
            other = rest.table().iloc[0]
            said.append(
                f"What it leaves is explained by {other.known_formula} ({other.id}), {share:.0%} of the intensity."
            )
        file = re.sub(r"[^\w.-]+", "_", f"{_formula(explanation.crystal(rank))}_{one['id']}") + ".cif"
        given = {"explanation": explanation, "rank": rank, "second": rest, "file": file}
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
