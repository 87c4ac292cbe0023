"""Which known crystals, with elements exchanged and cells refined, explain a pattern?"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from study.candidates import matching
from study.candidates.exchange import exchanges
from study.candidates.library import stoichiometry, volume_of
from study.candidates.lines import lines_of
from study.candidates.symmetry import free_parameters, packed_groups
from study.candidates.volumes import ELEMENT_VOLUMES
from xxlib.diffraction.kernel import S2_STEP
from xxlib.diffraction.scattering import scattering_factors
from xxlib.diffraction.wavelengths import CU_KA

RANGE = (3.0, 95.0)  # degree: wider than a pattern, so that a change of scale leaves no hole
MOST, REFINED, POLISHED = 600, 150, 8  # candidates whose scale is looked for, whose cell, and to the last digit


@dataclass(frozen=True, eq=False)
class Matches:
    """Candidates for a pattern, the best first."""

    crystals: np.ndarray  # (k,) places in the library
    before: np.ndarray  # (k, E) elements of the known crystal, in the order of the amounts
    after: np.ndarray  # (k, E) what stands in their places
    costs: np.ndarray  # (k,) of the exchange; 0 = none
    metrics: np.ndarray  # (k, 6) refined reciprocal metrics, as standard.reciprocal has them
    n_free: np.ndarray  # (k,) cell parameters that symmetry leaves free
    volumes: np.ndarray  # (k,) of an atom, cubic angstrom, refined
    expected_volumes: np.ndarray  # (k,) of an atom, from the volumes of the elements
    scale_scores: np.ndarray  # (k,) agreement before the cell is refined, 0-1
    scores: np.ndarray  # (k,) cosine of the square roots of both patterns, 0-1


def search(library, pattern, numbers, amounts, most=MOST, refined=REFINED, hidden=None, sigma=matching.SIGMA):
    """The Matches of a pattern (4250,), intensity 0-100, among crystals of the stoichiometry of atomic numbers (a,)
    with whole amounts (a,).

    hidden: (n,) bool, crystals of the library that are not seen.  sigma: width of the pattern's peaks, degree.
    """
    kinds, elements = stoichiometry(numbers, amounts)
    tried = exchanges(library, kinds, elements, most, hidden=hidden)
    if not len(tried):
        empty = np.zeros(0)
        return Matches(tried.crystals, tried.before, tried.after, empty, np.zeros((0, 6)), *[empty] * 5)
    atoms, expected = _exchanged(library, tried)
    wavenumbers = 2 * np.sin(np.radians(np.array(RANGE) / 2)) / CU_KA
    hkl, g2, intensity, ends = lines_of(atoms, packed_groups(), _table(), CU_KA, *wavenumbers)
    observed = matching.Observed.of(pattern)
    scale_scores, shifts = matching.scales(observed, g2, intensity, ends)
    best = np.argsort(-scale_scores, kind="stable")[:refined]
    lines = np.concatenate([np.arange(ends[c], ends[c + 1]) for c in best])
    ends = np.concatenate([[0], np.cumsum(np.diff(ends)[best])])
    free = free_parameters()[library.space_groups[tried.crystals[best]]]  # (k, 6, 6)
    start = atoms[0][best] * np.exp(2 * shifts[best])[:, None]
    metrics = matching.refine(observed, start, free, hkl[lines], intensity[lines], ends)
    scores = matching.profile_scores(pattern, metrics, hkl[lines], intensity[lines], ends, sigma)
    unrefined = matching.profile_scores(pattern, start, hkl[lines], intensity[lines], ends, sigma)
    metrics = np.where((unrefined > scores)[:, None], start, metrics)
    scores = np.maximum(unrefined, scores)
    finest = np.argsort(-scores, kind="stable")[:POLISHED]
    metrics[finest], scores[finest] = matching.polish(
        pattern, metrics, free, hkl[lines], intensity[lines], ends, finest, sigma
    )
    order = np.argsort(-scores, kind="stable")
    best, metrics = best[order], metrics[order]
    per_cell = library.n_atoms[tried.crystals[best]]
    return Matches(
        crystals=tried.crystals[best], before=tried.before[best], after=tried.after[best], costs=tried.costs[best],
        metrics=metrics, n_free=(free[order].any(-1)).sum(-1), volumes=volume_of(metrics) / per_cell,
        expected_volumes=expected[best], scale_scores=scale_scores[best], scores=scores[order],
    )  # fmt: skip


def _exchanged(library, tried):
    """Crystals with elements exchanged, as lines_of takes them, and the volume (k,) of an atom that is expected.

    The cell of each is scaled by the ratio of what its elements take up and what those exchanged do.
    """
    crystals = tried.crystals
    lengths = np.diff(library.offsets)[crystals]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    atoms = np.concatenate([np.arange(library.offsets[c], library.offsets[c + 1]) for c in crystals])
    owner = np.repeat(np.arange(len(crystals)), lengths)
    numbers = library.atomic_numbers[atoms].astype(np.int64)
    which = (numbers[:, None] == tried.before[owner]).argmax(1)
    exchanged = tried.after[owner, which]
    times = library.multiplicities[atoms]
    before, after = (np.bincount(owner, times * ELEMENT_VOLUMES[z]) for z in (numbers, exchanged))
    metrics = library.metrics[crystals] / ((after / before) ** (2 / 3))[:, None]
    kinds = library.space_groups[crystals].astype(np.int64) - 1
    frac = library.frac_coords[atoms].astype(np.float64)
    return (metrics, kinds, frac, exchanged, np.ones(len(atoms)), ends), after / library.n_atoms[crystals]


@lru_cache(maxsize=1)
def _table():
    return scattering_factors(int(np.sin(np.radians(RANGE[1] / 2)) ** 2 / CU_KA**2 / S2_STEP) + 1)
