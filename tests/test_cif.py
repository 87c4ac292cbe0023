"""CIF files: what is written is what is read, or the file is refused with the reason."""

import itertools
import subprocess
import sys
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest

from xxlib.crystals.cif import crystal_from_cif
from xxlib.crystals.crystal import MAX_FILE_BYTES, RejectedCrystal, space_group
from xxlib.datasets.store import Dataset

NACL = "Na1 Na 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 1"
P1 = "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n"
P_BAR_1 = P1 + "'-x, -y, -z'\n"
P3 = P1 + "'-y, x-y, z'\n'-x+y, -x, z'\n"


def cif(rows=NACL, cell=(4, 4, 4, 90, 90, 90), symmetry=P1, head=""):
    """Text of a CIF; rows: label, type symbol, x, y, z, occupancy."""
    axes = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    lines = ["data_test", head, *(f"_cell_{axis} {value}" for axis, value in zip(axes, cell)), symmetry.strip()]
    return "\n".join([*lines, "loop_", *(f"_atom_site_{column}" for column in columns), rows]) + "\n"


def read(tmp_path, text):
    path = tmp_path / "test.cif"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # pymatgen's are heard and judged, not passed on
        return crystal_from_cif(path, "test")


def without(text, tag):
    return "".join(line for line in text.splitlines(keepends=True) if tag not in line)


