"""What a network and known crystals say together."""

import shutil

import numpy as np
import pytest

from xxlib.answering.joint import FILE, SYSTEM_OF, Joint, by_network, read_joint, systems_of, write_joint
from xxlib.answering.predictor import CHECKPOINTS
from xxlib.candidates.known import KINDS
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.predict import Predictor
from xxlib.training.runs import CheckpointError

UNCERTAIN = Joint(0.0, 0.0, 20.0, {"space_group": 0.0, "crystal_system": 0.0})  # says that all classes are alike


def simulated(n=4000, seed=0):
    """Known crystals that explain two thirds of the samples; a network that knows the system of most."""
    random = np.random.default_rng(seed)
    true = random.integers(0, 230, n)
    known, none = np.zeros((n, 230)), random.choice([0.1, 0.9], n, p=[2 / 3, 1 / 3])
    found = np.where(random.random(n) < np.where(none < 0.5, 0.9, 0.1), true, random.integers(0, 230, n))
    known[np.arange(n), found] = 1 - none
    systems = np.full((n, 7), 0.05)
    said = np.where(random.random(n) < 0.7, SYSTEM_OF[true], random.integers(0, 7, n))
    systems[np.arange(n), said] = 0.7
    return known, none, systems, true


def test_a_network_is_one_distribution():
    systems = np.random.default_rng(0).dirichlet(np.ones(7), 5)
    groups = np.random.default_rng(1).dirichlet(np.ones(230), 5)
    for network in (by_network(systems), by_network(systems, groups)):
        assert np.allclose(network.sum(1), 1) and np.allclose(systems_of(network), systems)
    cubic, own = by_network(systems, groups)[:, 194:], groups[:, 194:]  # as the network's groups have it
    assert np.allclose(cubic / cubic.sum(1, keepdims=True), own / own.sum(1, keepdims=True), atol=1e-4)


def test_both_together_are_better_than_either():
    known, none, systems, true = simulated()
    network, half = by_network(systems), len(true) // 2
    joint = Joint.fit(known[:half], none[:half], network[:half], true[:half])
    groups = joint.space_groups(known[half:], none[half:], network[half:])
    assert np.allclose(groups.sum(1), 1)
    together = systems_of(groups).argmax(1) == SYSTEM_OF[true[half:]]
    alone = known[half:].argmax(1) == true[half:], systems[half:].argmax(1) == SYSTEM_OF[true[half:]]
    assert together.mean() > 0.05 + max(one.mean() for one in alone)
    for name, shares, right in (("space_group", groups, true[half:]),
                                ("crystal_system", systems_of(groups), SYSTEM_OF[true[half:]])):  # fmt: skip
        held = shares[np.arange(half), right] >= joint.thresholds[name]
        assert held.mean() == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("formula", ["NaCl", None])
def test_a_posterior_is_kept_beside_the_weights_and_used(tmp_path, formula):
    known, none, systems, true = simulated(400)
    joint = Joint.fit(known, none, by_network(systems), true)
    folder = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINTS / "mp36k-small", folder)
    (folder / FILE).unlink(missing_ok=True)
    assert read_joint(folder) == {}
    scan = CHECKPOINTS.parent / "examples" / "NaCl.uxd"
    alone = Predictor.load(folder).answer_or_refuse(formula, scan)
    kind = "scan" if formula else "scan, formula unknown"
    write_joint(folder, {name: joint if name == kind else UNCERTAIN for name in KINDS})
    assert read_joint(folder) == {name: joint if name == kind else UNCERTAIN for name in KINDS}
    both = Predictor.load(folder).answer_or_refuse(formula, scan)
    assert both.explanation.kind == kind and both.explanation.none < 0.5
    assert next(iter(both.probabilities["crystal_system"])) == "cubic"
    assert both.probabilities != alone.probabilities and both.values == alone.values
    assert sum(both.probabilities["crystal_system"].values()) == pytest.approx(1)
    assert set(both.probabilities["crystal_system"]) == set(CRYSTAL_SYSTEMS)


def test_a_damaged_posterior_is_refused(tmp_path):
    known, none, systems, true = simulated(400)
    write_joint(tmp_path, dict.fromkeys(KINDS, Joint.fit(known, none, by_network(systems), true)))
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace("none", "nine"))
    with pytest.raises(CheckpointError, match=FILE):
        read_joint(tmp_path)
