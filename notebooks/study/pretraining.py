"""Does a model learn faster, and better, when it first learned without labels?  Table 2 and Figure 6: pretraining by
both tasks and by each, then the same fine-tuning as from scratch.

Cost: 10 runs, 10.7 hours on a core; "smoke": 3 runs, 45 s on two.
"""

import numpy as np
import pandas as pd

from study import archive, claims, paper
from study.archive import RESULTS
from study.tables import ORIGIN, finished, groups, origin, start_of
from study.variants import MULTI, pretraining, variant
from xxlib import plots
from xxlib.training.presets import PRESETS

TABLE = "table_2"
FASTER, BETTER = "Training is faster after pretraining", "Better in the end after pretraining"
SHARES = (0.05, 0.15, 0.25)  # of training, at which Table 2 looks
# Target -> metric, its name with unit, whether it grows.
CURVES = {
    "e_form": ("mae", "MAE of E_f (meV/atom)", False),
    "band_gap": ("mae", "MAE of band gap (eV)", False),
    "crystal_system": ("accuracy", "accuracy of crystal system (%)", True),
}
SMOKE = {"n_steps": 100}


TASKS = {"both": "both tasks", "contrastive": "contrastive task", "mxm": "masked modelling"}  # on figures
STARTED = {  # how figures call a start
    "scratch": "from scratch",
    "both": "after both tasks",
    "contrastive": "after the contrastive task",
    "mxm": "after masked modelling",
}


def starts(preset="small", **changes):
    """The pretrainings, by their name; changes: as RunConfig.but takes them."""
    if preset == "smoke":
        return {"both": pretraining(preset, "both", **SMOKE)}
    return {name: pretraining(preset, name, **changes) for name in ("both", "contrastive", "mxm")}


def runs(preset="small"):
    """The starts; each with the same steps of fine-tuning; then from scratch with those of pretraining added, which for
    two targets is also as many labels of each as a single-target run sees.  For one target: scratch against both tasks.
    """
    begun, short = starts(preset), SMOKE if preset == "smoke" else {}
    configs = [*begun.values(), variant(preset, "bimodal", "multi", **short)]
    configs += [variant(preset, "bimodal", "multi", start, **short) for start in begun.values()]
    if preset == "smoke":
        return configs
    configs += [variant(preset, "bimodal", "multi", n_steps=2 * PRESETS[preset].budget.n_steps)]
    for target, seeds in (("e_form", (0, 1, 2)), ("crystal_system", (0,))):
        both = begun["both"]
        configs += [variant(preset, "bimodal", target, start, seed=seed) for seed in seeds for start in (None, both)]
    return configs


def table(configs=None, place=RESULTS):
    """What pretraining saves: metrics on `val` at 5, 15 and 25 % of training and at best, means over the seeds.

    speed-up: 25 % of training, divided by the steps after which a run reaches what the run from scratch of its seed has
    reached there.  From scratch with other steps: no speed-up.
    """
    rows, configs = [], configs or runs()
    done = finished([config for config in configs if config.objectives.targets], place)
    scratch = {_alike(config): config for config in done if config.initial is None}
    for group in groups(configs, lambda c: (c.objectives.targets, c.initial, c.budget.n_steps)):
        first, there = group[0], [config for config in group if config in done]
        pairs = [(scratch.get(_alike(config)), config) for config in there if first.initial]
        pairs = [pair for pair in pairs if pair[0]]
        for target in first.objectives.targets:
            _, shown, rising = CURVES[target]
            row = {"model": f"XxaCT-NN {first.preset}", "start": start_of(first)}
            row |= {"targets": " + ".join(first.objectives.targets)}
            row |= {"n_steps": first.budget.n_steps, "metric": shown}
            if there:
                curves = [_curve(config, target, place) for config in there]
                row |= {f"val at {share:.0%}": np.mean([value_at(*one, share) for one in curves]) for share in SHARES}
                row["val at best"] = np.mean([max(values) if rising else min(values) for _, values in curves])
                tests = [archive.value(config.name, CURVES[target][0], target, place=place) for config in there]
                row |= {"test": np.mean(tests), "+- test": pd.Series(tests).std()}
            if pairs:
                gain = speed_up(*([_curve(one, target, place) for one in side] for side in zip(*pairs)), rising)
                row |= {"speed-up": gain["mean"], "+- speed-up": gain["std"]}
                reached = SHARES[-1] * first.budget.n_steps / gain["ratios"][gain["ratios"] > 0]
                row["steps to scratch's 25%"] = reached.mean() if len(reached) else np.nan
            rows.append(row | origin(group, place))
    columns = ["model", "start", "targets", "n_steps", "metric"]
    columns += [*(f"val at {share:.0%}" for share in SHARES), "val at best"]
    columns += ["test", "+- test", "steps to scratch's 25%", "speed-up", "+- speed-up", *ORIGIN]
    return pd.DataFrame(rows, columns=columns)


