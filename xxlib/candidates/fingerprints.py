"""All crystals of a library against a pattern, when nothing of the sample is known: coarse lines first.

A fingerprint is the square roots of the lines of 5-60 degree on a coarse axis of ln q; the cosine with that of the
pattern, best over a small change of scale, picks those whose lines are then computed and fitted.
"""

import numpy as np

from xxlib.candidates.exchange import unchanged
from xxlib.candidates.matching import spread
from xxlib.candidates.search import lines_as_known
from xxlib.diffraction.wavelengths import CU_KA

BINS = 320
FIRST, LAST = (np.log(4 * np.pi * np.sin(np.radians(angle / 2)) / CU_KA) for angle in (5.0, 60.0))  # ln q
WIDTH = (LAST - FIRST) / BINS  # 0.0076
MOST_SHIFT = 3  # bins: a change of lengths of 2 %
CHUNK = 4000  # crystals whose lines are in memory at once


def fingerprints(library):
    """(n, BINS) float16 of the crystals of a library, each of length 1."""
    out = np.empty((len(library), BINS), np.float16)
    for start in range(0, len(library), CHUNK):
        crystals = np.arange(start, min(start + CHUNK, len(library)))
        g2, intensity, ends = lines_as_known(library, unchanged(library, crystals), (5.0, 60.0))
        out[crystals] = _of(0.5 * np.log(g2) + np.log(2 * np.pi), np.sqrt(intensity), ends)
    return out


def _of(ln_q, height, ends):
    dense = np.zeros((len(ends) - 1, BINS))
    spread((ln_q - FIRST) / WIDTH, height, ends, dense)
    dense[:, 1:-1] = 0.25 * dense[:, :-2] + 0.5 * dense[:, 1:-1] + 0.25 * dense[:, 2:]
    return dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9)


def likeliest(library, prints, observed, most, among=None):
    """The Exchanges (nothing is exchanged) of those crystals whose fingerprint is most like an Observed pattern.

    prints: fingerprints(library).  among: places (k,) of crystals; all where None.
    """
    own = _of(observed.ln_q, observed.height, np.array([0, len(observed.height)]))[0]
    shifted = np.stack([np.roll(own, k) for k in range(-MOST_SHIFT, MOST_SHIFT + 1)], axis=1).astype(np.float32)
    among = np.arange(len(library)) if among is None else among
    scores = np.concatenate(
        [(prints[among[k : k + 10_000]].astype(np.float32) @ shifted).max(1) for k in range(0, len(among), 10_000)]
        or [np.zeros(0)]
    )
    return unchanged(library, among[np.argsort(-scores, kind="stable")[:most]])
