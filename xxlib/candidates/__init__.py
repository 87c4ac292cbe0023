"""Which known crystal is it?  Crystals of a library, with elements exchanged and cells refined, against a pattern.

Question: without any network, how often do the crystal system and the space group of the best candidate hold, when no
crystal of the sample's formula is in the library?

    library.library_of(crystals)                   known crystals, standardised; save() and Library.open() on disk
    search.search(library, pattern, numbers, amounts)   candidates for a pattern of 5-90 degree, the best first

The method: crystals of the same amounts, elements exchanged, cells scaled by the volumes of the elements; the scale by
cross-correlation of the square roots of lines on an axis of ln q; the cell in the parameters that symmetry leaves free;
the cosine of the square roots of both patterns.  Begun, not finished: there is no probability of a candidate yet, and
nothing of it is in xxlib.
"""
