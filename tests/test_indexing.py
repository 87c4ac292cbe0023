"""Cells that explain the lines of a pattern, with no crystal known."""

import json

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from xxlib.candidates import lattices
from xxlib.candidates.cells import LATTICES, lattices_of
from xxlib.candidates.explanation import NothingToExplain
from xxlib.candidates.indexing import index
from xxlib.candidates.known import DEFAULT, KnownCrystals, find
from xxlib.candidates.library import LibraryError
from xxlib.candidates.observed import KINDS, Observed
from xxlib.crystals.structures import crystal_from_structure
from xxlib.diffraction.patterns import render_one
from xxlib.diffraction.scattering import sticks
from xxlib.predict import Predictor
from xxlib.scans.samples import read_sample

# Lattice, space group, cell, sites.
CRYSTALS = {
    "cF": ("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "cP": ("Pa-3", Lattice.cubic(5.42), ["Fe", "S"], [[0, 0, 0], [0.385, 0.385, 0.385]]),
    "tP": ("P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
    "tI": ("I4_1/amd", Lattice.tetragonal(3.785, 9.514), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.208]]),
    "hP": ("P6_3mc", Lattice.hexagonal(3.25, 5.207), ["Zn", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.382]]),
    "hR": ("R-3c", Lattice.hexagonal(4.99, 17.06), ["Ca", "C", "O"], [[0, 0, 0], [0, 0, 0.25], [0.257, 0, 0.25]]),
    "oP": ("Pnma", Lattice.orthorhombic(8.48, 5.40, 6.96), ["Ba", "S", "O", "O", "O"],
           [[0.185, 0.25, 0.158], [0.437, 0.75, 0.191], [0.585, 0.75, 0.1], [0.32, 0.75, 0.05], [0.42, 0.97, 0.31]]),
    "mC": ("C2/m", Lattice.monoclinic(12.2, 3.04, 5.80, 103.8), ["Ga", "Ga", "O", "O", "O"],
           [[0.09, 0, 0.795], [0.341, 0, 0.686], [0.167, 0, 0.11], [0.496, 0, 0.257], [0.827, 0, 0.436]]),
    "mP": ("P2_1/c", Lattice.monoclinic(5.15, 5.21, 5.32, 99.2), ["Zr", "O", "O"],
           [[0.275, 0.04, 0.208], [0.07, 0.332, 0.345], [0.45, 0.757, 0.479]]),
    "aP": ("P-1", Lattice.from_parameters(5.1, 6.3, 7.4, 95, 101, 107), ["Cu", "S", "O"],
           [[0, 0, 0], [0.31, 0.22, 0.37], [0.6, 0.1, 0.8]]),
}  # fmt: skip


def pattern_of(symbol, lattice, species, coords):
    crystal = crystal_from_structure(Structure.from_spacegroup(symbol, lattice, species, coords), "one")
    return render_one(sticks(crystal))


@pytest.fixture(scope="module")
def known():
    return KnownCrystals.load()


def test_every_space_group_has_a_lattice():
    """Expected from International Tables A, table 2.1.1.2: 36 cubic groups are 15 P, 11 F and 10 I, and so on."""
    places = lattices_of()
    counts = {lattice: int((places == k).sum()) for k, lattice in enumerate(LATTICES)}
    assert counts == {"cF": 11, "cI": 10, "cP": 15, "hR": 7, "hP": 45, "tI": 19, "tP": 49, "oF": 5, "oI": 9, "oC": 15,
                      "oP": 30, "mC": 5, "mP": 8, "aP": 2}  # fmt: skip
    assert [LATTICES[places[n]] for n in (225, 166, 164, 194, 38, 62)] == ["cF", "hR", "hP", "hP", "oC", "oP"]


