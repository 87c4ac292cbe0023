"""Writing files that are there whole or not at all, and by one process at a time."""

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path, data):
    """Write bytes so that `path` holds either the old or the new content, on the disk, whatever happens in between.

    Raises OSError that names the file and the way out where there is no room.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(
            f"cannot write {path} ({os.strerror(error.errno)}); what was written before is intact: make room, then "
            "start again, and it goes on from there"
        ) from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def locked(path):
    """The file `path`, open and this process's alone inside the block, after which it is removed.

    The system gives the lock back however the process ends; the file may then stay, and locks nothing.  Raises
    BlockingIOError where another process has it.
    """
    path = Path(path)
    while True:
        file = open(path, "a+")  # noqa: SIM115, closed below
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Removed by its last owner between the opening and the lock, it would keep nobody out.
            if _is_at(file, path):
                break
        except BaseException:
            file.close()
            raise
        file.close()
    try:
        yield file
    finally:
        path.unlink(missing_ok=True)  # before the lock is given back
        file.close()


def _is_at(file, path):
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
