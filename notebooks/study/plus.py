"""How good are energies and band gaps with all that pays?  The preset `plus` on mp36k's `test`, from the composition
alone and from both, with ensembles; beside the goals and what stood before.

All data: the encoder of compositions has learned from OQMD's and the Materials Project's formulas, band gaps also from
94,956 formulas.  The composition of no crystal that judges is among them.
Cost: 9 runs, 3 hours on a core.
"""

import numpy as np
import pandas as pd

from study import archive, floor, formulas, leads
from study.archive import RESULTS
from study.tables import planned_table, whole
from study.variants import variant
from xxlib.datasets.targets import TARGETS

TABLE = "plus"
SEEDS = (0, 1, 2)
GAP = {"likelihood": False, "absolute": True}
BOOSTING = floor.name("band_gap", ["formulas_gap"])  # on the same labels
# What is compared -> target, data, run of seed 0; then the goal (issue of the project), in the unit of the tables.
ROWS = {
    "composition": ("e_form", "all data", 41),
    "composition + xrd": ("e_form", "all data", 38),
    "composition, band gap": ("band_gap", "all data", 0.30),
}


def groups(preset="plus"):
    """A row of the table -> its runs, which differ by their seed."""
    start = leads.of_energies()
    gap = {**GAP, "also": (formulas.GAPS,), "n_steps": 8000}

    def seeds(model, target, **changes):
        return [variant(preset, model, target, start, seed=seed, **changes) for seed in SEEDS]

    return {
        "composition": seeds("composition", "e_form"),
        "composition, band gap": seeds("composition", "band_gap", **gap),
        "composition + xrd": seeds("bimodal", "e_form"),
    }


def runs(preset="plus"):
    """Its start; the first seeds, then the others."""
    of_seed = zip(*groups(preset).values())
    return [leads.of_energies(), *(config for configs in of_seed for config in configs)]


def ensemble(configs, target, place=RESULTS):
    """MAE on `test` of the mean of what several finished runs predict, in the unit of the tables."""
    tables = [archive.predictions(config.name, place) for config in configs]
    mean = np.mean([table[f"{target}_predicted"] for table in tables], axis=0)
    return TARGETS[target].error_scale * (mean - tables[0][target]).abs().mean()


def table(configs=None, place=RESULTS):
    """A row a group: mean and spread over seeds, the ensemble, the goal."""
    rows = []
    for name, of_group in groups().items():
        target, data, goal = ROWS[name]
        done = [config for config in of_group if archive.read(config.name, place)]
        values = [archive.value(config.name, "mae", target, place=place, given=" + ".join(config.model.modalities))
                  for config in done]  # fmt: skip
        row = {"given": name, "target": target, "data": data, "unit": TARGETS[target].error_unit, "seeds": len(done)}
        row |= {"test mae": np.mean(values) if done else np.nan, "+-": np.std(values, ddof=1) if done[1:] else np.nan}
        row["ensemble"] = ensemble(done, target, place) if done[1:] else np.nan
        notes = planned_table(of_group, place)["note"]
        rows.append(row | {"goal": goal, "note": f"missing: {', '.join(filter(None, notes))}" if any(notes) else ""})
    return whole(pd.DataFrame(rows))


def findings(place=RESULTS):
    """Each row against its goal."""
    said = []
    for _, row in table(place=place).iterrows():
        if not row["seeds"]:
            said.append(f"{row['given']}, {row['target']}, {row['data']}: no run is finished.")
            continue
        best = row["ensemble"] if np.isfinite(row["ensemble"]) else row["test mae"]
        reached = "reached" if best <= row["goal"] else "not reached"
        said.append(
            f"{row['given']}, {row['target']}, {row['data']}: MAE on test {row['test mae']:.3g} {row['unit']} over "
            f"{row['seeds']} seeds, {best:.3g} at best; the goal of {row['goal']:g} is {reached}."
        )
    return said
