"""Runs as tables: one row a run, or one row for the runs that differ by their seed alone."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd

from xxlib import PROJECT
from xxlib.datasets.targets import TARGETS
from xxlib.training import runs
from xxlib.training.metrics import KNOWN, NEW, ignores_pattern

SEARCH = "search-"  # how the names begin of runs that only chose a learning rate: they never saw `test`
WHOLE = ["seeds", "parameters", "samples", "batch_size", "n_steps"]  # numbers, or nothing where a row has none
RECIPE = ["batch_size", "learning_rate", "n_steps"]
# What sets a run apart from one from scratch on all training crystals, with the value there.
APART = {"initial": "", "frozen": False, "left_out": "", "n_train": "all", "likelihood": False, "augmentation": ""}
APART |= {"modality_dropout": 0.0}
# What runs have in common that differ by their seed alone.
ABOUT = ["modalities", "targets", "parameters", "samples", *RECIPE]
ABOUT += ["dataset", "labels", "split", "preset", "architecture", *APART]
E_FORM, BAND_GAP = "test e_form mae (meV/atom)", "test band_gap mae (eV)"
CRYSTAL_SYSTEM, SPACE_GROUP = "test crystal_system accuracy (%)", "test space_group accuracy (%)"
METRICS = (E_FORM, BAND_GAP, CRYSTAL_SYSTEM, SPACE_GROUP)
LABELS = {
    "data/demo": "CHGNet labels, not DFT",
    "data/mp36k": "DFT labels of the Materials Project",
    "data/nomad2018": "DFT labels of the NOMAD 2018 competition",
}

ARCHITECTURES = {
    "xxact": "XxaCT-NN",
    "fcn": "PXRDPiAYN FCN",
    "fcn_mlp": "PXRDPiAYN FCN+MLP",
    "crabnet": "CrabNet",
    "mat2vec": "XxaCT-NN with mat2vec's element vectors,",
    "boosting": "gradient boosting on element statistics,",
}


def by_formula(metric):
    """The names of a metric of `test` for crystals whose formula is in train, and for the others."""
    return [metric.replace("test", f"test {words}") for words in (KNOWN, NEW)]


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


def planned_table(folder, planned):
    """One row for each of some RunConfigs, in their order, those that pretrain left out.

    A run that has not finished, or that failed, is a row without metrics; its `note` is its name, and how it failed.
    """
    rows = []
    for config in planned:
        if finished(folder, config):
            rows.append(_row(Path(folder) / config.name / "results.json") | {"note": ""})
        elif config.targets:
            failed = " (ignores its patterns)" if runs.results(Path(folder) / config.name) else ""
            said = json.loads(json.dumps(dataclasses.asdict(config)))
            unknown = {"parameters": np.nan, "best_step": np.nan, "seconds": np.nan, "hardware": "", "commit": ""}
            result = said | unknown | {"modalities": said["model"]["modalities"]}
            rows.append(
                _values(said, result | {"samples": config.n_steps * config.batch_size}) | {"note": config.name + failed}
            )
    table = pd.DataFrame([row for row in rows if row["targets"]])
    # Known as soon as one seed has finished; what is grouped by it would otherwise fall apart.
    alike = ["preset", "architecture", "modalities", "targets", "initial", "likelihood"]
    return table.assign(parameters=table.groupby(alike)["parameters"].transform("first"))


def finished(folder, config):
    """Whether a run has finished; one of both modalities that ignores its patterns has failed."""
    result = runs.results(Path(folder) / config.name)
    return result is not None and not ignores_pattern(result)


def _row(path):
    try:
        result = json.loads(path.read_text())
        return _values(json.loads(path.with_name("run.json").read_text()), result)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the results of a run ({error}): remove it and train again") from error


def _values(config, result):
    """The row of a run: config as in run.json, result as in results.json."""
    row = {name: result[name] for name in ("name", "dataset", "split", "preset", "seed", "parameters", "samples")}
    row |= {name: " + ".join(result[name]) for name in ("modalities", "targets")}
    row |= {name: result[name] for name in ("best_step", "seconds", "hardware", "commit")}
    row |= {name: usual if result.get(name) is None else result[name] for name, usual in APART.items()}
    row |= {name: config[name] for name in RECIPE}
    model = config.get("model", {})
    row["architecture"] = model.get("architecture", "xxact")  # the one there was at first
    if model.get("element_vectors", "learned") != "learned":
        row["architecture"] = model["element_vectors"]
    row["labels"] = LABELS.get(row["dataset"], "")
    for name, value in result.items():
        split, _, metric = name.partition("/")
        if metric and metric != "error" and row["targets"]:
            shown, scale = with_unit(metric)
            row[f"{split} {shown}"] = scale * value
    return row


def with_unit(metric):
    """Name with its unit, and the factor to that unit, of a metric of results.json such as "e_form_mae" or "error".

    What is no metric of a target, such as a loss, keeps its name.
    """
    target = max((name for name in TARGETS if metric.startswith(f"{name}_")), key=len, default=None)
    if target is None:
        return {"error": "relative error"}.get(metric, metric), 1
    kind = metric.removeprefix(f"{target}_")
    if kind in ("mae", "rmse"):
        unit, scale = ("meV/atom", 1000) if TARGETS[target].unit == "eV/atom" else (TARGETS[target].unit, 1)
    else:
        unit, scale = {"r2": ("", 1), "log_loss": ("nat", 1)}.get(kind, ("%", 100))
    return f"{target} {kind}" + (f" ({unit})" if unit else ""), scale


def summary_table(results, metrics=METRICS):
    """One row for the runs of a results_table that differ by nothing but their seed, with `seeds`, their number.

    Each metric is the mean over seeds; beside it "+-" is the standard deviation of one run (n - 1), empty for one seed.
    Of a planned_table, `note` names the runs that are missing.
    """
    rows = []
    for about, alike in results.groupby(ABOUT, sort=False, dropna=False):
        missing = [name for name in alike.get("note", ()) if name]
        row = dict(zip(ABOUT, about)) | {"seeds": len(alike) - len(missing)}
        row["note"] = f"missing: {', '.join(missing)}" if missing else ""
        for metric in metrics:
            values = alike[metric].dropna() if metric in alike else pd.Series(dtype=float)
            row |= {metric: values.mean(), f"+- {metric}": values.std()}
        words = {name: ", ".join(sorted(set(alike[name]) - {""})) for name in ("hardware", "commit")}
        rows.append({"model": f"{ARCHITECTURES[row['architecture']]} {row['preset']}"} | row | words)
    columns = [name for metric in metrics for name in (metric, f"+- {metric}")]
    about = [*columns, "seeds", *ABOUT[2:], "hardware", "commit", *["note"] * ("note" in results)]
    table = pd.DataFrame(rows, columns=["model", *ABOUT[:2], *about])
    return table.astype({name: "Int64" for name in WHOLE})  # NaN would make them decimals


def captioned(table, caption):
    """A table as a notebook shows it: with a caption and few decimals, without empty columns."""
    shown = table.dropna(axis="columns", how="all")
    formats = {name: "{:.1f}" for name in shown if "meV" in name or "%" in name}
    formats |= {name: "{:g}" for name in shown if name == "learning_rate"}
    style = shown.style.format(formats, precision=3, na_rep="", thousands=" ")
    return style.hide(axis="index").set_caption(caption)


def as_text(table):
    """What is finished of a summary_table, as a terminal shows it without empty metrics, and how many rows are not."""
    shown = ["model", "modalities", "targets", "n_train", "n_steps", "likelihood"]
    shown += [*(metric for metric in METRICS if table[metric].notna().any()), "seeds", "labels"]
    table = table.astype({name: "Int64" for name in ("n_steps", "seeds")})
    untrained = table["seeds"].eq(0).fillna(False)  # references have no seeds
    rows = table.loc[~untrained, shown]
    text = rows.astype(object).where(rows.notna(), "").to_string(index=False, float_format="{:.3f}".format)
    return text + f"\nrows not trained yet: {untrained.sum()}" * bool(untrained.any())


def main():
    """Print what was trained here, and table 1."""
    here = summary_table(results_table(PROJECT / "data" / "runs"))
    mp36k = pd.read_csv(PROJECT / "data" / "results" / "table_1.csv")
    print(f"Trained here (data/runs)\n{as_text(here)}\n\nTable 1 (data/results/table_1.csv)\n{as_text(mp36k)}\n")


if __name__ == "__main__":
    main()