def _alike(config):
    return config.objectives.targets, config.budget.n_steps, config.seed


def _curve(config, target, place):
    """Steps and values of the metric of a target on `val`, in the unit of the tables."""
    samples, values = archive.read(config.name, place).curve(CURVES[target][0], target)
    return samples / config.budget.batch_size, values


# ---------------------------------------------------------------- how soon


def steps_to_reach(steps, values, value, rising=False):
    """The step at which a metric first reaches a value, straight lines drawn between evaluations (n,).

    It falls, as an error; rising: it grows, as an accuracy.  A value that the first evaluation has reached already
    counts as reached there; inf: never.
    """
    missing = (value - np.asarray(values) if rising else np.asarray(values) - value) > 0
    if missing.all():
        return np.inf
    i = int(np.argmin(missing))  # the first evaluation that has reached it
    if i == 0:
        return float(steps[0])
    share = (values[i - 1] - value) / (values[i - 1] - values[i])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))


def value_at(steps, values, share):
    """A metric after a share of the steps of a run, straight lines drawn between evaluations (n,).

    Raises ValueError where that is before the first evaluation.
    """
    if not len(steps) or share * steps[-1] < steps[0]:
        first = f"the first evaluation is at step {steps[0]:.0f}" if len(steps) else "nothing was evaluated"
        raise ValueError(f"{first}, not after {share:.0%} of training")
    return float(np.interp(share * steps[-1], steps, values))


def speed_up(scratch, pretrained, rising=False, share=SHARES[-1]):
    """How many times fewer steps pretrained runs need for what scratch runs reach at 25 % of training.

    scratch, pretrained: (steps, values) of runs, in the same order of seeds, so that each pretrained run is compared
    with the scratch run of its seed.  Returns a dict: mean and standard deviation (n - 1, NaN for one seed) of the
    ratio, and ratios (n,), 0 where a run never arrived.
    """
    if len(scratch) != len(pretrained) or not scratch:
        raise ValueError(f"{len(scratch)} scratch and {len(pretrained)} pretrained runs: one of each for every seed")
    ratios = []
    for before, after in zip(scratch, pretrained):
        until = share * before[0][-1]
        ratios.append(until / steps_to_reach(*after, value_at(*before, share), rising))
    ratios = np.array(ratios)
    spread = float(ratios.std(ddof=1)) if len(ratios) > 1 else np.nan
    return {"mean": float(ratios.mean()), "std": spread, "ratios": ratios}


# ---------------------------------------------------------------- what is found


def findings(place=RESULTS, table_2=None, start=None, **changes):
    """That pretraining saves steps, and that it improves what is reached in the end.

    start: the pretraining by both tasks, if it is not that of Table 2.  changes: by which the runs that follow it
    differ from those of Table 2, as RunConfig.but takes them.
    """
    table_2 = table(place=place) if table_2 is None else table_2
    start = start or starts()["both"]
    return faster(table_2, start) + better(table_2, start, place, **changes)


def faster(table_2, start):
    """That pretraining by both tasks saves steps: a Finding a model; one seed does not say whether it is luck.

    Held is that it saves some, not that it saves the 4.2 times of the paper.
    """
    both = start.name
    rows = table_2[(table_2["start"] == both) & table_2["speed-up"].notna()]
    return [_sped_up(row) for _, row in rows.iterrows()] or [claims.unfinished(FASTER, "any target", [both])]


def _sped_up(row):
    of = f"{row['metric'].split(' (')[0]}{_trained_on(row)}"
    in_paper = f"{_in_paper(row, 'speed-up')} times" if _is_multi(row) else ""
    times, spread, seeds = row["speed-up"], row["+- speed-up"], int(row["seeds"])
    if not np.isfinite(spread):  # of one seed, or of several of which one has its run from scratch
        return claims.Finding(FASTER, of, f"{times:.1f} times", "open, one seed", in_paper)
    reach = claims.quantile(seeds - 1) * spread / np.sqrt(seeds)
    held = "held" if times - reach > 1 else "did not hold" if times + reach < 1 else "open"
    interval = f"{times - reach:.1f} to {times + reach:.1f}"
    measured = f"{times:.1f} ± {spread:.2g} times ({seeds} seeds)"
    return claims.Finding(FASTER, of, measured, f"{held} (95 % over seeds: {interval})", in_paper)


