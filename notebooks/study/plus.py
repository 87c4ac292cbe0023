"""How good are energies and band gaps with all that pays?  Means of what several models say of mp36k's `test`, from the
composition alone and from both, beside the goals of the project.

Equal data: what is trained on the 27,833 crystals of mp36k alone.  All data: these models and further ones, whose
encoder of compositions has learned from OQMD's and the Materials Project's formulas, or that learn from mp90k or from
the band gaps of 94,956 formulas, too; the composition of no crystal that judges is among them.  Every kind of model has
the same weight; where what all kinds say of `val` is kept, also the weights that are best there.
Cost: 10 runs, 3.4 hours on a core, and boosting; and those of modalities.
"""

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.optimize import linprog

from study import archive, claims, floor, formulas, leads, mp90k, polymorphs, predictors
from study.archive import RESULTS
from study.tables import whole
from study.variants import MIXED, variant
from xxlib.datasets.targets import TARGETS

TABLE = "plus"
BOTH = "composition + xrd"
SEEDS = {"composition-e_form": 3, "composition-band_gap": 2, "bimodal-e_form": 1}  # those of both agree to 0.98
ABSOLUTE = {"likelihood": False, "absolute": True}  # most gaps are zero, and a likelihood would be of the zeros
# Boosting on the labels of mp36k, and on those of further formulas, too.
BOOSTING = {"equal": floor.name("band_gap", thorough=True)}
BOOSTING |= {"all": floor.name("band_gap", ["formulas_gap"], thorough=True)}
# What known crystals that stand in for a structure say of E_f with what is given, as a run (stand_ins.py).
STAND_INS = {given: f"stand_ins-{given.replace(' + ', '_and_')}-e_form-s0" for given in ("composition", BOTH)}
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
    n = SEEDS[f"{model}-{target}"]
    return [variant("plus", model, target, leads.of_energies(), seed=seed, **changes) for seed in range(n)]


def gaps():
    """Those of the band gap."""
    return seeds("composition", "band_gap", **ABSOLUTE, also=(formulas.GAPS,), n_steps=8000)


def equal_gaps():
    """Those of the band gap from mp36k alone: from the composition, from both."""
    alone = [variant("small", "composition", "band_gap", seed=seed, **ABSOLUTE, **MIXED) for seed in (0, 1)]
    return alone, [variant("small", "bimodal", "band_gap", **ABSOLUTE, **MIXED)]


def further():
    """From formulas, then from the crystals of mp90k: of both inputs, which tell polymorphs apart."""
    return variant("plus", "bimodal", "e_form", leads.of_energies(), dataset=mp90k.DATASET, **MIXED)


def runs(preset="plus"):
    """Their start; those of energies, of both, of band gaps."""
    energies = [*seeds("composition", "e_form"), *seeds("bimodal", "e_form"), further()]
    return [leads.of_energies(), *energies, *gaps(), *(config for configs in equal_gaps() for config in configs)]


def kinds(given, target, data):
    """The names of the runs of each kind of model whose mean answers: a list a kind, from the composition alone and,
    where the pattern is given, with it."""
    alone, both = [], []
    if target == "e_form":
        alone += [["crabnet-e_form-s0"], ["composition-e_form-likelihood-s0"]]
        both += [["bimodal-e_form-likelihood-s0"]]
        if data == "all":
            alone += [names(seeds("composition", target)), [STAND_INS["composition"]]]
            both += [names(seeds("bimodal", target)), [further().name]]
    else:
        from_composition, from_both = map(names, equal_gaps())
        alone += [from_composition, [BOOSTING[data]]]
        both += [from_both]
        alone += [names(gaps())] * (data == "all")
    both += [[predictors.energies().name]] * (data == "all")
    return alone + both if given != "composition" else alone


def members():
    """The names of all runs whose mean answers a goal."""
    return sorted({name for goal in GOALS for kind in kinds(*goal) for name in kind})


def names(configs):
    return [config.name for config in configs]


def table(configs=None, place=RESULTS):
    """A row a goal: the error of the mean of all kinds, of that with the weights that are best on `val`, of the kind
    that is best there by itself; which runs are missing."""
    rows = []
    for (given, target, data), goal in GOALS.items():
        of_kinds = kinds(given, target, data)
        there = [[name for name in of_kind if archive.read(name, place)] for of_kind in of_kinds]
        missing = sorted({name for kind in of_kinds for name in kind} - {name for kind in there for name in kind})
        row = {"given": given, "target": target, "data": data, "unit": TARGETS[target].error_unit, "goal": goal}
        row |= {"models": sum(map(len, there)), "mean of all": np.nan, "weighed on val": np.nan, "best on val": np.nan}
        if there := [kind for kind in there if kind]:
            answers = [answer(kind, target, place) for kind in there]
            true = archive.predictions(there[0][0], place)[target]
            best = answers[int(np.argmin([val_error(kind, target, place) for kind in there]))]
            row |= {"mean of all": error(sum(answers) / len(answers), true, target)}
            row |= {"best on val": error(best, true, target)}
            shares = weights(there, target, place)
            if shares is not None:
                row |= {"weighed on val": error(sum(w * one for w, one in zip(shares, answers)), true, target)}
        rows.append(row | {"missing": ", ".join(missing)})
    return whole(pd.DataFrame(rows))


