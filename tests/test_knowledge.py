"""Teachers: what they tell, how a student learns it, and the study of knowledge transfer."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from study import archive, formulas, knowledge, schedule
from test_plots import at_print_size
from test_structures import (
    dataset,  # noqa: F401, a fixture
    finished,
    with_structure,
)
from test_texts import trained
from test_train import CPU, TINY, config

from xxlib.datasets.sources.formulas import formulas as of_formulas
from xxlib.datasets.store import Dataset, DatasetError
from xxlib.models.build import build
from xxlib.prepare import prepare
from xxlib.training import objectives, runs, state
from xxlib.training.config import ConfigError
from xxlib.training.losses import taught_loss
from xxlib.training.objectives import step_gradients
from xxlib.training.presets import PRESETS
from xxlib.training.records import curve
from xxlib.training.steps import batches_of_step

pytestmark = pytest.mark.filterwarnings("ignore:1 of 49 crystals")
STUDENT = TINY.only("composition")


def test_the_loss_is_that_of_what_the_teacher_reads():
    random = torch.Generator().manual_seed(0)
    own, taught = (torch.randn(7, 5, generator=random) for _ in range(2))
    assert torch.isclose(taught_loss(own, taught), (own - taught).square().mean()) and taught_loss(own, own) == 0
    taught[3] = torch.nan
    known = torch.arange(7) != 3
    whole = taught_loss(own.requires_grad_(), taught)
    assert torch.isclose(whole, (own - taught)[known].square().mean())
    parts = sum(taught_loss(own[part], taught[part], 6) for part in (slice(0, 4), slice(4, 7)))
    assert torch.isclose(parts, whole)
    whole.backward()
    assert torch.isfinite(own.grad).all() and not own.grad[3].any()
    assert taught_loss(own[3:4], taught[3:4]) == 0


# ---------------------------------------------------------------- a teacher and its student


@pytest.fixture(scope="module")
def teacher(dataset, tmp_path_factory):  # noqa: F811
    """Folder of a run that has learned energies from pattern and structure."""
    folder = tmp_path_factory.mktemp("teachers")
    trained(folder, config(dataset, "teacher", model=with_structure("xrd", ("structure",)), n_steps=60))
    return folder / "teacher"


def student(dataset, teacher, **changes):  # noqa: F811
    changes = {"model": STUDENT, "targets": (), "taught": str(teacher)} | changes
    return config(dataset, **changes)


def test_what_is_taught_is_what_the_heads_of_the_teacher_read(dataset, teacher, tmp_path):  # noqa: F811
    """Of train and val, about the mean of train; of a mixed site, which has no structure, and of test nothing."""
    run = state.prepare(student(dataset, teacher), tmp_path, CPU)
    taught, rows = run.examples.taught, run.examples.rows
    read = taught.isfinite().all(1)
    assert not read[rows["test"]].any() and read[rows["val"]].all() and not read[48] and 48 in rows["train"]
    of_train = taught[rows["train"]][read[rows["train"]]]
    assert torch.allclose(of_train.mean(0), torch.zeros(32), atol=1e-5)
    assert torch.isclose(of_train.square().mean(), torch.tensor(1.0))
    tensors, _ = runs.load_model(teacher)
    (head,) = (x for name, x in tensors.items() if "e_form" in name and x.ndim == 2)  # (1, D)
    table = pq.read_table(teacher / "predictions.parquet").to_pandas()
    predicted = table[table["split"] == "val"]["e_form_predicted"]
    assert np.corrcoef((taught[rows["val"]] @ head.T)[:, 0], predicted)[0, 1] > 0.9999


@pytest.mark.parametrize("model", ["composition", "both"])
def test_micro_batches_have_the_gradient_of_the_whole(dataset, teacher, tmp_path, model):  # noqa: F811
    model = dataclasses.replace(STUDENT if model == "composition" else TINY, dropout=0.0)
    gradients = []
    for micro_batch in (None, 3):
        run = state.prepare(
            student(dataset, teacher, model=model, micro_batch=micro_batch), tmp_path / f"{micro_batch}", CPU
        )
        losses = step_gradients(run.model, run.examples, run.config, 0, CPU)
        assert list(losses) == ["taught"]
        gradients.append([p.grad for p in run.model.parameters() if p.grad is not None] + list(losses.values()))
    assert len(gradients[0]) > 10
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-3) for a, b in zip(*gradients))


def test_a_student_learns_and_is_fine_tuned(dataset, teacher, tmp_path):  # noqa: F811
    """The loss begins at about 1, where it says nothing; anion and cation are what a formula can say of the rest."""
    run = student(dataset, teacher, name="student", n_steps=80, learning_rate=3e-3)
    losses = trained(tmp_path, run)
    assert losses[0] > 0.7 and np.mean(losses[-10:]) < 0.5 * losses[0], losses
    records = runs.metrics(tmp_path / "student")
    (_, taught), (_, errors) = (curve(records, name, given=None) for name in ("taught", "error"))
    assert len(taught) and taught == errors and taught[-1] < taught[0]
    tuned = config(dataset, "tuned", model=STUDENT, initial=str(tmp_path / "student"), n_steps=2)
    begun = state.prepare(tuned, tmp_path / "tuned", CPU).model.state_dict()
    kept = runs.load_model(tmp_path / "student")[0]
    names = [name for name in kept if name.startswith("encoders.composition")]
    assert names and all(torch.equal(begun[name], kept[name]) for name in names)


def test_together_with_hidden_tokens(dataset, teacher, tmp_path):  # noqa: F811
    run = student(dataset, teacher, name="both", model=TINY.only("xrd"), masked=("xrd",), n_steps=2)
    run = state.prepare(run, tmp_path, CPU)
    losses = step_gradients(run.model, run.examples, run.config, 0, CPU)
    assert list(losses) == ["taught", "masked xrd"] and all(x > 0 for x in losses.values())
    (batch,) = batches_of_step(run.examples, run.config, 0, [slice(0, 8)], CPU)
    assert objectives.summary(run.model, run.config, batch).shape == (8, 32)


def test_a_teacher_that_does_not_fit_is_refused_in_words(dataset, teacher, tmp_path):  # noqa: F811
    wide = dataclasses.replace(STUDENT, d_fused=64)
    with pytest.raises(ConfigError, match="teacher: its vectors have 32 numbers, those of this model 64"):
        state.prepare(student(dataset, teacher, model=wide), tmp_path, CPU)
    with pytest.raises(ConfigError, match="teacher has seen crystals that judge this run: its split is 'formula'"):
        state.prepare(student(dataset, teacher, split="random"), tmp_path, CPU)
    masked = config(dataset, "masked", model=TINY.only("xrd"), targets=(), masked=("xrd",), n_steps=1)
    trained(tmp_path, masked)
    with pytest.raises(ConfigError, match="masked: it has no targets, its heads read nothing that was learned"):
        state.prepare(student(dataset, tmp_path / "masked"), tmp_path, CPU)
    with pytest.raises(runs.CheckpointError, match="nobody"):
        state.prepare(student(dataset, tmp_path / "nobody"), tmp_path, CPU)
    with pytest.raises(ConfigError, match="a run has either targets or, to pretrain, no targets and a contrastive"):
        student(dataset, teacher, targets=("e_form",))
    (tmp_path / "labels.csv").write_text(
        "formula,e_form,split\nTiO2,-3,train\nMgO,-2.5,train\nZnO,-2,val\nCdO,-1,test\n"
    )
    options = {"progress": False, "structure": True}
    prepare(of_formulas(tmp_path / "labels.csv"), tmp_path / "formulas", **options)
    with (
        pytest.warns(UserWarning, match="4 of 4 crystals are formulas alone"),
        pytest.raises(DatasetError, match=r"no crystal of train has what .*teacher reads, structure and xrd"),
    ):
        state.prepare(student(tmp_path / "formulas", teacher), tmp_path, CPU)
    prepare(of_formulas(tmp_path / "labels.csv"), tmp_path / "plain", progress=False)
    with pytest.raises(DatasetError, match="plain has no structures, which this model reads"):
        state.prepare(student(tmp_path / "plain", teacher), tmp_path, CPU)


# ---------------------------------------------------------------- the study


def test_the_runs_of_the_study_are_short_and_in_order():
    for preset in ("small", "smoke"):
        planned = knowledge.runs(preset)
        assert len({run.name for run in planned}) == len(planned) == {"small": 37, "smoke": 4}[preset]
        usual = json.dumps(PRESETS[preset].as_dict(), indent=1).splitlines()
        for k, run in enumerate(planned):
            own = json.dumps(run.as_dict(), indent=1).splitlines()
            assert len([line for line in own if line not in usual]) <= 15, run.name
            with torch.device("meta"):
                build(run.model, run.widths, contrastive=run.objectives.contrastive)
            if schedule.start_of(run):
                earlier = [knowledge.reads_structures(preset), *planned[:k]]
                start = next(one for one in earlier if one.name == schedule.start_of(run))
                assert start.model.d_fused == run.model.d_fused and not run.frozen
    assert {run.model.modalities for run in knowledge.lines().values()} == {("composition",)}
    taught = knowledge.starts()[knowledge.MORE]
    assert schedule.start_of(taught) == knowledge.teacher().name and schedule._reads_structures(taught)
    assert not schedule._reads_structures(knowledge.student("E_f"))
    table = knowledge.table()
    assert len(table) == 41 and table["knows the structure"].sum() == 2


@pytest.fixture
def place(tmp_path):
    """What students have reached from scratch and taught, and the predictions of those of energies."""
    crystals = {"id": list("abcd"), "formula": list("abcd"), "split": "test", "e_form": [0.0] * 4}
    crystals |= dict.fromkeys(("band_gap", "crystal_system", "space_group"), 0.0)
    archive._write(pd.DataFrame(crystals), tmp_path / "crystals" / "mp36k.parquet")
    lines = knowledge.lines()
    errors = {knowledge.ALONE: [0.08, 0.12, 0.10, 0.10], knowledge.MORE: [0.07, 0.10, 0.09, 0.09]}
    for start, values in errors.items():
        run = lines["E_f", start]
        finished(run.name, run, tmp_path, {"e_form": np.mean(values)})
        predicted = pd.DataFrame({"row": range(4), "e_form_predicted": np.array(values, np.float32)})
        archive._write(predicted, tmp_path / "predictions" / f"{run.name}.parquet")
        run = lines["moduli", start]
        moduli = {"log_bulk_modulus": 10 * np.mean(values), "log_shear_modulus": 1.0}
        finished(run.name, run, tmp_path, moduli)
    return tmp_path


def test_a_row_says_what_a_start_takes_off_the_error(place, tmp_path_factory):
    table = knowledge.table(place=place).set_index(["task", "start", "target"])
    row = table.loc[("E_f", knowledge.MORE, "e_form")]
    assert np.isclose(row["test mae"], 87.5) and np.isclose(row[knowledge.GAIN], 12.5)
    change = np.array([10, 20, 10, 10])  # meV/atom
    half = 1.96 * change.std(ddof=1) / 2
    assert np.isclose(row[f"+- {knowledge.GAIN}"], half, rtol=1e-4)
    bulk = table.loc[("moduli", knowledge.MORE, "log_bulk_modulus")]
    assert np.isclose(bulk[knowledge.GAIN], 12.5) and pd.isna(bulk[f"+- {knowledge.GAIN}"])
    assert pd.isna(table.loc[("E_f", knowledge.ALONE, "e_form")][knowledge.GAIN])
    sentences = knowledge.findings(place)
    assert sentences[0] == (
        "E_f, MAE of e_form on test (meV/atom): 100 from scratch, 87.5 taught with mp90k (12.5 ± 4.9 % less)."
    )
    assert sentences[-2] == (
        "A student taught with mp90k has 12.5 % less error of E_f (one seed); the goal, 10 %, is met."
    )
    assert sentences[-1].startswith(
        "Over 3 targets a student taught with mp90k has 8.3 % less error on average, and less for 2 of them"
    )
    ((name, figure),) = knowledge.figures(place=place).items()
    assert name == "knowledge" and not at_print_size(figure)
    nothing = tmp_path_factory.mktemp("nothing")
    assert knowledge.findings(nothing) == ["Knowledge transfer: no run is finished."]
    assert knowledge.figures(place=nothing) == {}


def test_measured_gaps_of_known_formulas_train(tmp_path):
    """Those that judge are of no crystal that a teacher has shown to a student."""
    names = [f"Si{n}O{m}" for n in range(1, 21) for m in range(1, 11)]
    atoms = [[14] * (int(n) // k) + [8] * (int(m) // k) for n, m in (name[2:].split("O") for name in names[:100])
             for k in [np.gcd(int(n), int(m))]]  # fmt: skip
    labels = pd.DataFrame({"property": "experimental_band_gap", "reduced_formula": names, "target": 1.0})
    other = pd.DataFrame({"property": ["mp_band_gap"], "reduced_formula": ["GaAs"], "target": [0.2]})
    pd.concat([labels, other]).to_parquet(tmp_path / "labels.parquet")
    others = [f"crystal {k}" for k in range(100)]
    pd.DataFrame({"reduced_formula": others, "atomic_numbers": atoms}).to_parquet(tmp_path / "crystals.parquet")
    table = formulas.measured_gap_table(tmp_path / "labels.parquet", tmp_path / "crystals.parquet")
    assert table["reduced_formula"].tolist() == names and (table["split"][:100] == "train").all()
    assert table.set_index("reduced_formula").loc["Si20O2", "split"] == "train", "Si10O1 is there"
    new = [name not in {f"Si{2 * n}O{2 * m}" for n in range(1, 11) for m in range(1, 6)} for name in names]
    shares = table["split"][np.array(new) & (np.arange(200) >= 100)].value_counts(normalize=True)
    assert abs(shares["train"] - 0.4) < 0.15 and abs(shares["test"] - 0.4) < 0.15 and shares["val"] > 0.08
    table.to_parquet(tmp_path / "table.parquet")
    prepare(of_formulas(tmp_path / "table.parquet"), tmp_path / "measured", progress=False)
    assert np.array_equal(Dataset(tmp_path / "measured").column("split"), table["split"])
