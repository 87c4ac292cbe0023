"""The paper's tables: definitions, what is missing, and the sentences about its claims."""

import json

import numpy as np
import pandas as pd
import pytest
from study import claims, paper
from study.tables import BAND_GAP, CRYSTAL_SYSTEM, E_FORM, METRICS, by_formula
from study.variants import pretraining, variant
from test_tables import RESULT

from xxlib import PROJECT
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS

STEPS = np.arange(400, 8001, 400)
BOTH = pretraining("small", "both")


def finish(folder, config, curves=None, **metrics):
    """A run as if it had finished: curves: name of a metric on val -> its values at STEPS."""
    run = folder / config.name
    run.mkdir()
    config.save(run / "run.json")
    about = {name: value for name, value in RESULT.items() if not name.startswith(("val/", "test/"))}
    about |= {
        name: getattr(config, name) for name in ("name", "seed", "targets", "initial", "left_out", "n_train", "split")
    }
    about |= {"modalities": config.model.modalities} | {f"test/{name}": value for name, value in metrics.items()}
    (run / "results.json").write_text(json.dumps(about))
    lines = [
        {"step": int(step)} | {f"val/{name}": float(values[i]) for name, values in (curves or {}).items()}
        for i, step in enumerate(STEPS)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_table_1_has_what_is_missing_and_ends_with_the_references(tmp_path):
    planned = [variant("small", model, "e_form") for model in ("composition", "mat2vec", "bimodal", "crabnet")]
    finish(tmp_path, planned[0], e_form_mae=0.08)
    finish(tmp_path, planned[1], e_form_mae=0.07)
    finish(tmp_path, variant("small", "xrd", "e_form"), e_form_mae=0.6)  # of another table
    table = paper.table_1(tmp_path, planned)
    assert len(table) == 4 + len(paper.REFERENCES)
    assert list(table[E_FORM].iloc[:2]) == pytest.approx([80, 70]) and table[E_FORM].iloc[2:4].isna().all()
    assert "mat2vec" in table["model"][1] and "mat2vec" not in table["model"][0]
    assert list(table["note"].iloc[:4]) == ["", "", "missing: bimodal-e_form-s0", "missing: crabnet-e_form-s0"]
    assert list(table[CRYSTAL_SYSTEM].dropna()) == [22.6]
    table.to_csv(tmp_path / "table.csv", index=False)
    assert "1500000,1024000" in (tmp_path / "table.csv").read_text(), "counts stay whole numbers"


def falling(rate):
    """An error that falls evenly from 1 at step 0, `rate` a step."""
    return {"e_form_mae": 1 - rate * STEPS}


def table_2_runs(tmp_path):
    scratch, pretrained = ([variant("small", "bimodal", "e_form", *start, seed=seed) for seed in (0, 1)]
                           for start in ((), (BOTH,)))  # fmt: skip
    for config, rate in zip(scratch + pretrained, (0.5e-4, 1e-4, 1e-4, 4e-4)):
        finish(tmp_path, config, falling(rate), e_form_mae=0.08 if config.initial is None else 0.06)
    return scratch, pretrained


def test_table_2_compares_each_pretrained_run_with_scratch_of_its_seed(tmp_path):
    scratch, pretrained = table_2_runs(tmp_path)
    longer = variant("small", "bimodal", "e_form", n_steps=16000)
    table = paper.table_2(tmp_path, [BOTH, *scratch, *pretrained, longer]).set_index(["start", "n_steps"])
    before, after = table.loc["scratch", 8000], table.loc["pretrain-both-s0", 8000]
    assert before["metric"] == "MAE of E_f (meV/atom)"
    assert [before[f"val at {share}%"] for share in (5, 15, 25)] == pytest.approx([970, 910, 850])
    assert (before["val at best"], before["test"]) == (pytest.approx(400), pytest.approx(80))
    assert before["+- test"] == 0 and (before["dataset"], before["split"], before["preset"], before["commit"]) == (
        "data/mp36k", "formula", "small", RESULT["commit"])  # fmt: skip
    # Scratch is at 0.9 and 0.8 after 2,000 steps; they are there after 1,000 and 500.
    assert (after["speed-up"], after["+- speed-up"]) == (pytest.approx(3), pytest.approx(2**0.5))
    assert after["steps to scratch's 25%"] == pytest.approx(750) and after["seeds"] == 2
    assert np.isnan(before["speed-up"]) and before["paper"] == "" and "4.2" in after["paper"]
    missing = table.loc["scratch", 16000]
    assert missing["seeds"] == 0 and np.isnan(missing["test"]) and missing["note"] == f"missing: {longer.name}"


def test_an_accuracy_is_reached_by_rising(tmp_path):
    runs = [variant("small", "bimodal", "crystal_system", *start) for start in ((), (BOTH,))]
    for config, rate in zip(runs, (1e-4, 2e-4)):
        rising = {"crystal_system_accuracy": np.minimum(rate * STEPS, 0.9)}
        finish(tmp_path, config, rising, crystal_system_accuracy=0.7)
    after = paper.table_2(tmp_path, runs).iloc[1]
    assert after["speed-up"] == pytest.approx(2) and after["val at best"] == pytest.approx(90)


def test_table_4_is_the_accuracy_of_each_system_on_test(tmp_path):
    config, other = (variant("small", model, "multi") for model in ("bimodal", "xrd"))
    finish(tmp_path, config)
    true = np.array([0, 0, 0, 6, 6, 3])
    probabilities = np.eye(7)[[0, 0, 1, 6, 6, 2]]
    rows = {"split": ["test"] * 5 + ["val"], "crystal_system": true, "crystal_system_predicted": list(probabilities)}
    pd.DataFrame(rows).to_parquet(tmp_path / config.name / "predictions.parquet")
    table = paper.table_4(tmp_path, [config, other, variant("small", "xrd", "e_form")])
    assert list(table["seeds"]) == [1, 0] and table["note"][1] == f"missing: {other.name}"
    row = table.iloc[0]
    assert row[CRYSTAL_SYSTEMS[0]] == pytest.approx(200 / 3) and row[CRYSTAL_SYSTEMS[6]] == 100
    assert np.isnan(row[CRYSTAL_SYSTEMS[3]]) and row["all"] == pytest.approx(80)
    assert row["mean"] == pytest.approx((200 / 3 + 100) / 2)


def test_table_5_is_the_mean_over_seeds_of_silhouettes(tmp_path):
    """Of each seed the mean is over systems, however many crystals they have."""
    configs = [variant("small", "xrd", "multi", seed=seed) for seed in (0, 1, 2)]
    for config, score in zip(configs[:2], (0.1, 0.3)):
        finish(tmp_path, config)
        systems = {"crystal_system": ["cubic", "cubic", "trigonal"], "all dimensions": [score, score, 0.0]}
        pd.DataFrame(systems | {"2-D PCA": -score}).to_parquet(tmp_path / config.name / "latent.parquet")
    finish(tmp_path, configs[2])
    (row,) = paper.table_5(tmp_path, configs).to_dict("records")
    assert (row["mean, all dimensions"], row["cubic"], row["trigonal"]) == pytest.approx((0.1, 0.2, 0))
    assert (row["+- all dimensions"], row["mean, 2-D PCA"]) == pytest.approx((0.1 / 2**0.5, -0.2))
    assert (row["crystals"], row["seeds"]) == (3, 3) and row["note"] == f"missing: latent.parquet of {configs[2].name}"
    other = paper.table_5(tmp_path, [variant("small", "bimodal", "multi")]).iloc[0]
    assert np.isnan(other["mean, all dimensions"]) and other["note"] == "missing: bimodal-multi-s0"


def test_transfer_names_the_start(tmp_path):
    start = variant("small", "bimodal", "multi")
    heads = [variant("small", "bimodal", "band_gap", start, frozen=True, n_steps=2000)]
    heads += [variant("small", "bimodal", "band_gap")]
    finish(tmp_path, heads[0], band_gap_mae=0.5)
    table = paper.transfer(tmp_path, heads)
    assert list(table["start"]) == ["bimodal-multi-s0", "scratch"] and table[BAND_GAP][0] == 0.5
    assert table["note"][1] == "missing: bimodal-band_gap-s0"


def test_a_family_is_compared_crystal_by_crystal(tmp_path):
    """Of the family a, b and c only a and b are in `test` by formula; d is there and not of the family."""
    whole, without = (variant("small", "xrd", "e_form", n_steps=2000, left_out=of) for of in (None, "perovskites"))
    others = [variant("small", "composition", "e_form", n_steps=2000, left_out="perovskites")]
    others += [variant("small", "xrd", "e_form", n_steps=2000, left_out="intermetallics")]
    errors = {whole: {"d": 9.0, "b": 0.02, "a": -0.01}, without: {"a": 0.05, "b": 0.1, "c": -0.3}}
    for config, of_each in errors.items():
        finish(tmp_path, config)
        rows = {"id": list(of_each), "split": "test", "e_form": 0.0, "e_form_predicted": list(of_each.values())}
        seen = pd.DataFrame({"id": ["a"], "split": ["val"], "e_form": [0.0], "e_form_predicted": [7.0]})
        pd.concat([pd.DataFrame(rows), seen]).to_parquet(tmp_path / config.name / "predictions.parquet")
    finish(tmp_path, others[1])
    pd.DataFrame(rows).to_parquet(tmp_path / others[1].name / "predictions.parquet")
    table = paper.families(tmp_path, [whole, without, *others]).set_index(["family", "modalities"])
    row = table.loc["perovskites", "xrd"]
    assert (row["crystals"], row["crystals in test"], row["seeds"]) == (3, 2, 1) and row[E_FORM] == pytest.approx(150)
    assert (row[paper.KNOWN_FAMILY], row[paper.NEW_FAMILY]) == pytest.approx((15, 75))
    assert (row[paper.COST], row[f"+- {paper.COST}"]) == pytest.approx((60, 1.96 * 20))
    missing = table.loc["perovskites", "composition"]
    assert missing["seeds"] == 0 and missing["note"] == f"missing: {others[0].name}" and np.isnan(missing[paper.COST])
    assert len(table) == 3 and table.loc["intermetallics", "xrd"]["crystals"] == 3


def test_what_else_pretraining_may_be_is_compared_with_scratch(tmp_path):
    free = pretraining("small", "both", unlabelled="data/generated50k", n_steps=2000)
    alone = pretraining("small", "both", unlabelled="data/generated50k", n_train=0, n_steps=2000)
    spans = pretraining("small", "mxm", hidden_rate=0.3, hidden_span=4, n_steps=2000)
    scratch, *others = (variant("small", "bimodal", "e_form", *start, n_steps=2000)
                        for start in ((), (spans,), (free,), (alone,)))  # fmt: skip
    for config, of_each in ((scratch, (0.03, 0.1)), (others[0], (-0.02, 0.03))):
        finish(tmp_path, config)
        rows = {"id": ["a", "b"], "split": "test", "e_form": 0.0, "e_form_predicted": of_each}
        pd.DataFrame(rows).to_parquet(tmp_path / config.name / "predictions.parquet")
    table = paper.hidden(tmp_path, [scratch, spans, others[0], free, others[1], alone, others[2]])
    assert list(table["pretraining"]) == ["none", "mxm", "contrastive + mxm", "contrastive + mxm"]
    assert list(table["learned from"])[1:] == ["data/mp36k", "data/mp36k + data/generated50k", "data/generated50k"]
    row = table.iloc[1]
    assert (row["hidden (%)"], row["span (tokens)"]) == (pytest.approx(30), 4)
    begins, over = 0.3 * 17 / (4 * 14), np.convolve(np.ones(14), np.ones(4))  # spans that may begin, over each token
    in_effect = 1 - (1 - begins) ** over + (1 - begins) ** 14 * over / 14
    assert row[paper.HIDDEN] == pytest.approx(100 * in_effect.mean(), abs=0.2)
    assert (row[E_FORM], row[paper.GAIN]) == pytest.approx((25, 40))
    assert row[f"+- {paper.GAIN}"] == pytest.approx(1.96 * 30)
    assert np.isnan(table[paper.GAIN][0]) and list(table["seeds"]) == [1, 1, 0, 0]
    assert table["note"][3] == f"missing: {others[2].name}"
    nothing = paper.hidden(tmp_path, [variant("small", "bimodal", "e_form", n_steps=1000), spans, others[0]])
    assert np.isnan(nothing[paper.GAIN][1]) and nothing[E_FORM][1] == pytest.approx(25)


# ---------------------------------------------------------------- claims


def sentences(findings):
    return " ".join(map(str, findings))


def modalities(composition, spread, bimodal):
    """Table 1, with a row by likelihood, which is not the paper's and does not count."""
    rows = [("composition", composition, spread), ("composition + xrd", bimodal, spread), ("xrd", 600, np.nan)]
    table = pd.DataFrame([*rows, ("composition", 1, 1)], columns=["modalities", E_FORM, f"+- {E_FORM}"])
    return table.assign(model="XxaCT-NN small", targets="e_form", seeds=3, likelihood=[False, False, False, True])


@pytest.mark.parametrize(
    ("composition", "spread", "bimodal", "verdict"),
    [
        # Standard error 3 sqrt(2 / 3) = 2.45; Student's t of four degrees of freedom: 2.78.
        (76, 3, 60, ". Held, -16 meV/atom (95 % over seeds: -23 to -9.2)."),
        (76, 3, 90, ". Did not hold"),
        (76, 3, 70, ". Open, -6 meV/atom (95 % over seeds: -13 to +0.8)"),
        (76, np.nan, 60, "one seed"),
        (np.nan, 3, 60, "missing composition. Open."),
    ],
)
def test_a_difference_counts_beyond_the_spread(composition, spread, bimodal, verdict, tmp_path):
    e_form, *others = claims.bimodal(modalities(composition, spread, bimodal), tmp_path)
    assert verdict in str(e_form) and all("not finished" in other.measured for other in others)


@pytest.mark.parametrize(("gain", "verdict"), [(16, "held"), (-16, "did not hold"), (3, "open")])
def test_one_seed_counts_beyond_the_scatter_over_crystals(gain, verdict, tmp_path):
    """Errors of 100 crystals that differ by `gain` +- 20: a standard error of 2."""
    scatter = np.resize([20.0, -20.0], 100)
    for model, errors in (("composition", 76 + 0 * scatter), ("bimodal", 76 - gain + scatter)):
        table = pd.DataFrame({"id": [str(k) for k in range(100)], "split": "test", "e_form": 0.0})
        folder = tmp_path / f"{model}-e_form-s0"
        folder.mkdir()
        table.assign(e_form_predicted=-errors / 1000).iloc[::-1].to_parquet(folder / "predictions.parquet")
    said = claims.bimodal(modalities(76, np.nan, 76 - gain), tmp_path)[0].verdict
    interval = f"{-gain - 3.94:+.2g} to {-gain + 3.94:+.2g}"
    assert said == f"{verdict}, {-gain:+.2g} meV/atom (95 % over crystals, one seed each: {interval})"


def test_a_side_of_one_seed_spreads_like_the_other(tmp_path):
    """3 seeds of 69.3 +- 1.5 against one of 66.3: 4.30 sqrt(1.5**2 / 3 + 1.5**2) = 7.5."""
    table = modalities(69.3, 1.5, 66.3)
    table.loc[table["modalities"] == "composition + xrd", ["seeds", f"+- {E_FORM}"]] = [1, np.nan]
    assert claims.bimodal(table, tmp_path)[0].verdict == "open, -3 meV/atom (95 % over seeds: -10 to +4.5)"


def test_unequal_spreads_have_the_freedom_of_the_wider(tmp_path):
    """Welch: where one side hardly spreads, the other's two degrees of freedom count, 4.30 standard errors of 1.73."""
    table = modalities(70, 3, 60)
    table.loc[table["modalities"] == "composition", f"+- {E_FORM}"] = 1e-6
    assert "(95 % over seeds: -17 to -2.5)" in claims.bimodal(table, tmp_path)[0].verdict


def test_larger_is_better_where_it_is_an_accuracy(tmp_path):
    rows = [("composition", 58.0, 1.0), ("composition + xrd", 71.0, 1.0), ("xrd", 57.0, 1.0)]
    table = pd.DataFrame(rows, columns=["modalities", CRYSTAL_SYSTEM, f"+- {CRYSTAL_SYSTEM}"])
    table = table.assign(model="XxaCT-NN small", targets="crystal_system", seeds=2, likelihood=False)
    assert claims.bimodal(table, tmp_path)[1].verdict.startswith("held, +13 points")


def test_speed_up_is_said_with_its_spread(tmp_path):
    scratch, pretrained = table_2_runs(tmp_path)
    table = paper.table_2(tmp_path, [*scratch, *pretrained])
    (said,) = claims.faster(table)
    assert said.measured == "3.0 ± 1.4 times (2 seeds)" and said.verdict == "open (95 % over seeds: -9.7 to 15.7)"
    for column, value, verdict in (("+- speed-up", 0.1, "held"), ("speed-up", 0.05, "did not hold")):
        table[column] = value
        assert claims.faster(table)[0].verdict.startswith(f"{verdict} (95 % over seeds: ")
    table["+- speed-up"] = 0.019
    assert "± 0.019 times" in claims.faster(table)[0].measured, "a small spread is not none"
    (one,) = claims.faster(paper.table_2(tmp_path, [scratch[0], pretrained[0]]))
    assert one.verdict == "open, one seed"
    (half,) = claims.faster(paper.table_2(tmp_path, [scratch[0], *pretrained]))
    assert half.verdict == "open, one seed", "the other seed has nothing to be compared with"
    nothing = paper.table_2(tmp_path, [variant("small", "bimodal", "multi", BOTH)])
    for claim in (claims.faster, claims.better):
        assert "not finished" in sentences(claim(nothing))


def test_pretraining_is_better_beyond_the_spread_or_the_scatter(tmp_path):
    scratch, pretrained = table_2_runs(tmp_path)
    several = sentences(claims.better(paper.table_2(tmp_path, [*scratch, *pretrained]), tmp_path))
    assert "from 80 ± 0 (2 seeds) to 60 ± 0 (2 seeds) meV/atom. Held, -20 meV/atom" in several
    for config, error in ((scratch[0], 0.1), (pretrained[0], 0.075)):
        rows = {"id": ["a", "b"], "split": "test", "e_form": 0.0, "e_form_predicted": [error, 0.1]}
        pd.DataFrame(rows).to_parquet(tmp_path / config.name / "predictions.parquet")
    (one,) = claims.better(paper.table_2(tmp_path, [scratch[0], pretrained[0]]), tmp_path)
    assert one.verdict.startswith("open, ") and one.verdict.endswith("over crystals, one seed each: -44 to +4.5)")
    for config in (variant("small", "bimodal", "multi"), variant("small", "bimodal", "multi", BOTH)):
        rising = {"crystal_system_accuracy": np.minimum(1e-4 * STEPS, 0.9)}
        gain = 0.1 if config.initial else 0
        finish(
            tmp_path, config, falling(1e-4) | rising, e_form_mae=0.08 - gain / 10, crystal_system_accuracy=0.6 + gain
        )
        rows = {"id": ["a", "b"], "split": "test", "crystal_system": [0, 1], "e_form": 0.0, "e_form_predicted": 0.0}
        rows["crystal_system_predicted"] = [np.eye(7)[0].tolist(), np.eye(7)[1].tolist()]
        pd.DataFrame(rows).to_parquet(tmp_path / config.name / "predictions.parquet")
    both = [variant("small", "bimodal", "multi", *start) for start in ((), (BOTH,))]
    multi = sentences(claims.better(paper.table_2(tmp_path, both), tmp_path))
    assert "crystal system of a model of e_form + crystal_system: from 60 to 70 %. Held, +10 points" in multi


@pytest.mark.parametrize(("gain", "verdict"), [(0.1, "held"), (-0.1, "did not hold"), (0.001, "open")])
def test_systems_are_further_apart_beyond_the_scatter_over_crystals(gain, verdict, tmp_path):
    scatter = np.resize([0.02, -0.02], 100)
    runs = [variant("small", "bimodal", "multi", *start) for start in ((), (BOTH,))]
    for config, scores in zip(runs, (0 * scatter, gain + scatter)):
        table = pd.DataFrame({"id": range(100), "crystal_system": "cubic", "all dimensions": scores})
        (tmp_path / config.name).mkdir()
        table.to_parquet(tmp_path / config.name / "latent.parquet")
    starts = {"modalities": "composition + xrd", "start": ["scratch", "pretrain-both-s0"]}
    table_5 = pd.DataFrame(starts | {"mean, all dimensions": [0, gain]})
    interval = f"{gain - 0.0039:+.2g} to {gain + 0.0039:+.2g}"
    (said,) = claims.apart(table_5, tmp_path)
    assert said.verdict == f"{verdict}, {gain:+.2g} (95 % over crystals, one seed each: {interval})"


def test_steeper_only_where_the_intervals_are_apart():
    def scales(table):
        return sentences(claims.scales(table))

    n = np.array([870, 1740, 3480, 6960, 13920, 27833])

    def table(exponents):
        rows = [{"modalities": name, "n_train": size, E_FORM: 5000 * size**-b, "initial": np.nan}
                for name, b in exponents.items() for size in n]  # fmt: skip
        rows += [
            {"modalities": "composition + xrd", "n_train": 870, E_FORM: 1.0, "initial": "data/runs/pretrain-both-s0"}
        ]
        return pd.DataFrame(rows)

    assert "Held" in scales(table({"composition": 0.3, "composition + xrd": 0.4}))
    assert "Did not hold" in scales(table({"composition": 0.4, "composition + xrd": 0.3}))
    assert "missing composition + xrd" in scales(table({"composition": 0.4}))
    for exponents in ((0.38, 0.4), (0.4, 0.38)):
        scattered = table(dict(zip(("composition", "composition + xrd"), exponents)))
        scattered[E_FORM] *= np.where(scattered["n_train"].isin(n[::2]), 1.1, 0.9)
        assert "Open, the intervals overlap" in scales(scattered)

    # Where some sizes are missing, both are fitted at those that are there.
    partly = table({"composition": 0.4, "composition + xrd": 0.3})
    bent = (partly["modalities"] == "composition") & (partly["n_train"] < 2000)
    partly.loc[bent, E_FORM] *= 10
    partly.loc[(partly["modalities"] == "composition + xrd") & (partly["n_train"] < 2000), E_FORM] = np.nan
    said = scales(partly)
    assert "over 4 of 6 sizes as composition N^-0.40" in said and "Did not hold" in said
    partly.loc[(partly["modalities"] == "composition") & (partly["n_train"] > 7000), E_FORM] = np.nan
    assert "sizes at which both are trained" in scales(partly)

    # Pretrained runs are said where they have the same sizes, and do not count.
    exponents = {"composition": 0.3, "composition + xrd": 0.4}
    pretrained = table({"composition + xrd": 0.2})[:-1].assign(initial="data/runs/pretrain-both-s0")
    said = scales(pd.concat([table(exponents)[:-1], pretrained]))
    assert "composition + xrd N^-0.40 (-0.40 to -0.40); pretrained N^-0.20" in said and "Held" in said
    assert "pretrained" not in scales(pd.concat([table(exponents)[:-1], pretrained[1:]]))


def test_memory_is_what_a_known_formula_gains():
    rows = {"modalities": ["composition", "xrd", "composition"], "split": ["random", "random", "formula"]}
    columns = ["test known formula e_form mae (meV/atom)", "test new formula e_form mae (meV/atom)"]
    rows |= {"targets": ["e_form", "e_form", "e_form"]} | dict(zip(columns, ([50.0, np.nan, 1], [80.0, np.nan, 1])))
    table = pd.DataFrame(rows).assign(**dict.fromkeys(by_formula(CRYSTAL_SYSTEM), np.nan))
    assert claims.memory(table).endswith("the others. MAE of E_f: composition 50 and 80 meV/atom.")
    assert "no run is finished" in claims.memory(table[table["split"] == "formula"])


def test_every_finished_row_of_table_1_says_what_was_reached():
    """So that a run of a target that the table has no column for does not stand there without its result."""
    table = paper.written("table_1")
    silent = table[list(METRICS)].isna().all(axis=1) & table["seeds"].ne(0).fillna(True)
    assert not silent.any(), table.loc[silent, ["model", "modalities", "targets"]]


def test_every_finding_of_the_committed_runs_is_said_in_full_and_stands_in_the_readme():
    for name in claims.CLAIMS:
        for finding in claims.findings(name):
            assert str(finding).endswith(".") and "nan" not in str(finding)
    assert claims.markdown() in (PROJECT / "README.md").read_text(), "copy what python -m study.claims prints"
