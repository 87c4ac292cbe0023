"""Processes that work through chunks and may die at it: on this machine, or at the workers of a Dask cluster.

Every thread that works, here or in a Dask worker, hands its chunks to a process of its own over a pipe and waits.
Where that process dies (a crash, the kernel's out-of-memory killer, kill -9, a time limit), the chunk is gone through
again item by item, and an item that ends its process twice is lost.  The caller learns which and how.
"""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection

CHUNKS_AHEAD = 4  # chunks that are under way or done early, for each worker: what bounds memory
START = "from xxlib.datasets.preparing import workers; workers.work()"
CONNECT_TIMEOUT = 30  # s, for a Dask scheduler
PR_SET_PDEATHSIG = 1  # of Linux's prctl


class WorkersFailed(RuntimeError):
    """There is no worker to go on with; the message says why, and the way out."""


class Lost(str):
    """How an item ended the processes that tried it."""


def chunks(items, size) -> Iterator[list]:
    """Lists of `size` consecutive items, the last one shorter."""
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk


def in_order(submit, function, chunks, ahead):
    """Results of function(chunk) in the order of the chunks, of which at most `ahead` are under way.

    submit: what pool() or cluster() gives.  Yields (chunk, result); where a chunk had to be gone through item by item,
    one ([item], result) each, whose result is Lost where the item was.
    """
    waiting = deque()
    try:
        for chunk in chunks:
            waiting.append((chunk, submit(function, chunk)))
            if len(waiting) >= ahead:
                yield from _finished(*waiting.popleft())
        while waiting:
            yield from _finished(*waiting.popleft())
    finally:
        for _, future in waiting:
            future.cancel()


def _finished(chunk, future):
    try:
        results = future.result()
    except WorkersFailed:
        raise
    except Exception as error:  # KilledWorker, CancelledError, ...: whatever Dask has for a task that it gave up
        raise WorkersFailed(f"the workers gave up a chunk: {type(error).__name__}: {error}") from error
    if len(results) == 1:
        yield chunk, results[0]
    else:
        yield from (([item], result) for item, result in zip(chunk, results, strict=True))


@contextmanager
def pool(n):
    """(submit, n) for n worker processes on this machine."""
    crew, threads = Crew(), ThreadPoolExecutor(n)
    try:
        yield partial(threads.submit, crew.run), n
    finally:
        crew.close()
        threads.shutdown(cancel_futures=True)


@contextmanager
def cluster(address):
    """(submit, number of workers) for the Dask cluster whose scheduler has this address, "tcp://host:port"."""
    try:
        from distributed import Client
    except ImportError as error:
        raise WorkersFailed("a Dask cluster needs `pip install distributed`") from error
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT)
    except OSError as error:
        raise WorkersFailed(f"no Dask scheduler answers at {address} ({error})") from error
    with client:
        if not client.nthreads():
            raise WorkersFailed(f"the Dask scheduler at {address} has no workers: start some with `dask worker`")
        # Not pure: the same chunk of another source is not the same task.
        executor = client.get_executor(pure=False)
        try:
            yield partial(executor.submit, _run_at_dask_worker), sum(client.nthreads().values())
        finally:
            client.run(_dismiss_at_dask_worker)


def _run_at_dask_worker(function, chunk):
    return _crew_of_this_process().run(function, chunk)


def _dismiss_at_dask_worker():
    _crew_of_this_process().close()
    _crew_of_this_process.cache_clear()


@lru_cache(maxsize=1)
def _crew_of_this_process():
    return Crew()


class Crew:
    """Worker processes, one for each thread that calls run() at the same time."""

    def __init__(self):
        self.idle, self.processes, self.closed, self.lock = [], set(), False, threading.Lock()

    def run(self, function, chunk):
        """[function(chunk)]; where that ends the process, [function([item]) or Lost for each item]."""
        result = self._attempt(function, chunk)
        if not isinstance(result, Lost):
            return [result]
        return [self._alone(function, item) for item in chunk]

    def _alone(self, function, item):
        result = self._attempt(function, [item])
        # Twice, because the chunk may have ended before this item's turn came.
        return self._attempt(function, [item]) if isinstance(result, Lost) else result

    def close(self):
        """End all processes, those at work too."""
        with self.lock:
            self.closed = True
            for process in self.processes:
                process.end()

    def _attempt(self, function, chunk):
        process = self.idle.pop() if self.idle else self._start()
        result = process.call(function, chunk)
        if isinstance(result, Lost):
            with self.lock:
                self.processes.discard(process)
                if self.closed:
                    raise CancelledError
        else:
            self.idle.append(process)
        if isinstance(result, Exception):
            raise result
        return result

    def _start(self):
        with self.lock:
            if self.closed:
                raise CancelledError
            process = WorkerProcess()
            self.processes.add(process)
        process.wait_until_ready()
        return process


class WorkerProcess:
    """A Python of its own that calls functions on chunks sent over a pipe; it ends with the thread that started it."""

    def __init__(self):
        self.connection, theirs = Pipe()
        with theirs:
            self.popen = subprocess.Popen(
                # -P: modules are found where they are here and nowhere else, because functions come by name.
                [sys.executable, "-P", "-c", START, str(theirs.fileno()), str(os.getpid())],
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
                | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is this process's to handle
            )

    def wait_until_ready(self):
        try:
            self.connection.recv()
        except EOFError as error:
            raise WorkersFailed(f"a worker process could not start ({self._how_it_ended()})") from error

    def call(self, function, chunk):
        """function(chunk), the exception that it raised, or Lost where it ended the process."""
        try:
            self.connection.send((function, chunk))
            return self.connection.recv()
        except (EOFError, OSError):
            return Lost(self._how_it_ended())

    def end(self):
        self.popen.kill()
        self.popen.wait()

    def _how_it_ended(self):
        self.connection.close()
        code = self.popen.wait()
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def work():
    """What a worker process does: until the other end of its pipe closes, call and answer."""
    connection = Connection(int(sys.argv[1]))
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(sys.argv[2]):  # it died before this was asked for
            return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    connection.send("ready")
    while True:
        try:
            function, chunk = connection.recv()
        except EOFError:
            return
        except Exception as error:  # a function that cannot be imported here
            connection.send(WorkersFailed(f"a worker process cannot take over a chunk: {error}"))
            continue
        try:
            result = function(chunk)
        except Exception as error:
            result = WorkersFailed(f"a worker process failed: {type(error).__name__}: {error}")
        connection.send(result)
