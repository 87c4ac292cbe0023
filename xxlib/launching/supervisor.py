"""Starts the processes of one run, ends them together and says why they failed:

    python -m xxlib.launching.supervisor run.json --processes 2 --parent PID

Between a notebook and its training stands this small process, so that whatever ends, nothing stays behind: it asks the
training to end (SIGTERM: it saves its state) when it is told to or when --parent is gone, and kills what is left.  If
it is killed itself, the system kills torchrun and every rank (rank.py).  Without --parent the run is detached: it goes
on whatever becomes of the notebook.  Beside run.json stand `output.log`; `pid` while it lives; `failure.txt` where the
training failed, in its own words.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from xxlib.datasets.writing import write_atomically
from xxlib.launching import processes

POLL = 0.2  # seconds
# Seconds that a training has to save its state: after the notebook died or interrupted; after launch.stop, when
# torchrun's own 30 seconds must fit in.
QUICK, PATIENT = 6, 40
REFUSED = 75  # exit status where another process runs the run: EX_TEMPFAIL of sysexits.h
# What the survivors of a failure say of it.
ECHO = re.compile(r"gloo|NCCL|TCPStore|Dist(Network|Backend)Error|[Cc]onnection (closed|reset|refused)|Broken pipe")
IN_SUMMARY = re.compile(r"rank\s+: (\d+) \(local_rank: \d+\)\s+exitcode\s+: (-?\d+)")  # torchrun's


def main():
    parser = argparse.ArgumentParser(prog="python -m xxlib.launching.supervisor", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--module", default="xxlib.train")
    parser.add_argument("--parent", type=int, help="pid of the process without which the run ends")
    arguments = parser.parse_args()
    folder = arguments.run.parent
    wishes = []  # the signals received
    for wish in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wish, lambda number, frame: wishes.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with processes.claim(folder), tempfile.TemporaryDirectory() as errors:
            (folder / "failure.txt").unlink(missing_ok=True)
            output = folder / "output.log"
            begin = output.stat().st_size if output.exists() else 0
            ended = _supervise(arguments, errors, wishes)
            if ended and not wishes:
                with open(output, errors="replace") as file:
                    file.seek(begin)
                    cause = _cause(ended, Path(errors), file.read())
                write_atomically(folder / "failure.txt", f"{folder.name} failed {cause}\n".encode())
    except processes.AlreadyRunning as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
    sys.exit(0 if ended == 0 else 1)


def _supervise(arguments, errors, wishes):
    """Run to the end and return the exit status; `wishes` grows by the signals received, and by one for the parent."""
    rank = ["xxlib.launching.rank", str(os.getpid()), arguments.module, str(arguments.run)]
    command = [sys.executable, "-u", "-m"]
    if arguments.processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={arguments.processes}"]
        command += [f"--log-dir={errors}", "-m"]
    environment = os.environ | {"TORCHELASTIC_ERROR_FILE": f"{errors}/error.json"}
    with open(arguments.run.parent / "output.log", "ab") as output:
        child = psutil.Popen(
            [*command, *rank], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            preexec_fn=processes.end_with_parent,
        )  # fmt: skip
    family, deadline, status = {child}, None, None
    while status is None:
        # A killed torchrun no longer leads to its ranks: they are remembered.
        family.update(child.children(recursive=True))
        time.sleep(POLL)
        if arguments.parent and os.getppid() != arguments.parent and not wishes:
            wishes.append(signal.SIGINT)
        if wishes and deadline is None:
            child.terminate()  # torchrun passes it on to its ranks, which are in process groups of their own
            deadline = time.monotonic() + (QUICK if wishes[0] == signal.SIGINT else PATIENT)
        if deadline and time.monotonic() > deadline:
            processes.kill(family)
        status = child.poll()
    processes.kill(family)
    psutil.wait_procs(family, timeout=5)
    return status


def _cause(status, errors, output):
    """In words why the training ended: of the rank that failed first, not of those that lost it."""
    exits = {int(rank): int(code) for rank, code in IN_SUMMARY.findall(output)} or {None: status}
    fatal = [rank for rank, code in exits.items() if code < 0 and -code not in (signal.SIGTERM, signal.SIGABRT)]
    errors_left = []
    for path in errors.rglob("error.json"):
        message = json.loads(path.read_text())["message"]
        rank = int(path.parent.name) if path.parent.name.isdecimal() else None
        if rank is not None or None in exits:  # beside run-wide ones torchrun leaves a copy of one rank's
            echo = bool(ECHO.search(message["message"]))
            errors_left.append((echo, path.stat().st_mtime_ns, rank, message))
    if errors_left and not fatal:
        _, _, rank, message = min(errors_left, key=lambda one: one[:2])
        kind, _, text = message["message"].partition(": ")
        text = text if kind == "SystemExit" else message["extraInfo"]["py_callstack"].strip()
    else:
        rank = fatal[0] if fatal else next(iter(exits))
        text = "\n".join(re.split(r"[\r\n]+", output.strip())[-20:])
    code = exits.get(rank, status)
    who = f"rank {rank}, " if rank is not None else ""
    if code == -signal.SIGKILL:
        return f"({who}signal 9): killed from outside; out of memory?"
    return f"({who}{f'signal {-code}' if code < 0 else f'exit status {code}'}):\n{text}"


if __name__ == "__main__":
    main()
