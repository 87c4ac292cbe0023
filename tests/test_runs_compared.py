"""The runs that there are, in a table, in a figure, as event files."""

import json
import os

import pytest
from test_launch import config

from xxlib.launch import compare
from xxlib.launching import overview, processes
from xxlib.launching.comparison import write_events
from xxlib.launching.progress import by_step
from xxlib.training import runs
from xxlib.training.records import record


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Four runs: finished, half-way in this process, failed, never begun; and one that nobody can read."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    for name, lines in (("done", 20), ("half", 10), ("failed", 2), ("new", 0)):
        (tmp_path / name).mkdir()
        config(name).save(tmp_path / name / "run.json")
        with open(tmp_path / name / "metrics.jsonl", "w") as file:
            for step in range(1, lines + 1):
                values = {"samples": 8 * step, "seconds": 360.0 * step, "loss": 1 / step}
                records = [record("train", metric, value, step=step) for metric, value in values.items()]
                if step % 5 == 0:
                    records.append(record("val", "error", abs(step - 5) + 1, step=step))
                    records.append(record("val", "mae", step / 10, step=step, target="e_form", given=("xrd",)))
                file.write("".join(json.dumps(one) + "\n" for one in records))
        os.utime(tmp_path / name / "metrics.jsonl", (1e9 + lines, 1e9 + lines))
    (tmp_path / "done" / "results.json").write_text(json.dumps({"name": "done", "hardware": "an abacus"}))
    (tmp_path / "failed" / "failure.txt").write_text("failed failed (signal 9)\n")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text("{")
    return tmp_path


def test_the_list_says_what_there_is(folder):
    with processes.claim(folder / "half"):
        table = overview.list_runs().set_index("name")
    assert dict(table["state"]) == {
        "done": "finished", "half": "running", "failed": "failed", "new": "stopped", "torn": "damaged run.json",
    }  # fmt: skip
    assert list(table.index[-3:]) == ["failed", "half", "done"], "the last to be trained comes last"
    assert dict(table["progress"].dropna()) == {"done": 100, "half": 50, "failed": 10, "new": 0}
    done = table.loc["done"]
    assert (done["val error"], done["val e_form mae (meV/atom)"]) == (1, 500)
    assert (done["hours"], done["hardware"]) == (2, "an abacus")
    assert (done["preset"], done["targets"], done["dataset"]) == ("tiny", "e_form", "data/demo")
    assert overview.list_runs().set_index("name").loc["half", "state"] == "stopped"


def test_no_run_is_an_empty_table(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    assert len(overview.list_runs()) == 0 and {"name", "progress", "state"} <= set(overview.list_runs().columns)


def test_runs_are_compared_where_they_were_evaluated(folder):
    ax = compare(["done", "half", "failed"], "mae", "e_form").axes[0]
    drawn = ax.get_lines()
    assert [len(line.get_xdata()) for line in drawn] == [4, 2]  # no line of `failed` was evaluated
    assert [line.get_label() for line in drawn] == ["done: 2,000", "half: 1,000"]
    assert list(drawn[1].get_ydata()) == [500, 1000]
    assert " ".join(ax.get_ylabel().split()) == "e_form mae (meV/atom) on val"
    assert compare(["done"]).axes[0].get_ylabel() == "error on val"
    assert compare(["done"], "loss", split="train").axes[0].get_ylabel() == "loss on train"
    there = "train loss, train samples, train seconds, val e_form mae, val error"
    with pytest.raises(ValueError, match=f"none of done has val mae; there are: {there}"):
        compare(["done"], "mae")


def test_event_files_hold_the_metrics(folder, tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write_events(["done", "half"], tmp_path / "events")
    events = reading.EventAccumulator(str(tmp_path / "events" / "done"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("val/error")] == [(40, 1), (80, 6), (120, 11), (160, 16)]
    assert len(events.Scalars("train/loss")) == 20


def test_what_is_shown_of_a_run_while_it_trains():
    """A line a step: rates, losses, and of `val` the errors of ideal patterns and the losses of pretraining."""
    view = {"target": "e_form", "given": ("composition", "xrd")}
    records = [record("train", "samples", 8, step=1), record("train", "loss", 3, step=1)]
    records += [record("train", "loss", 2, step=1, target="e_form"), record("val", "masked xrd", 0.5, step=1)]
    records += [record("val", "mae", 0.1, step=1, **view), record("val", "mae", 9, step=1, exchanged="xrd", **view)]
    (line,) = by_step(records)
    assert line == {"samples": 8, "seconds": 0, "train/loss": 3, "train/e_form": 2, "val/masked xrd": 0.5,
                    "val/e_form mae": 0.1}  # fmt: skip
