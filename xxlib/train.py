"""run.json -> checkpoint and metrics: python -m xxlib.train data/runs/<name>/run.json

A run that was killed goes on from its last evaluation when it is started again; on a CPU with the same number of
threads its weights are then bitwise those of an uninterrupted run.
"""

import argparse
import contextlib
import dataclasses
import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from xxlib import PROJECT
from xxlib.analysis.metrics import classification_metrics, regression_metrics
from xxlib.datasets import splits
from xxlib.datasets.batches import drawn_targets, make_batch, training_rows
from xxlib.datasets.store import Dataset, DatasetError
from xxlib.datasets.targets import TARGETS, Normaliser
from xxlib.inputs.compositions import mat2vec
from xxlib.models.xxact import build, count_parameters
from xxlib.training import runs
from xxlib.training.config import ConfigError, RunConfig
from xxlib.training.losses import target_losses
from xxlib.training.schedule import learning_rate

BETAS, WEIGHT_DECAY = (0.9, 0.98), 0.01  # the paper's
EVALUATIONS = 20  # of `val` during a run, so that every 5 % of training has a line in metrics.jsonl
EVALUATION_BATCH = 512


def train(config, folder):
    """Train what a RunConfig says into a run folder, or go on where it was left; returns results.json as a dict.

    Raises DatasetError, ConfigError or CheckpointError where something does not fit.
    """
    folder = Path(folder)
    done = runs.results(folder)
    if done is not None:
        return done
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(config.n_threads)
    dataset = Dataset(PROJECT / config.dataset)
    targets = [TARGETS[name] for name in config.targets]
    assigned = dataset.column("split")
    if config.split == "random":
        assigned = splits.by_random(assigned, config.seed)
    rows = {split: dataset.indices(split, assigned) for split in splits.SHUFFLED}
    if min(map(len, rows.values())) == 0:
        raise DatasetError(f"{dataset.folder} needs crystals in train, val and test; it has {dataset.meta['counts']}")
    regressions = [target.name for target in targets if target.kind == "regression"]
    normalisers = {name: Normaliser.fit(dataset.labels[name][rows["train"]]) for name in regressions}

    torch.manual_seed(config.seed)
    model = build(config.model, {target.name: target.width for target in targets}).to(device)
    if config.model.element_vectors == "mat2vec":
        model.composition_encoder.set_element_vectors(mat2vec())
    optimizer = torch.optim.AdamW(model.parameters(), betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    about = {
        "config": dataclasses.asdict(config),
        "normalisers": {name: dataclasses.asdict(normaliser) for name, normaliser in normalisers.items()},
        "grid": dataset.meta["grid"],
        "dataset": {name: dataset.meta[name] for name in ("source", "wavelength", "counts")},
        "commit": commit(),
    }
    step, best, seconds = _resume(folder, config, model, optimizer)

    evaluate_at = {round(config.n_steps * (i + 1) / EVALUATIONS) for i in range(EVALUATIONS)}
    started, train_losses = time.monotonic() - seconds, []
    bar = tqdm(total=config.n_steps * config.batch_size, initial=step * config.batch_size, desc=config.name,
               unit="sample", unit_scale=True, mininterval=1 if sys.stderr.isatty() else 20)  # fmt: skip
    with bar:
        while step < config.n_steps:
            model.train()
            # What is random in a step depends on the seed and the step alone: a resumed run repeats it exactly.
            torch.manual_seed(int(np.random.SeedSequence((config.seed, step)).generate_state(1)[0]))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config.n_steps, config.learning_rate)
            batch = make_batch(
                dataset, training_rows(rows["train"], step, config.batch_size, config.seed), targets, normalisers
            ).to(device)
            drawn = None
            if len(targets) > 1:
                drawn = drawn_targets(len(targets), step, config.batch_size, config.seed).to(device)
            with _precision(config, device):
                output = model(batch.element_ids, batch.fractions, batch.tokens)
            predictions = {name: values.float() for name, values in output.predictions.items()}
            log_std = {name: values.float() for name, values in (output.log_std or {}).items()}
            loss = sum(target_losses(predictions, batch.targets, drawn, log_std).values())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            train_losses.append(loss.detach())
            step += 1
            bar.update(config.batch_size)
            if step in evaluate_at:
                line, _ = evaluate(model, dataset, rows["val"], targets, normalisers, config, device)
                train_loss = float(torch.stack(train_losses).mean())
                if not np.isfinite(train_loss):
                    raise FloatingPointError(
                        f"{config.name}: the loss is not finite before step {step}; try half the learning rate"
                    )
                samples = step * config.batch_size
                seconds = time.monotonic() - started
                line = {"step": step, "samples": samples, "epoch": samples / len(rows["train"]), "seconds": seconds,
                        "learning_rate": group["lr"], "train/loss": train_loss,
                        **{f"val/{name}": value for name, value in line.items()}}  # fmt: skip
                with open(folder / "metrics.jsonl", "a") as file:
                    file.write(json.dumps(line) + "\n")
                if best is None or line["val/error"] < best["val/error"]:
                    best = line
                    runs.save_model(folder, model, {**about, "step": step})
                train_losses = []
                state = {"config": dataclasses.asdict(config), "step": step, "best": best, "seconds": seconds}
                runs.save_state(folder, state | {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
                bar.set_postfix({"loss": train_loss, "val error": line["val/error"]}, refresh=False)

    tensors, _ = runs.load_model(folder)
    model.load_state_dict(tensors)
    judged = ("val", "test") if config.evaluate_test else ("val",)
    result = {
        "name": config.name,
        "preset": config.preset,
        "dataset": config.dataset,
        "split": config.split,
        "seed": config.seed,
        "modalities": list(config.model.modalities),
        "targets": list(config.targets),
        "parameters": count_parameters(model),
        "samples": config.n_steps * config.batch_size,
        "best_step": best["step"],
        "seconds": round(seconds, 1),
        "hardware": hardware(device, config.n_threads),
        "commit": about["commit"],
    }
    tables = []
    for split in judged:
        values, predicted = evaluate(model, dataset, rows[split], targets, normalisers, config, device)
        result |= {f"{split}/{name}": value for name, value in values.items()}
        tables.append(_predictions_table(dataset, rows[split], split, targets, predicted))
    pq.write_table(pa.concat_tables(tables), folder / "predictions.parquet", compression="zstd")
    runs.write_json(folder / "results.json", result)
    (folder / "state.pt").unlink()
    (folder / "state.pt.sha256").unlink()
    return result


@torch.no_grad()
def evaluate(model, dataset, rows, targets, normalisers, config, device):
    """Metrics of some rows as a flat dict, and the predictions: name -> (n,) in the target's unit, or (n, K).

    `error`, on which the epoch is chosen, is the mean over targets of MAE / standard deviation or 1 - accuracy.
    """
    model.eval()
    collected = {target.name: [] for target in targets}
    for start in range(0, len(rows), EVALUATION_BATCH):
        batch = make_batch(dataset, rows[start : start + EVALUATION_BATCH]).to(device)
        with _precision(config, device):
            output = model(batch.element_ids, batch.fractions, batch.tokens)
        for name in collected:
            collected[name].append(output.predictions[name].float().cpu())
    values, predicted, errors = {}, {}, []
    for target in targets:
        raw, true = torch.cat(collected[target.name]), dataset.labels[target.name][rows]
        if target.kind == "regression":
            predicted[target.name] = normalisers[target.name].restore(raw.double().numpy())
            metrics = regression_metrics(true, predicted[target.name])
            errors.append(metrics["mae"] / normalisers[target.name].std)
        else:
            predicted[target.name] = raw.double().softmax(-1).numpy()
            metrics = classification_metrics(true, predicted[target.name])
            errors.append(1 - metrics["accuracy"])
        values |= {f"{target.name}_{name}": value for name, value in metrics.items()}
    return {"error": float(np.mean(errors)), **values}, predicted


def _resume(folder, config, model, optimizer):
    """Step, best line so far and seconds spent: of the state in the folder, which is loaded; or of a fresh run."""
    state = runs.load_state(folder)
    if state is None:
        (folder / "metrics.jsonl").write_text("")
        return 0, None, 0.0
    if json.loads(json.dumps(state["config"])) != json.loads(json.dumps(dataclasses.asdict(config))):
        raise ConfigError(f"{folder} holds the state of another run: give this run another name, or remove the folder")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    lines = [line for line in runs.metrics(folder) if line["step"] <= state["step"]]
    runs.write_atomically(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    return state["step"], state["best"], state["seconds"]


@contextlib.contextmanager
def _precision(config, device):
    # Over 18 tokens the plain products are faster on a CPU than the fused attention kernel made for long sequences.
    attention = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"), attention:
        yield


def _predictions_table(dataset, rows, split, targets, predicted):
    columns = {
        "id": dataset.column("id")[rows],
        "formula": dataset.column("formula")[rows],
        "split": [split] * len(rows),
    }
    for target in targets:
        columns[target.name] = dataset.labels[target.name][rows]  # a class as its index
        columns[f"{target.name}_predicted"] = list(predicted[target.name].astype(np.float32))
    return pa.table(columns)


def commit():
    """Short hash of the checkout, with + where it has changes; "unknown" outside git."""
    git = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"]
    done = subprocess.run(git, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def hardware(device, n_threads):
    """What a result was computed on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")  # Linux; elsewhere platform knows
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    name = model[1] if model else platform.processor() or platform.machine()
    return f"{name} CPU, {n_threads} threads"


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m xxlib.train", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="run.json; everything is written beside it")
    path = parser.parse_args(arguments).run
    try:
        result = train(RunConfig.load(path), path.parent)
    except (ConfigError, DatasetError, runs.CheckpointError, FloatingPointError, OSError) as error:
        sys.exit(f"train: {error}")
    shown = {name: round(value, 4) for name, value in result.items() if name.startswith(("val/", "test/"))}
    print(f"{result['name']}: {json.dumps(shown)}")


if __name__ == "__main__":
    main()
