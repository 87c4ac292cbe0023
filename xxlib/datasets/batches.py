"""Batches: what one step of training sees, rendered from sticks at the moment it is needed."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xxlib.inputs import patterns


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some crystals, as the models take them."""

    element_ids: Tensor  # (B, E) int64, atomic number, 0 = padding
    fractions: Tensor  # (B, E) float32, sums to 1 over E
    tokens: Tensor  # (B, L, P) float32, intensity 0-100
    targets: dict[str, Tensor]  # name -> (B,): normalised float32, NaN = no label; or class int64, -1 = no label

    def to(self, device):
        """The same batch on another device."""
        return Batch(
            element_ids=self.element_ids.to(device, non_blocking=True),
            fractions=self.fractions.to(device, non_blocking=True),
            tokens=self.tokens.to(device, non_blocking=True),
            targets={name: values.to(device, non_blocking=True) for name, values in self.targets.items()},
        )


def make_batch(dataset, rows, targets=(), normalisers=None):
    """Batch of some rows of a Dataset.

    targets: Target objects; normalisers: name -> Normaliser for the regressions among them.
    """
    element_ids, fractions = padded_compositions(dataset, rows)
    two_theta, offsets = dataset.take("two_theta", rows)
    intensity, _ = dataset.take("intensity", rows)
    tokens = patterns.patchify(patterns.patterns(two_theta, intensity, offsets))
    return Batch(
        element_ids=torch.from_numpy(element_ids),
        fractions=torch.from_numpy(fractions),
        tokens=torch.from_numpy(tokens),
        targets=make_targets(dataset, rows, targets, normalisers),
    )


def make_targets(dataset, rows, targets, normalisers):
    """The labels of some rows as Batch.targets has them."""
    labels = {}
    for target in targets:
        values = dataset.labels[target.name][rows]
        if target.kind == "regression":
            labels[target.name] = torch.from_numpy(normalisers[target.name].normalise(values).astype(np.float32))
        else:
            labels[target.name] = torch.from_numpy(np.where(np.isfinite(values), values, -1).astype(np.int64))
    return labels


def padded_compositions(dataset, rows):
    """element_ids (B, E) int64 and fractions (B, E) float32, padded with 0 to the longest of these rows."""
    ids, offsets = dataset.take("element_ids", rows)
    values, _ = dataset.take("fractions", rows)
    lengths = np.diff(offsets)
    filled = np.arange(lengths.max()) < lengths[:, None]
    element_ids, fractions = np.zeros(filled.shape, np.int64), np.zeros(filled.shape, np.float32)
    element_ids[filled], fractions[filled] = ids, values
    return element_ids, fractions


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
