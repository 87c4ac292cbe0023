"""Tables of results: units, seeds, and what is kept apart."""

import json

import pandas as pd
import pytest
from study.tables import E_FORM, as_text, captioned, planned_table, results_table, summary_table, with_unit
from study.variants import pretraining, variant

from xxlib import PROJECT

# results.json as xxlib.train writes it
RESULT = {
    "name": "bimodal-multi-s0", "preset": "small", "dataset": "data/mp36k", "split": "formula", "seed": 0,
    "modalities": ["composition", "xrd"], "targets": ["e_form", "crystal_system"], "parameters": 1_500_000,
    "samples": 1_024_000, "best_step": 3800, "seconds": 1500.0, "hardware": "a CPU, 2 threads", "commit": "127b533133",
    "val/error": 0.2, "val/e_form_mae": 0.081, "val/crystal_system_accuracy": 0.71,
    "test/error": 0.2, "test/e_form_mae": 0.08, "test/e_form_rmse": 0.12, "test/e_form_r2": 0.98,
    "test/crystal_system_accuracy": 0.7, "test/crystal_system_balanced_accuracy": 0.6,
    "test/crystal_system_log_loss": 0.9,
}  # fmt: skip


def write(folder, name, **changes):
    """A finished run in a folder; changes: keys of results.json, with "/" where they have it, or None to leave out."""
    path = folder / name / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {key: value for key, value in (RESULT | {"name": name} | changes).items() if value is not None}
    path.write_text(json.dumps(result))
    path.with_name("run.json").write_text(json.dumps({"batch_size": 256, "learning_rate": 5e-4, "n_steps": 4000}))


def test_a_run_is_a_row_in_the_units_of_the_tables(tmp_path):
    write(tmp_path, "bimodal-multi-s0")
    write(tmp_path, "bimodal-gap-s0", targets=["band_gap"], **{"test/band_gap_mae": 0.4})
    (tmp_path / "unfinished").mkdir()
    table = results_table(tmp_path)
    assert len(table) == 2
    row = table.set_index("name").loc["bimodal-multi-s0"]
    assert row["test e_form mae (meV/atom)"] == pytest.approx(80)
    assert row["test e_form rmse (meV/atom)"] == pytest.approx(120)
    assert row["val e_form mae (meV/atom)"] == pytest.approx(81)
    assert row["test e_form r2"] == 0.98
    assert row["test crystal_system accuracy (%)"] == pytest.approx(70)
    assert row["test crystal_system balanced_accuracy (%)"] == pytest.approx(60)
    assert row["test crystal_system log_loss (nat)"] == 0.9
    assert table.set_index("name").loc["bimodal-gap-s0", "test band_gap mae (eV)"] == 0.4
    about = ("dataset", "split", "preset", "seed", "commit", "hardware", "samples", "parameters")
    assert {name: row[name] for name in about} == {name: RESULT[name] for name in about}
    assert (row["modalities"], row["targets"]) == ("composition + xrd", "e_form + crystal_system")
    assert (row["batch_size"], row["learning_rate"], row["n_steps"]) == (256, 5e-4, 4000)


def test_only_metrics_of_targets_have_units():
    assert with_unit("e_form_mae") == ("e_form mae (meV/atom)", 1000)
    assert with_unit("e_form") == ("e_form", 1), "the loss of a target is not its metric"
    assert with_unit("contrastive") == ("contrastive", 1)


def test_a_run_that_ignores_its_patterns_is_missing(tmp_path):
    planned = variant("small", "bimodal", "multi")
    same = {"val exchanged patterns/e_form_mae": 0.0810001, "val exchanged patterns/crystal_system_accuracy": 0.71}
    failed = f"{planned.name} (ignores its patterns)"
    other = same | {"val exchanged patterns/crystal_system_accuracy": 0.4}
    for change, note in (({}, ""), (other, ""), (same, failed)):
        for path in tmp_path.glob("*/*"):
            path.unlink()
        write(tmp_path, planned.name, **change)
        (row,) = planned_table(tmp_path, [planned]).to_dict("records")
        assert row["note"] == note and (E_FORM in row) != bool(note)


def test_search_runs_are_kept_apart(tmp_path):
    write(tmp_path, "bimodal-multi-s0")
    without_test = {key: None for key in RESULT if key.startswith("test/")}
    write(tmp_path, "search-bimodal-b256-lr0.001", **without_test)
    assert list(results_table(tmp_path)["name"]) == ["bimodal-multi-s0"]
    assert list(results_table(tmp_path, search=True)["name"]) == ["search-bimodal-b256-lr0.001"]


