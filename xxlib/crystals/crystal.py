"""A crystal as plain arrays, its symmetry, and the checks that refuse what is not a crystal."""

import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

CRYSTAL_SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")
LAST_SPACE_GROUP = (2, 15, 74, 142, 167, 194, 230)  # of each crystal system, International Tables

SYMPREC = 0.1  # angstrom, tolerance of the symmetry search
MAX_ATOMS = 1000
MAX_FILE_BYTES = 5_000_000  # of a file that holds one crystal
MAX_ELEMENT = 98  # the last element with tabulated X-ray scattering factors
CELL_LENGTH = (1.5, 200.0)  # angstrom
CELL_ANGLE = (3.0, 177.0)  # degree; long polytypes of SiC and ZnS have 6 to 10
MAX_VOLUME = 200_000.0  # cubic angstrom; the cells of zeolites and of most metal-organic frameworks are smaller
VOLUME_PER_ATOM = (2.0, 500.0)  # cubic angstrom; dense hydrogen has 2.5, solid caesium 110
MIN_DISTANCE = 0.5  # angstrom; the shortest bond there is, H-H, has 0.74


class RejectedCrystal(ValueError):
    """What was read is not a crystal that a pattern can be computed for; the message says why."""


@dataclass(frozen=True, eq=False)
class Crystal:
    """One cell and what occupies it.

    A mixed site is several atoms at the same place whose occupancies sum to at most 1.
    """

    id: str
    lattice: np.ndarray  # (3, 3) float64, angstrom, rows are the cell vectors a, b, c
    atomic_numbers: np.ndarray  # (n,) int64
    frac_coords: np.ndarray  # (n, 3) float64, in units of the cell vectors
    occupancies: np.ndarray  # (n,) float64, in (0, 1]

    @property
    def volume(self):
        """Volume of the cell in cubic angstrom."""
        return float(abs(np.linalg.det(self.lattice)))


