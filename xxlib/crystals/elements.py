"""Chemical elements: symbol <-> atomic number."""

import re

from xxlib.crystals.crystal import RejectedCrystal

SYMBOLS = tuple(
    re.findall(
        "[A-Z][a-z]?",
        """
        H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
        Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu
        Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr
        Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
        """,
    )
)
MAX_Z = len(SYMBOLS)
ATOMIC_NUMBERS = {symbol: z for z, symbol in enumerate(SYMBOLS, start=1)}
ISOTOPES = ("D", "T")  # pymatgen takes them for elements whose symbol is H


def symbol(z):
    """Symbol of an atomic number, 1 to 118."""
    if not 1 <= z <= MAX_Z:
        raise ValueError(f"no element has the atomic number {z}")
    return SYMBOLS[int(z) - 1]


def atomic_number(symbol):
    """Atomic number of an element's symbol; raises RejectedCrystal for what is none, and for D and T."""
    if symbol in ISOTOPES:
        raise RejectedCrystal(f"isotope {symbol}: write H if its chemistry is meant")
    if symbol not in ATOMIC_NUMBERS:
        raise RejectedCrystal(f"{symbol!r} is no element")
    return ATOMIC_NUMBERS[symbol]
