"""The experiment of the known crystals, on embedded crystals: what is asked, hidden, kept, fitted and judged."""

import numpy as np
import pandas as pd
import pytest
from study import archive, asking, known_crystals, measured_stand_ins, plus, stand_ins
from study.asking import Asked
from study.measured import NEW

from xxlib import PROJECT
from xxlib import library as library_command
from xxlib.answering.inference import Ensemble, model_files
from xxlib.answering.joint import Joint
from xxlib.candidates.known import DEFAULT, KINDS, LIBRARIES, KnownCrystals, read_rankings
from xxlib.crystals.crystal import space_group
from xxlib.datasets.sources.parquet import parquet
from xxlib.datasets.store import Dataset
from xxlib.diffraction.patterns import TWO_THETA
from xxlib.diffraction.wavelengths import ANODES, CU_KA
from xxlib.predict import Predictor
from xxlib.prepare import prepare
from xxlib.training.config import RunConfig
from xxlib.training.presets import PRESETS

N = 12


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    """A dataset of some embedded crystals with structures, and the known crystals that its library holds: all of it."""
    folder = tmp_path_factory.mktemp("asked")
    table = pd.read_parquet(PROJECT / "data" / "demo" / "crystals.parquet").iloc[::40]
    table.to_parquet(folder / "crystals.parquet")
    prepare(parquet(folder / "crystals.parquet"), folder / "dataset", hkl=True, structure=True, progress=False)
    library, _ = library_command.build([folder / "dataset"], folder / "library", n_workers=1, progress=False)
    return Dataset(folder / "dataset"), KnownCrystals(library, read_rankings(LIBRARIES / DEFAULT / "ranking.json"))


@pytest.fixture
def asked(crystals, monkeypatch):
    """The experiment, put to these crystals; all of them are held out."""
    dataset, known = crystals
    monkeypatch.setattr(asking, "dataset", lambda: dataset)
    monkeypatch.setattr(known_crystals, "dataset", lambda: dataset)
    monkeypatch.setattr(asking, "all_known", lambda: known)
    monkeypatch.setattr(asking, "HELD_OUT", ("train", "val", "test"))
    held_out = asking._held_out
    held_out.cache_clear()
    yield dataset, known
    held_out.cache_clear()


def some(dataset):
    """The split with most crystals, and how many of it are asked for."""
    split = max(("train", "val", "test"), key=lambda name: len(dataset.indices(name)))
    return split, min(N, len(dataset.indices(split)) - 1)


def test_a_crystal_of_the_library_is_found_and_one_that_is_hidden_is_not(asked, tmp_path):
    dataset, known = asked
    split, n = some(dataset)
    found, evidence = asking.answers(Asked(setting="in the library", n=n), split, tmp_path)
    assert len(found) == len(evidence) == n and found["same_formula"].mean() > 0.8
    assert (found["volume_off"].abs() < 1).mean() > 0.8
    metrics = known_crystals.judged(found)
    assert metrics["n"] == n and metrics["space group (%)"] > 80 and metrics["right phase first (%)"] > 80
    held, _ = asking.answers(Asked(n=n), split, tmp_path)
    assert not held["same_formula"].any()
    assert asking.hidden(dataset, dataset.indices(split)[0], "formula held out").all()
    assert known.library.formula_keys[0] != 0 and asking.hidden(dataset, 0, "in the library") is None


def test_elements_held_out_are_those_of_the_sample_alone(asked, monkeypatch):
    dataset, known = asked
    monkeypatch.setattr(asking, "_held_out", lambda: np.zeros(len(known.library), bool))
    row = int(dataset.indices("train")[0])
    mask = asking.hidden(dataset, row, "elements held out")
    elements = set(asking.composition_of(dataset, row)[0].tolist())
    for crystal, hidden in enumerate(mask):
        assert hidden == (set(known.library.elements_of(np.array([crystal]))[0].tolist()) - {0} == elements)


def test_with_a_wrong_anode_all_lines_are_off_by_one_factor(asked):
    dataset, _ = asked
    row = int(dataset.indices("train")[0])
    right, wrong = (asking.observed(dataset, row, None, anode)[0] for anode in (None, "Cr"))
    assert wrong.measured.sum() < right.measured.sum()
    sines = [np.sin(np.radians(seen.two_theta / 2)) for seen in (right, wrong)]
    expected = sines[0] * CU_KA / ANODES["Cr"][2]
    assert all(np.abs(expected - one).min() < 2e-4 for one in sines[1])


