"""Crystal -> its standard cell and asymmetric unit: what a library keeps of it."""

from dataclasses import dataclass

import numpy as np

from xxlib.candidates.symmetry import space_group, standard_halls
from xxlib.crystals.crystal import SYMPREC, cell_from_lattice, symmetry


@dataclass(frozen=True, eq=False)
class StandardCrystal:
    """A crystal in the standard setting of its space group (spglib's), by its asymmetric unit."""

    number: int  # of the space group
    cell: np.ndarray  # (6,) a, b, c (angstrom), alpha, beta, gamma (degree)
    atomic_numbers: np.ndarray  # (a,)
    frac_coords: np.ndarray  # (a, 3)
    multiplicities: np.ndarray  # (a,) of each in the standard cell
    wyckoffs: str  # a letter an atom


def standardised(crystal, symprec=SYMPREC):
    """The StandardCrystal of a Crystal without shared sites; raises RejectedCrystal where spglib finds no symmetry."""
    dataset = symmetry(crystal.lattice, crystal.frac_coords, crystal.atomic_numbers, symprec)
    letter = dict(zip(dataset.mapping_to_primitive.tolist(), dataset.wyckoffs))
    group = space_group(int(standard_halls()[dataset.number]))
    lattice, frac, numbers = dataset.std_lattice, dataset.std_positions, dataset.std_types
    left, chosen, count = np.ones(len(numbers), bool), [], []
    while left.any():
        atom = int(left.argmax())
        chosen.append(atom)
        images = np.einsum("gij,j->gi", group.rotations, frac[atom]) + group.translations
        images = (images[:, None] + group.centrings).reshape(-1, 3)
        apart = images[:, None] - frac[left]
        apart = np.linalg.norm((apart - np.round(apart)) @ lattice, axis=-1).min(0)
        here = (apart < 2 * symprec + 1e-3) & (numbers[left] == numbers[atom])
        images = np.flatnonzero(left)[here]
        left[images] = left[atom] = False
        count.append(len(images))
    return StandardCrystal(
        number=int(dataset.number),
        cell=cell_from_lattice(lattice),
        atomic_numbers=numbers[chosen].astype(np.int64),
        frac_coords=frac[chosen] % 1.0,
        multiplicities=np.array(count),
        wyckoffs="".join(letter[int(dataset.std_mapping_to_primitive[atom])] for atom in chosen),
    )


def reciprocal(cell):
    """Of cells (..., 6) the reciprocal metric (..., 6): hh, kk, ll, kl, hl, hk of 1/d^2 in angstrom^-2."""
    cell = np.asarray(cell, float)
    a, b, c = (cell[..., i] for i in range(3))
    cos = np.where(cell[..., 3:] == 90.0, 0.0, np.cos(np.radians(cell[..., 3:])))
    ca, cb, cg = (cos[..., i] for i in range(3))
    direct = np.stack([a * a, a * b * cg, a * c * cb, a * b * cg, b * b, b * c * ca, a * c * cb, b * c * ca, c * c], -1)
    inverse = np.linalg.inv(direct.reshape(*cell.shape[:-1], 3, 3))
    pairs = ((0, 0, 1), (1, 1, 1), (2, 2, 1), (1, 2, 2), (0, 2, 2), (0, 1, 2))
    return np.stack([times * inverse[..., i, j] for i, j, times in pairs], -1)


def cell_of(metric):
    """Of a reciprocal metric (6,) the cell (6,): a, b, c (angstrom), alpha, beta, gamma (degree)."""
    aa, bb, cc, bc, ac, ab = np.asarray(metric) / (1, 1, 1, 2, 2, 2)
    direct = np.linalg.inv([[aa, ab, ac], [ab, bb, bc], [ac, bc, cc]])
    lengths = np.sqrt(np.diag(direct))
    cosines = [direct[i, j] / (lengths[i] * lengths[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return np.concatenate([lengths, np.where(np.abs(cosines) < 1e-9, 90.0, angles)])
