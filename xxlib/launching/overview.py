"""The runs of this project: which there are, and how far each is."""

import os

from xxlib.datasets.sources import storable
from xxlib.datasets.targets import TARGETS
from xxlib.launching.processes import owner
from xxlib.launching.progress import by_step
from xxlib.training import runs
from xxlib.training.config import ConfigError, RunConfig
from xxlib.training.records import select


def list_runs():
    """Table of the runs in data/runs, finished or not, in the order of their last records.

    progress is in %, hours are those of training; state is running, finished, failed (failure.txt says why), stopped or
    "damaged run.json" (or another file), with the reason in `damage`.  The metrics of val are those of the evaluation
    that was best so far; hardware is known of finished runs.
    """
    import pandas as pd

    folders = sorted(runs.RUNS.iterdir()) if runs.RUNS.is_dir() else []
    rows = [_row(folder) for folder in folders if _is_run(folder)]
    columns = ["name", "preset", "targets", "dataset", "progress", "state", "hours", "hardware", "at"]
    table = pd.DataFrame(rows, columns=dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    return table.sort_values(["at", "name"], ignore_index=True, na_position="first").drop(columns="at")


def _is_run(folder):
    return os.path.lexists(folder / "run.json") or (folder.is_dir() and not os.access(folder, os.X_OK))


def _row(folder):
    """What there is to say of a run, whatever has become of its files."""
    try:
        return _row_of(folder, RunConfig.load(folder / "run.json"))
    except (ConfigError, runs.CheckpointError, OSError) as error:
        name = next((name for name in ("metrics.jsonl", "results.json") if name in str(error)), "run.json")
        return {"name": storable(folder.name), "state": f"damaged {name}", "damage": storable(str(error))}


def _row_of(folder, config):
    records, done = runs.metrics(folder), runs.results(folder)
    state = "finished" if done else "running" if owner(folder) else "stopped"
    if state == "stopped" and (folder / "failure.txt").exists():
        state = "failed"
    last = by_step(records)[-1] if records else {"samples": 0, "seconds": 0}
    return {
        "name": storable(folder.name),
        "preset": config.preset,
        "targets": " + ".join(config.objectives.targets),
        "dataset": config.data.dataset,
        "progress": 100.0 if done else 100 * last["samples"] / config.budget.samples,
        "state": state,
        "hours": last["seconds"] / 3600,
        "hardware": done and done.get("hardware"),
        "at": (folder / "metrics.jsonl").stat().st_mtime if records else None,
        **_best(records),
    }


def _best(records):
    """The metrics of `val` of the evaluation that was best so far."""
    errors = select(records, split="val", metric="error")
    if not errors:
        return {}
    step = min(errors, key=lambda one: one["value"])["step"]
    row = {}
    for one in select(records, split="val", step=step, effects=None, exchanged=None):
        quantity, scale = TARGETS[one["target"]].shown(one["metric"]) if one["target"] else (one["metric"], 1.0)
        row[f"val {quantity}"] = scale * one["value"]
    return row
