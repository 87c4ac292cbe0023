"""Known crystals that explain a pattern: python tests/benchmarks/candidates.py [crystals of the embedded dataset]

Prints as JSON: candidates a second whose lines and scale are computed, whose cell is fitted too, and whose atoms are
refined; and the median time of an answer from a formula, and where nothing is known.
"""

import json
import sys
import time

import numpy as np

from xxlib import PROJECT
from xxlib.candidates import matching, search
from xxlib.candidates.exchange import exchanges
from xxlib.candidates.fingerprints import fingerprints, likeliest
from xxlib.candidates.known import KnownCrystals
from xxlib.candidates.library import stoichiometry
from xxlib.candidates.observed import Observed
from xxlib.candidates.symmetry import free_parameters, packed_groups
from xxlib.datasets.sources.parquet import parquet
from xxlib.diffraction import patterns
from xxlib.diffraction.scattering import sticks
from xxlib.diffraction.wavelengths import CU_KA


def main(n):
    library = KnownCrystals.load().library
    records = list(parquet(PROJECT / "data" / "demo" / "crystals.parquet").records())
    crystals = [record.crystal() for record in records[:: max(1, len(records) // n)]][:n]
    answer(library, crystals[0])  # compiled
    lines, cells, times, counts = [], [], [], []
    for crystal in crystals:
        observed, tried = asked(library, crystal)
        if not len(tried):
            continue
        start = time.perf_counter()
        atoms, _ = search.exchanged(library, tried)
        ranges = search.wavenumbers(search.RANGE)
        hkl, g2, intensity, ends = search.lines_of(atoms, packed_groups(), search.scattering_table(), CU_KA, *ranges)
        matching.scales(observed, g2, intensity, ends)
        lines.append(time.perf_counter() - start)
        free = free_parameters()[library.space_groups[tried.crystals]]
        start = time.perf_counter()
        matching.refine(observed, atoms[0], free, hkl, intensity, ends)
        cells.append(time.perf_counter() - start)
        counts.append(len(tried))
        start = time.perf_counter()
        answer(library, crystal)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    prints = fingerprints(library)
    once = time.perf_counter() - start
    unknown = []
    for crystal in crystals[:10]:
        observed = Observed.of(patterns.render_one(sticks(crystal)))
        start = time.perf_counter()
        search.search(library, observed, likeliest(library, prints, observed, 1500))
        unknown.append(time.perf_counter() - start)
    result = {
        "library": len(library),
        "candidates a second, lines and scale": round(sum(counts) / sum(lines)),
        "candidates a second, cell fitted": round(sum(counts) / (sum(lines) + sum(cells))),
        "answer from a formula, median s": round(float(np.median(times)), 3),
        "fingerprints of the library, once, s": round(once, 2),
        "answer with nothing known, median s": round(float(np.median(unknown)), 3),
    }
    print(json.dumps(result))


def asked(library, crystal):
    """The Observed pattern of a crystal, and the candidates of its formula."""
    observed = Observed.of(patterns.render_one(sticks(crystal)))
    return observed, exchanges(library, *stoichiometry(crystal.atomic_numbers, crystal.occupancies))


def answer(library, crystal):
    observed, tried = asked(library, crystal)
    return search.search(library, observed, tried)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
