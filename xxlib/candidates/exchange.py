"""Which elements stand for which: from crystals of a stoichiometry to candidates for a formula."""

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from xxlib.crystals.crystal import MAX_ELEMENT
from xxlib.crystals.elements import MAX_Z

MOST_PERMUTATIONS = 720  # of elements of equal amounts: six of them


@dataclass(frozen=True, eq=False)
class Exchanges:
    """Crystals of a library with elements exchanged, the likeliest first."""

    crystals: np.ndarray  # (k,) places in the library
    before: np.ndarray  # (k, E) the crystal's elements, in the order of the amounts
    after: np.ndarray  # (k, E) what stands in place of each
    costs: np.ndarray  # (k,) chemical distance; 0 = nothing is exchanged

    def __len__(self):
        return len(self.crystals)


def joined(parts):
    """Several Exchanges as one; fewer elements are filled up with 0."""
    width = max((part.before.shape[1] for part in parts), default=0)
    wider = [[np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (part.before, part.after)] for part in parts]
    none = np.zeros((0, width), np.int64)
    return Exchanges(
        np.concatenate([np.zeros(0, np.int64), *(part.crystals for part in parts)]),
        np.concatenate([none, *(before for before, _ in wider)]),
        np.concatenate([none, *(after for _, after in wider)]),
        np.concatenate([np.zeros(0), *(part.costs for part in parts)]),
    )


def unchanged(library, crystals):
    """The Exchanges of some crystals (k,) of a library whose elements stay as they are."""
    elements = library.elements_of(crystals)
    return Exchanges(crystals, elements, elements, np.zeros(len(crystals)))


@lru_cache(maxsize=1)
def distances():
    """How unlike two elements are, by atomic number: (119, 119).

    Differences of Mendeleev number / 15, of electronegativity (Pauling) x 1.5 and of radius (angstrom) x 1.5, added up;
    what is not known of an element is taken for the mean.
    """
    from pymatgen.core import Element

    table = np.full((MAX_Z + 1, 3), np.nan)
    for z in range(1, MAX_ELEMENT + 1):
        element = Element.from_Z(z)
        electronegativity = element.data.get("X")
        radius = float(element.atomic_radius) if element.atomic_radius else np.nan
        table[z] = element.mendeleev_no / 15, 1.5 * (electronegativity or np.nan), 1.5 * radius
    table = np.where(np.isfinite(table), table, np.nanmean(table, 0))
    return np.abs(table[:, None] - table).sum(-1)


def exchanges(library, amounts, elements, most=2000, maps=2, spread=0.4, hidden=None):
    """The Exchanges of a composition, as stoichiometry() gives it: at most `most`.

    maps: ways to exchange the elements of one crystal.  spread: cost that every further crystal of the same structure
    type adds, so that types are tried before members.  hidden: (n,) bool, crystals of the library that are not seen.
    """
    crystals, before = library.of_amounts(amounts)
    if hidden is not None:
        crystals, before = crystals[~hidden[crystals]], before[~hidden[crystals]]
    if not len(crystals):
        none = np.zeros((0, len(amounts)), np.int64)
        return Exchanges(crystals, none, none, np.zeros(0))
    own = np.array(elements)
    equal = [[i for i, amount in enumerate(amounts) if amount == value] for value in dict.fromkeys(amounts)]
    choices = itertools.islice(itertools.product(*map(itertools.permutations, equal)), MOST_PERMUTATIONS)
    orders = np.array([[place for group in choice for place in group] for choice in choices])  # (P, E)
    costs = distances()[before, own[orders][:, None]].sum(-1)  # (P, n)
    best = np.argsort(costs, 0, kind="stable")[:maps]  # (maps, n)
    cost, way = np.take_along_axis(costs, best, 0).ravel(), best.ravel()
    place = np.tile(np.arange(len(crystals)), len(best))
    # How many of its type, exchanged in the same way, are cheaper.
    kind = np.unique(np.stack([library.types[crystals[place]], way]), axis=1, return_inverse=True)[1]
    order = np.lexsort((cost, kind))
    first = np.searchsorted(kind[order], kind[order])
    cheaper = np.empty(len(order))
    cheaper[order] = np.arange(len(order)) - first
    chosen = np.argsort(cost + spread * cheaper, kind="stable")[:most]
    return Exchanges(crystals[place[chosen]], before[place[chosen]], own[orders[way[chosen]]], cost[chosen])
