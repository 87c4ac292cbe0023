"""Does what a model learned carry over to a target that it never saw?  A new linear head on frozen encoders and fusion
learns the band gap.

Cost: 6 runs, 0.1 hours on a core; "smoke", on the space group: 4 runs, 50 s on two.
"""

from study.archive import RESULTS, value
from study.claims import paired
from study.pretraining import starts
from study.tables import BAND_GAP, SPACE_GROUP, planned_table, start_of, summary_table
from study.variants import variant
from xxlib.training.presets import PRESETS

TABLE = "transfer"
SEEDS = {"e_form": 3, "crystal_system": 1, "multi": 1}  # what the start has learned -> its seed, the latest there is


def learned(preset="small"):
    """The models whose frozen insides are read, by what they have learned."""
    seeds = dict.fromkeys(("e_form", "multi"), 0) if preset == "smoke" else SEEDS
    return {target: variant(preset, "bimodal", target, seed=seed) for target, seed in seeds.items()}


def head(preset, model, start):
    """The run of a new head on a start, in a quarter of the steps."""
    unseen = "space_group" if preset == "smoke" else "band_gap"  # data/demo has no band gaps
    return variant(preset, model, unseen, start, frozen=True, n_steps=PRESETS[preset].budget.n_steps // 4)


def runs(preset="small"):
    """A head on each start; beside them, models that were trained on the band gap.  With "smoke" the starts as well."""
    begun = learned(preset)
    heads = [head(preset, "bimodal", start) for start in begun.values()]
    if preset == "smoke":
        return [*begun.values(), *heads]
    heads += [head(preset, model, variant(preset, model, "multi", seed=1)) for model in ("composition", "xrd")]
    heads += [head(preset, "bimodal", starts(preset)["both"])]
    return heads + [variant(preset, model, "band_gap") for model in ("composition", "xrd", "bimodal")]


def table(configs=None, place=RESULTS):
    """The summary of heads and models of the unseen target, with their start."""
    configs = configs or runs()
    metric = SPACE_GROUP if configs[0].preset == "smoke" else BAND_GAP
    unseen = [config for config in configs if metric.split()[1] in config.objectives.targets]
    summary = summary_table(planned_table(unseen, place), (metric,))
    starts_by_path = {config.initial or "": start_of(config) for config in unseen}
    summary.insert(1, "start", [starts_by_path[initial] for initial in summary["initial"]])
    return summary


def findings(place=RESULTS):
    """What helps the band gap."""
    names = {target: head("small", "bimodal", start).name for target, start in learned().items()}
    names["nothing"] = head("small", "bimodal", starts()["both"]).name
    gap = {of: value(name, "mae", "band_gap", place=place) for of, name in names.items()}
    gain, half = paired(names["multi"], names["e_form"], "band_gap", place)
    return [
        f"A linear head reads the band gap to {gap['e_form']:.3f} eV from a model of E_f, to {gap['multi']:.3f} eV "
        f"from one of E_f and crystal system, to {gap['nothing']:.3f} eV after pretraining without labels and to "
        f"{gap['crystal_system']:.3f} eV from a model of the crystal system.",
        f"The crystal system beside E_f costs {gain:.3f} ± {half:.3f} eV (95 %, over the crystals of test).",
    ]
