"""Which crystal systems are known, and which are not?  Table 4: accuracy of each on `test`.

Cost: 0 runs, those of modalities, pretraining and representations.
"""

import pandas as pd

from study import archive, modalities, pretraining, representations
from study.archive import RESULTS
from study.tables import ORIGIN, finished, groups, model_of, origin, planned_table, start_of
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS

TABLE = "table_4"


def runs(preset="small"):
    """XxaCT-NN's models of the crystal system alone, then those of two targets."""
    single = [config for config in modalities.runs(preset) if config.objectives.targets == ("crystal_system",)]
    single = [config for config in single if config.model.architecture == "xxact"]
    multi = [config for config in pretraining.runs(preset) + representations.runs(preset)
             if "crystal_system" in config.objectives.targets]  # fmt: skip
    return list({config.name: config for config in single + multi}.values())


def table(configs=None, place=RESULTS):
    """Accuracy of each crystal system (%), the mean over systems, and of all crystals; means over seeds."""
    rows = []
    configs = [config for config in configs or runs() if "crystal_system" in config.objectives.targets]
    for group in groups(configs, lambda c: (str(c.model), c.objectives.targets, c.initial, c.budget.n_steps)):
        accuracies = pd.DataFrame([_accuracies(config.name, place) for config in finished(group, place)])
        first = planned_table(group[:1], place).iloc[0]
        row = {"model": model_of(first), "start": start_of(group[0])}
        row |= {name: first[name] for name in ("modalities", "targets", "n_steps")}
        rows.append(row | accuracies.mean().to_dict() | origin(group, place))
    columns = ["model", "start", "modalities", "targets", "n_steps", *CRYSTAL_SYSTEMS, "mean", "all"]
    return pd.DataFrame(rows, columns=[*columns, *ORIGIN])


def _accuracies(name, place):
    """% of the crystals of each system whose system is predicted; `mean` over systems; `all` crystals."""
    right = 100 - archive.errors(name, "crystal_system", place)
    systems = archive.predictions(name, place)["crystal_system"][right.index]
    of_each = right.groupby(systems.astype(int)).mean()
    named = {CRYSTAL_SYSTEMS[index]: value for index, value in of_each.items()}
    return named | {"mean": of_each.mean(), "all": right.mean()}


def findings(place=RESULTS):
    """The best and the worst known system, from both."""
    rows = table(place=place).query(
        "start == 'scratch' and modalities == 'composition + xrd' and targets == 'crystal_system'"
    )
    of_each = rows.iloc[0][list(CRYSTAL_SYSTEMS)].astype(float)
    best, worst = of_each.idxmax(), of_each.idxmin()
    return [
        f"From both, {of_each[best]:.0f} % of the {best} crystals are right, {of_each[worst]:.0f} % of the {worst}."
    ]
