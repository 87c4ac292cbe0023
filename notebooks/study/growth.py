"""Where do the lines of Figure 3 go with three times the crystals?  The error of E_f on mp90k's `test`, and on mp36k's
own part of it, against training crystals to 95,765 (88,000 with an energy).

The fits from mp36k say that the pretrained model's line meets that of the composition at 51,000 crystals.
Cost: 15 runs, 6 hours on a core.
"""

from study import claims, mp90k, scaling
from study.archive import RESULTS
from study.power_laws import power_law
from study.tables import E_FORM, planned_table, summary_table
from study.variants import pretraining, variant
from xxlib import plots
from xxlib.training.presets import PRESETS

TABLE = "figure_3_mp90k"
SIZES = [95765 // 2**k for k in (4, 3, 2, 1, 0)]  # nested
OWN = mp90k.of_mp36k(E_FORM)


def lines(preset="small"):
    """The runs of each line, with the steps of Figure 3; pretraining has seen all patterns of `train`."""
    start = pretraining(preset, "both", dataset=mp90k.DATASET)
    runs_of = {}
    for size in SIZES:
        budget = {"dataset": mp90k.DATASET, "n_steps": PRESETS[preset].budget.n_steps // 2, "n_train": size}
        of_size = [variant(preset, model, "e_form", **budget) for model in ("composition", "bimodal")]
        for name, config in zip(scaling.LINES, [*of_size, variant(preset, "bimodal", "e_form", start, **budget)]):
            runs_of.setdefault(name, []).append(config)
    return runs_of


def runs(preset="small"):
    """Nested parts of `train`, each half of the next; the same steps for each; the largest first."""
    return [config for of_size in reversed(list(zip(*lines(preset).values()))) for config in of_size]


def results(configs, place):
    """The rows of runs, with their error on mp36k's own crystals."""
    rows = planned_table(configs, place)
    return rows.assign(**{OWN: [mp90k.own_error(name, "e_form", place) for name in rows["name"]]})


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
            if len(rows):
                sizes, errors = rows["n_train"].astype(float), rows[metric]
                panels[claims.spoken(line)] = sizes, errors, power_law(sizes, errors) if len(rows) > 2 else None
        if panels:
            drawn[name] = plots.scaling(panels, "MAE of $E_f$ on test (meV/atom)", title, scaling.published())
    return drawn


def findings(place=RESULTS):
    """The claim of Figure 3, once three sizes of each line have finished."""
    found = scaling.findings(place, summary_table(planned_table(runs(), place), [E_FORM]))
    return [one for one in found if not one.measured.startswith("not finished")]
