"""The process that runs a run: which it is, whether it still lives, how it is ended."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from xxlib.datasets.writing import locked

PR_SET_PDEATHSIG = 1  # linux/prctl.h
HOST = socket.gethostname()


class AlreadyRunning(RuntimeError):
    """A run is in another process's hands; the message says in whose and the ways out."""


@dataclass(frozen=True)
class Owner:
    """The process that runs a run, as the file `pid` of its folder names it."""

    pid: int
    started: float  # seconds since 1970; with the pid it tells a process from a later one that got the same pid
    host: str

    def lives(self):
        """Whether the process still runs.  One on another machine cannot be seen from here and counts as alive."""
        if self.host != HOST:
            return True
        try:
            process = psutil.Process(self.pid)
            # The boot time, to which the start is relative, may be corrected by a second while the machine runs.
            return abs(process.create_time() - self.started) < 2 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def owner(folder):
    """The living Owner of a run folder, or None where no process runs it."""
    path = Path(folder) / "pid"
    try:
        named = Owner(**json.loads(path.read_text())) if path.is_file() else None
        return named if named and isinstance(named.host, str) and named.lives() else None
    except (OSError, ValueError, TypeError, OverflowError, RecursionError, psutil.Error):
        return None  # a file that is damaged names nobody


def owned_by_ancestor(folder):
    """Whether the owner of a run folder is what started this process, directly or not."""
    own = owner(folder)
    return own is not None and own.pid in [parent.pid for parent in psutil.Process().parents()]


@contextlib.contextmanager
def claim(folder):
    """Own a run folder inside the block; raises AlreadyRunning where another process does."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(locked(Path(folder) / "pid"))
        except BlockingIOError:
            raise AlreadyRunning(refusal(folder)) from None
        file.truncate(0)
        started = psutil.Process().create_time()
        file.write(json.dumps(asdict(Owner(os.getpid(), started, HOST))))
        file.flush()
        yield


def refusal(folder):
    """One line on who runs a run, and what can be done."""
    folder, other = Path(folder), owner(folder)
    who = f"process {other.pid} on {other.host}" if other else "another process"
    line = f'{folder.name} runs already ({who}): launch.attach("{folder.name}") follows it, launch.stop ends it'
    if other and other.host != HOST:
        line += f"; if it is gone, remove {folder / 'pid'}"
    return line


def end(process, wish, patience):
    """Send a psutil.Process the signal `wish`, and after `patience` seconds kill it and its descendants."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        process.send_signal(wish)
        psutil.wait_procs([process], timeout=patience)
        kill(family)


def kill(family):
    """SIGKILL for those psutil.Processes that still live."""
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()  # psutil looks at the start time first: a reused pid is left alone


def end_with_parent():
    """Have this process killed in the moment its parent ends, kill -9 of the parent included (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
