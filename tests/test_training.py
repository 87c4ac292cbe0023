"""Losses, schedule, configuration, checkpoints: the parts of a training, each alone."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from xxlib.analysis.metrics import classification_metrics, regression_metrics
from xxlib.training import runs
from xxlib.training.config import PRESETS, ConfigError, RunConfig, from_dict
from xxlib.training.losses import target_losses
from xxlib.training.schedule import learning_rate

# ---------------------------------------------------------------- losses


def test_losses_are_mean_square_and_cross_entropy():
    predictions = {"e_form": torch.tensor([1.0, 2.0]), "crystal_system": torch.zeros(2, 7)}
    targets = {"e_form": torch.tensor([0.0, 4.0]), "crystal_system": torch.tensor([3, 6])}
    losses = target_losses(predictions, targets)
    assert losses["e_form"].item() == pytest.approx((1 + 4) / 2)
    assert losses["crystal_system"].item() == pytest.approx(math.log(7))


def test_missing_labels_count_for_nothing_and_give_no_gradient():
    prediction = torch.tensor([1.0, 5.0], requires_grad=True)
    logits = torch.randn(2, 7, requires_grad=True)
    targets = {"e_form": torch.tensor([0.0, math.nan]), "crystal_system": torch.tensor([-1, 2])}
    losses = target_losses({"e_form": prediction, "crystal_system": logits}, targets)
    sum(losses.values()).backward()
    assert losses["e_form"].item() == 1 and prediction.grad[1] == 0
    assert logits.grad[0].abs().sum() == 0 and logits.grad[1].abs().sum() > 0


def test_drawn_targets_share_out_the_batch():
    """Each example gives the gradient of its own target alone, and the losses add up to the mean over the batch."""
    prediction = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    logits = torch.randn(3, 7, requires_grad=True)
    targets = {"e_form": torch.zeros(3), "crystal_system": torch.tensor([0, 1, 2])}
    losses = target_losses({"e_form": prediction, "crystal_system": logits}, targets, drawn=torch.tensor([0, 1, 0]))
    sum(losses.values()).backward()
    assert losses["e_form"].item() == pytest.approx((1 + 9) / 3)
    assert (prediction.grad != 0).tolist() == [True, False, True]
    assert (logits.grad.abs().sum(1) > 0).tolist() == [False, True, False]


# ---------------------------------------------------------------- schedule


def test_learning_rate_warms_up_linearly_and_falls_as_a_cosine():
    rates = np.array([learning_rate(step, 1000, 5e-4) for step in range(1000)])
    assert rates[0] == pytest.approx(1e-6) and rates[100] == pytest.approx(5e-4) and rates[-1] == pytest.approx(1e-7)
    assert np.allclose(np.diff(rates[:101]), (5e-4 - 1e-6) / 100)
    middle = 100 + (999 - 100) / 2
    assert np.interp(middle, np.arange(1000), rates) == pytest.approx((5e-4 + 1e-7) / 2, rel=1e-3)
    assert (np.diff(rates[100:]) < 0).all()


@pytest.mark.parametrize("n_steps", [1, 2, 3, 11])
def test_the_shortest_runs_have_a_learning_rate(n_steps):
    assert all(0 < learning_rate(step, n_steps, 1e-3) <= 1e-3 for step in range(n_steps))


# ---------------------------------------------------------------- configuration


def test_presets_survive_json(tmp_path):
    for preset in PRESETS.values():
        preset.save(tmp_path / "run.json")
        assert RunConfig.load(tmp_path / "run.json") == preset


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rte": 1}, "unknown key learning_rte"),
        ({"model": {"depth": 3}}, r"unknown key model\.depth"),
        ({"targets": ["melting_point"]}, "melting_point"),
        ({"precision": "fp8"}, "fp8"),
        ({"split": "by_eye"}, "by_eye"),
        ({"n_steps": 0}, "n_steps"),
        ({"n_steps": None}, "missing key n_steps"),
        ({"model": 3}, "model"),
    ],
)
def test_a_wrong_run_is_one_clear_line(tmp_path, change, words):
    values = dataclasses.asdict(PRESETS["smoke"]) | change
    values = {name: value for name, value in values.items() if value is not None}
    with pytest.raises(ConfigError, match=words) as error:
        from_dict(values)
    assert "\n" not in str(error.value)
    (tmp_path / "run.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"run\.json"):
        RunConfig.load(tmp_path / "run.json")


def test_a_run_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json is not JSON"):
        RunConfig.load(tmp_path / "run.json")


# ---------------------------------------------------------------- files


def test_a_flipped_bit_and_a_cut_are_noticed(tmp_path):
    path = tmp_path / "state.pt"
    runs.write_checked(path, b"0123456789" * 100)
    assert runs.read_checked(path) == b"0123456789" * 100
    for damaged in (b"1" + b"0123456789" * 100, b"0123456789" * 99, b""):
        path.write_bytes(damaged)
        with pytest.raises(runs.CheckpointError, match=r"state\.pt does not match its sha256"):
            runs.read_checked(path)


def test_a_file_fits_its_sidecar_at_every_moment_of_an_exchange(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    runs.write_checked(path, b"old")
    replace, seen = runs.os.replace, []

    def watched(source, target):
        replace(source, target)
        seen.append(runs.read_checked(path))

    monkeypatch.setattr(runs.os, "replace", watched)
    runs.write_checked(path, b"new")
    assert seen == [b"old", b"new", b"new"]
    assert len((tmp_path / "state.pt.sha256").read_text().splitlines()) == 1


def test_a_model_carries_what_prediction_needs(tmp_path):
    model = torch.nn.Linear(3, 2)
    runs.save_model(tmp_path, model, {"normalisers": {"e_form": {"mean": 1.0, "std": 2.0}}})
    tensors, about = runs.load_model(tmp_path)
    assert torch.equal(tensors["weight"], model.weight) and about["normalisers"]["e_form"]["std"] == 2.0


def test_a_line_of_metrics_cut_off_by_a_kill_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert runs.metrics(tmp_path) == [{"step": 1}, {"step": 2}]


# ---------------------------------------------------------------- metrics


def test_regression_metrics():
    values = regression_metrics(np.array([0.0, 1.0, 2.0, np.nan]), np.array([0.0, 1.0, 5.0, 9.0]))
    assert values["mae"] == pytest.approx(1) and values["rmse"] == pytest.approx(math.sqrt(3))
    assert values["r2"] == pytest.approx(1 - 9 / 2)


def test_classification_metrics():
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.9, 0.1], [0.3, 0.7]])
    values = classification_metrics(np.array([0, 0, 0, 1.0]), probabilities)
    assert values["accuracy"] == 1 and values["balanced_accuracy"] == 1
    values = classification_metrics(np.array([0, 1, np.nan, 1.0]), probabilities)
    assert values["accuracy"] == pytest.approx(2 / 3) and values["balanced_accuracy"] == pytest.approx(3 / 4)
    assert values["log_loss"] == pytest.approx(-np.log([0.8, 0.4, 0.7]).mean())
