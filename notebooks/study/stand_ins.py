"""What can stand in for a crystal structure that is not known?  Known crystals that explain the pattern, elements
exchanged, cell and atoms refined, read by an encoder of structures: E_f of crystals of mp36k's `test`.  And where there
is no pattern, the likeliest structure types of the formula (exKT, arXiv 2511.03371): what does a pattern add to that?

    PYTHONPATH=notebooks .venv/bin/python -m study.stand_ins
    PYTHONPATH=notebooks .venv/bin/python -m study.stand_ins --all "composition"

The formula of no crystal of val, test and experimental is in the library (asking.py: formula held out); patterns are
ideal.  The first MOST candidates of a crystal are read by runs of structures.py, and what these say is weighed by the
candidates' probabilities.  How far that is believed against what is kept of a run that reads no structures follows
from how sure it is that one of them is right, and from how well the two agree; both are fitted on `val`, then `test` is
asked once.  What was said with a reader of structures whose weights are not here stays as it is.
Answers are kept in build/known_crystals; killed, the command goes on where it was.  With --all every crystal of val and
test is asked about, from what is given, and the answers are kept as a run's are, for the means of plus.py.
Cost: 1 s a crystal for the candidates of its pattern.
"""

import argparse
import itertools
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, logit
from tqdm import tqdm

from study import archive, plus
from study.archive import RESULTS
from study.asking import DATASET, all_known, composition_of, dataset, explanation_of, hidden, kept
from study.floor import metrics_of
from study.structures import APPROXIMATE, lines
from study.variants import variant
from xxlib import PROJECT
from xxlib.answering.inference import Ensemble, model_files
from xxlib.candidates.explanation import of_composition
from xxlib.candidates.search import exchanged, structure
from xxlib.crystals.crystal import RejectedCrystal, check_cell
from xxlib.crystals.neighbours import check_nearest, neighbours
from xxlib.datasets.batches import CPU
from xxlib.datasets.sources import Source, parsed
from xxlib.datasets.store import Dataset
from xxlib.datasets.targets import TARGETS
from xxlib.prepare import prepare
from xxlib.training.machine import commit, hardware
from xxlib.training.runs import RUNS, results

NAME = "stand_ins"
TARGET = "e_form"
GOAL = 42  # meV/atom, from formula and pattern
SETTING = "formula held out"
# What is known of a crystal, whose structure is not.
WORDS_OF = {"composition + xrd": "formula and pattern", "composition": "the formula alone"}
MOST = 5  # candidates of a crystal
CLOSE = 0.3  # cost of exchanges, of one that is e times less likely than none: gives the best first guess on `val`
STRANGE = 2.0  # cost of the least exchange, with which each of the types is e times less likely to be the true one
N = 600  # crystals of each split
SURE = 0.01  # probabilities are between this and 1 - this
SPREAD = 0.02  # eV/atom: smaller differences count as this
WEIGHTS = ("weight", "weight of sure", "weight of spread", "weight of disagreement")


# ---------------------------------------------------------------- candidates


def candidates(split, given, folder, workers=1, n=N):
    """What may be n crystals of a split, by what is given: dicts of the row, the probability of "none of these", and
    the first MOST crystals with theirs."""
    rows = np.random.default_rng(0).permutation(dataset().indices(split))[:n].tolist()
    if given == "composition":
        return [_of_formula(row) for row in tqdm(rows, desc=f"structure types of formulas, {split}", unit="formula")]
    return kept(f"{split}-{NAME}", _of_patterns, rows, folder, workers)


def _of_patterns(rows):
    return [_of_pattern(row) for row in rows]


def _of_pattern(row):
    return first(row, explanation_of(row, SETTING)[0])


def first(row, explanation):
    """The first MOST crystals of an Explanation with their probabilities, as candidates() has them; none of None."""
    if explanation is None:
        return {"row": row, "none": 1.0, "crystals": [], "probabilities": []}
    n = min(MOST, len(explanation))
    return {
        "row": row, "none": explanation.none, "crystals": [explanation.crystal(rank + 1) for rank in range(n)],
        "probabilities": explanation.probabilities[:n].tolist(),
    }  # fmt: skip


def _of_formula(row):
    """The likeliest structure types: every known crystal of the stoichiometry counts for its type, less by what its
    exchange of elements costs; the crystal of the least exchange stands for it, its cell as large as the elements."""
    library = all_known().library
    tried, _ = of_composition(library, *composition_of(dataset(), row), hidden(dataset(), row, SETTING))
    if not len(tried):
        return {"row": row, "none": 1.0, "crystals": [], "probabilities": []}
    _, first, of_type = np.unique(library.types[tried.crystals], return_index=True, return_inverse=True)
    shares = np.bincount(of_type, np.exp((tried.costs.min() - tried.costs) / CLOSE))
    likeliest = np.argsort(-shares, kind="stable")[:MOST]
    (metrics, *_), _ = exchanged(library, tried)
    crystals = []
    for c in first[likeliest]:
        crystal = tried.crystals[c]
        frac = library.frac_coords(np.arange(*library.offsets[crystal : crystal + 2]))
        crystals.append(structure(library, crystal, tried.before[c], tried.after[c], metrics[c], frac))
    none = 1 - np.exp(-tried.costs.min() / STRANGE)
    probabilities = (1 - none) * shares[likeliest] / shares.sum()
    return {"row": row, "none": none, "crystals": crystals, "probabilities": probabilities.tolist()}


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


