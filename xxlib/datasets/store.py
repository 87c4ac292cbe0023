"""Datasets on disk: Arrow shards of sticks and labels that are memory-mapped, never copied to the heap.

dataset.json       what it is: schema version, grid, wavelength, symprec, source, labels, counts, sha256 of every shard
shard-00000.arrow  one crystal a row (schema()), memory-mapped; of a formula without a crystal only what follows from it
rejects.parquet    id, source, reason of every crystal that was read and refused (REJECTS)
descriptions.parquet  optional, of xxlib describe or of one's own: id, and description, what is written of the crystal
"""

import hashlib
import json
import os
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xxlib.crystals.crystal import Crystal, lattice_from_cell
from xxlib.datasets.columns import Ragged, Strings
from xxlib.datasets.labels import OTHER_LABELS, Labels
from xxlib.datasets.shards import check_columns, check_values
from xxlib.diffraction import patterns

SCHEMA_VERSION = 1
COLUMNS = [
    ("id", pa.string()),
    ("formula", pa.string()),  # reduced
    ("element_ids", pa.list_(pa.uint8())),  # atomic numbers, increasing
    ("fractions", pa.list_(pa.float32())),  # sum to 1
    ("two_theta", pa.list_(pa.float32())),  # degree; empty where there is no crystal
    ("intensity", pa.list_(pa.float16())),  # strongest = 100
    ("e_form", pa.float64()),  # eV/atom; null where the source has none
    ("band_gap", pa.float64()),  # eV; null where the source has none
    ("space_group", pa.int16()),  # 1-230; null where there is no crystal, and so are the next two
    ("crystal_system", pa.string()),
    ("symmetry_source", pa.string()),  # "source" or "spglib"
    ("split", pa.string()),
]
# Optional, in this order; all are empty where there is no crystal.
HKL = [(index, pa.list_(pa.int16())) for index in "hkl"]  # of one reflection of each merged line
LATTICE = ("lattice", pa.list_(pa.float64()))  # a, b, c, alpha, beta, gamma: the cell of h, k, l and of the atoms
ATOMS = [
    ("atom_ids", pa.list_(pa.uint8())),  # (n,) atomic numbers
    ("frac_coords", pa.list_(pa.float32())),  # (3n,) x, y, z of one atom after the other
    ("occupancies", pa.list_(pa.float16())),  # (n,), or empty where all are 1
]
DESCRIPTIONS = "descriptions.parquet"
REJECTS = pa.schema([("id", pa.string()), ("source", pa.string()), ("reason", pa.string())])


def schema(hkl=False, structure=False, labels=()):
    """Columns of a shard; with reflections where `hkl`, with atoms where `structure`, with the cell where either.

    labels: names, of which those of OTHER_LABELS have columns.
    """
    place = [name for name, _ in COLUMNS].index("e_form")
    optional = HKL * hkl + [LATTICE] * (hkl or structure) + ATOMS * structure
    others = [(name, kind) for name, kind in OTHER_LABELS.items() if name in labels]
    return pa.schema(COLUMNS[:place] + optional + COLUMNS[place:] + others)


class DatasetError(ValueError):
    """A dataset on disk is not what it says or not what this version reads; the message says what and where."""


