"""Sources that are files: LeMat-Bulk, POSCAR, extended XYZ, NOMAD 2018, mp36k and mp90k from their public files."""

import json
import pickle
import re
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Element, Lattice, Structure
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp import Poscar

from xxlib.crystals import extxyz
from xxlib.crystals.crystal import MAX_FILE_BYTES, RejectedCrystal
from xxlib.crystals.poscar import crystal_from_poscar
from xxlib.crystals.structures import crystal_from_structure
from xxlib.datasets.sources.files import extxyz_file, poscar_folder
from xxlib.datasets.sources.lemat import lemat
from xxlib.datasets.sources.mp36k import mp36k, split_table
from xxlib.datasets.sources.mp90k import label_table, mp90k
from xxlib.datasets.sources.parquet import crystal_of_row, oqmd, parquet
from xxlib.datasets.store import Dataset
from xxlib.prepare import KINDS
from xxlib.prepare import main as prepare_main

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
SKEW = Structure(
    Lattice.from_parameters(3.1, 4.2, 5.3, 81, 92, 103),
    ["Ti", "O", "O"],
    [[0.1, 0.2, 0.3], [0.6, 0.5, 0.4], [-0.3, 1.2, 0.8]],
)


def same(crystal, structure):
    expected = crystal_from_structure(structure, "x")
    assert np.allclose(crystal.lattice, expected.lattice, atol=1e-6)
    assert np.array_equal(crystal.atomic_numbers, expected.atomic_numbers)
    difference = crystal.frac_coords - expected.frac_coords
    assert np.abs(difference - np.round(difference)).max() < 1e-6
    assert np.array_equal(crystal.occupancies, expected.occupancies)


def refusal(record):
    with pytest.raises(RejectedCrystal) as caught:
        record.crystal()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"generated"}))
def test_a_place_where_nothing_is_gives_one_line_that_names_it(tmp_path, monkeypatch, kind):
    monkeypatch.delenv("MP_API_KEY", raising=False)
    with pytest.raises((ValueError, OSError)) as caught:
        KINDS[kind](str(tmp_path / "absent"), 0)
    assert "\n" not in str(caught.value)
    assert ("MP_API_KEY" if kind == "materials_project" else str(tmp_path / "absent")) in str(caught.value)


# ---------------------------------------------------------------- POSCAR

POSCARS = {
    "POSCAR": Poscar(SKEW).get_str(direct=True),
    "CONTCAR-2": Poscar(SKEW, velocities=[[0, 0, 1e-3]] * 3).get_str(direct=False),
    "scaled.vasp": Poscar(SKEW).get_str().replace("1.0\n", f"{-SKEW.volume}\n", 1),
    "selective.poscar": Poscar(SKEW, selective_dynamics=[[True, False, True]] * 3).get_str(),
    "potcar.vasp": Poscar(SKEW).get_str().replace("Ti O\n", "Ti_pv O/a1b2c3d4\n"),
}
NACL = Poscar(SALT).get_str()
BAD_POSCARS = {
    "empty": ("", "an empty file"),
    "vasp 4": (NACL.replace("Na Cl\n", "", 1), "VASP 4"),
    "truncated": (NACL[: len(NACL) - 120], "truncated?"),
    "header only": ("\n".join(NACL.splitlines()[:7]), "7 lines are no POSCAR"),
    "dummy": (NACL.replace("Na Cl\n", "X Cl\n", 1), "'X' in line 6 is no element"),
    "deuterium": (NACL.replace("Na Cl\n", "D Cl\n", 1), "'D' in line 6"),
    "counts": (NACL.replace("4 4\n", "4\n", 1), "not the number of atoms of Na Cl"),
    "negative count": (NACL.replace("4 4\n", "4 -4\n", 1), "not the number of atoms of Na Cl"),
    "many": (NACL.replace("4 4\n", "4 400000\n", 1), "400004 atoms, more than 1000"),
    "nan": (NACL.replace("0.5000000000000000", "nan"), "not a finite number"),
    "nan cell": (re.sub(r"5\.6\d+", "nan", NACL), "cell"),
    "zero scale": (NACL.replace("1.0\n", "0.0\n", 1), "cell"),
    "not utf-8": (b"\xff\xfe\x00Na", "not a text file"),
    "too large": (b"#" * (MAX_FILE_BYTES + 1), "too large"),
}


