"""Sources that are long JSON lists: Alexandria and JARVIS, and the structures in them."""

import bz2
import json
import pickle
import re
import tracemalloc
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from pymatgen.core import DummySpecies, Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from xxlib.crystals.crystal import RejectedCrystal
from xxlib.crystals.structures import (
    crystal_from_jarvis_dict,
    crystal_from_optimade,
    crystal_from_pymatgen_dict,
    crystal_from_structure,
)
from xxlib.datasets.sources import json_lists
from xxlib.datasets.sources.alexandria import alexandria
from xxlib.datasets.sources.jarvis import jarvis

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
PEROVSKITE = Structure(
    Lattice.orthorhombic(5.4, 5.5, 7.7),
    ["Ca2+", {"Fe3+": 0.25, "Fe4+": 0.5, "Mn4+": 0.25}, "O2-", {"O2-": 0.9}],
    [[0.1, 0.2, 0.3], [0.5, 0.5, 0.5], [0.75, 0.25, 0.5], [0.25, 0.75, 0.03]],
    charge=2,
    site_properties={"magmom": [0.1, 4.0, None, 0.0], "forces": [[0, 0, 1e-3]] * 4},
)


def as_dict(structure=SALT, **changes):
    return json.loads(json.dumps(structure.as_dict())) | changes


def with_site(**changes):
    """Rock salt whose last site has changes."""
    structure = as_dict()
    structure["sites"][-1] |= changes
    return structure


def same(first, second):
    assert np.array_equal(first.lattice, second.lattice)
    assert np.array_equal(first.atomic_numbers, second.atomic_numbers)
    assert np.allclose(first.frac_coords, second.frac_coords, atol=1e-12)
    assert np.array_equal(first.occupancies, second.occupancies)


# ---------------------------------------------------------------- structures


def test_a_structure_of_pymatgen_is_read_as_pymatgen_reads_it():
    for structure in (SALT, PEROVSKITE):
        same(crystal_from_pymatgen_dict(as_dict(structure), "x"), crystal_from_structure(structure, "x"))


def test_shared_crystals_are_read_as_pymatgen_reads_them(shared_data):
    rows = next(pq.ParquetFile(shared_data / "mp36k" / "crystals.parquet").iter_batches(batch_size=100))
    for row in rows.to_pylist():
        lattice = Lattice.from_parameters(*(row[name] for name in ("a", "b", "c", "alpha", "beta", "gamma")))
        structure = Structure(lattice, row["atomic_numbers"], np.reshape(row["frac_coords"], (-1, 3)))
        expected = crystal_from_structure(structure, "x")
        same(crystal_from_pymatgen_dict(as_dict(structure), "x"), expected)
        sites = [site.species_string for site in structure]
        jarvis_atoms = {"lattice_mat": structure.lattice.matrix.tolist(), "elements": sites, "cartesian": True}
        optimade = {
            "lattice_vectors": structure.lattice.matrix.tolist(),
            "cartesian_site_positions": structure.cart_coords.tolist(),
            "species_at_sites": sites,
            "species": [{"name": s, "chemical_symbols": [s], "concentration": [1.0]} for s in set(sites)],
        }
        same(crystal_from_jarvis_dict(jarvis_atoms | {"coords": structure.cart_coords.tolist()}, "x"), expected)
        same(crystal_from_optimade(optimade, "x"), expected)