def test_what_was_asked_is_not_asked_again(asked, tmp_path, monkeypatch):
    split, n = some(asked[0])
    before, _ = asking.answers(Asked(setting="in the library", n=n), split, tmp_path)
    monkeypatch.setattr(asking, "ask", None)
    after, _ = asking.answers(Asked(setting="in the library", n=n), split, tmp_path)
    pd.testing.assert_frame_equal(before, after)


def test_rankings_are_fitted_and_validated(asked, tmp_path, monkeypatch):
    split, n = some(asked[0])
    kinds = [Asked(setting="in the library", n=n), Asked(given="another formula", setting="in the library", n=n)]
    monkeypatch.setattr(known_crystals, "FITTED_ON", {"ideal": kinds})
    monkeypatch.setattr(known_crystals, "FOLDS", 3)
    monkeypatch.setattr(known_crystals, "answers",
                        lambda asked, _, folder, workers: asking.answers(asked, split, folder, workers))  # fmt: skip
    assert set(known_crystals.fit(tmp_path)) == {"ideal"}
    table = known_crystals.validate(tmp_path).set_index("given")
    assert table.loc["formula", "space group (%)"] > table.loc["another formula", "space group (%)"]
    assert table.loc["another formula", "unexplained (%)"] > table.loc["formula", "unexplained (%)"]


def test_measured_patterns_are_asked_for(asked, tmp_path):
    """A measured pattern of a crystal in the library; with its formula hidden it is not found, without one it is asked
    for only with nothing hidden."""
    dataset, known = asked
    row = int(dataset.indices("train")[0])
    pattern = asking.observed(dataset, row, None)[0].root ** 2
    noise = np.random.default_rng(0).normal(30, 3, len(pattern))
    one = {"sample": "a", "reduced_formula": dataset.column("formula")[row], "mp_id": dataset.column("id")[row],
           "space_group": int(dataset.labels["space_group"][row]) + 1, "two_theta": TWO_THETA,
           "intensity": 100 * pattern + noise}  # fmt: skip
    path = tmp_path / "measured.parquet"
    pd.DataFrame([one, one | {"sample": "b", "mp_id": "elsewhere"}]).to_parquet(path)
    seen = asking.answers_measured(path, known, "formula", "nothing hidden", known.library)
    volume = np.exp(dataset.labels["log_volume"][row])
    assert seen["published"].tolist() == pytest.approx([volume] * 2, rel=0.01) and (seen["volume_off"].abs() < 1).all()
    assert seen["in_library"].tolist() == [True, False] and seen["same_formula"].all() and seen["none"][0] < 0.5
    held = asking.answers_measured(path, known, "formula", "formula held out")
    assert held["id"].tolist() == ["a", "b"] and not held["same_formula"].any()
    pd.DataFrame([one]).drop(columns=["reduced_formula", "mp_id"]).to_parquet(path)
    assert len(asking.answers_measured(path, known, "formula", "nothing hidden")) == 0
    assert len(asking.answers_measured(path, known, "nothing", "formula held out")) == 0
    assert asking.answers_measured(path, known, "nothing", "nothing hidden")["in_library"].tolist() == [False]


def test_measured_patterns_are_judged_once(asked, tmp_path, monkeypatch):
    """By known crystals, and by these and a network; a file with nothing to read is an answer, a wrong one."""
    dataset, known = asked
    row = int(dataset.indices("train")[0])
    pattern = asking.observed(dataset, row, None)[0].root ** 2
    noise = np.random.default_rng(0).normal(30, 3, len(pattern))
    one = {"sample": "a", "reduced_formula": dataset.column("formula")[row], "mp_id": dataset.column("id")[row],
           "space_group": int(dataset.labels["space_group"][row]) + 1, "two_theta": TWO_THETA}  # fmt: skip
    table = pd.DataFrame(
        [one | {"intensity": 100 * pattern + noise}, one | {"sample": "b", "mp_id": None, "intensity": noise}]
    )
    table.to_parquet(tmp_path / "measured.parquet")
    model = Predictor.load()
    model.joint, model.folder = dict.fromkeys(KINDS, Joint((0.5, 0.5), (1.0, 1.0), 0.0, {})), tmp_path
    (tmp_path / "known.json").write_text("{}")
    monkeypatch.setattr(known_crystals, "RESULTS", tmp_path)
    monkeypatch.setattr(known_crystals, "trained", lambda formulas, ensemble: np.array([False, True]))
    monkeypatch.setattr(known_crystals.KnownCrystals, "load", lambda library: known)
    known_crystals.judge_measured(model, [tmp_path / "measured.parquet"], "known")
    rows = known_crystals.table(place=tmp_path).set_index(["given", "setting"])
    settings = rows.index.get_level_values("setting")
    assert len(rows) == 16 and (settings == f"formula held out, {NEW}").sum() == 4
    assert (rows["n"] == np.where((settings == "in the library") | settings.str.endswith(NEW), 1, 2)).all()
    assert rows.loc[("formula", "nothing hidden"), "space group (%)"] == 50
    assert rows.loc[("formula", "in the library"), "space group (%)"] == 100
    assert rows.loc[(f"formula, {model.name}", "nothing hidden"), "space group (%)"] >= 50
    with pytest.raises(SystemExit, match="was asked for with this posterior before"):
        known_crystals.judge_measured(model, [tmp_path / "measured.parquet"], "known")
    # Another posterior: known crystals, which are the same, are not asked again.
    (tmp_path / "known.json").write_text("{ }")
    before = {path.name: pd.read_parquet(path) for path in (tmp_path / "known_crystals").glob("*.parquet")}
    with monkeypatch.context() as patched:
        patched.setattr(known_crystals, "answers_measured", None)
        known_crystals.judge_measured(model, [tmp_path / "measured.parquet"], "known")
    for name, rows in before.items():
        again = pd.read_parquet(tmp_path / "known_crystals" / name)
        assert list(again) == list(rows) and again["none"].tolist() == rows["none"].tolist()
        assert [list(one) for one in again["groups"]] == [list(one) for one in rows["groups"]]
    with pytest.raises(TypeError), monkeypatch.context() as patched:
        patched.setattr(known_crystals, "answers_measured", None)
        (tmp_path / "known.json").write_text("{  }")
        known_crystals.judge_measured(model, [tmp_path / "measured.parquet"], "known", again=True)


