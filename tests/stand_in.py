"""What the tests of launch start instead of a training: python -m stand_in run.json, which does what $STAND_IN says."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from xxlib.training.records import record

FOLDER = Path(sys.argv[1]).parent
RANK = int(os.environ.get("RANK", 0))


def line(step):
    """What is measured of one more step, by the first rank."""
    values = {"samples": 8 * step, "epoch": step / 10, "seconds": step / 10, "learning_rate": 1e-3,
              "loss": 1 / step, "samples_per_s": 80.0}  # fmt: skip
    records = [record("train", name, value, step=step) for name, value in values.items()]
    records += [record("val", "error", 2 / step, step=step)] if step % 5 == 0 else []
    if RANK == 0:
        with open(FOLDER / "metrics.jsonl", "a") as file:
            file.write("".join(json.dumps(one) + "\n" for one in records))


def finish():
    for step in range(1, 21):
        line(step)
        time.sleep(0.05)
    (FOLDER / "results.json").write_text(json.dumps({"name": FOLDER.name, "metrics": []}))


def hang():
    """Never ends, and does not hear SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    step = 0
    while True:
        step += 1
        line(step)
        time.sleep(0.2)


def save():
    """Never ends, but saves its state at SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: (FOLDER / f"state-{RANK}").touch() or sys.exit(3))
    line(1)
    while True:
        time.sleep(0.05)


def refuse():
    sys.exit("train: there is no such dataset")


def fail(how):
    """Rank 1 fails while rank 0 waits for it in a sum, where it learns of a closed connection."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    dist.barrier()
    if RANK == 1:
        how()
    dist.all_reduce(torch.ones(1))


def raises():
    fail(lambda: {}["the true cause"])


def dies():
    fail(lambda: os.kill(os.getpid(), signal.SIGKILL))


def count():
    """All ranks add one."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    total = torch.ones(1)
    dist.all_reduce(total)
    (FOLDER / f"count-{RANK}").write_text(f"{int(total)} {os.environ['GROUP_WORLD_SIZE']}")
    dist.destroy_process_group()


if __name__ == "__main__":
    globals()[os.environ["STAND_IN"]]()