BAD_STRUCTURES = {
    "not a dict": ([1, 2], "no structure of pymatgen"),
    "null": (None, "no structure of pymatgen"),
    "no lattice": ({"sites": as_dict()["sites"]}, "'lattice' is missing"),
    "no sites": ({"lattice": as_dict()["lattice"]}, "'sites' is missing"),
    "empty": (as_dict(sites=[]), "shape (0,)"),
    "nan in the cell": (as_dict(lattice={"matrix": [[np.nan, 0, 0], [0, 4, 0], [0, 0, 4]]}), "not a finite number"),
    "null in the cell": (as_dict(lattice={"matrix": [[None, 0, 0], [0, 4, 0], [0, 0, 4]]}), "not a finite number"),
    "two cell vectors": (as_dict(lattice={"matrix": [[4, 0, 0], [0, 4, 0]]}), "shape (2, 3)"),
    "ragged cell": (as_dict(lattice={"matrix": [[4, 0, 0], [0, 4], [0, 0, 4]]}), "no structure of pymatgen"),
    "zero cell": (as_dict(lattice={"matrix": [[0, 0, 0]] * 3}), "cell lengths"),
    "layer": (as_dict(lattice=as_dict()["lattice"] | {"pbc": [True, True, False]}), "not periodic"),
    "coordinate nan": (with_site(abc=[0.5, np.nan, 0.5]), "not a finite number"),
    "two coordinates": (with_site(abc=[0.5, 0.5]), "no structure of pymatgen"),
    "coordinate text": (with_site(abc=["na", 0, 0]), "could not convert"),
    "no coordinates": (with_site(abc=None), "no structure of pymatgen"),
    "deuterium": (with_site(species=[{"element": "D", "occu": 1}]), "isotope D"),
    "dummy": (with_site(species=[DummySpecies("X", 1).as_dict() | {"occu": 1}]), "'X' is no element"),
    "einsteinium": (with_site(species=[{"element": "Es", "occu": 1}]), "Z = 99"),
    "water": (with_site(species=[{"element": "H2O", "occu": 1}]), "'H2O' is no element"),
    "element 17": (with_site(species=[{"element": 17, "occu": 1}]), "no structure of pymatgen"),
    "occupancy 0": (with_site(species=[{"element": "Cl", "occu": 0}]), "outside (0, 1]"),
    "occupancy nan": (with_site(species=[{"element": "Cl", "occu": np.nan}]), "outside (0, 1]"),
    "occupancy text": (with_site(species=[{"element": "Cl", "occu": "full"}]), "no structure of pymatgen"),
    "no occupancy": (with_site(species=[{"element": "Cl"}]), "'occu' is missing"),
    "overfull": (with_site(species=[{"element": e, "occu": 0.6} for e in ("Cl", "Br")]), "sum to more than 1"),
    "overlap": (with_site(abc=[0.0, 0.0, 0.01]), "overlap"),
}


@pytest.mark.parametrize("name", BAD_STRUCTURES)
def test_a_broken_structure_is_refused_with_its_reason(name):
    structure, reason = BAD_STRUCTURES[name]
    with pytest.raises(RejectedCrystal, match=re.escape(reason)) as caught:
        crystal_from_pymatgen_dict(structure, "x")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


# ---------------------------------------------------------------- lists


def reader(data, sizes=(1 << 20,)):
    """`read` of a file that gives as few bytes as it likes."""
    position, turn = 0, 0

    def read(n):
        nonlocal position, turn
        size, turn = min(n, sizes[turn % len(sizes)]), turn + 1
        position += size
        return data[position - size : position]

    return read


def test_items_are_found_wherever_the_chunks_end():
    nasty = ['{"', '\\"}', "\\", "a\\\\", "]", "é{", ""]
    expected = [{"i": i, text: [text, {"x": [float("nan"), {}]}], "t": text} for i, text in enumerate(nasty)]
    text = json.dumps(expected).encode() + b"\n"
    for sizes in [(1 << 20,), (7,), (64, 1), (5, 11, 2)] + [(20, n) for n in range(1, 40)]:
        found = list(json_lists.items(reader(text, sizes), re.compile(rb"\[")))
        assert [repr(json.loads(item)) for item in found] == [repr(item) for item in expected]
    assert list(json_lists.items(reader(b" [ ] "), re.compile(rb"\s*\["))) == []


