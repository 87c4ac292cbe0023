"""Released checkpoints and run folders with damages that no checksum shows: each is one line, none ends the others."""

import hashlib
import json
import os
import shutil
import struct
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load, load_file, save
from test_launch import config

from xxlib.datasets.store import DatasetError
from xxlib.launching import overview, processes
from xxlib.predict import Predictor
from xxlib.training import runs
from xxlib.training.records import record
from xxlib.training.runs import CheckpointError


def put(path, data):
    """Write bytes and the checksum that fits them, where the file has one."""
    path.write_bytes(data)
    sidecar = path.with_name(path.name + ".sha256")
    if sidecar.exists():
        sidecar.write_text(f"{hashlib.sha256(data).hexdigest()}  {path.name}\n")


def changed(values, key, new):
    """Set what a/b/c names in nested dicts and lists; new: value, or function of the old one; DELETE removes it."""
    *parents, last = key.split("/")
    for name in parents:
        values = values[int(name) if isinstance(values, list) else name]
    last = int(last) if isinstance(values, list) else last
    if new is DELETE:
        del values[last]
    else:
        values[last] = new(values[last]) if callable(new) else new


DELETE = object()


# ---------------------------------------------------------------- a model file


def metadata(key, new, folder, name="model.safetensors"):
    """Change what the metadata of the weights say."""
    path = folder / name
    tensors, values = runs.load_model(folder, name)
    changed(values, key, new)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    put(path, save(arrays, metadata={name: json.dumps(value) for name, value in values.items()}))


def raw_metadata(new, folder):
    path = folder / "model.safetensors"
    put(path, save(load_file(path), metadata=new))


def tensors(change, folder):
    """Change the weights: a function of their dict."""
    path = folder / "model.safetensors"
    _, values = runs.load_model(folder)
    arrays = load_file(path)
    change(arrays)
    put(path, save(arrays, metadata={name: json.dumps(value) for name, value in values.items()}))


def first(arrays):
    return sorted(name for name in arrays if name.startswith("encoders"))[0]


def with_value(value):
    def change(arrays):
        arrays[first(arrays)] = arrays[first(arrays)].copy()
        arrays[first(arrays)].flat[0] = value

    return change


def content(name, data, folder):
    put(folder / name, data(folder / name) if callable(data) else data)


