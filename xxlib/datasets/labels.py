"""The labels of a dataset: what its columns say of each target, and what follows from them."""

from functools import partial

import numpy as np
import pyarrow as pa

from xxlib.crystals.crystal import CRYSTAL_SYSTEMS

# Columns that a dataset may have beside e_form and band_gap: what is not the same quantity, or not of a crystal.
OTHER_LABELS = {
    "oqmd_e_form": pa.float64(),  # eV/atom, against OQMD's own elements
    "oqmd_band_gap": pa.float64(),  # eV
    "volume": pa.float64(),  # A^3 per atom of what is no crystal here; a crystal has its own
    "bulk_modulus": pa.float64(),  # GPa, Voigt-Reuss-Hill, and the next
    "shear_modulus": pa.float64(),
}


class Labels(dict):
    """Target values (n,) float64 by name, each read when it is first asked for; classes as their index, NaN = none."""

    def __init__(self, dataset):
        super().__init__()
        self._dataset = dataset

    def __missing__(self, name):
        derived = {"crystal_system": _crystal_systems, "space_group": _space_groups, "log_volume": _log_volumes,
                   "least_e_form": _least_e_form}  # fmt: skip
        derived |= {
            f"log_{modulus}": partial(_logarithms, name=modulus) for modulus in ("bulk_modulus", "shear_modulus")
        }
        self[name] = derived[name](self._dataset) if name in derived else self._dataset.column(name)
        return self[name]


def _crystal_systems(dataset):
    return dataset.column("crystal_system").places(CRYSTAL_SYSTEMS)


def _space_groups(dataset):
    return dataset.column("space_group") - 1


def _least_e_form(dataset):
    """Of each row the least e_form that its formula has in this dataset."""
    _, formula = np.unique(np.asarray(dataset.column("formula")), return_inverse=True)
    least = np.full(formula.max() + 1, np.nan)
    np.fmin.at(least, formula, dataset.column("e_form"))
    return least[formula]


def _logarithms(dataset, name):
    return np.log10(dataset.column(name))


def _log_volumes(dataset):
    """Of the volume per atom, in A^3: of the crystal where it is stored, else as the source has it."""
    volumes = dataset.column("volume")
    for first, columns in zip(dataset.first_rows, dataset.ragged):
        if "atom_ids" not in columns:
            continue
        n_atoms = np.diff(columns["atom_ids"].offsets)
        rows = np.flatnonzero(n_atoms)
        lattices = columns["lattice"].values.reshape(-1, 6)
        occupancies = columns["occupancies"]
        partial = np.flatnonzero(np.diff(occupancies.offsets))
        n_atoms = n_atoms.astype(float)
        n_atoms[partial] = [occupancies[row].astype(float).sum() for row in partial]
        volumes[first + rows] = _cell_volume(*lattices.T) / n_atoms[rows]
    return np.log(volumes)


def _cell_volume(a, b, c, *angles):
    """A^3, of edges in angstrom and angles in degree."""
    x, y, z = np.cos(np.radians(angles))
    return a * b * c * np.sqrt(1 - x * x - y * y - z * z + 2 * x * y * z)
