"""Why do more crystals hurt a model of the composition?  Error of E_f on mp90k's `test` by how far a crystal lies above
the lowest of its formula: what a formula cannot know, and a pattern can.

A model of the composition alone answers alike for all polymorphs of a formula, so that what it was asked on mp36k is
its answer for the further polymorphs of mp90k, too.
What may turn it round: as many looks at each crystal; the lowest crystal of each formula as the target of the
composition alone, or as a second target; the pattern.
Cost: 4 runs, 0.8 hours on a core; the others are those of modalities and of mp90k.
"""

import numpy as np
import pandas as pd

from study import archive, mp90k
from study.archive import RESULTS
from study.variants import MIXED, variant
from xxlib import plots

TABLE = "polymorphs"
# What is compared: a model, what it is compared with.
CHANGES = {
    "Three times the crystals, in as many steps": ("composition, trained on mp90k", "composition, trained on mp36k"),
    "Three times the crystals, each seen as often": (
        "composition, trained on mp90k", "composition, trained on mp36k, each crystal as often as on mp90k",
    ),
    "Three times the crystals, in three times the steps": (
        "composition, trained on mp90k, three times the steps", "composition, trained on mp36k",
    ),
    "The same by squared errors, in as many steps": (
        "composition, trained on mp90k, squared errors", "composition, trained on mp36k, squared errors",
    ),
    "The lowest crystal of each formula as the target": (
        "composition, trained on the lowest of mp90k", "composition, trained on mp90k",
    ),
    "The lowest crystal of each formula as a second target": (
        "composition, trained on mp90k, two targets", "composition, trained on mp90k",
    ),
    "The pattern, by likelihood": ("both, trained on mp90k", "composition, trained on mp90k"),
    "The pattern, by squared errors": (
        "both, trained on mp90k, squared errors", "composition, trained on mp90k, squared errors",
    ),
}  # fmt: skip
EDGES = (0.05, 25, 50, 100, 200, np.inf)  # meV/atom above the lowest crystal of the formula, upper ends
# Models that stand in the table alone.
NOT_DRAWN = ("each crystal as often", "mp36k, squared errors", "two targets", "three times")
BINS = ("the lowest", *(f"{low:g}-{high:g}" for low, high in zip((0, *EDGES[1:-2]), EDGES[1:-1])), f"> {EDGES[-2]:g}")
LIKELIHOOD = {"likelihood": True}


def models(preset="small"):
    """How a model is called -> its run."""
    return {
        "composition, trained on mp36k": variant(preset, "composition", "e_form", **LIKELIHOOD),
        "composition, trained on mp36k, each crystal as often as on mp90k": as_often(preset),
        "composition, trained on mp36k, squared errors": variant(preset, "composition", "e_form"),
        "composition, trained on mp90k": mp90k.run(preset, "composition", "e_form", **LIKELIHOOD),
        "composition, trained on mp90k, three times the steps": longer(preset),
        "composition, trained on the lowest of mp90k": lowest(preset),
        "composition, trained on mp90k, two targets": two_targets(preset),
        "composition, trained on mp90k, squared errors": mp90k.run(preset, "composition", "e_form"),
        "both, trained on mp90k": mp90k.run(preset, "bimodal", "e_form", **LIKELIHOOD),
        "both, trained on mp90k, squared errors": mp90k.run(preset, "bimodal", "e_form"),
    }


def lowest(preset="small"):
    """The run that learns of each formula the energy of its lowest crystal."""
    return mp90k.run(preset, "composition", "least_e_form", **LIKELIHOOD)


def two_targets(preset="small"):
    """The run that learns of each crystal its own energy, and that of the lowest crystal of its formula."""
    run = lowest(preset).but(targets=("e_form", "least_e_form"), one_target=False, **MIXED)
    return run.but(name=run.name.replace("least_e_form", "e_form-and-least"))


def as_often(preset="small"):
    """The run that sees each crystal of mp36k as often as those of mp90k see theirs: 27,833 of them, not 88,429."""
    return variant(preset, "composition", "e_form", n_steps=2500, **LIKELIHOOD)


def longer(preset="small"):
    """The run that sees each crystal of mp90k about as often as those of mp36k are seen by its run."""
    return mp90k.run(preset, "composition", "e_form", n_steps=24_000, **LIKELIHOOD, **MIXED)


def runs(preset="small"):
    """What no other experiment has."""
    return [lowest(preset), as_often(preset), two_targets(preset), longer(preset)]


