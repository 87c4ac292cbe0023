"""Which leads make energies better?  The ablation behind the preset `plus`: each lead by itself, E_f on `val` of mp36k,
by likelihood and with a quarter of the steps; nothing here sees `test`.

Cost: 17 runs, 1.3 hours on a core.
"""

import dataclasses

import pandas as pd

from study import archive, formulas
from study.archive import RESULTS
from study.tables import origin, whole
from study.variants import MIXED, models, pretraining, variant
from xxlib import plots
from xxlib.datasets.targets import TARGETS
from xxlib.training.presets import PRESETS

TABLE = "leads"
LABELS = ("least_e_form", "oqmd_e_form", "oqmd_band_gap", "log_volume")  # of formulas, each of one source
LEARNS, SQUARES, ABSOLUTE = {"likelihood": True}, {"likelihood": False}, {"likelihood": False, "absolute": True}


def base(preset="small", model="composition", target="e_form", **learns):
    """The run that a lead is compared with."""
    quarter = PRESETS[preset].budget.n_steps // 4
    return variant(preset, model, target, n_steps=quarter, evaluate_test=False, **(learns or LEARNS))


def of_formulas(preset="small"):
    """The encoder of compositions trained on formulas with labels, whose crystals nobody has."""
    config = base(preset).but(name="formulas-composition-steps4000-s0", dataset=formulas.DATASET, targets=LABELS)
    return config.but(one_target=False, batch_size=256, n_steps=PRESETS[preset].budget.n_steps // 2)


def of_energies(preset="small"):
    """The same for twice the steps, without band gaps: most are zero, and their likelihood outweighs all the rest."""
    first = of_formulas(preset)
    targets = tuple(name for name in LABELS if name != "oqmd_band_gap")
    return first.but(name="pretrain-formulas-s0", targets=targets, n_steps=2 * first.budget.n_steps)


def of_both(preset="small"):
    """The encoder of compositions taught the embedding of the model of both inputs."""
    teacher, student = base(preset, "bimodal"), base(preset)
    learns = {"taught": f"data/runs/{teacher.name}", "model": student.model, "n_steps": student.budget.n_steps}
    return pretraining(preset, "taught", **learns, **MIXED).but(name="pretrain-taught-by-both-s0")


def leads(preset="small"):
    """What is tried -> (the run it is compared with, its run)."""
    alone, both, gap = base(preset), base(preset, "bimodal"), base(preset, target="band_gap", **SQUARES)
    longer = variant("plus", "composition", "e_form", of_energies(preset), n_steps=2000, evaluate_test=False)
    start = f"data/runs/{of_formulas(preset).name}"

    def lead(name, first=alone, **changes):
        return first, first.but(name=f"lead-{name}-s0", **changes)

    def model(**changes):
        return dataclasses.replace(models(preset)["composition"], **changes)

    return {
        "encoder of compositions from a million labels of formulas": lead("formulas", initial=start),
        "the same for twice the steps, without band gaps, and at a lower rate": (alone, longer),
        "absolute errors in place of the likelihood": lead("absolute", **ABSOLUTE),
        "band gap: absolute errors in place of squared ones": lead("gap-absolute", gap, **ABSOLUTE),
        "averaged weights": lead("averaged", averaged=0.02),
        "what is left of a sum over elements": lead("terms", model=model(element_terms=True)),
        "mat2vec beside learned vectors": lead("vectors", model=model(element_vectors="learned + mat2vec")),
        "jitter of fractions": lead("jitter", jitter=0.02),
        "volume as a second target": lead("volume", targets=("e_form", "log_volume"), one_target=False),
        "twice the steps, as a student has": lead("longer", n_steps=2 * alone.budget.n_steps, **MIXED),
        "student of the model of both inputs": lead("student", initial=f"data/runs/{of_both(preset).name}"),
        "from both: encoder of compositions from formulas": lead("bimodal-formulas", both, initial=start),
    }


def runs(preset="small"):
    """The runs that leads are compared with and start from, then the leads."""
    starts = [of_formulas(preset), of_energies(preset), base(preset, "bimodal"), of_both(preset)]
    pairs = [config for pair in leads(preset).values() for config in pair]
    return list({config.name: config for config in [*starts, *pairs]}.values())


def table(configs=None, place=RESULTS):
    """A row a lead: the MAE on `val` without and with it, and what it gains."""
    rows = []
    for name, (without, run) in leads().items():
        before, after = (error(config, place) for config in (without, run))
        gain = None if before is None or after is None else before - after
        target = run.objectives.targets[0]
        values = {"lead": name, "run": run.name, "target": target, "unit": TARGETS[target].error_unit}
        values |= {"without": before, "with": after, "gain": gain}
        rows.append(values | origin([run], place))
    return whole(pd.DataFrame(rows))


def error(config, place=RESULTS):
    """MAE of the first target of a run on `val`, in the unit of the tables; None where it has not finished."""
    if archive.read(config.name, place) is None:
        return None
    given = " + ".join(config.model.modalities)
    return archive.value(config.name, "mae", config.objectives.targets[0], "val", place, given=given)


def figures(configs=None, place=RESULTS):
    """What each lead gains of E_f."""
    found = table(place=place).query("target == 'e_form'").dropna(subset="gain").sort_values("gain", ascending=False)
    if not len(found):
        return {}
    groups = {"one seed": (found["lead"], found["gain"], [0.0] * len(found))}
    return {"leads": plots.differences(groups, "gain of MAE of E_f on val (meV/atom)", "mp36k, a quarter of the steps")}


def findings(place=RESULTS):
    """A sentence a lead."""
    found = table(place=place).dropna(subset="gain")
    return [
        f"{row['lead'][0].upper()}{row['lead'][1:]}: MAE of {row['target']} on val {row['with']:.3g} {row['unit']}, "
        f"{row['without']:.3g} without."
        for _, row in found.iterrows()
    ] or ["Leads: no run is finished."]
