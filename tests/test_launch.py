"""Trainings started, followed and stopped: real processes, real kernels, real kill -9."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from jupyter_client.manager import start_new_kernel

from xxlib import PROJECT, launch
from xxlib.launching import processes, supervisor
from xxlib.training import runs
from xxlib.training.config import Budget, ConfigError, Data, Machine, RunConfig

GONE = 10  # seconds within which nothing of a run may be left
START = 300  # seconds in which everything has started, on a busy machine
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(PROJECT), str(Path(__file__).parent)])}


def config(name="run", **changes):
    budget = Budget(batch_size=8, n_steps=20, learning_rate=1e-3)
    run = RunConfig(
        name=name, preset="tiny", data=Data(dataset="data/demo"), budget=budget, machine=Machine(n_threads=1)
    )
    return run.but(**changes)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the runs of a test are; what a test leaves running is ended after it."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    monkeypatch.setattr(launch, "MODULE", "stand_in")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    for process in of(tmp_path):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def of(folder, word=""):
    """Processes of the runs in a folder: its path, and `word`, are in their command line."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if f"{folder}/" in line and word in line and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_for(what, seconds=START):
    """Wait until what() is true; False where it has not become so."""
    end = time.monotonic() + seconds
    while not (found := bool(what())) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def code(folder, call, stand_in):
    """A script, or the cell of a notebook, in which a user makes a call."""
    return f"""
import os, pathlib
from xxlib import launch
from xxlib.training import runs
from test_launch import config as run_config
os.environ["STAND_IN"], launch.MODULE, runs.RUNS = {stand_in!r}, "stand_in", pathlib.Path({str(folder)!r})
config = run_config()
{call}
"""


def error_of(client, message):
    """Name of the exception with which a cell ended, None where it ended well."""
    while (reply := client.get_shell_msg(timeout=START))["parent_header"]["msg_id"] != message:
        pass
    return reply["content"].get("ename")


@pytest.fixture
def kernels():
    """Starts Jupyter kernels; calling gives (manager, client)."""
    started = []

    def start():
        started.append(start_new_kernel(env=os.environ | ENVIRONMENT, cwd=str(PROJECT)))
        return started[-1]

    yield start
    for manager, client in started:
        client.stop_channels()
        with contextlib.suppress(Exception):
            manager.shutdown_kernel(now=True)


# The cause of a failure


def test_a_rank_that_raises_is_the_cause(folder, monkeypatch):
    """Its traceback, though the other rank ends with a connection that was closed."""
    monkeypatch.setenv("STAND_IN", "raises")
    with pytest.raises(launch.TrainingFailed) as caught:
        launch.train(config(), n_processes=2)
    words = str(caught.value)
    assert words.startswith("run failed (rank 1, exit status 1):\nTraceback")
    assert words.endswith("KeyError: 'the true cause'") and "onnection" not in words
    assert not of(folder)


def test_a_rank_that_is_killed_is_the_cause(folder, monkeypatch):
    monkeypatch.setenv("STAND_IN", "dies")
    with pytest.raises(launch.TrainingFailed) as caught:
        launch.train(config(), n_processes=2)
    assert str(caught.value) == "run failed (rank 1, signal 9): killed from outside; out of memory?"
    assert not of(folder)


def test_the_message_of_a_refusal_is_all_that_is_raised(folder, monkeypatch):
    monkeypatch.setenv("STAND_IN", "refuse")
    with pytest.raises(launch.TrainingFailed) as caught:
        launch.train(config())
    assert str(caught.value) == "run failed (exit status 1):\ntrain: there is no such dataset"
    monkeypatch.setenv("STAND_IN", "finish")
    assert launch.train(config()) == {"name": "run", "metrics": []}, "a failure of the past is forgotten"
    assert {path.name for path in (folder / "run").iterdir()} == {
        "run.json",
        "metrics.jsonl",
        "results.json",
        "output.log",
    }


@pytest.mark.parametrize("survivor_first", [False, True])
def test_an_echo_is_not_the_cause_whoever_wrote_first(tmp_path, survivor_first):
    said = [("RuntimeError: [pair.cc:544] Connection closed by peer", 0), ("ValueError: the true cause", 1)]
    for message, rank in said if survivor_first else said[::-1]:
        path = tmp_path / "attempt_0" / str(rank) / "error.json"
        path.parent.mkdir(parents=True)
        extra = {"py_callstack": message, "timestamp": "0"}
        path.write_text(json.dumps({"message": {"message": message, "extraInfo": extra}}))
        time.sleep(0.01)
    summary = "".join(f"  rank      : {rank} (local_rank: {rank})\n  exitcode  : 1 (pid: 1)\n" for rank in (0, 1))
    assert supervisor._cause(1, tmp_path, summary) == "(rank 1, exit status 1):\nValueError: the true cause"


# Nothing stays behind