def test_what_is_no_object_is_an_item_of_its_own_and_no_end_is_an_error():
    opening = re.compile(rb"\[")
    found = list(json_lists.items(reader(b'[1, {"a": 1} null, {"b": 2}}, {"c": 3}]'), opening))
    assert found == [b"1", b'{"a": 1}', b"null", b'{"b": 2}', b"}", b'{"c": 3}']
    for text in (b'[{"a": 1}, {"b"', b'[{"a": 1}', b'[{"a": 1},', b'[{"a": 1}, {"b": "x\\', b'[{"a": 1}, null]'):
        found = json_lists.items(reader(text), opening)
        assert next(found) == b'{"a": 1}'
        with pytest.raises(ValueError, match="cut off"):
            list(found)
    for text in (b"", b"<html>"):
        with pytest.raises(ValueError, match=r"empty|begins with b'<html>'"):
            list(json_lists.items(reader(text), opening))


def test_memory_is_that_of_a_chunk_whatever_an_item_takes(monkeypatch):
    monkeypatch.setattr(json_lists, "CHUNK", 10_000)
    monkeypatch.setattr(json_lists, "MAX_ITEM", 50_000)
    item, large = b'{"x": "y"}, ' * 20_000, b'{"x": ["' + b'\\"}{' * 50_000 + b'", ' + b"{}, " * 20_000 + b"{}]}"
    text = b"[" + item + large + b', {"end": 1}]'
    tracemalloc.start()
    try:
        found = json_lists.items(reader(text), re.compile(rb"\["))
        assert sum(next(found) == b'{"x": "y"}' for _ in range(20_000)) == 20_000
        assert [next(found), next(found), next(found, "end")] == [None, b'{"end": 1}', "end"]
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------- Alexandria


def entry(mat_id, structure=SALT, **data):
    """Text of an entry as Alexandria's files hold it."""
    data = {"mat_id": mat_id, "e_form": -1.0, "e_above_hull": 0.0, "band_gap_ind": 2.0, "band_gap_dir": 2.5} | data
    return json.dumps(ComputedStructureEntry(structure, -27.1, data=data | {"formula": "NaCl"}).as_dict())


def write_alexandria(path, *entries):
    path.write_bytes(bz2.compress(('{"entries": [' + ", ".join(entries) + "]}").encode()))


def test_alexandria(tmp_path):
    write_alexandria(tmp_path / "alexandria_001.json.bz2", entry("agm3", e_form=float("nan"), band_gap_ind=None))
    write_alexandria(tmp_path / "alexandria_000.json.bz2", entry("agm1", spg=225), entry("agm2", PEROVSKITE, spg=1))
    (tmp_path / "alexandria_2d_000.json.bz2").write_text("not looked at")
    source = alexandria(tmp_path)
    records = pickle.loads(pickle.dumps(list(source.records())))
    assert [record.id for record in records] == ["agm1", "agm2", "agm3"] == [r.id for r in source.records()]
    assert [record.place for record in records][1:] == [
        "alexandria_000.json.bz2 entry 2",
        "alexandria_001.json.bz2 entry 1",
    ]
    assert records[0].columns == {"e_form": -1.0, "band_gap": 2.0, "space_group": 225}
    assert records[2].columns == {}  # NaN and null are missing, not zero
    same(records[1].crystal(), crystal_from_structure(PEROVSKITE, "agm2"))
    assert source.metadata["functional"] == "PBE" and "eV/atom" in source.metadata["labels"]["e_form"]


def test_a_folder_without_alexandria_files_says_where_they_are(tmp_path):
    with pytest.raises(ValueError, match=r"alexandria\.icams\.rub\.de/data/pbe") as caught:
        alexandria(tmp_path)
    assert str(tmp_path) in str(caught.value)


