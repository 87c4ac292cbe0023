"""Preparation where others are at work: a second process, another source, files of others, odd files and words."""

import dataclasses
import os
import random
import re
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_datasets import rock_salt
from test_prepare import begin, digests_of, salts, small_shards, start, wait_for  # noqa: F401

from xxlib import prepare
from xxlib.datasets.preparing.writer import Writer
from xxlib.datasets.sources import Source, parsed
from xxlib.datasets.sources.files import cif_folder, poscar_folder
from xxlib.datasets.store import Dataset, DatasetError
from xxlib.datasets.writing import locked

CELL = "".join(f"_cell_length_{axis} 4\n" for axis in "abc") + "".join(
    f"_cell_angle_{angle} 90\n" for angle in ("alpha", "beta", "gamma")
)


def cif(symbol="Cu", a=4.0):
    return (
        "data_x\n_symmetry_space_group_name_H-M 'P 1'\n" + CELL.replace(" 4\n", f" {a}\n") + "loop_\n"
        "_symmetry_equiv_pos_as_xyz\nx,y,z\nloop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n"
        f"_atom_site_fract_y\n_atom_site_fract_z\nA {symbol} 0 0 0\n"
    )


def rejects(folder):
    return {row["id"]: row["reason"] for row in pq.read_table((folder / "rejects.parquet").open("rb")).to_pylist()}


# ---------------------------------------------------------------- two at once


def a_table(path, n=130, a=5.0):
    """A parquet file of rock salts."""
    rows = []
    for i in range(n):
        salt = rock_salt(a + i / 1000, 11 if i % 2 else 19, 17, f"salt-{i}")
        lengths = dict.fromkeys("abc", a + i / 1000) | dict.fromkeys(("alpha", "beta", "gamma"), 90.0)
        rows.append({"id": salt.id, **lengths, "atomic_numbers": salt.atomic_numbers.tolist(),
                     "frac_coords": salt.frac_coords.ravel().tolist()})  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def pair(folder, sources, delay):
    """Two preparations of two sources into one folder, the second after a delay: [(exit status, last line), ...]"""
    processes = []
    for source in sources:
        processes.append(start("slow", "parquet", source, folder, "--workers", 1))
        time.sleep(delay)
    return [(process.wait(timeout=300), process.communicate()[1].strip().split("\n")[-1]) for process in processes]


def check_pair(tmp_path, seed, sources):
    rng, folder = random.Random(seed), tmp_path / str(seed)
    outcomes = pair(folder, sources, rng.choice((0, 0, rng.uniform(0, 1), rng.uniform(0, 6))))
    assert sorted(status for status, _ in outcomes) == [0, 1], outcomes
    refused = next(line for status, line in outcomes if status)
    assert re.match("prepare: (another process is preparing|.* already holds a dataset)", refused), refused
    dataset, number = Dataset(folder), [status for status, _ in outcomes].index(0)
    assert len(dataset) == 130 and dataset.meta["source"]["name"] == sources[number].name
    assert set(digests_of(folder)) == {"dataset.json", "rejects.parquet", *(f"shard-{k:05d}.arrow" for k in range(4))}


def test_of_two_preparations_into_one_folder_one_is_refused(tmp_path):
    sources = [a_table(tmp_path / f"{name}.parquet", a=a) for name, a in (("first", 5.0), ("second", 5.5))]
    check_pair(tmp_path, 0, sources)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(1, 31))
def test_of_thirty_pairs_none_damages_the_dataset(tmp_path, seed):
    sources = [a_table(tmp_path / f"{name}.parquet", a=a) for name, a in (("first", 5.0), ("second", 5.5))]
    check_pair(tmp_path, seed, sources)


