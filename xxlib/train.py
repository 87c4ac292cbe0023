"""run.json -> checkpoint and metrics: python -m xxlib.train data/runs/<name>/run.json

In several processes: torchrun --standalone --nproc-per-node=N -m xxlib.train data/runs/<name>/run.json

A run that was stopped, by whatever, goes on from its last checkpoint when it is started again; on a CPU with the same
numbers of processes and threads its weights are then bitwise those of an uninterrupted run.
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from xxlib.datasets.store import DatasetError
from xxlib.models.config import ModelError
from xxlib.training import runs
from xxlib.training.config import ConfigError, RunConfig
from xxlib.training.metrics import IGNORES, ignores_pattern
from xxlib.training.run import Stopped, train

STOPPED = 75  # exit status of a run that was asked to stop: start it again and it goes on


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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="xxlib train", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="run.json; everything is written beside it")
    path = parser.parse_args(arguments).run
    try:
        with _claimed(path.parent):
            result = _recorded(path)
    except (ConfigError, DatasetError, ModelError, runs.CheckpointError, FloatingPointError, OSError) as error:
        sys.exit(f"train: {error}")
    except Stopped as message:
        print(f"train: {message}", file=sys.stderr)
        sys.exit(STOPPED)
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"{result['name']}: {summary(result)}")
        if ignores_pattern(result["metrics"]):
            print(f"train: {result['name']} {IGNORES}", file=sys.stderr)


def summary(result: dict) -> str:
    """The metrics of a finished run in a line."""
    lines = []
    for one in result["metrics"]:
        view = [one["split"], one["effects"], one["exchanged"] and f"{one['exchanged']} of other crystals"]
        view.append(one["given"] and f"from {one['given']}")
        metric = f"{one['target']} {one['metric']}" if one["target"] else one["metric"]
        lines.append(f"{', '.join(filter(None, view))}: {metric} {one['value']:.4g}")
    return "; ".join(lines)


if __name__ == "__main__":
    main()