BAD_ENTRIES = {
    "no object": ("3", "no entry"),
    "broken json": ('{"data": {"mat_id": "agm9", }}', "no entry"),
    "not utf-8": ('{"data": {"mat_id": "\udcff"}}', "no entry"),
    "deep": ('{"data": ' * 100_000 + "}" * 100_000, "no entry"),
    "no data": ('{"structure": {}}', "'data' is missing"),
    "no id": (entry("agm9").replace("mat_id", "material"), "'mat_id' is missing"),
    "id null": (entry(None), "its id is None"),
    "no structure": (entry("agm9").replace('"structure"', '"geometry"'), "'structure' is missing"),
    "label text": (entry("agm9", e_form="low"), "e_form is 'low', not a number"),
    "label infinite": (entry("agm9", band_gap_ind=float("inf")), "band_gap is inf"),
    "label list": (entry("agm9", e_form=[1.0]), "e_form is [1.0]"),
    "space group 231": (entry("agm9", spg=231), "space_group is 231"),
    "coordinate": (entry("agm9").replace('"abc": [0.5, 0.5, 0.5]', '"abc": [0.5, NaN, 0.5]'), "not a finite number"),
}


def test_broken_entries_are_refused_and_the_others_go_on(tmp_path):
    texts = [text for bad, _ in BAD_ENTRIES.values() for text in (bad, entry("agm1"))]
    text = '{"entries": [' + ", ".join(texts) + "]}"
    (tmp_path / "alexandria_000.json.bz2").write_bytes(bz2.compress(text.encode("utf-8", "surrogateescape")))
    good, reasons = 0, []
    for record in alexandria(tmp_path).records():
        try:
            good += record.crystal().id == "agm1"
        except RejectedCrystal as error:
            reasons.append(str(error))
            assert record.place == f"alexandria_000.json.bz2 entry {2 * len(reasons) - 1}"
    assert good == len(BAD_ENTRIES) == len(reasons)
    for (name, (_, reason)), found in zip(BAD_ENTRIES.items(), reasons):
        assert reason in found and "\n" not in found, name


def cut(data):
    return data[: len(data) - 400]


