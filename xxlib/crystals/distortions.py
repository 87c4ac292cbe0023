"""What a candidate has otherwise than the crystal it stands for, drawn for each crystal: cell, places, elements.

A known crystal that explains a scan has a cell near the true one, places of another compound, and elements put where
like ones were.  A model that is to read candidates trains on true structures that are changed as much.
What is drawn is a function of a seed and of the crystal's place among those drawn for, whatever part is used together.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from xxlib.crystals.substitutions import LAST_ELEMENT, likeness


@dataclass(frozen=True, kw_only=True)
class Distortions:
    """How much structures are changed; a range (low, high) is drawn from uniformly."""

    strain: tuple[float, float] = (0.0, 0.0)  # %, standard deviation of the six strains of a cell
    shift: tuple[float, float] = (0.0, 0.0)  # angstrom, standard deviation of each coordinate
    traded: float = 0.0  # probability that two elements of equal amounts trade places, like ones rather
    replaced: float = 0.0  # probability that an element is another one, like it


DISTORTIONS = {
    # As candidates from known crystals are: their cells are refined to a few per mille, or come from volumes of atoms;
    # isotypes have their atoms within some tenths of an angstrom of each other.
    "candidate": Distortions(strain=(0.0, 3.0), shift=(0.0, 0.15), traded=0.1),
    # And where the formula is not sure: one element in ten crystals is a like one.
    "doubtful": Distortions(strain=(0.0, 3.0), shift=(0.0, 0.15), traded=0.1, replaced=0.1),
}


@dataclass(frozen=True, eq=False)
class Drawn:
    """Distortions as they were drawn for n crystals."""

    strain: np.ndarray  # (n,) %
    shift: np.ndarray  # (n,) angstrom
    trades: np.ndarray  # (n,) bool
    replaces: np.ndarray  # (n,) bool
    keys: np.ndarray  # (n,) uint64: from it comes what differs between the atoms of a crystal

    def __getitem__(self, part):
        return Drawn(*(values[part] for values in vars(self).values()))


def draw(distortions, n, seed):
    """Distortions drawn for n crystals; seed: an int or several, as numpy.random.default_rng takes them."""
    random = np.random.default_rng(seed)
    shares, keys = random.random((4, n)), random.integers(2**64, size=n, dtype=np.uint64)
    strain, shift = (
        low + (high - low) * share for (low, high), share in zip((distortions.strain, distortions.shift), shares)
    )
    return Drawn(strain, shift, shares[2] < distortions.traded, shares[3] < distortions.replaced, keys)


def distorted(lattices, numbers, frac_coords, offsets, drawn):
    """Cells (n, 3, 3), atomic numbers (N,) and places (N, 3) of n crystals, laid end to end, as Drawn has them."""
    lattices, numbers, frac = lattices.copy(), numbers.copy(), frac_coords.copy()
    for c, (start, end) in enumerate(itertools.pairwise(offsets)):
        random = np.random.default_rng(drawn.keys[c])
        normal = random.standard_normal((3, 3))
        strain = drawn.strain[c] / 100 * (np.tril(normal) + np.tril(normal, -1).T)  # symmetric: no rotation
        lattices[c] = lattices[c] @ (np.eye(3) + strain)
        moves = random.standard_normal((end - start, 3))
        frac[start:end] += drawn.shift[c] * moves @ np.linalg.inv(lattices[c])
        own = numbers[start:end]
        if drawn.trades[c]:
            numbers[start:end] = own = traded(own, random)
        if drawn.replaces[c]:
            numbers[start:end] = replaced(own, random)
    return lattices, numbers, frac


def traded(numbers, random):
    """Atomic numbers (n,) of which two elements of equal amounts have traded places, a likely pair of all such.

    The same where there are none.
    """
    elements, amounts = np.unique(numbers, return_counts=True)
    first, second = np.triu_indices(len(elements), 1)
    weights = (amounts[first] == amounts[second]) * _alike(elements[first], elements[second])
    if not weights.sum() > 0:
        return numbers
    pair = random.choice(len(weights), p=weights / weights.sum())
    one, other = elements[first[pair]], elements[second[pair]]
    return np.where(numbers == one, other, np.where(numbers == other, one, numbers))


def replaced(numbers, random):
    """Atomic numbers (n,) of which one element has become another, a like one; the same where none is like it."""
    elements = np.unique(numbers)
    one = random.choice(elements)
    weights = _alike(one, np.arange(LAST_ELEMENT + 1)) * ~np.isin(np.arange(LAST_ELEMENT + 1), elements)
    if not weights.sum() > 0:
        return numbers
    return np.where(numbers == one, random.choice(LAST_ELEMENT + 1, p=weights / weights.sum()), numbers)


def _alike(first, second):
    """How alike elements are, 0 to 1; those that are in no table of substitutions are like none."""
    known = (np.maximum(first, second) <= LAST_ELEMENT) & (np.minimum(first, second) > 0)
    return np.where(known, likeness()[np.where(known, first, 0), np.where(known, second, 0)], 0.0)
