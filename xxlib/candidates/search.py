"""Which known crystals, with elements exchanged and cells and atoms refined, explain a pattern?"""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from xxlib.candidates import matching
from xxlib.candidates.calculated import LOOK, SHIFT, TEXTURE, THERMAL
from xxlib.candidates.library import volume_of
from xxlib.candidates.lines import expanded, lines_of
from xxlib.candidates.refinement import preferred, refined
from xxlib.candidates.standard import cell_of
from xxlib.candidates.symmetry import free_parameters, packed_groups
from xxlib.candidates.volumes import ELEMENT_VOLUMES
from xxlib.crystals.crystal import Crystal, RejectedCrystal, lattice_from_cell, space_group
from xxlib.diffraction.kernel import S2_STEP
from xxlib.diffraction.scattering import scattering_factors
from xxlib.diffraction.wavelengths import CU_KA

RANGE = (3.0, 95.0)  # degree: wider than a pattern, so that a change of scale leaves no hole
FITTED, REFINED = 600, 16  # candidates whose cell is looked for, whose atoms are refined
SETTLED = 10.0  # of what holds a refinement: with so little misfit among them,
BEHIND = 0.2  # those whose cell fits that much worse stay unrefined
ALIKE = 4  # of candidates of one structure type with the same exchange, whose cell is looked for
PARSIMONY = 0.004  # of the score: what a free parameter of the cell has to earn
LIKELIER = 5e-4  # of the score: of crystals that fit alike the one whose elements are exchanged least


@dataclass(frozen=True, eq=False)
class Matches:
    """Candidates for a pattern, the best score first."""

    crystals: np.ndarray  # (k,) places in the library
    before: np.ndarray  # (k, E) elements of the known crystal, in the order of the amounts
    after: np.ndarray  # (k, E) what stands in their places
    costs: np.ndarray  # (k,) of the exchange; 0 = none
    metrics: np.ndarray  # (k, 6) refined reciprocal metrics, as standard.reciprocal has them
    errors: np.ndarray  # (k, 6) standard deviations of these
    frac_coords: list  # k arrays (a, 3) of the asymmetric units, refined
    patterns: list  # k arrays (4250,), on the scale of the pattern observed
    space_groups: np.ndarray  # (k,) numbers, of the refined structures: that of the known crystal, or a higher one
    n_free: np.ndarray  # (k,) cell parameters that symmetry leaves free
    n_coordinates: np.ndarray  # (k,) free coordinates of the asymmetric unit
    n_lines: np.ndarray  # (k,) reflections that are not equal by symmetry
    moved: np.ndarray  # (k,) angstrom, root mean square of how far atoms moved along these
    volumes: np.ndarray  # (k,) of an atom, cubic angstrom, refined
    expected_volumes: np.ndarray  # (k,) of an atom, from the volumes of the elements
    looks: np.ndarray  # (k, 8) what instrument and powder make of the lines, as calculated.LOOK has it
    scale_scores: np.ndarray  # (k,) agreement before the cell is refined, 0-1
    cell_scores: np.ndarray  # (k,) before the atoms are, 0-1
    scores: np.ndarray  # (k,) cosine of the square roots of both patterns, 0-1

    def __len__(self):
        return len(self.crystals)

    @property
    def shifts(self):
        """Degree (k,), of 2 theta."""
        return self.looks[:, SHIFT]


