"""A formula as chemists write it -> the atoms of each element in it.

One phase of known amounts is read: brackets, decimals, fractions, hydrates and oxides joined by dots, subscripts,
LaTeX, oxidation states, vacancies.  What leaves an amount open (x, commas), joins two phases (@, -, /) or is an ion is
refused by the mark that is in the way.
"""

import re
import unicodedata
from functools import cache

from xxlib.crystals.elements import ATOMIC_NUMBERS, atomic_number

GUESTS = "H2O H2O2 NH3 N2H4 CO2 SO2 HF HCl HBr HNO3 H2SO4 CH3OH C2H5OH CH3CN CH3COOH CO(NH2)2 C4H8O C3H7NO C5H5N"

SIGNS = str.maketrans({"−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "⁄": "/", "∕": "/", "×": "·", "*": "·"}
                      | dict.fromkeys("•∙⋅‧・●", "·") | dict.fromkeys("◻☐▢⬜", "□")
                      | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff"))  # fmt: skip
MARKUP = re.compile(r"</?(?:sub|inf)>|\$|\\(?:mathrm|text|mathit|mathbf|rm|ce|[,;! ])")
PHASE = re.compile(
    r"^(?:[α-ωΑ-Ω]['′]*[-\s]*|\\?(?:alpha|beta|gamma|delta|epsilon|eta|theta|kappa|chi)[-\s]+"
    r"|\d{1,2}[CHRTMO][a-d]?'?-|(?:[tmchorwnpg]|Td)-)(?=[A-Z(\[])"
)  # of a polymorph, polytype or doping: α-, alpha-, 4H-, t-, n-
CHARGE = re.compile(r"\^(?:\{(?:[1-9]?[+-]|[+-][1-9]?)\}|[1-9]?[+-])")
STATE = re.compile(r"(?<=[A-Za-z])\((?:I{2,3}|IV|VI{1,3}|[1-8][+-]|[+-][1-8])\)|(?<=\d)\((?:I{2,3}|IV|VI{1,3})\)(?!\d)")
NUMBER = re.compile(r"((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?:/(\d+))?")
SYMBOL = re.compile(r"[A-Z][a-z]?")


def parts_of(formula):
    """Plain formulas that a formula joins by dots: ["Na2O", "2SiO2"], ["LaMnO3"].  Raises ValueError."""
    return _parts(_plain(formula))


def _plain(formula):
    """The formula in ASCII and "·", without markup, phase, charges, oxidation states, vacancies and blanks."""
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda run: "^{" + unicodedata.normalize("NFKC", run[0]) + "}", formula)
    if re.search("[0-9₀-₉][¼-¾⅐-⅞]", text):
        raise ValueError("a number before a fraction: write 1.5, not 1½")
    text = unicodedata.normalize("NFKC", text.translate(SIGNS)).translate(SIGNS).strip()
    text = MARKUP.sub("", re.sub(r"<sup>(.*?)</sup>", r"^{\1}", text).replace(r"\cdot", "·"))
    text = re.sub(r"_(?:\{([^{}]*)\}|(?=[\d.]))", r"\1", text)
    text = re.sub(r"\s+\.\s*|\s*\.\s+(?!$)|\s+x\s+(?=[\dA-Z(])", "·", text).removesuffix(".")
    text = re.sub(r"\((?:s|cr)\)$", "", re.sub(r"\s*·\s*", "·", PHASE.sub("", text)))
    charges = CHARGE.findall(text)
    if len(charges) == 1 and text.endswith(charges[0]) and not re.search("[:@/|,]", text):
        raise ValueError("an ion with a charge: give the neutral compound")
    text = STATE.sub("", CHARGE.sub("", text))
    text = re.sub(r"(?:□|\[\s*\])\s*(?:\d+\.?\d*|\.\d+)?(?:/\d+)?", "", text)
    text = re.sub(r"(\.\d+)\(\d+\)", r"\1", text)  # O6.93(2): the uncertainty
    _check_marks(re.sub(r"(?<=\d)e[+-]?\d+", "", text))  # 3.7e-05 is a number
    return re.sub(r"\s+", "", re.sub(r"(?<=[\d)\]}]),\s*(?=[A-Z])", "", text))


# What leaves an amount open, joins two phases, is an ion or an abbreviation, and why it cannot be read.
MARKS = [
    (r"^(?:a|am|amorphous)-(?=[A-Z])", "may be amorphous, which has no lines, or α: leave it out if it is a crystal"),
    (r"\((?:aq|l|g)\)$", "is a solution, a liquid or a gas, which has no lines"),
    (r"^[^A-Z]*[a-z][^A-Z]*$", "has no capital letter, with which the symbol of an element begins"),
    (r"(?<=[A-Za-z\d])\([IV]\)", "may be an oxidation state or an element: leave the state out"),
    (r"\^", "raises a number that may be an isotope, a charge or an amount: write amounts plainly"),
    (r"\((?:O?Ac|OPr)\)", "means actinium or praseodymium: write acetate as CH3COO, propoxide as C3H7O"),
    (r"[\d.]\s+[\d.]", "are two numbers side by side: write a hydrate as CuSO4·5H2O"),
    (r"(?<![A-Za-z])[A-Z]?[a-z]{3,}", "is a word, no element: leave it out"),
    (r"(?:\d\s*)?[-+±~]\s*[a-zα-ωΔ]", "leaves an amount open: write a number"),
    (r"(?<![A-Za-zα-ω])[a-zα-ωΔ](?![a-z])", "leaves an amount open: write a number"),
    (r"\d+,\d+", "has a comma for a decimal point"),
    ("@", "joins two phases (core and shell): give the formula of one"),
    (r"[|&;]|(?<=[A-Za-z\d)\]])/(?!\d)|(?<=[A-Za-z)\]])/", "joins two phases: give the formula of one"),
    (":", "before a dopant gives no amount: write it as in Y1.9Eu0.1O3"),
    ("%", "is a share by weight or by atoms: write amounts of atoms"),
    (r"[-+]$", "is a charge: give the neutral compound without it"),
    (r"[-+]", "is a charge (leave it out) or joins compounds (write one phase, as (BaTiO3)0.9(CaTiO3)0.1)"),
    (r"[^A-Za-z\d.,/()\[\]{}·\s]", "belongs to no formula"),
]


def _check_marks(text):
    for pattern, reason in MARKS:
        mark = re.search(pattern, text)
        if mark:
            odd = len(mark[0]) == 1 and not mark[0].isascii()
            name = f" ({unicodedata.name(mark[0], 'no character').lower()})" if odd else ""
            raise ValueError(f"{mark[0].strip()!r}{name} {reason}")
    for listed in re.finditer(r"[^()\[\]]*,[^()\[\]]*", text):
        if not all(re.search(r"(?:\.\d+|\d/\d+)\s*$", item) for item in listed[0].split(",")):
            raise ValueError(f"how much there is of each of {listed[0].strip()} is not written: give each an amount")


def _parts(text):
    """Formulas, each with the number of times it is taken, that are joined by "·", or by a dot that is no decimal."""
    if re.search(r"(?<!\d)0·\d", text):  # the raised decimal point of British journals
        text = re.sub(r"(?<=\d)·(?=\d)", ".", text)
    parts, start, depth = [], 0, 0
    for i, mark in enumerate(text):
        depth += (mark in "([{") - (mark in ")]}")
        if mark == "·" or (mark == "." and depth == 0 and _joins(text[start:i], text[i + 1 :])):
            parts.append(text[start:i])
            start = i + 1
        elif mark == "/" and depth == 0 and _joins(text[start:i], text[i + 1 :], "/"):
            raise ValueError("'/' may join two phases: give the formula of one, or write the amount as a decimal")
    return [*parts, text[start:]]


def _joins(left, right, mark="."):
    """Whether a mark between digits joins two compounds (Na2O.2SiO2) and is not that of a number (Na2O0.2SiO2).

    Raises ValueError where it may be both.
    """
    times, rest = re.match(r"(\d*(?:/\d+)?)(.*)", right).groups()
    before = re.search(r"\d*$", left)[0]
    if mark == "." and (not times or re.match(r"\.\d", rest)):  # FeO.Fe2O3, CaSO4.0.5H2O
        return not re.search(r"\.\d*$|^\d*$", left)
    if re.search(r"\.\d*$", left) or re.match(r"\d*$", left) or not re.match(r"[A-Z(\[{]", rest):
        return False  # 0.5 of CaSO4.0.5H2O; 0.5 before a compound; YBa2Cu3O6.93
    compounds = []
    for piece in (left, re.split(r"[.·/]", rest)[0]):
        try:
            compounds.append(atoms_of_unit(piece))
        except ValueError:
            return False
    shared = set(compounds[0]) & set(compounds[1])
    decimals = bool(re.search(r"(?<![\d.])[01]\.\d", left + " " + rest)) or (before.lstrip("0") in ("", "1") and before)
    guest = compounds[1] in _guests()
    if len(compounds[0]) < 2 or not (shared or guest) or (decimals and not guest):
        return False
    one = re.search(r"[.·/]", right) is None and not guest and balanced(atoms_of_unit(left + mark + right))
    neutral = all(map(balanced, compounds)) and not one
    if decimals or not (neutral or guest):
        raise ValueError(f"{before + mark + times!r} may be a number or join two compounds: write CuSO4(H2O)5")
    return True


@cache
def _guests():
    return [atoms_of_unit(name) for name in GUESTS.split()]


def atoms_of_unit(text):
    """Atoms by symbol of a formula without joining dots, times the number before it; raises ValueError."""
    times = NUMBER.match(text)
    stack, opened, i = [{}], [], times.end() if times else 0
    while i < len(text):
        symbol = SYMBOL.match(text, i)
        if symbol:
            name = symbol[0] if symbol[0] in ATOMIC_NUMBERS else symbol[0][0]
            atomic_number(name)
            atoms, i = {name: 1.0}, i + len(name)
        elif text[i] in "([{":
            stack.append({})
            opened.append(text[i])
            i += 1
            continue
        elif text[i] in ")]}" and opened and opened.pop() + text[i] in ("()", "[]", "{}") and stack[-1]:
            atoms, i = stack.pop(), i + 1
        elif text[i].islower():
            raise ValueError(f"{text[i]!r} leaves an amount open or is no element: write a number")
        else:
            raise ValueError(f"{text[i : i + 20]!r} cannot be understood")
        number = NUMBER.match(text, i)
        factor, i = (_amount(number), number.end()) if number else (1.0, i)
        for name, n in atoms.items():
            stack[-1][name] = stack[-1].get(name, 0.0) + n * factor
    if opened:
        raise ValueError(f"{opened[-1]!r} is never closed")
    if not stack[0]:
        raise ValueError("it holds no atoms")
    return {name: n * (_amount(times) if times else 1.0) for name, n in stack[0].items()}


def _amount(number):
    """Of a match of NUMBER: a decimal, or a fraction of whole numbers."""
    value = float(number[1])
    if number[2]:
        value = value / float(number[2]) if number[1].isdigit() and float(number[2]) else 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{number[0]!r} is an amount of zero or none that is a number")
    if re.match(r"0\d", number[0]):
        raise ValueError(f"{number[0]!r} is an amount that begins with a zero")
    return value


def balanced(atoms, states="common_oxidation_states"):
    """Whether oxidation states that the elements often have, one for each, sum to zero.  states: a name of pymatgen."""
    from pymatgen.core import Element

    sums = {0.0}
    for symbol, amount in atoms.items():
        sums = {round(total + amount * state, 3) for total in sums for state in getattr(Element(symbol), states)}
        if len(sums) > 10_000:
            return False
    return len(atoms) > 1 and any(abs(total) < 0.01 for total in sums)
