"""Known crystals that explain a pattern: symmetry, lines, the library, the search."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_datasets import rock_salt

from xxlib import PROJECT
from xxlib import library as library_command
from xxlib.candidates.exchange import distances, exchanges
from xxlib.candidates.explanation import NothingToExplain, explain, second_phase
from xxlib.candidates.fingerprints import fingerprints, likeliest
from xxlib.candidates.known import KINDS, KnownCrystals, read_rankings, write_rankings
from xxlib.candidates.library import (
    Library,
    LibraryError,
    formula_key,
    library_of,
    row_of,
    save,
    stoichiometry,
    volume_of,
)
from xxlib.candidates.lines import families, lines_of
from xxlib.candidates.observed import Observed
from xxlib.candidates.ranking import FEATURES, NONE_FEATURES, Ranking
from xxlib.candidates.search import RANGE, scattering_table, search
from xxlib.candidates.standard import cell_of, reciprocal, standardised
from xxlib.candidates.stoichiometries import whole_amounts
from xxlib.candidates.symmetry import free_parameters, packed_groups, space_group, standard_halls
from xxlib.crystals.compositions import composition_of_formula
from xxlib.crystals.crystal import Crystal, RejectedCrystal, cell_from_lattice, crystal_system
from xxlib.crystals.crystal import space_group as space_group_of
from xxlib.datasets.sources.files import cif_folder
from xxlib.datasets.sources.parquet import parquet
from xxlib.diffraction import patterns
from xxlib.diffraction.scattering import sticks
from xxlib.diffraction.wavelengths import CU_KA
from xxlib.prepare import prepare
from xxlib.scans.samples import read_sample

WAVENUMBERS = 2 * np.sin(np.radians(np.array(RANGE) / 2)) / CU_KA
# As a fitted one, roughly: who fits better and has fewer free parameters is likelier.
WEIGHTS = {"misfit": -1.5, "behind the best fit": -3.0, "free cell parameters": -0.3, "exchange": -0.05}
RANKING = Ranking(
    tuple(WEIGHTS.get(name, 0.0) for name in FEATURES),
    tuple({"least misfit": 1.5, "always": 3.0}.get(name, 0.0) for name in NONE_FEATURES),
)


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


def found(library, crystal, pattern=None, **given):
    """Matches of a crystal's pattern, or of another, among crystals of its stoichiometry."""
    pattern = pattern_of(crystal) if pattern is None else pattern
    tried = exchanges(library, *stoichiometry(crystal.atomic_numbers, crystal.occupancies), **given)
    return search(library, Observed.of(pattern), tried)


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
    atoms = [library.atomic_numbers.astype(int), library.frac_coords(slice(None))]
    packed = (library.metrics, library.space_groups.astype(int) - 1, atoms[1], atoms[0], np.ones(len(atoms[0])))
    _, g2, intensity, ends = lines_of(
        (*packed, library.offsets), packed_groups(), scattering_table(), CU_KA, *WAVENUMBERS
    )
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
    assert first == second and one["space_group"] == 225 and np.allclose(one["cell"], other["cell"])
    amounts = [sorted((atom["z"], atom["multiplicity"]) for atom in row["atoms"]) for row in (one, other)]
    assert amounts[0] == amounts[1] == [(11, 4), (17, 4)]
    assert len(library_of([whole, primitive])[0]) == 1, "one crystal, written twice"


def test_coordinates_are_stored_to_a_part_of_the_cell(crystals, library):
    """A library keeps places to 1e-4 angstrom, 1/3 and 1/8 exactly."""
    standard = standardised(crystals[0])
    own = slice(library.offsets[0], library.offsets[1])
    assert np.abs(library.frac_coords(own) - standard.frac_coords % 1).max() < 1e-5
    thirds = library_of([rock_salt(5.0, 3, 9, "a")])[0]
    assert set(thirds.frac_coords(slice(None)).ravel().tolist()) <= {0.0, 0.5}


