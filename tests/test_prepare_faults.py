"""Preparation when things go wrong: crystals that hang or crash, workers that are killed, disks that are full."""

import dataclasses
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from hostile import DEEDS, hostile
from test_prepare import (  # noqa: F401
    COMMAND,
    children,
    crystals,
    digests_of,
    is_running,
    small_shards,
    start,
    wait_for,
    whole,
    whole_folder,
)

from xxlib import prepare
from xxlib.crystals import crystal as limits
from xxlib.crystals.crystal import Crystal, RejectedCrystal, check
from xxlib.datasets.preparing import workers
from xxlib.datasets.preparing.rows import MAX_REFLECTIONS_X_ATOMS, check_work
from xxlib.datasets.sources.files import cif_folder
from xxlib.datasets.sources.parquet import parquet


def test_a_crystal_costs_only_itself(tmp_path):
    counts = prepare.prepare(hostile(DEEDS), tmp_path / "d", n_workers=1, time_limit=3.0, progress=False)
    assert counts == (len(DEEDS) + 1, len(DEEDS))
    rejects = {row["id"]: row for row in pq.read_table(tmp_path / "d" / "rejects.parquet").to_pylist()}
    assert {id: row["reason"] for id, row in rejects.items()} == {
        "hangs": "timeout: longer than 3 s, twice",
        "crashes": "worker died: twice (SIGSEGV)",
        "is killed": "worker died: twice (SIGKILL)",
        "exits": "worker died: twice (exit status 3)",
        "stumbles": "KeyError: 'missing'",
        "asks too much": rejects["asks too much"]["reason"],
    }
    assert "MemoryError" in rejects["asks too much"]["reason"]
    assert rejects["crashes"]["source"] == "line 1"


def test_what_goes_wrong_once_is_forgiven(tmp_path):
    """The second time, alone, they are what they are without the fault: the dataset is the same."""
    once = ("hangs", "is killed")
    for name, marker in (("faults", tmp_path / "done"), ("none", tmp_path / "done")):
        prepare.prepare(hostile(once, marker), tmp_path / name, n_workers=1, time_limit=3.0, progress=False)
    assert (tmp_path / "done-0").exists() and (tmp_path / "done-1").exists()
    assert digests_of(tmp_path / "faults") == digests_of(tmp_path / "none")


def test_workers_killed_from_outside_change_nothing(crystals, whole, tmp_path):  # noqa: F811
    """Every 80 crystals the worker is killed."""
    source, killed, others = parquet(crystals), [], children(os.getpid())

    def records():
        for i, record in enumerate(source.records()):
            if i in (80, 160):
                time.sleep(0.3)  # nothing but the chunks ahead is under way
                killed.extend(pid for pid in children(os.getpid()) if pid not in others)
                os.kill(killed[-1], signal.SIGKILL)
            yield record

    slow = dataclasses.replace(source, records=records)
    prepare.prepare(slow, tmp_path / "d", n_workers=1, progress=False)
    assert len(killed) == 2 and digests_of(tmp_path / "d") == whole


@pytest.mark.parametrize(("sent", "words"), [(signal.SIGKILL, ""), (signal.SIGINT, "prepare: interrupted; finished")])
def test_no_worker_outlives_preparation(crystals, tmp_path, sent, words):  # noqa: F811
    process = start("slow", "parquet", crystals, tmp_path / "d", "--workers", 2)
    wait_for(lambda: len(children(process.pid)) == 2)
    pids = children(process.pid)
    process.send_signal(sent)
    _, said = process.communicate(timeout=30)
    assert process.returncode != 0 and said.split("\r")[-1].split("\n")[-2:][0].startswith(words)
    wait_for(lambda: not any(is_running(pid) for pid in pids), seconds=10)


def test_workers_that_cannot_start_are_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "START", "raise SystemExit(7)")
    with pytest.raises(workers.WorkersFailed, match=r"^a worker process could not start \(exit status 7\)"):
        prepare.prepare(hostile(["stumbles"]), tmp_path / "d", progress=False)


def test_a_reader_that_workers_cannot_import_is_one_clear_line(tmp_path, monkeypatch):
    source = hostile(["stumbles"])
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not path.endswith("tests")])
    with pytest.raises(workers.WorkersFailed, match="cannot take over a chunk: No module named 'hostile'"):
        prepare.prepare(source, tmp_path / "d", progress=False)


