"""Columns of a shard where they lie, memory-mapped: strings, and lists of numbers."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, eq=False)
class Strings:
    """A column of strings where it lies, on the disk: only what is asked for is read.

    column[rows] is an array of str, column[row] one str, column == name (n,) bool, column.isin(names) too; what is
    missing is "".
    """

    chunks: list[pa.Array]

    def __len__(self):
        return sum(map(len, self.chunks))

    def __getitem__(self, rows):
        if isinstance(rows, slice) or np.asarray(rows).dtype == bool:
            rows = np.arange(len(self))[rows]
        rows, ends = np.asarray(rows), np.cumsum([len(chunk) for chunk in self.chunks])
        rows = np.where(rows < 0, rows + len(self), rows).astype(np.int64)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"a row outside 0-{len(self) - 1}")
        places = np.searchsorted(ends, rows, side="right")
        values = np.empty(rows.shape, object)
        for k in np.unique(places):
            here = places == k
            chosen = self.chunks[k].take(pa.array(rows[here] - ends[k] + len(self.chunks[k])))
            values[here] = pc.fill_null(chosen, "").to_numpy(zero_copy_only=False)
        return values.astype(str) if rows.ndim else str(values[()])

    def __eq__(self, name):
        return self.isin([name])

    __hash__ = None

    def isin(self, names):
        """Which rows (n,) hold one of some names."""
        chosen = pa.array(np.unique(np.asarray(names, dtype=str)).tolist(), pa.string())
        return self._read(lambda chunk: pc.is_in(chunk, value_set=chosen))

    def places(self, names):
        """Where (n,) float64 in a list of names each row's is; NaN where it is missing."""
        chosen = pa.array(names, pa.string())
        return self._read(lambda chunk: pc.cast(pc.index_in(chunk, value_set=chosen), pa.float64()))

    def __array__(self, dtype=None, copy=None):
        return self[:]

    def __iter__(self):
        for chunk in self.chunks:
            yield from pc.fill_null(chunk, "").to_pylist()

    def tolist(self):
        return list(self)

    def _read(self, function):
        return np.concatenate([function(chunk).to_numpy(zero_copy_only=False) for chunk in self.chunks])


@dataclass(frozen=True, eq=False)
class Ragged:
    """A list column: row i is values[offsets[i]:offsets[i + 1]]."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, column):
        """Of a list array of Arrow."""
        return cls(column.values.to_numpy(), column.offsets.to_numpy())

    def __getitem__(self, i):
        return self.values[self.offsets[i] : self.offsets[i + 1]]
