"""Compositions: formula and crystal give the same elements and fractions; what is no formula says so."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Composition

from xxlib.crystals.compositions import (
    atoms_of_formula,
    composition_of_crystal,
    composition_of_formula,
    reduced_formula,
)
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


# As printed -> the same in plain symbols and amounts.
PRINTED = {
    # subscripts, markup, phases
    "Fe₂O₃": "Fe2O3",
    "Mg₃Si₄O₁₀(OH)₂": "Mg3Si4O12H2",
    "Fe_2O_3": "Fe2O3",
    "Fe_{2}O_{3}": "Fe2O3",
    r"$\mathrm{Fe_2O_3}$": "Fe2O3",
    r"\alpha-Fe_2O_3": "Fe2O3",
    "Fe<sub>2</sub>O<sub>3</sub>": "Fe2O3",
    "α-Al2O3": "Al2O3",
    "β-Ga2O3": "Ga2O3",
    "γ′-Ni3Al": "Ni3Al",
    "alpha-Fe2O3": "Fe2O3",
    "4H-SiC": "SiC",
    "2H-MoS2": "MoS2",
    "1T'-WTe2": "WTe2",
    "t-ZrO2": "ZrO2",
    "g-C3N4": "C3N4",
    "NaCl(s)": "NaCl",
    "Fe2O3.": "Fe2O3",
    "ＮａＣｌ": "NaCl",
    # compounds joined by a dot
    "CuSO4·5H2O": "CuSO9H10",
    "CuSO4 · 5 H2O": "CuSO9H10",
    "CuSO4•5H2O": "CuSO9H10",
    "CuSO4*5H2O": "CuSO9H10",
    "CuSO4 x 5H2O": "CuSO9H10",
    "CuSO4 . 5H2O": "CuSO9H10",
    "CuSO4.5H2O": "CuSO9H10",
    "CuSO4.5(H2O)": "CuSO9H10",
    "CuSO4.(H2O)5": "CuSO9H10",
    "CuSO4.H2O": "CuSO5H2",
    "Na2CO3.10H2O": "Na2CO13H20",
    "CaSO4·½H2O": "CaSO4.5H",
    "CaSO4.½H2O": "CaSO4.5H",
    "CaSO4.0.5H2O": "CaSO4.5H",
    "CaSO4.1/2H2O": "CaSO4.5H",
    "NiCl2.6H2O": "NiCl2O6H12",
    "MgCl2.6(H2O)": "MgCl2O6H12",
    "V2O5.2H2O": "V2O7H4",
    "Na2CO3.1.5H2O2": "Na2CO6H3",
    "KAl(SO4)2.12H2O": "KAlS2O20H24",
    "KAl(SO₄)₂·12H₂O": "KAlS2O20H24",
    "K4[Fe(CN)6].3H2O": "K4FeC6N6H6O3",
    "Ca(NO3)2.4H2O": "CaN2O10H8",
    "H4SiW12O40.5H2O": "SiW12O45H14",
    "Na2O.2SiO2": "Na2Si2O5",
    "BaO.6Fe2O3": "BaFe12O19",
    "CaO.2Al2O3": "CaAl4O7",
    "Bi2O3.3Nb2O5": "Bi2Nb6O18",
    "NiCl2.6NH3": "NiCl2N6H18",
    "CaCl2.4CH3OH": "CaCl2C4H16O4",
    "FeO.Fe2O3": "Fe3O4",
    "Al2O3.2SiO2.2H2O": "Al2Si2O9H4",
    "3MgO.4SiO2.H2O": "Mg3Si4O12H2",
    "4MgCO3.Mg(OH)2.4H2O": "Mg5C4O18H10",
    "12CaO.7Al2O3": "Ca12Al14O33",
    "Y2O3.2BaCO3.3CuO": "Y2Ba2C2Cu3O12",
    "(NH4)6Mo7O24.4H2O": "N6H32Mo7O28",
    "H3PO4.12WO3": "H3PW12O40",
    "Na2S.9H2O": "Na2SH18O9",
    "WO3.0.33H2O": "WO3.33H0.66",
    "KCl.MgCl2.6H2O": "KMgCl3H12O6",
    "LiF.BeF2": "LiBeF3",
    "2LiF.BeF2": "Li2BeF4",
    "K2O.Al2O3.6SiO2": "K2Al2Si6O16",
    "3CaO.Al2O3.6H2O": "Ca3Al2O12H12",
    "3CaO.2SiO2.3H2O": "Ca3Si2O10H6",
    "4CaO·Al2O3·13H2O": "Ca4Al2O20H26",
    "K2SO4·Al2(SO4)3·24H2O": "K2Al2S4O40H48",
    "MgO.0.9Al2O3.0.1Cr2O3": "MgAl1.8Cr0.2O4",
    "0.9Bi0.5Na0.5TiO3·0.1BaTiO3": "Bi0.45Na0.45Ba0.1TiO3",
    # dots of numbers
    "Fe.5Ni.5": "FeNi",
    "PbZr.52Ti.48O3": "PbZr0.52Ti0.48O3",
    "Na3Zr2Si2.2P0.8O12": "Na15Zr10Si11P4O60",
    "Y3Al2.5Ga2.5O12": "Y6Al5Ga5O24",
    "Li9.54Si1.74P1.44S11.7Cl0.3": "Li954Si174P144S1170Cl30",
    "Li1.2Mn0.54Ni0.13Co0.13O2": "Li120Mn54Ni13Co13O200",
    "Ca10(PO4)5.5(CO3)0.5(OH)1.5": "Ca10P5.5C0.5O25H1.5",
    "CsPbI2.49Br0.51": "Cs100Pb100I249Br51",
    "TiO1.5N0.5": "Ti2O3N",
    "Mg3Si4O9.5(OH)1.5": "Mg3Si4O11H1.5",
    "Sr.9Ca.1TiO3": "Sr0.9Ca0.1TiO3",
    "LiNi₀.₈Co₀.₁Mn₀.₁O₂": "LiNi0.8Co0.1Mn0.1O2",
    "Bi1.6Pb0.4Sr2Ca2.1Cu3O10": "Bi1.6Pb0.4Sr2Ca2.1Cu3O10",
    "Li6.4La3Zr1.4Ta0.6O12": "Li6.4La3Zr1.4Ta0.6O12",
    "(Pb1/3Sr2/3)(Ti0.5,Zr0.5)O3": "Pb0.33333333Sr0.66666667Ti0.5Zr0.5O3",
    "(La1/2,Sr1/2)MnO3": "La0.5Sr0.5MnO3",
    "La0·7Sr0·3MnO3": "La0.7Sr0.3MnO3",
    "YBa2Cu3O6.93(2)": "YBa2Cu3O6.93",
    "La2/3Sr1/3MnO3": "La2SrMn3O9",
    "Ba(Zn1/3Ta2/3)O3": "Ba3ZnTa2O9",
    "LiNi1/3Mn1/3Co1/3O2": "Li3NiMnCoO6",
    # brackets and lists
    "K3[Fe(CN)6]": "K3FeC6N6",
    "[Co(NH3)6]Cl3": "CoN6H18Cl3",
    "{Y3}[Al2](Al3)O12": "Y3Al5O12",
    "(La0.7,Sr0.3)MnO3": "La0.7Sr0.3MnO3",
    "Pb(Zr0.52, Ti0.48)O3": "PbZr0.52Ti0.48O3",
    "CH3NH3PbI3": "CNH6PbI3",
    # oxidation states, charges of atoms, vacancies
    "Fe(II)O": "FeO",
    "Fe(III)2O3": "Fe2O3",
    "Fe2(III)O3": "Fe2O3",
    "Cu(II)SO4·5H2O": "CuSO9H10",
    "Fe(II)Fe(III)2O4": "Fe3O4",
    "Fe(3+)2O3": "Fe2O3",
    "Fe³⁺₂O₃": "Fe2O3",
    "LiFe²⁺PO₄": "LiFePO4",
    "Ca²⁺CO₃²⁻": "CaCO3",
    "Na⁺Cl⁻": "NaCl",
    "Li0.5□0.5CoO2": "LiCo2O4",
    "Li0.5[]0.5CoO2": "LiCo2O4",
}


@pytest.mark.parametrize("formula", PRINTED)
def test_printed_formula(formula):
    found, expected = composition_of_formula(formula), composition_of_formula(PRINTED[formula])
    assert found[0].tolist() == expected[0].tolist()
    assert np.allclose(found[1], expected[1], rtol=1e-5)


# What is refused -> the mark that is in the way, and what may be meant.
REFUSED = {
    # an amount is open
    "LaMnO3-δ": "'3-δ' leaves an amount open",
    "LaFeO₃₋δ": "'3-δ' leaves an amount open",
    "YBa2Cu3O6+x": "'6+x' leaves an amount open",
    "YBa₂Cu₃O₇₋ₓ": "'7-x' leaves an amount open",
    "La1-xSrxMnO3": "'1-x' leaves an amount open",
    "LixCoO2": "'x' leaves an amount open",
    "CuSO4·nH2O": "'n' leaves an amount open",
    "CuSO4.xH2O": "'x' leaves an amount open",
    "(Mg,Fe)2SiO4": "how much there is of each of Mg,Fe",
    "Fe~0.95O": "'~'",
    "(La0.7,Sr)MnO3": "how much there is of each of La0.7,Sr",
    "(Na2,K)AlSi3O8": "how much there is of each of Na2,K",
    "NaCl, KCl": "how much there is of each of NaCl, KCl",
    "Cu1.5±0.1O": "'±' (plus-minus sign)",
    # several phases
    "BaTiO3@SiO2": "'@' joins two phases (core and shell)",
    "TiO2/SiO2": "'/' joins two phases",
    "Pt/C": "'/' joins two phases",
    "Na2SO4/10H2O": "'/' may join two phases",
    "BaTiO3-CaTiO3": "joins compounds",
    "0.9PMN-0.1PT": "joins compounds",
    "Ti-6Al-4V": "joins compounds",
    "MoS2|WS2": "'|' joins two phases",
    "Y2O3:Eu": "':' before a dopant",
    "Al₂O₃:Cr³⁺": "':' before a dopant",
    "5%Fe2O3": "'%' is a share",
    # ions, isotopes, states
    "Fe3+": "'+' is a charge",
    "SO42-": "'-' is a charge",
    "SO₄²⁻": "an ion with a charge",
    "Mn²⁺": "an ion with a charge",
    "[Fe(CN)6]4-": "'-' is a charge",
    "Fe3+2O3": "'+' is a charge",
    "²H₂O": "raises a number",
    "H²O": "raises a number",
    "7LiF": "begins with a number (or an isotope)",
    "Cu(I)2O": "'(I)' may be an oxidation state or an element",
    "BaTi(V)O3": "'(V)' may be an oxidation state or an element",
    "H2O(l)": "a liquid",
    "NaCl(aq)": "a solution",
    "a-Si": "amorphous",
    # abbreviations and words
    "Zn(OAc)2": "'(OAc)' means actinium",
    "PZT": "'Z' is no element",
    "LSMO": "'L' is no element",
    "M2O3": "'M' is no element",
    "iron oxide": "has no capital letter",
    "TiO2 rutile": "'rutile' is a word",
    "TiO2 (anatase)": "'anatase' is a word",
    # slips
    "PbZr0,52Ti0,48O3": "did you mean PbZr0.52Ti0.48O3?",
    "FE2O3": "did you mean Fe2O3?",
    "TIO2": "did you mean TiO2?",
    "NACL": "did you mean NaCl?",
    "fe2o3": "did you mean Fe2O3?",
    "nacl": "did you mean NaCl?",
    "LaMno3": "did you mean LaMnO3?",
    "LIFEPO4": "did you mean LiFePO4?",
    "BATIO3": "did you mean BaTiO3?",
    "CASO4": "did you mean CaSO4",
    "NAHCO3": "did you mean NaHCO3",
    "GAAS": "did you mean GaAs?",
    "A12O3": "did you mean Al2O3?",
    "Ti02": "did you mean TiO2?",
    "Zn0": "did you mean ZnO?",
    "Fe203": "(did you mean Fe2O3?)",
    "Fe304": "(did you mean Fe3O4?)",
    "Bi2212": "the name of a phase",
    "Al6061": "the name of a phase",
    "CuSO4 5H2O": "two numbers side by side",
    "Fe2\u041e3": "cyrillic capital letter o",
    "MnO1.5H2O": "'1.5' may be a number or join two compounds",
    "Ca1½": "a number before a fraction",
    "Fe)": "')' cannot be understood",
    "(Fe": "'(' is never closed",
    "Fe()": "cannot be understood",
    "(Fe]2": "cannot be understood",
    # amounts
    "Fe1e-19O": "the share of Fe is 1e-19",
    "Si0.9999999P0.0000001": "the share of P is 1e-07",
    "Fe0.0O": "an amount of zero",
    "Fe1/0O": "an amount of zero",
    "Fe1e400O": "an amount of zero or none",
    "H" * 301: "longer than 300 characters",
}


@pytest.mark.parametrize("formula", REFUSED)
def test_refused_by_the_mark_in_the_way(formula):
    with pytest.raises(ValueError) as caught:
        composition_of_formula(formula)
    assert REFUSED[formula] in str(caught.value)
    assert repr(formula)[:50] in str(caught.value) and len(str(caught.value)) < 400


MOLECULES = [
    *("H2O", "C12H22O11", "C60", "Xe", "Ar", "CO2", "N2", "I2", "S8", "HF", "C10H8", "CH3OH", "CO(NH2)2"),
    *("NH3", "H2SO4", "SF6", "C9H8O4"),
]
MEANT = {
    "SIO2": "SiO2", "HFO2": "HfO2", "CUO": "CuO", "SIC": "SiC", "PBO": "PbO", "NIO": "NiO", "SNO2": "SnO2",
    "COO": "CoO", "INN": "InN", "PBS": "PbS", "LiCOO2": "LiCoO2", "LiNIO2": "LiNiO2", "CaSIO3": "CaSiO3",
    "BaSNO3": "BaSnO3", "NaC1": "NaCl", "CaC12": "CaCl2", "NaCI": "NaCl", "FeCI3": "FeCl3", "Al2Si205(OH)4":
    "Al2Si2O5(OH)4", "LiMn204": "LiMn2O4", "Na20": "Na2O", "CuSO4·5H20": "H2O", "YBCO": "YBa2Cu3O7",
    "KNN": "K0.5Na0.5NbO3", "Ti6Al4V": "Ti0.862Al0.102V0.036", "NdFeB": "Nd2Fe14B",
}  # fmt: skip
UNDOUBTED = [
    *("KOH", "KCN", "BN", "CaCO3", "NaHCO3", "Cs2CO3", "KNO3", "YPO4", "KHF2", "CuCN", "NaBH4", "SiO2", "C", "P4"),
    *("NH4Cl", "NH4NO3", "(NH4)2SO4", "K2SO3", "LiC6", "LiC12", "HfO2", "CoO", "CoCO3", "YB6", "UO2", "WC", "VN", "BP"),
    *("UC", "NaNbO3", "InPO4", "LaCO3OH", "CuS", "KIO3", "KHSO4", "C3N4", "P3N5", "V2O5", "WS2", "YBO3", "YVO4"),
    *("Ca10(PO4)6(OH)2", "Ca10(PO4)6F2", "SrTiO3"),
    *("Na20Cl20", "YOF", "H6PbCI3N", "Mg17Al12", "LaMnO3", "Fe(II)O", "CuSO4·5H2O", "Na2Si20", "B4C", "CH3NH3PbI3"),
]


@pytest.mark.parametrize("formula", [*MOLECULES, *MEANT, "CuSO4.5H2O"])
def test_doubtful_reading_is_told(formula):
    _, doubts = atoms_of_formula(formula)
    expected = "probably molecular" if formula in MOLECULES else "was read as"
    assert any(expected in doubt and f"{MEANT.get(formula, '')}" in doubt for doubt in doubts)
    assert all(doubt.startswith(repr(formula)) and doubt.endswith((".", "?")) for doubt in doubts)


@pytest.mark.parametrize("formula", UNDOUBTED)
def test_sound_formula_is_not_doubted(formula):
    assert atoms_of_formula(formula)[1] == ()


def test_formulas_of_databases_are_read_as_pymatgen_does(shared_data):
    path = shared_data / "compositions" / "labels.parquet"
    formulas = pq.read_table(path, columns=["reduced_formula"])["reduced_formula"][::600].to_pylist()
    for formula in formulas:
        atoms, doubts = atoms_of_formula(formula)
        assert atoms == pytest.approx(Composition(formula, strict=True).get_el_amt_dict())
        assert not any("did you mean" in doubt for doubt in doubts)


def test_composition_of_pymatgen_is_a_formula():
    assert composition_of_formula(Composition("LaMnO3"))[0].tolist() == [8, 25, 57]


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
