"""A composition in decimals -> the least whole amounts that a library is asked for."""

import numpy as np

from xxlib.candidates.exchange import distances
from xxlib.candidates.library import stoichiometry
from xxlib.crystals.compositions import reduced_formula

EXACT = 0.02  # of an atom: whole amounts that close are the composition itself
MOST_ATOMS = 120  # of a formula unit whose amounts are taken as exact
NEAREST, MOST_NEAREST = 24, 3  # atoms of a formula unit that decimals are rounded to; how many of these are tried
FAR = 0.06  # of a fraction: amounts farther away are not tried
DOPANT = 0.05  # fraction below which an element may stand in place of another


def whole_amounts(element_ids, fractions):
    """Stoichiometries (amounts, elements, note) of a composition, as library.stoichiometry() gives them.

    note: "" where it is the composition itself; otherwise a sentence that says what it is searched as.
    """
    element_ids, fractions = np.asarray(element_ids, int), np.asarray(fractions, float)
    exact = next(
        (total for total in range(len(fractions), MOST_ATOMS + 1) if _off(fractions, total) < EXACT / total), 0
    )
    out = [(*stoichiometry(element_ids, np.round(fractions * exact)), "")] if exact else []
    if 0 < exact <= NEAREST:
        return out
    asked, seen = reduced_formula(element_ids, fractions), {one[:2] for one in out}
    how = "is also searched as" if exact else "has no whole amounts and is searched as"
    for elements, shares in (_without_dopants(element_ids, fractions), (element_ids, fractions)):
        totals = range(max(1, len(shares)), NEAREST + 1) if len(elements) else ()
        near = [
            (_off(shares, total) + FAR / 2 * total / NEAREST, total) for total in totals if _off(shares, total) < FAR
        ]
        for _, total in sorted(near):
            amounts, own = stoichiometry(elements, np.round(shares * total))
            if (amounts, own) not in seen and len(seen) < MOST_NEAREST:
                seen.add((amounts, own))
                name = reduced_formula(np.array(own), np.array(amounts) / sum(amounts))
                out.append((amounts, own, f"{asked} {how} {name}."))
    return out


def _off(fractions, total):
    """By how much the fractions of `total` atoms, rounded to whole ones, are off; infinity where one is 0."""
    amounts = np.round(fractions * total)
    return np.abs(amounts / amounts.sum() - fractions).max() if (amounts > 0).all() else np.inf


def _without_dopants(element_ids, fractions):
    """The composition with each element of less than DOPANT in place of the most similar other; empty where none is."""
    shares = fractions.copy()
    few = fractions < DOPANT
    if not few.any() or few.all():
        return element_ids[:0], fractions[:0]
    for k in np.flatnonzero(few):
        others = np.flatnonzero(~few)
        shares[others[distances()[element_ids[k], element_ids[others]].argmin()]] += shares[k]
    return element_ids[~few], shares[~few]
