"""What makes a better reader of patterns?  The crystal system and the space group on `val`, one change a line.

Every line keeps what the lines before it have changed; a quarter of the steps.  Then, in all of them and more, what the
changes reach together, from the pattern alone and with the composition; and what more there is to learn from, which the
last of these readers is shown for a quarter of the steps.
The datasets of MORE are made by `python -m xxlib.prepare parquet ... --hkl --structure`, as mp36k is; OQMD's by
`prepare oqmd`, for its energies are not the Materials Project's; that of minerals by `prepare amcsd amcsd ... --hkl`.
Cost: 12 runs, 10.8 hours on a core.
"""

import dataclasses

import pandas as pd

from study import archive, mp90k
from study.archive import RESULTS
from study.claims import WORDS
from study.tables import ORIGIN, origin
from study.variants import models, variant, with_convolutions
from xxlib import plots
from xxlib.training import records
from xxlib.training.presets import PRESETS

TABLE = "readers"
SYMMETRY = ("crystal_system", "space_group")
UNLABELLED, OQMD = "data/mp_unlabelled", "data/oqmd_icsd"
MORE = (mp90k.DATASET, UNLABELLED, OQMD)
STORED = ("--hkl", "--structure")  # what its effects need of each
# What is changed, and the run of that line; a line has all changes up to its own.
CHANGES = {
    "convolutions": ("convolutions", {"precision": "bf16"}),
    "the space group, too": ("symmetry", {"targets": SYMMETRY, "one_target": False}),
    "strained cells": ("strained", {"effects": "strained"}),
    "more structures": ("more", {"also": MORE}),
    "effects of a diffractometer": ("wide", {"effects": "wide"}),
}
ALONE, BOTH = "more structures, trained on", "all, with the composition"
SILENT, LONGER = "half of the patterns ideal, a fusion that is silent at first", "the same, for twice the steps more"
LAST = "and every width, and minerals, for twice the steps more"
MINERALS = "data/amcsd"
FURTHER = {
    "then, ideal patterns of every width": ("widths", {"effects": "widths"}),
    "then, minerals": ("minerals", {"effects": "widths", "also": (*MORE, MINERALS)}),
}
VIEW = ["judged", "given", "effects"]
ACCURACIES = ("accuracy", "balanced_accuracy")
RIGHT = [f"{target} accuracy (%)" for target in SYMMETRY]