def test_poscar_files_are_read_as_they_are_written(tmp_path):
    for name, text in POSCARS.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "poscars").mkdir()
    (tmp_path / "poscars" / "notes.txt").write_text("not looked at")
    records = pickle.loads(pickle.dumps(list(poscar_folder(tmp_path).records())))
    assert [record.id for record in records] == sorted(POSCARS)
    for record in records:
        same(record.crystal(), SKEW)


@pytest.mark.parametrize("name", BAD_POSCARS)
def test_a_bad_poscar_is_refused_with_its_reason(tmp_path, name):
    text, reason = BAD_POSCARS[name]
    (tmp_path / "POSCAR").write_bytes(text if isinstance(text, bytes) else text.encode())
    (record,) = poscar_folder(tmp_path).records()
    assert reason in refusal(record)


def test_no_poscar(tmp_path):
    with pytest.raises(ValueError, match=r"holds no file POSCAR\*"):
        poscar_folder(tmp_path)
    with pytest.raises(RejectedCrystal, match="cannot be read"):
        crystal_from_poscar(tmp_path, "a folder")


# ---------------------------------------------------------------- extended XYZ


def frame(structure=SKEW, n=None, pbc='pbc="T T T"', lattice=None):
    vectors = " ".join(f"{value:.10f}" for value in structure.lattice.matrix.ravel()) if lattice is None else lattice
    rows = [f"{site.specie} {site.x:.10f} {site.y:.10f} {site.z:.10f} 0.1 0.0 -0.1" for site in structure]
    comment = f'Lattice="{vectors}" Properties=species:S:1:pos:R:3:forces:R:3 energy=-12.5 {pbc}'
    return "\n".join([str(len(structure) if n is None else n), comment, *rows]) + "\n"


BAD_FRAMES = {
    "one atom less": (frame(n=4), "4 atoms are announced, 3 listed"),
    "one atom more": (frame(n=2), "2 atoms are announced, 3 listed"),
    "no atoms": ('0\nLattice="4 0 0 0 4 0 0 0 4"\n', ""),
    "layer": (frame(pbc='pbc="T T F"'), "not periodic in three directions (pbc T T F)"),
    "molecule": ("1\nwater\nO 0 0 0\n", "no Lattice"),
    "short lattice": (frame(lattice="4 0 0 0 4 0"), "ASE cannot read it"),
    "nan lattice": (frame(lattice="nan 0 0 0 4 0 0 0 4"), "span no volume"),
    "flat lattice": (frame(lattice="4 0 0 0 4 0 0 0 0"), "span no volume"),
    "nan coordinate": (frame().replace(f"{SKEW[0].x:.10f}", "nan"), "not a finite number"),
    "coordinate text": (frame().replace(f"{SKEW[0].x:.10f}", "x"), "ASE cannot read it"),
    "dummy": (frame().replace("Ti ", "X "), "Z = 0"),
    "no element": (frame().replace("Ti ", "Wat "), "ASE cannot read it"),
    "occupancy": (frame().replace("energy", "occupancy=0.5 energy"), "partial occupancies"),
    "not utf-8": (frame().replace("energy", "\udcff"), "not a text file"),
}


def test_every_frame_of_an_extended_xyz_file(tmp_path):
    path = tmp_path / "run.extxyz"
    path.write_text(frame() + frame(SALT, pbc="") + "\n\n" + frame().replace("\n", "\r\n"))
    records = pickle.loads(pickle.dumps(list(extxyz_file(path).records())))
    assert [record.id for record in records] == ["run-1", "run-2", "run-3"]
    assert not any(record.columns for record in records)  # its energy is no formation energy
    for record, structure in zip(records, (SKEW, SALT, SKEW)):
        same(record.crystal(), structure)


def test_bad_frames_are_refused_and_the_others_go_on(tmp_path):
    path = tmp_path / "run.extxyz"
    path.write_bytes("".join(bad + frame() for bad, _ in BAD_FRAMES.values()).encode("utf-8", "surrogateescape"))
    records = list(extxyz_file(path).records())
    for (name, (_, reason)), bad, good in zip(BAD_FRAMES.items(), records[::2], records[1::2], strict=True):
        same(good.crystal(), SKEW)
        assert reason in refusal(bad), name


