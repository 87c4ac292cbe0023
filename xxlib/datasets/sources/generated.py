"""Crystals made from prototypes."""

import sqlite3
from functools import partial
from itertools import count

import numpy as np

from xxlib.crystals import prototypes
from xxlib.datasets.sources import Record, Source
from xxlib.diffraction import patterns

SAME_PATTERN = 0.95  # cosine similarity of two patterns above which crystals of one formula and space group are one
COARSE_SIGMA, COARSE_STEP = 0.5, 25  # degree, grid points: patterns in which a shift by 0.1 degree hardly shows


def generated(n, seed):
    """Source of the first n distinct crystals of prototypes.generate(seed).

    Two are the same where formula and space group are and the cosine similarity of their patterns exceeds SAME_PATTERN.
    """
    metadata = {"kind": "generated", "name": f"{n} from prototypes", "seed": seed}
    return Source(metadata, partial(_records, seed), enough=n, warm_up=prototypes.prototypes, distinct=Repeats)


def _records(seed):
    for i in count():
        yield Record(f"gen-{seed}-{i}", f"prototypes, seed {seed}", (seed, i), _generate)


def _generate(id, seed_and_number):
    return prototypes.generated(*seed_and_number)


class Repeats:
    """Finds the crystals that are the same as an earlier one; sees them in order, as record batches."""

    def __init__(self):
        # A temporary database: what its cache does not hold lies on disk, so that memory does not grow with it.
        self.earlier = sqlite3.connect("")
        self.earlier.execute("CREATE TABLE earlier (formula TEXT, space_group INTEGER, id TEXT, pattern BLOB)")
        self.earlier.execute("CREATE INDEX alike ON earlier (formula, space_group)")

    def __call__(self, batch):
        """For each crystal why it is a repetition, or None."""
        if not len(batch):
            return []
        lines = batch["two_theta"]
        offsets = lines.offsets.to_numpy()
        coarse = patterns.render(
            lines.values.to_numpy(), batch["intensity"].values.to_numpy(), offsets, sigma=COARSE_SIGMA
        )[:, ::COARSE_STEP]
        coarse = (coarse / np.linalg.norm(coarse, axis=1, keepdims=True)).astype(np.float16)
        columns = (batch[name].to_pylist() for name in ("id", "formula", "space_group"))
        return [self._first(id, key, row) for id, *key, row in zip(*columns, coarse)]

    def _first(self, id, key, coarse):
        alike = "SELECT id, pattern FROM earlier WHERE formula = ? AND space_group = ? ORDER BY rowid"
        for first, pattern in self.earlier.execute(alike, key):
            if np.frombuffer(pattern, np.float16).astype(np.float32) @ coarse.astype(np.float32) > SAME_PATTERN:
                return f"repeats {first}: the same formula, space group and pattern"
        self.earlier.execute("INSERT INTO earlier VALUES (?, ?, ?, ?)", (*key, id, coarse.tobytes()))
        return None
