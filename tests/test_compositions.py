"""Compositions: formula and crystal give the same elements and fractions; what is no formula says so."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from xxlib.crystals.compositions import composition_of_crystal, composition_of_formula, reduced_formula
from xxlib.crystals.crystal import Crystal


@pytest.mark.parametrize(
    ("formula", "amounts"),
    [
        ("LaMnO3", {57: 1, 25: 1, 8: 3}),
        ("O3MnLa", {57: 1, 25: 1, 8: 3}),
        ("Si", {14: 1}),
        ("CoO", {27: 1, 8: 1}),
        ("COO", {6: 1, 8: 2}),
        ("Li0.5FeO2", {3: 0.5, 26: 1, 8: 2}),
        ("Fe.5Ni.5", {26: 1, 28: 1}),
        ("YBa2Cu3O6.93", {39: 1, 56: 2, 29: 3, 8: 6.93}),
        ("Ca(OH)2", {20: 1, 8: 2, 1: 2}),
        ("(La0.7Sr0.3)MnO3", {57: 0.7, 38: 0.3, 25: 1, 8: 3}),
        ("CuSO4(H2O)5", {29: 1, 16: 1, 8: 9, 1: 10}),
        ("Al2(SiO3(OH)2)2", {13: 2, 14: 2, 8: 10, 1: 4}),
        ("Fe 2 O 3", {26: 2, 8: 3}),
    ],
)
def test_formula(formula, amounts):
    element_ids, fractions = composition_of_formula(formula)
    assert (element_ids.dtype, fractions.dtype) == (np.uint8, np.float32)
    assert element_ids.tolist() == sorted(amounts)
    total = sum(amounts.values())
    assert np.allclose(fractions, [amounts[z] / total for z in sorted(amounts)], rtol=1e-6)
    assert np.isclose(fractions.sum(dtype=np.float64), 1, atol=1e-6)


@pytest.mark.parametrize(
    "formula",
    [
        "LaMno3",
        "",
        " ",
        "Xx2",
        "X",
        "fe2o3",
        "NaCl+",
        "Na-1Cl",
        "Fe(",
        "2LaMnO3",
        "12",
        "O0",
        "CuSO4*5H2O",
        "Fe,O",
        None,
    ],
)
def test_what_is_no_formula_is_named(formula):
    with pytest.raises(ValueError) as caught:
        composition_of_formula(formula)
    assert str(caught.value).startswith(repr(formula))
    assert "LaMnO3" in str(caught.value)  # how to write it


@pytest.mark.parametrize("formula", ["D2O", "T2", "LiD", "HDO"])
def test_isotopes_are_not_hydrogen(formula):
    with pytest.raises(ValueError, match=f"'{formula}': isotope"):
        composition_of_formula(formula)


@pytest.mark.parametrize("formula", ["CuSO4.5H2O", "Na2CO3.10H2O", "CaSO4.0.5H2O", "CuSO4.5(H2O)"])
def test_hydrate_is_not_a_decimal(formula):
    with pytest.raises(ValueError, match=r"hydrate|no chemical formula") as caught:
        composition_of_formula(formula)
    assert repr(formula) in str(caught.value)


def test_crystal_and_formula_agree():
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 0]])
    numbers, occupancies = np.array([57, 25, 8, 8, 8, 38]), np.array([0.7, 1, 1, 1, 0.9, 0.3])
    found = composition_of_crystal(Crystal("LSMO", np.eye(3) * 3.9, numbers, frac, occupancies))
    expected = composition_of_formula("La0.7Sr0.3MnO2.9")
    for ours, formula in zip(found, expected):
        assert ours.dtype == formula.dtype
        assert np.allclose(ours, formula, rtol=1e-6)


def test_order_of_atoms_does_not_matter():
    numbers = np.array([8, 57, 8, 25, 8])
    for order in ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2], [4, 3, 2, 1, 0]):
        crystal = Crystal("x", np.eye(3) * 3.9, numbers[order], np.zeros((5, 3)), np.ones(5))
        element_ids, fractions = composition_of_crystal(crystal)
        assert element_ids.tolist() == [8, 25, 57]
        assert np.allclose(fractions, [0.6, 0.2, 0.2])


@pytest.mark.parametrize(
    ("formula", "reduced"),
    [
        ("LaMnO3", "LaMnO3"),
        ("La4Mn4O12", "LaMnO3"),
        ("O3MnLa", "LaMnO3"),
        ("Al2O", "Al2O"),
        ("Li2O5", "Li2O5"),
        ("Fe3O4", "Fe3O4"),
        ("Al34Fe13", "Al34Fe13"),
        ("Na40Cl39", "Na40Cl39"),
        ("Ca10P6O26H2", "Ca5P3HO13"),
        ("Li0.5FeO2", "Li(FeO2)2"),
        ("Fe0.5Ni0.5", "FeNi"),
        ("Si", "Si"),
        ("O", "O2"),  # as pymatgen writes the gases
        ("Fe0.123Ni0.877", "Fe0.123Ni0.877"),
        ("Fe0.61Ni0.273Cr0.117", "Cr0.117Fe0.61Ni0.273"),
    ],
)
def test_reduced_formula(formula, reduced):
    assert reduced_formula(*composition_of_formula(formula)) == reduced


@pytest.mark.parametrize("trace", [2e-5, 3e-5, 3.7e-5, 4.321e-4])
def test_a_trace_stays_in_the_reduced_formula(trace):
    reduced = reduced_formula(*composition_of_formula(f"Si{1 - trace:.8f}P{trace:.8f}"))
    element_ids, fractions = composition_of_formula(reduced)
    assert element_ids.tolist() == [14, 15]
    assert np.isclose(fractions[1], trace, rtol=1e-3)


def test_reduced_formula_is_that_of_the_source(shared_data):
    columns = ["atomic_numbers", "reduced_formula"]
    rows = pq.read_table(shared_data / "mp36k" / "crystals.parquet", columns=columns)[::70].to_pylist()
    for row in rows:
        n = len(row["atomic_numbers"])
        crystal = Crystal("x", np.eye(3), np.array(row["atomic_numbers"]), np.zeros((n, 3)), np.ones(n))
        assert reduced_formula(*composition_of_crystal(crystal)) == row["reduced_formula"]
