"""A checkpoint of its own for each target, beside one for all."""

import pytest
from study import archive, per_task
from study.variants import variant

from xxlib.training.records import record


def test_a_gain_is_what_the_best_step_of_a_target_has_over_the_step_that_is_kept(tmp_path):
    """Expected by hand: E_f is best at the first evaluation, the crystal system at the step that is kept."""
    config = variant("small", "bimodal", "multi")
    curves = [
        record("val", metric, value, target=target, given=config.model.modalities) | {"step": step}
        for target, metric, values in (("e_form", "mae", (0.05, 0.07)), ("crystal_system", "accuracy", (0.6, 0.7)))
        for step, value in zip((400, 800), values)
    ]
    archive.save(archive.Record(
        name=config.name, config=config.as_dict(), parameters=1, samples=1, best_step=800, seconds=1.0, hardware="",
        commit="", metrics=[one for one in curves if one["step"] == 800], curves=curves), tmp_path)  # fmt: skip
    table = per_task.table(place=tmp_path).set_index("target")
    assert table[per_task.GAIN].to_dict() == pytest.approx({"e_form": 20.0, "crystal_system": 0.0})
    assert table["samples of its own"].tolist() == [400 * 128, 800 * 128]
    assert per_task.findings(tmp_path) == ["Checkpoints of one target: too few runs of several are finished."]
    assert per_task.table(place=tmp_path / "nothing").empty


def test_it_is_said_of_the_committed_runs():
    said = per_task.findings()
    assert said[0].startswith("e_form: a checkpoint of its own gives at most") and "meV/atom" in said[0]
