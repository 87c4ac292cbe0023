"""How many labels does a committee save?  Query by committee: E_f on mp36k from formulas by gradient boosting, in five
rounds; each labels the training crystals on which five models, each of a sample with replacement, disagree most; or
crystals drawn in proportion to how much they disagree; or as many at random.

    PYTHONPATH=notebooks .venv/bin/python -m study.committee

Every crystal of train has its label here: what is chosen is which of them are used.
Cost: 10 minutes on a core.
"""

import argparse

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from tqdm import tqdm

from study import archive
from study.archive import RESULTS
from study.floor import composition_statistics
from xxlib import PROJECT, plots
from xxlib.datasets.batches import CPU
from xxlib.datasets.store import Dataset
from xxlib.datasets.targets import TARGETS
from xxlib.training.machine import commit, hardware
from xxlib.training.presets import PRESETS

DATASET = PRESETS["small"].data.dataset
FILE, TARGET = "committee.csv", TARGETS["e_form"]
ROUNDS, LABELS, MEMBERS, SEEDS = 5, 1000, 5, 3  # labels of the beginning, and of each round
BOOSTING = {"learning_rate": 0.1, "max_iter": 150, "max_leaf_nodes": 31}
CHOICES = ("where models disagree most", "drawn by disagreement", "at random")


def members(features, labels, random):
    """Models that each learn from a sample with replacement."""
    samples = (random.integers(len(labels), size=len(labels)) for _ in range(MEMBERS))
    seeds = random.integers(2**31, size=MEMBERS)
    return [
        HistGradientBoostingRegressor(**BOOSTING, random_state=int(seed)).fit(features[own], labels[own])
        for own, seed in zip(samples, seeds)
    ]


def rounds(choice, train, test, seed=0, n=LABELS):
    """Labels in use and the MAE of the committee's mean on `test`, before the first round and after each.

    train, test: (features, labels) of both.  n: labels of the beginning and of each round.
    """
    random = np.random.default_rng(seed)
    (features, labels), (questions, true) = train, test
    used = np.zeros(len(labels), bool)
    used[random.permutation(len(labels))[:n]] = True
    for k in range(ROUNDS + 1):
        committee = members(features[used], labels[used], random)
        said = np.mean([one.predict(questions) for one in committee], axis=0)
        yield int(used.sum()), float(np.abs(said - true).mean())
        if k < ROUNDS:
            left = np.flatnonzero(~used)
            doubt = np.ones(len(left))
            if choice != "at random":
                doubt = np.std([one.predict(features[left]) for one in committee], axis=0)
            if choice == CHOICES[0]:
                asked = left[np.argsort(-doubt, kind="stable")[:n]]
            else:
                asked = random.choice(left, n, replace=False, p=doubt / doubt.sum())
            used[asked] = True


def measure(dataset, seeds=SEEDS, n=LABELS):
    """A row a choice, seed and round: labels in use, and the MAE on `test` in the unit of tables."""
    features, labels = composition_statistics(dataset), dataset.labels[TARGET.name]
    parts = []
    for split in ("train", "test"):
        rows = dataset.indices(split)
        rows = rows[np.isfinite(labels[rows])]
        parts.append((features[rows], labels[rows]))
    found = []
    for choice, seed in tqdm([(choice, seed) for seed in range(seeds) for choice in CHOICES], disable=None):
        for used, mae in rounds(choice, *parts, seed, n):
            found.append({"choice": choice, "seed": seed, "labels": used, "test mae": TARGET.error_scale * mae})
    return pd.DataFrame(found)


def curves(place=RESULTS):
    """Choice -> labels (k,) and errors (k,), the means over seeds; empty where nothing was measured."""
    path = place / FILE
    if not path.exists():
        return {}
    means = pd.read_csv(path).groupby(["choice", "labels"])["test mae"].mean()
    return {choice: (means[choice].index.to_numpy(), means[choice].to_numpy()) for choice in CHOICES}


def needed(curve, error):
    """How many labels a curve of curves() takes to an error, between rounds in proportion; NaN where it stays above."""
    labels, errors = curve
    below = np.flatnonzero(errors <= error)
    if not len(below):
        return np.nan
    k = below[0]
    return labels[0] if k == 0 else np.interp(error, errors[[k, k - 1]], labels[[k, k - 1]])


def findings(place=RESULTS):
    """The errors at the end, and how many labels the committee takes to the error that chance ends with."""
    found = curves(place)
    if not found:
        return ["Query by committee: not measured."]
    chance, said = found.pop("at random"), []
    n, (first, last) = chance[0][-1], chance[1][[0, -1]]
    for choice, curve in found.items():
        labels = needed(curve, last)
        reach = f"reach this with {labels:,.0f} ({100 * (1 - labels / n):.0f} % fewer)"
        reach = "do not reach this" if np.isnan(labels) else reach
        said.append(f" Labels {choice} {reach} and end at {curve[1][-1]:.1f}.")
    return [
        f"With {n:,} labels at random boosting has {last:.1f} meV/atom on test ({first:.1f} with {chance[0][0]:,})."
        + "".join(said)
    ]


def figures(configs=None, place=RESULTS):
    """Error of E_f against labels that a committee asks for, and as many at random; means over seeds."""
    panels = {choice: (*curve, None) for choice, curve in curves(place).items()}
    if not panels:
        return {}
    return {"committee": plots.scaling(panels, "MAE of $E_f$ on test (meV/atom)", archive.label("small"))}


def main():
    argparse.ArgumentParser(prog="python -m study.committee", description=__doc__.split("\n")[0]).parse_args()
    origin = {"dataset": DATASET, "labels of": archive.LABELS[DATASET], "split": "formula"}
    origin |= {"preset": "none: gradient boosting", "commit": commit(), "hardware": hardware(CPU, 1)}
    table = measure(Dataset(PROJECT / DATASET)).assign(**origin)
    table.to_csv(RESULTS / FILE, index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