def sha256(path):
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Dataset:
    """A dataset folder, memory-mapped.

    check: compare every shard with its checksum and look at its values, which reads all of it; one process of several
    is enough.
    Raises DatasetError where the folder is not a finished dataset, a shard's checksum or number of rows differs, the
    grid or schema is not this version's, or a value cannot be.
    """

    def __init__(self, folder, check=True):
        self.folder = Path(folder)
        self.folders = [self.folder]
        path = self.folder / "dataset.json"
        if not path.is_file():
            raise DatasetError(f"{path} is missing: make the dataset with `python -m xxlib.prepare`")
        try:
            self.meta = json.loads(path.read_text())
            version, grid = self.meta["schema_version"], self.meta["grid"]
            shards = [(self.folder / shard["file"], shard) for shard in self.meta["shards"]]
            for key, kind in {"source": dict, "wavelength": dict, "counts": dict, "shards": list}.items():
                if not isinstance(self.meta[key], kind):
                    raise TypeError(f"{key} is {repr(self.meta[key])[:40]}")
            if not shards or any(
                type(shard["rows"]) is not int or path.parent != self.folder for path, shard in shards
            ):
                raise ValueError("no shards, or one elsewhere, or without a number of rows")
        except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
            raise DatasetError(f"{path} is damaged ({error}): make the dataset again") from error
        if version != SCHEMA_VERSION:
            raise DatasetError(f"{path} has schema version {version}, this xxlib reads {SCHEMA_VERSION}: make it again")
        if grid != patterns.grid():
            raise DatasetError(f"{path} has the grid {grid}, this xxlib uses {patterns.grid()}: make it again")
        self.shards = [_open(path, shard, check) for path, shard in shards]
        self.first_rows = np.cumsum([0] + [shard.num_rows for shard in self.shards])

    def __len__(self):
        return int(self.first_rows[-1])

    def column(self, name):
        """One value a crystal: (n,) float64 with NaN for missing labels, or Strings."""
        chunks = [
            pa.nulls(len(shard), OTHER_LABELS[name])
            if name in OTHER_LABELS and name not in shard.schema.names
            else shard.column(name)
            for shard in self.shards
        ]
        if pa.types.is_string(chunks[0].type):
            return Strings(chunks)
        return np.concatenate([pc.cast(chunk, pa.float64()).to_numpy(zero_copy_only=False) for chunk in chunks])

    @cached_property
    def labels(self):
        """Target values (n,) float64 by name; classes as their index; NaN where the source has none."""
        return Labels(self)

    def indices(self, split, splits=None):
        """Rows (k,) of one split; `splits` (n,) replaces the stored split names, as splits.by_random makes them."""
        return np.flatnonzero((self.column("split") if splits is None else splits) == split)

    @property
    def has_hkl(self):
        """Whether reflections and cells are stored: columns h, k, l and lattice."""
        return all("h" in columns for columns in self.ragged)

    @property
    def has_structure(self):
        """Whether crystals are stored: columns lattice, atom_ids, frac_coords and occupancies."""
        return all("atom_ids" in columns for columns in self.ragged)

    @cached_property
    def descriptions(self):
        """What is written of each row, (n,) str; "" where nothing is.

        Raises DatasetError where the folder has no descriptions, or they cannot be read.
        """
        written = {}
        for path in (folder / DESCRIPTIONS for folder in self.folders):
            if not path.is_file():
                raise DatasetError(f"{path} is missing: python -m xxlib.describe {path.parent} writes it, in hours")
            try:
                table = pq.read_table(pa.memory_map(os.fsencode(path)), columns=["id", "description"])
            except (pa.ArrowException, KeyError, OSError) as error:
                why = " ".join(str(error).split())[:200]
                raise DatasetError(f"{path} cannot be read ({why}): it needs columns id and description") from error
            written |= zip(table["id"].cast(pa.string()).to_pylist(), table["description"].to_pylist())
        return np.array([written.get(id) or "" for id in self.column("id")], dtype=object)

    def crystal(self, row):
        """The Crystal of a row: coordinates to float32, a along x; its own cell, not necessarily its own orientation.

        Raises DatasetError where the dataset was prepared without crystals, or the row is a formula alone.
        """
        cell, numbers, frac, occupancies = (
            self.take(name, [row])[0] for name in ("lattice", "atom_ids", "frac_coords", "occupancies")
        )
        id = self.column("id")[row]
        if not len(numbers):
            raise DatasetError(f"{self.folder}: {id} is a formula without a crystal")
        return Crystal(
            id=id,
            lattice=lattice_from_cell(*cell),
            atomic_numbers=numbers.astype(np.int64),
            frac_coords=frac.astype(np.float64).reshape(-1, 3),
            occupancies=occupancies.astype(np.float64) if len(occupancies) else np.ones(len(numbers)),
        )

    @cached_property
    def ragged(self):
        """The list columns of each shard: name -> Ragged."""
        return [
            {field.name: Ragged.of(shard.column(field.name)) for field in shard.schema if pa.types.is_list(field.type)}
            for shard in self.shards
        ]

    def lengths(self, name, rows):
        """How many values of a list column each of some rows has: (k,)."""
        rows = np.asarray(rows)
        shards = np.searchsorted(self.first_rows, rows, side="right") - 1
        lengths = np.empty(len(rows), np.int64)
        for shard in np.unique(shards):
            here = shards == shard
            offsets, places = self.ragged[shard][name].offsets, rows[here] - self.first_rows[shard]
            lengths[here] = offsets[places + 1] - offsets[places]
        return lengths

    def take(self, name, rows):
        """A list column for some rows, laid end to end, as (values, offsets (k + 1,)).

        Raises DatasetError for an optional column where the dataset was prepared without it, and for a value that is
        not finite, with the id of its crystal.
        """
        if not all(name in columns for columns in self.ragged):
            option = "--hkl" if name in "hkl" else "--structure"
            raise DatasetError(f"{self.folder} has no column {name}: prepare it with {option}")
        shards = np.searchsorted(self.first_rows, rows, side="right") - 1
        pieces = [self.ragged[s][name][row - self.first_rows[s]] for s, row in zip(shards, rows)]
        values, offsets = np.concatenate(pieces), np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
        finite = np.isfinite(values)
        if not finite.all():
            k = np.searchsorted(offsets, finite.argmin(), side="right") - 1
            raise DatasetError(
                f"{self.folder}: {name} of crystal {self.column('id')[rows[k]]} is not finite; make the dataset again "
                "without it"
            )
        return values, offsets


def joined(first, second):
    """The rows of one Dataset and, after them, those of another."""
    both = object.__new__(Dataset)
    both.folder, both.meta, both.shards = first.folder, first.meta, first.shards + second.shards
    both.folders = first.folders + second.folders
    both.first_rows = np.cumsum([0] + [shard.num_rows for shard in both.shards])
    return both


def _open(path, shard, check):
    """The one record batch of a shard, memory-mapped; shard: what dataset.json says of it."""
    if not path.is_file():
        raise DatasetError(f"{path} is missing: make the dataset again")
    if check and sha256(path) != shard["sha256"]:
        raise DatasetError(f"{path} does not match its sha256 in dataset.json: it is damaged, make the dataset again")
    try:
        file = pa.ipc.open_file(pa.memory_map(os.fsencode(path)))
        if file.num_record_batches != 1:
            raise ValueError(f"{file.num_record_batches} record batches, not one")
        check_columns(file.schema, schema(hkl=True, structure=True, labels=OTHER_LABELS), required=schema().names)
        batch = file.get_batch(0)
        batch.validate(full=check)  # what Arrow reads without it may lie anywhere in memory
        if len(batch) != shard["rows"]:
            raise ValueError(f"{len(batch)} rows, {shard['rows']} in dataset.json")
        if check:
            check_values(batch)
    except (pa.ArrowException, ValueError, OSError, MemoryError) as error:
        why = " ".join(str(error).split())[:200]
        raise DatasetError(f"{path} cannot be read ({why}): it is damaged, make the dataset again") from error
    return batch