def test_a_lock_that_its_owner_removes_keeps_the_next_one_out(tmp_path, monkeypatch):
    """Between its opening and its locking by a second process, the first one ends and a third one comes."""
    import xxlib.datasets.writing as writing

    path, first, others = tmp_path / "lock", None, []
    first = locked(path)
    first.__enter__()
    flock = writing.fcntl.flock

    def slowly(file, operation):
        monkeypatch.setattr(writing.fcntl, "flock", flock)
        first.__exit__(None, None, None)
        others.append(locked(path))
        others[0].__enter__()
        flock(file, operation)

    monkeypatch.setattr(writing.fcntl, "flock", slowly)
    with pytest.raises(BlockingIOError), locked(path):
        pass
    assert path.exists()
    others[0].__exit__(None, None, None)
    assert not path.exists()


# ---------------------------------------------------------------- files of others


FOREIGN = (
    "notes.tmp",
    "shards-old.arrow",
    "rejects-old.parquet",
    "unfinished.txt",
    "crystals.parquet",
)


def test_files_of_others_are_left_alone(tmp_path, monkeypatch):
    for name in FOREIGN:
        (tmp_path / name).write_text("mine")
    begin(salts(), tmp_path, monkeypatch)  # and when it is taken up
    prepare.prepare(salts(), tmp_path, n_workers=1, progress=False)
    assert all((tmp_path / name).read_text() == "mine" for name in FOREIGN)
    assert len(Dataset(tmp_path)) > 0 and len(list(tmp_path.iterdir())) == len(FOREIGN) + 2 + 5