def test_what_is_no_extended_xyz_file(tmp_path, monkeypatch):
    path = tmp_path / "x.extxyz"
    for text, reason in (("", "an empty file"), ("\n \n", "an empty file"), ("Ti 0 0 0\n", "no number of atoms")):
        path.write_text(text)
        (record,) = extxyz_file(path).records()
        assert reason in refusal(record)
    with pytest.raises(ValueError, match="is no file"):
        extxyz_file(tmp_path)
    monkeypatch.setattr(extxyz, "MAX_FRAME", 1000)
    path.write_text(frame() + "1000000\n\n" + "Ti 0 0 0\n" * 500 + frame())
    first, large, last = extxyz_file(path).records()
    assert "more than 0.001 MB for one frame" in refusal(large) and first.content == last.content


# ---------------------------------------------------------------- LeMat-Bulk


def lemat_row(id="agm001", structure=SKEW, **changes):
    symbols = [site.species_string for site in structure]
    species = [
        {"name": s, "chemical_symbols": [s], "concentration": [1.0], "mass": None, "original_name": None}
        for s in sorted(set(symbols))
    ]
    return {
        "immutable_id": id,
        "lattice_vectors": structure.lattice.matrix.tolist(),
        "species_at_sites": symbols,
        "cartesian_site_positions": structure.cart_coords.tolist(),
        "species": json.dumps(species),
        "nsites": len(symbols),
        "dimension_types": [1, 1, 1],
        "chemical_formula_reduced": "O2Ti",
        "functional": "pbe",
        "energy": -27.0,
    } | changes


def test_lemat(tmp_path):
    pq.write_table(pa.Table.from_pylist([lemat_row("b"), lemat_row("c", SALT)]), tmp_path / "train-00001.parquet")
    pq.write_table(pa.Table.from_pylist([lemat_row("a")]), tmp_path / "train-00000.parquet")
    source = lemat(tmp_path)
    records = pickle.loads(pickle.dumps(list(source.records())))
    assert [record.id for record in records] == ["a", "b", "c"] and source.n_records == 3
    assert not any(record.columns for record in records) and source.metadata["labels"] == {}
    for record, structure in zip(records, (SKEW, SKEW, SALT)):
        same(record.crystal(), structure)


def test_broken_rows_of_lemat_are_refused(tmp_path):
    bad = [
        (lemat_row(None), "no immutable_id"),
        (lemat_row(species="[{"), "no row of LeMat-Bulk"),
        (lemat_row(species=None), "'species' is missing"),
        (lemat_row(species="[]"), "'Ti' is missing"),
        (lemat_row(lattice_vectors=None), "'lattice_vectors' is missing"),
        (lemat_row(lattice_vectors=[[1.0, 0.0], [0.0, 1.0]]), "shape (2, 2)"),
        (lemat_row(lattice_vectors=[[np.nan] * 3] * 3), "span no volume"),
        (lemat_row(cartesian_site_positions=[[0.0, 0.0, 0.0]]), "3 sites but coordinates"),
        (lemat_row(dimension_types=[1, 1, 0]), "not periodic"),
    ]
    pq.write_table(pa.Table.from_pylist([row for row, _ in bad]), tmp_path / "train.parquet")
    for record, (_, reason) in zip(lemat(tmp_path / "train.parquet").records(), bad, strict=True):
        assert reason in refusal(record)


