"""Which atoms stand around each atom of a crystal, over all periodic images, and how far away."""

from typing import NamedTuple

import numpy as np
from numba import njit

from xxlib.crystals.crystal import MIN_DISTANCE, RejectedCrystal
from xxlib.crystals.elements import symbol

N_NEAREST = 12  # of each atom, as in CGCNN
RADIUS = 8.0  # angstrom, and none further away
SAME_SHELL = 0.01  # angstrom: neighbours as near as this to each other are taken together, or left out together
CROWDED = MIN_DISTANCE / 2  # angstrom: two atoms on one site
FIRST_GUESS = 1.3  # of the radius of the sphere that holds as many atoms on average: it rarely has to grow


class Neighbours(NamedTuple):
    """The neighbours of the atoms of several crystals, laid end to end; an edge an image of an atom."""

    centres: np.ndarray  # (M,) int64, places of atoms, increasing
    others: np.ndarray  # (M,) int64, the atom whose image stands next to it
    distances: np.ndarray  # (M,) float32, angstrom, increasing within a centre
    nearest: np.ndarray  # (N,) float64, angstrom, of each atom; infinite where there is none


def neighbours(lattices, frac_coords, offsets, n_nearest=N_NEAREST):
    """Neighbours of crystals: of each atom the 12 nearest within 8 angstrom, and all that are as far as the twelfth.

    Whole shells, because of several equally far the order of rounding would choose: so that neither the choice of the
    cell nor its orientation decides.
    lattices: (n, 3, 3), angstrom.  frac_coords: (N, 3) of all crystals, laid end to end.  offsets: (n + 1,).
    n_nearest: how many they are, where not 12.
    """
    parts = [np.ascontiguousarray(values, dtype) for values, dtype in zip((lattices, frac_coords), (float, float))]
    return Neighbours(*_of_all(*parts, np.asarray(offsets, np.int64), n_nearest))


def of_atoms(which, offsets):
    """The crystals (k,) that have one of some atoms; which: (N,) bool of the atoms of all, laid end to end."""
    return np.unique(np.searchsorted(offsets, np.flatnonzero(which), side="right") - 1)


def check_nearest(numbers, nearest):
    """Raise RejectedCrystal for a crystal's atoms (n,) of which one shares its site or stands alone.

    nearest: (n,), as Neighbours has it.
    """
    for number, (z, distance) in enumerate(zip(numbers, nearest), start=1):
        if distance < CROWDED:
            raise RejectedCrystal(
                f"atom {number} ({symbol(z)}) shares its site, another atom is {distance:.2g} angstrom away: a crystal "
                "graph needs one element a site"
            )
        if np.isinf(distance):
            raise RejectedCrystal(f"atom {number} ({symbol(z)}) has no neighbour within {RADIUS:g} angstrom")


@njit(cache=True, nogil=True, error_model="numpy")
def _of_all(lattices, frac, offsets, n_nearest):
    room = 2 * n_nearest * len(frac)
    centres, others = np.empty(room, np.int64), np.empty(room, np.int64)
    distances, nearest, n_edges = np.empty(room, np.float32), np.full(len(frac), np.inf), 0
    for c in range(len(lattices)):
        start, end = offsets[c], offsets[c + 1]
        n = end - start
        if n == 0:
            continue
        lattice, within = lattices[c], frac[start:end]
        heights, volume = _heights(lattice)
        guess = FIRST_GUESS * (3 * (n_nearest + 1) * volume / (4 * np.pi * n)) ** (1 / 3)
        for i in range(n):
            reach = min(guess, RADIUS)
            places, squares = _images(i, within, lattice, heights, reach)
            while reach < RADIUS and not _holds_the_last_shell(squares, reach, n_nearest):
                reach = min(1.3 * reach, RADIUS)
                places, squares = _images(i, within, lattice, heights, reach)
            order = np.argsort(squares)
            if len(order):
                nearest[start + i] = np.sqrt(squares[order[0]])
                last = np.sqrt(squares[order[min(n_nearest, len(order)) - 1]]) + SAME_SHELL
            while n_edges + len(order) > len(centres):
                centres, others = np.append(centres, np.empty_like(centres)), np.append(others, np.empty_like(others))
                distances = np.append(distances, np.empty_like(distances))
            for k in order:
                distance = np.sqrt(squares[k])
                if distance > last:
                    break
                centres[n_edges], others[n_edges], distances[n_edges] = start + i, start + places[k], distance
                n_edges += 1
    return centres[:n_edges].copy(), others[:n_edges].copy(), distances[:n_edges].copy(), nearest


@njit(cache=True, nogil=True, error_model="numpy")
def _holds_the_last_shell(squares, reach, n_nearest):
    """Whether the n nearest of these squared distances, and all as far as the last, lie within the reach."""
    n = (squares <= max(0.0, reach - SAME_SHELL) ** 2).sum()
    return n >= n_nearest


@njit(cache=True, nogil=True, error_model="numpy")
def _heights(lattice):
    """Distances (3,) between the lattice planes on the faces of a cell, and its volume."""
    heights = np.empty(3)
    volume = abs(np.dot(np.cross(lattice[0], lattice[1]), lattice[2]))
    for i in range(3):
        normal = np.cross(lattice[(i + 1) % 3], lattice[(i + 2) % 3])
        heights[i] = volume / np.sqrt((normal * normal).sum())
    return heights, volume


@njit(cache=True, nogil=True, error_model="numpy")
def _images(i, frac, lattice, heights, reach):
    """Atoms, and squared distances, of all images within `reach` of atom i, itself left out."""
    room = 64
    places, squares, found = np.empty(room, np.int64), np.empty(room), 0
    limits, limit = reach / heights, reach * reach
    for j in range(len(frac)):
        x, y, z = frac[j, 0] - frac[i, 0], frac[j, 1] - frac[i, 1], frac[j, 2] - frac[i, 2]
        for a in range(int(np.ceil(-limits[0] - x)), int(np.floor(limits[0] - x)) + 1):
            for b in range(int(np.ceil(-limits[1] - y)), int(np.floor(limits[1] - y)) + 1):
                for c in range(int(np.ceil(-limits[2] - z)), int(np.floor(limits[2] - z)) + 1):
                    square = 0.0
                    for k in range(3):
                        square += ((x + a) * lattice[0, k] + (y + b) * lattice[1, k] + (z + c) * lattice[2, k]) ** 2
                    if square > limit or (i == j and a == 0 and b == 0 and c == 0):
                        continue
                    if found == room:
                        places, squares = np.append(places, np.empty_like(places)), np.append(squares, squares)
                        room *= 2
                    places[found], squares[found] = j, square
                    found += 1
    return places[:found], squares[:found]
