"""What is kept of runs: a small record each in data/results, and the same read of a run trained here, in data/runs.

runs/<name>.json             config, what the run took, final metrics, curves
crystals/<dataset>.parquet   id, formula, split and labels of every crystal, once; of many, of those that do not train
predictions/<name>.parquet   of `test`: row of the crystal, and what is predicted: float32, or the LIKELIEST classes
val_predictions/             the same of `val`, of runs whose answers are weighed there (plus.py)
latent/<name>.parquet        of `test`: row of the crystal, and what latent.describe left
weights/<name>/              in half precision, as long as runs that start from them are missing

A place is RESULTS, or the folder of the run folders.
"""

import json
import shutil
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from xxlib import PROJECT, launch
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.datasets.batches import CPU
from xxlib.datasets.store import Dataset
from xxlib.datasets.targets import TARGETS
from xxlib.training import records, runs
from xxlib.training.machine import commit, hardware
from xxlib.training.presets import PRESETS

RESULTS = PROJECT / "data" / "results"
LABELS = {
    "data/demo": "CHGNet labels, not DFT",
    "data/mp36k": "DFT labels of the Materials Project",
    "data/mp90k": "DFT labels of the Materials Project",
    "data/nomad2018": "DFT labels of the NOMAD 2018 competition",
}
KEPT = ("e_form", "band_gap", "crystal_system", "space_group", "log_bulk_modulus", "log_shear_modulus")  # labels
MOST = 50_000  # crystals of which all are kept; of a larger dataset those that judge
LIKELIEST = 5  # classes that are kept of a prediction, the most likely one first
DIGITS = 8  # of curves
SERIES = records.KEYS[1:-1]  # what a record says besides step and value
PROGRESS = ("learning_rate", "samples", "epoch", "seconds", "samples_per_s")  # not kept


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
        return np.array(steps) * self.config["budget"]["batch_size"], _scale(metric, target) * np.array(values)


def place(preset):
    """Where the runs of a preset are read: those of `small` and `plus` are committed."""
    return RESULTS if preset in ("small", "plus") else runs.RUNS


def train(configs, place, n_gpus=0):
    """Train what has not finished of some RunConfigs; nothing where the committed runs are read."""
    for config in configs if place != RESULTS else ():
        launch.train(config, n_gpus=n_gpus or None)


def shown(figures, name, preset):
    """One of the figures of a notebook; with `smoke`, whose few steps show nothing, the committed one of mp36k."""
    from IPython.display import Image

    if preset != "smoke":
        return figures[name]
    return Image(PROJECT / "figures" / "mp36k" / f"{name}.png", width=round(100 * figures[name].get_figwidth()))


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
            final = [(*one[:-1], [values["best_step"]], one[-1:]) for one in values["metrics"]]
            return Record(name=name, **values | {"metrics": _records(final), "curves": _records(values["curves"])})
        path = folder / "results.json"
        if (result := runs.results(folder)) is None:
            return None
        curves = [one for one in runs.metrics(folder) if one["metric"] not in PROGRESS]
        return Record(config=json.loads((folder / "run.json").read_text()), curves=curves, **result)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not of a finished run ({error}): remove it and train again") from error


def value(name, metric, target=None, split="test", place=RESULTS, **view):
    """A final metric of a run in the unit of the tables; view: given, effects, exchanged as records have them.

    Raises KeyError where it was not measured.
    """
    measured = records.value(read(name, place).metrics, metric, target, split, **view)
    if measured is None:
        raise KeyError(f"{name} has no {metric} of {target} on {split}, {view or 'all given'}")
    return _scale(metric, target) * measured


def crystals(dataset, place=RESULTS):
    """Formula, split and labels (a class as its index) of the crystals of a dataset ("data/mp36k"), by id."""
    path = place / "crystals" / f"{Path(dataset).name}.parquet"
    if path.exists():
        return pd.read_parquet(path).set_index("id")
    opened = Dataset(PROJECT / dataset)
    columns = {name: np.asarray(opened.column(name)) for name in ("id", "formula", "split")}
    columns |= {name: opened.labels[name] for name in KEPT}
    return pd.DataFrame(columns).set_index("id")


def predictions(name, place=RESULTS, split="test"):
    """What a run predicts for a split: by id formula, labels, and <target>_predicted; None where it is not kept.

    Of a class that is its index, and beside it are the indices of the LIKELIEST: <target>_likeliest.
    """
    table = _of(split, name, "predictions", place)
    for target in [] if table is None else [target for target in TARGETS if f"{target}_predicted" in table]:
        if TARGETS[target].kind == "classification":
            ranked = np.stack(table[f"{target}_predicted"])
            ranked = ranked if ranked.dtype == np.uint8 else _likeliest(ranked)  # of a run here: probabilities
            table[f"{target}_predicted"], table[f"{target}_likeliest"] = ranked[:, 0], list(ranked)
    return table


