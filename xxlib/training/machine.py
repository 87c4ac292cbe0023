"""What a run is computed on: hardware, commit, memory."""

import ctypes
import platform
import re
import subprocess
from pathlib import Path

import torch

from xxlib import PACKAGE, PROJECT, __version__
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
    """Short hash of the checkout, with + where its Python code has changes; "unknown" outside git; or the version."""
    if PACKAGE.parent != PROJECT:  # installed from a wheel: the git of the working directory is somebody else's
        return f"xxlib {__version__}"
    git = ["git", "-C", str(PROJECT)]
    done = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    if done.returncode:
        return "unknown"
    # Of code only: a run rewrites the tables of results, which would mark every run after it.
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "*.py"]).returncode
    return done.stdout.strip() + ("+" if changed else "")


def keep_freed_memory():
    """Have the C library keep what is freed for the next step; to ask for it anew costs 10 % of a small step."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)  # the largest value that it takes
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
