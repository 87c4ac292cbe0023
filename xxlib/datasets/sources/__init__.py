"""Where crystals come from: one module a kind of source, each with a function that returns a Source."""

import hashlib
import io
import math
import os
import pickle
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xxlib.crystals.crystal import MAX_FILE_BYTES, Crystal, RejectedCrystal

POSITIVE = ("volume", "bulk_modulus", "shear_modulus")  # labels


@dataclass(frozen=True)
class Record:
    """One crystal, or one formula, as it stands in its source: not parsed yet, data that another process can take."""

    id: str
    place: str  # file, and row, line or member where there is one
    content: Any  # what `read` takes: a path, text, a dict, ...; or a formula
    read: Callable[[str, Any], Crystal] | None  # of a module: (id, content) -> Crystal; None where content is a formula
    columns: dict = field(default_factory=dict)  # e_form, band_gap, space_group, formula, split, if the source has them

    def crystal(self):
        """The Crystal, None where there is only a formula; raises RejectedCrystal with the reason why it is none."""
        return self.read and self.read(self.id, self.content)

    def fingerprint(self):
        """sha256 (bytes) of id, content (where that is a path: of the file's) and columns."""
        content = _bytes_of_file(self.content) if isinstance(self.content, Path) else self.content
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, protocol=4)
        pickler.fast = True  # equal values give equal bytes, whether or not they are one object
        pickler.dump((self.id, content, self.columns))
        return hashlib.sha256(buffer.getbuffer()).digest()


# Told of the crystals of a source, in order, a record batch (store.schema()) at a time: for each, why it repeats an
# earlier one, or None.
Distinct = Callable[[pa.RecordBatch], list[str | None]]


@dataclass(frozen=True)
class Source:
    """Crystals from one place, streamed."""

    metadata: dict  # kind, name, version, licence, functional of the labels, ...: what dataset.json says of it
    records: Callable[[], Iterator[Record]]  # from the first record on at every call, in the same order
    n_records: int | None = None  # where it is known before reading
    enough: int | None = None  # accepted crystals after which no further records are read
    warm_up: Callable[[], Any] | None = None  # slow the first time in a process: not at the first crystal's expense
    distinct: Callable[[], Distinct] | None = None  # where a crystal may repeat an earlier one


def parsed(crystal, place, **columns):
    """A Record of a Crystal that exists already."""
    return Record(crystal.id, place, crystal, _as_it_is, columns)


def refused(id, place, reason):
    """A Record that the source itself could not read."""
    return Record(id, place, reason, _refuse)


def storable(text):
    """A name or a message as it can be stored and printed: what is not UTF-8 in it, as in some file names, as \\xe9."""
    return text.encode("utf-8", "backslashreplace").decode().replace(r"\udc", r"\x")


def check_file(path):
    """Raise ValueError for what is no file, OSError where there is nothing.

    A pipe would be waited for, a device such as /dev/zero has no end.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise ValueError(f"{path} is no file but a folder, pipe or device")


def parquet_file(path):
    """The ParquetFile at a path, whose name need not be UTF-8; raises as check_file does, and pa.ArrowInvalid."""
    check_file(path)
    return pq.ParquetFile(pa.memory_map(os.fsencode(path)))


def read_labels(**values):
    """Labels among the `columns` of a Record; numbers may be written as strings, None, NaN, "na" and "" are left out.

    values: of e_form (eV/atom), band_gap (eV), space_group and OTHER_LABELS, by name.  Raises RejectedCrystal for what
    is no number, an infinite one, no space group, or one of POSITIVE that is not.
    """
    labels = {}
    for name, value in values.items():
        if value is None or (isinstance(value, str) and value.strip().lower() in ("", "na")):
            continue
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise RejectedCrystal(f"{name} is {value!r}, not a number"[:200]) from error
        if math.isnan(number):
            continue
        impossible = {"space_group": number not in range(1, 231)} | dict.fromkeys(POSITIVE, number <= 0)
        if math.isinf(number) or impossible.get(name):
            raise RejectedCrystal(f"{name} is {value!r}"[:200])
        labels[name] = int(number) if name == "space_group" else number
    return labels


def _bytes_of_file(path):
    """Of a file that is no file or too large to be read, why."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            return "not read"
        return path.read_bytes()
    except OSError as error:
        return str(error.strerror)


def _as_it_is(id, crystal):
    return crystal


def _refuse(id, reason):
    raise RejectedCrystal(reason)