def search(library, observed, tried, *, fitted=FITTED, to_refine=REFINED, least=0.0):
    """The Matches of an Observed pattern among Exchanges of a Library.

    fitted, to_refine: of how many the cell is looked for, and the atoms refined.  least: agreement, with the cell
    refined, below which a candidate is given up.
    """
    if not len(tried) or not len(observed.height):
        return _nothing(tried)
    atoms, expected = exchanged(library, tried)
    hkl, g2, intensity, ends = lines_of(atoms, packed_groups(), scattering_table(), CU_KA, *wavenumbers(RANGE))
    scale_scores, shifts = matching.scales(observed, g2, intensity, ends)
    best = _distinct(library, tried, np.argsort(LIKELIER * tried.costs - scale_scores, kind="stable"), ALIKE)[:fitted]
    lines = np.concatenate([np.arange(ends[c], ends[c + 1]) for c in best])
    ends = np.concatenate([[0], np.cumsum(np.diff(ends)[best])])
    hkl, intensity = hkl[lines], intensity[lines]
    free = free_parameters()[library.space_groups[tried.crystals[best]]]  # (k, 6, 6)
    start = atoms[0][best] * np.exp(2 * shifts[best])[:, None]
    metrics = matching.refine(observed, start, free, hkl, intensity, ends)
    cell_scores = matching.profile_scores(observed, metrics, hkl, intensity, ends)
    unrefined = matching.profile_scores(observed, start, hkl, intensity, ends)
    metrics = np.where((unrefined > cell_scores)[:, None], start, metrics)
    cell_scores = np.maximum(unrefined, cell_scores)
    handicap = PARSIMONY * free.any(-1).sum(-1) + LIKELIER * tried.costs[best]
    order = np.argsort(handicap - cell_scores, kind="stable")
    order = order[_places(_distinct(library, tried, best[order], 1), best[order])][:to_refine]
    order = order[cell_scores[order] >= least]
    if not len(order):
        return _nothing(tried)
    found, seen_as = [], observed.look[0]
    for place, c in enumerate(order):
        best_score = max((one[4] for one in found), default=0.0)
        if cell_scores[c] < cell_scores[order[0]] - BEHIND and best_score > 1 - SETTLED * observed.held:
            order = order[:place]
            break
        found.append(_refined(library, tried, best[c], metrics[c], free[c], atoms, observed, seen_as, best_score))
        if found[-1][4] > best_score:  # a scan looks the same to all candidates, but for thermal motion and texture
            seen_as = np.where(np.isin(np.arange(len(LOOK)), (THERMAL, TEXTURE)), observed.look[0], found[-1][3])
    cells, errors, frac, looks, scores, n_coordinates, moved, patterns, n_lines = zip(*found)
    last = np.argsort(-np.array(scores), kind="stable")
    chosen, metrics = best[order][last], np.array(cells)[last]
    symmetries = [
        _symmetry(library, tried.crystals[c], tried.after[c], tried.before[c], cell, atoms)
        for c, cell, atoms in zip(best[order], cells, frac)
    ]
    return Matches(
        crystals=tried.crystals[chosen], before=tried.before[chosen], after=tried.after[chosen],
        costs=tried.costs[chosen], metrics=metrics, errors=np.array(errors)[last],
        frac_coords=[frac[c] for c in last], patterns=[patterns[c] for c in last],
        space_groups=np.array([symmetries[c] for c in last]), n_free=free[order][last].any(-1).sum(-1),
        n_coordinates=np.array(n_coordinates)[last], n_lines=np.array(n_lines)[last], moved=np.array(moved)[last],
        volumes=volume_of(metrics) / library.n_atoms[tried.crystals[chosen]],
        expected_volumes=expected[chosen], looks=np.array(looks)[last],
        scale_scores=scale_scores[chosen], cell_scores=cell_scores[order][last], scores=np.array(scores)[last],
    )  # fmt: skip


def lines_as_known(library, tried, two_theta_range):
    """1/d^2 (N,), intensity (N,), offsets (k + 1,) of the lines of Exchanges in the cells of the library."""
    atoms, _ = exchanged(library, tried)
    _, *lines = lines_of(atoms, packed_groups(), scattering_table(), CU_KA, *wavenumbers(two_theta_range))
    return lines


def wavenumbers(two_theta_range):
    """1/d in 1/angstrom of two angles in degree."""
    return 2 * np.sin(np.radians(np.array(two_theta_range) / 2)) / CU_KA


def _nothing(tried):
    none, table, looks = np.zeros(0), np.zeros((0, 6)), np.zeros((0, len(LOOK)))
    places, elements = np.zeros(0, np.int64), tried.before[:0]
    sizes = [none] * 6  # n_free to expected_volumes
    return Matches(places, elements, elements, none, table, table, [], [], places, *sizes, looks, none, none, none)


def _distinct(library, tried, order, most):
    """Of candidates in some order, those with fewer than `most` of the same type and exchange before them.

    Known crystals of the formula itself, of which nothing is exchanged, all stay.
    """
    kinds = np.unique(
        np.column_stack([library.types[tried.crystals], tried.after])[order], axis=0, return_inverse=True
    )[1]
    places = np.argsort(kinds, kind="stable")
    first = np.searchsorted(kinds[places], kinds[places])
    before = np.empty(len(order), np.int64)
    before[places] = np.arange(len(order)) - first
    return order[(before < most) | (tried.costs[order] == 0)]


def _places(some, among):
    """Where each of some values stands among others."""
    order = np.argsort(among)
    return order[np.searchsorted(among, some, sorter=order)]


