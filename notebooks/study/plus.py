"""How good are energies and band gaps with all that pays?  Means of what several models say of mp36k's `test`, from the
composition alone and from both, beside the goals of the project.

Equal data: what is trained on the 27,833 crystals of mp36k alone.  All data: the encoder of compositions has learned
from OQMD's and the Materials Project's formulas, and band gaps also come from 94,956 formulas of the latter; the
composition of no crystal that judges is among them.  Every kind of model has the same weight, nothing is fitted to it.
Cost: 9 runs, 3 hours on a core; and those of modalities.
"""

import numpy as np
import pandas as pd

from study import archive, floor, formulas, leads
from study.archive import RESULTS
from study.tables import whole
from study.variants import variant
from xxlib.datasets.targets import TARGETS

TABLE = "plus"
SEEDS = (0, 1, 2)
BOOSTING = floor.name("band_gap", ["formulas_gap"])  # on the labels of mp36k and on those of further formulas
# Given, target, data -> the goal, in the unit of the tables.
GOALS = {
    ("composition", "e_form", "equal"): 50,
    ("composition + xrd", "e_form", "equal"): 46,
    ("composition", "e_form", "all"): 41,
    ("composition + xrd", "e_form", "all"): 38,
    ("composition", "band_gap", "equal"): 0.33,
    ("composition + xrd", "band_gap", "equal"): 0.32,
    ("composition", "band_gap", "all"): 0.30,
    ("composition + xrd", "band_gap", "all"): 0.29,
}


def seeds(model, target, **changes):
    """The runs of the preset on all data, from the encoder that has learned from formulas."""
    return [variant("plus", model, target, leads.of_energies(), seed=seed, **changes) for seed in SEEDS]


def gaps():
    """Those of the band gap, which most formulas do not have: absolute errors, for a likelihood is of the zeros."""
    return seeds("composition", "band_gap", likelihood=False, absolute=True, also=(formulas.GAPS,), n_steps=8000)


def runs(preset="plus"):
    """Its start; the first seeds, then the others."""
    of_seed = zip(seeds("composition", "e_form"), gaps(), seeds("bimodal", "e_form"))
    return [leads.of_energies(), *(config for configs in of_seed for config in configs)]


def kinds(given, target, data):
    """The names of the runs of each kind of model whose mean answers: a list a kind, from the composition alone and,
    where the pattern is given, with it."""
    if (target, data) == ("e_form", "equal"):
        models = {"composition": "composition-e_form-likelihood-s0", "crabnet": "crabnet-e_form-s0"}
        both = ["bimodal-e_form-likelihood-s0"]
        alone = [[name] for name in models.values()]
    elif target == "e_form":
        alone, both = [names(seeds("composition", target))], names(seeds("bimodal", target))
    else:
        alone = [names(gaps()), [BOOSTING]]
        both = [variant("small", "bimodal", target, seed=seed).name for seed in SEEDS]
        if data == "equal":
            alone = [[variant("small", "composition", target, seed=seed).name for seed in SEEDS], [floor.name(target)]]
    return [*alone, both] if given != "composition" else alone


def names(configs):
    return [config.name for config in configs]


def table(configs=None, place=RESULTS):
    """A row a goal: the error of the mean of all, that of the best kind by itself, which runs are missing."""
    rows = []
    for (given, target, data), goal in GOALS.items():
        members = kinds(given, target, data)
        there = [[name for name in of_kind if archive.read(name, place)] for of_kind in members]
        missing = sorted({name for of_kind in members for name in of_kind} - {name for kind in there for name in kind})
        said = [answer(of_kind, target, place) for of_kind in there if of_kind]
        row = {"given": given, "target": target, "data": data, "unit": TARGETS[target].error_unit, "goal": goal}
        row |= {"models": sum(map(len, there)), "mean of all": np.nan, "best kind": np.nan}
        if said:
            true = archive.predictions(next(filter(None, there))[0], place)[target]
            errors = [TARGETS[target].error_scale * (one - true).abs().mean() for one in (sum(said) / len(said), *said)]
            row |= {"mean of all": errors[0], "best kind": min(errors[1:])}
        rows.append(row | {"missing": ", ".join(missing)})
    return whole(pd.DataFrame(rows))


def answer(names, target, place=RESULTS):
    """The mean of what finished runs predict for `test`, never below what can be."""
    said = [archive.predictions(name, place)[f"{target}_predicted"].clip(TARGETS[target].least) for name in names]
    return sum(said) / len(said)


def findings(place=RESULTS):
    """Each goal whose models have finished, and whether it is reached."""
    said = []
    for _, row in table(place=place).iterrows():
        what = f"{row['target']} from {row['given']}, {row['data']} data"
        if row["missing"]:
            continue
        reached = "reached" if row["mean of all"] <= row["goal"] else "not reached"
        said.append(
            f"{what}: MAE on test {row['mean of all']:.3g} {row['unit']} as the mean of {row['models']} models, "
            f"{row['best kind']:.3g} of the best kind by itself; the goal of {row['goal']:g} is {reached}."
        )
    return said
