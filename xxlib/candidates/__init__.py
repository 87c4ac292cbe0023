"""Which known crystal is it?  Crystals of a library, with elements exchanged and refined, against a pattern.

    known.KnownCrystals.load().explain(sample)     an explanation.Explanation: candidates, and how probable each is
    search.search(library, observed, exchanges)    search.Matches: the same before probabilities

The method: crystals of the same amounts, elements exchanged, cells scaled by the volumes of the elements; the scale by
cross-correlation of the square roots of lines on an axis of ln q; the cell in the parameters that symmetry leaves free;
cell and atoms against the whole pattern; the space group of what was refined; a conditional logit over what fits.
"""
