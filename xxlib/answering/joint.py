"""What a network and known crystals say together of the symmetry of a sample: one posterior of both.

Known crystals give probabilities of the space groups of candidates, and of "none of these"; a network gives one of
every class.  Among what is explained the network reweighs; where nothing is, it stands for itself: P(g) goes as
K(g) N(g)^a + e^c none N(g)^b / sum N^b.  The three numbers are fitted on `val`, and kept beside the weights.

known.json   for ideal patterns and for scans, for a known formula and without: the numbers, and from which probability
             a class belongs to a set
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from xxlib.answering.calibration import conformal_quantile
from xxlib.candidates.known import KINDS
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS, crystal_system
from xxlib.training.runs import UNREADABLE, CheckpointError, read_checked, write_checked

FILE = "known.json"
SYSTEM_OF = np.array([CRYSTAL_SYSTEMS.index(crystal_system(number)) for number in range(1, 231)])  # (230,)
LEAST = 1e-6  # probability that is taken for any class


@dataclass(frozen=True)
class Joint:
    """The weights of a network beside known crystals, and thresholds of sets."""

    among: float  # a: exponent of the network among what candidates explain
    alone: float  # b: where none of them is right
    none: float  # c: logarithm of what "none of these" is multiplied by
    thresholds: dict[str, float]  # of crystal_system and space_group: a class with this probability belongs to the set

    @classmethod
    def fit(cls, known, none, network, true):
        """From probabilities by known crystals (n, 230), of none of them (n,), by a network (n, 230), and the true
        space groups (n,), from 0."""

        def loss(x):
            return -_log_posterior(known, none, network, x)[np.arange(len(true)), true].mean()

        x = minimize(loss, np.array([0.5, 1.0, 0.0]), bounds=((0, 2), (0, 2), (-5, 5)), method="L-BFGS-B").x
        groups = np.exp(_log_posterior(known, none, network, x))
        doubts = {"space_group": 1 - groups[np.arange(len(true)), true]}
        doubts["crystal_system"] = 1 - systems_of(groups)[np.arange(len(true)), SYSTEM_OF[true]]
        thresholds = {name: 1 - conformal_quantile(values) for name, values in doubts.items()}
        return cls(*map(float, x), thresholds)

    def space_groups(self, known, none, network):
        """Probabilities (n, 230)."""
        return np.exp(_log_posterior(known, none, network, (self.among, self.alone, self.none)))


def _log_posterior(known, none, network, weights):
    among, alone, scale = weights
    log_network = np.log(np.maximum(network, LEAST))
    explained = np.log(np.maximum(known, 1e-30)) + among * log_network
    free = alone * log_network
    free = free - logsumexp(free, axis=1, keepdims=True) + scale + np.log(np.maximum(none, LEAST))[:, None]
    scores = np.logaddexp(explained, free)
    return scores - logsumexp(scores, axis=1, keepdims=True)


def systems_of(groups):
    """Probabilities (n, 7) of the crystal systems, of those (n, 230) of the space groups."""
    return groups @ np.eye(len(CRYSTAL_SYSTEMS))[SYSTEM_OF]


def by_network(systems, groups=None):
    """One distribution (n, 230) of what a network says of crystal systems (n, 7), and of space groups (n, 230) if so.

    Each system as it says; within a system its groups as it says, or all alike.
    """
    within = np.ones((len(systems), len(SYSTEM_OF))) if groups is None else groups + LEAST
    return within * (systems / systems_of(within))[:, SYSTEM_OF]


def by_known_crystals(explanation):
    """(1, 230) probabilities of an Explanation, and (1,) of none."""
    known = np.zeros((1, len(SYSTEM_OF)))
    for number, share in explanation.space_groups().items():
        known[0, number - 1] = share
    return known, np.array([explanation.none])


def write_joint(folder, joint):
    """known.json of a checkpoint folder; joint: a name of KINDS -> Joint."""
    values = {kind: asdict(one) for kind, one in joint.items()}
    write_checked(Path(folder) / FILE, (json.dumps(values, indent=1) + "\n").encode())


def read_joint(folder):
    """A name of KINDS -> Joint; empty where the folder has none.  Raises CheckpointError where the file is damaged."""
    path = Path(folder) / FILE
    if not path.exists():
        return {}
    try:
        values = json.loads(read_checked(path))
        joint = {kind: Joint(**values[kind]) for kind in KINDS}
        numbers = [x for one in joint.values() for x in (one.among, one.alone, one.none, *one.thresholds.values())]
        if not np.isfinite(np.array(numbers, float)).all() or any(len(one.thresholds) != 2 for one in joint.values()):
            raise ValueError("its numbers do not fit")
    except (*UNREADABLE, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged or of another version ({error}): fit it again") from error
    return joint
