"""What the paper's abstract claims, and what runs say of it: one sentence a claim, from the tables of paper.py.

A difference counts where its 95 % interval over seeds (Welch's t) leaves out zero, a side of one seed being taken to
spread like the other; where both have one seed, the interval over the crystals of `test`, which is said.
"""

import numpy as np
import pandas as pd
from scipy.stats import t

from xxlib.analysis import latent
from xxlib.analysis.paper import CURVES, RESULTS, errors, written
from xxlib.analysis.scaling import power_law
from xxlib.analysis.tables import BAND_GAP, CRYSTAL_SYSTEM, E_FORM, by_formula
from xxlib.training.variants import pretraining, variant

PRETRAINED = "pretrain-both"
MODELS = {"composition": "composition", "xrd": "xrd", "composition + xrd": "bimodal"}  # modalities -> name in a run's
QUANTITIES = (
    ("e_form", E_FORM, "MAE of E_f", "meV/atom", -1),
    ("crystal_system", CRYSTAL_SYSTEM, "Accuracy of the crystal system", "%", 1),
    ("band_gap", BAND_GAP, "MAE of the band gap", "eV", -1),
)


def bimodal(table_1, folder=RESULTS / "runs"):
    """That composition and pattern together say more than either alone.

    folder: the runs of the table, of which the first seeds are compared crystal by crystal where both have but one.
    """
    return " ".join(_of_target(table_1, folder, *target) for target in QUANTITIES)


def _of_target(table_1, folder, target, metric, quantity, unit, better):
    ours = table_1["model"].str.startswith("XxaCT-NN small") & table_1["likelihood"].ne(True)  # the paper's losses
    rows = table_1[(table_1["targets"] == target) & ours].set_index("modalities")
    alone, both = ("composition", "xrd"), "composition + xrd"
    missing = [name for name in (*alone, both) if name not in rows.index or not np.isfinite(rows.loc[name, metric])]
    if missing:
        return _open(f"{quantity} with both modalities against one", missing)
    said = [_of(rows.loc[name], metric) for name in (both, *alone)]
    best = max(alone, key=lambda name: better * rows.loc[name, metric])
    runs = [folder / variant("small", MODELS[name], target).name for name in (best, both)]
    verdict = _verdict(rows.loc[best], rows.loc[both], metric, unit, better, _scatter(*runs, target))
    return (
        f"{quantity}: {said[0]} with both, {said[1]} from composition alone, {said[2]} {unit} from the pattern alone. "
        f"Both better than the better one: {verdict}."
    )


def faster(table_2):
    """That pretraining saves up to 4.2 times the steps; what has one seed is said, but does not count."""
    rows = table_2[table_2["start"].str.startswith(PRETRAINED) & table_2["speed-up"].notna()]
    if rows.empty:
        return _open("Faster after pretraining", [PRETRAINED])
    said = [
        f"{row['speed-up']:.1f} times for the {row['metric'].split(' (')[0]} trained on {row['targets']}"
        + (f" (+- {row['+- speed-up']:.1f} over {row['seeds']} seeds)" if row["seeds"] > 1 else " (one seed)")
        for _, row in rows.iterrows()
    ]
    known = rows.dropna(subset="+- speed-up")  # one seed does not say whether it is luck
    seeds = known["seeds"].astype(float)
    reach = _quantile(seeds - 1) * known["+- speed-up"] / np.sqrt(seeds)
    least, most = known["speed-up"] - reach, known["speed-up"] + reach
    held = "open" if known.empty or (least <= 1).any() else "held"
    held = "did not hold" if (most < 1).any() else held
    return f"Pretraining speeds up {'; '.join(said)}; paper: up to 4.2. Faster: {held}."


def better(table_2, folder=RESULTS / "runs"):
    """That pretraining improves what is reached in the end, with the same steps of fine-tuning.

    folder: as in bimodal().
    """
    said = []
    for (targets, metric, _), rows in table_2.groupby(["targets", "metric", "n_steps"], sort=False):
        rows = rows.dropna(subset="test").set_index("start")
        pretrained = [start for start in rows.index if start.startswith(PRETRAINED)]
        if pretrained and "scratch" in rows.index:
            said.append(_changed(rows.loc["scratch"], rows.loc[pretrained[0]], targets, metric, folder))
    return (
        f"After pretraining, on `test`: {'. '.join(said)}." if said else _open("Better after pretraining", [PRETRAINED])
    )


def _changed(before, after, targets, metric, folder):
    """What pretraining changes in one metric of models of some targets: rows of Table 2 as `before` and `after`."""
    target, rising = next((t, rising) for t, (_, shown, _, rising) in CURVES.items() if shown == metric)
    quantity, unit = metric.removesuffix(")").split(" (")
    model = targets if targets == target else "multi"
    scatter = _scatter(*_before_and_after(folder, model), target)
    verdict = _verdict(before, after, "test", unit, 1 if rising else -1, scatter)
    trained = f" of a model of {targets}" if model == "multi" else ""
    quantity = quantity[0].upper() + quantity[1:]
    return f"{quantity}{trained} from {_of(before, 'test')} to {_of(after, 'test')} {unit}. Better: {verdict}"


def apart(table_5, folder=RESULTS / "runs"):
    """That the crystal systems are further apart in pretrained representations.

    folder: the runs of the table, whose silhouettes are compared crystal by crystal.
    """
    rows = table_5.set_index(table_5["modalities"] + ", " + table_5["start"])["mean, all dimensions"].dropna()
    needed = ("composition + xrd, scratch", f"composition + xrd, {PRETRAINED}-s0")
    if not set(needed) <= set(rows.index):
        return _open("Crystal systems further apart after pretraining", [n for n in needed if n not in rows.index])
    runs = _before_and_after(folder, "multi")
    verdict = _counted(*latent.difference(*(pd.read_parquet(run / "latent.parquet") for run in runs)))
    said = "; ".join(f"{name}: {value:.3f}" for name, value in rows.items())
    return f"Mean silhouettes: {said}. Further apart after pretraining: {verdict}."


