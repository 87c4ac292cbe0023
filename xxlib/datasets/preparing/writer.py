"""Writing a dataset so that it may be interrupted anywhere and taken up again.

A shard covers a fixed range of the source's records, so that it depends on nothing but them.  While a dataset is
unfinished its folder holds, besides the finished shards,

unfinished.json         what is being prepared, and one entry for each finished shard
unfinished.lock         locked by the process that writes
rejects-00000.parquet   the rejects of shard 0

Every file gets its name when it is complete and on the disk.  dataset.json comes last; then these are removed.  Other
files of the folder are left alone: unfinished.json comes first, and only where it is are files with these names taken
for what an earlier attempt left.
"""

import hashlib
import json
import logging
import os
import re
from collections import Counter
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from xxlib.datasets.sources import storable
from xxlib.datasets.splits import SPLITS
from xxlib.datasets.store import REJECTS, SCHEMA_VERSION, DatasetError, schema, sha256
from xxlib.datasets.writing import locked, write_atomically
from xxlib.diffraction import patterns

log = logging.getLogger(__name__)
SHARD_RECORDS = 20_000
OWN = re.compile(r"(shard-\d{5,}\.arrow|rejects(-\d{5,})?\.parquet|dataset\.json)(\.tmp)?")  # names that are written


class Writer:
    """The one process that writes to a folder; a context, in which the folder is locked.

    metadata: what dataset.json says besides grid, counts and shards.  hkl, structure, labels: as store.schema()
    takes them.
    Raises DatasetError where the folder holds a dataset, the beginning of another one, or files of others with names
    that would be written, or is being written to.
    """

    def __init__(self, folder, metadata, hkl=False, structure=False, labels=()):
        self.folder, self.metadata, self.schema = Path(folder), metadata, schema(hkl, structure, labels)
        preparing = {"schema_version": SCHEMA_VERSION, "shard_records": SHARD_RECORDS, "hkl": hkl}
        preparing |= {"structure": structure, **metadata}
        self.preparing = json.loads(json.dumps(preparing))  # as it is read back
        self.shards = []  # what unfinished.json says of each
        self._begin_shard()

    def __enter__(self):
        self._check_that_it_is_no_dataset()  # before anything is written there
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder / "unfinished.lock"))
            except BlockingIOError as error:
                raise DatasetError(f"another process is preparing {self.folder}: wait for it or end it") from error
            self._check_that_it_is_no_dataset()  # made by a process that had the lock before
            if not self._begun.exists():
                own = sorted(path.name for path in self.folder.iterdir() if OWN.fullmatch(path.name))
                if own:
                    raise DatasetError(
                        f"{self.folder} holds {own[0]}, which no preparation under way has written: remove it or "
                        "choose another folder"
                    )
                self._write_json(self._begun.name, {"preparing": self.preparing, "shards": []})
                stack.callback(self._leave_nothing_where_nothing_was_made)
            self.lock = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.lock.close()

    def _leave_nothing_where_nothing_was_made(self):
        if not self.shards:
            self._begun.unlink(missing_ok=True)

    def _check_that_it_is_no_dataset(self):
        if self.is_finished and not self._begun.exists():
            raise DatasetError(f"{self.folder} already holds a dataset: remove it or choose another folder")

    @property
    def _begun(self):
        return self.folder / "unfinished.json"

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
            last, n, digest = None, 0, hashlib.sha256()
            for record in islice(records, shard["records"]):
                last, n = record, n + 1
                digest.update(record.fingerprint())
            if n < shard["records"] or last.id != shard["last"]:
                now = f"it is {last.id}" if n == shard["records"] else "it has fewer"
                raise DatasetError(
                    f"{self.folder} holds the beginning of another source: the last record of {shard['file']} was "
                    f"{storable(shard['last'])}, now {storable(now)}; remove the folder or choose another"
                )
            if digest.hexdigest() != shard["fingerprint"]:
                raise DatasetError(
                    f"{self.folder} holds the beginning of another source: some of the {n} records of {shard['file']}, "
                    f"up to {storable(last.id)}, have changed since it was written; remove the folder, or give the "
                    "source as it was"
                )
            self.shards.append(shard)
            yield pa.ipc.open_file(pa.memory_map(os.fsencode(self.folder / shard["file"]))).get_batch(0)

    def _finished_shards(self):
        try:
            before = json.loads(self._begun.read_text())
            preparing, shards = before["preparing"], before["shards"]
            keys = {"file", "rows", "sha256", "records", "rejects", "last", "counts", "fingerprint"}
            if not isinstance(preparing, dict) or any(shard.keys() != keys for shard in shards):
                raise ValueError("written by another version")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{self._begun} is damaged ({error}): remove the folder and prepare it anew, or choose another"
            ) from error
        if preparing != self.preparing:
            keys = sorted(preparing.keys() | self.preparing.keys())
            other = [key for key in keys if preparing.get(key) != self.preparing.get(key)]
            raise DatasetError(
                f"{self.folder} holds the beginning of another dataset (other {', '.join(other)}): "
                "give the command that began it, remove the folder or choose another"
            )
        for shard in shards:
            path = self.folder / shard["file"]
            rejects = self.folder / f"rejects-{len(self.shards):05d}.parquet"
            if not path.is_file() or sha256(path) != shard["sha256"] or not rejects.is_file():
                return  # lost by the disk: made again, as are those after it
            yield shard

    def add(self, records, piece):
        """Add the records that come next and the Piece made of them."""
        self.records += len(records)
        self.last = records[-1].id
        for record in records:
            self.fingerprint.update(record.fingerprint())
        self.batches.append(piece.batch)
        for place in sorted(piece.reasons):
            record = records[place]
            values = (record.id, record.place, piece.reasons[place])
            self.rejects.append(dict(zip(REJECTS.names, map(storable, values))))
        if self.records == SHARD_RECORDS:
            self._end_shard()

    def _begin_shard(self):
        self.records, self.last, self.batches, self.rejects = 0, None, [], []
        self.fingerprint = hashlib.sha256()  # of the records' own

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
            "fingerprint": self.fingerprint.hexdigest(),
            "counts": dict(Counter(table["split"].to_pylist())),
        }
        self._write(shard["file"], data)
        self._write(f"rejects-{number:05d}.parquet", _parquet(pa.Table.from_pylist(self.rejects, schema=REJECTS)))
        self._write_json(self._begun.name, {"preparing": self.preparing, "shards": [*self.shards, shard]})
        self.shards.append(shard)
        log.info("%s: %d crystals, %d rejected", self.folder / shard["file"], shard["rows"], shard["rejects"])
        self._begin_shard()

    def finish(self):
        """Write what is left, rejects.parquet and dataset.json; raises DatasetError where nothing was accepted."""
        if self.records:
            self._end_shard()
        if not self.is_finished:
            names = [f"rejects-{number:05d}.parquet" for number in range(len(self.shards))]
            pieces = [pq.read_table(pa.memory_map(os.fsencode(self.folder / name))) for name in names]
            rejects = pa.concat_tables([REJECTS.empty_table(), *pieces]).combine_chunks()
            if self.n_accepted == 0:
                self.shards = []
                self._remove_leftovers()  # so that the same command starts anew when the source is mended
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
        kept = {"dataset.json", "rejects.parquet", *(shard["file"] for shard in self.shards)} if self.shards else set()
        for path in self.folder.iterdir():
            if OWN.fullmatch(path.name) and path.name not in kept:
                path.unlink()
        self._begun.unlink()  # after all others

    def _write_json(self, name, values):
        self._write(name, (json.dumps(values, indent=1) + "\n").encode())

    def _write(self, name, data):
        write_atomically(self.folder / name, data)


def _parquet(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue()