def asked(given):
    """What is asked: of candidates; of what is given alone; and of formulas, to compare with: two runs that do not
    agree are better together, whatever the second reads."""
    readers = [config for config in lines().values() if config.data.distortions == APPROXIMATE]
    readers = [config for config in readers if "xrd" not in config.model.modalities]
    model = "composition" if given == "composition" else "bimodal"
    alone = [variant("small", model, TARGET, likelihood=True), plus.seeds(model, TARGET)[0]]
    return readers, alone, [plus.seeds("composition", TARGET)[given == "composition"]]


def kept_answers(name, split, rows):
    """What is kept that a run says of rows of a split, val or test; None where nothing is."""
    table = archive.predictions(name, RESULTS, split)
    return None if table is None else table[f"{TARGET}_predicted"].loc[dataset().column("id")[rows]].to_numpy()


def judge(folder, workers=1):
    """A row a reader of structures whose weights are here, and run that reads none of which answers are kept."""
    return pd.concat([_judged(given, folder, workers) for given in WORDS_OF], ignore_index=True)


def _of_splits(given, folder, workers, n):
    """By split, val and test: candidates, as a list and as a Dataset; rows and labels of the crystals they are of."""
    found = {split: candidates(split, given, folder, workers, n) for split in ("val", "test")}
    places = {split: folder / f"{split}-{given.replace(' ', '')}-{NAME}-{len(found[split])}" for split in found}
    rows = {split: np.array([one["row"] for one in crystals]) for split, crystals in found.items()}
    sets = {split: as_dataset(crystals, places[split]) for split, crystals in found.items()}
    return found, sets, rows, {split: dataset().labels[TARGET][own] for split, own in rows.items()}


def _judged(given, folder, workers):
    """Errors on `test`, in the unit of the target; "explained": of crystals that a candidate is likelier than not."""
    found, sets, rows_of, true = _of_splits(given, folder, workers, N)
    scale, rows = TARGETS[TARGET].error_scale, []
    readers, *others = asked(given)
    told_by, knows = {}, {}
    for reader in readers:
        if results(RUNS / reader.name):
            ensemble, reads = Ensemble.load(model_files(RUNS / reader.name)), tuple(reader.model.modalities)
            told_by[reader.name] = {split: said(found[split], sets[split], ensemble) for split in found}
            knows[reader.name] = ensemble.of_rows(dataset(), rows_of["test"], reads).values[TARGET]
    for reader, alone, second in itertools.product(told_by, *others):
        told, know = told_by[reader], knows[reader]
        values, of_second = (
            {split: kept_answers(run.name, split, own) for split, own in rows_of.items()} for run in (alone, second)
        )
        if any(answers is None for answers in (*values.values(), *of_second.values())):
            continue
        others_said = {split: told[split].assign(candidates=of_second[split], spread=0.0) for split in found}
        weights = fitted(told["val"], values["val"], true["val"])
        all_of_it = believed(told["test"], values["test"], weights)
        weights_of_two = fitted(others_said["val"], values["val"], true["val"])
        two = believed(others_said["test"], values["test"], weights_of_two)
        sure = (told["test"]["none"] < 0.5).to_numpy()
        row = {"given": given, "reader of structures": reader, "reader of what is given": alone.name,
               "target": TARGET, "unit": TARGETS[TARGET].error_unit, "crystals": len(know),
               "explained": int(sure.sum())}  # fmt: skip
        said_by = {"alone": values["test"], "with the formula, again": two}
        said_by |= {"with candidates": all_of_it, "true structure": know}
        for name, value in said_by.items():
            errors = scale * np.abs(value - true["test"])
            row |= {name: errors.mean(), f"{name}, explained": errors[sure].mean()}
        errors = scale * np.abs(told["test"]["candidates"] - true["test"])
        row["candidates alone, explained"] = errors[sure].mean()
        rows.append(row | dict(zip(WEIGHTS, weights)))
    origin = {"dataset": DATASET, "split": "test", "setting": SETTING, "patterns": "ideal", "preset": "small"}
    return pd.DataFrame(rows).assign(**origin, seed=0, commit=commit(), hardware=hardware(CPU, 1))