def scales(figure_3):
    """That the error of both modalities falls faster with the number of crystals than that of one.

    After pretraining it is said, and does not count: the patterns of all of `train` are then behind every size.
    """
    scratch, names, after = figure_3["initial"].fillna("") == "", ("composition", "composition + xrd"), "pretrained"
    lines = figure_3.assign(line=figure_3["modalities"].where(scratch, after))
    by_size = lines.pivot(index="n_train", columns="line", values=E_FORM).reindex(columns=[*names, after])
    if missing := [name for name in names if by_size[name].count() < 3]:
        return _open("Better scaling of both modalities", missing)
    common = by_size.dropna(subset=names).rename(index=float)  # fits of other sizes are no comparison
    if len(common) < 3:
        return _open("Better scaling of both modalities", ["sizes at which both are trained"])
    fits = {name: power_law(common.index, common[name]) for name in common.dropna(axis="columns")}
    ends = {name: fit.interval("b") for name, fit in fits.items()}
    said = [f"{name} N^{-fit.b:.2f} ({-ends[name][1]:.2f} to {-ends[name][0]:.2f})" for name, fit in fits.items()]
    (low, high), (least, most) = (ends[name] for name in names)
    verdict = "held" if least > high else "did not hold" if most < low else "open, the intervals overlap"
    over = f"{len(common)} of {len(by_size)} sizes"
    return f"MAE of E_f over {over} falls as {'; '.join(said)}. Steeper with both: {verdict}."


def memory(splits):
    """How much of the score of a random split, which is the paper's, is polymorphs of a formula known from train."""
    rows, said = splits[splits["split"] == "random"].set_index("modalities"), []
    for target, metric, quantity, unit, _ in QUANTITIES[:2]:
        there = rows.loc[rows["targets"] == target, by_formula(metric)].dropna()
        pairs = [f"{name} {known:.3g} and {new:.3g}" for name, known, new in there.itertuples()]
        said += [f"{quantity}: {', '.join(pairs)} {unit}"] if pairs else []
    if not said:
        return _open("Crystals of a known and of a new formula in a random split", ["every run by random split"])
    return f"In a random split, crystals whose formula is in train and the others. {'. '.join(said)}."


CLAIMS = {
    "table_1": (bimodal,),
    "table_2": (faster, better),
    "table_5": (apart,),
    "figure_3": (scales,),
    "splits": (memory,),
}


def sentences(name):
    """What the committed runs of a table (paper.written) say of the claims it is about."""
    return [claim(written(name)) for claim in CLAIMS[name]]


def _of(row, metric):
    spread = row[f"+- {metric}"]
    return f"{row[metric]:.3g}" + (f" +- {spread:.2g} ({row['seeds']:.0f} seeds)" if np.isfinite(spread) else "")


def _verdict(one, other, metric, unit, better, scatter):
    """Whether the other is better, beyond the spread over seeds; better: 1 where larger is, -1 where smaller is.

    scatter: standard error of the difference over the crystals of `test`, for where both have one seed.
    """
    spreads = np.array([row[f"+- {metric}"] for row in (one, other)], float)
    seeds = np.array([one["seeds"], other["seeds"]], float)
    known, difference = np.isfinite(spreads), other[metric] - one[metric]
    if not known.any():
        return _counted(difference, scatter, unit, better)
    squares = np.where(known, spreads, np.nanmax(spreads)) ** 2 / seeds
    freedom = seeds[known] - 1
    if known.all() and squares.any():  # Welch and Satterthwaite
        freedom = squares.sum() ** 2 / (squares**2 / freedom).sum()
    return _counted(difference, np.sqrt(squares.sum()), unit, better, np.min(freedom))


def _counted(difference, error, unit="", better=1, freedom=None):
    """Whether a difference counts, in words.  error: its standard error over seeds, with its degrees of freedom, or
    over thousands of crystals."""
    reach = error * _quantile(freedom or np.inf)
    said = "held" if better * difference > reach else "did not hold" if better * difference < -reach else "open"
    said += "" if freedom else " with one seed each"
    over = "seeds" if freedom else "the crystals of `test`"
    interval = f"{difference - reach:+.2g} to {difference + reach:+.2g}"
    return f"{said}, the difference is {difference:+.2g}{unit and f' {unit}'} (95 % interval over {over}: {interval})"


def _quantile(freedom):
    """How many standard errors a 95 % interval reaches to either side."""
    return t.ppf(0.975, freedom)


def _before_and_after(folder, target):
    """The first runs of a bimodal model of a target, or "multi": from scratch, and pretrained by both tasks."""
    return [folder / variant("small", "bimodal", target, start).name for start in (None, pretraining("small", "both"))]


def _scatter(one, other, target):
    """Standard error over the crystals of `test` of the difference of two runs' errors, NaN where one is not there."""
    if not all((run / "predictions.parquet").exists() for run in (one, other)):
        return np.nan
    return (errors(other, target) - errors(one, target)).sem()


def _open(claim, missing):
    return f"{claim}: not finished, missing {'; '.join(missing)}."


def main():
    """Print every sentence."""
    for name in CLAIMS:
        for sentence in sentences(name):
            print(f"- {sentence}")


if __name__ == "__main__":
    main()
