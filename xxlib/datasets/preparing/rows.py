"""Records -> rows of a shard: the work that worker processes do."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import pyarrow as pa

from xxlib.crystals.compositions import composition_of_crystal, composition_of_formula, reduced_formula
from xxlib.crystals.crystal import Crystal, RejectedCrystal, cell_from_lattice, crystal_system, space_group
from xxlib.datasets import splits
from xxlib.datasets.labels import OTHER_LABELS
from xxlib.datasets.sources import storable
from xxlib.datasets.store import schema
from xxlib.diffraction.scattering import STORED_RANGE, pack, sticks, sticks_of
from xxlib.diffraction.wavelengths import CU_KA

TIME_LIMIT = 60.0  # s, of one crystal: the backstop for what the limits before the kernel let through
MAX_REFLECTIONS_X_ATOMS = 1e8  # of one crystal; half a second.  Cells of 200 atoms have 1e6.


@dataclass(frozen=True)
class Piece:
    """What became of some consecutive records."""

    n_records: int
    batch: pa.RecordBatch  # the accepted crystals, in order: columns of store.schema()
    reasons: dict[int, str]  # place among the records -> why it was rejected

    def without_repeats(self, distinct):
        """The Piece in which the crystals that repeat an earlier one, as Source.distinct says, are rejected."""
        accepted, repeats = self._accepted(), distinct(self.batch)
        reasons = {place: reason for place, reason in zip(accepted, repeats, strict=True) if reason}
        new = pa.array([not reason for reason in repeats], pa.bool_())
        return replace(self, batch=self.batch.filter(new), reasons=self.reasons | reasons)

    def up_to(self, n):
        """The Piece that ends with its n-th accepted crystal."""
        if n >= len(self.batch):
            return self
        end = self._accepted()[n - 1] + 1
        return Piece(end, self.batch[:n], {place: why for place, why in self.reasons.items() if place < end})

    def _accepted(self):
        return [place for place in range(self.n_records) if place not in self.reasons]


@dataclass(frozen=True)
class Work:
    """How records become rows: what worker processes are sent, and call on records."""

    seed: int = 0  # of the splits by formula
    hkl: bool = False  # with the columns h, k, l and lattice
    structure: bool = False  # with the columns lattice, atom_ids, frac_coords and occupancies
    time_limit: float = TIME_LIMIT  # s, of one crystal
    source_warm_up: Callable | None = None  # Source.warm_up
    labels: tuple[str, ...] = ()  # of the source; those of OTHER_LABELS are columns

    def __call__(self, records):
        """Piece of some records.  Nothing that is wrong with a crystal is raised.

        A crystal that takes longer than the limit ends this process by SIGALRM, from within a kernel, too: only for
        processes that may die (workers.py).
        """
        _warm_up()
        if self.source_warm_up:
            self.source_warm_up()
        made = [attempt(self.time_limit, self._described, record) for record in records]
        whole = [i for i, row in enumerate(made) if not isinstance(row, str) and "crystal" in row]
        for i, lines in zip(whole, self._sticks([made[i].pop("crystal") for i in whole])):
            made[i] = lines if isinstance(lines, str) else made[i] | self._columns(lines)
        accepted = [row for row in made if not isinstance(row, str)]
        return self._piece(accepted, {i: reason for i, reason in enumerate(made) if isinstance(reason, str)})

    @property
    def schema(self):
        """The columns of the rows."""
        return schema(self.hkl, self.structure, self.labels)

    def lost(self, how):
        """Piece of the one record that ended its worker process, twice, with no other at work in it."""
        if how == "SIGALRM":
            return self._piece([], {0: f"timeout: longer than {self.time_limit:g} s, twice"})
        return self._piece([], {0: f"worker died: twice ({how})"})

    def _piece(self, accepted, reasons):
        batch = pa.RecordBatch.from_pylist(accepted, self.schema)
        return Piece(len(accepted) + len(reasons), batch, reasons)

    def _described(self, record):
        """Everything of a row but the sticks, and the crystal; of a formula alone the whole row."""
        crystal, columns = record.crystal(), record.columns
        split = columns.get("split")
        if split and split not in splits.SPLITS:
            raise RejectedCrystal(
                f"split is {str(split)[:50]!r}, none of {', '.join(splits.SPLITS)}: rename it, or leave the column out"
            )
        element_ids, fractions = composition_of_crystal(crystal) if crystal else _composition(record.content)
        formula = columns.get("formula") or reduced_formula(element_ids, fractions)
        if not isinstance(formula, str):
            raise RejectedCrystal(f"its formula is {str(formula)[:50]}, no text")
        row = {
            "id": storable(record.id),
            "formula": formula,
            "element_ids": element_ids,
            "fractions": fractions,
            "e_form": columns.get("e_form"),
            "band_gap": columns.get("band_gap"),
            "split": split or str(splits.by_formula([formula], self.seed)[0]),
        }
        row |= {name: columns[name] for name in OTHER_LABELS if name in columns}
        if crystal is None:
            lists = [field.name for field in self.schema if pa.types.is_list(field.type)]
            return {name: [] for name in lists} | row
        check_work(crystal)
        number = columns.get("space_group") or space_group(crystal)
        row |= {
            "space_group": number,
            "crystal_system": crystal_system(number),
            "symmetry_source": "source" if "space_group" in columns else "spglib",
            "crystal": crystal,
        }
        if self.hkl or self.structure:
            row["lattice"] = cell_from_lattice(crystal.lattice)
        if self.structure:
            row["atom_ids"] = crystal.atomic_numbers.astype(np.uint8)
            row["frac_coords"] = crystal.frac_coords.ravel().astype(np.float32)
            row["occupancies"] = [] if (crystal.occupancies == 1).all() else crystal.occupancies.astype(np.float16)
        return row

    def _sticks(self, crystals):
        """Sticks of each crystal, or the reason (str) why it has none; the limit is that of all of them together."""
        lines = attempt(self.time_limit, partial(sticks_of, hkl=self.hkl), pack(crystals))
        if isinstance(lines, str):
            return [lines] * len(crystals)
        return [attempt(self.time_limit, lines.__getitem__, c) for c in range(len(crystals))]

    def _columns(self, lines):
        columns = {"two_theta": lines.two_theta.astype(np.float32), "intensity": lines.intensity.astype(np.float16)}
        return columns | (dict(zip("hkl", lines.hkl.T)) if self.hkl else {})


def _composition(formula):
    try:
        return composition_of_formula(formula)
    except ValueError as error:
        raise RejectedCrystal(str(error)) from error


@lru_cache(maxsize=1)
def _warm_up():
    """Import, compile and tabulate what every crystal needs: seconds that are not the first crystal's."""
    polonium = Crystal("Po", 3.35 * np.eye(3), np.array([84]), np.zeros((1, 3)), np.ones(1))
    sticks(polonium), space_group(polonium), reduced_formula(*composition_of_crystal(polonium))