def answer_all(given, folder, workers=1):
    """What a reader of structures and what is given say of every crystal of val and test: kept as a run's.  The reader
    is the one with the least error on `val`."""
    started, inputs, name = time.monotonic(), given.split(" + "), plus.STAND_INS[given]
    readers, (*_, alone), _ = asked(given)
    found, sets, rows, true = _of_splits(given, folder, workers, n=None)
    tried, values = {}, {split: kept_answers(alone.name, split, own) for split, own in rows.items()}
    for one in (one for one in readers if results(RUNS / one.name)):
        reads = Ensemble.load(model_files(RUNS / one.name))
        told = {split: said(found[split], sets[split], reads) for split in found}
        weights = fitted(told["val"], values["val"], true["val"])
        of_reader = {split: np.asarray(believed(told[split], values[split], weights)) for split in found}
        tried[np.abs(of_reader["val"] - true["val"]).mean()] = one, of_reader
    (reader, chosen), answers, metrics = tried[min(tried)], {}, []
    labels = dataset().labels[TARGET][dataset().indices("train")]
    for split, own in rows.items():
        answers[split] = dataset().column("id")[own], {f"{TARGET}_predicted": chosen[split]}
        metrics += metrics_of(split, TARGETS[TARGET], true[split], chosen[split], labels, 1, inputs)
    model = {"architecture": NAME, "encoders": {key: {} for key in inputs}, "readers": [reader.name, alone.name]}
    config = {
        "name": name, "preset": NAME, "data": {"dataset": DATASET, "split": "formula", "also": []}, "model": model,
        "objectives": {"targets": [TARGET]}, "budget": {"batch_size": 1, "n_steps": 1, "learning_rate": 0.0},
        "seed": 0, "evaluate_test": True,
    }  # fmt: skip
    made = {"samples": 1, "best_step": 1, "seconds": time.monotonic() - started}
    archive.write_as_run(RUNS / name, config, answers, metrics, **made)
    archive.keep(name)
    archive.keep_val(name)


def committed(place=RESULTS):
    """What judge() has found, empty where nothing was asked yet."""
    path = place / f"{NAME}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def findings(place=RESULTS):
    """What candidates give to what is said without them, beside the true structure."""
    if committed(place).empty:
        return ["Stand-ins: nothing is asked yet."]
    ways = {
        "alone": "{:.1f} from {given}",
        "with the formula, again": "{:.1f} with a second run that reads formulas",
        "with candidates": "{:.1f} with the candidates",
        "true structure": "{:.1f} from the true structure",
    }
    said = []
    for row in committed(place).to_dict("records"):
        everyone, explained = (
            ", ".join(words.format(row[f"{way}{of}"], given=WORDS_OF[row["given"]]) for way, words in ways.items())
            for of in ("", ", explained")
        )
        said.append(
            f"E_f of {row['crystals']} crystals of test by {row['reader of what is given']} and "
            f"{row['reader of structures']} ({row['unit']}): {everyone}. Of the {row['explained']} that are likelier "
            f"than not one of the candidates: {explained}."
        )
    return [*said, goal(place)]


def best(given="composition + xrd", place=RESULTS):
    """The row of committed() with the least error with candidates, of what is given."""
    rows = committed(place)
    return rows[rows["given"] == given].sort_values("with candidates").iloc[0]


def goal(place=RESULTS):
    """Whether the best row of formula and pattern meets the goal, and where it does not, what keeps from it."""
    row = best(place=place)
    reached = f"{row['with candidates']:.1f} {row['unit']} ({row['reader of structures']})"
    if row["with candidates"] <= GOAL:
        return f"From formula and pattern the goal, {GOAL} meV/atom, is met: {reached}."
    true = row["true structure"]
    missed = f"From formula and pattern the goal, {GOAL} meV/atom, is missed: {reached}."
    missed += f" Of the true structures, too, this reader has {true:.1f}"
    more = true - GOAL > row["with candidates"] - true
    return missed + (": reading them keeps from the goal more than the candidates do." if more else ".")


def main():
    parser = argparse.ArgumentParser(prog="python -m study.stand_ins", description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--all", choices=WORDS_OF, metavar="GIVEN", help='of every crystal: "composition + xrd", ...')
    parser.add_argument("--kept", type=Path, default=PROJECT / "build" / "known_crystals", help="of what was asked")
    arguments = parser.parse_args()
    if arguments.all:
        answer_all(arguments.all, arguments.kept, arguments.workers)
    else:
        before, judged = committed(), judge(arguments.kept, arguments.workers)
        if judged.empty:
            sys.exit("stand_ins: the weights of no reader of approximate structures are in data/runs: make study")
        if len(before):
            before = before[~before["reader of structures"].isin(judged["reader of structures"])]
        table = pd.concat([before, judged], ignore_index=True).sort_values("given", ascending=False, kind="stable")
        table.to_csv(RESULTS / f"{NAME}.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