def test_formulas_and_keys_are_those_of_the_crystals(crystals, library):
    for c in range(0, len(crystals), 9):
        amounts, elements = stoichiometry(crystals[c].atomic_numbers, crystals[c].occupancies)
        assert library.formula_keys[c] == formula_key(amounts, elements)
        some, their_elements = library.of_amounts(amounts)
        assert c in some and tuple(their_elements[some.tolist().index(c)]) == elements
        assert c in library.within(elements) and c not in library.within(elements[1:])
    assert len(np.unique(library.formula_keys)) == len({library.formula(c) for c in range(len(library))})


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
    """A site that is mostly empty; one that is shared counts as its commonest element."""
    half = Crystal("x", 4 * np.eye(3), np.array([11]), np.zeros((1, 3)), np.array([0.5]))
    shared = Crystal("y", 4 * np.eye(3), np.array([11, 19]), np.zeros((2, 3)), np.array([0.2, 0.8]))
    library, reasons = library_of([rock_salt(5.0, 3, 9, "a"), half, shared])
    assert [library.formula(c) for c in range(len(library))] == ["LiF", "K"]
    assert reasons == {"a site that is empty in more than 40% of the cells": 1}
    with pytest.raises(RejectedCrystal, match="empty"):
        row_of(half)
    with pytest.raises(LibraryError, match="no crystal"):
        library_of([half])


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
    """In the lines of its own pattern: at a score of 1, with its own cell within 1e-4.

    Where a cell of low symmetry is nearly one of high symmetry, its lengths change places in the lines: within 2e-4.
    """
    for c in range(0, len(crystals), 6):
        matches = found(library, crystals[c])
        own = np.flatnonzero((matches.crystals == c) & (matches.costs == 0))[0]
        assert matches.scores[own] > 0.9985 and matches.scores[own] > matches.scores[0] - 1e-3, crystals[c].id
        expected = cell_from_lattice(standardised_lattice(crystals[c]))
        close = 1e-4 if matches.n_free[own] < 4 else 2e-4
        assert np.allclose(cell_of(matches.metrics[own]), expected, rtol=close), crystals[c].id
        assert matches.space_groups[own] == space_group_of(crystals[c])


def standardised_lattice(crystal):
    import spglib

    return spglib.get_symmetry_dataset(
        (crystal.lattice, crystal.frac_coords, crystal.atomic_numbers), symprec=0.1
    ).std_lattice


def test_an_isotype_explains_a_formula_that_nobody_knows():
    """NaCl from KBr, LiF and CsCl: elements exchanged, the cell scaled, the structure told from the other."""
    caesium = Crystal("CsCl", 4.12 * np.eye(3), np.array([55, 17]), np.array([[0, 0, 0], [0.5] * 3]), np.ones(2))
    library = library_of([rock_salt(6.6, 19, 35, "KBr"), rock_salt(4.03, 3, 9, "LiF"), caesium])[0]
    matches = found(library, rock_salt(5.64, 11, 17, "NaCl"))
    assert matches.space_groups[0] == 225 and matches.scores[0] > 0.999
    assert matches.after[0].tolist() in ([11, 17], [17, 11]) and matches.costs[0] > 0
    assert matches.metrics[0, 0] ** -0.5 == pytest.approx(5.64, rel=1e-4)
    others = matches.scores[matches.space_groups == 221]
    assert not len(others) or others.max() < 0.8


def test_atoms_are_refined_where_symmetry_leaves_them_free():
    """Rutile with oxygen at u = 0.305 is found from one at 0.32, and its atoms end where they are."""

    def rutile(a, c, u, metal, id):
        places = [[0, 0, 0], [0.5] * 3, [u, u, 0], [-u, -u, 0], [0.5 + u, 0.5 - u, 0.5], [0.5 - u, 0.5 + u, 0.5]]
        numbers = np.array([metal, metal, 8, 8, 8, 8])
        return Crystal(id, np.diag([a, a, c]), numbers, np.array(places) % 1, np.ones(6))

    library = library_of([rutile(4.74, 3.19, 0.32, 50, "SnO2")])[0]
    true = rutile(4.594, 2.959, 0.305, 22, "TiO2")
    explanation = explain(library, RANKING, Observed.of(pattern_of(true)), composition=composition_of_formula("TiO2"))
    assert explanation.matches.scores[0] > 0.9995 and explanation.none < 0.2
    table = explanation.table()
    assert table.exchange[0] == "Sn -> Ti" and table.space_group[0] == 136
    assert table.a[0] == pytest.approx(4.594, rel=1e-4) and table.c[0] == pytest.approx(2.959, rel=1e-4)
    structure = explanation.structure(1)
    oxygen = [site.frac_coords for site in structure if site.specie.symbol == "O"]
    free = np.array(oxygen).ravel() % 1
    assert np.abs(free - 0.305).min() < 0.002 < np.abs(free - 0.32).min()
    assert "P4_2/mnm" in explanation.cif(1) and "_cell_length_a   4.59" in explanation.cif(1)


def test_a_cell_in_the_wrong_symmetry_comes_to_the_right_one():
    """A cubic crystal that a library holds as tetragonal, distorted by 3 %, is said to be cubic once it is refined."""
    distorted = Crystal(
        "t", np.diag([5.6, 5.6, 5.77]), *dataclasses.astuple(rock_salt(5.6, 11, 17, "x"))[2:]
    )  # fmt: skip
    matches = found(library_of([distorted])[0], rock_salt(5.64, 11, 17, "NaCl"))
    assert matches.n_free[0] == 2 and matches.space_groups[0] == 225


