"""Writing files that are there whole or not at all."""

import os
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
