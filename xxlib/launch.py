"""Start, follow and stop a training from a notebook cell or a script; it runs in processes of its own.

launch.train(config)                    one process, on the GPU where there is one
launch.train(config, n_gpus=8)          torchrun, one process a GPU
launch.train(config, n_processes=2)     torchrun, two processes on the CPU (gloo); n_gpus=0 is one
launch.train(config, detach=True)       goes on when the notebook ends; launch.attach(name) follows it again
launch.command(config, n_nodes=2, ...)  what to type on each of several machines; launch.slurm writes the script

From a terminal: xxlib launch start run.json --gpus 8; xxlib launch list, follow NAME, stop NAME
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from xxlib import PROJECT
from xxlib.launching import comparison, overview, processes, progress, supervisor
from xxlib.launching.processes import AlreadyRunning
from xxlib.training import runs
from xxlib.training.config import ConfigError, RunConfig, check_name
from xxlib.training.metrics import IGNORES, ignores_pattern

if TYPE_CHECKING:  # a terminal does without matplotlib
    from matplotlib.figure import Figure

MODULE = "xxlib.train"  # what every process runs
POLL = 0.3  # seconds


class TrainingFailed(RuntimeError):
    """A training ended before its time; the message holds its own last words: those of the rank that failed first."""


def train(
    config: RunConfig, n_gpus: int | None = None, n_processes: int | None = None, detach: bool = False
) -> dict | None:
    """Train a RunConfig in data/runs/<name> and return its results (results.json as a dict).

    A run that has finished is not trained again, one that was stopped goes on.  Progress is shown while it trains.
    n_gpus: processes on as many GPUs of this machine; 0: on the CPU; None: one process, on a GPU where there is one.
    n_processes: as many processes on the CPU.
    Interrupting the cell, or the end of the notebook, ends the training, unless detach: then this returns None at once,
    and attach and stop find the run by its name.

    Raises TrainingFailed with the training's own words where it fails, AlreadyRunning where another process trains it,
    ConfigError where the folder holds another run of this name or the machine lacks the GPUs.
    """
    n, environment = _processes(n_gpus, n_processes)
    path = _written(config)
    folder = path.parent
    if runs.results(folder) is not None:
        return runs.results(folder)
    if processes.owner(folder):
        raise AlreadyRunning(processes.refusal(folder))
    command = [sys.executable, "-m", "xxlib.launching.supervisor", str(path), f"--processes={n}", f"--module={MODULE}"]
    if not detach:
        command.append(f"--parent={os.getpid()}")
    # In a session of its own, so that what interrupts the notebook does not hit the training half-way.
    with open(folder / "output.log", "ab") as output:
        child = psutil.Popen(
            command, cwd=PROJECT, env=os.environ | environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    if detach:
        while child.poll() is None and processes.owner(folder) is None:
            time.sleep(POLL)
    else:
        try:
            _follow(config, lambda: child.poll() is None)
        except BaseException:
            processes.end(child, signal.SIGINT, supervisor.QUICK + 3)
            raise
    if child.poll() == supervisor.REFUSED:
        raise AlreadyRunning(processes.refusal(folder))
    if detach and child.poll() is None:
        print(f'{config.name} trains in process {child.pid}: launch.attach("{config.name}") follows it')
        return None
    return _outcome(folder, child.poll())


def attach(name: str) -> dict:
    """Follow a run that another notebook started, to its end, and return its results, as train does.

    Interrupting the cell ends the following, not the run.  Raises TrainingFailed where it failed or was stopped.
    """
    folder = _existing(name)
    if processes.owner(folder):
        _follow(RunConfig.load(folder / "run.json"), lambda: processes.owner(folder) is not None)
    return _outcome(folder)


def stop(name: str) -> None:
    """End a run, wherever it was started on this machine; it saves its state first, and train goes on from there.

    Where it has not ended after 40 s it is killed.  Raises ConfigError where it does not run here.
    """
    folder = _existing(name)
    owner = processes.owner(folder)
    if owner is None:
        raise ConfigError(f"{name} does not run")
    if owner.host != processes.HOST:
        raise ConfigError(f"{name} runs on {owner.host}: stop it there")
    processes.end(psutil.Process(owner.pid), signal.SIGTERM, supervisor.PATIENT + 10)


def compare(
    names: Iterable[str], metric: str = "error", target: str | None = None, split: str = "val", title: str = ""
) -> "Figure":
    """Figure of one metric of several runs of data/runs, finished or not, against the samples seen.

    metric, target, split: as records have them, "mae" of "e_form" on "val".  Raises ValueError where no run has it.
    """
    from xxlib import plots

    curves, quantity = comparison.curves(names, metric, target, split)
    return plots.learning_curves(curves, quantity, title, log=metric not in ("accuracy", "balanced_accuracy", "r2"))


def command(
    config: RunConfig, n_nodes: int, n_gpus: int = 0, n_processes: int = 1, endpoint: str = "HEAD:29500"
) -> str:
    """The torchrun command that trains a RunConfig on several machines; type the same on each, within minutes.

    n_gpus: of one machine, a process each; 0: n_processes processes a machine on the CPU.  endpoint: host and port of
    one of them that all can reach.  The project must be in the same place on every machine, on a shared disk.
    """
    return _command(config, n_nodes, n_gpus, n_processes, shlex.quote(endpoint))


def _command(config, n_nodes, n_gpus, n_processes, endpoint):
    """As command; endpoint: as the shell is to read it."""
    _check_numbers(n_nodes=n_nodes, n_processes=n_processes, **({"n_gpus": n_gpus} if n_gpus else {}))
    path = _written(config)
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={n_nodes}"]
    torchrun += [f"--nproc-per-node={n_gpus or n_processes}", f"--rdzv-id={config.name}", "--rdzv-backend=c10d"]
    last = ["-m", MODULE, str(path)]
    hide = "" if n_gpus else "CUDA_VISIBLE_DEVICES= "
    return (
        f"cd {shlex.quote(str(PROJECT))} && {hide}{shlex.join(torchrun)} --rdzv-endpoint={endpoint} {shlex.join(last)}"
    )


def slurm(config: RunConfig, n_nodes: int, n_gpus: int = 0, n_processes: int = 1, hours: int = 24) -> Path:
    """Write the same as a batch script for Slurm and return its path: sbatch data/runs/<name>/slurm.sh

    Two minutes before `hours` are over Slurm sends SIGTERM and the training saves its state; submitted again, it goes
    on.  Partition and account, where a cluster asks for them, are options of sbatch.
    """
    _check_numbers(hours=hours)
    line = _command(config, n_nodes, n_gpus, n_processes, endpoint='"$head:29500"')
    folder = _written(config).parent
    log = str(folder).replace("%", "%%")  # Slurm's own patterns begin with it
    if re.search(r"[\\\"'\s]", log.replace(" ", "")):
        raise ConfigError(
            f"{folder} cannot be named in a Slurm script: no quotes, backslashes or line breaks in its path"
        )
    options = [f"job-name={_quoted(config.name)}", f"nodes={n_nodes}", "ntasks-per-node=1", f"time={hours}:00:00"]
    options += [
        f"cpus-per-task={config.machine.n_threads * (n_gpus or n_processes)}",
        f"output={_quoted(f'{log}/slurm-%j.log')}",
    ]
    options += ["signal=TERM@120"] + [f"gpus-per-node={n_gpus}"] * bool(n_gpus)
    script = ["#!/bin/bash", *(f"#SBATCH --{option}" for option in options), "set -e"]
    script += ['export head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)']
    script += [f"srun bash -c {shlex.quote(line)}"]
    path = folder / "slurm.sh"
    path.write_text("\n".join(script) + "\n")
    return path


def _quoted(text):
    """As sbatch reads it, which ends a value at a blank or #."""
    return f'"{text}"' if re.search(r"[ #]", text) else text