def check_work(crystal):
    """Raise RejectedCrystal where the sticks of a crystal would take unduly long.

    Half of the reciprocal-lattice points in the sphere of radius g = 2 sin(theta) / wavelength, one for each 1/V.
    """
    radius = 2 * np.sin(np.radians(STORED_RANGE[1] / 2)) / CU_KA
    reflections = 2 / 3 * np.pi * radius**3 * crystal.volume
    work = reflections * len(crystal.atomic_numbers)
    if work > MAX_REFLECTIONS_X_ATOMS:
        raise RejectedCrystal(
            f"too large: {reflections:.3g} reflections x {len(crystal.atomic_numbers)} atoms = {work:.3g}, "
            f"more than {MAX_REFLECTIONS_X_ATOMS:g}"
        )


def attempt(time_limit, function, *arguments):
    """Result of a call that has `time_limit` seconds, or the reason (str) why there is none."""
    # The default action of SIGALRM ends the process at once; a handler in Python would wait for the kernel.
    signal.setitimer(signal.ITIMER_REAL, time_limit)
    try:
        return function(*arguments)
    except RejectedCrystal as error:
        return str(error)
    except ImportError:  # nothing is wrong with the crystal
        raise
    except Exception as error:  # of a reader, at one crystal of millions: listed, not fatal
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
