"""How fast preparation is, and that its memory does not grow with the number of crystals.

    python tests/benchmarks/prepare.py [crystals.parquet]     # default: data/demo/crystals.parquet

Prepares crystals of the file, over and over: one shard (20,000) with 2 workers and with 1, three with 2.  The last line
is JSON: crystals_per_s by workers (without their start), bytes_per_crystal, and peak_rss_mb of parent and workers by
number of crystals.
"""

import dataclasses
import json
import os
import sys
import tempfile
import threading
import time
from itertools import chain, count, islice
from pathlib import Path

from xxlib import PROJECT, prepare
from xxlib.datasets.sources.parquet import parquet

N_CRYSTALS = 20_000


def many(path, n):
    """Source of n records: those of the file, again and again."""
    source = parquet(path)

    def records():
        for i, record in enumerate(islice(chain.from_iterable(source.records() for _ in count()), n)):
            yield dataclasses.replace(record, id=str(i))

    return dataclasses.replace(source, records=records, n_records=n)


def peak_mb(pid):
    """Largest resident memory that a process has had, in MB; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return max((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM")), default=0.0)


def measure(path, n, n_workers):
    """Crystals per second from the first chunk on, bytes a crystal, and peak MB of parent and of one worker."""
    parent, peaks, first, stop = os.getpid(), {"worker": 0.0}, [], threading.Event()

    def watch():
        while not stop.wait(0.05):
            children = " ".join(p.read_text() for p in Path(f"/proc/{parent}/task").glob("*/children")).split()
            peaks["worker"] = max([peaks["worker"], *map(peak_mb, children)])

    add = prepare.Writer.add

    def timed_add(self, records, piece):
        first.append(time.monotonic())
        add(self, records, piece)

    thread = threading.Thread(target=watch)
    thread.start()
    prepare.Writer.add = timed_add
    try:
        with tempfile.TemporaryDirectory() as folder:
            accepted, _ = prepare.prepare(many(path, n), Path(folder) / "d", n_workers=n_workers)
            size = sum(shard.stat().st_size for shard in Path(folder, "d").glob("shard-*.arrow"))
    finally:
        prepare.Writer.add = add
        stop.set()
        thread.join()
    rate = (n - prepare.CHUNK_RECORDS) / (first[-1] - first[0])
    return rate, size / accepted, {"parent": round(peak_mb(parent)), "worker": round(peaks["worker"])}


def main(path):
    rates, memory = {}, {}
    for n_workers, n in ((2, N_CRYSTALS), (1, N_CRYSTALS), (2, 3 * N_CRYSTALS)):
        rate, size, memory[n] = measure(path, n, n_workers)
        rates[n_workers] = round(rate, 1)
    print(json.dumps({"crystals_per_s": rates, "bytes_per_crystal": round(size), "peak_rss_mb": memory}))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT / "data" / "demo" / "crystals.parquet")