def errors(name, target, place=RESULTS):
    """The error of a run for each crystal of `test` that has a label, in the unit of the tables, by id.

    A class is wrong by 100 or by 0.  None where no predictions are kept.
    """
    table = predictions(name, place)
    if table is None:
        return None
    table = table[table[target].notna()]
    predicted, true = table[f"{target}_predicted"], table[target]
    if TARGETS[target].kind == "regression":
        return TARGETS[target].error_scale * (predicted - true).abs()
    return 100.0 * (predicted != true)


def latent(name, place=RESULTS):
    """What latent.describe left of `test` of a run: by id the crystals, with the name of their crystal_system,
    components and silhouettes; attrs["variance"] of both components.  None where it is not kept."""
    table = _of("test", name, "latent", place)
    if table is not None:
        table["crystal_system"] = table["crystal_system"].map(dict(enumerate(CRYSTAL_SYSTEMS)))
    return table


def _of(split, name, what, place):
    """The table of predictions or of the latent space of a run beside the crystals of a split, by id."""
    path, here = _kept(split, what, place) / f"{name}.parquet", place / name / f"{what}.parquet"
    if not path.exists() and not here.exists():
        return None
    labelled = crystals(read(name, place).config["data"]["dataset"], place)
    own = pd.read_parquet(path if path.exists() else here)
    if "split" in own:
        own = own[own["split"] == split]
    table = labelled.iloc[own["row"]] if "row" in own else labelled.loc[own["id"]]
    columns = [column for column in own if column not in ("row", "id", "split")]
    table = table.assign(**{column: own[column].to_numpy() for column in columns})
    table.attrs = own.attrs
    return table


def _kept(split, what, place):
    return place / (what if split == "test" else f"{split}_{what}")


def _records(series):
    return [dict(zip(records.KEYS, (step, *series, number)))
            for *series, steps, numbers in series for step, number in zip(steps, numbers)]  # fmt: skip


def _scale(metric, target):
    return TARGETS[target].shown(metric)[1] if target else 1


def _likeliest(probabilities):
    """The indices of the LIKELIEST classes of probabilities (n, K), best first: (n, 5)."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :LIKELIEST].astype(np.uint8)


# ---------------------------------------------------------------- keeping


def write_as_run(folder, config, said, metrics, *, samples, best_step, seconds):
    """Leave in a run folder what a training leaves, of what was not trained as a run is.

    config: as run.json has it.  said: split -> (ids (n,), name of a column -> (n,) or (n, K)).  metrics: final records.
    """
    tables = []
    for split, (ids, columns) in said.items():
        of_split = {"id": np.asarray(ids), "split": [split] * len(ids)}
        columns = {name: list(np.asarray(values, np.float32)) for name, values in columns.items()}
        tables.append(pa.table(of_split | columns))
    result = {"name": folder.name, "parameters": None, "samples": samples, "best_step": best_step}
    result |= {"seconds": round(seconds, 1), "hardware": hardware(CPU, torch.get_num_threads()), "commit": commit()}
    folder.mkdir(parents=True, exist_ok=True)
    runs.write_json(folder / "run.json", config)
    pq.write_table(pa.concat_tables(tables), folder / "predictions.parquet", compression="zstd")
    runs.write_json(folder / "results.json", result | {"metrics": metrics})  # last: it says that the run has finished
    return result | {"metrics": metrics}


def keep(name):
    """Leave in data/results what is kept of a finished run of data/runs; its record, which says so, last."""
    record = read(name, runs.RUNS)
    dataset = record.config["data"]["dataset"]
    path = RESULTS / "crystals" / f"{Path(dataset).name}.parquet"
    for what in ("predictions", "latent"):
        table = _of("test", name, what, runs.RUNS)
        if table is not None and record.config["evaluate_test"]:
            if not path.exists():
                every = crystals(dataset, runs.RUNS)
                judging = every if len(every) <= MOST else every[every["split"] != "train"]
                _write(judging.reset_index(), path)
            _write(_compact(table, pd.read_parquet(path)["id"]), RESULTS / what / f"{name}.parquet")
    save(record, RESULTS)


def keep_val(name):
    """Leave in data/results what a finished run of data/runs predicts for `val`, after keep()."""
    table = _of("val", name, "predictions", runs.RUNS)
    ids = crystals(read(name).config["data"]["dataset"]).index
    _write(_compact(table, ids), _kept("val", "predictions", RESULTS) / f"{name}.parquet")


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
    """Write a Record; a line each for a final metric, and for a curve."""
    series = {}
    for one in record.curves:
        steps, numbers = series.setdefault(tuple(one[key] for key in SERIES), ([], []))
        steps.append(one["step"])
        numbers.append(float(f"{one['value']:.{DIGITS}g}"))
    lines = [f'"{field.name}": {json.dumps(getattr(record, field.name))}' for field in fields(record)[1:-2]]
    final = [[*(one[key] for key in SERIES), one["value"]] for one in record.metrics]
    for name, rows in (("metrics", final), ("curves", [[*key, *columns] for key, columns in series.items()])):
        lines.append(f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]")
    (place / "runs").mkdir(parents=True, exist_ok=True)
    runs.write_atomically(place / "runs" / f"{record.name}.json", ("{\n" + ",\n".join(lines) + "\n}\n").encode())


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
