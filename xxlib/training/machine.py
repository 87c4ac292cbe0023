"""What a run is computed on: hardware, commit, memory."""

import ctypes
import platform
import re
import subprocess
from pathlib import Path

import torch

from xxlib import PROJECT
from xxlib.training import parallel

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def hardware(device, n_threads):
    """What a result was computed on, in words."""
    n = parallel.n_processes()
    if device.type == "cuda":
        return (f"{n} x " if n > 1 else "") + torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")  # Linux; elsewhere platform knows
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    name = model[1] if model else platform.processor() or platform.machine()
    return f"{name} CPU, " + (f"{n} processes of " if n > 1 else "") + f"{n_threads} threads"


def commit():
    """Short hash of the checkout, with + where it has changes; "unknown" outside git."""
    git = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"]
    done = subprocess.run(git, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def keep_freed_memory():
    """Have the C library keep what is freed for the next step; to ask for it anew costs 10 % of a small step."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)  # the largest value that it takes
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
