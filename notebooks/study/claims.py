"""What the paper's abstract claims, and what runs say of it, from the tables of paper.py.

A difference counts where its 95 % interval over seeds (Welch's t) leaves out zero, a side of one seed being taken to
spread like the other; where both have one seed, the interval over the crystals of `test`, which is said.
"""

from dataclasses import astuple, dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

from study import latent
from study.paper import CURVES, RESULTS, errors, written
from study.scaling import power_law
from study.tables import BAND_GAP, CRYSTAL_SYSTEM, E_FORM, by_formula
from study.variants import pretraining, variant

PRETRAINED = "pretrain-both"
MODELS = {"composition": "composition", "xrd": "xrd", "composition + xrd": "bimodal"}  # modalities -> name in a run's
QUANTITIES = (
    ("e_form", E_FORM, "MAE of E_f", "meV/atom", -1),
    ("crystal_system", CRYSTAL_SYSTEM, "accuracy of crystal system", "%", 1),
    ("band_gap", BAND_GAP, "MAE of band gap", "eV", -1),
)


@dataclass(frozen=True)
class Finding:
    """A claim, what was measured, and whether it "held", "did not hold" or is "open", with what decides that.

    As a string it is a sentence of each.
    """

    claim: str
    measured: str
    verdict: str

    def __str__(self):
        return f"{self.claim}: {self.measured}. {self.verdict[0].upper()}{self.verdict[1:]}."


def bimodal(table_1, folder=RESULTS / "runs"):
    """That composition and pattern together say more than either alone: a Finding a target.

    folder: the runs of the table, of which the first seeds are compared crystal by crystal where both have but one.
    """
    return [_of_target(table_1, folder, *target) for target in QUANTITIES]


def _of_target(table_1, folder, target, metric, quantity, unit, better):
    claim = f"Both inputs together beat the better one alone, {quantity}"
    ours = table_1["model"].str.startswith("XxaCT-NN small") & table_1["likelihood"].ne(True)  # the paper's losses
    rows = table_1[(table_1["targets"] == target) & ours].set_index("modalities")
    alone, both = ("composition", "xrd"), "composition + xrd"
    missing = [name for name in (*alone, both) if name not in rows.index or not np.isfinite(rows.loc[name, metric])]
    if missing:
        return _unfinished(claim, missing)
    said = [_of(rows.loc[name], metric) for name in (both, *alone)]
    best = max(alone, key=lambda name: better * rows.loc[name, metric])
    runs = [folder / variant("small", MODELS[name], target).name for name in (best, both)]
    measured = f"{said[0]} with both, {said[1]} from the composition, {said[2]} {unit} from the pattern"
    verdict = _verdict(rows.loc[best], rows.loc[both], metric, unit, better, _scatter(*runs, target))
    return Finding(claim, measured, verdict)


def faster(table_2):
    """That pretraining saves steps: a Finding a model; one seed does not say whether it is luck.

    Held is that it saves some, not that it saves the 4.2 times of the paper.
    """
    claim = "Training is faster after pretraining (up to 4.2 times in the paper)"
    rows = table_2[table_2["start"].str.startswith(PRETRAINED) & table_2["speed-up"].notna()]
    return [_sped_up(claim, row) for _, row in rows.iterrows()] or [_unfinished(claim, [PRETRAINED])]


def _sped_up(claim, row):
    claim = f"{claim}, {row['metric'].split(' (')[0]}{_trained_on(row['targets'], row['metric'])}"
    times, spread, seeds = row["speed-up"], row["+- speed-up"], int(row["seeds"])
    if not np.isfinite(spread):  # of one seed, or of several of which one has its run from scratch
        return Finding(claim, f"{times:.1f} times", "open, one seed")
    reach = _quantile(seeds - 1) * spread / np.sqrt(seeds)
    held = "held" if times - reach > 1 else "did not hold" if times + reach < 1 else "open"
    interval = f"{times - reach:.1f} to {times + reach:.1f}"
    measured = f"{times:.1f} ± {spread:.2g} times ({seeds} seeds)"
    return Finding(claim, measured, f"{held} (95 % over seeds: {interval})")


def better(table_2, folder=RESULTS / "runs"):
    """That pretraining improves what is reached in the end, with the same steps of fine-tuning: a Finding a model.

    folder: as in bimodal().
    """
    claim, said = "Better in the end after pretraining", []
    for (targets, metric, _), rows in table_2.groupby(["targets", "metric", "n_steps"], sort=False):
        rows = rows.dropna(subset="test").set_index("start")
        pretrained = [start for start in rows.index if start.startswith(PRETRAINED)]
        if pretrained and "scratch" in rows.index:
            said.append(_changed(claim, rows.loc["scratch"], rows.loc[pretrained[0]], targets, metric, folder))
    return said or [_unfinished(claim, [PRETRAINED])]