def errors(place=RESULTS):
    """Of `test` of mp90k, by id: energy above the lowest of its formula, and the signed error of each model that has
    finished, all in meV/atom; NaN where a model was not asked for the formula."""
    crystals = archive.crystals("data/mp90k", place)
    least = crystals.groupby("formula")["e_form"].transform("min")
    test = crystals.assign(above=1000 * (crystals["e_form"] - least)).query("split == 'test'").dropna(subset="e_form")
    said = {}
    for name, config in models().items():
        if archive.read(config.name, place) is None:
            continue
        predicted = archive.predictions(config.name, place)
        if config.data.dataset == mp90k.DATASET:
            answers = test.index.map(predicted[f"{config.objectives.targets[0]}_predicted"])
        else:
            answers = test["formula"].map(predicted.groupby("formula")["e_form_predicted"].first())
        said[name] = 1000 * (np.asarray(answers, float) - test["e_form"])
    return test[["formula", "above"]].assign(**said)


def table(configs=None, place=RESULTS):
    """A row a model and distance: crystals, MAE with its 95 % interval over crystals, mean signed error (meV/atom)."""
    if archive.read(models()["both, trained on mp90k, squared errors"].name, place) is None:
        return pd.DataFrame(columns=["model", "above the lowest (meV/atom)", "crystals"])
    judged, rows = errors(place), []
    place_of = pd.cut(judged["above"], (-1, *EDGES), labels=BINS)
    for name in judged.columns[2:]:
        for where, here in [*judged[name].groupby(place_of, observed=True), ("all", judged[name])]:
            rows.append({
                "model": name, "above the lowest (meV/atom)": where, "crystals": here.count(),
                "MAE (meV/atom)": here.abs().mean(), "+- (95 %)": 1.96 * here.abs().sem(),
                "mean error (meV/atom)": here.mean(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def figures(configs=None, place=RESULTS):
    """Error against energy above the formula's lowest, a line a model."""
    found = table(place=place)
    if not len(found):
        return {}
    lines = {}
    for name, rows in found[found["above the lowest (meV/atom)"] != "all"].groupby("model", sort=False):
        if any(words in name for words in NOT_DRAWN):
            continue
        rows = rows.set_index("above the lowest (meV/atom)").reindex(BINS)
        lines[name] = rows["MAE (meV/atom)"], rows["+- (95 %)"]
    shares = found[found["model"] == found["model"].iloc[0]].set_index("above the lowest (meV/atom)")["crystals"]
    ticks = [f"{name}\n{shares.get(name, 0)}" for name in BINS]
    axis = "energy above the lowest crystal of the formula (meV/atom), and number of crystals"
    return {"polymorphs": plots.by_bin(lines, ticks, axis, "MAE of $E_f$ on test (meV/atom)", "mp90k")}


def changes(place=RESULTS):
    """A row a comparison of CHANGES whose runs have finished: what it changes of the MAE of E_f (meV/atom), with half
    of the 95 % interval over the crystals, on all of mp90k's `test` and on mp36k's own part of it."""
    if not len(table(place=place)):
        return []
    judged, rows = errors(place), []
    own = judged.index.isin(mp90k.own(place))
    for name, (after, before) in CHANGES.items():
        if after in judged and before in judged:
            change = judged[after].abs() - judged[before].abs()
            parts = {"all": change.dropna(), "own": change[own].dropna()}
            rows.append({"what": name} | {part: (one.mean(), 1.96 * one.sem()) for part, one in parts.items()})
    return rows


def findings(place=RESULTS):
    """What the further polymorphs cost, and what turns it round: a sentence a comparison, then one a model."""
    found = table(place=place)
    if not len(found):
        return ["Error against energy above the formula's lowest: no run on mp90k is finished."]
    wide = found.pivot(index="above the lowest (meV/atom)", columns="model", values="MAE (meV/atom)")
    said = [
        f"{row['what']}: MAE of E_f {row['all'][0]:+.1f} ± {row['all'][1]:.1f} meV/atom on mp90k's test, "
        f"{row['own'][0]:+.1f} ± {row['own'][1]:.1f} on mp36k's own part of it (95 % over crystals, one seed each)."
        for row in changes(place)
    ]
    return said + [
        f"{name[0].upper()}{name[1:]}: MAE of E_f {wide.loc['all', name]:.0f} meV/atom over all of mp90k's test, "
        f"{wide.loc[BINS[0], name]:.0f} for the lowest crystal of a formula, {wide.loc[BINS[-1], name]:.0f} for those "
        f"more than {EDGES[-2]:g} meV/atom above it."
        for name in wide
    ]
