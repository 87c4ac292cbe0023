"""The runs of this project: which there are, and how far each is."""

import json

from xxlib.launching.processes import owner
from xxlib.training import runs


def list_runs():
    """Table of the runs in data/runs, finished or not, in the order of their last line of metrics.

    progress is in %, hours are those of training; state is running, finished, failed (failure.txt says why) or stopped.
    The val/... are those of the evaluation that was best so far; hardware is known of finished runs.
    """
    import pandas as pd

    rows = [_row(path.parent) for path in sorted(runs.RUNS.glob("*/run.json"))]
    columns = ["name", "preset", "targets", "dataset", "progress", "state", "hours", "hardware", "at"]
    table = pd.DataFrame(rows, columns=dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    return table.sort_values(["at", "name"], ignore_index=True, na_position="first").drop(columns="at")


def _row(folder):
    try:
        config = json.loads((folder / "run.json").read_text())
        about = {name: config[name] for name in ("preset", "dataset")} | {"targets": " + ".join(config["targets"])}
        samples = config["n_steps"] * config["batch_size"]
    except (ValueError, KeyError, TypeError):
        return {"name": folder.name, "state": "damaged run.json"}
    lines, done = runs.metrics(folder), runs.results(folder)
    evaluated = [line for line in lines if any(name.startswith("val/") for name in line)]
    best = min(evaluated, key=lambda line: line.get("val/error", 0), default={})
    state = "finished" if done else "running" if owner(folder) else "stopped"
    if state == "stopped" and (folder / "failure.txt").exists():
        state = "failed"
    last = lines[-1] if lines else {"samples": 0, "seconds": 0}
    return {
        "name": folder.name,
        **about,
        "progress": 100.0 if done else 100 * last["samples"] / samples,
        "state": state,
        "hours": last["seconds"] / 3600,
        "hardware": done and done.get("hardware"),
        "at": (folder / "metrics.jsonl").stat().st_mtime if lines else None,
        **{name: value for name, value in best.items() if name.startswith("val/")},
    }