def _check_numbers(**numbers):
    """Raise ConfigError unless all are whole numbers, at least 1."""
    for name, number in numbers.items():
        if type(number) is not int or number < 1:
            raise ConfigError(f"{name}={number!r}: it must be a whole number, at least 1")


def _processes(n_gpus, n_processes):
    """How many processes, and what their environment has beyond this one's."""
    _check_numbers(**{name: n for name, n in (("n_gpus", n_gpus), ("n_processes", n_processes)) if n not in (None, 0)})
    if n_gpus and n_processes:
        raise ConfigError("n_gpus asks for one process a GPU, n_processes for processes on the CPU: give one of them")
    if n_gpus:
        import torch

        if n_gpus > torch.cuda.device_count():
            raise ConfigError(f"n_gpus={n_gpus}: this machine has {torch.cuda.device_count()}; n_gpus=0 is the CPU")
        return n_gpus, {}
    if n_gpus is None and n_processes is None:
        return 1, {}
    return n_processes or 1, {"CUDA_VISIBLE_DEVICES": ""}


def _written(config):
    """Path of the run.json of a RunConfig, written where it is new."""
    path = runs.RUNS / config.name / "run.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        config.save(path)
    elif not config.is_same_run(RunConfig.load(path)):
        raise ConfigError(f"{path.parent} holds another run: give this one another name, or remove the folder")
    elif runs.results(path.parent) is None and not processes.owner(path.parent):
        # It may go on with another number of threads.
        config.save(path)
    return path


