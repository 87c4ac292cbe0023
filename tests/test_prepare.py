"""Preparation: one dataset, from however many processes, in however many attempts."""

import dataclasses
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_datasets import rock_salt

from xxlib import PROJECT, prepare
from xxlib.datasets.preparing import writer
from xxlib.datasets.sources import Source, parsed, refused
from xxlib.datasets.sources.generated import Repeats
from xxlib.datasets.sources.parquet import parquet
from xxlib.datasets.store import Dataset, DatasetError
from xxlib.diffraction.wavelengths import CU_KA

DEMO = PROJECT / "data" / "demo"
N_CRYSTALS, SHARD, CHUNK = 240, 40, 10

# The command line, with small shards; with "slow" as its first argument the source yields a record every 10 ms.
COMMAND = f"""
import sys, time
from xxlib import prepare
from xxlib.datasets.preparing import writer
from xxlib.datasets.sources import Source
writer.SHARD_RECORDS, prepare.CHUNK_RECORDS = {SHARD}, {CHUNK}
def slow(path, seed):
    source = prepare.parquet(path)
    return Source(source.metadata, lambda: (time.sleep(0.01) or record for record in source.records()))
if sys.argv[1] == "slow":
    prepare.KINDS["parquet"] = slow
prepare.main(sys.argv[2:])
"""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(writer, "SHARD_RECORDS", SHARD)
    monkeypatch.setattr(prepare, "CHUNK_RECORDS", CHUNK)


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    """A parquet file of demo crystals, some of them broken, those with few lines first."""
    demo, table = Dataset(DEMO), pq.read_table(DEMO / "crystals.parquet")
    n_lines = np.diff(demo.take("two_theta", np.arange(len(demo)))[1])
    rows = np.argsort(n_lines, kind="stable")[:: len(demo) // N_CRYSTALS][:N_CRYSTALS]
    table = table.append_column("space_group", pa.array(demo.column("space_group").astype(int))).take(rows)
    broken = [0.1 if row % 17 == 5 else a for row, a in enumerate(table["a"].to_pylist())]
    path = tmp_path_factory.mktemp("source") / "crystals.parquet"
    pq.write_table(table.set_column(table.column_names.index("a"), "a", pa.array(broken)), path)
    return path


@pytest.fixture(scope="module")
def whole_folder(crystals, tmp_path_factory):
    """The dataset that one process made at a go."""
    folder = tmp_path_factory.mktemp("whole") / "dataset"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "SHARD_RECORDS", SHARD)
        patch.setattr(prepare, "CHUNK_RECORDS", CHUNK)
        assert prepare.prepare(parquet(crystals), folder, n_workers=1, progress=False) == (226, 14)
    return folder


@pytest.fixture(scope="module")
def whole(whole_folder):
    """Digests of its files."""
    digests = digests_of(whole_folder)
    assert set(digests) == {"dataset.json", "rejects.parquet", *(f"shard-{k:05d}.arrow" for k in range(6))}
    return digests


