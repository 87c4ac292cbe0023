"""What is kept of runs: a small record each in data/results, and the same read of a run trained here, in data/runs.

data/results/runs/<name>.json             the run: config, what it took, final metrics, curves
data/results/crystals/<dataset>.parquet   id, formula, split and labels of every crystal, once
data/results/predictions/<name>.parquet   of `test`: row of the crystal, and what is predicted: float32, or the LIKELIEST
                                          classes (uint8), the most likely one first
data/results/latent/<name>.parquet        of `test`: row of the crystal, and what latent.describe left
data/results/weights/<name>/              in half precision, as long as runs that start from them are missing

A place is RESULTS, or the folder of the run folders.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from xxlib import PROJECT, launch
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.datasets.store import Dataset
from xxlib.datasets.targets import TARGETS
from xxlib.training import records, runs
from xxlib.training.presets import PRESETS

RESULTS = PROJECT / "data" / "results"
LABELS = {
    "data/demo": "CHGNet labels, not DFT",
    "data/mp36k": "DFT labels of the Materials Project",
    "data/nomad2018": "DFT labels of the NOMAD 2018 competition",
}
LIKELIEST = 5  # classes that are kept of a prediction
DIGITS = 8  # of curves
SERIES = ("split", "given", "effects", "exchanged", "target", "metric")  # what a record says besides step and value
UNKNOWN_TO_CURVES = ("learning_rate", "samples", "epoch", "seconds", "samples_per_s")


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished run."""

    name: str
    config: dict  # of run.json
    parameters: int | None
    samples: int
    best_step: int
    seconds: float
    hardware: str
    commit: str
    metrics: list  # final records (xxlib.training.records)
    curves: list  # records of the evaluations on `val` and of the losses on `train`

    def curve(self, metric, target=None, split="val", **view):
        """Samples seen (n,) and values (n,) of a metric, in the unit of the tables; empty where it was not measured."""
        steps, values = records.curve(self.curves, metric, target, split, **view)
        scale = TARGETS[target].shown(metric)[1] if target else 1
        return np.array(steps) * self.config["budget"]["batch_size"], scale * np.array(values)


def place(preset):
    """Where the runs of a preset are read: those of `small` are committed."""
    return RESULTS if preset == "small" else runs.RUNS


def train(configs, place, n_gpus=0):
    """Train what has not finished of some RunConfigs; nothing where the committed runs are read."""
    for config in configs if place != RESULTS else ():
        launch.train(config, n_gpus=n_gpus or None)


def dataset(preset):
    """Name of the dataset of a preset: the folder of its figures."""
    return Path(PRESETS[preset].data.dataset).name


def label(preset):
    """Dataset of a preset and whose labels it has, as a caption says it."""
    return f"{dataset(preset)}, {LABELS[PRESETS[preset].data.dataset]}"


def names(place=RESULTS):
    """The names of the finished runs of a place."""
    return sorted(path.stem for path in (place / "runs").glob("*.json")) + sorted(
        path.parent.name for path in place.glob("*/results.json")
    )


def read(name, place=RESULTS):
    """The Record of a run, None where it has not finished; raises ValueError where a file is damaged."""
    path, folder = place / "runs" / f"{name}.json", place / name
    try:
        if path.exists():
            values = json.loads(path.read_text())
            final = [dict(zip(records.KEYS, (values["best_step"], *one))) for one in values.pop("metrics")]
            curves = [dict(zip(records.KEYS, (step, *series, value)))
                      for *series, steps, column in values.pop("curves") for step, value in zip(steps, column)]  # fmt: skip
            return Record(name=name, metrics=final, curves=curves, **values)
        result, path = runs.results(folder), folder / "results.json"
        if result is None:
            return None
        config = json.loads((folder / "run.json").read_text())
        curves = [one for one in runs.metrics(folder) if one["metric"] not in UNKNOWN_TO_CURVES]
        return Record(config=config, curves=curves, **result)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not of a finished run ({error}): remove it and train again") from error


def value(name, metric, target=None, split="test", place=RESULTS, **view):
    """A final metric of a run in the unit of the tables; view: given, effects, exchanged as records have them.

    Raises KeyError where it was not measured.
    """
    found = records.value(read(name, place).metrics, metric, target, split, **view)
    if found is None:
        raise KeyError(f"{name} has no {metric} of {target} on {split}, {view or 'all given'}")
    return found * (TARGETS[target].shown(metric)[1] if target else 1)


def crystals(dataset, place=RESULTS):
    """Formula, split and labels (a class as its index) of the crystals of a dataset ("data/mp36k"), by id."""
    path = place / "crystals" / f"{Path(dataset).name}.parquet"
    if path.exists():
        return pd.read_parquet(path).set_index("id")
    opened = Dataset(PROJECT / dataset)
    columns = {name: np.asarray(opened.column(name)) for name in ("id", "formula", "split")}
    return pd.DataFrame(columns | {name: opened.labels[name] for name in TARGETS if name in opened.labels}).set_index(
        "id"
    )


def predictions(name, place=RESULTS):
    """What a run says of `test`: by id formula, labels, and <target>_predicted; None where it is not kept.

    Of a class: its index, and beside it <target>_likeliest, the indices of the LIKELIEST.
    """
    table = _of_test(name, "predictions", place)
    for column in [] if table is None else [column for column in table if column.endswith("_predicted")]:
        if TARGETS[column.removesuffix("_predicted")].kind == "classification":
            ranked = np.stack(table[column])
            if ranked.dtype != np.uint8:  # probabilities, of a run trained here
                ranked = _likeliest(ranked)
            table[column.replace("_predicted", "_likeliest")] = list(ranked)
            table[column] = ranked[:, 0]
    return table