@pytest.mark.parametrize("lattice", CRYSTALS)
def test_the_cell_of_a_crystal_is_found(lattice, known):
    """Of a simulated pattern, to 1e-3: of the true lattice, or of its own points in another cell."""
    own = CRYSTALS[lattice][1]
    observed = Observed.of(pattern_of(*CRYSTALS[lattice]))
    found = lattices.indexed(observed, known.lattices)
    best = LATTICES[found.probabilities.argmax()]
    assert best == lattice and found.probabilities.sum() == pytest.approx(1)
    (cell,) = [cell for cell in found.cells if cell.lattice == lattice]
    assert cell.volume == pytest.approx(own.volume, rel=1e-3) and cell.explained >= 0.9 * cell.lines
    if lattice not in ("mC", "mP", "aP"):  # of which there are other settings
        assert sorted(cell.cell[:3]) == pytest.approx(sorted(own.abc), rel=1e-3)
    assert found.table()["lattice"][0] == lattice and found.table().attrs["units"]["volume"] == "angstrom^3"


@pytest.mark.parametrize("lattice", ["cF", "tP", "hP"])
def test_a_scan_with_noise_a_shift_and_an_impurity_is_indexed(lattice, known):
    pattern = pattern_of(*CRYSTALS[lattice])
    pattern = np.roll(pattern, 4) + 6 * np.exp(-0.5 * ((np.arange(4250) - 1234) / 4) ** 2)  # 0.08 degree
    noisy = pattern + np.random.default_rng(0).normal(0, 0.3, 4250)
    observed = Observed.of(noisy)
    assert observed.kind == "scan"
    found = lattices.indexed(observed, known.lattices)
    (cell,) = [cell for cell in found.cells if cell.lattice == lattice]
    assert found.probabilities[LATTICES.index(lattice)] > 0.3
    assert sorted(cell.cell[:3]) == pytest.approx(sorted(CRYSTALS[lattice][1].abc), rel=3e-3)


def test_lines_by_chance_are_worth_little_and_few_are_worth_nothing(known):
    """The evidence of a cell for lines that have one is far above that for lines that have none."""
    true = index(Observed.of(pattern_of(*CRYSTALS["oP"])))
    places = np.sort(np.random.default_rng(0).choice(np.arange(300, 4000, 20), 40, replace=False))
    chance = index(Observed.of(sum(100 * np.exp(-0.5 * ((np.arange(4250) - place) / 4) ** 2) for place in places)))
    assert max(cell.evidence for cell in true) > 40 + max((cell.evidence for cell in chance), default=0)
    three = Observed.of(sum(100 * np.exp(-0.5 * ((np.arange(4250) - place) / 4) ** 2) for place in (900, 1500, 2500)))
    assert index(three) == [] and lattices.indexed(three, known.lattices) is None
    with pytest.raises(NothingToExplain, match="too few lines"):
        known.index(read_sample(None, pattern_of("Pm-3m", Lattice.cubic(1.9), ["Po"], [[0, 0, 0]])))


def test_a_user_sees_cells():
    """Rock salt of the examples: 5.6402 angstrom."""
    model = Predictor.load()
    scan = find(DEFAULT).parents[1] / "examples" / "NaCl.uxd"
    cells = model.cells(scan)
    first = cells.iloc[0]
    assert first["lattice"][0] == "c" and first["a"] == first["c"] and first["alpha"] == 90
    (own,) = cells.loc[cells["lattice"] == "cF", "a"]
    assert own == pytest.approx(5.6402, rel=2e-3)
    assert model.explanation("NaCl", scan).indexed.probabilities[LATTICES.index("cF")] > 0.1


def test_a_damaged_file_of_lattices_is_refused(tmp_path):
    rankings = lattices.read_lattices(find(DEFAULT) / lattices.FILE)
    lattices.write_lattices(tmp_path, rankings)
    assert lattices.read_lattices(tmp_path / lattices.FILE) == rankings and set(rankings) == set(KINDS)
    values = json.loads((tmp_path / lattices.FILE).read_text())
    for broken in (
        "{",
        json.dumps(values | {"features": []}),
        json.dumps({k: v for k, v in values.items() if k != "scan"}),
    ):
        (tmp_path / lattices.FILE).write_text(broken)
        with pytest.raises(LibraryError, match="get the library anew"):
            lattices.read_lattices(tmp_path / lattices.FILE)
