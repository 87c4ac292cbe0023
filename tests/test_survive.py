"""What a training survives: kill -9, SIGTERM, a full disk, damaged files, divergence.  Real processes throughout."""

import json
import math
import multiprocessing
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import wait

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from test_train import config, rock_salt_dataset, run_folder, series

from xxlib import launch, train
from xxlib.datasets.batches import make_batch
from xxlib.launching import overview
from xxlib.launching.processes import AlreadyRunning, owner
from xxlib.training import divergence, runs, state, steps
from xxlib.training import run as loop
from xxlib.training.divergence import first_bad_step
from xxlib.training.examples import examples_of
from xxlib.training.steps import rows_of_step

PROCESSES = multiprocessing.get_context("forkserver")  # a clean process each, without importing torch each time
PROCESSES.set_forkserver_preload(["xxlib.train", "torch._dynamo"])
N_STEPS = 40
TRAINED_AS = {"n_steps": N_STEPS, "targets": ("e_form", "crystal_system")}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return rock_salt_dataset(tmp_path_factory.mktemp("survive") / "rock-salts")


def begin(folder, n_processes=1, file_size=None, each_step=False):
    """Start `python -m xxlib.train` in as many processes as torchrun would, their stderr in files of the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": str(n_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [{"RANK": str(k), "LOCAL_RANK": str(k), **world} for k in range(n_processes)]
    started = []
    for k, rank in enumerate(ranks):
        arguments = (folder, k, rank if n_processes > 1 else {}, file_size, each_step)
        process = PROCESSES.Process(target=trained, args=arguments, daemon=True)
        process.start()
        started.append(process)
    return started


def trained(folder, k, environment, file_size, each_step):
    stderr = os.open(folder.with_name(f"{folder.name}-{k}.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stderr, 2)
    os.environ |= environment
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    if each_step:
        loop.CHECKPOINT_SECONDS = 0
    train.main([str(folder / "run.json")])


def end(processes, folder):
    """Wait for processes; their exit codes, and the last line that each said.

    As torchrun does, the others are ended where one was killed: they would wait for it.
    """
    wait([process.sentinel for process in processes])
    for process in processes:
        process.join(300 if all(other.exitcode in (None, 0, train.STOPPED) for other in processes) else 3)
        process.kill()
        process.join()
    paths = [folder.with_name(f"{folder.name}-{k}.log") for k in range(len(processes))]
    logs = [path.read_text() if path.exists() else "" for path in paths]
    return [process.exitcode for process in processes], [(log.splitlines() or [""])[-1] for log in logs]


def last_step(folder):
    return max((one["step"] for one in runs.metrics(folder)), default=0)


def wait_for(condition, processes):
    while not condition():
        assert all(process.is_alive() for process in processes)
        time.sleep(0.005)


def outcome(folder):
    """What must not depend on interruptions: weights, metrics, predictions."""
    clocks = ("seconds", "samples_per_s")
    lines = [one for one in runs.metrics(folder) if one["metric"] not in clocks]
    return load_file(folder / "model.safetensors"), lines, pq.read_table(folder / "predictions.parquet")


def assert_same_outcome(folder, expected):
    weights, lines, predictions = outcome(folder)
    expected_weights, expected_lines, expected_predictions = expected
    assert weights.keys() == expected_weights.keys()
    assert all(torch.equal(weights[name], expected_weights[name]) for name in weights), "bitwise"
    assert lines == expected_lines and predictions.equals(expected_predictions)


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """Outcomes of uninterrupted runs in one process and in two."""
    found = {}
    for n in (1, 2):
        folder = run_folder(tmp_path_factory.mktemp("whole"), config(dataset, name="tiny", **TRAINED_AS))
        assert end(begin(folder, n), folder)[0] == [0] * n
        found[n] = outcome(folder)
    return found


def killed_and_resumed(dataset, whole, folder, n_processes, kills, seed):
    """Kill one process or all of them at random moments, so many times; then let the run finish."""
    chance = random.Random(seed)
    folder = run_folder(folder, config(dataset, **TRAINED_AS))
    for _ in range(kills):
        done = last_step(folder)
        processes = begin(folder, n_processes)
        target = min(done + chance.randint(0, 10), N_STEPS - 4)
        wait_for(lambda target=target: last_step(folder) >= target, processes)
        time.sleep(chance.random() * 0.02)
        for process in chance.choice((processes, processes[-1:])):
            os.kill(process.pid, signal.SIGKILL)
        codes, _ = end(processes, folder)
        assert -signal.SIGKILL in codes and 0 not in codes
        assert runs.results(folder) is None
        runs.load_state(folder)  # passes its sha256, wherever the kill came
    assert end(begin(folder, n_processes), folder)[0] == [0] * n_processes
    assert_same_outcome(folder, whole[n_processes])


@pytest.mark.parametrize(("n_processes", "kills"), [(1, 3), (2, 2)])
def test_a_killed_run_goes_on_to_the_same_bits(dataset, whole, tmp_path, n_processes, kills):
    killed_and_resumed(dataset, whole, tmp_path, n_processes, kills, seed=n_processes)


@pytest.mark.stress
@pytest.mark.parametrize(("n_processes", "seed"), [(n, seed) for n in (1, 2) for seed in range(10, 13)])
def test_thirty_kills(dataset, whole, tmp_path, n_processes, seed):
    killed_and_resumed(dataset, whole, tmp_path, n_processes, 5, seed)


def test_sigterm_to_one_process_stops_all_after_the_same_step(dataset, whole, tmp_path):
    folder = run_folder(tmp_path, config(dataset, **TRAINED_AS))
    processes = begin(folder, 2)
    wait_for(lambda: last_step(folder) >= 6, processes)
    os.kill(processes[1].pid, signal.SIGTERM)
    codes, said = end(processes, folder)
    step = runs.load_state(folder)["step"]
    assert codes == [train.STOPPED] * 2 and 6 <= step < N_STEPS
    assert said == [f"train: tiny was stopped after step {step} of {N_STEPS}; start it again to go on"] * 2
    assert end(begin(folder, 2), folder)[0] == [0, 0]
    assert_same_outcome(folder, whole[2])


def test_torchrun_starts_it_and_two_processes_learn_what_one_does(dataset, tmp_path):
    """Through the command of the README; without dropout both differ by rounding alone."""
    values = []
    for n in (1, 2):
        run = config(dataset, name=f"of-{n}", n_steps=6, batch_size=7, dropout=0.0)
        folder = run_folder(tmp_path, run)
        starter = [sys.executable, "-m"]
        starter += ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"] if n == 2 else []
        done = subprocess.run([*starter, "xxlib.train", str(folder / "run.json")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("test, from composition + xrd: e_form mae") == 1
        values.append(series(runs.metrics(folder), "loss", split="train"))
        assert len(pq.read_table(folder / "predictions.parquet")) == 16
    assert values[0] == pytest.approx(values[1], rel=1e-3)


def test_a_failing_process_leaves_its_traceback(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    folder = run_folder(tmp_path, config(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match=r"train: .*dataset\.json is missing"):
        train.main([str(folder / "run.json")])
    assert "DatasetError" in json.loads((tmp_path / "error.json").read_text())["message"]["message"]


def test_checkpoints_come_between_evaluations_too(dataset, tmp_path):
    """Of the last step before a kill, and from within a line of metrics."""
    run = config(dataset, n_steps=5000)
    folder = run_folder(tmp_path, run)
    processes = begin(folder, each_step=True)
    wait_for(lambda: (folder / "state.pt").exists(), processes)
    processes[0].kill()
    end(processes, folder)
    saved = runs.load_state(folder)
    assert 0 < saved["step"] < 250 and saved["best"] is None


def test_a_run_started_without_launch_is_known_and_can_be_stopped(dataset, tmp_path, monkeypatch):
    """By the pid of the process itself; a second one, however it is started, is refused."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    folder = run_folder(tmp_path, config(dataset, n_steps=5000))
    processes = begin(folder)
    wait_for(lambda: last_step(folder) >= 1, processes)
    assert overview.list_runs()["state"].tolist() == ["running"] and owner(folder).pid == processes[0].pid
    with pytest.raises(AlreadyRunning, match="tiny runs already"):
        launch.train(config(dataset, n_steps=5000))
    with pytest.raises(SystemExit, match="train: tiny runs already"):
        train.main([str(folder / "run.json")])
    launch.stop("tiny")
    codes, said = end(processes, folder)
    assert codes == [train.STOPPED] and "start it again to go on" in said[0]
    assert overview.list_runs()["state"].tolist() == ["stopped"] and not (folder / "pid").exists()