def digests_of(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def start(pace, *arguments, **options):
    command = [sys.executable, "-c", COMMAND, pace, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def children(pid):
    """Processes that the threads of a process started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def killed_at_random(crystals, folder, seed):
    """Begin a dataset and kill the process, with its workers or not, between its first and its last file."""
    rng = random.Random(seed)
    process = start("slow", "parquet", crystals, folder, "--workers", 1 + seed % 2)
    wait_for(lambda: folder.exists() or process.poll() is not None)
    time.sleep(rng.uniform(0, 4))
    victims = [process.pid, *children(process.pid)] if rng.random() < 0.5 else [process.pid]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def test_killed_anywhere_it_goes_on_to_the_same_bytes(crystals, whole, tmp_path):
    for seed in range(5):
        folder = tmp_path / str(seed)
        killed_at_random(crystals, folder, seed)
        if not (folder / "dataset.json").exists() or (folder / "unfinished.json").exists():
            prepare.prepare(parquet(crystals), folder, n_workers=1, progress=False)
        assert digests_of(folder) == whole


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(5, 35))
def test_killed_anywhere_twice_it_goes_on_to_the_same_bytes(crystals, whole, tmp_path, seed):
    folder = tmp_path / "dataset"
    killed_at_random(crystals, folder, seed)
    if not (folder / "dataset.json").exists():
        killed_at_random(crystals, folder, seed + 100)
    if not (folder / "dataset.json").exists() or (folder / "unfinished.json").exists():
        prepare.prepare(parquet(crystals), folder, n_workers=2, progress=False)
    assert digests_of(folder) == whole


def test_two_workers_make_the_same_dataset_and_say_what_they_did(crystals, whole, tmp_path):
    process = start("fast", "parquet", crystals, tmp_path / "d", "--workers", 2)
    said, bar = process.communicate(timeout=120)
    assert process.returncode == 0, bar
    assert digests_of(tmp_path / "d") == whole
    assert "226 crystals, 14 rejected" in said and "bytes a crystal" in said
    assert "14  cell lengths # # # angstrom outside #" in said
    assert "crystal/s" in bar and "rejected=14" in bar


def test_a_dask_cluster_makes_the_same_dataset_though_workers_are_killed(crystals, whole, tmp_path):
    distributed = pytest.importorskip("distributed")
    folder, source, killed = tmp_path / "d", parquet(crystals), []
    options = {"n_workers": 3, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        pids = sorted(client.run(os.getpid).values())

        def records():
            for number, record in enumerate(source.records()):
                if number in (100, 160):
                    killed.append(pids[len(killed)])
                    os.kill(killed[-1], signal.SIGKILL)
                yield record

        source = Source(source.metadata, source.records, source.n_records)
        slow = Source(source.metadata, records, source.n_records)
        prepare.prepare(slow, folder, scheduler=cluster.scheduler_address, progress=False)
        assert len(killed) == 2 and not set(killed) & set(client.run(os.getpid).values())
    assert digests_of(folder) == whole


def test_hkl_and_lattice_are_those_of_the_lines(crystals, whole, tmp_path):
    prepare.prepare(parquet(crystals), tmp_path / "d", n_workers=1, hkl=True, progress=False)
    dataset = Dataset(tmp_path / "d")
    rows = np.array([3, 150])
    columns = {name: dataset.take(name, rows)[0].astype(float) for name in ("h", "k", "l", "two_theta", "lattice")}
    offsets = dataset.take("two_theta", rows)[1]
    cells = columns["lattice"].reshape(2, 6)
    by_id = {record.id: record.crystal() for record in parquet(crystals).records() if record.content["a"] != 0.1}
    for b, row in enumerate(rows):
        lattice = by_id[dataset.column("id")[row]].lattice
        assert np.allclose(cells[b, :3], np.linalg.norm(lattice, axis=1))
        assert np.isclose(cells[b, 4], np.degrees(np.arccos(lattice[0] @ lattice[2] / cells[b, 0] / cells[b, 2])))
        lines = slice(*offsets[b : b + 2])
        hkl = np.stack([columns[name][lines] for name in "hkl"], 1)
        d = 1 / np.linalg.norm(hkl @ np.linalg.inv(lattice).T, axis=1)
        assert np.allclose(2 * np.degrees(np.arcsin(CU_KA / 2 / d)), columns["two_theta"][lines], atol=2e-5)


def test_columns_that_were_not_stored_are_one_clear_line():
    with pytest.raises(DatasetError, match=r"data/demo has no column h: prepare it with --hkl"):
        Dataset(DEMO).take("h", np.array([0]))


# ---------------------------------------------------------------- taken up again


CATIONS, ANIONS = (3, 11, 19, 37, 55, 12, 20, 38, 56, 29, 47), (9, 17, 35, 53, 8, 16, 34, 52, 7, 15, 33, 51)


def salts(enough=None, **metadata):
    """Source of rock salts; every fifth is refused, and every third comes again 30 later."""
    pairs, records = [(cation, anion) for cation in CATIONS for anion in ANIONS], []
    for i, pair in enumerate(pairs):
        salt = parsed(rock_salt(5.0, *pair, f"salt-{i}"), "here", split="train")
        records.append(refused(salt.id, "there", "no atoms") if i % 5 == 4 else salt)
        if i >= 30 and i % 3 == 2:
            records.append(parsed(rock_salt(5.0, *pairs[i - 30], f"again-{i - 30}"), "here", split="train"))
    return Source({"name": "salts", **metadata}, lambda: iter(records), len(records), enough=enough, distinct=Repeats)


def begin(source, folder, monkeypatch):
    """Prepare two shards of a dataset and no more."""

    def records():
        for i, record in enumerate(source.records()):
            if i == 2 * SHARD:
                raise KeyboardInterrupt
            yield record

    monkeypatch.setattr(prepare.workers, "CHUNKS_AHEAD", 1)  # so that what came before is written
    with pytest.raises(KeyboardInterrupt) as error:
        prepare.prepare(dataclasses.replace(source, records=records), folder, n_workers=1, progress=False)
    assert "finished shards" in error.value.__notes__[0] and str(folder) in error.value.__notes__[0]
    assert len(list(folder.glob("shard-*.arrow"))) == 2 and not (folder / "dataset.json").exists()


def test_what_was_seen_before_needs_no_memory(tmp_path):
    prepare.prepare(salts(), tmp_path / "salts", n_workers=1, progress=False)
    batch = pa.ipc.open_file(tmp_path / "salts" / "shard-00000.arrow").get_batch(0)
    repeats, n = Repeats(), len(batch)
    formula = batch.schema.get_field_index("formula")

    def see(times):
        for i in times:
            other = pa.array([f"{name} {i}" for name in batch["formula"].to_pylist()])
            assert repeats(batch.set_column(formula, "formula", other)) == [None] * n

    see(range(10))
    tracemalloc.start()
    try:
        see(range(10, 110))
        assert tracemalloc.get_traced_memory()[0] < 100 * n * 50  # bytes: a pattern alone would be 340
    finally:
        tracemalloc.stop()


def test_nothing_is_repeated_after_an_interruption_either(tmp_path, monkeypatch):
    """Only what is equal in formula, space group and pattern repeats; 75 crystals are enough."""
    begin(salts(enough=75), tmp_path / "taken up", monkeypatch)
    for name in ("whole", "taken up"):
        assert prepare.prepare(salts(enough=75), tmp_path / name, n_workers=1, progress=False)[0] == 75
    assert digests_of(tmp_path / "whole") == digests_of(tmp_path / "taken up")
    ids = Dataset(tmp_path / "whole").column("id").tolist()
    assert len(ids) == 75 and not [id for id in ids if id.startswith("again") and id.replace("again", "salt") in ids]
    assert "again-14" in ids  # salt-14 was refused
    reasons = {row["id"]: row["reason"] for row in pq.read_table(tmp_path / "whole" / "rejects.parquet").to_pylist()}
    assert reasons["again-2"] == "repeats salt-2: the same formula, space group and pattern"
    assert reasons["salt-4"] == "no atoms"


def test_what_is_taken_up_must_be_what_was_begun(tmp_path, monkeypatch):
    folder = tmp_path / "d"
    begin(salts(), folder, monkeypatch)
    for source, options, words in (
        (salts(), {"seed": 1}, r"beginning of another dataset \(other seed\)"),
        (salts(), {"hkl": True}, r"beginning of another dataset \(other hkl\)"),
        (salts(version=2), {}, r"beginning of another dataset \(other source\)"),
        (
            dataclasses.replace(salts(), records=lambda: islice(salts().records(), 1, None)),
            {},
            r"another source: the last record of shard-00000\.arrow was salt-37, now it is salt-38",
        ),
    ):
        with pytest.raises(DatasetError, match=words) as error:
            prepare.prepare(source, folder, progress=False, **options)
        assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_a_shard_that_the_disk_lost_is_made_again(tmp_path, monkeypatch):
    for name in ("whole", "damaged"):
        if name == "damaged":
            begin(salts(), tmp_path / name, monkeypatch)
            with open(tmp_path / name / "shard-00001.arrow", "r+b") as file:
                file.truncate(100)
        prepare.prepare(salts(), tmp_path / name, n_workers=1, progress=False)
    assert digests_of(tmp_path / "whole") == digests_of(tmp_path / "damaged")


def test_one_process_at_a_time(tmp_path):
    with writer.Writer(tmp_path, {}), pytest.raises(DatasetError, match="another process is preparing"):
        prepare.prepare(salts(), tmp_path, progress=False)


def test_killed_while_cleaning_up_it_is_finished(tmp_path, monkeypatch):
    folder = tmp_path / "d"
    begin(salts(), folder, monkeypatch)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writer.Writer, "_remove_leftovers", lambda self: signal.raise_signal(signal.SIGINT))
        prepare.prepare(salts(), folder, n_workers=1, progress=False)
    before = digests_of(folder)
    assert {"dataset.json", "unfinished.json", "rejects-00000.parquet"} <= set(before)
    assert sum(prepare.prepare(salts(), folder, n_workers=1, progress=False)) == salts().n_records
    after = digests_of(folder)
    assert after.items() <= before.items()
    assert set(after) == {"dataset.json", "rejects.parquet", *(f"shard-{k:05d}.arrow" for k in range(5))}


@pytest.mark.parametrize("number", ["abc", "0", "-5", "1e3"])
def test_a_number_that_is_none_is_one_clear_line(tmp_path, number):
    with pytest.raises(SystemExit, match=f"^prepare: how many crystals to generate\\? '{number}' is no number"):
        prepare.main(["generated", "--", number, str(tmp_path / "d")])