BAD = {
    "empty": ("", "empty file"),
    "blank": (" \n\n", "empty file"),
    "not a cif": ("two theta, intensity\n5.0, 12\n", "not a CIF"),
    "binary": (bytes(range(256)) * 4, "not a CIF"),
    "one long line": ("x" * 5000, "a line of more than 2048 characters"),
    "truncated row": (cif()[:-8], "incomplete one: truncated?"),
    "truncated before the atoms": (cif().split("loop_\n_atom_site")[0], "no atoms"),
    "truncated columns": (cif().split("_atom_site_occupancy")[0], "truncated?"),
    "truncated operations": (cif(NACL, (4, 4, 4, 90, 90, 120), P3.rsplit("'-x", 1)[0]), "no group"),
    "open text field": (cif() + "_publ_section\n;\nnever closed\n", "never closed"),
    "missing atom": (cif(head="_chemical_formula_sum 'Na Cl2'"), "the formula is Na Cl2"),
    "missing element": (cif(head="_chemical_formula_sum 'Na Cl H2 O'"), "the formula is"),
    "no cell": (without(cif(), "_cell"), "no _cell_length_a"),
    "no angle": (without(cif(), "gamma"), "no _cell_angle_gamma"),
    "no atoms": (cif(rows=""), "no row"),
    "no coordinates": (cif().replace("_fract_", "_Cartn_"), "no atoms with fractional"),
    "no z": (cif().replace("_fract_z", "_fract_w"), "incomplete list of atoms"),
    "no labels": (cif().replace("site_label", "site_name"), "incomplete list of atoms"),
    "stray text": (cif(symmetry="_symmetry_space_group_name_H-M P 1"), "stray text"),
    "coordinate nan": (cif("Na1 Na nan 0 0 1"), "_atom_site_fract_x of Na1 is 'nan'"),
    "coordinate ?": (cif("Na1 Na 0 ? 0 1"), "_atom_site_fract_y of Na1 is '?'"),
    "coordinate .": (cif("Na1 Na 0 0 . 1"), "_atom_site_fract_z of Na1 is '.'"),
    "coordinate inf": (cif("Na1 Na 1e999 0 0 1"), "not a number"),
    "coordinate comma": (cif("Na1 Na 0,25 0 0 1"), "not a number"),
    "typographic minus": (cif("Na1 Na \u22120.25 0 0 1"), "not a number"),
    "cell nan": (cif(cell=("nan", 4, 4, 90, 90, 90)), "_cell_length_a is 'nan'"),
    "angles over 360 in sum": (cif(cell=(4, 4, 4, 130, 130, 130)), "impossible cell"),
    "angles that do not close": (cif(cell=(4, 4, 4, 60, 60, 130)), "impossible cell"),
    "angle zero": (cif(cell=(4, 4, 4, 0, 90, 90)), "impossible cell"),
    "angle 180": (cif(cell=(4, 4, 4, 90, 90, 180)), "impossible cell"),
    "angle 270": (cif(cell=(4, 4, 4, 90, 90, 270)), "impossible cell"),
    "zero volume": (cif(cell=(4, 4, 4, 60, 60, 120)), "impossible cell"),
    "negative length": (cif(cell=(-4, 4, 4, 90, 90, 90)), "impossible cell -4"),
    "zero length": (cif(cell=(4, 0, 4, 90, 90, 90)), "impossible cell 4, 0"),
    "huge cell": (cif(cell=(5e4, 4, 4, 90, 90, 90)), "outside 1.5-200"),
    "tiny cell": (cif(cell=(0.005, 4, 4, 90, 90, 90)), "outside 1.5-200"),
    "too empty": (cif(cell=(40, 40, 40, 90, 90, 90)), "cubic angstrom per atom"),
    "occupancy zero": (cif("Na1 Na 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 0"), "occupancy 0 of Cl1"),
    "occupancy negative": (cif("Na1 Na 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 -0.5"), "occupancy -0.5 of Cl1"),
    "occupancy 1.02": (cif("Na1 Na 0 0 0 1.02"), "occupancy 1.02 of Na1"),
    "occupancy ?": (cif("Na1 Na 0 0 0 ?"), "_atom_site_occupancy of Na1 is '?'"),
    "occupancies over 1": (cif("Na1 Na 0 0 0 0.6\nK1 K 0 0 0 0.6"), "sum to 1.2"),
    "same atom twice": (cif("Na1 Na 0 0 0 1\nNa2 Na 0 0 0 1"), "atoms overlap"),
    "overlap": (cif("Na1 Na 0 0 0 1\nCl1 Cl 0.05 0 0 1"), "overlap: 0.200 angstrom"),
    "overlap across a face": (cif("Na1 Na 0.98 0 0 1\nCl1 Cl 0.03 0 0 1"), "overlap: 0.200 angstrom"),
    "equivalent site": (cif("Na1 Na 0.2 0 0 0.5\nNa2 Na -0.2 0 0 0.5", symmetry=P_BAR_1), "occupancy 0.5 of Na1 is 1"),
    "special position in three digits": (
        cif("Na1 Na 0.333 0.667 0 0.3\nCl1 Cl 0 0 0.5 1", (6, 6, 4, 90, 90, 120), P3),
        "too few digits",
    ),
    "X": (cif("X1 X 0 0 0 1\n" + NACL), "'X' is no element"),
    "Wat": (cif("Wat1 Wat 0 0 0.5 1\n" + NACL), "'Wat' is no element"),
    "OH": (cif("OH1 OH 0 0 0.5 1\n" + NACL), "'OH' is no element"),
    "O-H": (cif("O1 O-H 0 0 0.5 1\n" + NACL), "'O-H' is no element"),
    "implicit hydrogen": (
        cif("Na1 Na 0 0 0 0\nO1 O 0.5 0.5 0.5 1").replace("site_occupancy", "site_attached_hydrogens"),
        "hydrogens without coordinates",
    ),
    "dummy atom": (
        cif("Na1 Na 0 0 0 dum\nCl1 Cl 0.5 0.5 0.5 Uiso").replace("site_occupancy", "site_calc_flag"),
        "dummy atom",
    ),
    "unclear label": (without(cif("CA1 0 0 0 1"), "type_symbol"), "'CA1' is not clear"),
    "D": (cif("D1 D 0 0 0.5 1\n" + NACL), "isotope D"),
    "T": (cif("T1 T 0 0 0.5 1\n" + NACL), "isotope T"),
    "D in the formula": (
        cif("H1 H 0 0 0 1\nCl1 Cl .5 .5 .5 1", head="_chemical_formula_sum 'D Cl'"),
        "formula is D Cl",
    ),
    "Es": (cif("Es1 Es 0 0 0 1"), "Z = 99"),
    "two structures": (cif() + cif().replace("data_test", "data_more"), "more than one structure"),
    "two structures of one name": (cif() + cif("Na1 Na 0 0 0 1\nK1 K .5 .5 .5 1"), "more than one structure"),
    "two cells in one block": (cif(head="_cell_length_a 5"), "more than one structure"),
    "too large": (b"#" * (MAX_FILE_BYTES + 1), "too large"),
    "too many atoms": (cif("\n".join(f"Na{i} Na 0 0 {i / 1001:.6f} 1" for i in range(1001))), "1001 atoms"),
    "unknown space group": (cif(symmetry="_symmetry_space_group_name_H-M 'Q m -3 m'"), "does not know: Q m -3 m"),
    "Hall symbol": (cif(symmetry="_space_group_name_Hall 'P 4 2'"), "does not know: P 4 2"),
    "two origins": (cif(symmetry="_symmetry_space_group_name_H-M 'P n n n'"), "two origins"),
    "misspelt operation": (cif(symmetry=P_BAR_1.replace("-x, -y, -z", "-x, -y, z+1/3")), "no group"),
    "no operation": (cif(symmetry=P1.replace("x, y, z", "?")), "'?' is no symmetry operation"),
    "wrong axes": (cif(cell=(4, 4, 4, 70, 70, 70), symmetry=P3), "do not fit the cell"),
    "magnetic": (cif(head="_space_group_magn.number_BNS 62.448"), "magnetic"),
    "modulated": (cif(symmetry="_space_group_ssg_name 'Pnma(0b0)'"), "modulated"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_with_its_reason(tmp_path, name):
    text, reason = BAD[name]
    with pytest.raises(RejectedCrystal) as caught:
        read(tmp_path, text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(RejectedCrystal, match="cannot be read"):
        crystal_from_cif(tmp_path, "a folder")
    with pytest.raises(RejectedCrystal, match="cannot be read"):
        crystal_from_cif(tmp_path / "absent.cif", "absent")


def test_file_cut_anywhere_is_refused_or_complete(tmp_path):
    text = cif(head="_chemical_formula_sum 'Na Cl'", symmetry=P_BAR_1)
    refused = 0
    for end in range(0, len(text), 7):
        try:
            assert sorted(read(tmp_path, text[:end]).atomic_numbers) == [11, 17]
        except RejectedCrystal:
            refused += 1
    assert refused > 0.9 * len(text) / 7


def fm_3m():
    """The 192 operations: every signed permutation of x, y, z, with the face centrings."""
    turns = [
        [sign + axis for sign, axis in zip(signs, axes)]
        for axes in itertools.permutations("xyz")
        for signs in itertools.product(("", "-"), repeat=3)
    ]
    centrings = [("", "", ""), ("", "+1/2", "+1/2"), ("+1/2", "", "+1/2"), ("+1/2", "+1/2", "")]
    operations = [", ".join(map("".join, zip(turn, shift))) for turn in turns for shift in centrings]
    return "loop_\n_space_group_symop_operation_xyz\n" + "\n".join(f"'{operation}'" for operation in operations)


def test_operations_are_applied(tmp_path):
    crystal = read(tmp_path, cif(cell=(5.64, 5.64, 5.64, 90, 90, 90), symmetry=fm_3m()))
    assert np.bincount(crystal.atomic_numbers)[[11, 17]].tolist() == [4, 4]
    assert space_group(crystal) == 225
    assert np.array_equal(crystal.lattice, np.eye(3) * 5.64)  # no 6e-17 of cos(90 degree)


def test_many_general_positions_are_refused_before_they_are_computed(tmp_path):
    x = np.random.default_rng(0).random((200, 3))
    rows = "\n".join(f"C{i} C {a:.4f} {b:.4f} {c:.4f} 1" for i, (a, b, c) in enumerate(x))
    with pytest.raises(RejectedCrystal, match=r"3\d+ atoms, more than 1000"):
        read(tmp_path, cif(rows, (58, 58, 58, 90, 90, 90), fm_3m()))


def test_mixed_site_keeps_its_occupancies(tmp_path):
    crystal = read(tmp_path, cif("Fe1 Fe 0 0 0 0.5\nNi1 Ni 0 0 0 0.5", (2.6, 2.6, 2.6, 90, 90, 90)))
    assert crystal.atomic_numbers.tolist() == [26, 28]
    assert crystal.occupancies.tolist() == [0.5, 0.5]
    crystal = read(tmp_path, cif("Na1 Na 0 0 0 0.6667\nK1 K 0 0 0 0.3334\nCl1 Cl 0.5 0.5 0.5 0.977(3)"))
    assert dict(zip(crystal.atomic_numbers.tolist(), crystal.occupancies)) == {11: 0.6667, 19: 0.3334, 17: 0.977}


def test_two_charges_of_one_element_share_a_site(tmp_path):
    charges = "loop_\n_atom_type_symbol\n_atom_type_oxidation_number\nFe2+ 2\nFe3+ 3\nO2- -2"
    crystal = read(tmp_path, cif("Fe1 Fe2+ 0 0 0 .25\nFe2 Fe3+ 0 0 0 .5\nO1 O2- .5 .5 .5 1", head=charges))
    assert crystal.occupancies[crystal.atomic_numbers == 26].sum() == 0.75


def test_standard_uncertainties(tmp_path):
    text = cif("Na1 Na 0.01(2) 0 0 1.0\nCl1 Cl .5 0.5000(12) +5e-1 1", ("4.123(5)", 4, "4(1)", 90, "91.5(2)", 90))
    crystal = read(tmp_path, text)
    assert np.allclose(np.linalg.norm(crystal.lattice, axis=1), [4.123, 4, 4])
    assert crystal.frac_coords[crystal.atomic_numbers == 11].tolist() == [[0.01, 0, 0]]


def test_hydride(tmp_path):
    crystal = read(tmp_path, cif("Li1 Li 0 0 0 1\nH1 H 0.5 0.5 0.5 1"))
    assert sorted(crystal.atomic_numbers) == [1, 3]


def test_thirds_in_four_digits_are_special(tmp_path):
    crystal = read(tmp_path, cif("Mg1 Mg 0.3333 0.6667 0.25 1", (3.2, 3.2, 5.2, 90, 90, 120), P3))
    assert crystal.frac_coords.tolist() == [[1 / 3, 2 / 3, 0.25]]


UNUSUAL = {
    "bom": "\ufeff" + cif(),
    "crlf": cif().replace("\n", "\r\n"),
    "cr": cif().replace("\n", "\r"),
    "no final newline": cif().rstrip(),
    "blank lines": "\n" * 100_000 + cif(),  # pymatgen alone is quadratic in them
    "umlaut": cif(head="_publ_author_name 'M\u00fcller'"),
    "two blocks": "data_global\n_cell_length_a 7\nloop_\n_publ_author_name\n'A. B.'\n" + cif(),
    "space group by name": cif(symmetry="_symmetry_space_group_name_H-M 'P 1'"),
    "space group by number": cif(symmetry="_symmetry_Int_Tables_number 1"),
    "no symmetry": cif(symmetry=""),
    "labels only": without(cif("Na1 0 0 0 1\nCl1 .5 .5 .5 1"), "type_symbol"),
    "capitals and charges": cif("NA1 NA1+ 0 0 0 1\nCL1 CL1- .5 .5 .5 1"),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_but_complete(tmp_path, name):
    crystal = read(tmp_path, UNUSUAL[name])
    assert sorted(crystal.atomic_numbers) == [11, 17]
    assert np.array_equal(crystal.lattice, np.eye(3) * 4)


RUTILE = cif("Ti1 Ti 0 0 0 1\nO1 O 0.305 0.305 0 1", (4.59, 4.59, 2.96, 90, 90, 90), "_space_group_IT_number 136")


def ddlm(text):
    """The names of a CIF as the dictionaries of the second generation write them."""
    for category in ("_cell", "_atom_site", "_space_group"):
        text = text.replace(f"{category}_", f"{category}.")
    return text


SPELT = {
    "capitals": RUTILE.replace("_cell_length", "_CELL_LENGTH").replace("fract", "Fract").replace("loop_", "LOOP_"),
    "keywords in capitals": RUTILE.replace("data_", "DATA_"),
    "IT number": RUTILE.replace("_space_group_IT_number", "_Space_Group_it_Number"),
    "dots": ddlm(RUTILE),
    "dots and capitals": ddlm(RUTILE).upper().replace("TI1 TI", "Ti1 Ti"),
    "group by name": RUTILE.replace("_space_group_IT_number 136", "_SYMMETRY_SPACE_GROUP_NAME_H-M 'P 42/m n m'"),
    "group by DDLm name": RUTILE.replace("_space_group_IT_number 136", "_space_group.name_h-m_alt 'P 42/m n m'"),
    "several on a line": RUTILE.replace("4.59\n_cell_length_b", "4.59 _Cell_Length_B"),
}


@pytest.mark.parametrize("name", SPELT)
def test_names_of_any_case_and_of_ddlm(tmp_path, name):
    crystal = read(tmp_path, SPELT[name])
    assert np.bincount(crystal.atomic_numbers)[[8, 22]].tolist() == [4, 2]
    assert space_group(crystal) == 136


def test_operations_by_a_name_in_another_case(tmp_path):
    symmetry = fm_3m().replace("_space_group_symop_operation_xyz", "_Space_Group_Symop_Operation_xyz")
    crystal = read(tmp_path, cif(cell=(5.64, 5.64, 5.64, 90, 90, 90), symmetry=symmetry))
    assert len(crystal.atomic_numbers) == 8


IN_A_TEXT_FIELD = {
    "a cell": "of the subcell with\n_cell_length_a 2.82",
    "coordinates": "loop_\n  _atom_site_fract_x\n  _atom_site_fract_y\n  0.1 0.2",
    "operations": "loop_\n_symmetry_equiv_pos_as_xyz\n1-x,1-y,1-z",
    "a block": "the block\ndata_other\nwas removed",
    "a block in capitals": "  DATA_OTHER",
    "a frame": "save_\nglobal_\nstop_",
    "a moment": "_atom_site_moment_label Fe1",
    "a quote": "the 'open quote and the \"other",
    "a comment": "# so it was\ntext # and so on",
    "a long line": "x" * 3000,
    "a result file": "TITL x\nCELL 0.71073 4 4 4 90 90 90\nHKLF 4\n_exptl 1",
}


@pytest.mark.parametrize("name", IN_A_TEXT_FIELD)
def test_what_stands_in_a_text_field_is_no_data(tmp_path, name):
    text = cif(head=f"_publ_section_comment\n;\n{IN_A_TEXT_FIELD[name]}\n;")
    assert sorted(read(tmp_path, text).atomic_numbers) == [11, 17]
    after = cif() + f"_publ_section_title\n; first line\n{IN_A_TEXT_FIELD[name]}\n;\n"
    assert sorted(read(tmp_path, after).atomic_numbers) == [11, 17]


@pytest.mark.parametrize(
    "head",
    [
        "_publ_section_title 'Sample #5 of the series'",
        '_publ_section_title "loop_ of #5"',
        "_publ_section_title '_cell_length_a 3'",
        "_dft_cell_magn_moment 0.00004",
        "_exptl_magnetic_moment 1.2",
        "_tcod_total_magnetization_moment 0",
    ],
)
def test_values_and_names_that_only_look_like_others(tmp_path, head):
    assert sorted(read(tmp_path, cif(head=head)).atomic_numbers) == [11, 17]


@pytest.mark.parametrize(
    "tag",
    ["_atom_site_moment.crystalaxis_x", "_Space_Group_Magn.number_BNS", "_cell_wave_vector_x", "_space_group_ssg_name"],
)
def test_magnetic_and_modulated_structures_are_refused_in_any_spelling(tmp_path, tag):
    with pytest.raises(RejectedCrystal, match="magnetic or modulated"):
        read(tmp_path, cif(head=f"{tag} 1"))


BISMUTH = {
    "H": ("Bi1 Bi 0 0 0.2339 1", (4.546, 4.546, 11.863, 90, 90, 120), 6),
    "R": ("Bi1 Bi 0.2339 0.2339 0.2339 1", (4.746, 4.746, 4.746, 57.23, 57.23, 57.23), 2),
}


@pytest.mark.parametrize("name", ["R -3 m :H", "R -3 m:H", "R-3m:h", "R -3 m H", "R -3 m :R", "R_-3_m:R", "R -3 m R"])
@pytest.mark.parametrize("tag", ["_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt"])
def test_group_name_with_the_setting_of_its_cell(tmp_path, tag, name):
    rows, cell, n_atoms = BISMUTH[name[-1].upper()]
    crystal = read(tmp_path, cif(rows, cell, f"{tag} '{name}'"))
    assert len(crystal.atomic_numbers) == n_atoms and space_group(crystal) == 166


@pytest.mark.parametrize(
    ("name", "silicon"), [("F d -3 m :1", 0), ("F d -3 m :2", 0.125), ("F d -3 m S", 0), ("F d -3 m Z", 0.125)]
)
def test_group_name_with_its_origin(tmp_path, name, silicon):
    rows = f"Si1 Si {silicon} {silicon} {silicon} 1"
    crystal = read(tmp_path, cif(rows, (5.43, 5.43, 5.43, 90, 90, 90), f"_symmetry_space_group_name_H-M '{name}'"))
    assert len(crystal.atomic_numbers) == 8 and space_group(crystal) == 227


def mineral(rows, formula="", cell=(4, 4, 4, 90, 90, 90)):
    """A CIF of the American Mineralogist's database: labels without type symbols; rows without them."""
    head = f"_chemical_formula_sum '{formula}'" if formula else ""
    return without(cif(rows, cell, head=head), "type_symbol")


@pytest.mark.parametrize(
    ("labels", "formula", "elements"),
    [
        ("MgT OA", "Mg O", [8, 12]),
        ("CaM1 O1", "Ca O", [8, 20]),
        ("FeT2 OW", "Fe O", [8, 26]),
        ("AlOct O3A", "Al O", [8, 13]),
        ("FeO O-1", "(Fe) O", [8, 26]),
        ("NaB OB", "Na O", [8, 11]),
        ("CA1 O", "Ca O", [8, 20]),
        ("CA1 O", "C O", [6, 8]),
        ("KA Cl", "K Cl", [17, 19]),
        ("VT OII", "V O", [8, 23]),
        ("Pdb S1", "Pd S", [16, 46]),
        ("FeCu S1", "Fe S", [16, 26]),
        ("MgT O1", "", [8, 12]),
        ("CaM1 O1", "", [8, 20]),
    ],
)
def test_site_labels_of_minerals(tmp_path, labels, formula, elements):
    first, second = labels.split()
    crystal = read(tmp_path, mineral(f"{first} 0 0 0 1\n{second} .5 .5 .5 1", formula))
    assert sorted(crystal.atomic_numbers) == elements


@pytest.mark.parametrize(
    ("labels", "formula", "reason"),
    [
        ("Wat1 Na1", "W Na", "water (Wat1) without coordinates of its hydrogens"),
        ("CO1 Na1", "Co C Na", "the element of 'CO1' is not clear"),
        ("FeNi1 S1", "Fe0.5 Ni0.5 S", "the formula is Fe0.5 Ni0.5 S"),
        ("OH1 Na1", "Na O H", "the formula is Na O H"),
        ("FeNi1 S1", "", "the element of 'FeNi1' is not clear"),
        ("FeB S1", "", "the element of 'FeB' is not clear"),
        ("OA1 Na1", "", "the element of 'OA1' is not clear"),
        ("OA1 Na1", "Na O n", "not clear without a formula"),
    ],
)
def test_labels_that_decide_nothing_are_refused(tmp_path, labels, formula, reason):
    first, second = labels.split()
    with pytest.raises(RejectedCrystal) as caught:
        read(tmp_path, mineral(f"{first} 0 0 0 1\n{second} .5 .5 .5 1", formula))
    assert reason in str(caught.value)


def test_the_cases_of_the_shared_folder(shared_data):
    cases = shared_data.parent / "cases"
    if not cases.is_dir():
        pytest.skip("no shared cases")
    expected = {"amcsd-site-labels/spinel": (56, 227), "ddlm-names/dots": (5, 221)}
    expected |= {"tag-in-a-text-field/text": (8, 225), "total-magnetisation/dft": (8, 225)}
    expected |= {"group-name-with-setting/setting": (6, 166), "mixed-case-symmetry-tag/case": (8, 225)}
    for name, answer in expected.items():
        crystal = crystal_from_cif(cases / f"cif-{name}.cif", name)
        assert (len(crystal.atomic_numbers), space_group(crystal)) == answer


def test_written_by_gsas(shared_data):
    crystal = crystal_from_cif(shared_data / "formats" / "alumina_pd.cif", "alumina")
    assert np.bincount(crystal.atomic_numbers)[[8, 13]].tolist() == [18, 12]
    assert space_group(crystal) == 167


def test_prepare_lists_every_bad_file(tmp_path):
    folder, out = tmp_path / "cifs", tmp_path / "out"
    (folder / "more").mkdir(parents=True)
    (folder / "NaCl.cif").write_text(cif(cell=(5.64, 5.64, 5.64, 90, 90, 90), symmetry=fm_3m()))
    for name in ("FeNi.CIF", "FeNi.cif"):
        (folder / "more" / name).write_text(cif("Fe1 Fe 0 0 0 0.5\nNi1 Ni 0 0 0 0.5", (2.6, 2.6, 2.6, 90, 90, 90)))
    (folder / "notes.txt").write_text("not looked at")
    for i, (text, _) in enumerate(BAD.values()):
        (folder / f"bad-{i}.cif").write_bytes(text if isinstance(text, bytes) else text.encode())

    command = [sys.executable, "-m", "xxlib.prepare", "cif", str(folder), str(out)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert f"3 crystals, {len(BAD)} rejected" in run.stdout

    rejects = {row["source"]: row["reason"] for row in pq.read_table(out / "rejects.parquet").to_pylist()}
    assert set(rejects) == {f"bad-{i}.cif" for i in range(len(BAD))}
    for i, (_, reason) in enumerate(BAD.values()):
        assert reason in rejects[f"bad-{i}.cif"]

    dataset = Dataset(out)
    assert sorted(dataset.column("id")) == ["NaCl.cif", "more/FeNi.CIF", "more/FeNi.cif"]
    by_id = {id: row for row, id in enumerate(dataset.column("id"))}
    assert dataset.column("formula")[by_id["NaCl.cif"]] == "NaCl"
    assert dataset.column("space_group").tolist() == [225, 221, 221]
    fractions, offsets = dataset.take("fractions", [by_id["more/FeNi.cif"]])
    assert fractions.tolist() == [0.5, 0.5] and offsets.tolist() == [0, 2]
    intensity, _ = dataset.take("intensity", [0])
    assert intensity.max() == 100
