"""What can stand in for a crystal structure that is not known?  Known crystals that explain the pattern, elements
exchanged, cell and atoms refined, read by an encoder of structures: E_f of crystals of mp36k's `test`.

    PYTHONPATH=notebooks .venv/bin/python -m study.stand_ins

The formula of no crystal of val, test and experimental is in the library (asking.py: formula held out); patterns are
ideal.  The first MOST candidates of a crystal are read by runs of structures.py, and what these say is weighed by the
candidates' probabilities.  How far that is believed against a run that knows formula and pattern alone follows
from how sure it is that one of them is right, and from how well the two agree; both are fitted on `val`, then `test` is
asked once.  Answers are kept in build/known_crystals; killed, the command goes on where it was.
Cost: 1 s a crystal for its candidates.
"""

import argparse
import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, logit

from study import plus
from study.archive import RESULTS
from study.asking import DATASET, dataset, explanation_of, kept
from study.structures import APPROXIMATE, lines
from study.variants import variant
from xxlib import PROJECT
from xxlib.answering.inference import Ensemble, model_files
from xxlib.crystals.crystal import RejectedCrystal, check_cell
from xxlib.crystals.neighbours import check_nearest, neighbours
from xxlib.datasets.batches import CPU, MODALITIES
from xxlib.datasets.sources import Source, parsed
from xxlib.datasets.store import Dataset
from xxlib.datasets.targets import TARGETS
from xxlib.prepare import prepare
from xxlib.training.machine import commit, hardware
from xxlib.training.runs import RUNS

NAME = "stand_ins"
TARGET = "e_form"
SETTING = "formula held out"
MOST = 5  # candidates of a crystal
N = 600  # crystals of each split
SURE = 0.01  # probabilities are between this and 1 - this
SPREAD = 0.02  # eV/atom: smaller differences count as this
WEIGHTS = ("weight", "weight of sure", "weight of spread", "weight of disagreement")


# ---------------------------------------------------------------- candidates


def candidates(split, folder, workers=1, n=N):
    """What explains n crystals of a split: dicts of the row, the probability of "none of these", and the first MOST
    crystals with theirs."""
    rows = np.random.default_rng(0).permutation(dataset().indices(split))[:n].tolist()
    return kept(f"{split}-stand_ins", _candidates, rows, folder, workers)


def _candidates(rows):
    return [_of_row(row) for row in rows]


def _of_row(row):
    explanation, _ = explanation_of(row, SETTING)
    if explanation is None:
        return {"row": row, "none": 1.0, "crystals": [], "probabilities": []}
    n = min(MOST, len(explanation))
    return {
        "row": row, "none": explanation.none, "crystals": [explanation.crystal(rank + 1) for rank in range(n)],
        "probabilities": explanation.probabilities[:n].tolist(),
    }  # fmt: skip


def as_dataset(found, folder):
    """The candidates as a Dataset with structures, in a folder; those that a preparation refuses are not in it."""
    if not (folder / "dataset.json").exists():
        prepare(Source({"kind": "candidates", "name": SETTING}, partial(_records, found)), folder, structure=True)
    return Dataset(folder)


def _records(found):
    """Records of all candidates but those that no graph is made of: of absurd cells, with atoms upon each other."""
    for one in found:
        for rank, crystal in enumerate(one["crystals"]):
            try:
                check_cell(crystal.lattice)
                n_atoms = len(crystal.atomic_numbers)
                graph = neighbours(crystal.lattice[None], crystal.frac_coords, np.array([0, n_atoms]))
                check_nearest(crystal.atomic_numbers, graph.nearest)
            except RejectedCrystal:
                continue
            yield parsed(replace(crystal, id=f"{one['row']}-{rank}"), f"candidates of {one['row']}")


# ---------------------------------------------------------------- what they say


def said(found, candidates, ensemble):
    """What an Ensemble says of the candidates of crystals: one row a crystal of `found`.

    none: probability that none is right.  candidates: the mean by their probabilities, NaN where there are none.
    spread: the standard deviation among them, in the unit of the target.
    """
    rows = np.arange(len(candidates))
    reads = tuple(ensemble.config.model.modalities)
    values = pd.Series(ensemble.of_rows(candidates, rows, reads).values[TARGET], candidates.column("id")[:])
    table = []
    for one in found:
        names = [f"{one['row']}-{rank}" for rank in range(len(one["crystals"]))]
        there = np.array([name in values.index for name in names], bool)
        row = {"row": one["row"], "none": one["none"], "candidates": np.nan, "spread": np.nan}
        shares = np.array(one["probabilities"])[there]
        if shares.sum() > 0:
            of = values[[name for name, has in zip(names, there) if has]].to_numpy()
            row["candidates"] = np.average(of, weights=shares)
            row["spread"] = np.average((of - row["candidates"]) ** 2, weights=shares) ** 0.5
        table.append(row)
    return pd.DataFrame(table)


