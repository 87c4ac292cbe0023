"""Datasets on disk: Arrow shards of sticks and labels that are memory-mapped, never copied to the heap.

dataset.json       what it is: schema version, grid, wavelength, symprec, source, labels, counts, sha256 of every shard
shard-00000.arrow  one crystal a row (schema()), memory-mapped
rejects.parquet    id, source, reason of every crystal that was read and refused (REJECTS)
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.diffraction import patterns

SCHEMA_VERSION = 1
COLUMNS = [
    ("id", pa.string()),
    ("formula", pa.string()),  # reduced
    ("element_ids", pa.list_(pa.uint8())),  # atomic numbers, increasing
    ("fractions", pa.list_(pa.float32())),  # sum to 1
    ("two_theta", pa.list_(pa.float32())),  # degree
    ("intensity", pa.list_(pa.float16())),  # strongest = 100
    ("e_form", pa.float64()),  # eV/atom; null where the source has none
    ("band_gap", pa.float64()),  # eV; null where the source has none
    ("space_group", pa.int16()),  # 1-230
    ("crystal_system", pa.string()),
    ("symmetry_source", pa.string()),  # "source" or "spglib"
    ("split", pa.string()),
]
HKL_COLUMNS = [
    *((index, pa.list_(pa.int16())) for index in "hkl"),  # of one reflection of each merged line
    ("lattice", pa.list_(pa.float64())),  # a, b, c, alpha, beta, gamma: the cell that h, k, l refer to
]
REJECTS = pa.schema([("id", pa.string()), ("source", pa.string()), ("reason", pa.string())])


def schema(hkl=False):
    """Columns of a shard; with reflections and cells where `hkl`."""
    place = [name for name, _ in COLUMNS].index("e_form")
    return pa.schema(COLUMNS[:place] + HKL_COLUMNS * hkl + COLUMNS[place:])


class DatasetError(ValueError):
    """A dataset on disk is not what it says or not what this version reads; the message says what and where."""


def sha256(path):
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, eq=False)
class Ragged:
    """A list column: row i is values[offsets[i]:offsets[i + 1]]."""

    values: np.ndarray
    offsets: np.ndarray

    def __getitem__(self, i):
        return self.values[self.offsets[i] : self.offsets[i + 1]]


class Dataset:
    """A dataset folder, memory-mapped.

    Raises DatasetError where the folder is not a finished dataset, a shard's checksum differs, or the grid or schema is
    not this version's.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        about = self.folder / "dataset.json"
        if not about.is_file():
            raise DatasetError(f"{about} is missing: make the dataset with `python -m xxlib.prepare`")
        try:
            self.meta = json.loads(about.read_text())
            version, grid = self.meta["schema_version"], self.meta["grid"]
            shards = [(self.folder / shard["file"], shard["sha256"]) for shard in self.meta["shards"]]
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{about} is damaged ({error}): make the dataset again") from error
        if version != SCHEMA_VERSION:
            raise DatasetError(
                f"{about} has schema version {version}, this xxlib reads {SCHEMA_VERSION}: make it again"
            )
        if grid != patterns.grid():
            raise DatasetError(f"{about} has the grid {grid}, this xxlib uses {patterns.grid()}: make it again")
        self.shards = [_open(path, digest) for path, digest in shards]
        self.first_rows = np.cumsum([0] + [shard.num_rows for shard in self.shards])

    def __len__(self):
        return int(self.first_rows[-1])

    def column(self, name):
        """One value a crystal (n,): float64 with NaN for missing labels, or strings."""
        column = pa.chunked_array([shard.column(name) for shard in self.shards])
        if pa.types.is_string(column.type):
            return np.array(column.to_pylist(), dtype=str)
        return column.to_numpy().astype(np.float64)

    @cached_property
    def labels(self):
        """Target values (n,) float64 by name; classes as their index; NaN where the source has none."""
        systems = self.column("crystal_system")
        index = {name: i for i, name in enumerate(CRYSTAL_SYSTEMS)}
        return {
            "e_form": self.column("e_form"),
            "band_gap": self.column("band_gap"),
            "crystal_system": np.array([index[name] for name in systems], np.float64),
            "space_group": self.column("space_group") - 1,
        }

    def indices(self, split, splits=None):
        """Rows (k,) of one split; `splits` (n,) replaces the stored split names, as splits.by_random makes them."""
        return np.flatnonzero((self.column("split") if splits is None else splits) == split)

    @property
    def has_hkl(self):
        """Whether reflections and cells are stored: columns h, k, l and lattice."""
        return "h" in self._ragged[0]

    @cached_property
    def _ragged(self):
        return [
            {field.name: _ragged(shard.column(field.name)) for field in shard.schema if pa.types.is_list(field.type)}
            for shard in self.shards
        ]

    def lengths(self, name, rows):
        """How many values of a list column each of some rows has: (k,)."""
        shards = np.searchsorted(self.first_rows, rows, side="right") - 1
        places = rows - self.first_rows[shards]
        ends = [self._ragged[s][name].offsets[[place, place + 1]] for s, place in zip(shards, places)]
        return np.diff(np.reshape(ends, (-1, 2)), axis=1)[:, 0]

    def take(self, name, rows):
        """A list column for some rows, laid end to end, as (values, offsets (k + 1,)).

        Raises DatasetError for h, k, l and lattice where the dataset was prepared without them, and for a value that is
        not finite, with the id of its crystal.
        """
        if name not in self._ragged[0]:
            raise DatasetError(f"{self.folder} has no column {name}: prepare it with --hkl")
        shards = np.searchsorted(self.first_rows, rows, side="right") - 1
        pieces = [self._ragged[s][name][row - self.first_rows[s]] for s, row in zip(shards, rows)]
        values, offsets = np.concatenate(pieces), np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
        finite = np.isfinite(values)
        if not finite.all():
            k = np.searchsorted(offsets, finite.argmin(), side="right") - 1
            crystal = self.shards[shards[k]].column("id")[int(rows[k] - self.first_rows[shards[k]])]
            raise DatasetError(
                f"{self.folder}: {name} of crystal {crystal} is not finite; make the dataset again without it"
            )
        return values, offsets


def joined(first, second):
    """The rows of one Dataset and, after them, those of another."""
    both = object.__new__(Dataset)
    both.folder, both.meta, both.shards = first.folder, first.meta, first.shards + second.shards
    both.first_rows = np.cumsum([0] + [shard.num_rows for shard in both.shards])
    return both


def _ragged(column):
    return Ragged(column.values.to_numpy(), column.offsets.to_numpy())


def _open(path, digest):
    """The one record batch of a shard, memory-mapped."""
    if not path.is_file():
        raise DatasetError(f"{path} is missing: make the dataset again")
    if sha256(path) != digest:
        raise DatasetError(f"{path} does not match its sha256 in dataset.json: it is damaged, make the dataset again")
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
