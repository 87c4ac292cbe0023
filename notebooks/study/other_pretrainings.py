"""What does pretraining give that the paper did not try?  Other shares hidden, longer spans, crystals without labels.

Cost: 20 runs, 5.6 hours on a core, a quarter of the steps of pretraining and of fine-tuning.
"""

import pandas as pd

from study import archive
from study.archive import RESULTS
from study.claims import paired, spoken
from study.tables import E_FORM, ORIGIN, finished, origin
from study.variants import pretraining, variant
from xxlib import plots
from xxlib.training.masking import hidden_tokens
from xxlib.training.presets import PRESETS

TABLE = "hidden"
GENERATED = "data/generated50k"
RATES, SPANS = (0.05, 0.1, 0.2, 0.3, 0.5), (2, 4)
GAIN, HIDDEN = "gain (meV/atom)", "hidden in effect (%)"
MANY = 100_000  # patterns over which HIDDEN is a mean


def starts(preset="small"):
    """The pretrainings."""
    quarter = {"n_steps": PRESETS[preset].budget.n_steps // 4}
    masked = [pretraining(preset, "mxm", hidden_rate=rate, **quarter) for rate in RATES]
    masked += [pretraining(preset, "mxm", hidden_rate=0.2, hidden_span=span, **quarter) for span in SPANS]
    free = {"unlabelled": GENERATED, **quarter}
    both = [quarter, free, free | {"unlabelled_alone": True}]
    return masked + [pretraining(preset, "both", **changes) for changes in both]


def tuned(preset="small", start=None):
    """The run of E_f after a start, or from scratch."""
    return variant(preset, "bimodal", "e_form", start, n_steps=PRESETS[preset].budget.n_steps // 4)


def runs(preset="small"):
    """From scratch; then each pretraining and what follows it."""
    return [tuned(preset), *(config for start in starts(preset) for config in (start, tuned(preset, start)))]


def table(configs=None, place=RESULTS):
    """One row a pretraining.

    hidden in effect: a pattern hides one token, or span, at least (training.masking).
    gain: how much lower the MAE of E_f on `test` is than that of the run from scratch of the same steps, and half of
    its 95 % interval over the crystals.  One seed each.
    """
    configs = configs or runs()
    begun = {f"data/runs/{config.name}": config for config in configs if not config.objectives.targets}
    ends = [config for config in configs if config.objectives.targets]
    (scratch,) = (config for config in ends if not config.initial)
    there, rows = finished(ends, place), []
    for config in ends:
        row = {"pretraining": "none"}
        if config.initial:
            data, objectives = begun[config.initial].data, begun[config.initial].objectives
            tasks = ["contrastive"] * bool(objectives.contrastive) + ["mxm"] * bool(objectives.masked)
            learned = [None if data.unlabelled_alone else data.dataset, data.unlabelled]
            row = {"pretraining": " + ".join(tasks), "learned from": " + ".join(filter(None, learned))}
            row |= {"hidden (%)": 100 * objectives.hidden_rate, "span (tokens)": objectives.hidden_span}
            row |= {HIDDEN: 100 * hidden_tokens(MANY, objectives.hidden_rate, objectives.hidden_span).mean()}
        if config in there:
            row[E_FORM] = archive.errors(config.name, "e_form", place).mean()
            if config.initial and scratch in there:
                row[GAIN], row[f"+- {GAIN}"] = paired(scratch.name, config.name, "e_form", place)
        rows.append(row | {"n_steps": config.budget.n_steps} | origin([config], place))
    columns = ["pretraining", "learned from", "hidden (%)", "span (tokens)", HIDDEN, E_FORM, GAIN, f"+- {GAIN}"]
    return pd.DataFrame(rows, columns=[*columns, "n_steps", *ORIGIN]).astype({"span (tokens)": "Int64"})


def figures(configs=None, place=RESULTS):
    """What each pretraining gains, with its interval."""
    gained = table(configs, place).dropna(subset=[GAIN])
    groups = {}
    for task, rows in (("MXM", gained[gained["pretraining"] == "mxm"]),
                        ("contrastive + MXM, 5 % hidden", gained[gained["pretraining"] != "mxm"])):  # fmt: skip
        spans = [f", spans of {span}" if span > 1 else "" for span in rows["span (tokens)"]]
        names = [f"{rate:.0f} % hidden{span}" for rate, span in zip(rows["hidden (%)"], spans)]
        if task != "MXM":
            names = list(rows["learned from"].str.replace("data/", "").map(spoken))
        groups[spoken(task)] = names, rows[GAIN], rows[f"+- {GAIN}"]
    quantity = "gain of MAE of E_f on test over scratch (meV/atom)"
    return {"hidden": plots.differences(groups, quantity, archive.label("small"))} if len(gained) else {}


def findings(place=RESULTS):
    """Masked modelling alone, both tasks, and generated crystals."""
    rows = table(place=place).dropna(subset=GAIN)
    alone = rows.loc[(rows["pretraining"] == "mxm") & (rows["span (tokens)"] == 1), GAIN]
    gain = rows[rows["pretraining"] != "mxm"].set_index("learned from")[GAIN]
    real = PRESETS["small"].data.dataset
    return [
        f"In a quarter of the steps the masked task alone gains {alone.min():.1f} to {alone.max():.1f} meV/atom, "
        f"hiding {100 * RATES[0]:.0f} to {100 * RATES[-1]:.0f} % of the tokens.",
        f"Both tasks gain {gain[real]:.1f} meV/atom, with 50,000 generated crystals beside the real ones "
        f"{gain[f'{real} + {GENERATED}']:.1f}, from generated crystals alone {gain[GENERATED]:.1f}.",
    ]
