"""Tests of what a run says it was computed on."""

import subprocess

from xxlib import __version__
from xxlib.training import machine


def test_the_commit_of_a_run_marks_changed_code_not_changed_results(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "PROJECT", tmp_path)
    assert machine.commit() == f"xxlib {__version__}", "the code is not of this folder: installed from a wheel"
    monkeypatch.setattr(machine, "PACKAGE", tmp_path / "xxlib")
    assert machine.commit() == "unknown"

    def git(*words):
        author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *author, *words], check=True, capture_output=True)

    (tmp_path / "xxlib").mkdir()
    code, table = tmp_path / "xxlib" / "model.py", tmp_path / "table.csv"
    code.write_text("1"), table.write_text("1")
    git("init"), git("add", "."), git("commit", "-m", "first")
    clean = machine.commit()
    assert len(clean) == 10

    table.write_text("2")
    assert machine.commit() == clean
    code.write_text("2")
    assert machine.commit() == clean + "+"
