"""What known crystals, a network and the lattice of the lines say together."""

import shutil

import numpy as np
import pytest

from xxlib.answering.joint import (
    FILE,
    SYSTEM_OF,
    Joint,
    by_lattices,
    by_network,
    read_joint,
    systems_of,
    write_joint,
)
from xxlib.answering.predictor import CHECKPOINTS, DEFAULT
from xxlib.candidates.cells import LATTICES, lattices_of
from xxlib.candidates.known import KINDS
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.predict import Predictor
from xxlib.training.runs import CheckpointError

UNCERTAIN = Joint(
    (0.0, 0.0), (0.0, 0.0), 20.0, {"space_group": 0.0, "crystal_system": 0.0}
)  # says that all classes are alike


def simulated(n=4000, seed=0):
    """Known crystals that explain two thirds of the samples; a network that knows the system of most; lines that tell
    the lattice of most."""
    random = np.random.default_rng(seed)
    true = random.integers(0, 230, n)
    known, none = np.zeros((n, 230)), random.choice([0.1, 0.9], n, p=[2 / 3, 1 / 3])
    found = np.where(random.random(n) < np.where(none < 0.5, 0.9, 0.1), true, random.integers(0, 230, n))
    known[np.arange(n), found] = 1 - none
    systems = np.full((n, 7), 0.05)
    said = np.where(random.random(n) < 0.7, SYSTEM_OF[true], random.integers(0, 7, n))
    systems[np.arange(n), said] = 0.7
    lattices, of_true = np.full((n, 14), 0.02), lattices_of()[1:][true]
    said = np.where(random.random(n) < 0.8, of_true, random.integers(0, 14, n))
    lattices[np.arange(n), said] = 0.74
    return known, none, np.stack([by_network(systems), by_lattices(lattices)], axis=1), true


def test_a_network_is_one_distribution():
    systems = np.random.default_rng(0).dirichlet(np.ones(7), 5)
    groups = np.random.default_rng(1).dirichlet(np.ones(230), 5)
    for network in (by_network(systems), by_network(systems, groups)):
        assert np.allclose(network.sum(1), 1) and np.allclose(systems_of(network), systems)
    cubic, own = by_network(systems, groups)[:, 194:], groups[:, 194:]  # as the network's groups have it
    assert np.allclose(cubic / cubic.sum(1, keepdims=True), own / own.sum(1, keepdims=True), atol=1e-4)


def test_all_together_are_better_than_any():
    known, none, others, true = simulated()
    half = len(true) // 2
    joint = Joint.fit(known[:half], none[:half], others[:half], true[:half])
    groups = joint.space_groups(known[half:], none[half:], others[half:])
    assert np.allclose(groups.sum(1), 1)
    system = SYSTEM_OF[true[half:]]
    right = {"all": systems_of(groups).argmax(1) == system, "known": systems_of(known[half:]).argmax(1) == system}
    for name, one in (("network", 0), ("lines", 1)):  # without it
        part = others.copy()
        part[:, one] = 1.0
        without = Joint.fit(known[:half], none[:half], part[:half], true[:half])
        groups_without = without.space_groups(known[half:], none[half:], part[half:])
        right[name] = systems_of(groups_without).argmax(1) == system
        assert right["all"].mean() > 0.01 + right[name].mean() > 0.02 + right["known"].mean()
    for name, shares, true_of in (("space_group", groups, true[half:]),
                                  ("crystal_system", systems_of(groups), SYSTEM_OF[true[half:]])):  # fmt: skip
        held = shares[np.arange(half), true_of] >= joint.thresholds[name]
        assert held.mean() == pytest.approx(0.9, abs=0.03)


def test_lattices_are_likelihoods_of_their_space_groups():
    shares = np.random.default_rng(0).dirichlet(np.ones(14), 3)
    groups = by_lattices(shares)
    assert groups.shape == (3, 230) and np.allclose(groups[:, 224], shares[:, LATTICES.index("cF")])
    assert np.allclose(groups[:, 163], shares[:, LATTICES.index("hP")]) and np.allclose(groups[:, 165], shares[:, 3])


@pytest.mark.parametrize("formula", ["NaCl", None])
def test_a_posterior_is_kept_beside_the_weights_and_used(tmp_path, formula):
    joint = Joint.fit(*simulated(400))
    folder = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINTS / DEFAULT, folder)
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
    write_joint(tmp_path, dict.fromkeys(KINDS, Joint.fit(*simulated(400))))
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace("none", "nine"))
    with pytest.raises(CheckpointError, match=FILE):
        read_joint(tmp_path)
