"""What the splits of a dataset share: ids, formulas, and patterns that a diffractometer would not tell apart."""

from itertools import combinations

import numpy as np
import pandas as pd

from xxlib.datasets.splits import SPLITS
from xxlib.diffraction import patterns

# Peaks of standard deviation s that differ by d degree have a cosine similarity of exp(-d^2 / 4 s^2): 0.99 is a shift
# of all lines by 0.1 degree, the width of the paper's peaks.
SAME_PATTERN = 0.99
SIGMA, STEP = 0.5, 25  # degree, grid points: 170 points hold such a pattern
BLOCK = 2048  # crystals whose fingerprints are compared at a time


def leakage(dataset, splits=None):
    """Table of the ids and formulas that each pair of splits shares, with columns splits, ids, formulas.

    splits: (n,) names that replace the stored ones, as splits.by_random makes them.  Ids must never be shared, formulas
    not where the split is by formula.
    """
    splits = dataset.column("split") if splits is None else np.asarray(splits)
    columns = {name: dataset.column(name) for name in ("id", "formula")}
    return pd.DataFrame(
        {
            "splits": f"{one}, {other}",
            "ids": len(np.intersect1d(columns["id"][splits == one], columns["id"][splits == other])),
            "formulas": len(np.intersect1d(columns["formula"][splits == one], columns["formula"][splits == other])),
        }
        for one, other in _pairs(splits)
    )


def same_patterns(dataset, splits=None, threshold=SAME_PATTERN):
    """Table of the pairs of crystals in different splits whose patterns are the same, the most similar first.

    Columns: cosine, and id, split, formula, space_group of either.  Same means a cosine similarity above `threshold`;
    that the formulas often differ is no error: isostructural compounds of neighbouring elements look alike.  Every pair
    is compared: 35,000 crystals take seconds, a million would take hours.
    """
    splits = dataset.column("split") if splits is None else np.asarray(splits)
    found = fingerprints(dataset)
    pairs, cosines = [], []
    for one, other in _pairs(splits):
        rows, columns = np.flatnonzero(splits == one), np.flatnonzero(splits == other)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            cosine = found[block] @ found[columns].T
            i, j = np.nonzero(cosine > threshold)
            pairs.append(np.stack([block[i], columns[j]], 1))
            cosines.append(cosine[i, j])
    pairs = np.concatenate([*pairs, np.zeros((0, 2), int)])
    table = pd.DataFrame({"cosine": np.concatenate([*cosines, np.zeros(0, np.float32)])})
    for name in ("id", "split", "formula", "space_group"):
        values = splits if name == "split" else dataset.column(name)
        table[name], table[f"{name}_2"] = values[pairs[:, 0]], values[pairs[:, 1]]
    table = table.astype({"space_group": int, "space_group_2": int})
    return table.sort_values("cosine", ascending=False, kind="stable", ignore_index=True)


def fingerprints(dataset):
    """Coarse patterns (n, 170) float32 of unit length, one a crystal."""
    found = np.empty((len(dataset), len(range(0, patterns.N_POINTS, STEP))), np.float32)
    for start in range(0, len(dataset), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(dataset)))
        (two_theta, offsets), (intensity, _) = dataset.take("two_theta", rows), dataset.take("intensity", rows)
        found[rows] = patterns.render(two_theta, intensity, offsets, SIGMA)[:, ::STEP]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _pairs(splits):
    return list(combinations([name for name in SPLITS if name in set(splits)], 2))