ENCODER = "config/model/encoders/xrd"
MODELS = {
    "no metadata": partial(raw_metadata, None),
    "metadata of others": partial(raw_metadata, {"format": '"pt"'}),
    "metadata no JSON": partial(raw_metadata, {"config": "{", "normalisers": "{}"}),
    "metadata nested deeply": partial(raw_metadata, {"config": "[" * 100_000, "normalisers": "{}"}),
    "no config": partial(metadata, "config", DELETE),
    "config a list": partial(metadata, "config", []),
    "a million layers": partial(metadata, f"{ENCODER}/n_layers", 1_000_000),
    "a million layers of fusion": partial(metadata, "config/model/fusion/n_layers", 1_000_000),
    "layers that are not there": partial(metadata, f"{ENCODER}/n_layers", 500),
    "no layers": partial(metadata, f"{ENCODER}/n_layers", 0),
    "a fraction of a layer": partial(metadata, f"{ENCODER}/n_layers", 2.5),
    "another width": partial(metadata, f"{ENCODER}/d_model", 128),
    "a negative width": partial(metadata, f"{ENCODER}/d_model", -64),
    "a width in text": partial(metadata, f"{ENCODER}/d_model", "64"),
    "no heads": partial(metadata, f"{ENCODER}/n_heads", 0),
    "a terabyte": partial(metadata, f"{ENCODER}/d_ff", 10**12),
    "dropout NaN": partial(metadata, "config/model/dropout", float("nan")),
    "dropout in text": partial(metadata, "config/model/dropout", "0.1"),
    "no encoders": partial(metadata, "config/model/encoders", {}),
    "another modality": partial(metadata, "config/model/encoders", lambda old: {"sound": old["xrd"]}),
    "encoders a list": partial(metadata, "config/model/encoders", [1]),
    "no fusion": partial(metadata, "config/model/fusion", None),
    "an unknown fusion": partial(metadata, "config/model/fusion/kind", "magic"),
    "a fusion that is an object": partial(metadata, "config/model/fusion/kind", {"a": 1}),
    "a fusion of other weights": partial(metadata, "config/model/fusion/kind", "experts"),
    "more experts than can be": partial(metadata, "config/model/fusion/n_experts", 10**9),
    "memory a number": partial(metadata, "config/model/fusion/memory", 5),
    "unknown targets": partial(metadata, "config/objectives/targets", ["melting_point"]),
    "targets a number": partial(metadata, "config/objectives/targets", 7),
    "no targets": partial(metadata, "config/objectives/targets", []),
    "other targets": partial(metadata, "config/objectives/targets", ["band_gap"]),
    "a name that leads out": partial(metadata, "config/name", "../../x"),
    "effects a number": partial(metadata, "config/data/effects", 3),
    "a seed in text": partial(metadata, "config/seed", "0"),
    "no normalisers": partial(metadata, "normalisers", DELETE),
    "normalisers a list": partial(metadata, "normalisers", []),
    "a normaliser without width": partial(metadata, "normalisers/e_form/std", 0.0),
    "a normaliser of NaN": partial(metadata, "normalisers/e_form/mean", float("nan")),
    "a normaliser of text": partial(metadata, "normalisers/e_form/std", "1"),
    "a normaliser too many": partial(metadata, "normalisers", lambda old: old | {"band_gap": old["e_form"]}),
    "another grid": partial(metadata, "grid/start", 10.0),
    "a weight too few": partial(tensors, lambda arrays: arrays.pop(first(arrays))),
    "a weight too many": partial(tensors, lambda arrays: arrays.update(more=np.zeros(3, np.float16))),
    "a weight of another shape": partial(
        tensors, lambda arrays: arrays.update({first(arrays): np.zeros(3, np.float16)})
    ),
    "a weight of integers": partial(
        tensors, lambda arrays: arrays.update({first(arrays): arrays[first(arrays)].astype(np.int64)})
    ),
    "a weight NaN": partial(tensors, with_value(np.nan)),
    "a weight infinite": partial(tensors, with_value(np.inf)),
    "an empty file": partial(content, "model.safetensors", b""),
    "noise": partial(content, "model.safetensors", np.random.default_rng(0).bytes(5000)),
    "a header without end": partial(content, "model.safetensors", struct.pack("<Q", 2**62) + b"{}"),
    "half a file": partial(content, "model.safetensors", lambda path: path.read_bytes()[: path.stat().st_size // 2]),
    "guessing nothing": lambda folder: put(
        folder / "reconstructing.safetensors", (folder / "model.safetensors").read_bytes()
    ),
    "guessing with a million layers": partial(
        metadata, f"{ENCODER}/n_layers", 1_000_000, name="reconstructing.safetensors"
    ),
}


# ---------------------------------------------------------------- its calibration


def calibration(key, new, folder):
    values = json.loads((folder / "calibration.json").read_text())
    changed(values, key, new)
    put(folder / "calibration.json", json.dumps(values).encode())


def vectors(change, folder):
    path = folder / "neighbours.safetensors"
    put(path, save({name: np.ascontiguousarray(change(array)) for name, array in load(path.read_bytes()).items()}))


BOTH = "inputs/composition + xrd"
CALIBRATIONS = {
    "binary": partial(content, "calibration.json", b"\x00\xff\xfe"),
    "empty": partial(content, "calibration.json", b""),
    "a list": partial(content, "calibration.json", b"[1, 2]"),
    "nested deeply": partial(content, "calibration.json", b"[" * 100_000),
    "no inputs": partial(calibration, "inputs", {}),
    "inputs a list": partial(calibration, "inputs", [1]),
    "an input too few": partial(calibration, BOTH, DELETE),
    "an unknown modality": partial(calibration, f"{BOTH}/modalities", ["composition", "text"]),
    "modalities a number": partial(calibration, f"{BOTH}/modalities", 3),
    "an interval too few": partial(calibration, f"{BOTH}/intervals", {}),
    "intervals a list": partial(calibration, f"{BOTH}/intervals", [1]),
    "a quantile in text": partial(calibration, f"{BOTH}/intervals/e_form/quantile", "1"),
    "a quantile NaN": partial(calibration, f"{BOTH}/intervals/e_form/quantile", float("nan")),
    "a negative quantile": partial(calibration, f"{BOTH}/intervals/e_form/quantile", -1.0),
    "a difficulty of other vectors": partial(
        calibration, f"{BOTH}/intervals/e_form", lambda old: old | {"mean": [1.0, 2.0], "weights": [1.0, 2.0]}
    ),
    "a difficulty of text": partial(
        calibration, f"{BOTH}/intervals/e_form", lambda old: old | {"mean": ["a"], "weights": ["b"]}
    ),
    "classes too few": partial(calibration, f"{BOTH}/classes", {}),
    "a temperature of zero": partial(calibration, f"{BOTH}/classes/crystal_system/temperature", 0),
    "a temperature in text": partial(calibration, f"{BOTH}/classes/crystal_system/temperature", "1"),
    "a threshold NaN": partial(calibration, f"{BOTH}/classes/crystal_system/threshold", float("nan")),
    "a distance missing": partial(calibration, f"{BOTH}/farthest", None),
    "elements too few": partial(calibration, "elements", lambda old: old[:50]),
    "elements of text": partial(calibration, "elements", ["a"] * 119),
    "elements below zero": partial(calibration, "elements", [-1] * 119),
    "elements that are large": partial(calibration, "elements", [10**30] * 119),
    "a contradiction of other signs": partial(calibration, "contradiction/weights", [1.0, 2.0]),
    "a contradiction of text": partial(calibration, "contradiction/bias", "no"),
    "a contradiction that is a list": partial(calibration, "contradiction", [1]),
    "vectors too wide": partial(vectors, lambda array: np.hstack([array, array[:, :1]])),
    "vectors of integers": partial(vectors, lambda array: array.astype(np.int32)),
    "vectors too few": partial(vectors, lambda array: array[:-1]),
    "no vectors": partial(vectors, lambda array: array[:0]),
    "vectors NaN": partial(vectors, lambda array: array * np.float16("nan")),
    "a vector": partial(vectors, lambda array: array[0]),
    "vectors of noise": partial(content, "neighbours.safetensors", b"\xff" * 100),
    "vectors of other names": partial(
        content, "neighbours.safetensors", save({"x": np.zeros((3, 3), np.float16)})
    ),
}  # fmt: skip


# ---------------------------------------------------------------- the crystals that it carries


def dataset(change, folder, part="training"):
    """Change the dataset that a checkpoint carries: a function of its shard's table, as which it writes the result."""
    folder = folder / part
    table = change(pa.ipc.open_file(folder / "shard-00000.arrow").read_all())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    shard(sink.getvalue().to_pybytes(), folder)


def shard(data, folder):
    (folder / "shard-00000.arrow").write_bytes(data)
    meta = json.loads((folder / "dataset.json").read_text())
    meta["shards"][0]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "dataset.json").write_text(json.dumps(meta))


def buffer(name, which, value, folder, place=1):
    """Overwrite a number (int32) of a buffer of a column, where it lies in the file."""
    dataset(lambda table: table.combine_chunks(), folder)
    path = folder / "training" / "shard-00000.arrow"
    column = pa.ipc.open_file(path).get_batch(0).column(name)
    old = column.buffers()[which].to_pybytes()
    data = path.read_bytes()
    start = data.index(old) + 4 * place
    shard(data[:start] + value + data[start + len(value) :], folder / "training")


def column(name, change, table):
    place = table.schema.get_field_index(name)
    array = change(table.column(name).combine_chunks())
    return table.set_column(place, name, array)


def meta(key, new, folder):
    path = folder / "training" / "dataset.json"
    values = json.loads(path.read_text())
    changed(values, key, new)
    path.write_text(json.dumps(values))


def with_first_list(values):
    """A change of a column of lists: the first row holds these."""
    return lambda array: pa.array([values, *array.to_pylist()[1:]], array.type)


def of_first(value):
    return lambda array: pa.array([value, *array.to_pylist()[1:]], array.type)


NUMBER = partial(struct.pack, "<i")
DATASETS = {
    "an offset beyond the values": partial(buffer, "two_theta", 1, NUMBER(2**31 - 1)),
    "a negative offset": partial(buffer, "two_theta", 1, NUMBER(-5)),
    "an offset that goes back": partial(buffer, "element_ids", 1, NUMBER(10_000), place=2),
    "a text beyond the file": partial(buffer, "id", 1, NUMBER(2**31 - 1), place=3),
    "a text before the file": partial(buffer, "formula", 1, NUMBER(-(2**31)), place=3),
    "a text that is not UTF-8": partial(buffer, "id", 2, b"\xff\xff\xff\xff"),
    "half a shard": lambda folder: shard((folder / "training" / "shard-00000.arrow").read_bytes()[:9000],
                                         folder / "training"),
    "an empty shard": lambda folder: shard(b"", folder / "training"),
    "noise": lambda folder: shard(np.random.default_rng(1).bytes(9000), folder / "training"),
    "no batch": partial(dataset, lambda table: table[:0]),
    "two batches": partial(dataset, lambda table: pa.concat_tables([table[:5], table[5:]])),
    "a column too few": partial(dataset, lambda table: table.drop_columns(["crystal_system"])),
    "a column twice": partial(dataset, lambda table: table.append_column("id", table.column("id"))),
    "ids that are numbers": partial(
        dataset, partial(column, "id", lambda array: pa.array(range(len(array)), pa.int64()))
    ),
    "lists of other numbers": partial(
        dataset, partial(column, "two_theta", lambda array: array.cast(pa.list_(pa.float64())))
    ),
    "texts of another kind": partial(dataset, partial(column, "formula", lambda array: array.dictionary_encode())),
    "an element 200": partial(dataset, partial(column, "element_ids", lambda array: pa.array(
        [[200] * len(row) for row in array.to_pylist()], array.type))),
    "a fraction too few": partial(dataset, partial(column, "fractions", with_first_list([1.0] * 9))),
    "an intensity too few": partial(dataset, partial(column, "intensity", with_first_list([]))),
    "a list missing": partial(dataset, partial(column, "element_ids", with_first_list(None))),
    "a number of a list missing": partial(dataset, partial(column, "two_theta", with_first_list([None, 20.0]))),
    "a formula missing": partial(dataset, partial(column, "formula", of_first(None))),
    "space group 300": partial(dataset, partial(column, "space_group", of_first(300))),
    "an unknown split": partial(dataset, partial(column, "split", of_first("holdout"))),
    "rows too few": partial(dataset, lambda table: table[:-1].combine_chunks()),
    "unseen rows too few": partial(dataset, lambda table: table[:-1].combine_chunks(), part="unseen"),
    "another schema": partial(meta, "schema_version", "1"),
    "no shards": partial(meta, "shards", []),
    "shards a text": partial(meta, "shards", "shard-00000.arrow"),
    "a shard that leads out": partial(meta, "shards/0/file", "../unseen/shard-00000.arrow"),
    "a shard's name a number": partial(meta, "shards/0/file", 3),
    "rows in text": partial(meta, "shards/0/rows", "300"),
    "counts a list": partial(meta, "counts", [1]),
    "no source": partial(meta, "source", DELETE),
}  # fmt: skip

DAMAGES = {f"{part}: {name}": damage
           for part, damages in (("model", MODELS), ("calibration", CALIBRATIONS), ("crystals", DATASETS))
           for name, damage in damages.items()}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_checkpoint_whose_content_cannot_be_is_refused_in_one_line(checkpoint, tmp_path, name):
    folder = tmp_path / "damaged"
    shutil.copytree(checkpoint, folder)
    DAMAGES[name](folder)
    with pytest.raises((CheckpointError, DatasetError)) as error:
        Predictor.load(folder)
    message = str(error.value)
    assert "\n" not in message and len(message) < 600 and "damaged" in message and str(folder) in message


def test_the_checkpoint_that_is_damaged_above_is_whole(checkpoint):
    """Rewritten without a change, it loads and answers as before."""
    before = Predictor.load(checkpoint)("NaCl").drop(columns="warnings", errors="ignore")
    folder = checkpoint.with_name("rewritten")
    shutil.copytree(checkpoint, folder)
    metadata("config/seed", lambda old: old, folder)
    calibration("elements", lambda old: old, folder)
    vectors(lambda array: array, folder)
    dataset(lambda table: table.combine_chunks(), folder)
    assert Predictor.load(folder)("NaCl").drop(columns="warnings", errors="ignore").equals(before)
    shutil.rmtree(folder)


# ---------------------------------------------------------------- run folders


def directory(name, folder):
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()


def pipe(name, folder):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)