def test_a_file_that_is_not_of_lemat(tmp_path):
    with pytest.raises(ValueError, match=r"holds no \.parquet file: .*huggingface"):
        lemat(tmp_path)
    (tmp_path / "x.parquet").write_text("not parquet")
    for source in (lemat, parquet):
        with pytest.raises(ValueError, match=r"x\.parquet is no parquet file"):
            source(tmp_path / "x.parquet")
    pq.write_table(pa.table({"immutable_id": ["a"], "species": ["[]"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="no column lattice_vectors, cartesian_site_positions"):
        lemat(tmp_path)


# ---------------------------------------------------------------- parquet: NOMAD 2018


def test_nomad_keeps_its_band_gaps_and_its_energies_are_no_formation_energies(shared_data):
    source = parquet(shared_data / "nomad2018" / "crystals.parquet")
    records = [record for record, _ in zip(source.records(), range(40))]
    assert source.n_records == 3000 and set(source.metadata["labels"]) == {"band_gap", "space_group"}
    rows = next(pq.ParquetFile(shared_data / "nomad2018" / "crystals.parquet").iter_batches(batch_size=40)).to_pylist()
    for record, row in zip(records, rows, strict=True):
        assert record.columns == {
            "band_gap": row["band_gap"],
            "space_group": row["space_group"],
            "formula": row["reduced_formula"],
            "split": row["split"],
        }
        assert record.crystal().atomic_numbers.tolist() == row["atomic_numbers"]


def test_broken_rows_of_a_table_are_refused(tmp_path):
    good = {"id": "a", "a": 4.0, "b": 4.0, "c": 4.0, "alpha": 90.0, "beta": 90.0, "gamma": 90.0}
    good |= {"atomic_numbers": [11, 17], "frac_coords": [0.0, 0, 0, 0.5, 0.5, 0.5], "band_gap": 5.0}
    bad = [
        ({"id": None}, "no id"),
        ({"atomic_numbers": None}, "no row of a crystal"),
        ({"frac_coords": [0.0, 0, 0, 0.5]}, "2 atoms but 4 coordinates"),
        ({"frac_coords": None}, "2 atoms but 1 coordinates"),
        ({"a": None}, "an incomplete cell"),
        ({"gamma": np.nan}, "impossible cell"),
        ({"band_gap": np.inf}, "band_gap is inf"),
    ]
    pq.write_table(pa.Table.from_pylist([good, *(good | changes for changes, _ in bad)]), tmp_path / "x.parquet")
    first, *others = parquet(tmp_path / "x.parquet").records()
    assert first.crystal().id == "a" and first.columns == {"band_gap": 5.0}
    for record, (_, reason) in zip(others, bad, strict=True):
        assert reason in refusal(record)


def test_labels_of_oqmd_are_labels_of_their_own(tmp_path):
    """Whatever column of the file they stand in: no energy of OQMD is taken for one of the Materials Project."""
    row = {"id": "a", "a": 4.0, "b": 4.0, "c": 4.0, "alpha": 90.0, "beta": 90.0, "gamma": 90.0, "space_group": 221}
    row |= {"atomic_numbers": [11, 17], "frac_coords": [0.0, 0, 0, 0.5, 0.5, 0.5], "e_form": -2.0}
    path = tmp_path / "x.parquet"
    for more in ({"band_gap": 5.0}, {"oqmd_e_form": -2.0, "e_form": -1.9, "oqmd_band_gap": 5.0}):
        pq.write_table(pa.Table.from_pylist([row | more]), path)
        source = oqmd(path)
        (record,) = source.records()
        assert record.columns == {"oqmd_e_form": -2.0, "oqmd_band_gap": 5.0, "space_group": 221}
        assert set(source.metadata["labels"]) == set(record.columns) and source.metadata["kind"] == "oqmd"
    assert parquet(path).metadata["labels"]["e_form"] == "column e_form, eV/atom"
    prepare_main(["oqmd", str(path), str(tmp_path / "data"), "--workers", "1"])
    labels = Dataset(tmp_path / "data").labels
    assert np.isnan(labels["e_form"]).all() and labels["oqmd_e_form"].tolist() == [-2.0]


# ---------------------------------------------------------------- mp36k


@pytest.fixture(scope="module")
def rows(shared_data):
    """Twelve crystals of mp36k, two of the last unlabelled and in no split below."""
    table = next(pq.ParquetFile(shared_data / "mp36k" / "crystals.parquet").iter_batches(batch_size=12))
    return table.to_pylist()


def public_files(folder, rows, zipped):
    """The three public files as far as these crystals go, in their layout."""
    files = {}
    for i, row in enumerate(rows):
        lattice = Lattice.from_parameters(*(row[name] for name in ("a", "b", "c", "alpha", "beta", "gamma")))
        structure = Structure(lattice, row["atomic_numbers"], np.reshape(row["frac_coords"], (-1, 3)))
        files[f"data/{i}.cif"] = str(CifWriter(structure, significant_figures=8))
    files["data/id_prop.csv"] = "0,9.9\n"  # never read
    files["data/material_id_hash.csv"] = "".join(f"{i},{row['mp_id']}\n" for i, row in enumerate(rows))
    files["data_elasticity/material_id_hash.csv"] = "0,mp-0\n"
    if zipped:
        with zipfile.ZipFile(folder / "4f3c76c6b99e.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                archive.writestr(f"MEGNet-4f3c76c6b99edcb4/{name}", text)
    else:
        for name, text in files.items():
            path = folder / "MEGNet-4f3c76c6b99edcb4" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for name, label in (("megnet_e_form", "e_form"), ("megnet_gappbe", "band_gap")):
        parts = {part: {} for part in ("train", "val", "test")}
        for i, row in enumerate(rows):
            parts[("train", "val", "test")[i % 3]][row["mp_id"]] = str(row[label])
        with zipfile.ZipFile(folder / f"{name}.json.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name}.json", json.dumps(parts))


@pytest.mark.parametrize("zipped", [True, False])
def test_mp36k_is_made_again_from_its_public_files(tmp_path, rows, zipped):
    public_files(tmp_path, rows, zipped)
    source = mp36k(tmp_path)
    records = pickle.loads(pickle.dumps(list(source.records())))
    assert [record.id for record in records] == [row["mp_id"] for row in rows] and source.n_records == len(rows)
    for record, row in zip(records, rows):
        assert record.columns == {name: row[name] for name in ("e_form", "band_gap", "split")}
        expected = crystal_of_row(row["mp_id"], row)
        crystal = record.crystal()
        assert np.allclose(crystal.lattice, expected.lattice, atol=1e-7)
        assert len(crystal.atomic_numbers) == len(expected.atomic_numbers)
        for number, frac in zip(crystal.atomic_numbers, crystal.frac_coords):  # pymatgen sorts the atoms
            delta = expected.frac_coords[expected.atomic_numbers == number] - frac
            assert np.abs(delta - np.round(delta)).max(1).min() < 1e-4  # and makes 1/3 of 0.33333


def test_mp36k_without_label_split_or_file_is_refused(tmp_path, rows):
    unknown = rows[2] | {"mp_id": "mp-999999999"}
    public_files(tmp_path, [rows[0] | {"e_form": "na"}, rows[1], unknown, *rows[3:]], zipped=False)
    (tmp_path / "MEGNet-4f3c76c6b99edcb4" / "data" / "1.cif").unlink()
    records = list(mp36k(tmp_path).records())
    assert refusal(records[0]) == "no e_form in the MEGNet release"
    assert "1.cif" in refusal(records[1])
    assert refusal(records[2]) == "in no split of mp36k"
    assert records[3].crystal().id == rows[3]["mp_id"]


def test_mp36k_says_which_file_is_missing_or_damaged(tmp_path, rows):
    with pytest.raises(ValueError, match=r"material_id_hash\.csv: it is https://github\.com/kdmsit/MEGNet/archive"):
        mp36k(tmp_path)
    public_files(tmp_path, rows[:2], zipped=True)
    (tmp_path / "megnet_gappbe.json.zip").write_text("not a zip")
    with pytest.raises(ValueError, match=r"megnet_gappbe\.json\.zip holds no labels"):
        mp36k(tmp_path)
    (tmp_path / "megnet_gappbe.json.zip").unlink()
    with pytest.raises(ValueError, match=r"holds no megnet_gappbe\.json\.zip: it is https://raw\.github"):
        mp36k(tmp_path)
    public_files(tmp_path, rows[:2], zipped=False)
    (tmp_path / "MEGNet-4f3c76c6b99edcb4" / "data" / "material_id_hash.csv").write_text("0,mp-1\nmp-2\n")
    with pytest.raises(ValueError, match=re.escape("line 2: ['mp-2'] is no number and mp_id")):
        mp36k(tmp_path)


def test_the_split_is_that_of_the_shared_file(shared_data):
    table = pq.read_table(shared_data / "mp36k" / "crystals.parquet", columns=["mp_id", "split"]).to_pydict()
    assert split_table() == dict(zip(table["mp_id"], table["split"]))


# ---------------------------------------------------------------- mp90k

BONDED = """# generated using pymatgen
data_{formula}
_symmetry_space_group_name_H-M   'P 1'
{cell}_symmetry_Int_Tables_number   1
_chemical_formula_structural   {formula}
_cell_formula_units_Z   1
loop_
 _symmetry_equiv_pos_site_id
 _symmetry_equiv_pos_as_xyz
  1  'x, y, z'
loop_
 _atom_site_type_symbol
 _atom_site_label
 _atom_site_symmetry_multiplicity
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
{atoms}loop_
_geom_bond_atom_site_label_1
_geom_bond_atom_site_label_2
_geom_bond_distance
_geom_bond_site_symmetry_2
{first}0 {first}0 3.061385 1_455
{first}0 {first}0 3.061386 1_555
"""


def bonded_cif(row):
    """A crystal as the files of topology_databases have it: all atoms, then bonds."""
    symbols = [Element.from_Z(z).symbol for z in row["atomic_numbers"]]
    cell = "".join(f"_cell_length_{name}   {row[name]:.8f}\n" for name in "abc")
    cell += "".join(f"_cell_angle_{name}   {row[name]:.8f}\n" for name in ("alpha", "beta", "gamma"))
    sites = zip(symbols, np.reshape(row["frac_coords"], (-1, 3)))
    atoms = "".join(
        f"  {symbol}  {symbol}{k}  1  {x:.8f}  {y:.8f}  {z:.8f}  1\n" for k, (symbol, (x, y, z)) in enumerate(sites)
    )
    return BONDED.format(formula=row["reduced_formula"], cell=cell, atoms=atoms, first=symbols[0])


@pytest.fixture(scope="module")
def further(shared_data):
    """Every thousandth crystal of mp90k that is not in mp36k, and the first of them."""
    path = shared_data / "mp90k" / "crystals.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    ids = [row["mp_id"] for row in label_table()[::1000]]
    return pq.read_table(path, filters=[("mp_id", "in", ids)]).to_pylist()


@pytest.mark.parametrize("zipped", [True, False])
def test_mp90k_is_made_again_from_its_public_files(tmp_path, rows, further, zipped):
    public_files(tmp_path, rows, zipped=True)
    files = {f"cif/{row['mp_id']}.cif": bonded_cif(row) for row in further}
    files |= {name.replace("cif/", "cif_chemenv/"): "another analysis of the same crystal" for name in files}
    root = "topology_databases-41163fcf"
    if zipped:
        with zipfile.ZipFile(tmp_path / "41163fcf.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                archive.writestr(f"{root}/{name}", text)
    for name, text in {} if zipped else files.items():
        (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / root / name).write_text(text)
    source = mp90k(tmp_path)
    records = list(source.records())
    assert source.n_records == len(records) == len(rows) + len(label_table())
    made = {record.id: record for record in records}
    for row in [*rows, *further]:
        labels = {name: row[name] for name in ("e_form", "band_gap", "split") if row[name] is not None}
        assert made[row["mp_id"]].columns == labels
    for row in further:
        crystal, expected = pickle.loads(pickle.dumps(made[row["mp_id"]])).crystal(), crystal_of_row(row["mp_id"], row)
        assert np.allclose(crystal.lattice, expected.lattice, atol=1e-6)
        assert sorted(crystal.atomic_numbers) == sorted(expected.atomic_numbers)
        for number, frac in zip(crystal.atomic_numbers, crystal.frac_coords):  # our reader sorts the atoms
            delta = expected.frac_coords[expected.atomic_numbers == number] - frac
            assert np.abs(delta - np.round(delta)).max(1).min() < 1e-4  # and makes 1/6 of 0.16668
    absent = next(record for record in records if record.id == label_table()[1]["mp_id"])
    assert refusal(absent) == "its CIF file is not in the archive"


def test_mp90k_says_which_archive_is_missing(tmp_path, rows):
    public_files(tmp_path, rows[:2], zipped=True)
    with pytest.raises(ValueError, match=r"holds no archive with cif/\S+: it is https://github\.com/fxcoudert"):
        mp90k(tmp_path)


def test_the_labels_of_mp90k_are_those_of_the_shared_file(shared_data):
    path = shared_data / "mp90k" / "crystals.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    names = ["mp_id", "e_form", "band_gap", "split", "e_form_source"]
    shared = pq.read_table(path, columns=names, filters=[("in_mp36k", "=", False)]).to_pylist()
    assert label_table() == shared
