"""What the tests of launch start instead of a training: python -m stand_in run.json, which does what $STAND_IN says."""

import json
import os
import signal
import sys
import time
from pathlib import Path

FOLDER = Path(sys.argv[1]).parent
RANK = int(os.environ.get("RANK", 0))


def line(step):
    """One more line of metrics, by the first rank."""
    values = {"step": step, "samples": 8 * step, "epoch": step / 10, "seconds": step / 10, "learning_rate": 1e-3,
              "train/loss": 1 / step, "samples_per_s": 80.0}  # fmt: skip
    values |= {"val/error": 2 / step} if step % 5 == 0 else {}
    if RANK == 0:
        with open(FOLDER / "metrics.jsonl", "a") as file:
            file.write(json.dumps(values) + "\n")


def finish():
    for step in range(1, 21):
        line(step)
        time.sleep(0.05)
    (FOLDER / "results.json").write_text(json.dumps({"name": FOLDER.name}))


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