def errors(name, target, place=RESULTS):
    """The error of a run for each crystal of `test` that has a label, in the unit of the tables, by id.

    A class is wrong by 100 or by 0.  None where no predictions are kept.
    """
    table = predictions(name, place)
    if table is None:
        return None
    table = table[table[target].notna()]
    predicted = table[f"{target}_predicted"]
    if TARGETS[target].kind == "regression":
        return TARGETS[target].error_scale * (predicted - table[target]).abs()
    return 100.0 * (predicted != table[target])


def latent(name, place=RESULTS):
    """What latent.describe left of `test` of a run: by id the crystals, with the name of their crystal_system,
    components and silhouettes; attrs["variance"] of both components.  None where it is not kept."""
    table = _of_test(name, "latent", place)
    if table is not None:
        table["crystal_system"] = table["crystal_system"].map(dict(enumerate(CRYSTAL_SYSTEMS)))
    return table


def _of_test(name, what, place):
    """The table predictions.parquet or latent.parquet of a run beside its crystals, by id."""
    path, here = place / what / f"{name}.parquet", place / name / f"{what}.parquet"
    if not path.exists() and not here.exists():
        return None
    known = crystals(read(name, place).config["data"]["dataset"], place)
    if path.exists():
        table = pd.read_parquet(path)
        attrs = table.attrs
        table = known.iloc[table["row"]].assign(
            **{column: table[column].to_numpy() for column in table if column != "row"}
        )
    else:
        table = pd.read_parquet(here).set_index("id")
        attrs = table.attrs
        table = table[table.pop("split") == "test"] if "split" in table else table
        table = known.loc[table.index].assign(**table)
    table.attrs = attrs
    return table


def _likeliest(probabilities):
    """The indices of the LIKELIEST classes of probabilities (n, K), best first: (n, 5)."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :LIKELIEST].astype(np.uint8)


# ---------------------------------------------------------------- keeping


def keep(name):
    """Leave in data/results what is kept of a finished run of data/runs; its record last, which says that it is there."""
    record = read(name, runs.RUNS)
    path = RESULTS / "crystals" / f"{Path(record.config['data']['dataset']).name}.parquet"
    for what in ("predictions", "latent"):
        table = _of_test(name, what, runs.RUNS)
        if table is not None and record.config["evaluate_test"]:
            if not path.exists():
                _write(crystals(record.config["data"]["dataset"], runs.RUNS).reset_index(), path)
            _write(_compact(table, pd.read_parquet(path)["id"]), RESULTS / what / f"{name}.parquet")
    save(record, RESULTS)


def _compact(table, ids):
    """What a run left of its crystals, beside their rows in the `ids` of all."""
    columns = {"row": pd.Series(np.arange(len(ids), dtype=np.int32), ids)[table.index].to_numpy()}
    for name, column in table.drop(columns=["formula", "split", *TARGETS], errors="ignore").items():
        is_class = column.dtype == object
        columns[name] = list(_likeliest(np.stack(column))) if is_class else column.to_numpy(np.float32)
    kept = pd.DataFrame(columns)
    kept.attrs = table.attrs
    return kept


def save(record, place=RESULTS):
    """Write a Record; a series of numbers a line."""
    values = {name: getattr(record, name) for name in Record.__dataclass_fields__ if name not in ("name", "curves")}
    final = [[*(one[key] for key in SERIES), one["value"]] for one in values.pop("metrics")]
    series = {}
    for one in record.curves:
        steps, column = series.setdefault(tuple(one[key] for key in SERIES), ([], []))
        steps.append(one["step"])
        column.append(float(f"{one['value']:.{DIGITS}g}"))
    lines = [f'"{name}": {json.dumps(value)}' for name, value in values.items()]
    for name, rows in (("metrics", final), ("curves", [[*key, *columns] for key, columns in series.items()])):
        lines.append(f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]")
    path = place / "runs" / f"{record.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    runs.write_atomically(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def _write(table, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path, compression="zstd", index=False)


# ---------------------------------------------------------------- weights, of starts


def weights(name):
    """The folder that holds the weights of a finished run, None where they are not kept.

    Those in the folder of a run under way are not its last.
    """
    folders = [runs.RUNS / name] * (runs.results(runs.RUNS / name) is not None) + [RESULTS / "weights" / name]
    return next((folder for folder in folders if (folder / "model.safetensors").exists()), None)


def keep_weights(name):
    """Leave the weights of a finished run of data/runs in data/results, in half precision."""
    tensors, metadata = runs.load_model(runs.RUNS / name)
    folder = RESULTS / "weights" / name
    folder.mkdir(parents=True, exist_ok=True)
    runs.save_weights(folder, {key: tensor.half() for key, tensor in tensors.items()}, metadata)


def fetch_weights(name):
    """Bring kept weights to where other runs start from them."""
    if weights(name) == RESULTS / "weights" / name:
        shutil.copytree(RESULTS / "weights" / name, runs.RUNS / name, dirs_exist_ok=True)


def drop_weights(name):
    """Remove the weights in data/results, which nothing starts from any more."""
    shutil.rmtree(RESULTS / "weights" / name, ignore_errors=True)