def test_a_formula_has_one_number_however_its_fractions_are_rounded():
    """Expected: least amounts, increasing, with their elements."""
    formulas = {((11, 17), (4, 4)): ((1, 1), (11, 17)), ((57, 5), (1, 6)): ((1, 6), (57, 5)),
                ((8, 13, 20), (38, 8, 14)): ((4, 7, 19), (13, 20, 8))}  # fmt: skip
    for (numbers, amounts), expected in formulas.items():
        fractions = (np.array(amounts) / sum(amounts)).astype(np.float32)
        assert asking.stoichiometry_of(np.array(numbers), fractions) == expected


def test_candidates_are_read_by_an_encoder_of_structures(asked, tmp_path, trained_run, monkeypatch):
    """What is said of a crystal is the mean over its candidates; nothing is said where there are none."""
    dataset, _ = asked
    monkeypatch.setattr(stand_ins, "dataset", lambda: dataset)
    monkeypatch.setattr(stand_ins, "SETTING", "in the library")
    split, _ = some(dataset)
    found = stand_ins.candidates(split, "composition + xrd", tmp_path, n=3)
    assert [len(one["crystals"]) == len(one["probabilities"]) > 0 for one in found] == [True] * 3
    found[0] |= {"crystals": [one["crystals"][0] for one in found[:2]], "probabilities": [0.8, 0.15]}
    found[2] |= {"crystals": [], "probabilities": []}
    candidates = stand_ins.as_dataset(found, tmp_path / "candidates")
    ids = [f"{one['row']}-{rank}" for one in found for rank in range(len(one["crystals"]))]
    assert list(candidates.column("id")) == ids and candidates.has_structure
    own = dataset.column("formula")[[one["row"] for one in found[:2]]]
    assert {f"{row['row']}-0": name for row, name in zip(found, own)} == {
        name: formula for name, formula in zip(ids, candidates.column("formula")[:]) if name.endswith("-0")
    }
    run = trained_run(
        "structures", model=PRESETS["structure"].model, dataset=str(dataset.folder), targets=("e_form",), n_steps=5
    )
    ensemble = Ensemble.load(model_files(run))
    told = stand_ins.said(found, candidates, ensemble)
    of = ensemble.of_rows(candidates, np.arange(len(ids)), ("structure",)).values["e_form"]
    for (_, row), one in zip(told.iloc[:2].iterrows(), found):
        own = of[[name.startswith(f"{one['row']}-") for name in ids]]
        assert row["candidates"] == pytest.approx(np.average(own, weights=one["probabilities"]))
        assert row["spread"] >= 0 and row["none"] == one["none"]
    assert np.isnan(told["candidates"].iloc[2])


