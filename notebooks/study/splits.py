"""How much of the score of a random split, which is the paper's, is memory?  Polymorphs of a formula known from train.

Cost: 6 runs, 1.8 hours on a core, half of the steps.  The paper claims nothing about it.
"""

from study.archive import RESULTS
from study.modalities import MODALITIES, QUANTITIES
from study.tables import CRYSTAL_SYSTEM, E_FORM, by_formula, planned_table, summary_table
from study.variants import variant
from xxlib.training.presets import PRESETS

TABLE = "splits"


def runs(preset="small"):
    """Each modality on a random split."""
    changes = {"split": "random", "n_steps": PRESETS[preset].budget.n_steps // 2}
    return [variant(preset, model, target, **changes)
            for target in ("e_form", "crystal_system") for model in MODALITIES.values()]  # fmt: skip


def table(configs=None, place=RESULTS):
    """The summary of the runs: of all of `test`, of known formulas, of new ones."""
    metrics = [E_FORM, CRYSTAL_SYSTEM]
    metrics += [name for metric in metrics for name in by_formula(metric)]
    return summary_table(planned_table(configs or runs(), place), metrics)


def findings(place=RESULTS, splits=None):
    """A sentence."""
    splits = table(place=place) if splits is None else splits
    rows, parts = splits[splits["split"] == "random"].set_index("modalities"), []
    for target, metric, quantity, unit, _ in QUANTITIES[:2]:
        there = rows.loc[rows["targets"] == target, by_formula(metric)].dropna()
        pairs = [f"{name} {repeated:.3g} and {new:.3g}" for name, repeated, new in there.itertuples()]
        parts += [f"{quantity}: {', '.join(pairs)} {unit}"] if pairs else []
    if not parts:
        return ["Crystals of a known and of a new formula in a random split: no run is finished."]
    return [f"In a random split, crystals whose formula is in train and the others. {'. '.join(parts)}."]