def written(name, text, folder):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def cut(name, folder):
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def run(key, new, folder):
    values = json.loads((folder / "run.json").read_text())
    changed(values, key, new)
    (folder / "run.json").write_text(json.dumps(values))


def line(key, new, folder):
    """Change a record in the middle of metrics.jsonl."""
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    changed(lines[3], key, new)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))


def result(key, new, folder):
    values = json.loads((folder / "results.json").read_text())
    changed(values, key, new)
    (folder / "results.json").write_text(json.dumps(values))


RUNS = {
    "run.json": {
        "cut": partial(cut, "run.json"),
        "empty": partial(written, "run.json", ""),
        "binary": partial(written, "run.json", b"\x00\xff\xfe"),
        "a list": partial(written, "run.json", "[]"),
        "nested deeply": partial(written, "run.json", "[" * 100_000),
        "a directory": partial(directory, "run.json"),
        "a pipe": partial(pipe, "run.json"),
        "a link to nothing": lambda folder: (folder / "run.json").unlink() or (folder / "run.json").symlink_to("none"),
        "half a step": partial(run, "budget/n_steps", 10.5),
        "a rate NaN": partial(run, "budget/learning_rate", float("nan")),
        "a rate in text": partial(run, "budget/learning_rate", "0.001"),
        "targets a number": partial(run, "objectives/targets", 3),
        "encoders a list": partial(run, "model/encoders", [1]),
        "a million layers": partial(run, "model/fusion/n_layers", 1_000_000),
        "a name that leads out": partial(run, "name", "../run"),
    },
    "metrics.jsonl": {
        "binary": partial(written, "metrics.jsonl", b"\x00\xff\xfe\n"),
        "a directory": partial(directory, "metrics.jsonl"),
        "a pipe": partial(pipe, "metrics.jsonl"),
        "numbers": partial(written, "metrics.jsonl", "1\n2\n"),
        "null": partial(written, "metrics.jsonl", "null\n"),
        "nested deeply": partial(written, "metrics.jsonl", "[" * 100_000 + "\n{}\n"),
        "a record without step": partial(line, "step", DELETE),
        "a step in text": partial(line, "step", "3"),
        "a value in text": partial(line, "value", "0.5"),
        "a value null": partial(line, "value", None),
        "a split that is a list": partial(line, "split", ["val"]),
        "an unknown target": partial(line, "target", "melting_point"),
        "a metric that is a number": partial(line, "metric", 3),
    },
    "results.json": {
        "cut": partial(cut, "results.json"),
        "empty": partial(written, "results.json", ""),
        "binary": partial(written, "results.json", b"\x00\xff\xfe"),
        "a list": partial(written, "results.json", "[]"),
        "a directory": partial(directory, "results.json"),
        "a pipe": partial(pipe, "results.json"),
        "hardware a number": partial(result, "hardware", 3),
        "metrics a text": partial(result, "metrics", "none"),
        "a metric that is a number": partial(result, "metrics", [3]),
    },
}


