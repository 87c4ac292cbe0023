"""Would each target rather have a checkpoint of its own?  Of runs with two targets or more, the error on `val` at the
step that is best for all together, which is kept, and at the step that is best for one of them.

Steps are chosen on the same `val`, so that a gain is at most what a second checkpoint would give.
Cost: nothing, the curves of finished runs say it.
"""

import pandas as pd

from study import archive, knowledge, modalities, predictors, pretraining
from study.archive import RESULTS
from study.tables import finished, origin
from xxlib.datasets.targets import TARGETS

TABLE = "per_task"
OWN, JOINT, GAIN = "at its own best step", "at the best step of all", "gain"


def configs_of():
    """The runs of several targets that say them all of what they read."""
    planned = [*modalities.runs(), *pretraining.runs(), *predictors.runs(), knowledge.teacher()]
    several = {config.name: config for config in planned if len(config.objectives.targets) > 1}
    return list(several.values())


def table(configs=None, place=RESULTS):
    """A row a run and target: its metric on `val` at both steps, in the unit of tables; how much better its own is."""
    rows = []
    for config in finished(configs or configs_of(), place):
        record, given = archive.read(config.name, place), " + ".join(config.model.modalities)
        for name in config.objectives.targets:
            target, seen = TARGETS[name], record.best_step * config.budget.batch_size
            metric, unit = ("accuracy", "%") if target.kind == "classification" else ("mae", target.error_unit)
            samples, values = record.curve(metric, name, given=given, effects=config.data.effects)
            if seen not in samples:
                continue
            better = max if metric == "accuracy" else min
            own, joint = better(values), float(values[samples == seen][0])
            row = {"run": config.name, "target": name, "unit": unit, "evaluations": len(samples)}
            row |= {"samples of its own": samples[values == own][0], "samples of all": seen}
            row |= {JOINT: joint, OWN: own, GAIN: abs(own - joint)}
            rows.append(row | origin([config], place))
    return pd.DataFrame(rows)


def findings(place=RESULTS):
    """What a checkpoint of its own gives a target at most, over all runs."""
    found, said = table(place=place), []
    for (target, unit), rows in found.groupby(["target", "unit"], sort=False) if len(found) else ():
        if len(rows) < 2:
            continue
        said.append(
            f"{target}: a checkpoint of its own gives at most {rows[GAIN].mean():.2g} {unit} on average over "
            f"{len(rows)} runs of several targets, and {rows[GAIN].max():.2g} in the best case."
        )
    return said or ["Checkpoints of one target: too few runs of several are finished."]