def _refined(library, tried, candidate, metric, free, atoms, observed, look, best_score):
    """One candidate against the whole pattern, as Matches has it: its atoms too, unless it is far behind the best."""
    _, kinds, frac, numbers, occupancies, offsets = atoms
    own, basis = slice(offsets[candidate], offsets[candidate + 1]), free[free.any(-1)]
    group, unit = _group(int(kinds[candidate])), (frac[own], numbers[own], occupancies[own])
    (expected, errors), axes, table = observed.look, np.zeros((0, 3)), scattering_table()
    scan = table, observed.root, observed.measured
    # The cell by itself first: a step of many atoms at once may hide what it gains.
    cell = basis @ metric / (basis**2).sum(-1)
    found = refined(cell, look, expected, errors, basis, group, unit, axes, *scan, observed.held, False)
    if found[3] > best_score - BEHIND:
        cell, _, look, *_ = found
        if errors[TEXTURE] > 0:
            axes, look[TEXTURE] = preferred(cell, look, basis, group, unit, *scan)
        found = refined(cell, look, expected, errors, basis, group, unit, axes, *scan, observed.held, True)
    cell, frac, look, score, moved, covariance, pattern, n_lines = found
    uncertain = np.sqrt(np.maximum(np.einsum("pi,pq,qi->i", basis, covariance, basis), 0.0))
    far = np.sqrt((moved**2).mean()) if len(moved) else 0.0
    return cell @ basis, uncertain, frac, look, score, len(moved), far, pattern, n_lines


def structure(library, crystal, before, after, metric, frac_coords):
    """The Crystal, in its standard cell, of a known one with elements exchanged, cell and atoms (a, 3) refined."""
    own = slice(library.offsets[crystal], library.offsets[crystal + 1])
    numbers = library.atomic_numbers[own].astype(np.int64)
    numbers = after[(numbers[:, None] == before).argmax(1)]
    rotations, translations, centrings, _ = _group(int(library.space_groups[crystal]) - 1)
    places, kinds, *_ = expanded(rotations, translations, centrings, frac_coords, numbers)
    frac = (places[:, None] + centrings).reshape(-1, 3) % 1.0
    return Crystal(
        str(library.ids[int(crystal)]), lattice_from_cell(*cell_of(metric)), np.repeat(kinds, len(centrings)), frac,
        np.ones(len(frac)),
    )  # fmt: skip


def _symmetry(library, crystal, after, before, metric, frac_coords):
    """Number of the space group of a refined structure: a higher one where atoms moved to places of its symmetry."""
    try:
        return space_group(structure(library, crystal, before, after, metric, frac_coords))
    except RejectedCrystal:
        return int(library.space_groups[crystal])


@cache
def _group(place):
    """rotations, translations, centrings, laue of the space group at a place of packed_groups()."""
    *parts, ends = packed_groups()
    columns = (0, 0, 1, 2)
    own = [part[ends[place, k] : ends[place + 1, k]] for part, k in zip(parts, columns)]
    rotations, translations, laue, centrings = map(np.ascontiguousarray, own)
    return rotations, translations, centrings, laue


def exchanged(library, tried):
    """Crystals with elements exchanged, as lines_of takes them, and the volume (k,) of an atom that is expected.

    The cell of each is scaled by the ratio of what its elements take up and what those exchanged do.
    """
    crystals = tried.crystals
    lengths = np.diff(library.offsets)[crystals]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    atoms = np.repeat(library.offsets[crystals] - ends[:-1], lengths) + np.arange(ends[-1])
    owner = np.repeat(np.arange(len(crystals)), lengths)
    numbers = library.atomic_numbers[atoms].astype(np.int64)
    which = (numbers[:, None] == tried.before[owner]).argmax(1)
    exchanged = tried.after[owner, which]
    times = library.multiplicities[atoms]
    before, after = (np.bincount(owner, times * ELEMENT_VOLUMES[z]) for z in (numbers, exchanged))
    metrics = library.metrics[crystals] / ((after / before) ** (2 / 3))[:, None]
    kinds = library.space_groups[crystals].astype(np.int64) - 1
    frac = library.frac_coords(atoms)
    return (metrics, kinds, frac, exchanged, np.ones(len(atoms)), ends), after / library.n_atoms[crystals]


@lru_cache(maxsize=1)
def scattering_table():
    return scattering_factors(int(np.sin(np.radians(RANGE[1] / 2)) ** 2 / CU_KA**2 / S2_STEP) + 1)
