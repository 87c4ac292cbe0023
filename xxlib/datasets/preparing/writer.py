"""Writing a dataset so that it may be interrupted anywhere and taken up again.

A shard covers a fixed range of the source's records, so that it depends on nothing but them.  While a dataset is
unfinished its folder holds, besides the finished shards,

unfinished.json         what is being prepared, and one entry for each finished shard
unfinished.lock         locked by the process that writes
rejects-00000.parquet   the rejects of shard 0

Every file gets its name when it is complete and on the disk.  dataset.json comes last; then these are removed.
"""

import fcntl
import hashlib
import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from xxlib.datasets.splits import SPLITS
from xxlib.datasets.store import REJECTS, SCHEMA_VERSION, DatasetError, schema, sha256
from xxlib.datasets.writing import write_atomically
from xxlib.diffraction import patterns

SHARD_RECORDS = 20_000


class Writer:
    """The one process that writes to a folder; a context, in which the folder is locked.

    metadata: what dataset.json says besides grid, counts and shards.  hkl, structure: as store.schema() takes them.
    Raises DatasetError where the folder holds a dataset or the beginning of another one, or is being written to.
    """

    def __init__(self, folder, metadata, hkl=False, structure=False):
        self.folder, self.metadata, self.schema = Path(folder), metadata, schema(hkl, structure)
        preparing = {"schema_version": SCHEMA_VERSION, "shard_records": SHARD_RECORDS, "hkl": hkl}
        preparing |= {"structure": structure, **metadata}
        self.preparing = json.loads(json.dumps(preparing))  # as it is read back
        self.shards = []  # what unfinished.json says of each
        self._begin_shard()

    def __enter__(self):
        if self.is_finished and not (self.folder / "unfinished.json").exists():
            raise DatasetError(f"{self.folder} already holds a dataset: remove it or choose another folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = open(self.folder / "unfinished.lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.lock.close()
            raise DatasetError(f"another process is preparing {self.folder}: wait for it or end it") from error
        return self

    def __exit__(self, *_):
        self.lock.close()

    @property
    def is_finished(self):
        return (self.folder / "dataset.json").exists()

    @property
    def n_records(self):
        return sum(shard["records"] for shard in self.shards) + self.records

    @property
    def n_rejects(self):
        return sum(shard["rejects"] for shard in self.shards) + len(self.rejects)

    @property
    def n_accepted(self):
        return self.n_records - self.n_rejects

    def resume(self, records):
        """Take up the finished shards, passing over their records; yields the batch of each."""
        for shard in self._finished_shards():
            last = None
            for last in islice(records, shard["records"]):  # noqa: B007
                pass
            if last is None or last.id != shard["last"]:
                now = "it has fewer" if last is None else f"it is {last.id}"
                raise DatasetError(
                    f"{self.folder} holds the beginning of another source: the last record of {shard['file']} was "
                    f"{shard['last']}, now {now}; remove the folder or choose another"
                )
            self.shards.append(shard)
            yield pa.ipc.open_file(pa.memory_map(str(self.folder / shard["file"]))).get_batch(0)

    def _finished_shards(self):
        path = self.folder / "unfinished.json"
        if not path.exists():
            self._remove_leftovers()
            for shard in self.folder.glob("shard-*.arrow"):
                shard.unlink()
            return
        before = json.loads(path.read_text())
        if before["preparing"] != self.preparing:
            keys = sorted(before["preparing"].keys() | self.preparing.keys())
            other = [key for key in keys if before["preparing"].get(key) != self.preparing.get(key)]
            raise DatasetError(
                f"{self.folder} holds the beginning of another dataset (other {', '.join(other)}): "
                "give the command that began it, remove the folder or choose another"
            )
        for shard in before["shards"]:
            path = self.folder / shard["file"]
            if not path.is_file() or sha256(path) != shard["sha256"]:
                return  # lost by the disk: made again, as are those after it
            yield shard

    def add(self, records, piece):
        """Add the records that come next and the Piece made of them."""
        self.records += len(records)
        self.last = records[-1].id
        self.batches.append(piece.batch)
        for place in sorted(piece.reasons):
            record = records[place]
            self.rejects.append({"id": record.id, "source": record.place, "reason": piece.reasons[place]})
        if self.records == SHARD_RECORDS:
            self._end_shard()

    def _begin_shard(self):
        self.records, self.last, self.batches, self.rejects = 0, None, [], []

    def _end_shard(self):
        number = len(self.shards)
        table = pa.Table.from_batches(self.batches, self.schema).combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, self.schema) as writer:
            writer.write_batch(table.to_batches()[0] if table else pa.RecordBatch.from_pylist([], self.schema))
        data = sink.getvalue()
        shard = {
            "file": f"shard-{number:05d}.arrow",
            "rows": len(table),
            "sha256": hashlib.sha256(data).hexdigest(),
            "records": self.records,
            "rejects": len(self.rejects),
            "last": self.last,
            "counts": dict(Counter(table["split"].to_pylist())),
        }
        self._write(shard["file"], data)
        self._write(f"rejects-{number:05d}.parquet", _parquet(pa.Table.from_pylist(self.rejects, schema=REJECTS)))
        self._write_json("unfinished.json", {"preparing": self.preparing, "shards": [*self.shards, shard]})
        self.shards.append(shard)
        self._begin_shard()

    def finish(self):
        """Write what is left, rejects.parquet and dataset.json; raises DatasetError where nothing was accepted."""
        if self.records:
            self._end_shard()
        if not self.is_finished:
            pieces = [pq.read_table(path) for path in sorted(self.folder.glob("rejects-*.parquet"))[: len(self.shards)]]
            rejects = pa.concat_tables([REJECTS.empty_table(), *pieces]).combine_chunks()
            if self.n_accepted == 0:
                first = "; ".join(f"{row['source']}: {row['reason']}" for row in rejects.slice(0, 3).to_pylist())
                raise DatasetError(
                    f"no crystal was accepted, {len(rejects)} were rejected: {first or 'nothing was read'}"
                )
            self._write("rejects.parquet", _parquet(rejects))
            counts = sum((Counter(shard["counts"]) for shard in self.shards), Counter())
            meta = {
                "schema_version": SCHEMA_VERSION,
                "grid": patterns.grid(),
                **self.metadata,
                "counts": {split: counts[split] for split in SPLITS if counts[split]},
                "rejects": self.n_rejects,
                "shards": [{key: shard[key] for key in ("file", "rows", "sha256")} for shard in self.shards],
            }
            self._write_json("dataset.json", meta)
        self._remove_leftovers()

    def _remove_leftovers(self):
        for pattern in ("*.tmp", "rejects-*.parquet", "unfinished.lock", "unfinished.json"):  # in this order
            for path in self.folder.glob(pattern):
                path.unlink()

    def _write_json(self, name, values):
        self._write(name, (json.dumps(values, indent=1) + "\n").encode())

    def _write(self, name, data):
        write_atomically(self.folder / name, data)


def _parquet(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue()
