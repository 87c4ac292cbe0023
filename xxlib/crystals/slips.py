"""What else the same keys could have meant: SiO2 for SIO2, Fe2O3 for Fe203, NaCl for NaCI, and what is abbreviated."""

import re
from itertools import islice, product

from xxlib.crystals.elements import ATOMIC_NUMBERS
from xxlib.crystals.formulas import atoms_of_unit, balanced

MAX_LENGTH = 40  # characters of a formula that is respelt

# No noble gas and nothing short-lived.
ORDINARY = {symbol for symbol, z in ATOMIC_NUMBERS.items() if z <= 83 or symbol in ("Th", "U")}
ORDINARY -= {"He", "Ne", "Ar", "Kr", "Xe", "Tc", "Pm"}
ABBREVIATIONS = {"YBCO": "YBa2Cu3O7", "BSCCO": "Bi2Sr2CaCu2O8", "BFO": "BiFeO3", "KNN": "K0.5Na0.5NbO3",
                 "BBO": "BaB2O4", "KBBF": "KBe2BO3F2", "Ti6Al4V": "Ti0.862Al0.102V0.036",
                 "NdFeB": "Nd2Fe14B", "InGaAs": "In0.5Ga0.5As", "AlGaAs": "Al0.5Ga0.5As", "InGaN": "In0.5Ga0.5N",
                 "AlGaN": "Al0.5Ga0.5N", "CdZnTe": "Cd0.9Zn0.1Te", "HgCdTe": "Hg0.8Cd0.2Te"}  # fmt: skip
# A zero that may be the letter: of Fe203, LiMn204, Ti02 and Na20, not of Na20Cl20 and C60.
ZERO = re.compile(r"(?<=[A-Za-z][2-9])0(?=1?[1-9](?![\d.]))|(?<=[A-Za-z])0(?!\.)|(?<=^[ABD-Z][2-9])0$|(?<=^..[2-9])0$")


def meant_by(text, atoms):
    """Formulas (at most two) that may be meant by one that can be read as `atoms`, or none."""
    if text in ABBREVIATIONS:
        return [ABBREVIATIONS[text]]
    zero = ZERO.search(text)
    chloride = re.fullmatch(r"[A-Z][a-z]?\d*C[1I]\d*", text)
    if not (zero or chloride or re.search("[A-Z]{2}", text)):
        return []
    if balanced(atoms) and not (zero or chloride or text.isupper()):
        return []
    others = []
    for other in respelt(text):
        letters = [pair for pair in zip(text, other) if pair[0].isalpha() and pair[1].isalpha()]
        # A small letter is never a slip for a capital one.
        if all(new.islower() or old.isupper() for old, new in letters) and (
            zero or balanced(atoms_of_unit(other), "icsd_oxidation_states")
        ):
            others.append(other)
    return others[:2]


def respelt(text):
    """Formulas of ordinary elements that the same keys could have meant, the likeliest first."""
    if len(text) > MAX_LENGTH:
        return []
    ranked = {}
    for typed in (text, ZERO.sub("O", text), re.sub("(?<=[CA])[1I]", "l", text)):
        pieces = re.findall("[A-Za-z]+|[^A-Za-z]+", typed)
        runs = [_segmented(piece) if piece.isalpha() else [piece] for piece in pieces]
        for spelling in islice(product(*runs), 500):
            other = "".join(spelling)
            try:
                atoms = atoms_of_unit(other)
            except ValueError:
                continue
            if set(atoms) <= ORDINARY and other != text:
                ranked[other] = (not balanced(atoms), len(re.findall("[A-Z]", other)), other.swapcase())
    return sorted(ranked, key=ranked.get)


def _segmented(letters):
    """The ways to read letters, of whatever case, as symbols of ordinary elements; two-letter symbols first."""
    ways = [[""]]  # of the first i letters
    for i in range(1, len(letters) + 1):
        ends = [(n, letters[i - n : i].capitalize()) for n in (2, 1) if i >= n]
        ways.append([way + symbol for n, symbol in ends if symbol in ORDINARY for way in ways[i - n]][:30])
    return ways[-1]