def _existing(name):
    check_name(name)
    folder = runs.RUNS / name
    if not (folder / "run.json").exists():
        there = ", ".join(sorted(path.parent.name for path in runs.RUNS.glob("*/run.json")))
        raise ConfigError(f"no run {name!r} in {runs.RUNS}; there are: {there or 'none'}")
    return folder


def _follow(config, alive):
    shown = progress.Progress(config, runs.RUNS / config.name, _draw)
    while alive():
        shown.update()
        time.sleep(POLL)
    shown.close()


def _draw(*arguments):
    from xxlib import plots  # matplotlib, which a terminal does without

    return plots.progress(*arguments)


def _outcome(folder, status=0):
    """Results of a run whose processes have ended."""
    failure = folder / "failure.txt"
    if failure.is_file():
        raise TrainingFailed(failure.read_text(errors="replace").rstrip())
    if status < 0:
        raise TrainingFailed(f"{folder.name} failed: its supervisor was killed from outside (signal {-status})")
    if status or runs.results(folder) is None:
        advice = "was stopped before its end; launch.train goes on where it was; what it printed is in"
        raise TrainingFailed(f"{folder.name} {advice} {folder / 'output.log'}")
    result = runs.results(folder)
    if ignores_pattern(result["metrics"]):
        warnings.warn(f"{folder.name} {IGNORES}", stacklevel=3)
    return result


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="xxlib launch", description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("start", help="a training, or go on with one that was stopped")
    start.add_argument("run", type=Path, help="run.json; everything is written to data/runs/<its name>")
    start.add_argument("--gpus", type=int, metavar="N", help="one process a GPU; 0: on the CPU")
    start.add_argument("--processes", type=int, metavar="N", help="on the CPU")
    start.add_argument("--detach", action="store_true", help="leave it alone; `follow` and `stop` find it by its name")
    verbs.add_parser("list", help="the runs of data/runs")
    for verb, what in (("follow", "a run to its end"), ("stop", "a run, which saves its state first")):
        verbs.add_parser(verb, help=what).add_argument("name")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "start":
            train(RunConfig.load(options.run), options.gpus, options.processes, options.detach)
        elif options.verb == "list":
            print(overview.list_runs().to_string(index=False))
        else:
            {"follow": attach, "stop": stop}[options.verb](options.name)
    except (ConfigError, AlreadyRunning, TrainingFailed, OSError) as error:
        sys.exit(f"launch: {error}")


if __name__ == "__main__":
    main()
