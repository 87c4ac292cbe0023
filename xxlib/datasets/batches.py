"""Batches: what one step of training sees, rendered from sticks at the moment it is needed."""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xxlib.inputs import patterns

CPU = torch.device("cpu")
GPU_MULTIPLE = 8  # of 1 + E on a GPU: aligned attention, and one compiled kernel for compositions of up to 7 elements


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
            element_ids=send(self.element_ids, device),
            fractions=send(self.fractions, device),
            tokens=send(self.tokens, device),
            targets={name: send(values, device) for name, values in self.targets.items()},
        )


def make_batch(dataset, rows, targets=(), normalisers=None, device=CPU):
    """Batch of some rows of a Dataset, on a device.

    A GPU is sent sticks, which are a tenth of the bytes, and renders the patterns; nothing here waits for it, so that
    the next batch is made while it computes.
    targets: Target objects; normalisers: name -> Normaliser for the regressions among them.
    """
    element_ids, fractions = padded_compositions(dataset, rows, 1 if device.type == "cpu" else GPU_MULTIPLE)
    return Batch(
        element_ids=send(torch.from_numpy(element_ids), device),
        fractions=send(torch.from_numpy(fractions), device),
        tokens=make_tokens(dataset, rows, device),
        targets={
            name: send(values, device) for name, values in make_targets(dataset, rows, targets, normalisers).items()
        },
    )


def make_tokens(dataset, rows, device=CPU):
    """Tokens (B, L, P) of some rows of a Dataset, rendered on a device."""
    two_theta, offsets = dataset.take("two_theta", rows)
    intensity, _ = dataset.take("intensity", rows)
    if device.type == "cpu":
        return torch.from_numpy(patterns.patchify(patterns.patterns(two_theta, intensity, offsets)))
    return patterns.patchify(render(*(send(torch.from_numpy(x), device) for x in (two_theta, intensity, offsets))))


def send(tensor, device):
    """A tensor of the CPU on a device, without waiting for the copy."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def render(two_theta, intensity, offsets, sigma=patterns.SIGMA, *, mixing=0.0, shift=0.0):
    """patterns.patterns() in torch: patterns (B, 4250) float32 on the device of the sticks, without waiting for it.

    two_theta, intensity: (p,); offsets: (B + 1,); sigma, mixing: numbers; shift: number or (B,).  Within 1e-3 of 100.
    """
    n_crystals, device = len(offsets) - 1, two_theta.device
    owner = torch.repeat_interleave(torch.arange(n_crystals, device=device), offsets.diff(), output_size=len(two_theta))
    moved = shift.double()[owner] if isinstance(shift, Tensor) else shift
    position = (two_theta.double() + moved - patterns.START) / patterns.STEP  # (p,) in grid points
    reach = math.ceil((patterns.VOIGT_REACH if mixing > 0 else patterns.REACH) * sigma / patterns.STEP)
    nearest = position.round()
    window = torch.arange(-reach, reach + 1, device=device)  # (W,)
    u = (window - (position - nearest).float()[:, None]) * (patterns.STEP / sigma)  # (p, W)
    profile = (1 - mixing) * torch.exp(-u * u / 2)
    if mixing > 0:
        lorentzian = 1 / (1 + u * u / patterns.CURVATURE) - patterns.TAIL
        profile += mixing / (1 - patterns.TAIL) * lorentzian.clamp(min=0)
    # Rows with a margin of `reach`: what falls outside the grid is written there, and cut off.
    row = patterns.N_POINTS + 2 * reach
    point = nearest.long().clamp(-reach - 1, patterns.N_POINTS + reach)[:, None] + window + reach
    index = owner[:, None] * row + point.clamp(0, row - 1)
    out = torch.zeros(n_crystals * row, device=device)
    out.index_add_(0, index.flatten(), (intensity.float()[:, None] * profile).flatten())
    out = out.view(n_crystals, row)[:, reach : reach + patterns.N_POINTS]
    return out * (100 / out.amax(1, keepdim=True))


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


def padded_compositions(dataset, rows, multiple=1):
    """element_ids (B, E) int64 and fractions (B, E) float32, padded with 0 to the longest of these rows.

    multiple: what 1 + E, the CLS counted, is to be a multiple of.
    """
    ids, offsets = dataset.take("element_ids", rows)
    values, _ = dataset.take("fractions", rows)
    lengths = np.diff(offsets)
    longest = -(-(1 + lengths.max()) // multiple) * multiple - 1
    filled = np.arange(longest) < lengths[:, None]
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
