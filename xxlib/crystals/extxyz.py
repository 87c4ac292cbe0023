"""Extended XYZ -> Crystals: frames as text, one at a time, and a frame -> Crystal by ASE."""

import io

import numpy as np

from xxlib.crystals.crystal import Crystal, RejectedCrystal, check

MAX_FRAME = 10_000_000  # bytes
MAX_LINE = 1_000_000  # bytes


def frames(file):
    """Text (bytes) of each frame of a file opened in binary; None for one of more than MAX_FRAME bytes.

    A frame begins at a line that is a number alone, which no line of an atom is: a frame with a wrong number of atoms
    spoils no other.
    """
    lines, size, n_lines = [], 0, 0
    while line := file.readline(MAX_LINE):
        if line.strip().isdigit() and n_lines != 1:  # line 1 is the comment, whatever is in it
            if n_lines:
                yield None if size > MAX_FRAME else b"".join(lines)
            lines, size, n_lines = [], 0, 0
        if line.strip() or n_lines == 1:
            size, n_lines = size + len(line), n_lines + 1
            if size <= MAX_FRAME:
                lines.append(line)
    if n_lines:
        yield None if size > MAX_FRAME else b"".join(lines)


def crystal_from_extxyz(frame, id):
    """Crystal of the text (bytes) of a frame with Lattice (angstrom, its vectors one after the other) and Properties.

    Raises RejectedCrystal with the reason.
    """
    from ase.io import read

    try:
        lines = frame.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise RejectedCrystal("not a text file (UTF-8)") from error
    if not lines[0].strip().isdecimal():
        raise RejectedCrystal(f"{lines[0].strip()[:60]!r} is no number of atoms: not an extended XYZ file")
    if len(lines) - 2 != int(lines[0]):
        raise RejectedCrystal(f"{lines[0].strip()} atoms are announced, {max(len(lines) - 2, 0)} listed: truncated?")
    if "lattice=" not in lines[1].lower():
        raise RejectedCrystal('no Lattice="..." in the second line: a molecule?')
    try:
        atoms = read(io.StringIO("\n".join(lines)), format="extxyz")
    except Exception as error:  # whatever ASE runs into: XYZError, KeyError, ValueError, IndexError, ...
        why = " ".join(str(error).split())[:200]
        raise RejectedCrystal(f"ASE cannot read it ({type(error).__name__}: {why})") from error
    if not atoms.pbc.all():
        raise RejectedCrystal(f"not periodic in three directions (pbc {' '.join('FT'[int(p)] for p in atoms.pbc)})")
    partial = {"occupancy", "occupancies"} & (set(atoms.arrays) | set(atoms.info))
    if partial:
        raise RejectedCrystal("partial occupancies, which the format does not define")
    lattice = np.array(atoms.cell, np.float64)
    if not np.isfinite(lattice).all() or abs(np.linalg.det(lattice)) < 1e-6:
        raise RejectedCrystal("cell vectors that span no volume")
    frac = np.linalg.solve(lattice.T, atoms.positions.T).T
    return check(Crystal(id, lattice, np.array(atoms.numbers, np.int64), frac, np.ones(len(atoms))))