@pytest.mark.parametrize(
    "name", ["shard-00007.arrow", "rejects-00000.parquet", "rejects.parquet", "shard-00000.arrow.tmp"]
)
def test_a_file_of_others_that_would_be_written_is_not(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(DatasetError, match=f"holds {name}, which no preparation under way has written: remove it or"):
        prepare.prepare(salts(), tmp_path, n_workers=1, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_what_came_to_nothing_leaves_nothing(tmp_path):
    """So that the same command, or another, starts anew."""
    with pytest.raises(DatasetError, match="no crystal was accepted"):
        prepare.prepare(Source({}, lambda: iter(())), tmp_path / "d", progress=False)
    assert not list((tmp_path / "d").iterdir())
    with pytest.raises(DatasetError), Writer(tmp_path / "d", {}):
        raise DatasetError
    assert not list((tmp_path / "d").iterdir())
    prepare.prepare(salts(), tmp_path / "d", n_workers=1, progress=False)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00", "[" * 10, '{"preparing": 3, "shards": []}',
                                  '{"preparing": {}, "shards": [{"file": "shard-00000.arrow"}]}'])  # fmt: skip
def test_a_beginning_that_is_damaged_is_one_line(tmp_path, text):
    (tmp_path / "unfinished.json").write_text(text)
    with pytest.raises(DatasetError, match=r"unfinished\.json is damaged .* remove the folder and prepare it anew"):
        prepare.prepare(salts(), tmp_path, n_workers=1, progress=False)


# ---------------------------------------------------------------- a source that changes


def with_other(source, number, **changes):
    """The source with another record at one place."""

    def records():
        for i, record in enumerate(source.records()):
            yield dataclasses.replace(record, **changes) if i == number else record

    return dataclasses.replace(source, records=records)


@pytest.mark.parametrize(
    "changes",
    [
        {"content": rock_salt(5.01, 11, 17, "other")},
        {"columns": {"split": "test"}},
        {"columns": {"split": "train", "e_form": -1.0}},
        {"id": "other"},
    ],
    ids=["content", "split", "label", "id"],
)
@pytest.mark.parametrize(("number", "shard"), [(3, 0), (45, 1)])
def test_a_source_that_changed_within_a_shard_is_not_mixed_in(tmp_path, monkeypatch, changes, number, shard):
    begin(salts(), tmp_path, monkeypatch)
    before = digests_of(tmp_path)
    with pytest.raises(DatasetError, match=f"40 records of shard-0000{shard}.arrow, up to .*, have changed") as error:
        prepare.prepare(with_other(salts(), number, **changes), tmp_path, n_workers=1, progress=False)
    assert "\n" not in str(error.value) and digests_of(tmp_path) == before
    prepare.prepare(with_other(salts(), 85, **changes), tmp_path, n_workers=1, progress=False)  # not read before


def test_a_file_that_changed_in_a_folder_is_not_mixed_in(tmp_path, monkeypatch):
    crystals, folder = tmp_path / "crystals", tmp_path / "d"
    crystals.mkdir()
    for i in range(100):
        (crystals / f"{i:03d}.cif").write_text(cif(a=4 + i / 100))
    begin(cif_folder(crystals), folder, monkeypatch)
    before = (crystals / "007.cif").read_text()
    (crystals / "007.cif").write_text(cif(a=6))
    with pytest.raises(DatasetError, match="some of the 40 records of shard-00000"):
        prepare.prepare(cif_folder(crystals), folder, n_workers=1, progress=False)
    (crystals / "007.cif").write_text(before)
    assert prepare.prepare(cif_folder(crystals), folder, n_workers=1, progress=False) == (100, 0)


def test_a_fingerprint_is_of_values_and_not_of_objects():
    name = "".join(["a", "b"])
    one = parsed(rock_salt(5.0, 11, 17, "x"), "here", formula=name, split="ab")
    two = parsed(rock_salt(5.0, 11, 17, "x"), "there", formula="ab", split="ab")
    assert one.fingerprint() == two.fingerprint()
    moved = rock_salt(5.0, 11, 17, "x")
    moved.frac_coords[5, 1] += 1e-12
    assert parsed(moved, "here", formula="ab", split="ab").fingerprint() != one.fingerprint()


# ---------------------------------------------------------------- odd files


def test_a_name_that_is_not_utf_8_is_a_crystal_as_any(tmp_path, capsys):
    folder = os.fsencode(tmp_path / "crystals")
    os.mkdir(folder)
    for name, text in (
        (b"a.cif", cif()),
        (b"caf\xe9.cif", cif("Fe")),
        (b"gr\xfcn.cif", "nothing"),
        (b"z.cif", cif("Ni")),
    ):
        Path(os.fsdecode(os.path.join(folder, name))).write_text(text)
    target = tmp_path / os.fsdecode(b"d\xe9")
    prepare.main(["cif", str(tmp_path / "crystals"), str(target), "--workers", "1"])
    pq.write_table(pa.table({}), open(tmp_path / os.fsdecode(b"t\xe9.parquet"), "wb"))  # noqa: SIM115
    with pytest.raises(ValueError, match=r"is no file of crystals: it has no column id"):
        prepare.parquet(tmp_path / os.fsdecode(b"t\xe9.parquet"))
    assert Dataset(target).column("id").tolist() == ["a.cif", r"caf\xe9.cif", "z.cif"]
    assert list(rejects(target)) == [r"gr\xfcn.cif"] and r"d\xe9: 3 crystals" in capsys.readouterr().out


def test_an_id_of_json_that_is_no_text_can_be_stored(tmp_path):
    salt = rock_salt(5.0, 11, 17, "x")
    source = Source({}, lambda: iter([dataclasses.replace(parsed(salt, "here"), id="\ud800", place="\udfff")]))
    prepare.prepare(source, tmp_path / "d", n_workers=1, progress=False)
    assert Dataset(tmp_path / "d").column("id")[0] == r"\ud800"


POSCAR = "x\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 1\nDirect\n0 0 0\n.5 .5 .5\n"


def odd_files(folder, names, text):
    ok, pipe, device, link = names
    (folder / ok).write_text(text)
    os.mkfifo(folder / pipe)
    (folder / device).symlink_to("/dev/zero")
    (folder / link).symlink_to("nothing")


@pytest.mark.parametrize(
    ("source", "names", "text"),
    [
        (poscar_folder, ("POSCAR_ok", "POSCAR_pipe", "POSCAR_zero", "POSCAR_link"), POSCAR),
        (cif_folder, ("ok.cif", "pipe.cif", "zero.cif", "link.cif"), cif()),
    ],
)
def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path, source, names, text):
    folder = tmp_path / "crystals"
    folder.mkdir()
    odd_files(folder, names, text)
    assert prepare.prepare(source(folder), tmp_path / "d", n_workers=1, progress=False) == (1, 3)
    assert rejects(tmp_path / "d") == {
        names[1]: "cannot be read: a folder, pipe or device",
        names[2]: "cannot be read: a folder, pipe or device",
        names[3]: "cannot be read: No such file or directory",
    }


