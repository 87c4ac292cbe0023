"""What must hold of a shard that may come from anywhere, before anything is read of it by place."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xxlib.crystals.compositions import MAX_Z
from xxlib.datasets.splits import SPLITS

TOGETHER = (("element_ids", "fractions"), ("two_theta", "intensity"), *(("two_theta", index) for index in "hkl"))
WHOLE = ("id", "formula", "split")  # beside the lists
RANGES = {"element_ids": (1, MAX_Z), "atom_ids": (1, MAX_Z), "space_group": (1, 230)}


def check_columns(schema, whole, required):
    """Raise ValueError where a column is missing or of another type than in the whole schema."""
    missing = [name for name in required if name not in schema.names]
    if missing:
        raise ValueError(f"no column {missing[0]}")
    for field in schema:
        if schema.names.count(field.name) > 1:
            raise ValueError(f"two columns {field.name}")
        if field.name in whole.names and field.type != whole.field(field.name).type:
            raise ValueError(f"column {field.name} holds {field.type}, not {whole.field(field.name).type}")


def check_values(batch):
    """Raise ValueError for a valid record batch, of right columns, in which a value is missing or cannot be."""
    columns = dict(zip(batch.schema.names, batch.columns))
    for name, column in columns.items():
        is_list = pa.types.is_list(column.type)
        n_missing = column.null_count + column.values.null_count if is_list else column.null_count
        if n_missing and (is_list or name in WHOLE):
            raise ValueError(f"column {name} lacks values")
        low, high = RANGES.get(name, (None, None))
        extremes = pc.min_max(column.values if is_list else column).as_py() if low else {"min": None, "max": None}
        if extremes["min"] is not None and not low <= extremes["min"] <= extremes["max"] <= high:
            raise ValueError(f"column {name} holds {extremes['min']} to {extremes['max']}, outside {low}-{high}")
    for one, other in TOGETHER:
        if one in columns and other in columns:
            row = np.flatnonzero(_lengths(columns[one]) != _lengths(columns[other]))
            if row.size:
                raise ValueError(f"row {row[0]} has not as many values of {one} as of {other}")
    unknown = set(pc.unique(columns["split"]).to_pylist()) - set(SPLITS)
    if unknown:
        raise ValueError(f"split {min(unknown)[:40]!r} is none of {', '.join(SPLITS)}")


def _lengths(column):
    return np.diff(column.offsets.to_numpy())
