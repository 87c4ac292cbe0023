"""Does fusion gain for E_f once composition is not the answer?  Table 1 on mp90k, three times the crystals and full of
polymorphs: each modality alone and both, by the paper's loss and by likelihood; after pretraining; other models.

Judged on all of mp90k's `test`, and on the part of it that is mp36k's own.  Rows of a target are compared in the same
steps: E_f in those of Table 1 and in half of them, the crystal system and the band gap in a quarter.
Cost: 18 runs, 4.1 hours on a core, and the floor.
"""

import numpy as np
import pandas as pd

from study import archive, claims, floor, modalities
from study import pretraining as table_2
from study.archive import RESULTS
from study.tables import BAND_GAP, CRYSTAL_SYSTEM, E_FORM, finished, planned_table, summary_table
from study.variants import MIXED, pretraining, variant
from xxlib.training.presets import PRESETS

TABLE = "table_1_mp90k"
DATASET = "data/mp90k"
ENERGIES = 88_429  # training crystals that have one, of 95,941
BOTH = "composition + xrd"
GOAL = 15  # %, by which both inputs were to be better for E_f than the composition alone
OWN = {E_FORM: "e_form", BAND_GAP: "band_gap", CRYSTAL_SYSTEM: "crystal_system"}
EXCHANGED = [metric.replace("test", "test exchanged xrd", 1) for metric in OWN]


def run(preset, model, target, start=None, **changes):
    return variant(preset, model, target, start, dataset=DATASET, **changes)


def half(preset="small"):
    """Half of the steps of Table 1, as those of Figure 3, in mixed precision."""
    return {"n_steps": PRESETS[preset].budget.n_steps // 2, **MIXED}


def quarter(preset="small"):
    """A quarter of the steps, in mixed precision."""
    return {"n_steps": PRESETS[preset].budget.n_steps // 4, **MIXED}


def start(preset="small"):
    """The pretraining by both tasks."""
    return pretraining(preset, "both", dataset=DATASET, **half(preset))


def runs(preset="small"):
    """E_f by both losses first, in the steps of Table 1; then in half of them; other targets in a quarter."""
    models, short, shorter, both = ("composition", "bimodal"), half(preset), quarter(preset), start(preset)
    configs = [run(preset, model, "e_form") for model in models]
    configs += [run(preset, "composition", "e_form", likelihood=True)]
    configs += [run(preset, "bimodal", "e_form", likelihood=True, **MIXED)]
    configs += [run(preset, model, "e_form", **short) for model in models]
    configs += [both, run(preset, "bimodal", "e_form", both, **short)]
    configs += [run(preset, model, "crystal_system", **shorter) for model in (*models, "xrd", "fcn_mlp")]
    configs += [run(preset, "bimodal", "crystal_system", both, **shorter)]
    configs += [run(preset, model, "band_gap", absolute=True, **shorter) for model in models]
    return [*configs, *(run(preset, model, "e_form", **short) for model in ("crabnet", "xrd", "fcn_mlp"))]


def table(configs=None, place=RESULTS):
    """The summary of the runs and of the floor over all of `test`; on mp36k's own; with the patterns of others."""
    results = pd.concat([planned_table(configs or runs(), place), floor.table(DATASET, place)], ignore_index=True)
    results["note"] = results["note"].fillna("")
    for metric, target in OWN.items():
        results[of_mp36k(metric)] = [own_error(name, target, place) for name in results["name"]]
    return summary_table(results, [*OWN, *map(of_mp36k, OWN), *EXCHANGED])


def of_mp36k(metric):
    """The name of a metric of `test` on mp36k's own part of it."""
    return metric.replace("test", "mp36k's test", 1)


def own(place=RESULTS):
    """The ids of mp36k's crystals, which are mp90k's, too."""
    return archive.crystals("data/mp36k", place).index


def own_error(name, target, place=RESULTS):
    """Mean error, or accuracy, of a run on the crystals of `test` that are mp36k's, in the unit of the tables."""
    record = archive.read(name, place)
    if record is None or target not in record.config["objectives"]["targets"]:
        return np.nan
    errors = archive.errors(name, target, place)
    if errors is None:
        return np.nan
    mean = errors[errors.index.isin(own(place))].mean()
    return 100 - mean if target == "crystal_system" else mean


# Target, changes, what of, with which modalities alone both are compared.
COMPARED = (
    ("e_form", {}, "MAE of E_f", ("composition",)),
    ("e_form", {"likelihood": True}, "MAE of E_f by likelihood", ("composition",)),
    ("crystal_system", quarter(), "accuracy of crystal system", ("composition", "xrd")),
    ("band_gap", quarter() | {"absolute": True}, "MAE of band gap by absolute errors", ("composition",)),
)


def findings(place=RESULTS):
    """The claims of Table 1 and Table 2 on all of `test`, of what has finished."""
    found = [_compared(*one, place) for one in COMPARED]
    for target, steps in (("e_form", half()), ("crystal_system", quarter())):
        pair = [run("small", "bimodal", target, of, **steps) for of in (None, start())]
        if len(finished(pair, place)) == 2:
            found += table_2.findings(place, table_2.table(pair, place), start(), dataset=DATASET, **steps)
    return [one for one in found if one]


def _compared(target, changes, of, alone, place):
    """That both inputs beat the better one alone: a Finding, None where a run is missing."""
    names = {name: run("small", modalities.MODALITIES[name], target, **changes).name for name in (*alone, BOTH)}
    if not all(archive.read(name, place) for name in names.values()):
        return None
    metric, unit, better = next((m, unit, b) for t, m, _, unit, b in modalities.QUANTITIES if t == target)
    kind = "accuracy" if better > 0 else "mae"

    def reached(inputs, **view):
        return archive.value(names[inputs], kind, target, place=place, **view)

    best = max(alone, key=lambda name: better * reached(name))
    said = [f"{reached(name):.3g} {claims.WORDS[name]}" for name in (BOTH, *alone)]
    said += [f"{reached(BOTH, given=BOTH, exchanged='xrd'):.3g} with the patterns of others"]
    difference = reached(BOTH) - reached(best)
    error = claims.scatter(names[best], names[BOTH], target, place)
    verdict = claims.counted(difference, error, unit, better)
    return claims.Finding(
        modalities.CLAIM, of, f"{', '.join(said)} ({unit})", verdict, modalities.in_paper(target, metric, unit)
    )
