"""Crystals: cells, symmetry labels, and every limit of what counts as one."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Element, Lattice, Species, Structure

from xxlib.crystals import crystal as crystals
from xxlib.crystals import elements
from xxlib.crystals.cif import crystal_from_cif
from xxlib.crystals.crystal import (
    CRYSTAL_SYSTEMS,
    Crystal,
    RejectedCrystal,
    check,
    crystal_system,
    lattice_from_cell,
    space_group,
)
from xxlib.crystals.poscar import crystal_from_poscar
from xxlib.crystals.structures import crystal_from_structure
from xxlib.datasets.sources.parquet import parquet

# One structure of each crystal system: group, cell, elements, positions.
STRUCTURES = {
    "triclinic": ("P-1", (4.1, 5.3, 6.7, 82, 95, 103), ["Si", "O"], [[0.11, 0.23, 0.31], [0.4, 0.15, 0.67]]),
    "monoclinic": ("P2_1/c", (5.1, 5.2, 5.3, 90, 99.2, 90), ["Zr", "O"], [[0.276, 0.041, 0.208], [0.07, 0.332, 0.345]]),
    "orthorhombic": ("Pnma", (5.4, 7.6, 5.3, 90, 90, 90), ["Ca", "Ti"], [[0.036, 0.25, 0.007], [0, 0, 0.5]]),
    "tetragonal": ("P4_2/mnm", (4.59, 4.59, 2.96, 90, 90, 90), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
    "trigonal": ("R-3c", (4.76, 4.76, 12.99, 90, 90, 120), ["Al", "O"], [[0, 0, 0.352], [0.306, 0, 0.25]]),
    "hexagonal": ("P6_3/mmc", (3.2, 3.2, 5.2, 90, 90, 120), ["Mg"], [[1 / 3, 2 / 3, 0.25]]),
    "cubic": ("Fm-3m", (5.64, 5.64, 5.64, 90, 90, 90), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
}
GROUPS = dict(zip(STRUCTURES, (2, 14, 62, 136, 167, 194, 225)))


def build(name):
    group, cell, elements, frac = STRUCTURES[name]
    return Structure.from_spacegroup(group, Lattice.from_parameters(*cell), elements, frac)


def caesium_chloride(**changes):
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    crystal = Crystal("CsCl", np.eye(3) * 4.12, np.array([55, 17]), frac, np.ones(2))
    return replace(crystal, **{name: np.array(value) for name, value in changes.items()})


@pytest.mark.parametrize("cell", [cell for _, cell, _, _ in STRUCTURES.values()] + [(3, 4, 5, 120, 60, 89.5)])
def test_lattice_from_cell_is_that_of_pymatgen(cell):
    lattice = lattice_from_cell(*cell)
    assert np.allclose(Lattice(lattice).parameters, cell, rtol=0, atol=1e-9)
    assert np.isclose(np.linalg.det(lattice), Lattice.from_parameters(*cell).volume)  # and right-handed
    right_angles = np.array(cell[3:])[[2, 1, 0]] == 90
    dots = np.array([lattice[0] @ lattice[1], lattice[0] @ lattice[2], lattice[1] @ lattice[2]])
    assert (dots[right_angles] == 0).all()  # exactly


@pytest.mark.parametrize("angles", [(60, 60, 120), (60, 60, 130), (130, 130, 130), (30, 90, 150)])
def test_angles_without_volume_are_refused(angles):
    with pytest.raises(RejectedCrystal, match="impossible cell angles"):
        lattice_from_cell(3, 4, 5, *angles)


def test_crystal_system_boundaries():
    expected = []  # International Tables
    for name, n_groups in zip(CRYSTAL_SYSTEMS, (2, 13, 59, 68, 25, 27, 36)):
        expected += [name] * n_groups
    assert [crystal_system(number) for number in range(1, 231)] == expected


@pytest.mark.parametrize("name", STRUCTURES)
def test_space_group_of_each_crystal_system(name):
    crystal = crystal_from_structure(build(name), name)
    assert space_group(crystal) == GROUPS[name]
    assert crystal_system(space_group(crystal)) == name


def test_space_group_of_real_crystals(shared_data):
    path = shared_data / "mp36k" / "crystals.parquet"
    found = {}
    for record in parquet(path).records():
        crystal, number = record.crystal(), record.columns["space_group"]
        system = crystal_system(number)
        if len(found.setdefault(system, [])) < 3 and len(crystal.atomic_numbers) <= 40:
            found[system].append((space_group(crystal), number))
        if all(len(found.get(name, ())) == 3 for name in CRYSTAL_SYSTEMS):
            break
    assert set(found) == set(CRYSTAL_SYSTEMS)
    for pairs in found.values():
        assert all(ours == stored for ours, stored in pairs)


def test_space_group_does_not_depend_on_the_cell():
    structure = build("cubic")
    for same in (structure.get_primitive_structure(), structure * (2, 1, 1)):
        assert space_group(crystal_from_structure(same, "NaCl")) == 225


def test_space_group_of_a_mixed_site():
    # Fe and Ni mixed on every site of fcc, on three of four (the order of AuCu3), on two of four (that of AuCu).
    sites = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    mixed = {"Fe": 0.5, "Ni": 0.5}
    for species, group in ([mixed] * 4, 225), (["Fe"] + [mixed] * 3, 221), (["Fe", "Fe", mixed, mixed], 123):
        structure = Structure(Lattice.cubic(3.59), species, sites)
        crystal = crystal_from_structure(structure, "FeNi")
        assert space_group(crystal) == group
        *order, first, second = range(len(crystal.atomic_numbers))
        order += [second, first]  # Ni before Fe on the last site only
        arrays = {name: getattr(crystal, name)[order] for name in ("atomic_numbers", "frac_coords", "occupancies")}
        assert space_group(replace(crystal, **arrays)) == group


def test_vacancies_are_not_full_sites():
    body_centred = [[0, 0, 0], [0.5, 0.5, 0.5]]
    crystal = crystal_from_structure(Structure(Lattice.cubic(2.87), [{"Fe": 0.5}, {"Fe": 0.5}], body_centred), "Fe")
    assert space_group(crystal) == 229
    crystal = crystal_from_structure(Structure(Lattice.cubic(2.87), [{"Fe": 0.5}, "Fe"], body_centred), "Fe")
    assert space_group(crystal) == 221


def test_charges_of_one_element_are_one_kind():
    charges = {Species("Fe", 2): 0.5, Species("Fe", 3): 0.5}
    structure = Structure(Lattice.cubic(2.87), [charges, "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert space_group(crystal_from_structure(structure, "Fe")) == 229


def test_space_group_without_symmetry_is_refused():
    # two halves of one atom closer than symprec, which spglib does not take
    crystal = caesium_chloride(frac_coords=[[0, 0, 0], [0.01, 0, 0]], occupancies=[0.5, 0.5], atomic_numbers=[17, 17])
    with pytest.raises(RejectedCrystal, match="spglib finds no symmetry"):
        space_group(crystal)


def test_good_crystal_passes():
    crystal = caesium_chloride()
    assert check(crystal) is crystal


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"atomic_numbers": np.zeros(0, int), "frac_coords": np.zeros((0, 3)), "occupancies": []}, "no atoms"),
        ({"frac_coords": [[0, 0, np.nan], [0.5, 0.5, 0.5]]}, "not a finite number"),
        ({"lattice": np.diag([4.0, np.inf, 4.0])}, "not a finite number"),
        ({"atomic_numbers": [0, 17]}, "Z = 0 "),
        ({"atomic_numbers": [17, 99]}, "Z = 99 "),
        ({"occupancies": [1, 0]}, "outside"),
        ({"occupancies": [1, -0.2]}, "outside"),
        ({"occupancies": [1, 1.02]}, "outside"),
        ({"occupancies": [1, np.nan]}, "outside"),
        ({"lattice": np.diag([1.4, 4.0, 4.0])}, "cell lengths 1.4, 4, 4 angstrom"),
        ({"lattice": np.diag([201.0, 4.0, 4.0])}, "cell lengths 201, 4, 4 angstrom"),
        ({"lattice": [[40, 0, 0], [60, 2, 0], [0, 0, 4]]}, "cell angles 90, 90, 1.909 degree"),
        ({"lattice": [[4, 0, 0], [0, 4, 0], [2.5, 2.5, 0.9]]}, "flat cell"),
        ({"lattice": [[4, 0, 0], [0, 4, 0], [4, 4, 0]]}, "flat cell"),
        ({"lattice": np.eye(3) * 1.55}, "1.862 cubic angstrom per atom"),
        ({"lattice": np.eye(3) * 10.1}, "515.2 cubic angstrom per atom"),
        ({"frac_coords": [[0, 0, 0], [0.11, 0, 0]]}, "atoms 1 .Z = 55. and 2 .Z = 17. overlap: 0.453"),
        ({"frac_coords": [[0.05, 0.02, 0], [0.95, 0.98, 1]]}, "overlap: 0.444"),
        ({"frac_coords": [[0, 0, 0], [3, -2, 1]]}, "overlap: 0.000"),
        ({"frac_coords": [[0, 0, 0], [0.11, 0, 0]], "occupancies": [0.5, 0.51]}, "overlap"),
    ],
)
def test_what_is_no_crystal_is_refused(changes, reason):
    with pytest.raises(RejectedCrystal, match=reason):
        check(caesium_chloride(**changes))


def test_limits_are_not_too_tight():
    check(caesium_chloride(lattice=np.eye(3) * 1.6))  # 2.05 cubic angstrom per atom
    check(caesium_chloride(lattice=np.eye(3) * 9.9))  # 485
    check(caesium_chloride(frac_coords=[[0, 0, 0], [0.13, 0, 0]]))  # 0.54 angstrom apart
    check(caesium_chloride(frac_coords=[[0, 0, 0], [0.11, 0, 0]], occupancies=[0.5, 0.5]))  # a split site
    check(caesium_chloride(atomic_numbers=[1, 98]))
    check(caesium_chloride(lattice=[[40, 0, 0], [50, 4, 0], [0, 0, 4]]))  # gamma = 4.6 degree, as in long polytypes


def test_too_many_atoms_are_refused():
    n = crystals.MAX_ATOMS + 1
    frac = np.stack(np.meshgrid(*[np.arange(11) / 11] * 3), -1).reshape(-1, 3)[:n]
    crystal = Crystal("big", np.eye(3) * 30.0, np.full(n, 14), frac, np.ones(n))
    with pytest.raises(RejectedCrystal, match="1001 atoms"):
        check(crystal)
    check(replace(crystal, atomic_numbers=np.full(n - 1, 14), frac_coords=frac[1:], occupancies=np.ones(n - 1)))


def test_three_halves_do_not_share_a_site():
    frac = np.array([[0, 0, 0], [0.02, 0, 0], [0, 0.02, 0]])
    crystal = Crystal("split", np.eye(3) * 4.0, np.array([11, 11, 11]), frac, np.full(3, 0.5))
    with pytest.raises(RejectedCrystal, match="overlap"):
        check(crystal)
    check(replace(crystal, occupancies=np.full(3, 1 / 3)))


def test_structure_keeps_partial_occupancies():
    structure = Structure(Lattice.cubic(4), [{"Na": 0.6667, "K": 0.3333}, {"Cl": 0.97}], [[0, 0, 0], [0.5, 0.5, 0.5]])
    crystal = crystal_from_structure(structure, "mixed")
    rows = zip(crystal.atomic_numbers.tolist(), crystal.frac_coords[:, 0].tolist(), crystal.occupancies.tolist())
    assert sorted(rows) == [(11, 0.0, 0.6667), (17, 0.5, 0.97), (19, 0.0, 0.3333)]
    assert crystal.id == "mixed"
    assert np.isclose(crystal.volume, 64)
    assert (crystal.atomic_numbers.dtype, crystal.frac_coords.dtype) == (np.int64, np.float64)


@pytest.mark.parametrize("species", ["D", "X", "Es"])
def test_structure_of_what_is_no_element_is_refused(species):
    structure = Structure(Lattice.cubic(4), [species, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(RejectedCrystal, match={"D": "isotope D", "X": "no element", "Es": "Z = 99"}[species]):
        crystal_from_structure(structure, "bad")


def test_every_reference_crystal_passes(shared_data):
    ids = pq.read_table(shared_data / "mp36k" / "sticks_pymatgen_2024.11.13.parquet", columns=["mp_id"])
    ids = set(ids["mp_id"].to_pylist())
    rows = pq.read_table(shared_data / "mp36k" / "crystals.parquet", filters=[("mp_id", "in", ids)])
    assert len(rows) == len(ids)
    for row in rows.to_pylist():
        cell = lattice_from_cell(*(row[name] for name in ("a", "b", "c", "alpha", "beta", "gamma")))
        numbers, frac = np.array(row["atomic_numbers"]), np.array(row["frac_coords"]).reshape(-1, 3)
        check(Crystal(row["mp_id"], cell, numbers, frac, np.ones(len(numbers))))


def test_symbols_are_those_of_pymatgen_both_ways():
    for z in range(1, elements.MAX_Z + 1):
        assert elements.symbol(z) == Element.from_Z(z).symbol and elements.atomic_number(elements.symbol(z)) == z
    for z in (0, -1, 119):
        with pytest.raises(ValueError, match=f"no element has the atomic number {z}"):
            elements.symbol(z)


@pytest.mark.parametrize(("name", "words"), [("D", "isotope D: write H"), ("T", "isotope T"), ("na", "'na' is no el")])
def test_what_is_no_symbol_is_refused(name, words):
    with pytest.raises(RejectedCrystal, match=words):
        elements.atomic_number(name)


@pytest.mark.parametrize("read", [crystal_from_cif, crystal_from_poscar])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()])
def test_what_is_no_regular_file_is_not_opened(tmp_path, read, make):
    make(tmp_path / "POSCAR")
    with pytest.raises(RejectedCrystal, match="a folder, pipe or device"):
        read(tmp_path / "POSCAR", "odd")


@pytest.mark.parametrize("read", [crystal_from_cif, crystal_from_poscar])
def test_a_file_that_is_too_large_is_not_read(tmp_path, read):
    with open(tmp_path / "large", "wb") as file:
        file.truncate(10**12)
    with pytest.raises(RejectedCrystal, match=r"too large: 1000000\.0 MB"):
        read(tmp_path / "large", "large")


def test_poscar_under_a_name_that_is_no_utf8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/POSCAR_caf\xe9"))
    path.write_text("x\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 1\nDirect\n0 0 0\n.5 .5 .5\n")
    assert crystal_from_poscar(path, "NaCl").atomic_numbers.tolist() == [11, 17]


def test_poscar_with_a_raised_digit_is_refused(tmp_path):
    path = tmp_path / "POSCAR"
    path.write_text("x\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 \u00b2\nDirect\n0 0 0\n.5 .5 .5\n")
    with pytest.raises(RejectedCrystal, match="line 7"):
        crystal_from_poscar(path, "NaCl")
