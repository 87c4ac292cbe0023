"""Does fusion gain for E_f once composition is not the answer?  Table 1 on mp90k, three times the crystals and full of
polymorphs: each modality alone and both, by the paper's loss and by likelihood; after pretraining; other models.

Judged on all of mp90k's `test`, and on the part of it that is mp36k's own.
Cost: 18 runs, 16 hours on a core.
"""

import numpy as np

from study import archive, claims
from study.archive import RESULTS
from study.tables import BAND_GAP, CRYSTAL_SYSTEM, E_FORM, planned_table, summary_table
from study.variants import pretraining, variant

TABLE = "table_1_mp90k"
DATASET = "data/mp90k"
OWN = {E_FORM: "e_form", BAND_GAP: "band_gap", CRYSTAL_SYSTEM: "crystal_system"}
EXCHANGED = E_FORM.replace("test", "test exchanged xrd", 1)


def run(preset, model, target, start=None, **changes):
    return variant(preset, model, target, start, dataset=DATASET, **changes)


def runs(preset="small"):
    """E_f first, from the composition and from both."""
    both = pretraining(preset, "both", dataset=DATASET)
    models = ("composition", "bimodal")
    configs = [run(preset, model, "e_form") for model in models]
    configs += [run(preset, model, "e_form", likelihood=True) for model in models]
    configs += [run(preset, model, "crystal_system") for model in (*models, "xrd")]
    configs += [both, run(preset, "bimodal", "e_form", both), run(preset, "bimodal", "crystal_system", both)]
    configs += [run(preset, model, "e_form") for model in ("crabnet", "fcn_mlp", "xrd")]
    configs += [run(preset, "fcn_mlp", "crystal_system")]
    configs += [run(preset, model, "band_gap", likelihood=True) for model in models]
    return [*configs, *(run(preset, model, "e_form", likelihood=True, seed=seed) for model in models for seed in (1,))]


def table(configs=None, place=RESULTS):
    """The summary of the runs over all of `test`; then on mp36k's own."""
    results = planned_table(configs or runs(), place)
    for metric, target in OWN.items():
        results[of_mp36k(metric)] = [own_error(name, target, place) for name in results["name"]]
    return summary_table(results, [*OWN, *map(of_mp36k, OWN), EXCHANGED])


def of_mp36k(metric):
    """The name of a metric of `test` on mp36k's own part of it."""
    return metric.replace("test", "mp36k's test", 1)


def own_error(name, target, place=RESULTS):
    """Mean error, or accuracy, of a run on the crystals of `test` that are mp36k's, in the unit of the tables."""
    record = archive.read(name, place)
    if record is None or target not in record.config["objectives"]["targets"]:
        return np.nan
    errors = archive.errors(name, target, place)
    mean = errors[errors.index.isin(archive.crystals("data/mp36k", place).index)].mean()
    return 100 - mean if target == "crystal_system" else mean


def findings(place=RESULTS):
    """That both are ahead of the composition alone by what the paper says, on all of `test`; of what has finished."""
    found = []
    for changes, loss in (({"likelihood": True}, "by likelihood"), ({}, "squared errors")):
        names = [run("small", model, "e_form", **changes).name for model in ("composition", "bimodal")]
        claim = f"On mp90k both inputs beat the composition alone, MAE of E_f, {loss}"
        if not all(archive.read(name, place) for name in names):
            continue
        alone, both = (archive.value(name, "mae", "e_form", place=place) for name in names)
        other = archive.value(names[1], "mae", "e_form", place=place, given="composition + xrd", exchanged="xrd")
        _, half = claims.paired(*names, "e_form", place)
        said = f"{both:.1f} from both, {alone:.1f} from the composition alone, {other:.1f} with the patterns of others"
        verdict = claims.counted(both - alone, half / 1.96, "meV/atom", -1)
        found.append(claims.Finding(claim, f"{said} ({100 * (1 - both / alone):.0f} % less)", verdict))
    return found
