"""A library with what ranks its candidates, as a folder: known crystals that a sample is explained by.

library.arrow   the crystals (library.py)
ranking.json    for ideal patterns and for scans, for a known formula and without: weights of ranking.Ranking
lattices.json   how probable the lattices are that the lines have, with no crystal known (lattices.py)
"""

import json
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from xxlib import PACKAGE, PROJECT
from xxlib.candidates.explanation import UNKNOWN, NothingToExplain, explain, second_phase
from xxlib.candidates.fingerprints import fingerprints
from xxlib.candidates.lattices import FILE as LATTICES
from xxlib.candidates.lattices import indexed, read_lattices
from xxlib.candidates.library import Library, LibraryError
from xxlib.candidates.observed import KINDS as OF_PATTERNS
from xxlib.candidates.observed import Observed
from xxlib.candidates.ranking import FEATURES, NONE_FEATURES, Ranking
from xxlib.datasets.writing import write_atomically

LIBRARIES = PROJECT / "data" / "libraries"
SHIPPED = PACKAGE / "libraries"  # those of data/libraries, where a wheel was installed
DEFAULT = "known"
RANKING = "ranking.json"
KINDS = (*OF_PATTERNS, *map(UNKNOWN.format, OF_PATTERNS))


class KnownCrystals:
    """Known crystals, and how probable each is as an explanation."""

    def __init__(self, library, rankings, lattices=None):
        """library: a Library.  rankings: a name of KINDS -> Ranking.  lattices: as lattices.read_lattices has them, or
        None: the lines alone are not asked."""
        self.library, self.rankings, self.lattices = library, rankings, lattices

    @classmethod
    def load(cls, source=DEFAULT):
        """Those of a library by its name in data/libraries, or by its folder; raises LibraryError."""
        folder = find(source)
        if folder is None:
            there = ", ".join(sorted(path.name for of in (LIBRARIES, SHIPPED) for path in of.glob("*/"))) or "none"
            raise LibraryError(f"there is no library {source}: here are {there}; `python -m xxlib.library` makes one")
        library = Library.open(folder)
        released = find(DEFAULT) or LIBRARIES / DEFAULT  # whose ranking is that of a library without one, too
        ranking, lattices = (
            next((of / name for of in (folder, released) if (of / name).is_file()), released / name)
            for name in (RANKING, LATTICES)
        )
        return cls(library, read_rankings(ranking), read_lattices(lattices))

    @cached_property
    def prints(self):
        """Fingerprints of the library, made when a formula is first not known: seconds for 100,000 crystals."""
        return fingerprints(self.library)

    def explain(self, sample, *, elements=None, hidden=None, in_brief=False):
        """The Explanation of a Sample.

        Its formula is used where it has one and elements is None.  elements: atomic numbers of all that may be in it.
        hidden: (n,) bool, crystals of the library that are not seen.  in_brief: only whether something explains it.
        Raises NothingToExplain where there is no pattern, or one of too few lines.
        """
        if "xrd" not in sample.modalities:
            raise NothingToExplain("known crystals are told by their lines: give a pattern")
        composition = (sample.element_ids, sample.fractions) if elements is None and len(sample.element_ids) else None
        return self.explain_observed(Observed.of_sample(sample), composition, elements, hidden, in_brief)

    def explain_observed(self, observed, composition=None, elements=None, hidden=None, in_brief=False):
        """The Explanation of an Observed; composition: (element_ids, fractions), or None."""
        kind, how = observed.kind, {"hidden": hidden, "in_brief": in_brief}
        if composition is not None:
            how["composition"] = composition
        else:
            kind, how = UNKNOWN.format(kind), how | {"elements": elements, "prints": self.prints}
        explanation = explain(self.library, self.rankings[kind], observed, **how)
        if in_brief or self.lattices is None:
            return explanation
        return replace(explanation, indexed=indexed(observed, self.lattices))

    def index(self, sample):
        """The Indexed of a Sample; raises NothingToExplain where it has no pattern, or one whose lines have no cell."""
        if "xrd" not in sample.modalities:
            raise NothingToExplain("a cell is told by its lines: give a pattern")
        found = indexed(Observed.of_sample(sample), self.lattices)
        if found is None:
            raise NothingToExplain(
                "too few lines stand out of the noise, or no cell has them: measure longer, or over a wider range"
            )
        return found

    def second_phase(self, explanation, elements, hidden=None):
        """(Explanation of what the first candidate leaves, share of the intensity), or (None, 0.0)."""
        ranking = self.rankings[UNKNOWN.format("scan")]
        return second_phase(self.library, ranking, explanation, elements, self.prints, hidden)


def find(source):
    """The folder of a library by its name in data/libraries, or by its path; None where there is none."""
    return next((path for path in (LIBRARIES / source, SHIPPED / source, Path(source)) if path.is_dir()), None)


def write_rankings(folder, rankings):
    """ranking.json of a library's folder."""
    values = {"features": FEATURES, "none_features": NONE_FEATURES}
    values |= {kind: asdict(ranking) for kind, ranking in rankings.items()}
    write_atomically(Path(folder) / RANKING, (json.dumps(values, indent=1) + "\n").encode())


def read_rankings(path):
    """Name of KINDS -> Ranking; raises LibraryError where the file is damaged or of another version."""
    try:
        values = json.loads(Path(path).read_text())
        if (tuple(values["features"]), tuple(values["none_features"])) != (FEATURES, NONE_FEATURES):
            raise ValueError("it ranks by other features")
        rankings = {kind: Ranking(**{k: tuple(map(float, v)) for k, v in values[kind].items()}) for kind in KINDS}
        for ranking in rankings.values():
            sizes = len(ranking.weights), len(ranking.none_weights)
            if (
                sizes != (len(FEATURES), len(NONE_FEATURES))
                or not np.isfinite(ranking.weights + ranking.none_weights).all()
            ):
                raise ValueError("its weights do not fit")
        return rankings
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LibraryError(f"{path} does not say how candidates are ranked ({error}): get the library anew") from error
