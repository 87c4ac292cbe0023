"""What a step draws: its crystals, and for each the target, what is absent, effects and distortions.

All are functions of the seed and the step, so that a killed run goes on with exactly what it would have had.
"""

import functools

import numpy as np
import torch

from xxlib.crystals import distortions as structures
from xxlib.diffraction.effects import draw

# Behind (seed, step): each draw of a step has random numbers of its own; masks and targets have one number there.
EFFECTS_STREAM, ABSENT_STREAM, DISTORTIONS_STREAM = (0, 1), (0, 2), (0, 3)


def training_rows(rows, step, batch_size, seed):
    """The rows of one step: an endless run through `rows`, reshuffled each time round.

    Depends on its arguments alone, so that a killed run goes on with exactly the batches it would have had.
    """
    position = step * batch_size + np.arange(batch_size)
    epochs = position // len(rows)
    out = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        out[here] = rows[_order(len(rows), int(epoch), seed)[position[here] % len(rows)]]
    return out


@functools.lru_cache(maxsize=2)  # of the epoch at hand and the next; shuffling millions takes longer than a step
def _order(n, epoch, seed):
    return np.random.default_rng((seed, epoch)).permutation(n)


def drawn_targets(n_targets, step, batch_size, seed):
    """Index (B,) of the target each example of a step is trained on, uniform; a function of its arguments alone."""
    return torch.from_numpy(np.random.default_rng((seed, step, n_targets)).integers(n_targets, size=batch_size))


def drawn_absent(rate, given, step, seed):
    """What the examples of a step are not given, modality -> (B,) bool: each modality at this rate, never the last.

    given: modality -> (B,) bool, what they have.
    """
    *first, last = given
    share = torch.from_numpy(np.random.default_rng((seed, step, *ABSENT_STREAM)).random(len(given[last])))
    absent = {name: (k * rate <= share) & (share < (k + 1) * rate) for k, name in enumerate(first)}
    absent[last] = share >= 1 - rate
    others = sum(has.int() for has in given.values())
    return {name: which & (others - given[name].int() > 0) for name, which in absent.items()}


def drawn_effects(effects, step, batch_size, seed):
    """The Effects drawn for the examples of a step; a function of its arguments alone."""
    return draw(effects, batch_size, (seed, step, *EFFECTS_STREAM))


def drawn_distortions(distortions, step, batch_size, seed):
    """The Distortions drawn for the examples of a step; a function of its arguments alone."""
    return structures.draw(distortions, batch_size, (seed, step, *DISTORTIONS_STREAM))
