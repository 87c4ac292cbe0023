"""The structures of a dataset as models read them: cells, atoms and their neighbours; and in words."""

import numpy as np

from xxlib.crystals.crystal import RejectedCrystal, check_cell, lattice_from_cell
from xxlib.crystals.descriptions import words
from xxlib.crystals.distortions import distorted
from xxlib.crystals.neighbours import CROWDED, RADIUS, check_nearest, neighbours, of_atoms
from xxlib.datasets.store import DatasetError


def has_structure(dataset, rows):
    """Which of some rows (B,) have a structure for a graph: not those with sites of several elements, nor those with an
    atom that has no neighbour within RADIUS, as a molecule of one atom in a box."""
    has = (dataset.lengths("atom_ids", rows) > 0) & (dataset.lengths("occupancies", rows) == 0)
    has[has] = ~_alone(dataset, np.asarray(rows)[has])
    return has


def _alone(dataset, rows):
    """Which of some rows (B,), that have one element a site, have an atom without a neighbour."""
    alone = np.zeros(len(rows), bool)
    if not len(rows):
        return alone
    edges = dataset.take("lattice", rows)[0].reshape(len(rows), -1)[:, :3]
    large = np.flatnonzero((edges > RADIUS).all(1))  # in others each atom has its own image near
    if len(large):
        offsets = dataset.take("atom_ids", rows[large])[1]
        frac = dataset.take("frac_coords", rows[large])[0].reshape(-1, 3)
        graph = neighbours(_lattices(dataset, rows[large]), frac, offsets, n_nearest=1)
        alone[large[of_atoms(np.isinf(graph.nearest), offsets)]] = True
    return alone


def texts(dataset, rows, drawn=None):
    """The words of the structures of some rows, a list of each; drawn: Drawn of xxlib.crystals.distortions."""
    if not len(rows):
        return []
    lattices, numbers, offsets, graph = graphs(dataset, rows, drawn)
    groups = 1 + dataset.labels["space_group"][rows]
    for row in rows[~np.isfinite(groups)]:
        raise _without(dataset, row, "no space group, which a text says")
    return words(numbers, offsets, np.abs(np.linalg.det(lattices)), groups.astype(int), graph)


def graphs(dataset, rows, drawn):
    """The structures of some rows, laid end to end: cells, atomic numbers, offsets and Neighbours."""
    numbers, offsets = dataset.take("atom_ids", rows)
    frac = dataset.take("frac_coords", rows)[0].reshape(-1, 3).astype(np.float64)
    lattices = _lattices(dataset, rows)
    if drawn is not None:
        lattices, numbers, frac = distorted(lattices, numbers, frac, offsets, drawn)
    graph = neighbours(lattices, frac, offsets)
    for k in of_atoms((graph.nearest < CROWDED) | np.isinf(graph.nearest), offsets) if drawn is None else ():
        try:
            check_nearest(*(values[offsets[k] : offsets[k + 1]] for values in (numbers, graph.nearest)))
        except RejectedCrystal as error:
            raise _without(dataset, rows[k], error) from error
    return lattices, numbers, offsets, graph


def _lattices(dataset, rows):
    cells, offsets = dataset.take("lattice", rows)
    lattices = []
    for k, row in enumerate(rows):
        try:
            lattices.append(lattice_from_cell(*cells[offsets[k] : offsets[k + 1]]))
            check_cell(lattices[-1])
        except (RejectedCrystal, TypeError) as error:
            raise _without(dataset, row, error) from error
    return np.array(lattices)


def _without(dataset, row, why):
    return DatasetError(f"{dataset.folder}, crystal {dataset.column('id')[row]}: {why}; make the dataset without it")
