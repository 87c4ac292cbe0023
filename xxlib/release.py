"""Run folders -> a checkpoint that answers for itself: python -m xxlib.release data/runs/<name> data/checkpoints/<name>

Several runs become one ensemble: each target is answered by the mean of those that were trained on it.
What is written:

model.safetensors   half precision; model-2.safetensors, ... of further members; *.sha256 beside each
reconstructing.safetensors   a model pretrained to guess hidden tokens of patterns, to look at, where one is given
calibration.json    intervals, temperatures, thresholds, fitted on `val`
training/           N_TRAINING training crystals as a dataset, and neighbours.safetensors, their vectors
unseen/             N_UNSEEN crystals of `test` as a dataset, to look at
metrics.json        what the runs were, and what was measured on `test`
README.md           the model card, made of all this, with reliability.png and refusal.png
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save
from tqdm import tqdm

from xxlib import PROJECT, plots
from xxlib.answering.calibration import LEVEL, refusal, reliability
from xxlib.answering.card import model_card
from xxlib.answering.inference import Ensemble
from xxlib.answering.novelty import Contradiction, auroc, signs_of_disagreement
from xxlib.answering.trust import Trust, count_elements, doubts, write_trust
from xxlib.datasets.batches import MODALITIES, exchanged_rows
from xxlib.datasets.store import COLUMNS, Dataset, DatasetError, sha256
from xxlib.datasets.targets import TARGETS
from xxlib.datasets.writing import write_atomically
from xxlib.training import runs
from xxlib.training.config import ConfigError, RunConfig
from xxlib.training.examples import examples_of
from xxlib.training.records import JOINED

N_TRAINING = 1500  # training crystals that a checkpoint carries: neighbours of what it is asked about
N_UNSEEN = 100  # crystals of `test` that it carries, to be asked about
SPOKEN = {"composition": "composition", "xrd": "pattern"}  # how figures call what is given
LEAST_LINE = 3.0  # intensity (0-100) of the weakest line of these that is kept


def release(
    folders: Iterable[str | Path],
    folder: str | Path,
    *,
    reconstructing: str | Path | None = None,
    n_training: int = N_TRAINING,
) -> dict:
    """Turn finished runs into a checkpoint folder; returns metrics.json as a dict.

    reconstructing: folder of a run that was pretrained to guess hidden tokens of patterns.
    Raises CheckpointError, ConfigError or DatasetError where a run is not finished, of an old design, or without its
    dataset.
    """
    folders, folder = [Path(path) for path in folders], Path(folder)
    for path in [*folders, *([reconstructing] if reconstructing else [])]:
        if not runs.results(path):
            raise runs.CheckpointError(f"{path} has not finished (no results.json): train it to its end first")
    configs = [RunConfig.load(path / "run.json") for path in folders]
    for path, config in zip(folders, configs):
        if others := set(config.model.modalities) - set(MODALITIES):
            raise ConfigError(f"{path} reads {', '.join(others)}: a checkpoint answers from formula and pattern alone")
    configs = [config.as_dict() for config in configs]
    folder.mkdir(parents=True, exist_ok=True)
    names = ["model.safetensors", *(f"model-{k}.safetensors" for k in range(2, len(folders) + 1))]
    paths = [_halved(path, folder / name) for path, name in zip(folders, names)]
    if reconstructing:
        paths.append(_halved(reconstructing, folder / "reconstructing.safetensors"))
    ensemble = Ensemble.load(paths[: len(folders)])  # what is judged is what is stored
    examples = examples_of(ensemble.config)
    dataset, rows = examples.dataset, examples.rows
    chosen = _some(rows["train"], n_training)
    write_crystals(dataset, chosen, folder / "training", LEAST_LINE)
    write_crystals(dataset, _some(rows["test"], N_UNSEEN), folder / "unseen")

    labels = {
        split: {name: dataset.labels[name][rows[split]] for name in ensemble.targets} for split in ("val", "test")
    }
    # What will be asked is measured: intervals are fitted to patterns under the effects that the run trained with.
    trust, outputs, measured = {}, {}, {}
    for modalities in tqdm(ensemble.inputs, desc="calibrate", unit="input", disable=None):
        vectors = ensemble.of_rows(dataset, chosen, modalities).vectors.astype(np.float16)
        for split in ("val", "test"):
            outputs[modalities, split] = ensemble.of_rows(dataset, rows[split], modalities, ensemble.effects)
        trust[modalities] = Trust.fit(outputs[modalities, "val"], labels["val"], vectors)
        given = JOINED.join(modalities)
        if ensemble.effects and "xrd" in modalities:
            name = f"{given}, {ensemble.config.data.effects}"
            measured[name] = trust[modalities].measure(outputs[modalities, "test"], labels["test"])
            ideal = ensemble.of_rows(dataset, rows["test"], modalities)
            measured[f"{given}, ideal"] = trust[modalities].measure(ideal, labels["test"])
        else:
            measured[given] = trust[modalities].measure(outputs[modalities, "test"], labels["test"])
    contradiction, contradiction_measured = None, {}
    if len(ensemble.inputs) > 1:
        contradiction, contradiction_measured = _contradiction(ensemble, trust, outputs, dataset, rows)
    write_trust(folder, trust, contradiction, count_elements(dataset, rows["train"]))
    metrics = {
        "runs": [
            {"config": config, "began_on": _began_on(config)} | runs.results(path)
            for config, path in zip(configs, folders)
        ],
        "dataset": {name: dataset.meta[name] for name in ("source", "wavelength", "symprec", "counts")},
        "weights": {path.name: sha256(path) for path in paths},
        "level (%)": 100 * LEVEL,
        "test": measured,
        "contradiction": contradiction_measured,
    }
    runs.write_json(folder / "metrics.json", metrics)
    draw(folder, trust, outputs, labels["test"])
    write_atomically(folder / "README.md", model_card(folder.name, metrics).encode())
    return metrics


def _began_on(config):
    """Datasets that the run was trained on whose weights a run begins with; empty where it has none, or is away."""
    if not config["initial"] or not (path := PROJECT / config["initial"] / "run.json").is_file():
        return []
    data = RunConfig.load(path).data
    return [data.dataset, *data.also]


def _halved(run, path):
    """The weights of a run in half precision, as a file of the checkpoint folder."""
    tensors, metadata = runs.load_model(run)
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    runs.write_checked(path, save(halved, metadata={name: json.dumps(value) for name, value in metadata.items()}))
    return path


def _contradiction(ensemble, trust, outputs, dataset, rows):
    """The Contradiction fitted on `val`, and what it is worth on `test`."""
    both, signs = ensemble.inputs[0], {}
    for split in ("val", "test"):
        n = len(rows[split])
        composition, xrd, together = (outputs[modalities, split] for modalities in (("composition",), ("xrd",), both))
        signs[split, "right"] = signs_of_disagreement(composition, xrd, together, trust[both].distance(together))
        other = exchanged_rows(np.arange(n))
        together = ensemble.of_rows(dataset, rows[split], both, ensemble.effects, rows[split][other])
        signs[split, "wrong"] = signs_of_disagreement(
            composition, xrd.taken(other), together, trust[both].distance(together)
        )
    fitted = Contradiction.fit(signs["val", "right"], signs["val", "wrong"])
    right, wrong = (fitted.score(signs["test", kind]) for kind in ("right", "wrong"))
    return fitted, {
        "AUROC": auroc(right, wrong),
        "false alarms (%)": 100 * float((right > fitted.threshold).mean()),
        "noticed (%)": 100 * float((wrong > fitted.threshold).mean()),
    }


def draw(folder: Path, trust: dict, outputs: dict, labels: dict) -> None:
    """reliability.png and refusal.png on `test`, a line for each combination of inputs."""
    panels, tables = {}, {}
    for modalities, part in trust.items():
        output, given = outputs[modalities, "test"], " and ".join(SPOKEN[name] for name in modalities)
        for name, (doubt, errors) in doubts(part, output, labels).items():
            shares, kept = refusal(doubt, errors)
            if name in part.classes:
                quantity, kept = f"{TARGETS[name].title} right (%)", 100 - 100 * kept
                table = reliability(part.classes[name].probabilities(output.logits[name]), labels[name])
                tables[f"{TARGETS[name].title}, {given}" if len(part.classes) > 1 else given] = table
            else:
                quantity = f"MAE of {TARGETS[name].title} ({TARGETS[name].unit})"
            panels.setdefault(quantity, {})[given] = shares, kept
    plots.refusal(panels).savefig(folder / "refusal.png", dpi=150)
    if tables:
        plots.reliability(tables).savefig(folder / "reliability.png", dpi=150)


def _some(rows, n):
    """At most n of some rows, in their order; the same in every release."""
    return np.sort(np.random.default_rng(0).choice(rows, min(n, len(rows)), replace=False))


def write_crystals(dataset: Dataset, rows: np.ndarray, folder: Path, least: float = 0.0) -> None:
    """Some rows of a Dataset as a small dataset of one compressed shard, without lines of less intensity (0-100)."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = pa.Table.from_batches(dataset.shards)
    table = shards.take(pa.array(rows))
    lines = [np.asarray(values) >= least for values in table["intensity"].to_pylist()]
    for name in ("two_theta", "intensity"):
        kept = [np.asarray(values)[keep] for values, keep in zip(table[name].to_pylist(), lines)]
        column = pa.array(kept, table.schema.field(name).type)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    table = table.select([name for name, _ in COLUMNS])  # without those that are optional
    path = folder / "shard-00000.arrow"
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_file(buffer, table.schema, options=options) as writer:
        writer.write_batch(table.combine_chunks().to_batches()[0])
    write_atomically(path, buffer.getvalue())
    meta = dataset.meta | {
        "counts": dict(Counter(table["split"].to_pylist())),
        "least_intensity": least,
        "shards": [{"file": path.name, "rows": len(rows), "sha256": sha256(path)}],
    }
    runs.write_json(folder / "dataset.json", meta)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="xxlib release", description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; several are averaged")
    parser.add_argument("folder", type=Path, help="of the checkpoint, data/checkpoints/<name>")
    parser.add_argument("--reconstructing", type=Path, metavar="RUN", help="a run of masked XRD modelling, to look at")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        metrics = release(options.runs, options.folder, reconstructing=options.reconstructing)
    except (runs.CheckpointError, ConfigError, DatasetError, OSError) as error:
        sys.exit(f"release: {error}")
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(json.dumps(metrics["test"], indent=1))
    print(f"{options.folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