def _changed(claim, before, after, targets, metric, folder):
    """What pretraining changes in one metric of models of some targets: rows of Table 2 as `before` and `after`."""
    target, rising = _target(metric)
    quantity, unit = metric.removesuffix(")").split(" (")
    scatter = _scatter(*_before_and_after(folder, targets if targets == target else "multi"), target)
    return Finding(
        f"{claim}, {quantity}{_trained_on(targets, metric)}",
        f"from {_of(before, 'test')} to {_of(after, 'test')} {unit}",
        _verdict(before, after, "test", unit, 1 if rising else -1, scatter),
    )


def _target(metric):
    """What a column of Table 2 is a metric of, and whether larger is better."""
    return next((target, rising) for target, (_, shown, _, rising) in CURVES.items() if shown == metric)


def _trained_on(targets, metric):
    return "" if targets == _target(metric)[0] else f" of a model of {targets}"


def apart(table_5, folder=RESULTS / "runs"):
    """That the crystal systems are further apart in pretrained representations: one Finding.

    folder: the runs of the table, whose silhouettes are compared crystal by crystal.
    """
    claim = "Crystal systems are further apart after pretraining, mean silhouette"
    rows = table_5.set_index(table_5["modalities"] + ", " + table_5["start"])["mean, all dimensions"].dropna()
    needed = ("composition + xrd, scratch", f"composition + xrd, {PRETRAINED}-s0")
    if not set(needed) <= set(rows.index):
        return [_unfinished(claim, [name for name in needed if name not in rows.index])]
    runs = _before_and_after(folder, "multi")
    verdict = _counted(*latent.difference(*(pd.read_parquet(run / "latent.parquet") for run in runs)))
    return [Finding(claim, "; ".join(f"{name}: {value:.3f}" for name, value in rows.items()), verdict)]


def scales(figure_3):
    """That the error of both modalities falls faster with the number of crystals than that of one: one Finding.

    After pretraining it is said, and does not count: the patterns of all of `train` are then behind every size.
    """
    claim = "The error falls faster with more crystals where both inputs are given, MAE of E_f"
    scratch, names, after = figure_3["initial"].fillna("") == "", ("composition", "composition + xrd"), "pretrained"
    lines = figure_3.assign(line=figure_3["modalities"].where(scratch, after))
    by_size = lines.pivot(index="n_train", columns="line", values=E_FORM).reindex(columns=[*names, after])
    if missing := [name for name in names if by_size[name].count() < 3]:
        return [_unfinished(claim, missing)]
    common = by_size.dropna(subset=names).rename(index=float)  # fits of other sizes are no comparison
    if len(common) < 3:
        return [_unfinished(claim, ["sizes at which both are trained"])]
    fits = {name: power_law(common.index, common[name]) for name in common.dropna(axis="columns")}
    ends = {name: fit.interval("b") for name, fit in fits.items()}
    said = [f"{name} N^{-fit.b:.2f} ({-ends[name][1]:.2f} to {-ends[name][0]:.2f})" for name, fit in fits.items()]
    (low, high), (least, most) = (ends[name] for name in names)
    verdict = "held" if least > high else "did not hold" if most < low else "open, the intervals overlap"
    measured = f"over {len(common)} of {len(by_size)} sizes as {'; '.join(said)}"
    return [Finding(claim, measured, verdict)]


CLAIMS = {"table_1": (bimodal,), "table_2": (faster, better), "table_5": (apart,), "figure_3": (scales,)}


def findings(name):
    """What the committed runs of a table (paper.written) say of the claims it is about, as a list of Finding."""
    return [finding for claim in CLAIMS[name] for finding in claim(written(name))]


def markdown():
    """Every Finding of the committed runs as a table for README.md."""
    rows = [("claim", "measured", "verdict"), ("---",) * 3]
    rows += [astuple(finding) for name in CLAIMS for finding in findings(name)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def memory(splits):
    """How much of the score of a random split, which is the paper's, is polymorphs of a formula known from train.

    A sentence; the paper claims nothing about it.
    """
    rows, said = splits[splits["split"] == "random"].set_index("modalities"), []
    for target, metric, quantity, unit, _ in QUANTITIES[:2]:
        there = rows.loc[rows["targets"] == target, by_formula(metric)].dropna()
        pairs = [f"{name} {known:.3g} and {new:.3g}" for name, known, new in there.itertuples()]
        said += [f"{quantity}: {', '.join(pairs)} {unit}"] if pairs else []
    if not said:
        return "Crystals of a known and of a new formula in a random split: no run is finished."
    return f"In a random split, crystals whose formula is in train and the others. {'. '.join(said)}."


def _of(row, metric):
    spread = row[f"+- {metric}"]
    return f"{row[metric]:.3g}" + (f" ± {spread:.2g} ({row['seeds']:.0f} seeds)" if np.isfinite(spread) else "")


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
    held = "held" if better * difference > reach else "did not hold" if better * difference < -reach else "open"
    over = "seeds" if freedom else "crystals, one seed each"
    unit = f" {'points' if unit == '%' else unit}" if unit else ""
    interval = f"{difference - reach:+.2g} to {difference + reach:+.2g}"
    return f"{held}, {difference:+.2g}{unit} (95 % over {over}: {interval})"


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


def _unfinished(claim, missing):
    return Finding(claim, f"not finished, missing {'; '.join(missing)}", "open")


if __name__ == "__main__":
    print(markdown())
