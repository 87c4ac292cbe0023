"""A library of known crystals on disk, memory-mapped: what they are, and which of them have the amounts of a formula.

library.arrow, one crystal a row (SCHEMA), in the standard setting of its space group, by its asymmetric unit.
"""

from collections import Counter
from functools import cached_property
from math import gcd
from pathlib import Path

import numpy as np
import pyarrow as pa

from xxlib.candidates.standard import reciprocal, standardised
from xxlib.crystals.compositions import composition_of_crystal, reduced_formula
from xxlib.crystals.crystal import RejectedCrystal
from xxlib.datasets.writing import write_atomically

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("formula", pa.string()),  # reduced
        ("amounts", pa.string()),  # least whole ones, increasing: "1 1 3"
        ("elements", pa.list_(pa.uint8())),  # atomic numbers in the order of the amounts
        ("space_group", pa.int16()),
        ("type", pa.int32()),  # equal for crystals of one space group whose elements take the same sites
        ("cell", pa.list_(pa.float32())),  # a, b, c (angstrom), alpha, beta, gamma (degree)
        ("atomic_numbers", pa.list_(pa.uint8())),  # of the asymmetric unit
        ("frac_coords", pa.list_(pa.float32())),  # x, y, z of one after the other
        ("multiplicities", pa.list_(pa.uint16())),  # of the atoms in the standard cell
    ]
)
FILE = "library.arrow"


class LibraryError(ValueError):
    """A library that is not there or damaged; the message says which file and the way out."""


class Library:
    """Known crystals; crystal c owns the atoms offsets[c]:offsets[c + 1].  Arrays are those of its file."""

    def __init__(self, table):
        """table: a record batch of SCHEMA."""
        self.table = table
        self.ids, self.formulas = table.column("id"), table.column("formula")
        self.space_groups = table.column("space_group").to_numpy()  # (n,)
        self.types = table.column("type").to_numpy()  # (n,)
        self.cells = table.column("cell").values.to_numpy().reshape(-1, 6)  # (n, 6)
        atoms = table.column("atomic_numbers")
        self.atomic_numbers, self.offsets = atoms.values.to_numpy(), atoms.offsets.to_numpy()  # (m,), (n + 1,)
        self.frac_coords = table.column("frac_coords").values.to_numpy().reshape(-1, 3)  # (m, 3)
        self.multiplicities = table.column("multiplicities").values.to_numpy()  # (m,)

    @classmethod
    def open(cls, folder):
        """The Library in a folder; raises LibraryError where there is none."""
        path = Path(folder) / FILE
        try:
            return cls(pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0))
        except (OSError, pa.ArrowException, KeyError) as error:
            raise LibraryError(f"{path} is no library of crystals ({error}): build it anew") from error

    def __len__(self):
        return len(self.space_groups)

    @cached_property
    def metrics(self):
        """Reciprocal metrics (n, 6), as standard.reciprocal has them."""
        return reciprocal(self.cells)

    @cached_property
    def n_atoms(self):
        """Atoms of the standard cells (n,)."""
        return np.add.reduceat(self.multiplicities.astype(np.int64), self.offsets[:-1])

    @cached_property
    def volumes(self):
        """Of the standard cells (n,), cubic angstrom."""
        return volume_of(self.metrics)

    @cached_property
    def _by_amounts(self):
        codes = self.table.column("amounts").dictionary_encode()
        order = np.argsort(codes.indices.to_numpy(), kind="stable")
        ends = np.searchsorted(codes.indices.to_numpy()[order], np.arange(len(codes.dictionary) + 1))
        return {name: order[ends[k] : ends[k + 1]] for k, name in enumerate(codes.dictionary.to_pylist())}

    def of_amounts(self, amounts):
        """Crystals (k,) of some least whole amounts, increasing, and their elements (k, E) in that order."""
        crystals = self._by_amounts.get(" ".join(map(str, amounts)), np.zeros(0, np.int64))
        column = self.table.column("elements")
        first = column.offsets.to_numpy()[crystals]
        return crystals, column.values.to_numpy()[first[:, None] + np.arange(len(amounts))].astype(np.int64)


def volume_of(metrics):
    """Volume (...) of cells in cubic angstrom, of their reciprocal metrics (..., 6)."""
    aa, bb, cc, bc, ac, ab = np.moveaxis(np.asarray(metrics) / (1, 1, 1, 2, 2, 2), -1, 0)
    det = aa * (bb * cc - bc * bc) - ab * (ab * cc - bc * ac) + ac * (ab * bc - bb * ac)
    return 1 / np.sqrt(np.maximum(det, 1e-30))


def stoichiometry(numbers, amounts):
    """Least whole amounts, increasing, and the elements in that order, of atomic numbers (a,) with amounts (a,)."""
    elements, inverse = np.unique(numbers, return_inverse=True)
    counts = np.bincount(inverse, amounts).round().astype(int)
    counts //= gcd(*counts.tolist())
    order = np.lexsort((elements, counts))
    return tuple(counts[order].tolist()), tuple(elements[order].tolist())


def row_of(crystal):
    """What a library keeps of a Crystal, but for its type: a dict by SCHEMA, and the key of its type.

    Raises RejectedCrystal for a crystal of shared sites, or without a symmetry that spglib finds.
    """
    if (crystal.occupancies < 1).any():
        raise RejectedCrystal("shared or partly occupied sites")
    standard = standardised(crystal)
    amounts, elements = stoichiometry(standard.atomic_numbers, standard.multiplicities)
    sites = [
        (amount, "".join(sorted(standard.wyckoffs[j] for j in np.flatnonzero(standard.atomic_numbers == z))))
        for z, amount in zip(elements, amounts)
    ]
    row = {
        "id": crystal.id, "formula": reduced_formula(*composition_of_crystal(crystal)),
        "amounts": " ".join(map(str, amounts)), "elements": elements, "space_group": standard.number,
        "cell": standard.cell, "atomic_numbers": standard.atomic_numbers,
        "frac_coords": standard.frac_coords.ravel(), "multiplicities": standard.multiplicities,
    }  # fmt: skip
    return row, (standard.number, *sorted(sites))


def library_of(crystals):
    """The Library of Crystals, and why others of them are not in it: reason -> how many."""
    rows, types, reasons = [], {}, Counter()
    for crystal in crystals:
        try:
            row, key = row_of(crystal)
        except RejectedCrystal as error:
            reasons[str(error)] += 1
            continue
        rows.append(row | {"type": types.setdefault(key, len(types))})
    return Library(pa.RecordBatch.from_pylist(rows, SCHEMA)), reasons


def save(library, folder):
    """Write a Library as a folder that Library.open maps."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(library.table)
    write_atomically(Path(folder) / FILE, sink.getvalue())
