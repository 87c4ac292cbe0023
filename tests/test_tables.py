"""Tables of results: units, seeds, and what is kept apart."""

import json
import re
from html import unescape

import numpy as np
import pandas as pd
import pytest
from study import archive
from study.tables import (
    E_FORM,
    MOST,
    SET_APART,
    _called,
    as_text,
    captioned,
    committed,
    planned_table,
    results_table,
    row,
    summary_table,
)
from study.variants import pretraining, variant

from xxlib import PROJECT
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.datasets.targets import TARGETS
from xxlib.training.records import record

COMMIT = "127b533133"


def finish(place, config, curves=None, predicted=None, exchanged=None, **metrics):
    """A record as if a run had finished.

    metrics: e_form_mae=0.08, of `test` and of `val`; exchanged: metrics with exchanged patterns.
    curves: "e_form_mae" -> its values on `val` (n,), at n steps.  predicted: as predict takes it.
    """
    given = config.model.modalities

    def named(split, values, **view):
        for name, value in values.items():
            target = next(target for target in TARGETS if name.startswith(target))
            yield record(split, name.removeprefix(f"{target}_"), value, target=target, given=given, **view)

    final = [*named("val", metrics), *named("test", metrics)]
    final += [one for split in ("val", "test") for one in named(split, exchanged or {}, exchanged="xrd")]
    curves = [
        {**next(named("val", {name: value})), "step": (k + 1) * config.budget.n_steps // len(values)}
        for name, values in (curves or {}).items()
        for k, value in enumerate(values)
    ]
    archive.save(
        archive.Record(
            name=config.name, config=json.loads(json.dumps(config.as_dict())), parameters=1_500_000,
            samples=config.budget.samples, best_step=3800, seconds=1500.0, hardware="a CPU, 2 threads", commit=COMMIT,
            metrics=final, curves=curves,
        ), place,
    )  # fmt: skip
    if predicted is not None:
        predict(place, config, predicted)


def predict(place, config, predicted, n=100):
    """Predictions of `test` as they are kept: target -> (labels, predicted); or row -> E_f, where every label is 0."""
    if "e_form" not in predicted and "crystal_system" not in predicted:
        rows, values = map(np.array, (list(predicted), list(predicted.values())))
        predicted = {"e_form": (np.zeros(n), values)}
    else:
        rows = np.arange(len(next(iter(predicted.values()))[0]))
    path = place / "crystals" / "mp36k.parquet"
    labels = {target: np.resize(true, max(n, len(true))).astype(float) for target, (true, _) in predicted.items()}
    known = pd.read_parquet(path) if path.exists() else pd.DataFrame({"id": [str(k) for k in range(n)]})
    archive._write(known.assign(formula="NaCl", split="test", **labels), path)
    columns = {f"{target}_predicted": list(values) for target, (_, values) in predicted.items()}
    archive._write(pd.DataFrame({"row": rows, **columns}), place / "predictions" / f"{config.name}.parquet")


MULTI = variant("small", "bimodal", "multi")
MULTI_METRICS = {"e_form_mae": 0.08, "e_form_rmse": 0.12, "e_form_r2": 0.98, "crystal_system_accuracy": 0.7}
MULTI_METRICS |= {"crystal_system_balanced_accuracy": 0.6, "crystal_system_log_loss": 0.9}


def test_a_run_is_a_row_in_the_units_of_the_tables(tmp_path):
    finish(tmp_path, MULTI, **MULTI_METRICS)
    gap = variant("small", "bimodal", "band_gap")
    finish(tmp_path, gap, band_gap_mae=0.4)
    table = results_table(tmp_path).set_index("name")
    assert len(table) == 2
    row = table.loc[MULTI.name]
    assert row["test e_form mae (meV/atom)"] == pytest.approx(80)
    assert row["test e_form rmse (meV/atom)"] == pytest.approx(120)
    assert row["val e_form mae (meV/atom)"] == pytest.approx(80)
    assert row["test e_form r2"] == 0.98
    assert row["test crystal_system accuracy (%)"] == pytest.approx(70)
    assert row["test crystal_system balanced_accuracy (%)"] == pytest.approx(60)
    assert row["test crystal_system log_loss (nat)"] == 0.9
    assert table.loc[gap.name, "test band_gap mae (eV)"] == 0.4
    about = {"dataset": "data/mp36k", "split": "formula", "preset": "small", "seed": 0, "commit": COMMIT}
    about |= {"hardware": "a CPU, 2 threads", "samples": 1_024_000, "parameters": 1_500_000}
    assert {name: row[name] for name in about} == about
    assert (row["modalities"], row["targets"]) == ("composition + xrd", "e_form + crystal_system")
    assert (row["batch_size"], row["learning_rate"], row["n_steps"]) == (128, 5e-4, 8000)


def test_a_view_is_in_the_name_of_its_column(tmp_path):
    config = MULTI.but(effects="laboratory", absent_rate=0.1)
    finish(tmp_path, config, e_form_mae=0.08, exchanged={"e_form_mae": 0.1})
    found = archive.read(config.name, tmp_path)
    found.metrics.append(record("val", "mae", 0.7, target="e_form", given=("xrd",), effects="laboratory"))
    columns = row(found.config, found)
    assert columns["val e_form mae (meV/atom)"] == pytest.approx(80)
    assert columns["val exchanged xrd e_form mae (meV/atom)"] == pytest.approx(100)
    assert columns["val laboratory xrd e_form mae (meV/atom)"] == pytest.approx(700)
    assert (columns["effects"], columns["absent_rate"]) == ("laboratory", 0.1)


def test_a_run_that_ignores_its_patterns_is_missing(tmp_path):
    metrics = {"e_form_mae": 0.081, "crystal_system_accuracy": 0.71}
    same = {"e_form_mae": 0.0810001, "crystal_system_accuracy": 0.71}
    failed = f"{MULTI.name} (ignores its patterns)"
    for exchanged, note in ((None, ""), (same | {"crystal_system_accuracy": 0.4}, ""), (same, failed)):
        finish(tmp_path, MULTI, exchanged=exchanged, **metrics)
        (row,) = planned_table([MULTI], tmp_path).to_dict("records")
        assert row["note"] == note and (E_FORM in row) != bool(note)


def test_search_runs_are_kept_apart(tmp_path):
    finish(tmp_path, MULTI, e_form_mae=0.08)
    finish(tmp_path, MULTI.but(name="a-search", evaluate_test=False), e_form_mae=0.08)
    finish(tmp_path, pretraining("small", "both"))
    assert list(results_table(tmp_path)["name"]) == [MULTI.name]


def test_damaged_results_are_named(tmp_path):
    finish(tmp_path, MULTI, e_form_mae=0.08)
    (tmp_path / "runs" / f"{MULTI.name}.json").write_text('{"name": "bimo')
    with pytest.raises(ValueError, match="bimodal-multi-s0"):
        results_table(tmp_path)


def test_summary_is_mean_and_spread_over_seeds_and_nothing_else(tmp_path):
    for seed, mae in enumerate((0.07, 0.08, 0.09)):
        finish(tmp_path, variant("small", "bimodal", "multi", seed=seed), e_form_mae=mae)
    others = [variant("small", "xrd", "multi"), variant("small", "bimodal", "multi", split="random")]
    others += [variant("small", "bimodal", "multi", likelihood=True), variant("smoke", "bimodal", "multi")]
    for config in others:
        finish(tmp_path, config, e_form_mae=0.08)
    summary = summary_table(results_table(tmp_path))
    assert len(summary) == 5
    row = summary[summary["seeds"] == 3].squeeze()
    assert row[E_FORM] == pytest.approx(80) and row[f"+- {E_FORM}"] == pytest.approx(10)
    assert row["model"] == "XxaCT-NN small" and row["commit"] == COMMIT
    alone = summary[summary["seeds"] == 1]
    assert len(alone) == 4 and alone[f"+- {E_FORM}"].isna().all(), "one seed has no spread"


def test_what_is_planned_and_not_finished_is_a_row_without_metrics(tmp_path):
    planned = [variant("small", "bimodal", "multi", seed=seed) for seed in (0, 1)]
    planned += [pretraining("small", "both"), variant("small", "xrd", "band_gap", pretraining("small", "mxm"))]
    finish(tmp_path, planned[0], e_form_mae=0.08)
    finish(tmp_path, variant("small", "composition", "e_form"), e_form_mae=0.08)  # finished, and not planned
    table = planned_table(planned, tmp_path)
    assert list(table["name"]) == [planned[0].name, planned[1].name, planned[3].name]
    assert list(table["note"]) == ["", planned[1].name, planned[3].name]
    assert table[E_FORM].notna().tolist() == [True, False, False]
    assert table.loc[2, "initial"] == "data/runs/pretrain-mxm-s0" and table.loc[2, "targets"] == "band_gap"
    summary = summary_table(table)
    assert list(summary["seeds"]) == [1, 0] and summary.loc[0, E_FORM] == pytest.approx(80)
    assert list(summary["note"]) == [f"missing: {planned[1].name}", f"missing: {planned[3].name}"]


def test_a_terminal_shows_what_is_finished_in_a_hundred_columns(tmp_path):
    longer = MULTI.but(name="longer", n_steps=16000)
    planned = [MULTI, variant("small", "bimodal", "e_form"), longer, variant("small", "xrd", "multi")]
    for config, mae in zip(planned[:3], (0.08, 0.07, 0.06)):
        finish(tmp_path, config, e_form_mae=mae)
    table = summary_table(planned_table(planned, tmp_path))
    reference = pd.DataFrame([{"model": "ALIGNN", E_FORM: 22.0}])  # has no seeds, which makes all of them decimals
    header, *rows, quantities, labels, last = as_text(pd.concat([table, reference])).splitlines()
    assert last == "rows not trained yet: 1" and labels == "DFT labels of the Materials Project"
    assert header.split() == ["model", "inputs", "targets", "E_f", "seeds"] and "meV/atom" in quantities
    assert [row.split() for row in rows] == [
        ["XxaCT-NN", "both", "E_f,", "system", "80.0", "1"], ["XxaCT-NN", "both", "E_f", "70.0", "1"],
        ["XxaCT-NN,", "16,000", "steps", "both", "E_f,", "system", "60.0", "1"], ["ALIGNN", "22.0"],
    ]  # fmt: skip
    assert as_text(summary_table(results_table(tmp_path / "none"))) == "nothing is finished yet"
    assert max(map(len, as_text(committed("table_1")).splitlines())) <= 100


def test_no_run_is_an_empty_table(tmp_path):
    assert len(summary_table(results_table(tmp_path))) == 0


def test_demo_results_say_what_their_labels_are(tmp_path):
    finish(tmp_path, variant("smoke", "bimodal", "multi"), e_form_mae=0.08)
    labels = json.loads((PROJECT / "data" / "demo" / "dataset.json").read_text())["source"]["labels"]
    assert results_table(tmp_path)["labels"].item() == labels == "CHGNet labels, not DFT"


def test_captioned_shows_the_caption_and_leaves_out_empty_columns(tmp_path):
    finish(tmp_path, MULTI, e_form_mae=0.08)
    html = captioned(summary_table(results_table(tmp_path)), "CHGNet labels, not DFT").data
    assert "CHGNet labels, not DFT" in html and ">80.0<" in html and "learning_rate: 0.0005" in html
    assert "nan" not in html.lower() and "band_gap" not in html


@pytest.mark.parametrize("path", sorted((PROJECT / "data" / "results").glob("*.csv")), ids=lambda path: path.name)
def test_a_notebook_shows_few_columns_and_folds_where_rows_come_from(path):
    table = committed(path.stem)
    seen, _, folded = captioned(table, "a caption").data.partition("<details")
    heads, folded = [unescape(head) for head in re.findall(r"<th[^>]*>([^<]+)</th>", seen)], unescape(folded)
    assert len(heads) == len(set(heads)) and len([name for name in heads if name not in CRYSTAL_SYSTEMS]) <= MOST
    assert not {"commit", "hardware", "labels", "seeds"} & set(heads) and "nan" not in re.sub("<[^>]*>", "", seen)
    for name in table.dropna(axis="columns", how="all"):
        if not name.startswith("+- ") and name not in (*SET_APART, "initial"):
            assert _called(name) in (*heads, *heads[0].split(", ")) or _called(name) in folded, name


def test_rows_say_what_sets_them_apart_first():
    table = pd.DataFrame({"note": ["", "missing: a"], E_FORM: [69.54, 60.2], f"+- {E_FORM}": [1.36, np.nan],
                          "likelihood": [False, True], "model": ["a", "b"], "n_steps": [8000, 8000]})  # fmt: skip
    html = captioned(table, "x < y").data
    seen = html.partition("<details")[0]
    assert re.findall(r"<th[^>]*>([^<]+)</th>", seen) == ["model", "set apart by", "MAE of E_f (meV/atom)"]
    assert re.findall(r"<td[^>]*>([^<]*)</td>", seen) == ["a", "", "69.5 ± 1.4", "b", "by likelihood", "60.2"]
    assert "x &lt; y" in html and "n_steps: 8,000" in html and "missing: a" in html


def test_all_crystal_systems_are_seen_with_one_column_of_what_they_are():
    """Also one that is the same in all rows; the emptier of two further quantities is folded."""
    table = pd.DataFrame({"model": ["A", "B"], "modalities": ["xrd", "composition"]})
    table = table.assign(
        mean=[1.0, 2.0], all=[3.0, None], **{name: [0.0, float(k)] for k, name in enumerate(CRYSTAL_SYSTEMS)}
    )
    seen, _, folded = captioned(table, "x").data.partition("<details")
    heads = re.findall(r"<th[^>]*>([^<]+)</th>", seen)
    assert heads == ["model, inputs", "mean", *CRYSTAL_SYSTEMS]
    assert "A, xrd" in seen and "B, composition" in seen and "all" in folded and "inputs" not in folded


def test_long_sentences_are_not_cut():
    table = pd.DataFrame({"formula": ["NaCl", "NaCL"], "warnings": [["w" * 200, "v"], []], "refused": ["", "r" * 300]})
    html = captioned(table, "answers").data
    assert "w" * 200 + "\nv" in html and "r" * 300 in html and "pre-line" in html
