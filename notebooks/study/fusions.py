"""How are composition and pattern fused best?  Each way by itself, with either missing and with a noisy pattern; and
relational pretraining beside contrastive.

All at the rate that was chosen for cross-attention, those of the crystal system with a quarter of the steps, all others
with an eighth.  The fusions are trained with a fifth of the samples without their composition and a fifth without their
pattern, under the effects of a diffractometer; energies by likelihood, for the squared errors of what is asked without
its composition outweigh all the rest.  Pretraining and what follows it have both inputs always and ideal patterns.
Cost: 22 runs, 2.4 hours on a core.
"""

import dataclasses

import pandas as pd

from study import archive, encoders, gates
from study.archive import RESULTS
from study.claims import paired
from study.tables import finished, origin, start_of, whole
from study.variants import MIXED, models, pretraining, variant
from xxlib import plots
from xxlib.datasets.targets import TARGETS
from xxlib.training.presets import PRESETS

TABLE = "fusions"
# Words for a fusion -> what it is; the paper's is the first.
KINDS = {
    "pattern asks": {"kind": "cross_attention", "query": "xrd", "memory": ("composition",)},
    "composition asks": {"kind": "cross_attention", "query": "composition", "memory": ("xrd",)},
    "each asks the other": {"kind": "mutual_attention"},
    "concatenated": {"kind": "concat"},
    "gated": {"kind": "gated"},
    "experts": {"kind": "experts"},
    "late": {"kind": "late"},
}
PAPER = "pattern asks"
NOISY, ABSENT = "laboratory", 0.2
SHOWN = {"crystal_system": "accuracy", "e_form": "mae"}  # target -> metric, important ones first
SHARE = {"crystal_system": 4, "e_form": 8}  # of the steps of a preset that a fusion is trained for: one in so many
STARTS = ("contrastive", "relational")
BOTH = "composition + xrd"
VIEWS = {
    "from both": {"given": BOTH},
    "noisy pattern": {"given": BOTH, "effects": NOISY},
    "pattern missing": {"given": "composition"},
    "composition missing": {"given": "xrd"},
    "composition missing, noisy pattern": {"given": "xrd", "effects": NOISY},
    "another crystal's pattern": {"given": BOTH, "exchanged": "xrd"},
}
MISSING = [view for view in VIEWS if "missing" in view]
GIVEN = [view for view in VIEWS if view not in MISSING]
GAIN, IGNORES = "gain (meV/atom or points)", "ignores its patterns"


