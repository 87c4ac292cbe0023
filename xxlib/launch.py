"""Start a training from a notebook cell or a script, in a process of its own."""

import subprocess
import sys
from collections import deque

from xxlib import PROJECT
from xxlib.training import runs
from xxlib.training.config import ConfigError, RunConfig


class TrainingFailed(RuntimeError):
    """A training ended before its time; the message holds the last lines it printed."""


def train(config):
    """Train a RunConfig in data/runs/<name> and return its results (results.json as a dict).

    A run that has finished is not trained again, one that was killed goes on.  What the training prints, its progress
    bar included, is passed on.  Raises TrainingFailed with the training's own last words where it fails, ConfigError
    where the folder holds another run of this name.
    """
    folder = runs.RUNS / config.name
    path = folder / "run.json"
    if path.exists():
        if RunConfig.load(path) != config:
            raise ConfigError(f"{folder} holds another run: give this one another name, or remove the folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        config.save(path)
    if runs.results(folder) is None:
        _run([sys.executable, "-m", "xxlib.train", str(path)], config.name)
    return runs.results(folder)


def _run(command, name):
    said = deque(maxlen=30)
    with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        try:
            # A progress bar ends its lines with carriage returns; universal newlines makes lines of them.
            for line in process.stderr:
                said.append(line)
                sys.stderr.write("\r" + line.rstrip("\n") if "sample/s" in line else line)
                sys.stderr.flush()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        words = "".join(line for line in said if "sample/s" not in line)
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit status {process.returncode}"
        raise TrainingFailed(f"{name} failed ({how}):\n{words}")