def believed(told, alone, weights):
    """What is said in all, (n,): `told`, of said(), is believed against what is said without it, (n,)."""
    off = (told["candidates"] - alone).abs().fillna(0)
    sure = logit((1 - told["none"]).clip(SURE, 1 - SURE))
    features = np.stack([np.ones(len(told)), sure, np.log(SPREAD + told["spread"].fillna(0)), np.log(SPREAD + off)])
    share = np.where(told["candidates"].isna(), 0, expit(np.array(weights) @ features))
    return alone + share * (told["candidates"].fillna(0) - alone)


def fitted(told, alone, true):
    """The weights of believed() with the least absolute error."""

    def error(weights):
        return np.abs(believed(told, alone, weights) - true).mean() + 1e-4 * np.square(weights).sum()

    return minimize(error, np.zeros(4), method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-7}).x


def asked():
    """What is asked: of candidates; of formula and pattern alone; and of formulas, to compare with: two runs that do
    not agree are better together, whatever the second reads."""
    structures = [config for config in lines().values() if config.data.distortions == APPROXIMATE]
    structures = [config for config in structures if "xrd" not in config.model.modalities]
    alone = [variant("small", "bimodal", TARGET, likelihood=True), *plus.seeds("bimodal", TARGET)[:1]]
    return structures, alone, plus.seeds("composition", TARGET)[:1]


def judge(folder, workers=1):
    """A row a pair of runs whose weights are there: errors on `test`, in the unit of the target."""
    found, there = {split: candidates(split, folder, workers) for split in ("val", "test")}, {}
    sets = {split: as_dataset(found[split], folder / f"{split}-stand_ins-{len(found[split])}") for split in found}
    true = {split: dataset().labels[TARGET][[one["row"] for one in found[split]]] for split in found}
    scale, rows = TARGETS[TARGET].error_scale, []
    for config in itertools.chain(*asked()):
        if paths := model_files(RUNS / config.name):
            there[config.name] = Ensemble.load(paths)
    for reader, alone, second in itertools.product(*asked()):
        if not {reader.name, alone.name, second.name} <= set(there):
            continue
        values, told, others = {}, {}, {}
        for split, crystals in found.items():
            of = np.array([one["row"] for one in crystals])
            told[split] = said(crystals, sets[split], there[reader.name])
            values[split] = there[alone.name].of_rows(dataset(), of, MODALITIES).values[TARGET]
            formula = there[second.name].of_rows(dataset(), of, ("composition",)).values[TARGET]
            others[split] = told[split].assign(candidates=formula, spread=0.0)
            know = there[reader.name].of_rows(dataset(), of, tuple(reader.model.modalities)).values[TARGET]
        weights = fitted(told["val"], values["val"], true["val"])
        all_of_it = believed(told["test"], values["test"], weights)
        two = believed(others["test"], values["test"], fitted(others["val"], values["val"], true["val"]))
        sure = (told["test"]["none"] < 0.5).to_numpy()
        row = {"reader of structures": reader.name, "formula and pattern": alone.name, "target": TARGET,
               "unit": TARGETS[TARGET].error_unit, "crystals": len(of), "explained": int(sure.sum())}  # fmt: skip
        said_by = {"formula and pattern alone": values["test"], "with the formula, again": two}
        said_by |= {"with candidates": all_of_it, "true structure": know}
        for name, value in said_by.items():
            errors = scale * np.abs(value - true["test"])
            row |= {name: errors.mean(), f"{name}, explained": errors[sure].mean()}
        errors = scale * np.abs(told["test"]["candidates"] - true["test"])
        row["candidates alone, explained"] = errors[sure].mean()
        rows.append(row | dict(zip(WEIGHTS, weights)))
    origin = {"dataset": DATASET, "split": "test", "setting": SETTING, "patterns": "ideal", "preset": "small"}
    return pd.DataFrame(rows).assign(**origin, seed=0, commit=commit(), hardware=hardware(CPU, 1))


def findings(place=RESULTS):
    """What candidates give to what formula and pattern say, beside the true structure."""
    if not (place / f"{NAME}.csv").exists():
        return ["Stand-ins: nothing is asked yet."]
    ways = {
        "formula and pattern alone": "{:.1f} from formula and pattern",
        "with the formula, again": "{:.1f} with a second run that reads formulas",
        "with candidates": "{:.1f} with the candidates",
        "true structure": "{:.1f} from the true structure",
    }
    said = []
    for row in pd.read_csv(place / f"{NAME}.csv").to_dict("records"):
        everyone, explained = (
            ", ".join(words.format(row[f"{way}{of}"]) for way, words in ways.items()) for of in ("", ", explained")
        )
        said.append(
            f"E_f of {row['crystals']} crystals of test by {row['formula and pattern']} and "
            f"{row['reader of structures']} ({row['unit']}): {everyone}. Of the {row['explained']} whose pattern a "
            f"known crystal explains: {explained}."
        )
    return said


def main():
    parser = argparse.ArgumentParser(prog="python -m study.stand_ins", description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--kept", type=Path, default=PROJECT / "build" / "known_crystals", help="of what was asked")
    arguments = parser.parse_args()
    judge(arguments.kept, arguments.workers).to_csv(RESULTS / f"{NAME}.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
