"""How does the error fall with the number of training crystals, and faster with both modalities?  Figure 3.

Cost: 18 runs, 8.1 hours on a core; "smoke": 6 runs, 30 s on two.
"""

import numpy as np

from study import archive, claims, paper
from study.archive import RESULTS
from study.power_laws import crossings, power_law
from study.pretraining import starts
from study.tables import E_FORM, planned_table, summary_table
from study.variants import variant
from xxlib import plots
from xxlib.training.presets import PRESETS

TABLE = "figure_3"
CLAIM = "The error falls faster with more crystals where both inputs are given"
LINES = ("composition", "composition + xrd", "composition + xrd, pretrained")
SIZES = {"small": [27833 // 2**k for k in (5, 4, 3, 2, 1, 0)], "smoke": [3285 // 2**k for k in (4, 2, 0)]}  # nested


def lines(preset="small"):
    """The runs of each line of Figure 3; pretraining has seen the patterns of all of `train`, without labels."""
    runs_of = {}
    for size in SIZES[preset]:
        budget = {"n_steps": PRESETS[preset].budget.n_steps // (4 if preset == "smoke" else 2), "n_train": size}
        of_size = [variant(preset, "composition", "e_form", **budget), variant(preset, "bimodal", "e_form", **budget)]
        if preset != "smoke":
            of_size += [variant(preset, "bimodal", "e_form", starts(preset)["both"], **budget)]
        for name, config in zip(LINES, of_size):
            runs_of.setdefault(name, []).append(config)
    return runs_of


def runs(preset="small"):
    """Nested parts of `train`, each half of the next; the same steps for each."""
    return [config for of_size in zip(*lines(preset).values()) for config in of_size]


def table(configs=None, place=RESULTS):
    """The summary of the runs."""
    return summary_table(planned_table(configs or runs(), place), [E_FORM])


def points(configs=None, place=RESULTS):
    """Sizes and errors (meV/atom) of each line, of what has finished; PowerLaws through three points and more."""
    sizes_and_errors = {}
    for name, of_line in lines((configs or runs())[0].preset).items():
        rows = planned_table(of_line, place)
        if E_FORM in rows and rows[E_FORM].notna().any():
            rows = rows.dropna(subset=E_FORM)
            sizes_and_errors[name] = rows["n_train"].astype(float), rows[E_FORM]
    fits = {name: power_law(*both) for name, both in sizes_and_errors.items() if len(both[0]) > 2}
    return sizes_and_errors, fits


def where_lines_cross(configs=None, place=RESULTS):
    """At how many training crystals two lines cross, with the ends of the 95 % interval: a table."""
    return crossings(points(configs, place)[1])


def figures(configs=None, place=RESULTS):
    """Figure 3: points, fits and their intervals."""
    sizes_and_errors, fits = points(configs, place)
    title = archive.label((configs or runs())[0].preset)
    panels = {claims.spoken(name): (*both, fits.get(name)) for name, both in sizes_and_errors.items()}
    others = published() if (configs or runs())[0].preset == "small" else None
    return {"figure_3": plots.scaling(panels, "MAE of $E_f$ on test (meV/atom)", title, others)} if panels else {}


def published():
    """The paper's fits in the range for which it states their gap: name -> sizes, errors (meV/atom)."""
    sizes = np.geomspace(1e6, paper.CRYSTALS, 2)
    return {
        f"the paper, {claims.spoken(name)}: $\\propto N^{{{law.exponent}}}$": (sizes, law.error(sizes))
        for name, law in paper.laws().items()
    }


def findings(place=RESULTS, figure_3=None):
    """That the error of both modalities falls faster with the number of crystals than that of one: one Finding.

    After pretraining it is said, and does not count: the patterns of all of `train` are then behind every size.
    """
    figure_3 = table(place=place) if figure_3 is None else figure_3
    of, in_paper = "MAE of E_f", [f"{name} N^{law.exponent:g}" for name, law in paper.laws().items()]
    in_paper = "; ".join(in_paper)
    scratch, names, after = figure_3["initial"].fillna("") == "", LINES[:2], "pretrained"
    named = figure_3.assign(line=figure_3["modalities"].where(scratch, after))
    by_size = named.pivot(index="n_train", columns="line", values=E_FORM).reindex(columns=[*names, after])
    if missing := [name for name in names if by_size[name].count() < 3]:
        return [claims.unfinished(CLAIM, of, missing, in_paper)]
    common = by_size.dropna(subset=names).rename(index=float)  # fits of other sizes are no comparison
    if len(common) < 3:
        return [claims.unfinished(CLAIM, of, ["sizes at which both are trained"], in_paper)]
    fits = {name: power_law(common.index, common[name]) for name in common.dropna(axis="columns")}
    ends = {name: fit.interval("b") for name, fit in fits.items()}
    exponents = [f"{name} N^-{fit.b:.2f} ({-ends[name][1]:.2f} to {-ends[name][0]:.2f})" for name, fit in fits.items()]
    (low, high), (least, most) = (ends[name] for name in names)
    verdict = "held" if least > high else "did not hold" if most < low else "open, the intervals overlap"
    said = f"over {len(common)} of {len(by_size)} sizes as {'; '.join(exponents)}"
    return [claims.Finding(CLAIM, of, said, verdict, in_paper)]
