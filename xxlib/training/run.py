"""The loop: a training from its first step to its results, or from where it was left.

A run that was stopped, by whatever, goes on from its last checkpoint when it is started again.
"""

import contextlib
import json
import signal
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from xxlib.datasets.writing import write_atomically
from xxlib.training import parallel, runs
from xxlib.training.judging import (
    evaluate_formulas,
    evaluate_pretraining,
    evaluate_views,
    predictions_table,
    views,
)
from xxlib.training.machine import hardware, keep_freed_memory
from xxlib.training.metrics import IGNORES, ignores_pattern
from xxlib.training.records import record, select, value
from xxlib.training.schedule import learning_rate
from xxlib.training.state import check_finite, checkpoint, prepare, resume, step

LINES, EVALUATIONS = 100, 20  # times that metrics.jsonl gets records: each 1 % of the run, each 5 % also of `val`
CHECKPOINT_SECONDS = 600  # at most, between two checkpoints


class Stopped(Exception):
    """The run was asked to stop, and has left a checkpoint from which it goes on."""


def train(config, folder):
    """Train what a RunConfig says into a run folder, or go on where it was left; returns results.json as a dict.

    On a CPU with equal numbers of processes and threads the weights of a run that was stopped are bitwise those of an
    uninterrupted one.  Raises DatasetError, ConfigError or CheckpointError where something does not fit,
    FloatingPointError where the training diverges, Stopped after SIGTERM.
    """
    folder = Path(folder)
    done = runs.results(folder)
    if done is not None:
        return done
    with parallel.processes() as device, _termination() as terminated:
        torch.set_num_threads(config.machine.n_threads)
        keep_freed_memory()
        run = prepare(config, folder, device)
        resume(run)
        _loop(run, terminated)
        return _finish(run)


def _loop(run, terminated):
    """Every step that is left."""
    budget, n_steps = run.config.budget, run.config.budget.n_steps
    lines_at, evaluations_at = _moments(n_steps, LINES), _moments(n_steps, EVALUATIONS)
    saved = measured = time.monotonic()
    started, measured_step = saved - run.seconds, run.step
    bar = tqdm(total=budget.samples, initial=run.step * budget.batch_size, desc=run.config.name, unit="sample",
               unit_scale=True, mininterval=1 if sys.stderr.isatty() else 20, disable=parallel.rank() > 0)  # fmt: skip
    with bar:
        while run.step < n_steps:
            step(run)
            bar.update(budget.batch_size)
            evaluation_due = run.step in evaluations_at
            line_due = evaluation_due or run.step in lines_at
            stop, overdue = parallel.any_process(terminated(), time.monotonic() - saved > CHECKPOINT_SECONDS)
            if line_due or stop or overdue:
                check_finite(run)
                now = time.monotonic()
                run.seconds = now - started
            if line_due:
                rate = (run.step - measured_step) * budget.batch_size / (now - measured)
                records = _progress(run, rate) + (evaluate_val(run) if evaluation_due else [])
                _write(run, records)
                if ignores_pattern(records) and parallel.rank() == 0:
                    bar.write(f"train: {run.config.name} after step {run.step} {IGNORES}", file=sys.stderr)
                shown = {"train/loss": value(records, "loss", split="train"), "val/error": _val_error(records)}
                bar.set_postfix({name: x for name, x in shown.items() if x is not None}, refresh=False)
                measured, measured_step = time.monotonic(), run.step
            if evaluation_due or stop or overdue:
                checkpoint(run)
                saved = time.monotonic()
            if stop and run.step < n_steps:
                raise Stopped(
                    f"{run.config.name} was stopped after step {run.step} of {n_steps}; start it again to go on"
                )


def _moments(n_steps, n):
    """The numbers of steps done at which n equal parts of a run end."""
    return {round(n_steps * (i + 1) / n) for i in range(n)}


def _progress(run, samples_per_s):
    """Records of `train` for the steps since the last ones."""
    budget, samples = run.config.budget, run.step * run.config.budget.batch_size
    losses = {name: float(total) / run.n_summed for name, total in run.sums.items()}
    run.sums, run.n_summed = {}, 0
    values = {
        "samples": samples,
        "epoch": samples / len(run.examples.rows["train"]),
        "seconds": run.seconds,
        "samples_per_s": samples_per_s,
        "learning_rate": learning_rate(run.step - 1, budget.n_steps, budget.learning_rate),
        "loss": sum(losses.values()),
    }
    records = [record("train", name, number) for name, number in values.items()]
    targets = run.config.objectives.targets
    of_targets = [record("train", "loss", losses[name], target=name) for name in targets if name in losses]
    return records + of_targets + [record("train", name, losses[name]) for name in losses if name not in targets]


def evaluate_val(run):
    """Records of `val`; one modality alone is judged at the end."""
    if run.config.objectives.pretrains:
        return evaluate_pretraining(run.judged, run.examples, run.config, run.device)
    whole = [view for view in views(run.config) if view.given == run.config.model.modalities]
    return evaluate_views(run.judged, run.examples, "val", whole, run.config, run.device)[0]


def _val_error(records):
    return value(records, "error", split="val")


def _write(run, records):
    """Write records to metrics.jsonl, and the weights where they are the best so far on `val`."""
    records = [one | {"step": run.step} for one in records]
    if parallel.rank() == 0:
        with open(run.folder / "metrics.jsonl", "a") as file:
            file.write("".join(json.dumps(one) + "\n" for one in records))
    error = _val_error(records)
    if error is not None and (run.best is None or error < _val_error(run.best)):
        run.best = select(records, split="val")
        if parallel.rank() == 0:
            runs.save_model(run.folder, run.judged, run.metadata | {"step": run.step})


def _finish(run):
    """Judge the best weights; leave predictions.parquet and results.json."""
    config, examples, folder = run.config, run.examples, run.folder
    result = {
        "name": config.name,
        "parameters": run.parameters,
        "samples": config.budget.samples,
        "best_step": run.best[0]["step"],
        "seconds": round(run.seconds, 1),
        "hardware": hardware(run.device, config.machine.n_threads),
        "commit": run.metadata["commit"],
    }
    records, tables = run.best, []
    if not config.objectives.pretrains:
        tensors, _ = runs.load_model(folder)
        runs.load_weights(run.model, tensors, folder / "model.safetensors")
        records = []
        for split in ("val", "test") if config.evaluate_test else ("val",):
            of_views, predicted = evaluate_views(run.model, examples, split, views(config), config, run.device)
            records += of_views + evaluate_formulas(examples, split, predicted, config.model.modalities)
            tables.append(predictions_table(examples, split, predicted))
    result["metrics"] = [one | {"step": result["best_step"]} for one in records]
    if parallel.rank() == 0:
        if tables:
            buffer = pa.BufferOutputStream()
            pq.write_table(pa.concat_tables(tables), buffer, compression="zstd")
            write_atomically(folder / "predictions.parquet", buffer.getvalue())
        runs.write_json(folder / "results.json", result)
        (folder / "state.pt").unlink()
        (folder / "state.pt.sha256").unlink()
    return result


@contextlib.contextmanager
def _termination():
    """Whether SIGTERM, a scheduler's warning, has come; the step at hand is finished first."""
    came = []
    former = signal.signal(signal.SIGTERM, lambda *_: came.append(True))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, former)
