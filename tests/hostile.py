"""Records that hang, crash and kill; a module of its own because worker processes import it at every start."""

import ctypes
import os
import signal
from pathlib import Path

import numpy as np

from xxlib.crystals.crystal import Crystal
from xxlib.datasets.sources import Record, Source

# What reading a record may do.  Neither the sleep nor the loop lets a signal handler of Python's run.
DEEDS = {
    "hangs": lambda: ctypes.CDLL(None).sleep(600),
    "crashes": lambda: ctypes.string_at(0),
    "is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exits": lambda: os._exit(3),
    "stumbles": lambda: {}["missing"],
    "asks too much": lambda: np.empty(1 << 45),
}


def read(id, content):
    """Do a deed, every time or only where its file is not there yet, then be polonium."""
    deed, once = content
    if deed and not (once and Path(once).exists()):
        if once:
            Path(once).touch()
        DEEDS[deed]()
    return Crystal(id, 3.35 * np.eye(3), np.array([84]), np.zeros((1, 3)), np.ones(1))


def hostile(deeds, once=None):
    """Source of a crystal for each deed, each between two harmless ones."""
    records = []
    for i, deed in enumerate(deeds):
        records += [Record(f"before-{i}", "here", (None, None), read)]
        records += [Record(deed, f"line {i}", (deed, once and f"{once}-{i}"), read)]
    records.append(Record("after", "here", (None, None), read))
    return Source({"name": "hostile"}, lambda: iter(records), len(records))