def test_a_damaged_run_is_a_row_and_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    expected = {}
    for file, damages in RUNS.items():
        for damage, do in [("whole", None), *damages.items()]:
            name = f"{file}, {damage}"
            folder = tmp_path / name
            folder.mkdir()
            config(name).save(folder / "run.json")
            lines = [record("val", "error", 1 / step, step=step) for step in range(1, 9)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
            (folder / "results.json").write_text(
                json.dumps({"name": name, "hardware": "an abacus", "metrics": lines[-1:]})
            )
            if do:
                do(folder)
            expected[name] = f"damaged {file}" if do else "finished"
    table = overview.list_runs().set_index("name")
    assert dict(table["state"]) == expected
    reasons = table["damage"].dropna()
    assert len(reasons) == sum(map(len, RUNS.values())) and not reasons.str.contains("\n").any()
    assert all(str(tmp_path / name) in reason for name, reason in reasons.items())


HERE = {"pid": os.getpid(), "started": 0.0, "host": processes.HOST}
PIDS = [HERE | change for change in ({"pid": "x"}, {"pid": -1}, {"pid": 10**30}, {"started": "x"}, {"host": 3})]


@pytest.mark.parametrize("text", [*map(json.dumps, PIDS), "[", "[" * 100_000, "\x00", "{}", "3"], ids=range(10))
def test_a_damaged_pid_names_nobody(tmp_path, text):
    (tmp_path / "pid").write_text(text)
    assert processes.owner(tmp_path) is None
