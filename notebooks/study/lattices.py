"""How often do the lines of a pattern tell its Bravais lattice, with no crystal known and nothing trained on?

    PYTHONPATH=notebooks .venv/bin/python -m study.lattices fit
    PYTHONPATH=notebooks .venv/bin/python -m study.lattices judge

fit: fits by training crystals of mp36k how probable a lattice is from the cells that the lines have, into lattices.json
of the library that is shipped.  judge: says how often that is right on `val`, and on `test`, in lattices.csv.
Cost: 0.5 s a pattern; a killed command goes on where it was.
"""

import argparse
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from study.archive import RESULTS
from study.asking import DATASET, dataset, observed
from xxlib import PROJECT
from xxlib.candidates import lattices
from xxlib.candidates.cells import LATTICES, lattices_of
from xxlib.candidates.indexing import index
from xxlib.candidates.known import DEFAULT, find
from xxlib.candidates.observed import KINDS
from xxlib.datasets.batches import CPU
from xxlib.training.machine import commit, hardware

EFFECTS = {"ideal": None, "scan": "laboratory"}  # of the patterns of a kind
N = {"ideal": {"train": 1200, "val": 600, "test": 600}, "scan": {"train": 900, "val": 300, "test": 300}}  # crystals
SEEDS = {"train": 7, "val": 0, "test": 0}  # with the last two those are asked that asking.answers asks for
SAVED = 50  # crystals between two writes


def rows(split, kind):
    """Rows of the crystals of a split that are asked for by patterns of a kind."""
    return np.random.default_rng(SEEDS[split]).permutation(dataset().indices(split))[: N[kind][split]]


def cells(chosen, effects, folder):
    """For each of some rows of the dataset the Cells of its lines, a list; kept in a folder as they come."""
    path = folder / f"cells-{effects or 'ideal'}.pkl"
    found = pickle.loads(path.read_bytes()) if path.exists() else {}
    missing = [int(row) for row in chosen if int(row) not in found]
    folder.mkdir(parents=True, exist_ok=True)
    for k, row in enumerate(tqdm(missing, desc=f"cells, {effects or 'ideal'}", unit="pattern", disable=None), 1):
        found[row] = index(observed(dataset(), row, effects)[0])
        if k % SAVED == 0 or k == len(missing):
            part = path.with_suffix(".part")
            part.write_bytes(pickle.dumps(found))
            part.rename(path)
    return [found[int(row)] for row in chosen]


def true_of(chosen):
    """Places in LATTICES of the lattices of some rows."""
    return lattices_of()[dataset().labels["space_group"][chosen].astype(int) + 1]


def probabilities(found, ranking):
    """Of lattices (n, 14), from Cells; all alike where a pattern has none."""
    alike = np.full(len(LATTICES), 1 / len(LATTICES))
    return np.array([lattices.probabilities(one, ranking) if one else alike for one in found])


def fit(folder):
    """The rankings, fitted on training crystals: a name of observed.KINDS -> Ranking."""
    rankings = {}
    for kind in KINDS:
        chosen = rows("train", kind)
        found = cells(chosen, EFFECTS[kind], folder)
        rankings[kind] = lattices.fit([(one, true) for one, true in zip(found, true_of(chosen)) if one])
    return rankings


def judge(rankings, folder):
    """A row a split and kind of patterns: how often lattice and crystal family are right, in %.

    A family has all systems of its lattices: trigonal and hexagonal are one.  surest 70 %: of the most probable.
    """
    table = []
    for split in ("val", "test"):
        for kind in KINDS:
            chosen = rows(split, kind)
            shares = probabilities(cells(chosen, EFFECTS[kind], folder), rankings[kind])
            said, true = shares.argmax(1), true_of(chosen)
            right = said == true
            families = np.array([lattice[0] for lattice in LATTICES])
            family = families[said] == families[true]
            surest = np.argsort(-shares.max(1), kind="stable")[: round(0.7 * len(chosen))]
            table.append(
                {"dataset": Path(DATASET).name, "split": split, "patterns": EFFECTS[kind] or "ideal", "n": len(chosen)}
                | {"crystal family (%)": 100 * family.mean(), "lattice (%)": 100 * right.mean()}
                | {"surest 70 %: crystal family (%)": 100 * family[surest].mean()}
                | {"surest 70 %: lattice (%)": 100 * right[surest].mean()}
                | {"seed": SEEDS[split], "commit": commit(), "hardware": hardware(CPU, 1)}
            )  # fmt: skip
    return pd.DataFrame(table)


def main():
    parser = argparse.ArgumentParser(prog="python -m study.lattices", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("fit", "judge"))
    parser.add_argument(
        "--kept", type=Path, default=PROJECT / "build" / "known_crystals", help="folder of what was found"
    )
    arguments = parser.parse_args()
    if arguments.what == "fit":
        lattices.write_lattices(find(DEFAULT), fit(arguments.kept))
    else:
        rankings = lattices.read_lattices(find(DEFAULT) / lattices.FILE)
        table = judge(rankings, arguments.kept)
        table.to_csv(RESULTS / "lattices.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