BAD_FILES = {
    "truncated": (cut, "Compressed file ended"),
    "not bz2": (bz2.decompress, "Invalid data stream"),
    "empty": (lambda data: b"", "Compressed file ended"),
    "a damaged block": (lambda data: data[:-300] + bytes(100) + data[-200:], "Invalid data stream"),
    "json cut off": (lambda data: bz2.compress(cut(bz2.decompress(data))), "cut off"),
    "no entries": (lambda data: bz2.compress(b'{"results": []}'), "no such list: it begins with"),
    "nothing inside": (lambda data: bz2.compress(b""), "an empty file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_broken_file_is_a_reject_and_the_next_file_goes_on(tmp_path, name):
    damage, reason = BAD_FILES[name]
    path = tmp_path / "alexandria_000.json.bz2"
    rng, text = np.random.default_rng(0), entry("agm-id", note="noise")  # which is not compressed away
    write_alexandria(path, *(text.replace("-id", str(i)).replace("noise", rng.bytes(600).hex()) for i in range(600)))
    path.write_bytes(damage(path.read_bytes()))
    write_alexandria(tmp_path / "alexandria_001.json.bz2", entry("next"))
    *read, broken, after = alexandria(tmp_path).records()
    assert after.id == "next"
    assert [record.id for record in read] == [f"agm{i}" for i in range(len(read))]
    if name in ("truncated", "a damaged block", "json cut off"):
        assert 100 < len(read) < 600
    assert broken.place == f"alexandria_000.json.bz2 entry {len(read) + 1}"
    with pytest.raises(RejectedCrystal, match=f"the rest of the file cannot be read: .*{reason}"):
        broken.crystal()


# ---------------------------------------------------------------- JARVIS


def jarvis_entry(jid="JVASP-1", **changes):
    atoms = {
        "lattice_mat": [[5.64, 0.0, 0.0], [0.0, 5.64, 0.0], [0.0, 0.0, 5.64]],
        "coords": SALT.frac_coords.tolist(),
        "elements": ["Na"] * 4 + ["Cl"] * 4,
        "abc": [5.64] * 3,
        "angles": [90.0] * 3,
        "cartesian": False,
        "props": [""] * 8,
    }
    known = {"formation_energy_peratom": -1.9, "optb88vdw_bandgap": 5.2, "mbj_bandgap": "na", "spg_number": "225"}
    return {"jid": jid, "formula": "NaCl", "atoms": atoms, **known} | changes


def write_jarvis(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("jdft_3d-12-12-2022.json", json.dumps(entries))
    return path


def test_jarvis(tmp_path):
    atoms = jarvis_entry()["atoms"]
    cartesian = atoms | {"coords": SALT.cart_coords.tolist(), "cartesian": True}
    entries = [
        jarvis_entry(),
        jarvis_entry("JVASP-2", atoms=cartesian, spg_number=225, mbj_bandgap=8.0, optb88vdw_bandgap="na"),
        jarvis_entry("JVASP-3", formation_energy_peratom="na", optb88vdw_bandgap="0.0"),
    ]
    path = write_jarvis(tmp_path / "jdft_3d.json.zip", entries)
    source = jarvis(path)
    records = pickle.loads(pickle.dumps(list(source.records())))
    assert [record.columns for record in records] == [
        {"e_form": -1.9, "band_gap": 5.2, "space_group": 225},
        {"e_form": -1.9, "space_group": 225},  # another gap is no stand-in
        {"band_gap": 0.0, "space_group": 225},
    ]
    for record in records:
        same(record.crystal(), crystal_from_structure(SALT, record.id))
    (tmp_path / "plain.json").write_text(json.dumps(entries))
    assert [record.id for record in jarvis(tmp_path / "plain.json").records()] == [record.id for record in records]
    assert source.metadata["functional"] == "OptB88vdW" and source.metadata["version"] == "jdft_3d-12-12-2022.json"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"jid": None}, "its id is None"),
        ({"atoms": "na"}, "no atoms of JARVIS"),
        ({"atoms": {}}, "'cartesian' is missing"),
        ({"atoms": jarvis_entry()["atoms"] | {"cartesian": "no"}}, "`cartesian` is 'no'"),
        ({"atoms": jarvis_entry()["atoms"] | {"coords": [[0, 0, 0]]}}, "8 sites but coordinates of shape (1, 3)"),
        ({"atoms": jarvis_entry()["atoms"] | {"lattice_mat": [[0, 0, 0]] * 3, "cartesian": True}}, "span no volume"),
        ({"atoms": jarvis_entry()["atoms"] | {"elements": ["Na"] * 4 + ["X"] * 4}}, "'X' is no element"),
        ({"spg_number": "P1"}, "space_group is 'P1', not a number"),
    ],
)
def test_a_broken_entry_of_jarvis_is_refused(tmp_path, changes, reason):
    path = write_jarvis(tmp_path / "jdft_3d.json.zip", [jarvis_entry(**changes), jarvis_entry("JVASP-2")])
    first, second = jarvis(path).records()
    assert second.crystal().id == "JVASP-2"
    with pytest.raises(RejectedCrystal, match=re.escape(reason)):
        first.crystal()


def test_a_file_that_is_not_of_jarvis_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is no file: .*figshare"):
        jarvis(tmp_path / "absent.zip")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.json", "[]")
        archive.writestr("b.json", "[]")
    with pytest.raises(ValueError, match=r"two\.zip holds 2 \.json files"):
        jarvis(tmp_path / "two.zip")
    path = write_jarvis(tmp_path / "cut.zip", [jarvis_entry()])
    path.write_bytes(path.read_bytes()[:-100])
    (record,) = jarvis(path).records()
    with pytest.raises(RejectedCrystal, match=r"begins with b['\"]PK"):
        record.crystal()
