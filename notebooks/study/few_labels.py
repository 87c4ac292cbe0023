"""What is a model of mp36k worth to a few labels of something else?  Band gaps of (Al,Ga,In)2O3 alloys, NOMAD 2018.

Cost: 20 runs, 2.4 hours on a core, an eighth of the steps.
"""

from study import archive
from study.archive import LABELS, RESULTS, value
from study.claims import paired
from study.pretraining import starts
from study.tables import BAND_GAP, planned_table, summary_table
from study.transfer import learned
from study.variants import variant
from xxlib import plots
from xxlib.training.presets import PRESETS

TABLE = "few_shot"
NOMAD = "data/nomad2018"
SHOTS = (30, 100, 300, 1000)


def lines(preset="small"):
    """The runs of each line of the figure, by what was given and learned."""
    begun, found = learned(preset), {}
    ways = {
        "composition, from scratch": ("composition", None),
        "both, from scratch": ("bimodal", None),
        "both, from $E_f$": ("bimodal", begun["e_form"]),
        "both, from $E_f$ and crystal system": ("bimodal", begun["multi"]),
        "both, from pretraining": ("bimodal", starts(preset)["both"]),
    }
    for shots in SHOTS:
        budget = {"dataset": NOMAD, "n_train": shots, "n_steps": PRESETS[preset].budget.n_steps // 8}
        for words, (model, start) in ways.items():
            found.setdefault(words, []).append(variant(preset, model, "band_gap", start, **budget))
    return found


def runs(preset="small"):
    """From scratch and fine-tuned from models of mp36k."""
    return [config for of_size in zip(*lines(preset).values()) for config in of_size]


def table(configs=None, place=RESULTS):
    """The summary of the runs."""
    return summary_table(planned_table(configs or runs(), place), [BAND_GAP])


def figures(configs=None, place=RESULTS):
    """Points alone: four sizes are too few for a law."""
    panels = {}
    for words, of_line in lines().items():
        there = [config for config in of_line if archive.read(config.name, place)]
        if there:
            errors = [value(config.name, "mae", "band_gap", place=place) for config in there]
            panels[words] = [config.data.n_train for config in there], errors, None
    title = f"nomad2018, {LABELS[NOMAD]}"
    return {"few_shot": plots.scaling(panels, "MAE of the band gap on test (eV)", title)} if panels else {}


def findings(place=RESULTS):
    """What pretraining gains with the fewest and with the most labels."""
    scratch, after = (lines()[f"both, from {start}"] for start in ("scratch", "pretraining"))
    parts = []
    for k in (0, -1):
        gain, half = paired(scratch[k].name, after[k].name, "band_gap", place)
        before = value(scratch[k].name, "mae", "band_gap", place=place)
        parts.append(f"with {SHOTS[k]:,} labels {gain:.3f} ± {half:.3f} of {before:.3f} eV")
    return [
        f"Pretraining takes from the error of a few band gaps {' and '.join(parts)} (95 %, over the crystals of test)."
    ]