def test_without_a_pattern_structure_types_of_the_formula_are_candidates(asked, monkeypatch):
    """Of a crystal whose formula is known it is itself, sure; of one that is hidden, others with its own formula."""
    dataset, known = asked
    monkeypatch.setattr(stand_ins, "dataset", lambda: dataset)
    monkeypatch.setattr(stand_ins, "all_known", lambda: known)
    monkeypatch.setattr(stand_ins, "SETTING", "in the library")
    split, _ = some(dataset)
    row = int(dataset.indices(split)[0])
    one = stand_ins._of_formula(row)
    assert one["none"] == 0 and sum(one["probabilities"]) <= 1 + 1e-9
    assert np.all(np.diff(one["probabilities"]) <= 0) and one["probabilities"][0] > 0.5
    true, volume = dataset.labels["space_group"][row] + 1, np.exp(dataset.labels["log_volume"][row])
    first = one["crystals"][0]
    assert space_group(first) == true and first.volume / len(first.atomic_numbers) == pytest.approx(volume, rel=0.02)
    monkeypatch.setattr(stand_ins, "SETTING", "formula held out")
    monkeypatch.setattr(asking, "HELD_OUT", (split,))
    seen = 0
    for row in dataset.indices(split):
        one, elements = stand_ins._of_formula(row), dataset.take("element_ids", [row])[0]
        seen += len(one["crystals"])
        for crystal in one["crystals"]:
            assert set(crystal.atomic_numbers.tolist()) == set(elements.tolist())
        assert (one["none"] == 1) == (not one["crystals"])
    assert seen > 0


def test_what_is_said_of_every_crystal_is_kept_as_a_run(asked, tmp_path, trained_run, monkeypatch):
    """Of val and test, in the form of a training; the error is that of what is kept."""
    dataset, known = asked
    folder = {"dataset": str(dataset.folder), "targets": ("e_form",), "n_steps": 5}
    runs = [trained_run("structures", model=PRESETS["structure"].model, **folder),
            trained_run("formulas", model=PRESETS["smoke"].model.only("composition"), **folder)]  # fmt: skip
    for run in runs:
        (tmp_path / run.name).symlink_to(run)
    configs = [[RunConfig.load(run / "run.json")] for run in runs]
    kept = []
    for name, value in {"dataset": lambda: dataset, "all_known": lambda: known, "RUNS": tmp_path, "RESULTS": tmp_path,
                        "asked": lambda given: (*configs, [])}.items():  # fmt: skip
        monkeypatch.setattr(stand_ins, name, value)
    monkeypatch.setattr(asking, "HELD_OUT", ("val", "test"))
    for name in ("keep", "keep_val"):
        monkeypatch.setattr(stand_ins.archive, name, kept.append)
    stand_ins.answer_all("composition", tmp_path / "candidates")
    name = plus.STAND_INS["composition"]
    assert kept == [name, name]
    said = pd.read_parquet(tmp_path / name / "predictions.parquet").set_index("id")
    rows = {split: dataset.indices(split) for split in ("val", "test")}
    assert {split: set(part.index) for split, part in said.groupby("split")} == {
        split: set(dataset.column("id")[own]) for split, own in rows.items()
    }
    record = archive.read(name, tmp_path)
    for split, own in rows.items():
        true = pd.Series(dataset.labels["e_form"][own], dataset.column("id")[own])
        error = (said["e_form_predicted"][true.index] - true).abs().mean()
        assert archive.value(name, "mae", "e_form", split, tmp_path, given="composition") == pytest.approx(1000 * error)
    assert record.config["model"]["readers"] == [run.name for run in runs]


def test_candidates_are_believed_as_far_as_they_are_sure():
    """Where they are near the truth and sure of it, and not where none of them is right or there is none."""
    random = np.random.default_rng(0)
    true, none = random.normal(size=400), random.choice([0.02, 0.9], 400)
    told = pd.DataFrame(
        {"none": none, "spread": 0.02, "candidates": true + np.where(none < 0.5, 0.01, 2) * random.normal(size=400)}
    )
    alone = true + 0.1 * random.normal(size=400)
    weights = stand_ins.fitted(told, alone, true)
    errors = np.abs(stand_ins.believed(told, alone, weights) - true)
    sure = none < 0.5
    assert errors[sure].mean() < 0.02 < np.abs(alone - true)[sure].mean()
    assert errors[~sure].mean() < 1.05 * np.abs(alone - true)[~sure].mean()
    nothing = told.assign(candidates=np.nan, spread=np.nan)
    assert np.array_equal(stand_ins.believed(nothing, alone, weights), alone)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (41.0, "is met: 41.0 meV/atom (b)."),
        (57.6, "has 55.2: reading them keeps from the goal more than the candidates do."),
        (90.0, "has 55.2."),
    ],
)
def test_the_goal_is_of_the_best_reader_of_formula_and_pattern(tmp_path, error, said):
    rows = [
        {"given": given, "reader of structures": name, "with candidates": value, "true structure": 55.2}
        for given, name, value in (("composition + xrd", "a", 95.0), ("composition + xrd", "b", error),
                                   ("composition", "c", 30.0))
    ]  # fmt: skip
    pd.DataFrame(rows).assign(unit="meV/atom").to_csv(tmp_path / "stand_ins.csv", index=False)
    assert stand_ins.goal(tmp_path).endswith(said) and "(b)" in stand_ins.goal(tmp_path)


