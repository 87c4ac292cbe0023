"""Results of finished runs as tables: one row a run, or one row a model over its seeds beside what others reach."""

import json
from pathlib import Path

import pandas as pd

from xxlib import PROJECT
from xxlib.datasets.targets import TARGETS

SEARCH = "search-"  # how the names begin of runs that only chose a learning rate: they never saw `test`
# What runs have in common that differ by their seed alone.
WHOLE = ["seeds", "parameters", "samples", "batch_size", "n_steps"]
RECIPE = ["batch_size", "learning_rate", "n_steps"]
# What sets a run apart from one from scratch on all training crystals, with the value there.
APART = {"initial": "", "frozen": False, "left_out": "", "n_train": "all", "augmentation": "", "modality_dropout": 0.0}
ABOUT = ["modalities", "targets", "parameters", "samples", *RECIPE]
ABOUT += ["dataset", "labels", "split", "preset", "architecture", *APART]
E_FORM, BAND_GAP = "test e_form mae (meV/atom)", "test band_gap mae (eV)"
CRYSTAL_SYSTEM = "test crystal_system accuracy (%)"
LABELS = {"data/demo": "CHGNet labels, not DFT", "data/mp36k": "DFT labels of the Materials Project"}

ARCHITECTURES = {
    "xxact": "XxaCT-NN",
    "fcn": "PXRDPiAYN FCN",
    "fcn_mlp": "PXRDPiAYN FCN+MLP",
    "crabnet": "CrabNet",
    "boosting": "gradient boosting on element statistics,",
}

# On the `test` of mp36k by formula, except ALIGNN, whose published predictions belong to a random split of the same
# release with 60,000 crystals for training; ALIGNN is given the crystal structure, the others are not.
REFERENCES = (
    {"model": "mean, or most frequent class, of train", E_FORM: 963, BAND_GAP: 1.44, CRYSTAL_SYSTEM: 22.6},
    {"model": "gradient boosting on element statistics", E_FORM: 101, BAND_GAP: 0.447, CRYSTAL_SYSTEM: 52.6},
    {"model": "CrabNet, published code, 40 epochs", E_FORM: 66.0, "parameters": 12_000_000},
    {"model": "ALIGNN, from the structure", E_FORM: 22, BAND_GAP: 0.218, "split": "random, 60,000 crystals to train"},
)


def results_table(folder, search=False):
    """One row a finished run of a folder (<run>/results.json and run.json); search: search runs instead of all others.

    Runs that pretrained are not among them: they predict nothing.
    Metrics keep the names of results.json with a unit: "test e_form mae (meV/atom)".  Raises ValueError where a file is
    damaged.
    """
    rows = [_row(path) for path in sorted(Path(folder).glob("*/results.json"))]
    rows = [row for row in rows if row["targets"] and row["name"].startswith(SEARCH) == search]
    if not rows:
        return pd.DataFrame(columns=["name", *ABOUT, "seed", "seconds", "hardware", "commit"])
    return pd.DataFrame(rows).sort_values(["targets", "modalities", "seed", "name"], ignore_index=True)


def _row(path):
    try:
        result = json.loads(path.read_text())
        row = {name: result[name] for name in ("name", "dataset", "split", "preset", "seed", "parameters", "samples")}
        row |= {name: " + ".join(result[name]) for name in ("modalities", "targets")}
        row |= {name: result[name] for name in ("best_step", "seconds", "hardware", "commit")}
        row |= {name: result.get(name) or usual for name, usual in APART.items()}
        config = json.loads(path.with_name("run.json").read_text())
        row |= {name: config[name] for name in RECIPE}
        row["architecture"] = config.get("model", {}).get("architecture", "xxact")  # the one there was at first
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the results of a run ({error}): remove it and train again") from error
    row["labels"] = LABELS.get(row["dataset"], "")
    for name, value in result.items():
        split, _, metric = name.partition("/")
        if metric and metric != "error" and row["targets"]:
            shown, scale = _shown(metric)
            row[f"{split} {shown}"] = scale * value
    return row


def _shown(metric):
    """Name with its unit, and the factor to that unit, of a metric of results.json such as "e_form_mae"."""
    target = max((name for name in TARGETS if metric.startswith(name)), key=len)
    kind = metric.removeprefix(f"{target}_")
    if kind in ("mae", "rmse"):
        unit, scale = ("meV/atom", 1000) if TARGETS[target].unit == "eV/atom" else (TARGETS[target].unit, 1)
    else:
        unit, scale = {"r2": ("", 1), "log_loss": ("nat", 1)}.get(kind, ("%", 100))
    return f"{target} {kind}" + (f" ({unit})" if unit else ""), scale


def summary_table(results, metrics=(E_FORM, BAND_GAP, CRYSTAL_SYSTEM)):
    """One row for the runs of a results_table that differ by nothing but their seed, with `seeds`, their number.

    Each metric is the mean over seeds; beside it "+-" is the standard deviation of one run (n - 1), empty for one seed.
    """
    rows = []
    for about, runs in results.groupby(ABOUT, sort=False, dropna=False):
        row = dict(zip(ABOUT, about)) | {"seeds": len(runs)}
        for metric in metrics:
            values = runs[metric].dropna() if metric in runs else pd.Series(dtype=float)
            row |= {metric: values.mean(), f"+- {metric}": values.std()}
        words = {name: ", ".join(sorted(set(runs[name]))) for name in ("hardware", "commit")}
        rows.append({"model": f"{ARCHITECTURES[row['architecture']]} {row['preset']}"} | row | words)
    columns = [name for metric in metrics for name in (metric, f"+- {metric}")]
    return pd.DataFrame(rows, columns=["model", *ABOUT[:2], *columns, "seeds", *ABOUT[2:], "hardware", "commit"])


def table_1(folder):
    """The summary of a folder of runs on mp36k, and below it the REFERENCES, for orientation."""
    references = pd.DataFrame(REFERENCES).assign(dataset="data/mp36k", labels=LABELS["data/mp36k"])
    references["split"] = references["split"].fillna("formula")
    results = results_table(folder)
    results = results[results["dataset"] == "data/mp36k"]  # demo labels never stand in one table with these
    table = pd.concat([summary_table(results), references], ignore_index=True)
    return table.astype({name: "Int64" for name in WHOLE})  # NaN would make them decimals


def captioned(table, caption):
    """A table as a notebook shows it: with a caption and few decimals, without empty columns."""
    shown = table.dropna(axis="columns", how="all")
    formats = {name: "{:.1f}" for name in shown if "meV" in name or "%" in name}
    formats |= {name: "{:g}" for name in shown if name == "learning_rate"}
    style = shown.style.format(formats, precision=3, na_rep="", thousands=" ")
    return style.hide(axis="index").set_caption(caption)


def main():
    """Print what was trained here, and table 1."""
    shown = ["model", "modalities", "targets", E_FORM, BAND_GAP, CRYSTAL_SYSTEM, "seeds", "labels"]
    here = summary_table(results_table(PROJECT / "data" / "runs"))
    mp36k = table_1(PROJECT / "data" / "results" / "runs")
    for title, table in (("Trained here (data/runs)", here), ("Table 1 (data/results/runs)", mp36k)):
        print(f"{title}\n{table[shown].to_string(index=False, na_rep='', float_format='{:.3f}'.format)}\n")


if __name__ == "__main__":
    main()