def test_a_shift_of_the_angles_is_no_change_of_the_cell():
    true = rock_salt(5.64, 11, 17, "NaCl")
    lines = sticks(true)
    offsets = np.array([0, len(lines.two_theta)])
    shifted = patterns.render(lines.two_theta, lines.intensity, offsets, shift=0.08)[0]
    noise = np.random.default_rng(0).normal(0, 0.1, len(shifted))
    matches = found(library_of([rock_salt(5.5, 11, 17, "a")])[0], true, np.maximum(shifted + noise, 0))
    assert matches.shifts[0] == pytest.approx(0.08, abs=0.01)
    assert matches.metrics[0, 0] ** -0.5 == pytest.approx(5.64, rel=2e-4)


def test_the_order_of_the_library_does_not_matter(crystals):
    crystal = crystals[3]
    results = [found(library_of(order)[0], crystal) for order in (crystals[:40], crystals[:40][::-1])]
    assert np.allclose(results[0].scores[:5], results[1].scores[:5], atol=1e-6)


def test_no_crystal_of_the_amounts_is_no_match(library, crystals):
    matches = search(library, Observed.of(pattern_of(crystals[0])), exchanges(library, (7, 13), (11, 17)))
    assert len(matches) == len(matches.scores) == 0


# ---------------------------------------------------------------- explanations


@pytest.fixture(scope="module")
def known(library):
    return KnownCrystals(library, dict.fromkeys(KINDS, RANKING))


def test_nothing_known_but_the_lines(crystals, library):
    prints = fingerprints(library)
    for c in range(0, len(crystals), 11):
        observed = Observed.of(pattern_of(crystals[c]))
        assert c in likeliest(library, prints, observed, 10).crystals, crystals[c].id
        explanation = explain(library, RANKING, observed, prints=prints)
        assert explanation.setting == "nothing known" and explanation.table().id[0] == crystals[c].id


def test_elements_known(crystals, library):
    observed, elements = Observed.of(pattern_of(crystals[7])), set(crystals[7].atomic_numbers.tolist())
    explanation = explain(library, RANKING, observed, elements=elements, prints=fingerprints(library))
    table = explanation.table()
    assert explanation.setting == "elements known" and table.id[0] == crystals[7].id and not table.exchange.any()
    assert set(table.columns) >= {"probability", "space_group", "a_error", "lines_absent", "source"}
    assert table.attrs["units"]["a"] == "angstrom" and table.probability.sum() + table.attrs["none_of_these"] < 1 + 1e-9
    assert table.lines_unexplained[0] == 0 and table.lines_absent[0] == 0


def test_a_second_phase_is_named(crystals):
    """Four parts of NaCl and one of silicon, as a pattern."""
    silicon = Crystal(
        "Si", 5.43 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), np.array([14, 14]),
        np.array([[0, 0, 0], [0.25] * 3]), np.ones(2),
    )  # fmt: skip
    salt = rock_salt(5.64, 11, 17, "NaCl")
    library = library_of([*crystals[:30], salt, silicon])[0]
    mixture = pattern_of(salt) + 0.25 * pattern_of(silicon)
    first = explain(library, RANKING, Observed.of(mixture), composition=composition_of_formula("NaCl"))
    assert first.table().id[0] == "NaCl" and len(first.unexplained(1)) >= 3
    rest, share = second_phase(library, RANKING, first, (14,), fingerprints(library))
    assert rest.table().id[0] == "Si" and 0.1 < share < 0.3
    alone = explain(library, RANKING, Observed.of(pattern_of(salt)), composition=composition_of_formula("NaCl"))
    assert second_phase(library, RANKING, alone, (14,), fingerprints(library)) == (None, 0.0)


def test_what_has_no_lines_is_not_explained(known):
    with pytest.raises(NothingToExplain, match="lines stand out of the noise"):
        known.explain(read_sample("NaCl", 100 * np.exp(-((patterns.TWO_THETA - 25) ** 2) / 50)))
    with pytest.raises(NothingToExplain, match="give a pattern"):
        known.explain(read_sample("NaCl"))


def test_none_of_these_is_an_answer(known, crystals):
    """No crystal of the formula's amounts at all, and lines that no crystal of it has."""
    lines = read_sample("Ba2Ti3Mn5O7Cl11Br13", pattern_of(crystals[0]))
    explanation = known.explain(lines)
    assert len(explanation) == 0 and explanation.none == 1.0 and not len(explanation.table())
    assert "none of them: 100%" in repr(explanation)