@pytest.mark.parametrize("victim", ["torch.distributed.run", "xxlib.launching.supervisor"])
def test_kill_9_of_torchrun_or_the_supervisor_leaves_no_rank(folder, monkeypatch, victim):
    monkeypatch.setenv("STAND_IN", "hang")
    launch.train(config(), n_processes=2, detach=True)
    assert wait_for(lambda: len(of(folder, "stand_in")) == 4 and (folder / "run" / "metrics.jsonl").exists())
    of(folder, victim)[0].kill()
    assert wait_for(lambda: not of(folder), GONE), of(folder)
    with pytest.raises(launch.TrainingFailed, match="signal 9" if "torch" in victim else "stopped before its end"):
        launch.attach("run")


def test_kill_9_of_the_script_ends_the_training(folder):
    script = subprocess.Popen([sys.executable, "-c", code(folder, "launch.train(config)", "hang")], cwd=PROJECT,
                              env=os.environ | ENVIRONMENT)  # fmt: skip
    assert wait_for(lambda: runs.metrics(folder / "run"))
    script.kill()
    script.wait()
    assert wait_for(lambda: len(of(folder)) == 0, GONE), of(folder)


def test_a_kernel_that_is_interrupted_then_killed(folder, kernels):
    """The interrupt ends the run and not the kernel, which then trains on two ranks, and is killed by -9."""
    manager, client = kernels()
    # A kernel may abort a cell that arrives right after an error.
    cell = client.execute(code(folder, "launch.train(config)", "save"), stop_on_error=False)
    assert wait_for(lambda: runs.metrics(folder / "run"))
    manager.interrupt_kernel()
    assert wait_for(lambda: not of(folder), GONE), of(folder)
    assert error_of(client, cell) == "KeyboardInterrupt"
    shutil.rmtree(folder / "run")
    client.execute(code(folder, "launch.train(config, n_processes=2)", "hang"))
    assert wait_for(lambda: runs.metrics(folder / "run"))
    assert len(of(folder)) == 4, "supervisor, torchrun and two ranks"
    manager.signal_kernel(signal.SIGKILL)
    assert wait_for(lambda: not of(folder), GONE), of(folder)


# Detached


def test_a_detached_run_survives_its_kernel_and_is_followed_from_another(folder, kernels):
    manager, client = kernels()
    reply = client.execute_interactive(code(folder, "launch.train(config, detach=True)", "save"), timeout=START)
    assert reply["content"]["status"] == "ok", reply["content"]
    manager.signal_kernel(signal.SIGKILL)
    with pytest.raises(processes.AlreadyRunning, match=r"run runs already \(process \d+ on .*attach"):
        launch.train(config())
    with pytest.raises(processes.AlreadyRunning), processes.claim(folder / "run"):
        pass
    manager, client = kernels()
    cell = client.execute(code(folder, "print('here'); launch.attach('run')", "save"))
    assert wait_for(lambda: client.get_iopub_msg(timeout=START)["content"].get("text") == "here\n")
    time.sleep(2)
    manager.interrupt_kernel()
    assert error_of(client, cell) == "KeyboardInterrupt"
    assert len(of(folder)) == 2, "who stops following does not stop the run"
    launch.stop("run")
    assert not of(folder) and (folder / "run" / "state-0").exists() and not (folder / "run" / "pid").exists()
    with pytest.raises(launch.TrainingFailed, match="stopped before its end"):
        launch.attach("run")
    with pytest.raises(ConfigError, match="run does not run"):
        launch.stop("run")


def test_a_pid_that_another_process_got_is_not_the_run(folder):
    """Nor is a process that has ended; one on another machine is left in peace."""
    launch._written(config())
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(bystander.pid).create_time()
    told = {"pid": bystander.pid, "started": started, "host": processes.HOST}
    path = folder / "run" / "pid"
    path.write_text(json.dumps(told))
    assert processes.owner(folder / "run").pid == bystander.pid
    path.write_text(json.dumps(told | {"host": "elsewhere"}))
    with pytest.raises(ConfigError, match="runs on elsewhere: stop it there"):
        launch.stop("run")
    with pytest.raises(processes.AlreadyRunning, match=r"if it is gone, remove .*/pid"):
        launch.train(config())
    path.write_text(json.dumps(told | {"started": started - 60}))
    assert processes.owner(folder / "run") is None
    with pytest.raises(ConfigError, match="run does not run"):
        launch.stop("run")
    assert bystander.poll() is None
    path.write_text(json.dumps(told))
    bystander.communicate(b"\n")
    assert processes.owner(folder / "run") is None


# What is shown


