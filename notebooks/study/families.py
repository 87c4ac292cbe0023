"""What does it cost that a family was never seen?  E_f zero-shot: runs without chalcogenides, perovskites or
intermetallics, judged on all of them.

Cost: 10 runs, 1.7 hours on a core, a quarter of the steps.
"""

import numpy as np
import pandas as pd

from study import archive
from study.archive import RESULTS
from study.tables import E_FORM, ORIGIN, finished, groups, model_of, origin, planned_table
from study.variants import variant
from xxlib.training.presets import PRESETS

TABLE = "families"
FAMILIES = ("chalcogenides", "perovskites", "intermetallics")
# Of the same crystals, where the model has learned from others of their family, and where not.
KNOWN_FAMILY, NEW_FAMILY = (f"test, {words} family e_form mae (meV/atom)" for words in ("known", "new"))
COST = "cost (meV/atom)"


def runs(preset="small"):
    """Without one family each; then what the same budget reaches that includes it.

    mat2vec knows elements that a family takes with it.
    """
    models, n_steps = ("composition", "mat2vec", "bimodal"), PRESETS[preset].budget.n_steps // 4
    return [variant(preset, model, "e_form", n_steps=n_steps, **left_out)
            for left_out in (*({"left_out": family} for family in FAMILIES), {}) for model in models]  # fmt: skip


def table(configs=None, place=RESULTS):
    """The error on a family that is left out, and for the crystals of it that are in `test` by formula, beside it the
    run that has learned from the others of the family.

    Of the same model, steps and seed: the cost and half of its 95 % interval over these crystals.  Means over seeds.
    """
    configs, rows = configs or runs(), []
    usual = {_alike(config): config for config in finished(configs, place) if not config.data.left_out}
    without = [config for config in configs if config.data.left_out]
    for group in groups(without, lambda c: (c.data.left_out, str(c.model), c.budget.n_steps)):
        first = planned_table(group[:1], place).iloc[0]
        row = {"family": first["left_out"], "model": model_of(first)}
        row |= {"modalities": first["modalities"], "n_steps": first["n_steps"]}
        there = finished(group, place)
        new = [archive.errors(config.name, "e_form", place) for config in there]
        if new:
            row |= {"crystals": len(new[0]), E_FORM: np.mean([of_one.mean() for of_one in new])}
        pairs = [(of_one, usual.get(_alike(config))) for config, of_one in zip(there, new)]
        pairs = [(of_one, archive.errors(other.name, "e_form", place)) for of_one, other in pairs if other]
        pairs = [pd.concat(pair, axis=1, join="inner") for pair in pairs]
        if pairs:
            left_out, learned = np.mean(pairs, axis=0).T
            row |= {"crystals in test": len(learned), NEW_FAMILY: left_out.mean(), KNOWN_FAMILY: learned.mean()}
            row |= {COST: (left_out - learned).mean(), f"+- {COST}": 1.96 * pd.Series(left_out - learned).sem()}
        rows.append(row | origin(group, place))
    columns = ["family", "model", "modalities", "crystals", E_FORM, "crystals in test", KNOWN_FAMILY, NEW_FAMILY, COST]
    whole = {"crystals": "Int64", "crystals in test": "Int64"}
    return pd.DataFrame(rows, columns=[*columns, f"+- {COST}", "n_steps", *ORIGIN]).astype(whole)


def _alike(config):
    return str(config.model), config.budget.n_steps, config.seed


def findings(place=RESULTS):
    """What each family costs a model of both modalities."""
    rows = table(place=place).query("modalities == 'composition + xrd'").dropna(subset=COST)
    return [
        f"Leaving {row['family']} out of training costs {row[COST]:.0f} ± {row[f'+- {COST}']:.0f} meV/atom, "
        f"from {row[KNOWN_FAMILY]:.0f} to {row[NEW_FAMILY]:.0f} (95 %, over {row['crystals in test']} crystals)."
        for _, row in rows.iterrows()
    ]