@pytest.mark.parametrize(
    "formula, first, words",
    [
        ("LaMnO3", (1, 1, 3), ""), ("Ca10P6O26H2", (1, 3, 5, 13), ""), ("Mg0.95Fe0.05O", (1, 1), "searched as MgO"),
        ("Na0.33V2O5", (1, 6, 15), ""), ("YBa2Cu3O6.95", (1, 2, 3, 7), "searched as"),
    ],
)  # fmt: skip
def test_decimals_are_searched_as_the_nearest_whole_amounts(formula, first, words):
    found = {amounts: note for amounts, _, note in whole_amounts(*composition_of_formula(formula))}
    assert first in found and words in found[first] and bool(words) == bool(found[first])


def test_ranking_learns_who_is_right():
    """Right is the candidate whose first feature is largest, and none where the sample's own feature says so.

    The last feature of candidates is the same for all, but for rounding.
    """
    rng, samples = np.random.default_rng(0), []
    for _ in range(300):
        table, none = rng.normal(size=(5, 3)), np.array([rng.normal(), 1.0])
        table[:, 2] = 7.3 + 1e-15 * rng.integers(2, size=5)
        right = np.zeros(5, bool)
        if none[0] < 0.5:
            right[table[:, 0].argmax()] = True
        samples.append((table, none, right))
    fitted, hits = Ranking.fit(samples[:200]), []
    for table, none, right in samples[200:]:
        shares, rest = fitted.probabilities(table, none)
        assert shares.sum() + rest == pytest.approx(1)
        hits.append(np.append(shares, rest).argmax() == (right.argmax() if right.any() else 5))
    assert np.mean(hits) > 0.85


def test_rankings_on_disk(tmp_path):
    write_rankings(tmp_path, dict.fromkeys(KINDS, RANKING))
    assert read_rankings(tmp_path / "ranking.json") == dict.fromkeys(KINDS, RANKING)
    content = (tmp_path / "ranking.json").read_text()
    for damaged in ("{", "[]", content.replace('"misfit"', '"other"'), content.replace("-1.5", '"x"'), content[:-40]):
        (tmp_path / "ranking.json").write_text(damaged)
        with pytest.raises(LibraryError, match=r"ranking\.json does not say how candidates are ranked"):
            read_rankings(tmp_path / "ranking.json")


# ---------------------------------------------------------------- the command


def test_a_library_of_a_dataset_and_of_files(tmp_path, capsys):
    from pymatgen.core import Lattice, Structure

    files = tmp_path / "cifs"
    files.mkdir()
    for a, symbol in ((5.64, "Na"), (6.29, "K")):
        Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [symbol, "Cl"], [[0, 0, 0], [0.5] * 3]).to(
            str(files / f"{symbol}.cif"), fmt="cif"
        )
    (files / "broken.cif").write_text("data_x\nloop_\n_atom_site_label\n")
    prepare(cif_folder(files), tmp_path / "dataset", structure=True, n_workers=1, progress=False)
    library_command.main([str(tmp_path / "dataset"), str(files), str(tmp_path / "library"), "--workers", "1"])
    printed = capsys.readouterr().out
    assert "2 crystals of 1 structure types" in printed and "of the formula, type and volume of another" in printed
    library = Library.open(tmp_path / "library")
    assert [library.formula(c) for c in range(2)] == ["KCl", "NaCl"] and library.source(0) == "cifs"
    (files / "Na.cif").unlink()
    Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.14), ["Li", "Cl"], [[0, 0, 0], [0.5] * 3]).to(
        str(files / "Li.cif"), fmt="cif"
    )
    library_command.main([str(tmp_path / "library"), str(files), str(tmp_path / "more"), "--workers", "1"])
    assert "3 crystals of 1 structure types" in capsys.readouterr().out  # KCl of the files is that of the library
    more = Library.open(tmp_path / "more")
    assert [more.formula(c) for c in range(3)] == ["KCl", "NaCl", "LiCl"] and more.source(2) == "cifs"
    assert more.table.slice(0, 2).drop_columns("type") == library.table.drop_columns("type")
    for source, words in (
        (tmp_path / "nowhere", "holds no .cif file"),
        (PROJECT / "data" / "demo", "holds no structures"),
    ):
        with pytest.raises(SystemExit, match=words):
            library_command.main([str(source), str(tmp_path / "other")])
    prepare(cif_folder(files), tmp_path / "flat", n_workers=1, progress=False)
    with pytest.raises(SystemExit, match="prepare it again with --structure"):
        library_command.main([str(tmp_path / "flat"), str(tmp_path / "other")])
