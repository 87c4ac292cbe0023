"""Where do the lines of Figure 3 go with three times the crystals?  The error of E_f on mp90k's `test`, and on mp36k's
own part of it, against training crystals to 95,765 (88,000 with an energy).

The fits from mp36k say that the pretrained model's line meets that of the composition at 51,000 crystals.
Cost: 6 runs, 1.2 hours on a core; the largest are those of mp90k.
"""

import numpy as np

from study import claims, mp90k, scaling
from study.archive import RESULTS
from study.power_laws import power_law
from study.tables import E_FORM, planned_table, summary_table
from xxlib import plots

TABLE = "figure_3_mp90k"
SIZES = [95765 // 4**k for k in (2, 1, 0)]  # nested; the last is all of `train`
OWN = mp90k.of_mp36k(E_FORM)


def lines(preset="small"):
    """The runs of each line, with the steps of Figure 3; pretraining has seen all patterns of `train`."""
    runs_of = {}
    for size in SIZES:
        changes = mp90k.half(preset) | ({"n_train": size} if size < SIZES[-1] else {})
        starts = ("composition", None), ("bimodal", None), ("bimodal", mp90k.start(preset))
        for name, (model, start) in zip(scaling.LINES, starts):
            runs_of.setdefault(name, []).append(mp90k.run(preset, model, "e_form", start, **changes))
    return runs_of


def runs(preset="small"):
    """Nested parts of `train`, each a quarter of the next; the same steps for each; the largest first."""
    return [config for of_size in reversed(list(zip(*lines(preset).values()))) for config in of_size]


def results(configs, place):
    """The rows of runs, with their size and their error on mp36k's own crystals."""
    rows = planned_table(configs, place)
    own = [mp90k.own_error(name, "e_form", place) for name in rows["name"]]
    return rows.assign(n_train=rows["n_train"].replace("all", SIZES[-1]).astype(int), **{OWN: own})


def table(configs=None, place=RESULTS):
    """The summary of the runs."""
    return summary_table(results(configs or runs(), place), [E_FORM, OWN])


def figures(configs=None, place=RESULTS):
    """Points and fits on all of `test`, and on mp36k's own."""
    drawn = {}
    for metric, name, title in ((E_FORM, "growth", "mp90k"), (OWN, "growth_own", "mp90k, judged on mp36k's test")):
        panels = {}
        for line, configs in lines().items():
            rows = results(configs, place)
            rows = rows[rows[metric].notna()] if metric in rows else rows[:0]
            if len(rows) > 1:
                sizes, errors = rows["n_train"].astype(float), rows[metric]
                panels[claims.spoken(line)] = sizes, errors, power_law(sizes, errors) if len(rows) > 2 else None
        if panels:
            drawn[name] = plots.scaling(panels, "MAE of $E_f$ on test (meV/atom)", title, scaling.published())
    return drawn


def findings(place=RESULTS):
    """The claim of Figure 3, once three sizes of each line have finished."""
    found = scaling.findings(place, summary_table(results(runs(), place), [E_FORM]))
    return [one for one in found if not one.measured.startswith("not finished")]


def meetings(place=RESULTS):
    """Whether a line has met that of the composition, size by size: a sentence a pair of runs that have finished.

    Crystal by crystal, so that no fit is needed.
    """
    alone, *others = lines().items()
    own, said = mp90k.own(place), []
    for name, configs in others:
        for size, config, other in zip(SIZES, configs, alone[1]):
            (change, half), (own_change, own_half) = (
                claims.paired(config.name, other.name, "e_form", place, among) for among in (None, own)
            )
            if np.isfinite(change):
                side = "level with" if abs(change) <= half else "ahead of" if change < 0 else "behind"
                said.append(
                    f"At {size:,} crystals {claims.spoken(name)} is {side} the composition alone on mp90k's test: MAE "
                    f"of E_f {change:+.1f} ± {half:.1f} meV/atom, {own_change:+.1f} ± {own_half:.1f} on mp36k's own "
                    "part of it (95 % over crystals, one seed each)."
                )
    return said
