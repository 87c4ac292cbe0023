"""Which crystals train, which choose, which judge.

`train` trains, `val` chooses, `test` judges once; `experimental` belongs to the formulas of measured patterns and
stays out of everything but its own evaluation.
"""

import hashlib

import numpy as np

SHUFFLED = ("train", "val", "test")
SPLITS = (*SHUFFLED, "experimental")
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def by_formula(formulas, seed=0):
    """Split names (n,), equal for equal formulas: a composition is never in two splits.

    A formula's split depends on itself and the seed alone, so that a dataset may grow without a crystal changing sides.
    """
    edges = np.cumsum(list(SHARES.values()))
    names = np.array(list(SHARES))

    def share(formula):
        return int.from_bytes(hashlib.sha256(f"{seed}:{formula}".encode()).digest()[:8], "big") / 2**64

    unique, inverse = np.unique(np.asarray(formulas, dtype=str), return_inverse=True)
    return names[np.searchsorted(edges[:-1], [share(formula) for formula in unique], side="right")][inverse]


def by_random(splits, seed=0):
    """The same split sizes dealt out afresh over the crystals of train, val and test, as in the paper.

    splits: (n,) split names by formula.  `experimental` stays where it is.
    """
    splits = np.asarray(splits, dtype=str)
    dealt = splits.copy()
    movable = np.flatnonzero(np.isin(splits, SHUFFLED))
    dealt[np.random.default_rng(seed).permutation(movable)] = splits[movable]
    return dealt