def test_a_cluster_that_is_not_there_is_one_clear_line(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "CONNECT_TIMEOUT", 0.5)
    with pytest.raises(workers.WorkersFailed, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        prepare.prepare(hostile(["stumbles"]), tmp_path / "d", scheduler="tcp://127.0.0.1:9", progress=False)


# ---------------------------------------------------------------- limits


def test_large_crystals_are_refused_before_the_work_starts(tmp_path):
    """A cell of 5e4 angstrom, 5,000 atoms and 50 MB of text, among good files; none takes a second."""
    folder = tmp_path / "cifs"
    folder.mkdir()
    head = "data_x\n_symmetry_space_group_name_H-M 'P 1'\n_cell_length_a {0}\n_cell_length_b {0}\n_cell_length_c {0}\n"
    head += "_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90\nloop_\n_atom_site_label\n"
    head += "_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
    atoms = "".join(f"Po{i} Po {i % 20 / 20:.4f} {i // 20 % 20 / 20:.4f} {i // 400 / 20:.4f}\n" for i in range(5000))
    texts = {
        "good": head.format(3.35) + "Po1 Po 0 0 0\n",
        "huge cell": head.format(5e4) + "Po1 Po 0 0 0\n",
        "5000 atoms": head.format(50) + atoms,
        "50 MB": "#" * 50_000_000,
    }
    for name, text in texts.items():
        (folder / f"{name}.cif").write_text(text)
    assert prepare.prepare(cif_folder(folder), tmp_path / "d", n_workers=1, time_limit=20, progress=False) == (1, 3)
    rejects = {row["id"]: row["reason"] for row in pq.read_table(tmp_path / "d" / "rejects.parquet").to_pylist()}
    assert "outside 1.5-200" in rejects["huge cell.cif"]
    assert "5000 atoms, more than 1000" in rejects["5000 atoms.cif"]
    assert "too large: 50.0 MB, more than 5" in rejects["50 MB.cif"]


def large(n_atoms, a, c):
    return Crystal(
        "large",
        np.diag([a, a, c]),
        np.full(n_atoms, 84),
        np.random.default_rng(0).random((n_atoms, 3)),
        np.ones(n_atoms),
    )


def test_the_volume_and_the_work_of_a_crystal_are_limited():
    with pytest.raises(RejectedCrystal, match=r"a cell of 2\.205e\+05 cubic angstrom, more than 200000"):
        check(large(900, 35.0, 180.0))
    check_work(large(500, 30.0, 110.0))
    with pytest.raises(RejectedCrystal, match=r"too large: 1\.64e\+05 reflections x 900 atoms"):
        check_work(large(900, 30.0, 110.0))
    assert MAX_REFLECTIONS_X_ATOMS < 2e8 and limits.MAX_FILE_BYTES <= 10_000_000


# ---------------------------------------------------------------- the disk


def test_a_full_disk_keeps_what_is_finished(crystals, whole, whole_folder, tmp_path):  # noqa: F811
    """Files may not grow beyond the first shards, which hold crystals of few lines."""
    sizes = sorted(path.stat().st_size for path in whole_folder.glob("shard-*.arrow"))
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (sizes[2] + 100, sizes[2] + 100))
    arguments = ("fast", "parquet", crystals, tmp_path / "d", "--workers", 1)
    process = start(*arguments, preexec_fn=limit)
    _, said = process.communicate(timeout=120)
    line = said.split("\r")[-1].strip().split("\n")[-1]
    assert process.returncode == 1 and "File too large" in line and "shard-00003.arrow" in line
    assert f"finished shards in {tmp_path / 'd'} are kept" in line
    assert len(list((tmp_path / "d").glob("shard-*.arrow"))) == 3 and not list((tmp_path / "d").glob("*.tmp"))
    assert start(*arguments).wait(120) == 0
    assert digests_of(tmp_path / "d") == whole


def test_a_folder_that_may_not_be_written_is_one_clear_line():
    leave_root = "import os\nif os.geteuid() == 0:\n    os.seteuid(65534)\n"
    command = COMMAND.replace("prepare.main", f"{leave_root}prepare.main")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        arguments = [sys.executable, "-c", command, "fast", "generated", "5", folder]
        run = subprocess.run(arguments, capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.count("\n") == 1
    assert f"Permission denied: '{folder}/unfinished.lock'; finished shards in {folder} are kept" in run.stderr
