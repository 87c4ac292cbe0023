"""Columns of a dataset: crystals that are stored, rows of a formula alone, strings read where they lie."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_datasets import copied, listed, rock_salt, rock_salts

from xxlib import prepare
from xxlib.crystals.crystal import Crystal, cell_from_lattice, lattice_from_cell, space_group
from xxlib.datasets.columns import Strings
from xxlib.datasets.duplicates import leakage
from xxlib.datasets.preparing import writer
from xxlib.datasets.sources import parsed, refused
from xxlib.datasets.sources.formulas import formulas
from xxlib.datasets.splits import by_random
from xxlib.datasets.store import ATOMS, COLUMNS, HKL, LATTICE, Dataset, DatasetError
from xxlib.diffraction.scattering import sticks

SKEW = Crystal(
    "skew",
    lattice_from_cell(3.1, 4.2, 5.3, 81, 92, 103) @ np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]),  # turned
    np.array([22, 8, 8]),
    np.array([[0.1, 0.2, 0.3], [0.6, 0.5, 0.4], [0.7, 0.2, 0.8]]),
    np.ones(3),
)
HEXAGONAL = Crystal(
    "hexagonal",
    lattice_from_cell(3.2, 3.2, 5.2, 90, 90, 120),
    np.array([12, 12]),
    np.array([[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]),
    np.ones(2),
)
SALT = rock_salt(5.6, 11, 17, "mixed")
MIXED = replace(  # potassium on the places of sodium
    SALT,
    atomic_numbers=np.concatenate([SALT.atomic_numbers, np.full(4, 19)]),
    frac_coords=np.concatenate([SALT.frac_coords, SALT.frac_coords[:4]]),
    occupancies=np.array([2 / 3] * 4 + [0.97] * 4 + [1 / 3] * 4),
)
CRYSTALS = [SKEW, HEXAGONAL, MIXED, *rock_salts(3)]


def dataset_of(crystals, folder, **options):
    prepare.prepare(listed(*(parsed(c, "here") for c in crystals)), folder, n_workers=1, progress=False, **options)
    return Dataset(folder)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return dataset_of(CRYSTALS, tmp_path_factory.mktemp("data") / "stored", structure=True)


# ---------------------------------------------------------------- crystals that are stored


@pytest.mark.parametrize("row", range(len(CRYSTALS)))
def test_a_stored_crystal_is_the_one_that_came(stored, row):
    crystal, back = CRYSTALS[row], stored.crystal(row)
    assert back.id == crystal.id and back.atomic_numbers.tolist() == crystal.atomic_numbers.tolist()
    assert np.allclose(cell_from_lattice(back.lattice), cell_from_lattice(crystal.lattice), rtol=1e-12)
    assert np.array_equal(back.frac_coords, crystal.frac_coords.astype(np.float32))
    assert np.allclose(back.occupancies, crystal.occupancies, atol=5e-4)
    assert space_group(back) == space_group(crystal) == stored.column("space_group")[row]
    lines = sticks(back)
    two_theta, intensity = (stored.take(name, [row])[0] for name in ("two_theta", "intensity"))
    assert np.allclose(lines.two_theta, two_theta, atol=1e-5)
    assert np.allclose(lines.intensity, intensity.astype(float), atol=0.1, rtol=2e-3)


def test_occupancies_take_room_only_where_some_are_not_one(stored):
    lengths = np.diff(stored.take("occupancies", np.arange(len(stored)))[1])
    assert lengths.tolist() == [0, 0, 12, 0, 0, 0]


def test_the_columns_of_before_are_the_same_with_crystals_and_without(stored, tmp_path):
    """And in their order: the option adds columns and changes nothing else."""
    plain = dataset_of(CRYSTALS, tmp_path / "plain")
    assert plain.shards[0].schema.names == [name for name, _ in COLUMNS]
    assert stored.shards[0].select(plain.shards[0].schema.names).equals(plain.shards[0])
    assert not plain.has_structure and stored.has_structure and not stored.has_hkl
    with pytest.raises(DatasetError, match=r"plain has no column lattice: prepare it with --structure"):
        plain.crystal(0)


def test_with_reflections_too_there_is_one_cell(stored, tmp_path):
    both = dataset_of(CRYSTALS, tmp_path / "both", structure=True, hkl=True)
    optional = [name for name, _ in (*HKL, LATTICE, *ATOMS)]
    assert [name for name in both.shards[0].schema.names if name not in dict(COLUMNS)] == optional
    assert both.has_hkl and both.has_structure
    assert np.array_equal(both.crystal(0).lattice, stored.crystal(0).lattice)


def test_a_begun_dataset_without_crystals_is_not_gone_on_with_as_one_with_them(tmp_path):
    begun = writer.Writer(tmp_path, {"a": 1})
    begun._write_json("unfinished.json", {"preparing": begun.preparing, "shards": []})
    assert not list(writer.Writer(tmp_path, {"a": 1}).resume(iter(())))
    with pytest.raises(DatasetError, match=r"beginning of another dataset \(other structure\)"):
        list(writer.Writer(tmp_path, {"a": 1}, structure=True).resume(iter(())))


# ---------------------------------------------------------------- a formula alone

TABLE = """formula,e_form,band_gap,id,split,note
La2Mn2O6,-2.5,1.1,first,test,x
NaCl,,8.5,,,"a, comma"
Mno3La,-1,1,bad,train,
LiF,nan,,,,
LiF,low,,,,
D2O,-1,,,,
,1,1,,,
NaBr,1,1,,train,x,y
NaI,1,1,,mine,
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A dataset of the formulas above."""
    folder = tmp_path_factory.mktemp("formulas")
    (folder / "table.csv").write_text(TABLE)
    prepare.main(["formulas", str(folder / "table.csv"), str(folder / "d"), "--workers", "1", "--hkl", "--structure"])
    return Dataset(folder / "d")


def test_a_formula_is_a_row_without_a_pattern(table):
    assert table.column("id").tolist() == ["first", "table-1", "table-3"]
    assert table.column("formula").tolist() == ["LaMnO3", "NaCl", "LiF"]  # reduced, for the split
    assert table.take("element_ids", [0])[0].tolist() == [8, 25, 57]
    assert np.allclose(table.take("fractions", [0])[0], [0.6, 0.2, 0.2])
    assert np.array_equal(table.labels["e_form"], [-2.5, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(table.labels["band_gap"], [1.1, 8.5, np.nan], equal_nan=True)
    for name in ("two_theta", "intensity", "h", "k", "l", "lattice", "atom_ids", "frac_coords", "occupancies"):
        assert table.take(name, np.arange(3))[1].tolist() == [0, 0, 0, 0], name


def test_what_follows_from_a_crystal_is_missing(table):
    assert np.isnan(table.labels["space_group"]).all() and np.isnan(table.labels["crystal_system"]).all()
    assert table.column("crystal_system").tolist() == table.column("symmetry_source").tolist() == ["", "", ""]
    with pytest.raises(DatasetError, match="table-1 is a formula without a crystal"):
        table.crystal(1)


def test_a_formula_keeps_its_split_or_has_that_of_its_crystal(table, tmp_path):
    crystals = dataset_of([rock_salt(5.6, 11, 17, "NaCl")], tmp_path / "crystals")
    assert table.column("split")[0] == "test" and table.column("split")[1] == crystals.column("split")[0]


def test_what_is_no_formula_is_refused_by_its_line(table):
    rejects = pq.read_table(table.folder / "rejects.parquet").to_pylist()
    expected = [
        ("bad", 4, "'Mno3La' is no chemical formula"),
        ("table-4", 6, "e_form is 'low', not a number"),
        ("table-5", 7, "'D2O': isotope D: write H"),
        ("table-6", 8, "no formula"),
        ("table-7", 9, "1 fields more than columns"),
        ("table-8", 10, "split is 'mine', none of train"),
    ]
    assert len(rejects) == len(expected)
    for reject, (id, line, reason) in zip(rejects, expected):
        assert (reject["id"], reject["source"]) == (id, f"table.csv line {line}")
        assert reject["reason"].startswith(reason)


def test_a_parquet_table_is_read_like_a_csv_one(tmp_path):
    columns = {"reduced_formula": ["NaCl", None, "O" * 301], "band_gap": [8.5, 1.0, 2.0], "mp_id": ["a", "b", "c"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    source = formulas(tmp_path / "t.parquet")
    good, empty, long = source.records()
    assert source.metadata["labels"] == {"band_gap": "column band_gap, eV"}
    assert (good.content, good.crystal(), good.columns) == ("NaCl", None, {"band_gap": 8.5})
    for record, reason in ((empty, "no formula"), (long, "a formula of 301 characters")):
        with pytest.raises(ValueError, match=reason):
            record.crystal()
    assert empty.place == "t.parquet row 1"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("t.csv", b"composition,e_form\nNaCl,1\n", "no column formula or reduced_formula"),
        ("t.csv", b"", "no column formula"),
        ("t.csv", b"\xff\xfe\x00", "is no table"),
        ("t.parquet", b"PAR1", "is no table"),
    ],
)
def test_what_is_no_table_of_formulas_is_one_clear_line(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SystemExit, match=words) as error:
        prepare.main(["formulas", str(tmp_path / name), str(tmp_path / "d")])
    assert "\n" not in str(error.value)
    with pytest.raises(SystemExit, match="No such file"):
        prepare.main(["formulas", str(tmp_path / "missing.csv"), str(tmp_path / "d")])


def test_a_table_that_breaks_off_keeps_what_came_before(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"formula\n" + b"NaCl\n" * 100_000 + b"\xff\n")
    *good, last = formulas(tmp_path / "t.csv").records()
    assert len(good) > 1000 and "the rest of the table cannot be read" in last.content


def test_crystals_and_formulas_may_be_in_one_dataset(tmp_path, table):
    """Their columns are equal, so that a shard of either may stand beside one of the other."""
    mixed = [parsed(CRYSTALS[0], "here"), *formulas(table.folder.parent / "table.csv").records()]
    prepare.prepare(listed(*mixed, parsed(CRYSTALS[1], "here")), tmp_path / "d", n_workers=1, progress=False)
    dataset = Dataset(tmp_path / "d")
    lengths = np.diff(dataset.take("two_theta", np.arange(5))[1])
    assert (lengths[[0, 4]] > 0).all() and (lengths[1:4] == 0).all()
    assert np.isnan(dataset.labels["space_group"]).tolist() == [False, True, True, True, False]
    assert leakage(dataset)["ids"].sum() == 0 and len(by_random(dataset.column("split"))) == 5


# ---------------------------------------------------------------- strings where they lie


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A dataset of 12 rock salts in shards of 5 records, one of them refused."""
    folder = tmp_path_factory.mktemp("data") / "many"
    records = [parsed(crystal, "here", split="train") for crystal in rock_salts()]
    records.insert(3, refused("bad", "there", "no atoms"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "SHARD_RECORDS", 5)
        patch.setattr(prepare, "CHUNK_RECORDS", 5)
        prepare.prepare(listed(*records), folder, n_workers=1, progress=False)
    return Dataset(folder)


def test_strings_are_taken_by_rows_of_any_kind(many):
    ids, names = many.column("id"), np.array([f"rs-{i}" for i in range(12)])
    assert len(many.shards) == 3 and isinstance(ids, Strings) and len(ids) == 12
    for rows in (np.array([7, 0, 3, 3, 11]), [5], [], slice(2, 9, 3), names == "rs-4", np.array([[0, 5], [6, 11]]), -1):
        chosen = names[np.array(rows, int) if isinstance(rows, list) else rows]
        assert np.array_equal(ids[rows], chosen) and np.shape(ids[rows]) == np.shape(chosen)
    assert isinstance(ids[4], str) and list(ids) == ids.tolist() == names.tolist() == np.asarray(ids).tolist()
    with pytest.raises(IndexError):
        ids[12]


def test_strings_are_compared_where_they_lie(many):
    ids = many.column("id")
    assert np.flatnonzero(ids == "rs-6").tolist() == [6] and not (ids == "rs").any()
    assert np.flatnonzero(ids.isin(["rs-11", "other", "rs-0"])).tolist() == [0, 11]
    assert np.flatnonzero(np.isin(ids, ["rs-11", "other", "rs-0"])).tolist() == [0, 11]
    assert np.flatnonzero(pd.Series(["rs-3", "x"]).isin(ids)).tolist() == [0]
    assert pd.DataFrame({"id": ids})["id"].tolist() == ids.tolist()


def test_a_column_of_strings_costs_no_memory_until_it_is_read(many):
    """The values are those of the file, mapped."""
    before = pa.total_allocated_bytes()
    column = many.column("formula")
    assert pa.total_allocated_bytes() == before
    for chunk, shard in zip(column.chunks, many.shards):
        assert chunk.buffers()[2].address == shard.column("formula").buffers()[2].address


def test_a_shard_is_read_without_its_checksum_where_another_process_checks_it(many, tmp_path):
    shard = copied(many.folder, tmp_path) / "shard-00001.arrow"
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"rs-6", b"rs-7"))
    assert Dataset(tmp_path, check=False).column("id")[6] == "rs-7"
    with pytest.raises(DatasetError, match="does not match its sha256"):
        Dataset(tmp_path)
    shard.write_bytes(data[:1000])
    with pytest.raises(DatasetError, match=r"shard-00001\.arrow cannot be read .*: it is damaged"):
        Dataset(tmp_path, check=False)
    shard.unlink()
    with pytest.raises(DatasetError, match="is missing"):
        Dataset(tmp_path, check=False)
