"""Which model answers for a measured scan?  Every target at once, from composition, pattern or both; the choice is made
on `val`, in every view of it.

Trained by its likelihood: by squared errors, what is asked without its composition outweighs all the rest.
The last one begins with the encoder that has learned from formulas, and says energies and band gaps alone: the crystal
system is left to a reader of patterns (readers.py).
Cost: 7 runs, 7.1 hours on a core.
"""

import re

from study import leads
from study.archive import RESULTS, value
from study.tables import planned_table
from study.variants import models, pretraining, variant
from xxlib.training.presets import PRESETS

TABLE = "predictor"
PREDICTOR = {"targets": ("e_form", "band_gap", "crystal_system"), "one_target": False, "absent_rate": 0.15}
PREDICTORS = {
    "laboratory": {"effects": "laboratory", "likelihood": True},
    "ideal": {"likelihood": True},
    "squares": {"effects": "laboratory"},
    "system": {"effects": "laboratory", "targets": ("crystal_system",), "absent_rate": 0.3},
}


def runs(preset="small"):
    """The predictors, at the learning rate of the preset: they are asked for the pattern alone, too; what a checkpoint
    shows of hidden tokens, of the pattern alone, a quarter of the size; the predictor of energies and its start."""
    both = variant(preset, "bimodal", "e_form", learning_rate=PRESETS[preset].budget.learning_rate)
    configs = [both.but(name=f"predictor-{name}-s0", **PREDICTOR | changes) for name, changes in PREDICTORS.items()]
    guessing = pretraining(preset, "mxm", hidden_rate=0.2, model=models(preset)["xrd"])
    return [*configs, guessing.but(name="reconstructing-s0"), leads.of_energies(preset), energies()]


def energies():
    """The predictor of energies and band gaps."""
    of_both = PREDICTOR | {"targets": ("e_form", "band_gap"), "effects": "laboratory"}
    of_both["n_steps"] = PRESETS["small"].budget.n_steps
    return variant("plus", "bimodal", "e_form", leads.of_energies()).but(name="predictor-plus-s0", **of_both)


def table(configs=None, place=RESULTS):
    """Every view of `val`, a row a run."""
    rows = planned_table(configs or runs(), place)
    views = [name for name in rows if re.match(r"val.* (mae|accuracy) \(", name)]
    rest = ["learning_rate", "n_steps", "dataset", "labels", "split", "preset", "seed", "hardware", "commit", "note"]
    return rows[["name", *views, *rest]]


def findings(place=RESULTS):
    """What the effects of a diffractometer cost on ideal patterns."""
    real, ideal = (value(f"predictor-{name}-s0", "accuracy", "crystal_system", "val", place, given="composition + xrd")
                   for name in ("laboratory", "ideal"))  # fmt: skip
    return [
        f"On ideal patterns of val, the model trained under the effects of a diffractometer is right for {real:.1f} % "
        f"of the crystal systems, the one trained on ideal patterns for {ideal:.1f} %."
    ]
