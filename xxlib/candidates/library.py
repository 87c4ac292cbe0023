"""A library of known crystals on disk, memory-mapped: what they are, and which of them have the amounts of a formula.

library.arrow, one crystal a row (SCHEMA), in the standard setting of its space group, by its asymmetric unit: about 120
bytes.  What follows from the atoms (formula, amounts, volume) is computed, not stored.
"""

from collections import Counter
from functools import cached_property
from math import gcd
from pathlib import Path

import numpy as np
import pyarrow as pa

from xxlib.candidates.standard import reciprocal, standardised
from xxlib.crystals.compositions import reduced_formula
from xxlib.crystals.crystal import Crystal, RejectedCrystal
from xxlib.crystals.elements import MAX_Z
from xxlib.datasets.writing import write_atomically

# Coordinates are whole numbers of this part of a cell vector, 1e-4 angstrom or less; 1/3, 1/8 and 1/12 are exact.
PARTS = 65_520
ATOM = pa.struct(
    [("z", pa.uint8()), ("x", pa.uint16()), ("y", pa.uint16()), ("w", pa.uint16()), ("multiplicity", pa.uint8())]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.dictionary(pa.int8(), pa.string())),
        ("space_group", pa.uint8()),
        ("type", pa.int32()),  # equal for crystals of one space group whose elements take the same sites
        ("cell", pa.list_(pa.float32(), 6)),  # a, b, c (angstrom), alpha, beta, gamma (degree)
        ("atoms", pa.list_(ATOM)),  # of the asymmetric unit; multiplicity: in the standard cell
    ]
)
FILE = "library.arrow"
LEAST_OCCUPANCY = 0.6  # of a site
SAME_VOLUME = 0.005  # of ln: crystals of one formula, type and volume are one


class LibraryError(ValueError):
    """A library that is not there or damaged; the message says which file and the way out."""


class Library:
    """Known crystals; crystal c owns the atoms offsets[c]:offsets[c + 1].  Arrays are those of its file."""

    def __init__(self, table):
        """table: a record batch of SCHEMA."""
        self.table = table
        self.ids = table.column("id")
        self.space_groups = table.column("space_group").to_numpy()  # (n,)
        self.types = table.column("type").to_numpy()  # (n,)
        self.cells = table.column("cell").values.to_numpy().reshape(-1, 6)  # (n, 6)
        atoms = table.column("atoms")
        self.offsets = atoms.offsets.to_numpy()  # (n + 1,)
        fields = [field.to_numpy() for field in atoms.values.flatten()]
        self.atomic_numbers, *self._coords, self.multiplicities = fields  # (m,) each

    @classmethod
    def open(cls, folder):
        """The Library in a folder; raises LibraryError where there is none."""
        path = Path(folder) / FILE
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
            if table.schema != SCHEMA:
                raise ValueError("it has other columns")
            library = cls(table)
            n = len(library.atomic_numbers)
            if not len(library) or library.offsets[-1] != n or not (np.diff(library.offsets) > 0).all():
                raise ValueError("its atoms do not fit its crystals")
            return library
        except (OSError, ValueError, pa.ArrowException, KeyError) as error:
            raise LibraryError(f"{path} is no library of crystals ({error}): build it anew") from error

    def __len__(self):
        return len(self.space_groups)

    def frac_coords(self, atoms):
        """Fractional coordinates (k, 3) of some atoms: a slice or places (k,)."""
        return np.stack([axis[atoms] for axis in self._coords], axis=1) / PARTS

    def source(self, crystal):
        """Where a crystal is from."""
        return self.table.column("source")[int(crystal)].as_py()

    def formula(self, crystal):
        """Reduced formula of a crystal."""
        own = slice(self.offsets[crystal], self.offsets[crystal + 1])
        counts = np.bincount(self.atomic_numbers[own], self.multiplicities[own])
        elements = np.flatnonzero(counts)
        return reduced_formula(elements, counts[elements] / counts.sum())

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
    def stoichiometries(self):
        """Least whole amounts (p,), increasing, and elements (p,) in that order, of all crystals; offsets (n + 1,)."""
        owner = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        pairs, place = np.unique(owner * (MAX_Z + 1) + self.atomic_numbers, return_inverse=True)
        counts = np.bincount(place, self.multiplicities).astype(np.int64)
        owner, elements = pairs // (MAX_Z + 1), pairs % (MAX_Z + 1)
        offsets = np.searchsorted(owner, np.arange(len(self) + 1))
        amounts = counts // np.gcd.reduceat(counts, offsets[:-1])[owner]
        order = np.lexsort((elements, amounts, owner))
        return amounts[order], elements[order], offsets

    @cached_property
    def formula_keys(self):
        """A number (n,) uint64 of each crystal, equal for crystals of one reduced formula; see formula_key()."""
        amounts, elements, offsets = self.stoichiometries
        return np.add.reduceat(_mixed(elements, amounts), offsets[:-1])

    @cached_property
    def _by_amounts(self):
        amounts, _, offsets = self.stoichiometries
        places = np.arange(len(amounts)) - np.repeat(offsets[:-1], np.diff(offsets))
        keys = np.add.reduceat(_mixed(places, amounts), offsets[:-1])
        order = np.argsort(keys, kind="stable")
        return keys[order], order

    def of_amounts(self, amounts):
        """Crystals (k,) of some least whole amounts, increasing, and their elements (k, E) in that order."""
        keys, order = self._by_amounts
        key = _mixed(np.arange(len(amounts)), np.array(amounts)).sum(dtype=np.uint64)
        crystals = order[np.searchsorted(keys, key) : np.searchsorted(keys, key, side="right")]
        _, elements, offsets = self.stoichiometries
        return crystals, elements[offsets[crystals][:, None] + np.arange(len(amounts))]

    def elements_of(self, crystals):
        """Elements (k, E) of some crystals, filled up with 0."""
        _, elements, offsets = self.stoichiometries
        lengths = np.diff(offsets)[crystals]
        here = np.arange(max(1, lengths.max(initial=1))) < lengths[:, None]
        out = np.zeros(here.shape, np.int64)
        out[here] = elements[np.repeat(offsets[crystals], lengths) + np.nonzero(here)[1]]
        return out

    def within(self, elements):
        """Crystals (k,) without any other element than some."""
        _, own, offsets = self.stoichiometries
        return np.flatnonzero(np.logical_and.reduceat(np.isin(own, list(elements)), offsets[:-1]))