@pytest.mark.parametrize("n_processes", [1, 2])
def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(dataset, whole, tmp_path, n_processes):
    folder = run_folder(tmp_path, config(dataset, **TRAINED_AS))
    processes = begin(folder, n_processes)
    wait_for(lambda: last_step(folder) >= 6, processes)
    os.kill(processes[0].pid, signal.SIGTERM)
    end(processes, folder)
    before = (folder / "state.pt").read_bytes()
    codes, said = end(begin(folder, n_processes, file_size=len(before) // 2), folder)
    assert codes[0] == 1 and 0 not in codes
    assert said[0].startswith(f"train: cannot write {folder / 'state.pt'} (File too large)") and "make room" in said[0]
    assert (folder / "state.pt").read_bytes() == before and not list(folder.glob("*.tmp"))
    assert end(begin(folder, n_processes), folder)[0] == [0] * n_processes
    assert_same_outcome(folder, whole[n_processes])


# ---------------------------------------------------------------- damaged and foreign files


def checkpoint(folder):
    model = torch.nn.Linear(20, 20)
    runs.save_model(folder, model, {"step": 1})
    runs.save_state(folder, {"step": 1, "model": model.state_dict()})
    return {"model.safetensors": runs.load_model, "state.pt": runs.load_state}


def damage(folder, flips, cuts, seed):
    chance = random.Random(seed)
    for name, load in checkpoint(folder).items():
        whole = (folder / name).read_bytes()
        damaged = []
        for _ in range(flips):
            bit = chance.randrange(8 * len(whole))
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            damaged.append(bytes(flipped))
        damaged += [whole[: chance.randrange(len(whole))] for _ in range(cuts)]
        for data in damaged:
            (folder / name).write_bytes(data)
            with pytest.raises(runs.CheckpointError, match="does not match its sha256") as error:
                load(folder)
            assert "\n" not in str(error.value)
        (folder / name).write_bytes(whole)
        load(folder)


def test_damaged_checkpoints_are_refused(tmp_path):
    damage(tmp_path, flips=10, cuts=5, seed=0)


@pytest.mark.stress
def test_two_hundred_flips_and_fifty_cuts(tmp_path):
    damage(tmp_path, flips=100, cuts=25, seed=1)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_loading_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs.save_state(tmp_path, {"step": Malicious()})
    with pytest.raises(runs.CheckpointError, match="is not the state of a training"):
        runs.load_state(tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("header", [b"\xff" * 8, b"\x00" * 8, (1 << 40).to_bytes(8, "little") + b"{}", b""])
def test_a_header_of_absurd_size_is_refused(tmp_path, header):
    runs.write_checked(tmp_path / "model.safetensors", header)
    with pytest.raises(runs.CheckpointError, match="is not a model") as error:
        runs.load_model(tmp_path)
    assert "\n" not in str(error.value)


def test_a_wrong_shape_is_refused_in_one_line(tmp_path):
    checkpoint(tmp_path)
    tensors, _ = runs.load_model(tmp_path)
    for model in (torch.nn.Linear(20, 30), torch.nn.Bilinear(20, 20, 20), torch.nn.Linear(20, 20, bias=False)):
        with pytest.raises(runs.CheckpointError, match="is of another model") as error:
            runs.load_weights(model, tensors, tmp_path / "model.safetensors")
        assert "\n" not in str(error.value)


def test_an_exchange_cut_short_twice_still_fits(tmp_path):
    """Killed after the file was exchanged and before its sidecar, then once more before the file is exchanged."""
    path, sidecar = tmp_path / "state.pt", tmp_path / "state.pt.sha256"
    runs.write_checked(path, b"first")
    first = sidecar.read_bytes()
    runs.write_checked(path, b"second")
    sidecar.write_bytes(sidecar.read_bytes() + first)
    seen = []

    def stopped(target, data):
        seen.append(target)
        if target == path:
            raise KeyboardInterrupt
        target.write_bytes(data)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs, "write_atomically", stopped)
        runs.write_checked(path, b"third")
    assert seen == [sidecar, path] and runs.read_checked(path) == b"second"


# ---------------------------------------------------------------- divergence


def test_divergence_names_the_step_and_keeps_the_last_checkpoint(dataset, tmp_path):
    run = config(dataset, learning_rate=1e25, n_steps=40)
    folder = run_folder(tmp_path, run)
    with pytest.raises(FloatingPointError, match=r"tiny diverged at step \d+: .*half the learning rate") as error:
        loop.train(run, folder)
    about = json.loads((folder / "diverged.json").read_text())
    assert f"step {about['step']}:" in str(error.value) and "\n" not in str(error.value)
    assert len(about["samples"]) == 8 and about["damaged"] == []
    assert all(math.isfinite(one["value"]) for one in runs.metrics(folder) if one["metric"] == "loss")
    saved = runs.load_state(folder)
    assert saved is None or saved["step"] <= about["step"]
    assert saved is None or all(tensor.isfinite().all() for tensor in saved["model"].values())
    with pytest.raises(SystemExit, match="train: tiny diverged"):
        train.main([str(folder / "run.json")])


def test_a_cpu_stops_before_the_weights_are_lost(dataset, tmp_path):
    run = state.prepare(config(dataset, learning_rate=1e25, n_steps=1000), tmp_path, torch.device("cpu"))
    with pytest.raises(FloatingPointError, match=r"diverged at step \d+"):
        for _ in range(300):
            state.step(run)
    assert run.first_bad == run.step and all(p.isfinite().all() for p in run.model.parameters())


@pytest.mark.parametrize("changes", [{}, {"effects": "laboratory", "absent_rate": 0.1}])
def test_a_damaged_sample_is_named(dataset, tmp_path, monkeypatch, changes):
    """Looked for in what the model saw: the patterns under the effects of that step."""
    run = config(dataset, **changes)
    examples = examples_of(run)
    rows = rows_of_step(examples, run, 5)

    def damaged(*arguments, **more):
        batch = make_batch(*arguments, **more)
        assert (batch.inputs["xrd"].hidden is not None) == bool(changes)
        batch.inputs["xrd"].tokens[3, 4, 100] = math.nan
        return batch

    monkeypatch.setattr(steps, "make_batch", damaged)
    message = divergence.explain(tmp_path, examples, run, 5)
    assert f"step 5: the pattern or composition of rs-{rows[3]} is not finite" in message
    assert json.loads((tmp_path / "diverged.json").read_text())["damaged"] == [f"rs-{rows[3]}"]


def test_the_first_bad_step_is_kept():
    model = torch.nn.Linear(1, 1)
    first = torch.tensor(-1)
    for step, value in enumerate((1.0, 2.0, math.inf, 1.0, math.nan)):
        model.weight.grad = torch.full((1, 1), value)
        first = first_bad_step(first, step, {"e_form": torch.tensor(1.0)}, model)
    assert first == 2
    model.weight.grad = torch.ones(1, 1)
    assert first_bad_step(torch.tensor(-1), 7, {"e_form": torch.tensor(math.nan)}, model) == 7