def fused(word, target, preset="small"):
    """The run of a fusion, trained under NOISY effects."""
    both = models(preset)["bimodal"]
    model = dataclasses.replace(both, fusion=dataclasses.replace(both.fusion, **KINDS[word]))
    config = variant(preset, "bimodal", target, n_steps=PRESETS[preset].budget.n_steps // SHARE[target])
    parts = [*[preset] * (preset != "small"), "fusion", word.replace(" ", "_"), target, NOISY, "s0"]
    learns = {"effects": NOISY, "absent_rate": ABSENT, "likelihood": target == "e_form", **MIXED}
    return config.but(name="-".join(parts), model=model, **learns)


def starts(preset="small"):
    """The pretrainings that are compared."""
    return [pretraining(preset, name, n_steps=PRESETS[preset].budget.n_steps // 8, **MIXED) for name in STARTS]


def tuned(target, preset="small", start=None):
    """The run of a target after a start, or from scratch."""
    return variant(preset, "bimodal", target, start, n_steps=PRESETS[preset].budget.n_steps // 8, **MIXED)


def runs(preset="small"):
    """Each fusion, the crystal system first; each start and what follows it; then energies under noise.

    "smoke" has two fusions.
    """
    if preset == "smoke":
        return [fused(word, "crystal_system", preset) for word in (PAPER, "gated")]
    begun = starts(preset)
    after = [tuned(target, preset, start) for target in SHOWN for start in (None, *begun)]
    fusions = {target: [fused(word, target, preset) for word in KINDS] for target in SHOWN}
    return [*fusions["crystal_system"], *begun, *after, *fusions["e_form"]]


def alone(preset="small"):
    """The runs of Table 3 that read one of the inputs, for comparison: each by itself, ideal patterns."""
    return [encoders.run(preset, model, target) for target in SHOWN for model in ("composition", "xrd")]


def table(configs=None, place=RESULTS):
    """A row a run: the error on `test`, or the share that is right, in each of VIEWS; in the unit of the target.

    gain: how much smaller the error from both is, or the share that is wrong, than that of the paper's fusion; of what
    was pretrained, than that from scratch.  Beside it half of its 95 % interval over the crystals.  One seed each.
    """
    configs = [config for config in configs or [*runs(), *alone()] if config.objectives.targets]
    there, rows = finished(configs, place), []
    for config in configs:
        target = config.objectives.targets[0]
        row = {"fusion": said(config), "start": start_of(config), "target": target, "unit": unit(target)}
        row |= {"trained on": _trained_on(config), "parameters": None}
        row |= dict.fromkeys(VIEWS) | {GAIN: None, f"+- {GAIN}": None}
        if config in there:
            row["parameters"] = archive.read(config.name, place).parameters
            row |= {view: _value(config, target, place, **given) for view, given in VIEWS.items()}
            first = compared_with(config)
            if first in there and first != config:
                row[GAIN], row[f"+- {GAIN}"] = paired(first.name, config.name, target, place)
        rows.append(row | {"n_steps": config.budget.n_steps} | origin([config], place))
    return whole(pd.DataFrame(rows))


def said(config):
    """The fusion of a run, in words of KINDS; "none" where it has one input."""
    fusion = config.model.fusion
    if fusion is None:
        return f"none, {' '.join(config.model.modalities)} alone"
    return next(word for word, changes in KINDS.items() if dataclasses.replace(fusion, **changes) == fusion)


def _trained_on(config):
    always = "" if config.data.absent_rate or config.model.fusion is None else ", both inputs always"
    return f"{config.data.effects or 'ideal'} patterns{always}"


def unit(target):
    """What the numbers of a target are in."""
    return "%" if TARGETS[target].kind == "classification" else TARGETS[target].error_unit


def compared_with(config):
    """The run that another one is to beat; None: it has one input."""
    if config.model.fusion is None:
        return None
    (target,) = config.objectives.targets
    if config.data.absent_rate:
        return fused(PAPER, target, config.preset)
    return tuned(target, config.preset)


def _value(config, target, place, **view):
    try:
        return archive.value(config.name, SHOWN[target], target, place=place, **view)
    except KeyError:
        return None


def figures(configs=None, place=RESULTS):
    """What each fusion gains over the paper's, and each pretraining over none: a figure a target."""
    drawn, found = {}, table(configs, place).dropna(subset=GAIN)
    preset = (configs or runs())[0].preset
    for target, rows in found.groupby("target", sort=False):
        begun, groups = rows["start"] != "scratch", {}
        for trained, alike in rows[~begun].groupby("trained on", sort=False):
            groups[f"over the paper's fusion, {trained}"] = alike["fusion"], alike[GAIN], alike[f"+- {GAIN}"]
        after = rows[begun]
        groups["after pretraining, over none"] = after["start"].map(_task), after[GAIN], after[f"+- {GAIN}"]
        quantity = f"gain in {_of(target)} on test ({'points' if unit(target) == '%' else unit(target)})"
        drawn[f"fusions_{target}"] = plots.differences(groups, quantity, archive.label(preset))
    return drawn


def findings(place=RESULTS):
    """What the fusion decides, what a missing or a noisy input costs, what the gate says, what pretraining gives."""
    found, sentences = table(place=place), []
    fusions = found[(found["start"] == "scratch") & found["pattern missing"].notna() & found["from both"].notna()]
    for (target, trained), rows in fusions.groupby(["target", "trained on"], sort=False):
        sentences += _of_fusions(f"{_of(target)}, {trained}", unit(target), SHOWN[target] == "mae", rows)
    for target, rows in found[found["start"] != "scratch"].dropna(subset=GAIN).groupby("target", sort=False):
        gains = [f"{_task(row['start'])} {_with_interval(row, unit(target))}" for _, row in rows.iterrows()]
        sentences.append(f"{_of(target)}, what pretraining gains over none (95 %): {', '.join(gains)}.")
    said = [sentence[0].upper() + sentence[1:] for sentence in sentences]
    blind = [run.name for run in runs() if f"{run.name} ({IGNORES})" in " ".join(found["note"])]
    said += [f"{name} {IGNORES}: it is not counted." for name in blind]
    return [*said, *gates.findings(place)] or ["Fusions: no run is finished."]


def _of(target):
    return "accuracy of crystal system" if target == "crystal_system" else f"MAE of {TARGETS[target].short}"


def _task(start):
    return start.split("-")[1]  # of pretrain-relational-steps2000-s0


def _with_interval(row, unit):
    return f"{row[GAIN]:+.1f} ± {row[f'+- {GAIN}']:.1f} {'points' if unit == '%' else unit}"


def _of_fusions(of, unit, smaller, rows):
    """Sentences of the fusions of one target, trained alike; smaller: is better."""
    ranked = {view: rows.set_index("fusion")[view].astype(float).dropna() for view in VIEWS}
    ranked = {view: values.sort_values(ascending=smaller) for view, values in ranked.items() if len(values)}
    said = ", ".join(f"{value:.1f} {fusion}" for fusion, value in ranked.pop("from both").items())
    sentences = [f"{of}, from both: {said} ({unit})."]
    ends = [f"{view} {values.iloc[0]:.1f} {values.index[0]} to {values.iloc[-1]:.1f} {values.index[-1]}"
            for view, values in ranked.items()]  # fmt: skip
    sentences.append(f"{of}, best to worst: {'; '.join(ends)} ({unit}).")
    others = rows.dropna(subset=GAIN)
    gain, half = (others[name].astype(float) for name in (GAIN, f"+- {GAIN}"))
    for words, which in (("better", gain > half), ("worse", gain < -half), ("level", gain.abs() <= half)):
        of_them = [f"{row['fusion']} {_with_interval(row, unit)}" for _, row in others[which].iterrows()]
        sentences += [f"{of}, {words} than the paper's fusion (95 %): {', '.join(of_them)}."] * bool(of_them)
    return [sentence.replace("level than", "level with") for sentence in sentences]