def _mixed(places, amounts):
    """A number uint64 of each place and amount, so that sums of them tell multisets apart."""
    x = places.astype(np.uint64) * np.uint64(1_000_003) + amounts.astype(np.uint64) + np.uint64(1)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):  # of MurmurHash3
        x = (x ^ (x >> np.uint64(33))) * np.uint64(factor)
    return x ^ (x >> np.uint64(33))


def formula_key(amounts, elements):
    """The number of a stoichiometry in Library.formula_keys."""
    return _mixed(np.array(elements), np.array(amounts)).sum(dtype=np.uint64)


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


def ordered(crystal):
    """A Crystal whose shared sites are their commonest element; raises RejectedCrystal where a site is mostly empty."""
    if (crystal.occupancies >= 1 - 1e-6).all():
        return crystal
    places = np.round(crystal.frac_coords % 1.0, 3) % 1.0
    _, site = np.unique(places, axis=0, return_inverse=True)
    if np.bincount(site, crystal.occupancies).min() < LEAST_OCCUPANCY:
        raise RejectedCrystal(f"a site that is empty in more than {1 - LEAST_OCCUPANCY:.0%} of the cells")
    order = np.lexsort((-crystal.occupancies, site))
    first = order[np.searchsorted(site[order], np.arange(site.max() + 1))]
    return Crystal(
        crystal.id, crystal.lattice, crystal.atomic_numbers[first], crystal.frac_coords[first], np.ones(len(first))
    )


def row_of(crystal, source=""):
    """What a library keeps of a Crystal, but for its type: a dict by SCHEMA, and the key of its type.

    A shared site counts as its commonest element.  Raises RejectedCrystal for a crystal with a site that is more
    often empty than not, or without a symmetry that spglib finds.
    """
    standard = standardised(ordered(crystal))
    amounts, elements = stoichiometry(standard.atomic_numbers, standard.multiplicities)
    sites = [
        (amount, "".join(sorted(standard.wyckoffs[j] for j in np.flatnonzero(standard.atomic_numbers == z))))
        for z, amount in zip(elements, amounts)
    ]
    coords = np.round(standard.frac_coords % 1.0 * PARTS).astype(int) % PARTS
    atoms = [
        {"z": int(z), "x": int(x), "y": int(y), "w": int(w), "multiplicity": int(times)}
        for z, (x, y, w), times in zip(standard.atomic_numbers, coords, standard.multiplicities)
    ]
    row = {
        "id": crystal.id, "source": source, "space_group": standard.number, "cell": standard.cell.tolist(),
        "atoms": atoms,
    }  # fmt: skip
    return row, (standard.number, *sorted(sites))


def library_of(crystals, source=""):
    """The Library of Crystals, and why others of them are not in it: reason -> how many."""
    rows, reasons = [], Counter()
    for crystal in crystals:
        try:
            rows.append(row_of(crystal, source))
        except RejectedCrystal as error:
            reasons[str(error)] += 1
    library, repeated = library_of_rows(rows)
    return library, reasons + repeated


def library_of_rows(rows):
    """The Library of what row_of() gives, and how many of these repeat another: of one formula, type and volume."""
    if not rows:
        raise LibraryError("there is no crystal to make a library of: see why each was refused")
    types = {}
    rows = [row | {"type": types.setdefault(key, len(types))} for row, key in rows]
    library = Library(pa.RecordBatch.from_pylist(rows, SCHEMA))
    repeated = _repeated(library)
    counted = (
        Counter({"of the formula, type and volume of another": int(repeated.sum())}) if repeated.any() else Counter()
    )
    return Library(library.table.filter(pa.array(~repeated))), counted


def _repeated(library):
    """Which crystals (n,) are of the formula, type and volume of one that stands before them."""
    volume = np.log(library.volumes / library.n_atoms)
    order = np.lexsort((np.arange(len(library)), volume, library.types, library.formula_keys))
    alike = (np.diff(library.formula_keys[order]) == 0) & (np.diff(library.types[order]) == 0)
    alike &= np.diff(volume[order]) < SAME_VOLUME
    groups = np.concatenate([[0], np.cumsum(~alike)])
    first = np.full(groups[-1] + 1, len(library))
    np.minimum.at(first, groups, order)
    out = np.empty(len(library), bool)
    out[order] = first[groups] < order
    return out


def save(library, folder):
    """Write a Library as a folder that Library.open maps."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(library.table)
    write_atomically(Path(folder) / FILE, sink.getvalue())
