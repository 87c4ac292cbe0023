"""What the paper's abstract claims, and what runs say of it: one sentence a claim, from the tables of paper.py.

A difference counts where it is larger than twice its standard error over seeds; with one seed it is reported, and open.
"""

import numpy as np

from xxlib.analysis.paper import written
from xxlib.analysis.scaling import power_law
from xxlib.analysis.tables import E_FORM

PRETRAINED = "pretrain-both"


def bimodal(table_1):
    """That composition and pattern together say more of E_f than either alone."""
    rows = table_1[(table_1["targets"] == "e_form") & (table_1["model"].str.startswith("XxaCT-NN small"))]
    rows = rows.set_index("modalities")
    missing = [name for name in ("composition", "xrd", "composition + xrd") if not _known(rows, name)]
    if missing:
        return _open("Both modalities against one", missing)
    own, alone, xrd = (rows.loc[name] for name in ("composition + xrd", "composition", "xrd"))
    said = f"MAE of E_f: {_of(own)} with both, {_of(alone)} from composition alone, {xrd[E_FORM]:.0f} meV/atom from the"
    return f"{said} pattern alone. Both better than composition: {_verdict(alone, own)}."


def faster(table_2):
    """That pretraining saves up to 4.2 times the steps."""
    rows = table_2[table_2["start"].str.startswith(PRETRAINED) & table_2["speed-up"].notna()]
    if rows.empty:
        return _open("Faster after pretraining", [PRETRAINED])
    said = [
        f"{row['speed-up']:.1f} times for the {row['metric'].split(' (')[0]} trained on {row['targets']}"
        + (f" (+- {row['+- speed-up']:.1f} over {row['seeds']} seeds)" if row["seeds"] > 1 else " (one seed)")
        for _, row in rows.iterrows()
    ]
    held = (rows["speed-up"] > 1).all()
    return f"Pretraining speeds up {'; '.join(said)}; paper: up to 4.2. Faster: {'held' if held else 'did not hold'}."


def better(table_2):
    """That pretraining improves what is reached in the end."""
    said, results = [], []
    for (targets, metric, _), rows in table_2.groupby(["targets", "metric", "n_steps"], sort=False):
        rows = rows.dropna(subset="test").set_index("start")
        pretrained = [start for start in rows.index if start.startswith(PRETRAINED)]
        if pretrained and "scratch" in rows.index:
            before, after = rows.loc["scratch", "test"], rows.loc[pretrained[0], "test"]
            said.append(f"{metric} of a model of {targets} from {before:.1f} to {after:.1f}")
            results.append(after > before if "accuracy" in metric else after < before)
    if not said:
        return _open("Better after pretraining", [PRETRAINED])
    held = "held" if all(results) else "held for some" if any(results) else "did not hold"
    return (
        f"Pretraining changes on test: {'; '.join(said)}. Better: {held} (differences within the spread prove nothing)."
    )


def apart(table_5):
    """That the crystal systems are further apart in pretrained representations."""
    rows = table_5.set_index(table_5["modalities"] + ", " + table_5["start"])["mean, all dimensions"].dropna()
    needed = ("composition + xrd, scratch", f"composition + xrd, {PRETRAINED}-s0")
    if not set(needed) <= set(rows.index):
        return _open("Crystal systems further apart after pretraining", [n for n in needed if n not in rows.index])
    before, after = (rows[name] for name in needed)
    said = "; ".join(f"{name}: {value:.3f}" for name, value in rows.items())
    return f"Mean silhouettes: {said}. Further apart after pretraining: {'held' if after > before else 'did not hold'}."


def scales(figure_3):
    """That the error of both modalities falls faster with the number of crystals than that of one."""
    fits = {}
    for modalities, rows in figure_3[figure_3["initial"].fillna("") == ""].groupby("modalities"):
        rows = rows.dropna(subset=E_FORM)
        if len(rows) > 2:
            fits[modalities] = power_law(rows["n_train"].astype(float), rows[E_FORM])
    missing = [name for name in ("composition", "composition + xrd") if name not in fits]
    if missing:
        return _open("Better scaling of both modalities", missing)
    said = [
        f"{name} N^-{fit.b:.2f} ({fit.interval('b')[0]:.2f} to {fit.interval('b')[1]:.2f})"
        for name, fit in fits.items()
    ]
    one, both = fits["composition"], fits["composition + xrd"]
    apart = both.interval("b")[0] > one.interval("b")[1]
    verdict = "held" if apart else "open: the intervals overlap" if both.b > one.b else "did not hold"
    return f"MAE of E_f falls as {'; '.join(said)}. Steeper with both: {verdict}."


CLAIMS = {"table_1": (bimodal,), "table_2": (faster, better), "table_5": (apart,), "figure_3": (scales,)}


def sentences(name):
    """What the committed runs of a table (paper.written) say of the claims it is about."""
    return [claim(written(name)) for claim in CLAIMS[name]]


def _known(rows, name):
    return name in rows.index and np.isfinite(rows.loc[name, E_FORM])


def _of(row):
    spread = row[f"+- {E_FORM}"]
    return f"{row[E_FORM]:.1f}" + (f" +- {spread:.1f} ({row['seeds']:.0f} seeds)" if np.isfinite(spread) else "")


def _verdict(worse, better):
    """Whether the first error is larger than the second, beyond the spread over seeds."""
    difference = worse[E_FORM] - better[E_FORM]
    spreads = [row[f"+- {E_FORM}"] / np.sqrt(row["seeds"]) for row in (worse, better)]
    if not np.isfinite(spreads).all():
        return f"open, one side has one seed (difference {difference:+.1f} meV/atom)"
    if abs(difference) < 2 * np.hypot(*spreads):
        return f"open, the difference of {difference:+.1f} meV/atom is within the spread"
    return "held" if difference > 0 else "did not hold"


def _open(claim, missing):
    return f"{claim}: not finished, missing {'; '.join(missing)}."


def main():
    """Print every sentence."""
    for name in CLAIMS:
        for sentence in sentences(name):
            print(f"- {sentence}")


if __name__ == "__main__":
    main()
