"""What known crystals, a network and the lattice of the lines say together of the symmetry of a sample: one posterior.

Known crystals give probabilities of the space groups of candidates, and of "none of these"; a network N gives one of
every class, and the cells that explain the lines, with no crystal known, one of every Bravais lattice, L.  Among what
is explained these two reweigh; where nothing is, they stand for themselves: P(g) goes as
K(g) N(g)^a L(g)^a' + e^c none N(g)^b L(g)^b' / sum N^b L^b'.  The five numbers are fitted on `val`, and kept beside
the weights.

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
from xxlib.candidates.cells import lattices_of
from xxlib.candidates.known import KINDS
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS, crystal_system
from xxlib.training.runs import UNREADABLE, CheckpointError, read_checked, write_checked

FILE = "known.json"
SYSTEM_OF = np.array([CRYSTAL_SYSTEMS.index(crystal_system(number)) for number in range(1, 231)])  # (230,)
LEAST = 1e-6  # probability that is taken for any class


@dataclass(frozen=True)
class Joint:
    """The weights of a network and of lattices beside known crystals, and thresholds of sets."""

    among: tuple[float, float]  # a: exponents of the network and of lattices among what candidates explain
    alone: tuple[float, float]  # b: where none of them is right
    none: float  # c: logarithm of what "none of these" is multiplied by
    thresholds: dict[str, float]  # of crystal_system and space_group: a class with this probability belongs to the set

    @classmethod
    def fit(cls, known, none, others, true):
        """From probabilities by known crystals (n, 230), of none of them (n,), by a network and by lattices
        (n, 2, 230), and the true space groups (n,), from 0."""

        def loss(x):
            return -_log_posterior(known, none, others, x[:2], x[2:4], x[4])[np.arange(len(true)), true].mean()

        start, bounds = np.array([0.5, 0.5, 1.0, 1.0, 0.0]), [(0, 2)] * 4 + [(-5, 5)]
        x = minimize(loss, start, bounds=bounds, method="L-BFGS-B").x.tolist()
        groups = np.exp(_log_posterior(known, none, others, x[:2], x[2:4], x[4]))
        doubts = {"space_group": 1 - groups[np.arange(len(true)), true]}
        doubts["crystal_system"] = 1 - systems_of(groups)[np.arange(len(true)), SYSTEM_OF[true]]
        thresholds = {name: 1 - conformal_quantile(values) for name, values in doubts.items()}
        return cls(tuple(x[:2]), tuple(x[2:4]), x[4], thresholds)

    def space_groups(self, known, none, others):
        """Probabilities (n, 230)."""
        return np.exp(_log_posterior(known, none, others, self.among, self.alone, self.none))


def _log_posterior(known, none, others, among, alone, scale):
    log_others = np.log(np.maximum(others, LEAST))
    reweighed, free = (np.einsum("v,nvg->ng", np.asarray(weights), log_others) for weights in (among, alone))
    explained = np.log(np.maximum(known, 1e-30)) + reweighed
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


def by_lattices(probabilities):
    """Of probabilities of Bravais lattices (n, 14) that of the lattice of each space group (n, 230)."""
    return np.asarray(probabilities)[:, lattices_of()[1:]]


def by_known_crystals(explanation):
    """(1, 230) probabilities of an Explanation, and (1,) of none."""
    known = np.zeros((1, len(SYSTEM_OF)))
    for number, share in explanation.space_groups().items():
        known[0, number - 1] = share
    return known, np.array([explanation.none])


def by_lines(explanation):
    """by_lattices (1, 230) of an Explanation; ones where its lines were not asked, or have no cell."""
    if explanation.indexed is None:
        return np.ones((1, len(SYSTEM_OF)))
    return by_lattices(explanation.indexed.probabilities[None])


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
        pairs = ("among", "alone")
        joint = {kind: Joint(**values[kind] | {name: tuple(values[kind][name]) for name in pairs}) for kind in KINDS}
        numbers = [(*one.among, *one.alone, one.none, *one.thresholds.values()) for one in joint.values()]
        if {len(of_one) for of_one in numbers} != {7} or not np.isfinite(np.array(numbers, float)).all():
            raise ValueError("its numbers do not fit")
    except (*UNREADABLE, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged or of another version ({error}): fit it again") from error
    return joint