def test_damaged_results_are_named(tmp_path):
    write(tmp_path, "bimodal-multi-s0")
    (tmp_path / "bimodal-multi-s0" / "results.json").write_text('{"name": "bimo')
    with pytest.raises(ValueError, match="bimodal-multi-s0"):
        results_table(tmp_path)


def test_summary_is_mean_and_spread_over_seeds_and_nothing_else(tmp_path):
    for seed, mae in enumerate((0.07, 0.08, 0.09)):
        write(tmp_path, f"bimodal-multi-s{seed}", seed=seed, **{"test/e_form_mae": mae})
    write(tmp_path, "xrd-multi-s0", modalities=["xrd"])
    write(tmp_path, "demo-bimodal-multi-s0", dataset="data/demo", preset="smoke")
    write(tmp_path, "random-bimodal-multi-s0", split="random")
    write(tmp_path, "bimodal-multi-likelihood-s0", likelihood=True)
    summary = summary_table(results_table(tmp_path))
    assert len(summary) == 5
    row = summary[summary["seeds"] == 3].squeeze()
    assert row[E_FORM] == pytest.approx(80) and row[f"+- {E_FORM}"] == pytest.approx(10)
    assert row["model"] == "XxaCT-NN small" and row["commit"] == "127b533133"
    alone = summary[summary["seeds"] == 1]
    assert len(alone) == 4 and alone[f"+- {E_FORM}"].isna().all(), "one seed has no spread"


def test_what_is_planned_and_not_finished_is_a_row_without_metrics(tmp_path):
    planned = [variant("small", "bimodal", "multi", seed=seed, learning_rate=5e-4, batch_size=256, n_steps=4000)
               for seed in (0, 1)]  # fmt: skip
    planned += [pretraining("small", "both"), variant("small", "xrd", "band_gap", pretraining("small", "mxm"))]
    write(tmp_path, planned[0].name)
    write(tmp_path, "composition-e_form-s0")  # finished, and not planned
    table = planned_table(tmp_path, planned)
    assert list(table["name"]) == [planned[0].name, planned[1].name, planned[3].name]
    assert list(table["note"]) == ["", planned[1].name, planned[3].name]
    assert table[E_FORM].notna().tolist() == [True, False, False]
    assert table.loc[2, "initial"] == "data/runs/pretrain-mxm-s0" and table.loc[2, "targets"] == "band_gap"
    summary = summary_table(table)
    assert list(summary["seeds"]) == [1, 0] and summary.loc[0, E_FORM] == pytest.approx(80)
    assert list(summary["note"]) == [f"missing: {planned[1].name}", f"missing: {planned[3].name}"]


def test_a_terminal_shows_what_is_finished_with_whole_numbers(tmp_path):
    planned = [variant("small", "bimodal", "multi"), variant("small", "xrd", "multi")]
    write(tmp_path, planned[0].name)
    table = summary_table(planned_table(tmp_path, planned))
    reference = pd.DataFrame([{"model": "ALIGNN", E_FORM: 22.0}])  # has no seeds, which makes all of them decimals
    header, *rows, last = as_text(pd.concat([table, reference])).splitlines()
    assert len(rows) == 2 and last == "rows not trained yet: 1" and rows[1].split() == ["ALIGNN", "22.000"]
    assert {"4000", "80.000", "1"} <= set(rows[0].split()) and "seeds" in header
    assert as_text(summary_table(results_table(tmp_path / "none")))  # nothing is trained yet


def test_no_run_is_an_empty_table(tmp_path):
    assert len(summary_table(results_table(tmp_path))) == 0


def test_demo_results_say_what_their_labels_are(tmp_path):
    write(tmp_path, "smoke-s0", dataset="data/demo", preset="smoke")
    said = json.loads((PROJECT / "data" / "demo" / "dataset.json").read_text())["source"]["labels"]
    assert results_table(tmp_path)["labels"].item() == said == "CHGNet labels, not DFT"


def test_captioned_shows_the_caption_and_leaves_out_empty_columns(tmp_path):
    write(tmp_path, "bimodal-multi-s0")
    html = captioned(summary_table(results_table(tmp_path)), "CHGNet labels, not DFT").to_html()
    assert "CHGNet labels, not DFT" in html and ">80.0<" in html and ">0.0005<" in html and "nan" not in html.lower()
    assert "band_gap" not in html
