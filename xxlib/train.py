"""run.json -> checkpoint and metrics: python -m xxlib.train data/runs/<name>/run.json

In several processes: torchrun --standalone --nproc-per-node=N -m xxlib.train data/runs/<name>/run.json

A run that was stopped, by whatever, goes on from its last checkpoint when it is started again; on a CPU with the same
numbers of processes and threads its weights are then bitwise those of an uninterrupted run.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.distributed.elastic.multiprocessing.errors import record
from tqdm import tqdm

from xxlib.crystals.compositions import mat2vec
from xxlib.datasets.store import DatasetError
from xxlib.models.layers import compile_layers, recompute_layers
from xxlib.models.xxact import build, count_parameters
from xxlib.training import parallel, runs
from xxlib.training.config import ConfigError, RunConfig
from xxlib.training.divergence import explain, first_bad_step
from xxlib.training.embeddings import read_by_heads
from xxlib.training.examples import Examples, examples_of
from xxlib.training.judging import (
    evaluate_formulas,
    evaluate_pretraining,
    evaluate_views,
    predictions_table,
    views,
)
from xxlib.training.machine import commit, hardware, keep_freed_memory
from xxlib.training.metrics import IGNORES, ignores_pattern
from xxlib.training.schedule import learning_rate
from xxlib.training.starts import start_from
from xxlib.training.steps import step_gradients

BETAS, WEIGHT_DECAY = (0.9, 0.98), 0.01  # the paper's
LINES, EVALUATIONS = 100, 20  # of metrics.jsonl: one each 1 % of the run, each 5 % with metrics on `val`
CHECKPOINT_SECONDS = 600  # at most, between two checkpoints
STOPPED = 75  # exit status of a run that was asked to stop: start it again and it goes on


class Stopped(Exception):
    """The run was asked to stop, and has left a checkpoint from which it goes on."""


@dataclass
class Run:
    """A training under way."""

    config: RunConfig
    folder: Path
    device: torch.device
    examples: Examples
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    about: dict  # what model.safetensors says of itself
    parameters: int
    first_bad: torch.Tensor  # the first step whose loss or gradient was not finite, -1 = none so far
    step: int = 0  # how many are done
    best: dict | None = None  # line of metrics.jsonl whose weights model.safetensors holds
    seconds: float = 0.0  # of training, in all the processes that took their turn
    sums: dict = field(default_factory=dict)  # of each loss since the last line of metrics.jsonl
    n_summed: int = 0


def train(config, folder):
    """Train what a RunConfig says into a run folder, or go on where it was left; returns results.json as a dict.

    Raises DatasetError, ConfigError or CheckpointError where something does not fit, FloatingPointError where the
    training diverges, Stopped after SIGTERM.
    """
    folder = Path(folder)
    done = runs.results(folder)
    if done is not None:
        return done
    with parallel.processes() as device, _termination() as terminated:
        torch.set_num_threads(config.n_threads)
        keep_freed_memory()
        run = _prepare(config, folder, device)
        _resume(run)
        _loop(run, terminated)
        return _finish(run)


def _prepare(config, folder, device):
    """A Run before its first step."""
    if config.batch_size < parallel.n_processes():
        raise ConfigError(f"a batch of {config.batch_size} cannot be shared by {parallel.n_processes()} processes")
    examples = examples_of(config)
    if min(map(len, examples.rows.values())) < parallel.n_processes():
        raise DatasetError(f"{examples.dataset.folder} has a split with fewer crystals than there are processes")
    torch.manual_seed(config.seed)
    model = build(config.model, config.widths, config.objectives, config.partial)
    if config.model.element_vectors == "mat2vec":
        model.composition_encoder.set_element_vectors(mat2vec())
    parameters = count_parameters(model)
    if config.initial:
        start_from(model, config)
    if config.frozen:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("heads."))
    if config.compile:
        compile_layers(model)
    if config.checkpointing:
        recompute_layers(model)
    model.to(device)
    if config.frozen:
        examples = dataclasses.replace(examples, cls=read_by_heads(model, examples, config))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    meta, normalisers = examples.dataset.meta, examples.normalisers
    about = {
        "config": dataclasses.asdict(config),
        "normalisers": {name: dataclasses.asdict(normaliser) for name, normaliser in normalisers.items()},
        "token_mean_square": examples.token_mean_square,
        "grid": meta["grid"],
        "dataset": {name: meta[name] for name in ("source", "wavelength", "counts")},
        "commit": commit(),
    }
    first_bad = torch.tensor(-1, device=device)
    return Run(config, folder, device, examples, model, optimizer, about, parameters, first_bad)


def _resume(run):
    """Take a run to the step of the checkpoint in its folder, where there is one."""
    state = runs.load_state(run.folder)
    if state is None:
        if parallel.rank() == 0:
            (run.folder / "metrics.jsonl").write_text("")
        return
    if json.loads(json.dumps(state["config"])) != json.loads(json.dumps(dataclasses.asdict(run.config))):
        raise ConfigError(
            f"{run.folder} holds the state of another run: give this run another name, or remove the folder"
        )
    runs.load_weights(run.model, state["model"], run.folder / "state.pt")
    run.optimizer.load_state_dict(state["optimizer"])
    run.step, run.best, run.seconds = state["step"], state["best"], state["seconds"]
    run.sums, run.n_summed = {name: s.to(run.device) for name, s in state["sums"].items()}, state["n_summed"]
    if parallel.rank() == 0:
        lines = [line for line in runs.metrics(run.folder) if line["step"] <= run.step]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        runs.write_atomically(run.folder / "metrics.jsonl", text.encode())


def _loop(run, terminated):
    """Every step that is left."""
    config, n_steps = run.config, run.config.n_steps
    lines_at, evaluations_at = _moments(n_steps, LINES), _moments(n_steps, EVALUATIONS)
    saved = measured = time.monotonic()
    started, measured_step = saved - run.seconds, run.step
    bar = tqdm(total=n_steps * config.batch_size, initial=run.step * config.batch_size, desc=config.name,
               unit="sample", unit_scale=True, mininterval=1 if sys.stderr.isatty() else 20,
               disable=parallel.rank() > 0)  # fmt: skip
    with bar:
        while run.step < n_steps:
            _step(run)
            bar.update(config.batch_size)
            evaluation_due = run.step in evaluations_at
            line_due = evaluation_due or run.step in lines_at
            stop, overdue = parallel.any_process(terminated(), time.monotonic() - saved > CHECKPOINT_SECONDS)
            if line_due or stop or overdue:
                _check_finite(run)
                now = time.monotonic()
                run.seconds = now - started
            if line_due:
                rate = (run.step - measured_step) * config.batch_size / (now - measured)
                line = _line(run, rate) | (_evaluate_val(run) if evaluation_due else {})
                _write_line(run, line)
                if ignores_pattern(line) and parallel.rank() == 0:
                    bar.write(f"train: {config.name} after step {run.step} {IGNORES}", file=sys.stderr)
                shown = {name: line[name] for name in ("train/loss", "val/error") if name in line}
                bar.set_postfix(shown, refresh=False)
                measured, measured_step = time.monotonic(), run.step
            if evaluation_due or stop or overdue:
                _checkpoint(run)
                saved = time.monotonic()
            if stop and run.step < n_steps:
                raise Stopped(f"{config.name} was stopped after step {run.step} of {n_steps}; start it again to go on")


def _moments(n_steps, n):
    """The numbers of steps done at which n equal parts of a run end."""
    return {round(n_steps * (i + 1) / n) for i in range(n)}


def _step(run):
    config = run.config
    run.model.train(not config.frozen)  # heads alone have nothing that differs in training
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run.step, config.n_steps, config.learning_rate)
    losses = step_gradients(run.model, run.examples, config, run.step, run.device)
    run.first_bad = first_bad_step(run.first_bad, run.step, losses, run.model)
    if run.device.type == "cpu":
        _check_finite(run)  # a GPU would have to be waited for
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.step += 1
    run.sums = {name: run.sums.get(name, 0) + loss for name, loss in losses.items()}
    run.n_summed += 1


def _check_finite(run):
    step = int(run.first_bad)
    if step >= 0:
        raise FloatingPointError(explain(run.folder, run.examples, run.config, step))


def _line(run, samples_per_s):
    """What metrics.jsonl says of the steps since its last line."""
    config, samples = run.config, run.step * run.config.batch_size
    losses = {name: float(total) / run.n_summed for name, total in run.sums.items()}
    run.sums, run.n_summed = {}, 0
    return {
        "step": run.step,
        "samples": samples,
        "epoch": samples / len(run.examples.rows["train"]),
        "seconds": run.seconds,
        "samples_per_s": samples_per_s,
        "learning_rate": learning_rate(run.step - 1, config.n_steps, config.learning_rate),
        "train/loss": sum(losses.values()),
        **{f"train/{name}": loss for name, loss in losses.items()},
    }


def _evaluate_val(run):
    if run.config.objectives:
        values = evaluate_pretraining(run.model, run.examples, run.config, run.device)
        return {f"val/{name}": value for name, value in values.items()}
    whole = [view for view in views(run.config) if view.absent is None]  # one modality alone is judged at the end
    return evaluate_views(run.model, run.examples, "val", whole, run.config, run.device)[0]


def _write_line(run, line):
    """Write a line of metrics.jsonl, and the weights where they are the best so far on `val`."""
    if parallel.rank() == 0:
        with open(run.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
    if "val/error" in line and (run.best is None or line["val/error"] < run.best["val/error"]):
        run.best = line
        if parallel.rank() == 0:
            runs.save_model(run.folder, run.model, run.about | {"step": run.step})


def _checkpoint(run):
    if parallel.rank() == 0:
        state = {name: getattr(run, name) for name in ("step", "best", "seconds", "sums", "n_summed")}
        state |= {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()}
        runs.save_state(run.folder, state | {"config": dataclasses.asdict(run.config)})


def _finish(run):
    """Judge the best weights; leave predictions.parquet and results.json."""
    config, examples, folder = run.config, run.examples, run.folder
    result = {
        "name": config.name,
        "preset": config.preset,
        "dataset": config.dataset,
        "split": config.split,
        "seed": config.seed,
        "modalities": list(config.model.modalities),
        "targets": list(config.targets),
        "objectives": list(config.objectives),
        **{name: getattr(config, name) for name in ("hidden_rate", "hidden_span", "unlabelled")},
        **{name: getattr(config, name) for name in ("initial", "frozen", "left_out", "n_train")},
        **{name: getattr(config, name) for name in ("augmentation", "modality_dropout", "one_target", "likelihood")},
        "parameters": run.parameters,
        "samples": config.n_steps * config.batch_size,
        "best_step": run.best["step"],
        "seconds": round(run.seconds, 1),
        "hardware": hardware(run.device, config.n_threads),
        "commit": run.about["commit"],
    }
    if config.objectives:
        result |= {name: value for name, value in run.best.items() if name.startswith("val/")}
    else:
        tensors, _ = runs.load_model(folder)
        runs.load_weights(run.model, tensors, folder / "model.safetensors")
        tables = []
        for split in ("val", "test") if config.evaluate_test else ("val",):
            values, predicted = evaluate_views(run.model, examples, split, views(config), config, run.device)
            result |= values | evaluate_formulas(examples, split, predicted)
            tables.append(predictions_table(examples, split, predicted))
    if parallel.rank() == 0:
        if not config.objectives:
            buffer = pa.BufferOutputStream()
            pq.write_table(pa.concat_tables(tables), buffer, compression="zstd")
            runs.write_atomically(folder / "predictions.parquet", buffer.getvalue())
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


@contextlib.contextmanager
def _claimed(folder):
    """The run folder as this training's own inside the block; as its supervisor's where launch has started it."""
    from xxlib.launching import processes  # psutil, which training itself does without

    claims = int(os.environ.get("RANK", 0)) == 0 and folder.is_dir() and not processes.owned_by_ancestor(folder)
    try:
        with processes.claim(folder) if claims else contextlib.nullcontext():
            yield
    except processes.AlreadyRunning as error:
        sys.exit(f"train: {error}")


@record  # in a file that torchrun names, the traceback of a process that fails
def _recorded(path):
    return train(RunConfig.load(path), path.parent)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m xxlib.train", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="run.json; everything is written beside it")
    path = parser.parse_args(arguments).run
    try:
        with _claimed(path.parent):
            result = _recorded(path)
    except (ConfigError, DatasetError, runs.CheckpointError, FloatingPointError, OSError) as error:
        sys.exit(f"train: {error}")
    except Stopped as message:
        print(f"train: {message}", file=sys.stderr)
        sys.exit(STOPPED)
    shown = {name: round(value, 4) for name, value in result.items() if name.startswith(("val/", "test/"))}
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"{result['name']}: {json.dumps(shown)}")
        if ignores_pattern(result):
            print(f"train: {result['name']} {IGNORES}", file=sys.stderr)


if __name__ == "__main__":
    main()