def error(said, true, target):
    """Mean absolute error of answers by id, over the crystals of mp36k, in the unit of the tables."""
    return TARGETS[target].error_scale * (said - true).abs().mean()


def answer(names, target, place=RESULTS, split="test"):
    """The mean of what finished runs predict for a split, never below what can be; None where one does not keep it."""
    tables = [archive.predictions(name, place, split) for name in names]
    if any(table is None for table in tables):
        return None
    said = [table[f"{target}_predicted"].clip(TARGETS[target].least) for table in tables]
    return sum(said) / len(said)


def val_error(names, target, place=RESULTS):
    """The mean error on `val` of the runs of a kind, each by itself, with all that it reads given."""
    records = [archive.read(name, place) for name in names]
    given = [" + ".join(record.config["model"]["encoders"]) for record in records]
    errors = [archive.value(name, "mae", target, "val", place, given=one) for name, one in zip(names, given)]
    return np.mean(errors)


def weights(of_kinds, target, place=RESULTS):
    """What each kind counts (k,): not negative, 1 together, with the least mean absolute error on `val`.

    None of one kind, and where of one no predictions of `val` are kept.
    """
    said = [answer(kind, target, place, "val") for kind in of_kinds]
    if len(said) < 2 or any(one is None for one in said):
        return None
    true = archive.predictions(of_kinds[0][0], place, "val")[target]
    said = pd.concat([true, *said], axis=1).dropna().to_numpy(float)
    return least_absolute(said[:, 1:], said[:, 0])


def least_absolute(said, true):
    """The weights (k,), not negative and 1 together, of answers (n, k) whose sum is nearest to true values (n,): a
    linear programme, its unknowns the weights and the size of each error."""
    n, k = said.shape
    sizes = -sparse.identity(n)
    bounds = sparse.bmat([[said, sizes], [-said, sizes]], format="csc")
    cost, one = np.r_[np.zeros(k), np.ones(n)], np.r_[np.ones(k), np.zeros(n)]
    return linprog(cost, bounds, np.r_[true, -true], one[None], [1.0]).x[:k]


def finished(place=RESULTS):
    """The rows of the table whose models have all finished, as dicts; `reached`: the error with the weights of `val`
    where there are, else of the mean of all."""
    rows = [row for row in table(place=place).to_dict("records") if not row["missing"]]
    for row in rows:
        row["weighed"] = bool(np.isfinite(row["weighed on val"]))
        row["reached"] = row["weighed on val"] if row["weighed"] else row["mean of all"]
    return rows


def findings(place=RESULTS):
    """Each goal whose models have finished, and whether it is reached."""
    return [
        f"{row['target']} from {row['given']}, {row['data']} data: MAE on test {row['reached']:.3g} {row['unit']} as "
        f"the mean of {row['models']} models{', weighed on val' * row['weighed']}, {row['best on val']:.3g} of the "
        f"kind best on val; the goal of {row['goal']:g} is {'' if row['reached'] <= row['goal'] else 'not '}reached."
        for row in finished(place)
    ]


def phrases(data, place=RESULTS):
    """What the means of equal or of all data reach: "54.5 meV/atom for the formation energy from both"."""
    return [
        f"{row['reached']:.3g} {row['unit']} for the {TARGETS[row['target']].title} {claims.WORDS[row['given']]}"
        for row in finished(place)
        if row["data"] == data
    ]


def tail(place=RESULTS):
    """What limits energies, by the first model of both inputs that began with formulas: a dict.

    `half`: half of `test` is off by no more (meV/atom); `share`: which part of all error a tenth of the crystals has
    (%); of this tenth and of the others, `above`: mean energy above the lowest crystal of the formula (meV/atom),
    `positive`: % with a positive formation energy.
    """
    errors = archive.errors(seeds("bimodal", "e_form")[0].name, "e_form", place).sort_values(ascending=False)
    n = len(errors) // 10
    above, energies = polymorphs.errors(place)["above"], archive.crystals("data/mp36k", place)["e_form"]
    parts = errors.index[:n], errors.index[n:]
    return {
        "half": errors.median(),
        "share": 100 * errors[:n].sum() / errors.sum(),
        "above": [above.reindex(part).mean() for part in parts],
        "positive": [100 * (energies[part] > 0).mean() for part in parts],
    }