def better(table_2, start, place=RESULTS, **changes):
    """That pretraining by both tasks improves what is reached in the end, with the same steps of fine-tuning: a Finding
    a model."""
    found, both = [], start.name
    for _, rows in table_2.groupby(["targets", "metric", "n_steps"], sort=False):
        rows = rows.dropna(subset="test").set_index("start")
        if both in rows.index and "scratch" in rows.index:
            found.append(_changed(rows.loc["scratch"], rows.loc[both], start, place, **changes))
    return found or [claims.unfinished(BETTER, "any target", [both])]


def _changed(before, after, start, place, **changes):
    """What pretraining changes in one metric: rows of Table 2 as `before` and `after`."""
    target = _target(before)
    quantity, unit = before["metric"].removesuffix(")").split(" (")
    trained = "multi" if _is_multi(before) else target
    names = [variant("small", "bimodal", trained, of, **changes).name for of in (None, start)]
    in_paper = ""
    if _is_multi(before):
        ends = [_in_paper(before, "val at best", of) for of in ("scratch", "contrastive + mxm")]
        in_paper = f"from {' to '.join(ends)} {unit}"
    return claims.Finding(
        BETTER,
        f"{quantity}{_trained_on(before)}",
        f"from {claims.measured(before, 'test')} to {claims.measured(after, 'test')} {unit}",
        claims.verdict(
            before, after, "test", unit, 1 if CURVES[target][2] else -1, claims.scatter(*names, target, place)
        ),
        in_paper,
    )


def _target(row):
    return next(target for target, (_, shown, _) in CURVES.items() if shown == row["metric"])


def _trained_on(row):
    return "" if row["targets"] == _target(row) else " of a model of both targets"


def _is_multi(row):
    return row["targets"] == " + ".join(MULTI)  # of which Table 2 of the paper is


def _in_paper(row, column, start="contrastive + mxm"):
    return paper.said("table_2", column, metric=row["metric"], start=start)


# ---------------------------------------------------------------- figures


def figures(configs=None, place=RESULTS):
    """What pretraining learns, and the learning curves after each start (Figure 6).

    Where several seeds have finished, a line is their mean and the band their range.
    """
    configs = configs or runs()
    preset = configs[0].preset
    title, begun, drawn = archive.label(preset), starts(preset), {}
    for name, metric, scale, quantity in (
        ("pretraining_mxm", "masked xrd", 1, "relative squared error of hidden tokens on val"),
        ("pretraining_retrieval", "retrieval composition + xrd", 100, "partner found among 512 or fewer, on val (%)"),
    ):
        curves = {}
        for start, config in begun.items():
            record = archive.read(config.name, place)
            samples, values = record.curve(metric) if record else ((), ())
            if len(samples):
                curves[TASKS[start]] = samples, scale * values
        if curves:
            drawn[name] = plots.learning_curves(curves, quantity, title, log=False)
    columns = {}
    for quantity, target, metric in (
        ("MAE of $E_f$ on val (meV/atom)", "e_form", "mae"),
        ("accuracy of crystal system on val (%)", "crystal_system", "accuracy"),
        ("relative error on val, multi-target", None, "error"),
    ):
        column = _after_each_start(configs, place, begun, target, metric)
        if column:
            columns[quantity] = column
    if columns:
        drawn["figure_6"] = plots.learning_columns(columns, title)
    return drawn


def _after_each_start(configs, place, begun, target, metric):
    """Start -> samples and values of each seed, of models of one target, or of MULTI where there are none."""
    names = {None: "scratch"} | {f"data/runs/{config.name}": name for name, config in begun.items()}
    n_steps = min(config.budget.n_steps for config in configs)
    single = [config for config in configs if target and config.objectives.targets == (target,)]
    multi = [config for config in configs if config.objectives.targets == MULTI]
    lines = {}
    for config in finished([c for c in single or multi if c.budget.n_steps == n_steps], place):
        lines.setdefault(STARTED[names[config.initial]], []).append(
            archive.read(config.name, place).curve(metric, target)
        )
    return {start: (seeds[0][0], [values for _, values in seeds]) for start, seeds in lines.items()}