def lines(preset="small"):
    """The run of each line by what it changes, after the two readers that there were."""
    quarter = {"n_steps": PRESETS[preset].budget.n_steps // 4}
    of_line = {name: variant(preset, model, "crystal_system", **quarter)
               for name, model in (("transformer", "xrd"), ("FCN", "fcn"))}  # fmt: skip
    config = variant(preset, "convolutions", "crystal_system", evaluate_test=False, **quarter)
    for line, (word, changes) in CHANGES.items():
        config = config.but(name=f"reader-{word}-s0", **changes)
        of_line[line] = config
    return of_line


def readers(preset="small"):
    """The last line of ideal patterns trained on, and from its encoder the run that all changes make: it is asked with
    the composition and without, ideal patterns and others.

    Ideal patterns come first because with effects, and compositions beside them, it learns to read much later.  And
    what it has learned is lost in a fusion that begins at random: reader-both knows less of patterns than reader-alone.
    """
    n_steps, changes = PRESETS[preset].budget.n_steps, {}
    for _, change in CHANGES.values():
        changes |= change
    start = lines(preset)["more structures"]
    further = {"n_steps": n_steps * 3 // 4, "initial": f"data/runs/{start.name}", "evaluate_test": True}
    alone = start.but(name="reader-alone-s0", **further)
    both = variant(preset, "bimodal", "crystal_system", learning_rate=PRESETS[preset].budget.learning_rate)
    model = {"model": with_convolutions(models(preset)["bimodal"]), "initial": f"data/runs/{alone.name}"}
    both = both.but(name="reader-both-s0", absent_rate=0.2, **model, **changes)
    silent = dataclasses.replace(both.model, fusion=dataclasses.replace(both.model.fusion, silent=True))
    mixed = both.but(name="reader-mixed-s0", model=silent, effects="mixed", learning_rate=both.budget.learning_rate / 2)
    longer = mixed.but(name="reader-longer-s0", n_steps=2 * n_steps, initial=f"data/runs/{mixed.name}")
    return {ALONE: alone, BOTH: both, SILENT: mixed, LONGER: longer}


def further(preset="small"):
    """The run of each line of FURTHER: from the last of the readers, which was shown other batches."""
    last = readers(preset)[LONGER]
    start = {"initial": f"data/runs/{last.name}", "seed": 1, "evaluate_test": False}
    start |= {"n_steps": PRESETS[preset].budget.n_steps // 4}
    return {line: last.but(name=f"reader-{word}-s1", **start, **changes) for line, (word, changes) in FURTHER.items()}


def last(preset="small"):
    """The reader that goes on with all of FURTHER."""
    *_, start = further(preset).values()
    n_steps = 2 * PRESETS[preset].budget.n_steps
    return start.but(
        name="reader-widest-s2", initial=f"data/runs/{start.name}", seed=2, n_steps=n_steps, evaluate_test=True
    )


def runs(preset="small"):
    """One a line, then the readers, and those that go on from them."""
    return [*lines(preset).values(), *readers(preset).values(), *further(preset).values(), last(preset)]


def table(configs=None, place=RESULTS):
    """One row a line and a view of it: % of crystals whose system, and whose space group, is right.

    On `val`; the readers also on `test`.  balanced: the mean over crystal systems.
    """
    rows = []
    for line, config in {**lines(), **readers(), **further(), LAST: last()}.items():
        common, measured = origin([config], place), _measured(config, place)
        for view in measured.drop_duplicates(VIEW)[VIEW].to_dict("records") or [{}]:
            row = {"line": line} | {name: value or "" for name, value in view.items()}
            of_view = measured[(measured[VIEW] == pd.Series(view)).all(axis=1)] if view else measured
            row |= {f"{one.target} {one.metric} (%)": 100 * one.value for one in of_view.itertuples()}
            rows.append(row | {"n_steps": config.budget.n_steps} | common)
    metrics = [f"{target} {metric} (%)" for target in SYMMETRY for metric in ACCURACIES]
    return pd.DataFrame(rows, columns=["line", *VIEW, *metrics, "n_steps", *ORIGIN])


def _measured(config, place):
    """The accuracies of a finished run, a row each: VIEW, target, metric and value."""
    record = archive.read(config.name, place)
    metrics = pd.DataFrame([] if record is None else record.metrics, columns=records.KEYS)
    metrics = metrics[metrics["metric"].isin(ACCURACIES) & metrics["exchanged"].isna()]
    metrics = metrics.rename(columns={"split": "judged"})
    judged = ("val", "test") if config in (*readers().values(), last()) else ("val",)
    return metrics[metrics["judged"].isin(judged)].fillna({name: "" for name in VIEW})


def gains(place=RESULTS):
    """What each line has gained on ideal patterns of `val` over the transformer, and half of its 95 % interval, points.

    The interval is that of two samples: which crystals are right is not kept of `val`.
    """
    rows = table(place=place).query("judged == 'val' and effects == ''").set_index("line")
    right = rows.loc[[line for line in lines() if line in rows.index], RIGHT[0]] / 100
    errors = right * (1 - right) / archive.crystals("data/mp36k", place)["split"].eq("val").sum()
    first = "transformer"
    gain, half = 100 * (right - right[first]), 196 * (errors + errors[first]) ** 0.5
    return pd.DataFrame({"gain": gain, "half": half}).drop(index=first)


def figures(configs=None, place=RESULTS):
    """What each line gains."""
    gain = gains(place)
    if gain.empty:
        return {}
    groups = {"ideal patterns, val": (gain.index, gain["gain"], gain["half"])}
    return {"readers": plots.differences(groups, "crystal systems right, gain over the transformer (points)")}


def findings(place=RESULTS):
    """What a change is worth, line by line, and what the last reader reaches."""
    gain, rows = gains(place), table(place=place)
    added = gain["gain"].diff().fillna(gain["gain"])
    said = [f"{line} {points:+.1f}" for line, points in added.items()]
    sentences = [
        "Crystal systems on ideal patterns of val, points that each change adds "
        f"(± {half:.1f}, 95 %): {', '.join(said)}."
        for half in gain["half"].iloc[-1:]
    ]
    tested = rows[(rows["judged"] == "test") & (rows["line"] == rows.loc[rows["judged"] == "test", "line"].iloc[-1])]
    for given, effects, system, group in zip(tested["given"], tested["effects"], *(tested[name] for name in RIGHT)):
        patterns = f", {effects or 'ideal'} patterns" if "xrd" in given else ""
        sentences.append(
            f"{WORDS[given].capitalize()}{patterns} of test: {system:.1f} % of the crystal systems, {group:.1f} % of "
            "the space groups."
        )
    return sentences
