"""A VASP structure (POSCAR, CONTCAR) -> Crystal.

pymatgen parses the file, but guesses where elements are missing: what the file says is checked before.
"""

import warnings

from xxlib.crystals.crystal import MAX_ATOMS, RejectedCrystal, check_size, content_of
from xxlib.crystals.elements import ATOMIC_NUMBERS
from xxlib.crystals.structures import crystal_from_structure


def crystal_from_poscar(path, id):
    """Crystal of a POSCAR file with a line of elements (VASP 5 and later), its cell as written.

    Raises RejectedCrystal with the reason for a file that cannot be read.
    """
    from pymatgen.io.vasp import Poscar

    text = _text(path)
    _check_header(text.splitlines())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = Poscar.from_str(text, read_velocities=False).structure
    except Exception as error:  # whatever pymatgen runs into: ValueError, IndexError, ...
        why = " ".join(str(error).split())[:200]
        raise RejectedCrystal(f"pymatgen cannot read it: truncated? ({type(error).__name__}: {why})") from error
    return crystal_from_structure(structure, id)


def _text(path):
    content = content_of(path)
    check_size(len(content))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RejectedCrystal("not a text file (UTF-8)") from error


def _check_header(lines):
    """Raise RejectedCrystal unless lines 6 and 7 are elements and how many atoms there are of each."""
    if not any(lines):
        raise RejectedCrystal("an empty file")
    if len(lines) < 9:
        raise RejectedCrystal(f"{len(lines)} lines are no POSCAR: truncated?")
    symbols = [word.split("_")[0].split("/")[0] for word in lines[5].split()]  # "Fe_pv", "Fe/1a2b3c4d"
    if all(symbol.isdecimal() for symbol in symbols):
        raise RejectedCrystal("no line of elements (VASP 4): write it before the numbers of atoms")
    for symbol in symbols:
        if symbol not in ATOMIC_NUMBERS:
            raise RejectedCrystal(f"{symbol!r} in line 6 is no element")
    counts = lines[6].split()
    if not all(count.isdecimal() for count in counts) or len(counts) != len(symbols):
        raise RejectedCrystal(f"line 7 is {lines[6][:80]!r}, not the number of atoms of {' '.join(symbols)}"[:200])
    n_atoms = sum(map(int, counts))
    if n_atoms > MAX_ATOMS:
        raise RejectedCrystal(f"{n_atoms} atoms, more than {MAX_ATOMS}")
