"""Which learning rate suits each kind of model?  A search on `val`, in a quarter of the steps; it never sees `test`.

A tenth of the steps is too little: it prefers rates at which a fusion loses sight of the pattern later.  A first look
(E_f) had batch 512 behind 256 and 256 behind 128 for every model.
Cost: 30 runs, 5.8 hours on a core.
"""

import pandas as pd

from study import archive
from study.archive import RESULTS
from study.pretraining import starts
from study.tables import ordered, row
from study.variants import RATES, variant
from xxlib.training import records
from xxlib.training.metrics import ignores_pattern
from xxlib.training.presets import PRESETS

TABLE = "search"
TRIED = (2.5e-4, 5e-4, 1e-3, 2e-3)
# Where the highest of those was best.  Heads gain 0.4 % from the last doubling: there the search ends.
HIGHER = {"frozen": (4e-3, 8e-3, 1.6e-2, 3.2e-2), "fcn": (4e-3, 8e-3)}
# 1e-3 is best in a quarter of the steps, but over all of them a fusion loses sight of the pattern: the paper's rate.
HIGHEST = {"bimodal": 5e-4}


def search(kind, preset="small"):
    """The runs among which a kind of RATES chooses: on E_f, except where it does not predict E_f."""
    if kind == "frozen":
        config = variant(preset, "bimodal", "band_gap", starts(preset)["both"], frozen=True)
    else:
        config = variant(preset, kind, "e_form")
    quarter = config.but(n_steps=PRESETS[preset].budget.n_steps // 4, evaluate_test=False)
    return [
        quarter.but(name=f"search-{kind}-lr{rate:g}", learning_rate=rate) for rate in (*TRIED, *HIGHER.get(kind, ()))
    ]


def runs(preset="small"):
    """Every kind at every rate."""
    return [config for kind in RATES for config in search(kind, preset)]


def table(configs=None, place=RESULTS):
    """One row a run, with its metrics on `val`."""
    found = [archive.read(config.name, place) for config in configs or runs()]
    return ordered(pd.DataFrame([row(record.config, record) for record in found if record]))


def best(kind, place=RESULTS):
    """The rate of the lowest error on `val` that keeps the pattern; None where the search has not finished."""
    found = {config.budget.learning_rate: archive.read(config.name, place) for config in search(kind)}
    if not all(found.values()):
        return None
    highest = HIGHEST.get(kind, max(found))
    working = [rate for rate, one in found.items() if not ignores_pattern(one.metrics) and rate <= highest]
    return min(working, key=lambda rate: records.value(found[rate].metrics, "error", split="val"), default=None)


def findings(place=RESULTS):
    """What was chosen."""
    chosen = {kind: best(kind, place) for kind in RATES}
    return [
        f"Peak learning rates chosen on val: {', '.join(f'{kind} {rate:g}' for kind, rate in chosen.items() if rate)}."
    ]