def test_a_notebook_shows_bar_values_and_curves_in_place(folder, kernels):
    """One text and one picture, both replaced while the run goes on."""
    _, client = kernels()
    shown = []
    call = "launch.progress.REDRAW = 0.5; result = launch.train(config)"
    client.execute_interactive(code(folder, call, "finish"), timeout=START, output_hook=shown.append)
    content = [message["content"] for message in shown if message["msg_type"].endswith("display_data")]
    texts = [one["data"]["text/plain"] for one in content if "image/png" not in one["data"]]
    pictures = [one["data"]["image/png"] for one in content if "image/png" in one["data"]]
    assert len(texts) > 2 and "160/160" in texts[-1] and "train/loss 0.05" in texts[-1] and "val/error 0.1" in texts[-1]
    assert len(pictures) > 1 and len(set(pictures)) > 1
    assert len({one["transient"]["display_id"] for one in content}) == 2


def test_what_cannot_be_asked_for_is_one_line(folder):
    with pytest.raises(ConfigError, match="give one of them"):
        launch.train(config(), n_gpus=2, n_processes=2)
    with pytest.raises(ConfigError, match="n_gpus=99: this machine has"):
        launch.train(config(), n_gpus=99)
    launch._written(config())
    with pytest.raises(ConfigError, match=r"no run 'rum' in .*; there are: run"):
        launch.attach("rum")
    with pytest.raises(ConfigError, match="holds another run"):
        launch.train(config(n_steps=21))


@pytest.mark.parametrize("numbers", [{"n_gpus": -1}, {"n_gpus": 1.5}, {"n_processes": -2}, {"n_processes": "2"}])
def test_a_number_of_processes_that_cannot_be_is_one_line(folder, numbers):
    with pytest.raises(ConfigError, match="it must be a whole number, at least 1"):
        launch.train(config(), **numbers)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["../run", "", "a/b", "a\nb"])
def test_a_name_that_leads_elsewhere_is_no_run(folder, name):
    for call in (launch.attach, launch.stop):
        with pytest.raises(ConfigError, match="a run's name is that of its folder"):
            call(name)


def test_results_that_are_damaged_are_not_returned(folder):
    launch._written(config())
    (folder / "run" / "results.json").write_text('{"name": "ru')
    with pytest.raises(runs.CheckpointError, match=r"results\.json is damaged .*: remove it and train again"):
        launch.train(config())


# Several machines


@pytest.mark.parametrize("place", ["with a blank", "100% #1", "$(touch ruined)"])
def test_the_slurm_script_of_any_folder(folder, monkeypatch, place):
    """Read as sbatch and bash read it."""
    (folder / place).mkdir()
    monkeypatch.setattr(runs, "RUNS", folder / place)
    text = launch.slurm(config("a run"), n_nodes=2).read_text()
    options = dict(shlex.split(line, comments=True)[0][2:].split("=", 1)
                   for line in re.findall("^#SBATCH (.*)$", text, re.MULTILINE))  # fmt: skip
    assert options["output"].replace("%%", "%") == f"{folder / place}/a run/slurm-%j.log"
    assert options["output"].count("%") == 2 * place.count("%") + 1 and options["job-name"] == "a run"
    (line,) = shlex.split(text.splitlines()[-1])[3:]
    assert shlex.split(line)[-1] == str(folder / place / "a run" / "run.json")
    assert '--rdzv-endpoint="$head:29500"' in line and "'--rdzv-id=a run'" in line


def test_what_a_slurm_script_cannot_hold_is_one_line(folder, monkeypatch):
    for numbers in ({"n_nodes": 0}, {"n_nodes": 2, "hours": 0.5}, {"n_nodes": 2, "n_gpus": -1}, {"n_nodes": "2"}):
        with pytest.raises(ConfigError, match="it must be a whole number, at least 1"):
            launch.slurm(config(), **numbers)
    (folder / 'a "b"').mkdir()
    monkeypatch.setattr(runs, "RUNS", folder / 'a "b"')
    with pytest.raises(ConfigError, match=r"cannot .* Slurm script"):
        launch.slurm(config(), n_nodes=2)
    assert shlex.split(launch.command(config(), 2, endpoint="a; b"))[-4] == "--rdzv-endpoint=a; b"


def test_two_nodes_meet(folder, monkeypatch, tmp_path):
    """The Slurm script on two torchruns of one rank each, met on the loopback; scontrol and srun are stood in for."""
    monkeypatch.setenv("STAND_IN", "count")
    path = launch.slurm(config(), n_nodes=2, n_processes=1, hours=3)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in (("scontrol", "echo localhost"), ("srun", '"$@" & "$@"; wait')):
        (programs / name).write_text(f"#!/bin/bash\n{words}\n")
        (programs / name).chmod(0o755)
    text = path.read_text()
    assert all(
        f"#SBATCH --{line}\n" in text for line in ("nodes=2", "time=3:00:00", "ntasks-per-node=1", "cpus-per-task=1")
    )
    assert launch.command(config(), 2, n_gpus=8).count("--nproc-per-node=8") == 1
    done = subprocess.run(["bash", str(path)], env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
                          capture_output=True, text=True, timeout=START)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [(folder / "run" / f"count-{rank}").read_text() for rank in (0, 1)] == ["2 2", "2 2"]
