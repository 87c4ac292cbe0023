"""Known crystals that explain a pattern: symmetry, lines, the library, the search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxlib.candidates.exchange import distances, exchanges
from xxlib.candidates.library import Library, LibraryError, library_of, row_of, save, stoichiometry, volume_of
from xxlib.candidates.lines import families, lines_of
from xxlib.candidates.search import RANGE, _table, search
from xxlib.candidates.standard import reciprocal, standardised
from xxlib.candidates.symmetry import free_parameters, packed_groups, space_group, standard_halls
from test_datasets import rock_salt

from xxlib import PROJECT
from xxlib.crystals.crystal import Crystal, RejectedCrystal, crystal_system
from xxlib.datasets.sources.parquet import parquet
from xxlib.diffraction import patterns
from xxlib.diffraction.scattering import sticks
from xxlib.diffraction.wavelengths import CU_KA

WAVENUMBERS = 2 * np.sin(np.radians(np.array(RANGE) / 2)) / CU_KA


@pytest.fixture(scope="module")
def crystals():
    """Every twentieth crystal of the embedded dataset, of all crystal systems."""
    records = list(parquet(PROJECT / "data" / "demo" / "crystals.parquet").records())[::20]
    whole = [crystal for crystal in (record.crystal() for record in records) if (crystal.occupancies == 1).all()]
    assert len({crystal_system(standardised(crystal).number) for crystal in whole}) == 7
    return whole


@pytest.fixture(scope="module")
def library(crystals):
    return library_of(crystals)[0]


def pattern_of(crystal):
    return patterns.render_one(sticks(crystal))


def asked(crystal):
    return crystal.atomic_numbers, crystal.occupancies


# ---------------------------------------------------------------- symmetry and lines


@pytest.mark.parametrize("number", [1, 2, 14, 15, 62, 70, 88, 141, 148, 167, 176, 194, 205, 225, 227])
def test_families_and_their_multiplicities_are_all_reflections(number):
    """Added up, they are the reflections of the sphere that the centring allows."""
    group = space_group(int(standard_halls()[number]))
    cell = {"cubic": (7, 7, 7, 90, 90, 90), "tetragonal": (6, 6, 8, 90, 90, 90), "triclinic": (5, 6, 7, 80, 95, 100)}
    cell |= {"orthorhombic": (5, 6, 7, 90, 90, 90), "monoclinic": (5, 6, 7, 90, 103, 90)}
    cell |= dict.fromkeys(("trigonal", "hexagonal"), (5, 5, 8, 90, 90, 120))
    metric = reciprocal(np.array(cell[crystal_system(number)]))
    hkl, count = families(metric, group.laue, group.centrings, 0.0, 0.8123)
    reach = np.arange(-12, 13)
    h, k, l = (x.ravel() for x in np.meshgrid(reach, reach, reach))
    g2 = np.stack([h * h, k * k, l * l, k * l, h * l, h * k], 1) @ metric
    phase = np.stack([h, k, l], 1) @ group.centrings.T
    allowed = (np.abs(phase - np.round(phase)) < 1e-3).all(1) & (g2 <= 0.8123**2)
    assert count.sum() == allowed.sum() and len(np.unique(hkl, axis=0)) == len(hkl)


def test_free_parameters_are_those_of_the_system():
    n_free = free_parameters().any(-1).sum(-1)
    numbers = {1: 6, 14: 4, 62: 3, 141: 2, 167: 2, 194: 2, 225: 1}
    assert {number: n_free[number] for number in numbers} == numbers


def test_lines_of_a_library_are_those_of_the_kernel(crystals, library):
    atoms = [library.atomic_numbers.astype(int), library.frac_coords.astype(float)]
    packed = (library.metrics, library.space_groups.astype(int) - 1, atoms[1], atoms[0], np.ones(len(atoms[0])))
    _, g2, intensity, ends = lines_of((*packed, library.offsets), packed_groups(), _table(), CU_KA, *WAVENUMBERS)
    for c, crystal in enumerate(crystals):
        lines = slice(ends[c], ends[c + 1])
        two_theta = 2 * np.degrees(np.arcsin(np.sqrt(g2[lines]) * CU_KA / 2))
        ours = patterns.render(two_theta, intensity[lines], np.array([0, len(two_theta)]))[0]
        expected = pattern_of(crystal)
        cosine = ours @ expected / np.linalg.norm(ours) / np.linalg.norm(expected)
        assert cosine > 0.999, (crystal.id, cosine)


def test_volumes_are_those_of_the_cells(crystals, library):
    per_atom = [crystal.volume / len(crystal.atomic_numbers) for crystal in crystals]
    assert np.allclose(library.volumes / library.n_atoms, per_atom, rtol=1e-4)
    assert volume_of(reciprocal(np.array([4.0, 5, 6, 90, 90, 90]))) == pytest.approx(120)


# ---------------------------------------------------------------- the library


def test_how_a_crystal_is_written_does_not_matter():
    """The primitive cell, another origin, another order of atoms."""
    whole = rock_salt(5.64, 11, 17, "NaCl")
    lattice = 5.64 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    frac = np.array([[0.5, 0.5, 0.5], [0, 0, 0]]) + 0.123
    primitive = Crystal("NaCl", lattice, np.array([17, 11]), frac, np.ones(2))
    (one, first), (other, second) = row_of(whole), row_of(primitive)
    assert first == second and one["amounts"] == other["amounts"] == "1 1" and one["space_group"] == 225
    assert np.allclose(one["cell"], other["cell"]) and sorted(one["multiplicities"]) == sorted(other["multiplicities"])


def test_a_library_on_disk_is_what_was_saved(library, tmp_path):
    save(library, tmp_path)
    again = Library.open(tmp_path)
    assert again.table.equals(library.table) and len(again) == len(library)
    with open(tmp_path / "library.arrow", "r+b") as file:
        file.truncate(200)
    with pytest.raises(LibraryError, match=r"library\.arrow is no library of crystals .*build it anew"):
        Library.open(tmp_path)
    with pytest.raises(LibraryError, match="is no library"):
        Library.open(tmp_path / "nowhere")


def test_what_cannot_be_in_a_library_is_counted():
    mixed = Crystal("x", 4 * np.eye(3), np.array([11, 19]), np.zeros((2, 3)), np.array([0.5, 0.5]))
    library, reasons = library_of([rock_salt(5.0, 3, 9, "a"), mixed])
    assert len(library) == 1 and reasons == {"shared or partly occupied sites": 1}
    with pytest.raises(RejectedCrystal, match="shared"):
        row_of(mixed)


def test_amounts_are_least_whole_ones():
    assert stoichiometry(np.array([8, 8, 8, 22, 38, 8, 8, 8, 22, 38]), np.ones(10)) == ((1, 1, 3), (22, 38, 8))


# ---------------------------------------------------------------- exchanges


@given(st.permutations([11, 19, 37, 17, 35]), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_exchanges_are_by_increasing_cost_and_of_the_formula(elements, most):
    first, second = elements[:2]
    library = library_of([rock_salt(5 + 0.1 * i, *pair, f"r{i}") for i, pair in enumerate(PAIRS)])[0]
    tried = exchanges(library, (1, 1), tuple(sorted((first, second))), most=most, spread=0.0)
    assert len(tried) == min(most, 2 * len(PAIRS)) and (np.diff(tried.costs) >= 0).all()
    assert (np.sort(tried.after, 1) == sorted((first, second))).all()
    again = distances()[tried.before, tried.after].sum(1)
    assert np.allclose(again, tried.costs)


PAIRS = [(3, 9), (11, 17), (19, 35), (37, 53)]


def test_hidden_crystals_are_not_seen(library):
    hidden = np.ones(len(library), bool)
    assert not len(exchanges(library, (1, 1), (11, 17), hidden=hidden))


# ---------------------------------------------------------------- the search


def test_a_crystal_finds_itself(crystals, library):
    """In the lines of its own pattern: first, at a score of 1, with its own cell."""
    for c in range(0, len(crystals), 6):
        crystal = crystals[c]
        matches = search(library, pattern_of(crystal), *asked(crystal))
        assert matches.scores[0] > 0.995, crystal.id
        own = np.flatnonzero((matches.crystals == c) & (matches.costs == 0))[0]
        assert matches.scores[own] > matches.scores[0] - 2e-3
        assert matches.volumes[own] == pytest.approx(crystal.volume / len(crystal.atomic_numbers), rel=5e-4)


def test_an_isotype_explains_a_formula_that_nobody_knows():
    """NaCl from KBr, LiF and CsCl: elements exchanged, the cell scaled, the structure told from the other."""
    caesium = Crystal("CsCl", 4.12 * np.eye(3), np.array([55, 17]), np.array([[0, 0, 0], [0.5] * 3]), np.ones(2))
    library = library_of([rock_salt(6.6, 19, 35, "KBr"), rock_salt(4.03, 3, 9, "LiF"), caesium])[0]
    matches = search(library, pattern_of(rock_salt(5.64, 11, 17, "NaCl")), np.array([11, 17]), np.ones(2))
    assert library.space_groups[matches.crystals[0]] == 225 and matches.scores[0] > 0.99
    assert matches.after[0].tolist() in ([11, 17], [17, 11]) and matches.costs[0] > 0
    a = matches.metrics[0, 0] ** -0.5
    assert a == pytest.approx(5.64, rel=1e-4)
    other = library.space_groups[matches.crystals] == 221
    assert matches.scores[other].max() < 0.8


def test_the_order_of_the_library_does_not_matter(crystals):
    crystal = crystals[3]
    orders = [crystals[:40], crystals[:40][::-1]]
    results = [search(library_of(order)[0], pattern_of(crystal), *asked(crystal)) for order in orders]
    assert np.allclose(results[0].scores[:5], results[1].scores[:5], atol=1e-6)


def test_no_crystal_of_the_amounts_is_no_match(library, crystals):
    matches = search(library, pattern_of(crystals[0]), np.array([11, 17]), np.array([7, 13]))
    assert len(matches.scores) == len(matches.crystals) == 0