def content_of(path):
    """Content of a file that holds one crystal; raises RejectedCrystal for one that cannot be read or is too large."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device has no end
            raise RejectedCrystal("cannot be read: a folder, pipe or device")
        check_size(status.st_size)
        with open(path, "rb") as file:
            return file.read(MAX_FILE_BYTES + 1)  # it may have grown since
    except OSError as error:
        raise RejectedCrystal(f"cannot be read: {error.strerror}") from error


def check_size(n_bytes):
    """Raise RejectedCrystal for a file of more than MAX_FILE_BYTES."""
    if n_bytes > MAX_FILE_BYTES:
        raise RejectedCrystal(f"too large: {n_bytes / 1e6:.1f} MB, more than {MAX_FILE_BYTES / 1e6:g}")


def lattice_from_cell(a, b, c, alpha, beta, gamma):
    """Cell vectors (3, 3) in angstrom from lengths (angstrom) and angles (degree); a along x, b in the x-y plane."""
    angles = np.radians([alpha, beta, gamma])
    # Exact zeros for right angles: cos(pi/2) is 6e-17, enough to split reflections that coincide.
    cos = np.where(np.array([alpha, beta, gamma]) == 90.0, 0.0, np.cos(angles))
    sin_gamma = np.sin(angles[2])
    y = (cos[0] - cos[1] * cos[2]) / sin_gamma
    z_squared = 1.0 - cos[1] ** 2 - y**2
    if not z_squared > 0:
        raise RejectedCrystal(f"impossible cell angles {alpha:g}, {beta:g}, {gamma:g} degree")
    return np.array([[a, 0, 0], [b * cos[2], b * sin_gamma, 0], [c * cos[1], c * y, c * np.sqrt(z_squared)]])


def cell_from_lattice(lattice):
    """a, b, c (angstrom) and alpha, beta, gamma (degree) of cell vectors (3, 3): (6,)."""
    lengths = np.linalg.norm(lattice, axis=1)
    unit = lattice / lengths[:, None]
    cosines = np.clip([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]], -1, 1)
    return np.concatenate([lengths, np.degrees(np.arccos(cosines))])


def crystal_system(space_group):
    """Name of the crystal system of a space-group number (1-230)."""
    return CRYSTAL_SYSTEMS[int(np.searchsorted(LAST_SPACE_GROUP, space_group))]


def check(crystal):
    """Return the crystal, or raise RejectedCrystal with the first reason why it is none."""
    numbers, frac, occupancies = crystal.atomic_numbers, crystal.frac_coords, crystal.occupancies
    if len(numbers) == 0:
        raise RejectedCrystal("no atoms")
    if len(numbers) > MAX_ATOMS:
        raise RejectedCrystal(f"{len(numbers)} atoms, more than {MAX_ATOMS}")
    if not (np.isfinite(crystal.lattice).all() and np.isfinite(frac).all()):
        raise RejectedCrystal("a cell vector or a coordinate is not a finite number")
    if numbers.min() < 1 or numbers.max() > MAX_ELEMENT:
        odd = numbers[(numbers < 1) | (numbers > MAX_ELEMENT)][0]
        raise RejectedCrystal(f"element Z = {odd} has no tabulated scattering factor (Z = 1 to {MAX_ELEMENT})")
    if not ((occupancies > 0) & (occupancies <= 1 + 1e-6)).all():
        raise RejectedCrystal("an occupancy lies outside (0, 1]")
    check_cell(crystal.lattice)
    volume_per_atom = crystal.volume / occupancies.sum()
    if not VOLUME_PER_ATOM[0] <= volume_per_atom <= VOLUME_PER_ATOM[1]:
        raise RejectedCrystal(
            f"{volume_per_atom:.4g} cubic angstrom per atom, outside {VOLUME_PER_ATOM[0]:g}-{VOLUME_PER_ATOM[1]:g}"
        )
    first, second, distance = overlap(crystal)
    if first >= 0:
        raise RejectedCrystal(
            f"atoms {first + 1} (Z = {numbers[first]}) and {second + 1} (Z = {numbers[second]}) overlap: "
            f"{distance:.3f} angstrom apart, and the occupancies there sum to more than 1"
        )
    return crystal


def check_cell(lattice):
    """Raise RejectedCrystal where the cell vectors (3, 3) in angstrom are not those of a crystal."""
    lengths, angles, volume, height = _shape(lattice)
    if lengths.min() < CELL_LENGTH[0] or lengths.max() > CELL_LENGTH[1]:
        shown = ", ".join(f"{length:.4g}" for length in lengths)
        raise RejectedCrystal(f"cell lengths {shown} angstrom outside {CELL_LENGTH[0]:g}-{CELL_LENGTH[1]:g}")
    if angles.min() < CELL_ANGLE[0] or angles.max() > CELL_ANGLE[1]:
        shown = ", ".join(f"{angle:.4g}" for angle in angles)
        raise RejectedCrystal(f"cell angles {shown} degree outside {CELL_ANGLE[0]:g}-{CELL_ANGLE[1]:g}")
    if volume > MAX_VOLUME:
        raise RejectedCrystal(f"a cell of {volume:.4g} cubic angstrom, more than {MAX_VOLUME:g}")
    if height < 1.0:
        raise RejectedCrystal(f"a flat cell of volume {volume:.4g}: lattice planes {height:.3g} angstrom apart")


@njit(cache=True, error_model="numpy")
def _shape(lattice):
    """Lengths (3,) in angstrom, angles (3,) in degree, volume, least distance of the lattice planes on the faces."""
    lengths, angles, areas = np.empty(3), np.empty(3), np.empty(3)
    volume = 0.0
    for i in range(3):
        u, v = lattice[(i + 1) % 3], lattice[(i + 2) % 3]
        x, y, z = u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]
        areas[i] = np.sqrt(x * x + y * y + z * z)
        angles[i] = np.degrees(np.arctan2(areas[i], u[0] * v[0] + u[1] * v[1] + u[2] * v[2]))
        volume = abs(lattice[i, 0] * x + lattice[i, 1] * y + lattice[i, 2] * z)
        lengths[i] = np.sqrt(lattice[i, 0] ** 2 + lattice[i, 1] ** 2 + lattice[i, 2] ** 2)
    return lengths, angles, volume, volume / areas.max() if volume > 0 else 0.0


def overlap(crystal):
    """The first two atoms closer than MIN_DISTANCE that cannot both be there: (i, j, angstrom), or (-1, -1, inf).

    Atoms that share a site (occupancies summing to at most 1) may be as close as they like.
    """
    return _overlap(crystal.lattice, crystal.frac_coords, crystal.occupancies)


@njit(cache=True, error_model="numpy")
def _overlap(lattice, frac, occupancies):
    n = len(frac)
    distances = np.empty(n)
    for i in range(n):
        # The nearest image is the one with every difference within half a cell vector, because check() refuses cells
        # flatter than 1 angstrom.
        shared = occupancies[i]
        for j in range(n):
            x, y, z = frac[j, 0] - frac[i, 0], frac[j, 1] - frac[i, 1], frac[j, 2] - frac[i, 2]
            x, y, z = x - np.round(x), y - np.round(y), z - np.round(z)
            squares = 0.0
            for k in range(3):
                squares += (x * lattice[0, k] + y * lattice[1, k] + z * lattice[2, k]) ** 2
            distances[j] = np.sqrt(squares)
            if j != i and distances[j] < MIN_DISTANCE / 2:
                shared += occupancies[j]
        for j in range(n):
            # Atoms within half the limit of this one are within the limit of each other: three may be too many, two
            # not.  An atom and its own image are the cell's concern.
            crowded = distances[j] < MIN_DISTANCE / 2 and shared > 1 + 1e-3
            too_close = distances[j] < MIN_DISTANCE and occupancies[i] + occupancies[j] > 1 + 1e-3
            if j != i and (crowded or too_close):
                return i, j, distances[j]
    return -1, -1, np.inf


def space_group(crystal, symprec=SYMPREC):
    """Space-group number (1-230) found by spglib within `symprec` angstrom.

    Atoms that share a site count as one kind of atom.  Raises RejectedCrystal where spglib finds none.
    """
    sites = {}
    for number, frac, occupancy in zip(crystal.atomic_numbers, crystal.frac_coords, crystal.occupancies, strict=True):
        place = tuple(np.round(frac % 1.0, 4) % 1.0)
        shares = sites.setdefault(place, (frac, {}))[1]
        shares[int(number)] = shares.get(int(number), 0.0) + float(occupancy)  # Fe2+ and Fe3+ are both Fe
    kinds = [tuple(sorted((z, round(share, 4)) for z, share in shares.items())) for _, shares in sites.values()]
    kind_ids = {kind: i for i, kind in enumerate(sorted(set(kinds)))}
    frac_coords = [frac for frac, _ in sites.values()]
    return int(symmetry(crystal.lattice, frac_coords, [kind_ids[kind] for kind in kinds], symprec).number)


def symmetry(lattice, frac_coords, kinds, symprec=SYMPREC):
    """spglib's dataset of atoms (n, 3) of some kinds (n,) in a lattice (3, 3); raises RejectedCrystal without one."""
    import spglib

    try:
        dataset = spglib.get_symmetry_dataset((lattice, frac_coords, kinds), symprec=symprec)
    except spglib.SpglibError as error:
        raise RejectedCrystal(f"spglib finds no symmetry: {error}") from error
    if dataset is None:
        raise RejectedCrystal(f"spglib finds no symmetry within {symprec:g} angstrom")
    return dataset
