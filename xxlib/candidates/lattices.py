"""How probable each Bravais lattice is by the cells that explain the lines of a pattern, as a small model says, fitted
where the lattice is known.

lattices.json   for ideal patterns and for scans: weights of a ranking.Ranking
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from xxlib.candidates.cells import FAMILIES, LATTICES, POINTS
from xxlib.candidates.indexing import index
from xxlib.candidates.library import LibraryError
from xxlib.candidates.observed import KINDS
from xxlib.candidates.ranking import Ranking
from xxlib.candidates.symmetry import FREE
from xxlib.datasets.writing import write_atomically

FILE = "lattices.json"
KNOTS = (0.0, 2.0, 5.0, 10.0, 20.0)  # of how far a cell is behind the best: its weight is linear in pieces
FARTHEST = 40.0
GAINS = (-20.0, -5.0, 0.0, 3.0, 8.0, 20.0)  # likewise of what it gains over those of fewer parameters
FEATURES = (
    "found", *(f"behind above {knot:g}" for knot in KNOTS), *(f"gain above {knot:g}" for knot in GAINS),
    "lines unexplained", "volume", "evidence a line", "evidence a line by parameters", "lines by parameters", *LATTICES,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Indexed:
    """The lattice of a sample, as its lines have it."""

    cells: list  # the best Cell of each lattice that has one
    probabilities: np.ndarray  # (14,) of LATTICES

    def table(self):
        """A DataFrame of the cells, the likeliest lattice first."""
        rows = []
        for cell in sorted(self.cells, key=lambda cell: -self.probabilities[LATTICES.index(cell.lattice)]):
            rows.append(
                {"lattice": cell.lattice, "probability": float(self.probabilities[LATTICES.index(cell.lattice)])}
            )
            rows[-1] |= dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), map(float, cell.cell)))
            rows[-1] |= {"volume": float(cell.volume), "lines_explained": cell.explained, "lines": cell.lines}
            rows[-1] |= {"evidence": float(cell.evidence), "shift": float(cell.shift)}
        table = pd.DataFrame(rows)
        units = dict.fromkeys("abc", "angstrom") | dict.fromkeys(("alpha", "beta", "gamma"), "degree")
        table.attrs["units"] = units | {"volume": "angstrom^3", "evidence": "nat", "shift": "degree"}
        return table


def indexed(observed, rankings):
    """The Indexed of an Observed; None where it has too few lines.  rankings: a name of observed.KINDS -> Ranking."""
    cells = index(observed)
    if not cells:
        return None
    return Indexed(cells, probabilities(cells, rankings[observed.kind]))


def probabilities(cells, ranking):
    """Of the lattices (14,), from the Cells of those that have one."""
    shares, _ = ranking.probabilities(features(cells), NONE)
    return shares / shares.sum()


NONE = np.ones(1)  # its feature: one of the lattices it is, always


def features(cells):
    """Features (14, F) of the lattices, from the Cells of those that have one."""
    found = {cell.lattice: cell for cell in cells}
    best, n_lines = max(cell.evidence for cell in cells), cells[0].lines
    table = np.zeros((len(LATTICES), len(FEATURES)))
    for row, lattice in zip(table, LATTICES):
        cell, n_free = found.get(lattice), len(FREE[FAMILIES[lattice[0]]])
        behind = FARTHEST if cell is None else min(best - cell.evidence, FARTHEST)
        own = [cell is not None, *(max(behind - knot, 0) for knot in KNOTS)]
        simpler = max((one.evidence for one in cells if len(FREE[FAMILIES[one.lattice[0]]]) < n_free), default=0.0)
        gain = 0.0 if cell is None else np.clip(cell.evidence - max(simpler, 0.0), -FARTHEST, FARTHEST)
        own += [0.0 if cell is None else max(gain - knot, 0) for knot in GAINS]
        own += [1.0, 0.0] if cell is None else [1 - cell.explained / n_lines, np.log(cell.volume / POINTS[lattice[1]])]
        rate = 0.0 if cell is None else max(cell.evidence, 0) / n_lines
        own += [rate, rate * n_free, np.log(n_lines) * n_free]
        row[: len(own)] = own
        row[len(own) + LATTICES.index(lattice)] = 1.0
    return table


def fit(samples):
    """A Ranking from (cells, place of the true lattice in LATTICES) of samples whose lattice is known."""
    places = np.arange(len(LATTICES))
    return Ranking.fit([(features(cells), NONE, places == true) for cells, true in samples])


def write_lattices(folder, rankings):
    """lattices.json of a library's folder."""
    values = {"features": FEATURES} | {kind: asdict(ranking) for kind, ranking in rankings.items()}
    write_atomically(Path(folder) / FILE, (json.dumps(values, indent=1) + "\n").encode())


def read_lattices(path):
    """A name of observed.KINDS -> Ranking; raises LibraryError where the file is damaged or of another version."""
    try:
        values = json.loads(Path(path).read_text())
        rankings = {kind: Ranking(**{k: tuple(map(float, v)) for k, v in values[kind].items()}) for kind in KINDS}
        sizes = {(len(ranking.weights), len(ranking.none_weights)) for ranking in rankings.values()}
        numbers = [x for ranking in rankings.values() for x in ranking.weights + ranking.none_weights]
        if tuple(values["features"]) != FEATURES or sizes != {(len(FEATURES), 1)} or not np.isfinite(numbers).all():
            raise ValueError("it goes by other features")
        return rankings
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LibraryError(f"{path} does not say how lattices are ranked ({error}): get the library anew") from error