def test_candidates_of_measured_scans_are_judged_once(asked, tmp_path, trained_run, monkeypatch):
    """A scan of a crystal whose formula is hidden; by hand: weights that believe the candidates wholly, or not."""
    dataset, known = asked
    run = trained_run(
        "structures", model=PRESETS["structure"].model, dataset=str(dataset.folder), targets=("e_form",), n_steps=5
    )
    for name, value in {"dataset": lambda: dataset, "all_known": lambda: known, "RUNS": run.parent,
                        "RESULTS": tmp_path}.items():  # fmt: skip
        monkeypatch.setattr(measured_stand_ins, name, value)

    def scan_of(row):
        counts = 100 * asking.observed(dataset, row, None)[0].root ** 2
        own = {"reduced_formula": dataset.column("formula")[row], "mp_id": dataset.column("id")[row], "e_form": 1.0}
        counts += np.random.default_rng(0).normal(30, 3, len(counts))
        return own | {"sample": "a", "two_theta": TWO_THETA, "intensity": counts}

    scans = (scan_of(int(row)) for row in dataset.indices("train"))
    scan = next(one for one in scans if measured_stand_ins.candidates(pd.DataFrame([one]))[0]["crystals"])
    pd.DataFrame([scan, scan | {"sample": "b", "e_form": np.nan}]).to_parquet(tmp_path / "scans.parquet")
    released = {"model": measured_stand_ins.RELEASED, "given": "composition + xrd", "patterns": "measured"}
    pd.DataFrame([released | {"sample": "a", "e_form_predicted": 0.9}]).to_csv(tmp_path / "measured_samples.csv")
    pd.DataFrame(columns=["model", "patterns", "patterns_sha256", "sha256"]).to_csv(tmp_path / "measured_log.csv")
    row = {"given": "composition + xrd", "with candidates": 50.0, "weight": -99.0}
    row |= dict.fromkeys(stand_ins.WEIGHTS[1:], 0.0) | {"reader of structures": run.name}
    for weight, error in ((-99.0, 100.0), (99.0, None)):
        pd.DataFrame([row | {"weight": weight}]).to_csv(tmp_path / "stand_ins.csv", index=False)
        chosen = stand_ins.committed(tmp_path).iloc[0]
        table = measured_stand_ins.judge(pd.DataFrame([scan]), chosen, tmp_path / f"kept{weight}")
        assert table["alone"][0] == pytest.approx(100) and (table["with candidates"][0] == pytest.approx(100)) == (
            error is not None
        )
        assert table["gain"][0] == pytest.approx(100 - table["with candidates"][0])
    monkeypatch.setattr(measured_stand_ins, "committed", lambda: stand_ins.committed(tmp_path))
    monkeypatch.setattr("sys.argv", ["", str(tmp_path / "scans.parquet"), "--kept", str(tmp_path / "kept")])
    measured_stand_ins.main()
    (said,) = measured_stand_ins.findings(tmp_path)
    assert said.startswith("Candidates take the error of E_f of 1 measured crystals from 100 (mp36k-wide, ")
    with pytest.raises(SystemExit, match=r"scans\.parquet was asked with this reader"):
        measured_stand_ins.main()
    # What cannot be read has no candidates; what is not known, and columns that lack, are said.
    unread = measured_stand_ins.candidates(pd.DataFrame([scan | {"intensity": np.zeros(len(TWO_THETA))}]))
    assert unread == [{"row": 0, "none": 1.0, "crystals": [], "probabilities": []}]
    with pytest.raises(ValueError, match=r"a: mp36k-wide was not judged on it, or .* has no such crystal"):
        measured_stand_ins.judge(pd.DataFrame([scan | {"mp_id": "elsewhere"}]), chosen, tmp_path / "none")
    with pytest.raises(ValueError, match="c: mp36k-wide was not judged on it"):
        measured_stand_ins.judge(pd.DataFrame([scan | {"sample": "c"}]), chosen, tmp_path / "none")
    pd.DataFrame([scan]).drop(columns="mp_id").to_parquet(tmp_path / "scans.parquet")
    with pytest.raises(SystemExit, match=r"scans\.parquet has no column mp_id"):
        measured_stand_ins.main()
