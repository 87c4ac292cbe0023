"""What known crystals say of a sample: candidates with their probabilities, as a table and as structures."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from xxlib.candidates.exchange import exchanges, joined
from xxlib.candidates.fingerprints import likeliest
from xxlib.candidates.ranking import features
from xxlib.candidates.search import search, structure
from xxlib.candidates.standard import cell_of
from xxlib.candidates.stoichiometries import whole_amounts
from xxlib.crystals.crystal import crystal_system
from xxlib.crystals.elements import symbol
from xxlib.diffraction.patterns import TWO_THETA
from xxlib.diffraction.scattering import sticks

# A search that only asks whether something explains a scan.  On `val` 99 % of what does (none < 0.3) agrees by 0.76 or
# more before its atoms are refined; what does not is what takes long.
IN_BRIEF = {"fitted": 200, "least": 0.75}
MOST_KNOWN = 1500  # crystals whose scale is looked for, when elements or nothing are known
LEAST_LINES = 4  # of a pattern: with fewer nothing can be told apart
SAME_PLACE = 0.15  # degree: a line observed there is that of a candidate
SHARE = 0.25  # of the height of a line, that is enough to call it explained
ABSENT = 5.0  # of 100: a calculated line of this height should be seen
SAME_VOLUME, SAME_PATTERN = 0.005, 0.995  # of ln; cosine of the roots: candidates that came to be one crystal
SECOND = 0.03  # of the intensity, that must be left for a second phase to be looked for
WORDS = {"composition": "formula known", "elements": "elements known", "": "nothing known"}
UNKNOWN = "{}, formula unknown"  # kind of such a question, after that of the pattern


class NothingToExplain(ValueError):
    """A pattern of which no crystal can be told; the message says why."""


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """The candidates for one sample, the likeliest first."""

    library: object  # Library
    observed: object  # Observed
    matches: object  # Matches
    order: np.ndarray  # (k,) of the matches, the likeliest first
    probabilities: np.ndarray  # (k,) in that order
    none: float  # probability that none of them is right
    evidence: tuple  # what the ranking went by: ranking.features of the matches
    setting: str  # what was known: one of WORDS
    notes: tuple[str, ...] = ()  # plain sentences
    indexed: object = None  # lattices.Indexed: cells that the lines have by themselves, where they were asked

    def __len__(self):
        return len(self.order)

    def __repr__(self):
        first = f", first {self.table().known_formula[0]}" if len(self) else ""
        return f"Explanation({len(self)} candidates, {self.setting}{first}, none of them: {self.none:.0%})"

    @property
    def kind(self):
        """By which ranking: that of its kind of pattern, for a formula known or not."""
        return self.observed.kind if self.setting == WORDS["composition"] else UNKNOWN.format(self.observed.kind)

    def space_groups(self):
        """Probability of each space group by its number, without "none of these"."""
        numbers = self.matches.space_groups[self.order]
        return {int(n): float(self.probabilities[numbers == n].sum()) for n in dict.fromkeys(numbers.tolist())}

    def crystal(self, rank=1):
        """The Crystal of a candidate by its rank, from 1: elements exchanged, cell and atoms refined."""
        c, m = self._place(rank), self.matches
        return structure(self.library, m.crystals[c], m.before[c], m.after[c], m.metrics[c], m.frac_coords[c])

    def structure(self, rank=1):
        """The pymatgen Structure of a candidate by its rank, from 1."""
        from pymatgen.core import Structure

        crystal = self.crystal(rank)
        return Structure(crystal.lattice, crystal.atomic_numbers.tolist(), crystal.frac_coords)

    def cif(self, rank=1, path=None):
        """The CIF text of a candidate by its rank, from 1; written to a file where path is given."""
        from pymatgen.io.cif import CifWriter

        text = str(CifWriter(self.structure(rank), symprec=0.01))
        if path is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return text

    def _place(self, rank):
        if not 1 <= rank <= len(self):
            raise ValueError(f"there is no candidate {rank}: they are numbered 1 to {len(self)}")
        return self.order[rank - 1]

    def two_theta(self, rank=1):
        """2 theta (n,) in degree of the lines of a candidate (Cu K-alpha), shifted as the scan is."""
        return sticks(self.crystal(rank)).two_theta + self.matches.shifts[self._place(rank)]

    def pattern(self, rank=1):
        """The calculated pattern (4250,) of a candidate, on the scale of the one observed."""
        return self.matches.patterns[self._place(rank)]

    @cached_property
    def lines(self):
        """For each candidate (k, 3): how many lines are explained, unexplained, and absent."""
        return np.array([lines_of_match(self.observed, self.matches.patterns[c]) for c in self.order]).reshape(-1, 3)

    def unexplained(self, rank=1):
        """2 theta (p,) in degree of observed lines that a candidate does not have."""
        explained, _ = _explained(self.observed, self.pattern(rank))
        return self.observed.two_theta[~explained]

    def absent(self, rank=1):
        """2 theta (p,) in degree of lines that a candidate should have and the scan has not."""
        return _explained(self.observed, self.pattern(rank))[1]

    def table(self):
        """A DataFrame of the candidates; units are in .attrs["units"]."""
        m, rows = self.matches, []
        for rank, (c, p) in enumerate(zip(self.order, self.probabilities), 1):
            cell, errors = cell_with_errors(m.metrics[c], m.errors[c])
            rows.append(
                {
                    "rank": rank,
                    "probability": float(p),
                    "known_formula": self.library.formula(m.crystals[c]),
                    "id": self.library.ids[int(m.crystals[c])].as_py(),
                    "exchange": exchange_in_words(m.before[c], m.after[c]),
                    "space_group": int(m.space_groups[c]),
                    "crystal_system": crystal_system(int(m.space_groups[c])),
                    **{name: float(x) for name, x in zip(CELL, cell)},
                    **{f"{name}_error": float(x) for name, x in zip(CELL, errors)},
                    "volume_per_atom": float(m.volumes[c]),
                    "score": float(m.scores[c]),
                    **dict(
                        zip(("lines_explained", "lines_unexplained", "lines_absent"), map(int, self.lines[rank - 1]))
                    ),
                    "source": self.library.source(m.crystals[c]),
                }
            )
        table = pd.DataFrame(rows)
        angstrom = dict.fromkeys(("a", "b", "c"), "angstrom") | dict.fromkeys(("alpha", "beta", "gamma"), "degree")
        table.attrs["units"] = angstrom | {f"{name}_error": unit for name, unit in angstrom.items()}
        table.attrs["units"] |= {"volume_per_atom": "angstrom^3"}
        table.attrs |= {"none_of_these": self.none, "setting": self.setting, "notes": self.notes}
        return table


LINES = ("lines_explained", "lines_unexplained", "lines_absent")
CELL = ("a", "b", "c", "alpha", "beta", "gamma")


def explain(
    library, ranking, observed, *, composition=None, elements=None, prints=None, hidden=None, in_brief=False
):  # fmt: skip
    """The Explanation of an Observed pattern.

    ranking: a Ranking.  composition: (element_ids, fractions), or None; elements: atomic numbers of all that may be in
    the sample, or None.  prints: fingerprints(library), needed where the composition is not known.  hidden: (n,) bool,
    crystals of the library that are not seen.  in_brief: with fewer candidates, and none where none is likely.
    Raises NothingToExplain.
    """
    if len(observed.height) < LEAST_LINES:
        raise NothingToExplain(
            f"{len(observed.height)} lines stand out of the noise, which no crystal can be told from: measure longer, "
            "or over a wider range"
        )
    notes = ()
    if composition is not None:
        tried, notes = of_composition(library, *composition, hidden)
        setting = WORDS["composition"]
    else:
        among = np.arange(len(library)) if elements is None else library.within(elements)
        if hidden is not None:
            among = among[~hidden[among]]
        tried = likeliest(library, prints, observed, MOST_KNOWN, among)
        setting = WORDS["elements" if elements is not None else ""]
    matches = search(library, observed, tried, **(IN_BRIEF if in_brief else {}))
    known = library.space_groups[matches.crystals]
    evidence = features(matches, known, len(tried), len(observed.height))
    shares, none = ranking.probabilities(*evidence)
    order, shares = _merged(matches, shares)
    return Explanation(library, observed, matches, order, shares, none, evidence, setting, notes)


def _merged(matches, shares):
    """Places of the matches, the likeliest first, and their probabilities.

    Those that came to be one crystal count as one: the one of the least exchange.
    """
    roots = [np.sqrt(pattern) / max(np.sqrt(pattern.sum()), 1e-12) for pattern in matches.patterns]
    kept, total = [], []
    for c in np.lexsort((matches.n_coordinates, matches.costs)):
        for k, other in enumerate(kept):
            alike = matches.space_groups[c] == matches.space_groups[other]
            alike &= abs(np.log(matches.volumes[c] / matches.volumes[other])) < SAME_VOLUME
            if alike and roots[c] @ roots[other] > SAME_PATTERN:
                total[k] += shares[c]
                break
        else:
            kept.append(c)
            total.append(shares[c])
    order = np.argsort(-np.array(total), kind="stable")
    return np.array(kept, int)[order], np.array(total)[order]


def of_composition(library, element_ids, fractions, hidden=None):
    """(Exchanges, notes) of a composition: those of its whole amounts; of decimals, those of the nearest."""
    found, notes = [], []
    for amounts, elements, words in whole_amounts(element_ids, fractions):
        found.append(exchanges(library, amounts, elements, hidden=hidden))
        if words:
            notes.append(words)
    return joined(found), tuple(notes)


def second_phase(library, ranking, explanation, elements, prints, hidden=None):
    """The Explanation of what the first candidate leaves of a pattern, and its share of the intensity; None, 0.0 where
    little is left or nothing known explains it.

    elements: atomic numbers of all that may be in the sample.
    """
    observed, first = explanation.observed, explanation.pattern(1)
    rest = observed.without(first)
    total = (observed.root**2).sum()
    if (rest.root**2).sum() < SECOND * total or len(rest.height) < LEAST_LINES:
        return None, 0.0
    found = explain(library, ranking, rest, elements=elements, prints=prints, hidden=hidden, in_brief=True)
    if not len(found):
        return None, 0.0
    share = float(found.pattern(1).sum() / (first.sum() + found.pattern(1).sum()))
    return (found, share) if share > SECOND else (None, 0.0)


def _explained(observed, pattern):
    """Which observed lines a calculated pattern has (p,), and where calculated lines are that were not observed."""
    from scipy.signal import find_peaks

    reach = SAME_PLACE
    peaks, _ = find_peaks(pattern, prominence=0.02)
    angles, heights = TWO_THETA[peaks], pattern[peaks]
    near = np.abs(observed.two_theta[:, None] - angles) < reach  # (p, c)
    high_enough = heights >= SHARE * observed.height[:, None] ** 2
    explained = (near & high_enough).any(1)
    own = observed.root**2
    seen = np.array([own[max(0, i - 10) : i + 11].max() > SHARE * pattern[i] for i in peaks], bool)
    due = (heights > max(ABSENT / 100 * pattern.max(), 6 * observed.noise)) & observed.measured[peaks]
    return explained, angles[due & ~seen]


def lines_of_match(observed, pattern):
    """Numbers of lines explained, unexplained and absent."""
    explained, absent = _explained(observed, pattern)
    return int(explained.sum()), int((~explained).sum()), len(absent)


def exchange_in_words(before, after):
    """ "Ca -> Sr, Ti -> Zr"; "" where nothing is exchanged."""
    pairs = zip(before.tolist(), after.tolist())
    return ", ".join(f"{symbol(old)} -> {symbol(new)}" for old, new in pairs if old != new)


def cell_with_errors(metric, errors):
    """Cell (6,): a, b, c (angstrom), alpha, beta, gamma (degree), of a reciprocal metric, and standard deviations."""
    cell = cell_of(metric)
    squares = np.zeros(6)
    for i in np.flatnonzero(errors > 0):
        step = np.zeros(6)
        step[i] = errors[i]
        squares += (cell_of(metric + step) - cell) ** 2
    fixed = np.isin(cell, (90.0, 120.0))
    return cell, np.where(fixed, 0.0, np.sqrt(squares))