@pytest.mark.parametrize("kind", ["parquet", "extxyz", "jarvis", "lemat", "formulas"])
def test_a_source_that_is_a_pipe_or_a_device_is_one_line(tmp_path, kind):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match=f"{path} is no file"):
            prepare.KINDS[kind](str(path), 0)


# ---------------------------------------------------------------- odd words and numbers


def test_a_split_of_other_words_is_refused_by_name(tmp_path):
    table = pq.read_table(a_table(tmp_path / "t.parquet", n=6))
    for words, accepted in (
        (["training", "training", "validation", "test ", "Train", "holdout"], 0),
        (["train", "val", "test", "experimental", "dev", None], 5),
        ([0, 1, 2, 0, 1, 2], 1),  # 0 is no word: by formula
    ):
        path, folder = tmp_path / "s.parquet", tmp_path / str(accepted)
        pq.write_table(table.append_column("split", pa.array(words)), path)
        if accepted == 0:
            with pytest.raises(SystemExit, match=r"6 were rejected: .* row 0: split is 'training', none of t"):
                prepare.main(["parquet", str(path), str(folder), "--workers", "1"])
            continue
        n, n_rejects = prepare.prepare(prepare.parquet(path), folder, n_workers=1, progress=False)
        assert n + n_rejects == 6 and sum(Dataset(folder).meta["counts"].values()) == len(Dataset(folder)) == n
        if accepted == 5:
            assert rejects(folder)["salt-4"] == (
                "split is 'dev', none of train, val, test, experimental: rename it, or leave the column out"
            )


def test_a_formula_that_is_a_number_costs_its_row_alone(tmp_path):
    table = pq.read_table(a_table(tmp_path / "t.parquet", n=3))
    pq.write_table(table.append_column("reduced_formula", pa.array([1, None, 2])), tmp_path / "f.parquet")
    assert prepare.prepare(prepare.parquet(tmp_path / "f.parquet"), tmp_path / "d", n_workers=1, progress=False) == (
        1,
        2,
    )
    assert rejects(tmp_path / "d")["salt-0"] == "its formula is 1, no text"


def test_an_id_of_zero_is_an_id(tmp_path):
    table = pq.read_table(a_table(tmp_path / "t.parquet", n=3))
    pq.write_table(table.set_column(0, "id", pa.array([0, 1, 2])), tmp_path / "n.parquet")
    assert [record.id for record in prepare.parquet(tmp_path / "n.parquet").records()] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--time-limit", "nan", "a time limit of nan s: it must be more than 0 s"),
        ("--time-limit", "inf", "a time limit of inf s"),
        ("--time-limit", "0", "a time limit of 0 s"),
        ("--time-limit", "-1", "a time limit of -1 s"),
        ("--time-limit", "1e300", "a time limit of"),
        ("--workers", "0", "0 workers: there must be at least 1"),
        ("--workers", "-3", "-3 workers"),
        ("--workers", "1000000000", "1000000000 workers: there must be at least 1 and at most 1000"),
        ("--seed", "-1", "seed -1: it must not be negative"),
    ],
)
def test_a_number_that_cannot_be_is_one_line(tmp_path, option, value, words):
    (tmp_path / "a.cif").write_text(cif())
    with pytest.raises(SystemExit, match=f"^prepare: {words}"):
        prepare.main(["cif", str(tmp_path), str(tmp_path / "d"), f"{option}={value}"])
    assert not (tmp_path / "d").exists()
