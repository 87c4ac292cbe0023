"""Measured patterns judged, once and logged; noise studies: with a model that has hardly trained."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Composition
from study import measured
from study.measured import NEW, RANGES, judge, outputs, read, trained
from study.noise import noise_study
from test_train import config, rock_salt_dataset, run_folder

from xxlib import PROJECT, plots
from xxlib.answering.inference import Ensemble, model_files
from xxlib.answering.trust import read_trust
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.datasets.store import Dataset, sha256
from xxlib.diffraction.patterns import TWO_THETA, render_one
from xxlib.diffraction.scattering import Sticks
from xxlib.release import release
from xxlib.training.metrics import accuracy_interval
from xxlib.training.run import train

TARGETS = {"targets": ("e_form", "crystal_system"), "effects": "laboratory", "absent_rate": 0.2}
GIVEN = ("composition + xrd", "composition", "xrd")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return rock_salt_dataset(tmp_path_factory.mktemp("measured") / "rock-salts")


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    run = config(dataset, n_steps=4, **TARGETS)
    folder = run_folder(tmp_path_factory.mktemp("run"), run)
    train(run, folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "rock-salts"
    release([run], folder)
    return folder


@pytest.fixture(scope="module")
def tables(checkpoint, scans, dataset):
    """Accuracies, errors, certainties, samples."""
    return judge(ensemble_of(checkpoint), read_trust(checkpoint)[0], read(scans), Dataset(dataset))


def ensemble_of(checkpoint):
    return Ensemble.load(model_files(checkpoint))


@pytest.fixture(scope="module")
def scans(dataset, tmp_path_factory):
    """Six crystals of the dataset as if measured, with background and counts; of the last two the entry is unknown."""
    data, random = Dataset(dataset), np.random.default_rng(0)
    rows = []
    for row in range(2, 8):  # two of train, one of val, one of test, then train
        lines = Sticks(data.take("two_theta", [row])[0], data.take("intensity", [row])[0], np.zeros((0, 3)))
        inside, known = ((12 if row == 2 else 5) <= TWO_THETA) & (TWO_THETA <= 90), row < 6
        counts = random.poisson(50 * (render_one(lines, sigma=0.07) + 5 + 20 * np.exp(-TWO_THETA / 20)))
        rows.append({
            "sample": f"s-{row}", "reduced_formula": data.column("formula")[row], "crystal_system": "cubic",
            "mp_id": data.column("id")[row] if known else None,
            "e_form": data.labels["e_form"][row] if known else np.nan, "band_gap": np.nan,
            "two_theta": TWO_THETA[inside], "intensity": counts[inside].astype(np.float32),
        })  # fmt: skip
    path = tmp_path_factory.mktemp("scans") / "patterns.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path


def test_wilson_intervals():
    """7 of 10: 39.7 to 89.2 % (Wilson 1927)."""
    found = accuracy_interval(np.arange(10) < 7)
    assert found["n"] == 10 and found["accuracy (%)"] == pytest.approx(70)
    assert (found["low (%)"], found["high (%)"]) == (pytest.approx(39.68, abs=0.01), pytest.approx(89.22, abs=0.01))
    assert accuracy_interval(np.ones(5, bool))["low (%)"] < 60 and np.isnan(accuracy_interval([])["accuracy (%)"])


def test_measured_patterns_are_conditioned(scans):
    patterns = read(scans)
    assert patterns.patterns.shape == (6, 4250) and patterns.patterns.max(1) == pytest.approx(100)
    assert patterns.hidden[0].tolist() == [True] + [False] * 16 and not patterns.hidden[1:].any()
    assert np.median(patterns.patterns) < 2, "the background is gone"
    cut = patterns.within(20, 70)
    assert cut.hidden.sum(1).tolist() == [3 + 3] * 6  # the point at 70.00 is of the token that begins there
    assert (cut.patterns[:, TWO_THETA < 19.99] == 0).all() and cut.patterns.max(1) == pytest.approx(100)


def test_a_checkpoint_is_judged_beside_the_simulated_patterns(tables):
    accuracies, errors, certainties, samples = tables
    assert set(accuracies["given"]) == set(GIVEN)
    n = accuracies[accuracies["of"] == "all"].groupby("patterns")["n"].first()
    assert n.to_dict() == {"measured": 6, "measured, in the dataset": 4, "simulated": 4}
    n = accuracies[accuracies["patterns"] == "measured"].groupby("of")["n"].first()
    assert n["cubic"] == 6 and n["trigonal"] == 0
    assert set(accuracies["of"]) == {"all", *CRYSTAL_SYSTEMS, *(f"{start}-{end} degree" for start, end in RANGES)}
    assert (errors["n"][errors["patterns"] == "simulated"] == 4).all() and set(errors["of"]) == {"E_f (meV/atom)"}
    assert len(samples) == 3 * (6 + 4 + 4)
    row = samples[(samples["given"] == "xrd") & (samples["patterns"] == "measured")].iloc[2]
    assert row["crystal_system_predicted"] == max(CRYSTAL_SYSTEMS, key=lambda name: row[f"p({name})"])
    right = (samples["crystal_system_predicted"] == samples["crystal_system"]).groupby(
        [samples["given"], samples["patterns"]]
    ).mean()  # fmt: skip
    certain = certainties.set_index(["given", "patterns"])
    for about, part in accuracies[accuracies["of"] == "all"].groupby(["given", "patterns"]):
        assert part["accuracy (%)"].item() == pytest.approx(100 * right[about])
        assert certain.loc[about, "crystal_system accuracy (%)"] == pytest.approx(100 * right[about])
    about = ("xrd", "measured")
    known = samples[(samples["given"] == about[0]) & (samples["patterns"] == about[1]) & samples["mp_id"].notna()]
    held = (known["e_form_low"] <= known["e_form"]) & (known["e_form"] <= known["e_form_high"])
    assert len(known) == 4 and certain.loc[about, "e_form coverage (%)"] == pytest.approx(100 * held.mean())


def test_simulated_patterns_are_judged_as_the_split_is(run, tables):
    """What evaluation says of crystals, judging says of the same by their formulas, in half precision."""
    samples = tables[-1]
    table = pd.read_parquet(run / "predictions.parquet").set_index("id")
    found = samples[(samples["given"] == GIVEN[0]) & (samples["patterns"] == "simulated")]
    known = found[found["mp_id"].isin(table.index)]
    assert len(known) == 2 and np.allclose(
        known["e_form_predicted"], table.loc[known["mp_id"], "e_form_predicted"], atol=2e-3
    )


def test_what_is_lost_is_counted_crystal_by_crystal():
    """Of 50 crystals 20 are lost and 5 won: 30 points, with the interval of the differences of pairs."""
    right = {"simulated": np.arange(50) < 40, "measured, in the dataset": (np.arange(50) < 20) | (np.arange(50) >= 45)}
    samples = pd.DataFrame([
        {"model": "a", "given": "xrd", "patterns": kind, "sample": str(k), "crystal_system": "cubic",
         "crystal_system_predicted": "cubic" if found else "trigonal"}
        for kind, of in right.items() for k, found in enumerate(of)
    ])  # fmt: skip
    shuffled = samples.sample(frac=1, random_state=0)
    (row,) = measured.table(shuffled).to_dict("records")
    assert (row["n"], row["simulated (%)"], row["measured (%)"], row["lost (points)"]) == (50, 80, 50, 30)
    half = 196 * np.sqrt(0.5 - 0.3**2) / np.sqrt(50)  # normal, of differences that are 1, 0 or -1
    assert [row["low (points)"], row["high (points)"]] == pytest.approx([30 - half, 30 + half], abs=2)
    assert measured.table(samples[samples["patterns"] != "simulated"]).empty


def test_what_is_not_given_is_not_used(checkpoint, scans):
    ensemble, own = ensemble_of(checkpoint), read(scans)
    flat = type(own)(own.table, np.roll(own.patterns, 500, 1), own.hidden)
    other = type(own)(own.table.assign(formula="KBr"), own.patterns, own.hidden)
    for given, changed in (("composition", flat), ("xrd", other)):
        first, second = (outputs(ensemble, each, (given,)).values["e_form"] for each in (own, changed))
        assert np.array_equal(first, second)
        both, before = (outputs(ensemble, each, ("composition", "xrd")) for each in (changed, own))
        assert not np.allclose(both.values["e_form"], before.values["e_form"])


def test_formulas_that_have_trained_are_told_from_new_ones(checkpoint, dataset):
    """Also where they were written, or measured, a little differently; what is not known has trained nothing."""
    data, ensemble = Dataset(dataset), ensemble_of(checkpoint)
    formulas, split = data.column("formula")[:], data.column("split")[:]
    assert (trained(formulas, ensemble) == (split == "train")).all() and (split != "train").any()
    one = formulas[split == "train"][0]
    first, second = (symbol.symbol for symbol in Composition(one))
    near, far = (f"{first}{1 + off}{second}{1 - off}" for off in (0.01, 0.04))
    assert trained([near, far, None, f"{second}{first}"], ensemble).tolist() == [True, False, False, True]


def test_a_checkpoint_is_judged_once(checkpoint, scans, tmp_path):
    command = [sys.executable, "-m", "study.measured", scans, checkpoint, "--results", tmp_path]
    paths = [str(PROJECT), str(PROJECT / "notebooks")]  # where the command stands, and where the package is
    options = {"capture_output": True, "text": True, "cwd": PROJECT / "notebooks"}
    options["env"] = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    own = sha256(checkpoint / "model.safetensors")
    ensemble = {"model": "with-another", "evaluated": "before", "patterns_sha256": sha256(scans)}
    pd.DataFrame([ensemble | {"sha256": of} for of in (own, "other")]).to_csv(tmp_path / "measured_log.csv")
    first = subprocess.run(command, **options)
    assert first.returncode == 0, first.stderr
    log = pd.read_csv(tmp_path / "measured_log.csv")
    assert log["sha256"].tolist() == [own, "other", own]
    assert log["model"].tolist()[2:] == ["rock-salts"] and len(pd.read_csv(tmp_path / "measured_trust.csv")) == 9
    accuracies = pd.read_csv(tmp_path / "measured_accuracy.csv")
    assert accuracies["n"][accuracies["of"] == NEW].tolist() == [2, 2, 2] * 3, "one of val and one of test"
    samples = pd.read_csv(tmp_path / "measured_samples.csv")
    assert len(samples) == 42 and set(samples["split"]) == {"experimental"}
    assert list(measured.table(samples).columns[-6:]) == ["dataset", "split", "preset", "seed", "commit", "hardware"]
    second = subprocess.run(command, **options)
    assert second.returncode == 1 and "was judged on these patterns before" in second.stderr.splitlines()[-1]
    lines = {name: len(pd.read_csv(tmp_path / f"measured_{name}.csv")) for name in ("log", "samples")}
    assert lines == {"log": 3, "samples": 42}
    (tmp_path / "empty").mkdir()
    command[4] = tmp_path / "empty"
    third = subprocess.run(command, **options)
    assert third.returncode == 1 and third.stderr.splitlines()[-1].startswith("measured: ")
    assert "folder of a released checkpoint" in third.stderr and "Traceback" not in third.stderr


def test_a_noise_study_is_drawn(run):
    severities = (("zero shift (degree)", "zero_shift", (0, 5.0)), ("counts in the maximum", "counts", (1e9, 20)))
    table = noise_study(Ensemble.load(model_files(run)), severities)
    assert len(table) == 2 * 2 * 2 and set(table["given"]) == {"composition + xrd", "xrd"}
    assert (table["n"] == 8).all() and (table["low (%)"] <= table["accuracy (%)"]).all()
    for _, part in table.groupby(["given", "effect"]):
        assert part["E_f MAE (meV/atom)"].nunique() == 2, "the effect is seen"
    figure = plots.severity(table[table["given"] == "xrd"].assign(run="tiny"), "accuracy (%)")
    assert [ax.get_xlabel() for ax in figure.axes] == ["zero shift (degree)", "counts in the maximum"]
    counts = figure.axes[1]
    assert counts.get_xscale() == "log" and counts.xaxis_inverted()
    assert figure.axes[0].get_ylabel() == "crystal system\nright (%)"
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.severity(table[:0].assign(run="tiny"), "accuracy (%)")


def test_accuracies_are_drawn_with_their_intervals():
    groups = (("all", 20), ("cubic", 4), ("x", 0))
    table = pd.DataFrame([
        {"patterns": kind, "of": group, **accuracy_interval(np.arange(n) < n // 2)}
        for kind in ("measured", "simulated") for group, n in groups
    ])  # fmt: skip
    figure = plots.accuracies({"one": table, "two": table})
    assert [ax.get_title(loc="left")[-3:] for ax in figure.axes] == ["one", "two"] and "%" in figure.axes[
        0
    ].get_xlabel()
    low, high = figure.axes[0].containers[0][2][0].get_segments()[0][:, 0]
    assert (low, high) == (pytest.approx(table["low (%)"][0]), pytest.approx(table["high (%)"][0]))
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.accuracies({})


def test_the_measured_patterns_are_read_whole(shared_data):
    patterns = read(shared_data / "measured" / "patterns.parquet")
    assert len(patterns.table) == 127 and patterns.table["mp_id"].notna().sum() == 72
    assert patterns.patterns.max(1) == pytest.approx(100) and np.isfinite(patterns.patterns).all()
