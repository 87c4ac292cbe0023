"""Crystals made from prototypes."""

from functools import partial

import numpy as np

from xxlib.datasets.sources import Source, parsed, refused
from xxlib.inputs import patterns, prototypes
from xxlib.inputs.compositions import composition_of_crystal, reduced_formula
from xxlib.inputs.crystals import RejectedCrystal, space_group
from xxlib.inputs.diffraction import sticks

SAME_PATTERN = 0.95  # cosine similarity of two patterns above which crystals of one formula and space group are one
COARSE_SIGMA, COARSE_STEP = 0.5, 25  # degree, grid points: patterns in which a shift by 0.1 degree hardly shows


def generated(n, seed):
    """Source of the first n distinct crystals of prototypes.generate(seed).

    Two are the same where formula and space group are and the cosine similarity of their patterns exceeds SAME_PATTERN.
    """
    about = {"kind": "generated", "name": f"{n} from prototypes", "seed": seed}
    return Source(about, partial(_records, n, seed), n)


def _records(n, seed):
    seen = {}  # (formula, space group) -> coarse patterns of unit length, (m, 170)
    found = 0
    for crystal in prototypes.generate(seed):
        if found == n:
            return
        place = f"prototypes, seed {seed}"
        try:
            key = reduced_formula(*composition_of_crystal(crystal)), space_group(crystal)
            coarse = patterns.pattern(sticks(crystal), sigma=COARSE_SIGMA)[::COARSE_STEP]
        except RejectedCrystal as error:
            yield refused(crystal.id, place, str(error))
            continue
        coarse = (coarse / np.linalg.norm(coarse)).astype(np.float16)
        others = seen.get(key, np.zeros((0, len(coarse)), np.float16))
        if (others.astype(np.float32) @ coarse.astype(np.float32) > SAME_PATTERN).any():
            continue
        seen[key] = np.concatenate([others, coarse[None]])
        found += 1
        yield parsed(crystal, place, formula=key[0])
