"""The experiment on fusions: its runs, its table from records, and what a gate says."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from study import archive, fusions, gates
from test_plots import at_print_size

from xxlib.datasets.batches import MODALITIES
from xxlib.models.fusion import FUSIONS
from xxlib.training.presets import PRESETS
from xxlib.training.records import record
from xxlib.training.runs import load_model, save_weights


def test_every_fusion_is_tried_and_its_configuration_is_short():
    configs = fusions.runs()
    assert len({config.name for config in configs}) == len(configs) == 22
    assert {changes["kind"] for changes in fusions.KINDS.values()} == set(FUSIONS)
    usual = json.dumps(PRESETS["small"].as_dict(), indent=1).splitlines()
    for config in configs:
        own = json.dumps(config.as_dict(), indent=1).splitlines()
        assert len([line for line in own if line not in usual]) <= 15, config.name
        assert config.budget.learning_rate == 5e-4
    of = [config for config in configs if config.data.absent_rate]
    assert [fusions.said(config) for config in of[:7]] == list(fusions.KINDS)
    assert all(fusions.compared_with(config) in configs for config in configs if config.objectives.targets)
    for first in (of[0], of[7]):
        alike = [config for config in of if fusions.compared_with(config) == first]
        assert len(alike) == 7 and {config.data.effects for config in alike} == {first.data.effects}
        assert {config.budget.n_steps for config in alike} == {first.budget.n_steps}
    assert {config.preset for config in fusions.runs("smoke")} == {"smoke"}


def test_what_follows_a_start_follows_it():
    names = [config.name for config in fusions.runs()]
    for config in fusions.runs():
        if config.initial:
            assert names.index(config.initial.removeprefix("data/runs/")) < names.index(config.name)


def kept(place, config, views, wrong, val=()):
    """A finished run: what it reached in each of some views, and which of four crystals it gets wrong."""
    (target,) = config.objectives.targets
    values = {"parameters": 7, "samples": 1, "best_step": 1, "seconds": 1.0, "hardware": "", "commit": "", "curves": []}
    metrics = [record("val", "accuracy", x, target=target, given=MODALITIES, exchanged=name) for x, name in val]
    for value, view in views:
        view = view | {"given": view["given"].split(" + ")}
        metrics.append(record("test", fusions.SHOWN[target], value, target=target, **view))
    archive.save(archive.Record(name=config.name, config=config.as_dict(), metrics=metrics, **values), place)
    rows = [[1, 0, 2, 3, 4] if k in wrong else [0, 1, 2, 3, 4] for k in range(4)]
    predicted = pd.DataFrame({"row": range(4), "crystal_system_predicted": [np.array(row, np.uint8) for row in rows]})
    archive._write(predicted, place / "predictions" / f"{config.name}.parquet")


@pytest.fixture
def place(tmp_path):
    """Two fusions have finished, with inputs absent and under noise; one run after pretraining, and from scratch."""
    crystals = {"id": list("abcd"), "formula": list("abcd"), "split": "test", "crystal_system": [0.0] * 4}
    crystals |= dict.fromkeys(("e_form", "band_gap", "space_group"), 0.0)
    archive._write(pd.DataFrame(crystals), tmp_path / "crystals" / "mp36k.parquet")
    views = list(fusions.VIEWS.values())
    for word, values, wrong in (
        (fusions.PAPER, (0.60, 0.55, 0.50, 0.40, 0.35, 0.45), {0, 1}),
        ("late", (0.625, 0.5, 0.52, 0.42, 0.3, 0.48), {1}),
    ):
        kept(tmp_path, fusions.fused(word, "crystal_system"), list(zip(values, views)), wrong)
    contrastive, relational = fusions.starts()
    for start, wrong in ((None, {0, 1, 2}), (relational, {0})):
        tuned = fusions.tuned("crystal_system", start=start)
        kept(tmp_path, tuned, [(0.5, views[0]), (0.4, views[-1])], wrong)
    assert contrastive.name == "pretrain-contrastive-steps1000-s0"
    return tmp_path


def test_a_row_has_every_view_and_what_it_gains(place):
    table = fusions.table(place=place)
    rows = table[table["target"] == "crystal_system"].set_index(["fusion", "start", "trained on"])
    late = rows.loc[("late", "scratch", "laboratory patterns")]
    assert [late[view] for view in fusions.VIEWS] == pytest.approx([62.5, 50, 52, 42, 30, 48])
    assert late[fusions.GAIN] == 25 and late["parameters"] == 7
    after = rows.loc[("pattern asks", "pretrain-relational-steps1000-s0", "ideal patterns, both inputs always")]
    assert after[fusions.GAIN] == 50 and pd.isna(after["pattern missing"])
    assert rows[fusions.GAIN].notna().sum() == 2, "what is not trained gains nothing, nor what others are compared with"
    assert len(table) == 20 + 4 and table["note"].ne("").sum() == 20


def test_it_is_said_what_is_there_and_that_nothing_is(place, tmp_path_factory):
    sentences = fusions.findings(place)
    of = "Accuracy of crystal system, laboratory patterns, "
    assert sentences[0] == f"{of}from both: 62.5 late, 60.0 pattern asks (%)."
    assert sentences[1].startswith(
        f"{of}best to worst: noisy pattern 55.0 pattern asks to 50.0 late; pattern missing 52"
    )
    assert sentences[2].startswith(f"{of}level with the paper's fusion (95 %): late +25.0 ± 49.0 points")
    assert "what pretraining gains over none (95 %): relational +50.0 ± 56.6 points." in sentences[3]
    assert len(sentences) == 4 and len(fusions.table(place=place).dropna(subset="from both")) == 4
    blind = fusions.fused("gated", "crystal_system")
    kept(place, blind, [(0.5, fusions.VIEWS["from both"])], {0}, val=[(0.5, None), (0.5, "xrd")])
    assert fusions.findings(place) == [*sentences, f"{blind.name} ignores its patterns: it is not counted."]
    ((name, figure),) = fusions.figures(place=place).items()
    assert name == "fusions_crystal_system" and not at_print_size(figure)
    nothing = tmp_path_factory.mktemp("nothing")
    assert fusions.findings(nothing) == ["Fusions: no run is finished."] and fusions.figures(place=nothing) == {}
    assert fusions.table(place=nothing)["from both"].isna().all()


@pytest.fixture(scope="module")
def gated(trained_run):
    """Folder of a small run whose fusion has a gate, which noise and a missing input were part of."""
    model = PRESETS["smoke"].model
    model = dataclasses.replace(model, fusion=dataclasses.replace(model.fusion, kind="gated"))
    return trained_run(
        "gated", model=model, targets=("crystal_system",), effects="laboratory", absent_rate=0.2, n_steps=40
    )


def test_the_gate_is_told_by_view_and_crystal_system(gated):
    table = gates.weights(gated)
    views = ["given", "effects", "exchanged"]
    assert set(table["weight (%) of"]) == set(MODALITIES) and len(table.drop_duplicates(views)) == 6
    assert table.groupby(views, dropna=False)["all"].sum().to_numpy() == pytest.approx(100, rel=1e-5)
    alone = table[table["given"].isin(MODALITIES)]
    assert np.array_equal(alone["all"] == 100, alone["given"] == alone["weight (%) of"])
    both = table[table["given"] == gates.BOTH]
    assert both["all"].nunique() == 6 and both["cubic"].nunique() == 6
    assert both["all"].between(1, 99).all() and (both["cubic"] != both["all"]).all()


def test_the_gate_of_a_run_of_mixed_precision_is_told_exactly(gated, tmp_path):
    """As that of the same weights in fp32: it is asked in fp32."""
    tensors, metadata = load_model(gated)
    config = metadata["config"]
    metadata["config"] = config | {"budget": config["budget"] | {"precision": "bf16"}}
    save_weights(tmp_path, tensors, metadata)
    told, mixed = (gates.weights(folder)["all"] for folder in (gated, tmp_path))
    assert mixed.tolist() == told.tolist()


def test_the_gate_by_crystal_system_is_a_table_of_its_views(gated):
    weights = gates.weights(gated)
    table = gates.by_system(weights)
    assert list(table) == ["crystal system", "ideal pattern", "laboratory pattern", "another crystal's pattern"]
    ideal = weights[(weights["weight (%) of"] == "xrd") & (weights["given"] == gates.BOTH)].iloc[0]
    table = table.set_index("crystal system")["ideal pattern"]
    assert table["all"] == ideal["all"] and table["cubic"] == ideal["cubic"] and len(table) == 8


def test_what_is_weighed_has_a_name():
    model = PRESETS["smoke"].model
    experts = dataclasses.replace(model, fusion=dataclasses.replace(model.fusion, kind="experts"))
    assert gates.weighed(experts) == ["expert 1", "expert 2", "expert 3", "expert 4"]
    assert gates.weighed(model) == ["xrd", "composition"]


def test_gates_are_kept_beside_those_of_others(gated, trained_run, tmp_path, monkeypatch):
    other = pd.DataFrame([{"run": "other", "target": "e_form", "weight (%) of": "xrd", "all": 12.0}])
    other.to_csv(tmp_path / "gates.csv", index=False)
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["gates", str(gated), "--results", str(tmp_path)])
        gates.main()
    table = gates.table(tmp_path)
    assert len(table) == 13 and table["run"].nunique() == 2
    (sentence,) = gates.findings(tmp_path)
    assert sentence.startswith(f"{gated.name}: the pattern has ") and "where it is noisy" in sentence
    plain = trained_run("plain", n_steps=2)
    monkeypatch.setattr("sys.argv", ["gates", str(plain), "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="has no fusion that weighs"):
        gates.main()
