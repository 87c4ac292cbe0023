"""Which crystals train, which choose, which judge.

`train` trains, `val` chooses, `test` judges once; `experimental` belongs to the formulas of measured patterns and
stays out of everything but its own evaluation.
"""

import hashlib

import numpy as np

SHUFFLED = ("train", "val", "test")
SPLITS = (*SHUFFLED, "experimental")
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}

NOBLE_GASES = {2, 10, 18, 36, 54, 86}
NONMETALS = {1, 6, 7, 8, 9, 15, 16, 17, 34, 35, 53, 85}
METALLOIDS = {5, 14, 32, 33, 51, 52, 84}
NOT_METALS = NOBLE_GASES | NONMETALS | METALLOIDS
CHALCOGENS = {16, 34, 52}  # S, Se, Te; oxides are a family of their own


def is_chalcogenide(element_ids, fractions):
    """With S, Se or Te."""
    return bool(CHALCOGENS & set(element_ids))


def is_perovskite(element_ids, fractions):
    """Of the formula ABX3 with metals A and B and a nonmetal X (S, Se, Te among them): a formula, not a structure."""
    if len(element_ids) != 3 or np.abs(np.sort(fractions) - (0.2, 0.2, 0.6)).max() > 1e-3:
        return False
    first, second, x = np.asarray(element_ids)[np.argsort(fractions)]
    return x in NONMETALS | CHALCOGENS and not {first, second} & NOT_METALS


def is_intermetallic(element_ids, fractions):
    """Two or more elements, all of them metals."""
    return len(element_ids) > 1 and not NOT_METALS & set(element_ids)


FAMILIES = {"chalcogenides": is_chalcogenide, "perovskites": is_perovskite, "intermetallics": is_intermetallic}


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


def by_family(splits, members):
    """The split of a zero-shot run: a family is `test` and nothing else, and the former rest of `test` is unused ("").

    splits: (n,) split names.  members: (n,) True = of the family.  `experimental` stays where it is.
    """
    splits, members = np.asarray(splits, dtype=f"<U{max(map(len, SPLITS))}").copy(), np.asarray(members)
    movable = np.isin(splits, SHUFFLED)
    splits[splits == "test"] = ""
    splits[members & movable] = "test"
    return splits


def beginning(rows, n, seed=0):
    """n of some rows, drawn so that a smaller number is the beginning of a larger one."""
    return rows[np.random.default_rng(seed).permutation(len(rows))[:n]]
