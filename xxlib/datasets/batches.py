"""Batches: what one step of training sees, rendered from sticks at the moment it is needed."""

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from xxlib.diffraction import patterns
from xxlib.diffraction.effects import augmented, draw

# Behind (seed, step): each draw of a step has random numbers of its own; masks and targets have one number there.
EFFECTS_STREAM, ABSENT_STREAM = (0, 1), (0, 2)

CPU = torch.device("cpu")
GPU_MULTIPLE = 8  # of 1 + E on a GPU: aligned attention, and one compiled kernel for compositions of up to 7 elements


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some crystals, as the models take them.

    A composition that is not given is all padding, a pattern that is not given all masked: without().
    """

    element_ids: Tensor  # (B, E) int64, atomic number, 0 = padding
    fractions: Tensor  # (B, E) float32, sums to 1 over E
    tokens: Tensor  # (B, L, P) float32, intensity 0-100
    targets: dict[str, Tensor]  # name -> (B,): normalised float32, NaN = no label; or class int64, -1 = no label
    masked: Tensor | None = None  # (B, L) bool, True = nothing of this token was measured; None: all are known

    @property
    def inputs(self):
        """What a model's forward takes."""
        inputs = (self.element_ids, self.fractions, self.tokens)
        return inputs if self.masked is None else (*inputs, self.masked)

    def without(self, absent):
        """The same batch where `absent` (B, 2) bool, composition and xrd, says what is not given."""
        composition, xrd = send(absent, self.tokens.device).T[..., None]  # (B, 1) each
        masked = torch.zeros_like(self.tokens[..., 0], dtype=torch.bool) if self.masked is None else self.masked
        return replace(
            self,
            element_ids=self.element_ids.masked_fill(composition, 0),
            fractions=self.fractions.masked_fill(composition, 0),
            masked=masked | xrd,
        )


def make_batch(dataset, rows, targets=(), normalisers=None, drawn=None, device=CPU, pattern_rows=None):
    """Batch of some rows of a Dataset, on a device.

    A GPU is sent sticks, which are a tenth of the bytes, and renders the patterns; nothing here waits for it, so that
    the next batch is made while it computes.
    targets: Target objects; normalisers: name -> Normaliser for the regressions among them.
    drawn: effects drawn for these crystals (xxlib.diffraction.effects); the ideal patterns where None.
    pattern_rows: of each row the one whose pattern it is given, where that is not its own.
    """
    element_ids, fractions = padded_compositions(dataset, rows, 1 if device.type == "cpu" else GPU_MULTIPLE)
    labels = make_targets(dataset, rows, targets, normalisers)
    tokens, masked = make_tokens(dataset, rows if pattern_rows is None else pattern_rows, drawn, device)
    return Batch(
        element_ids=send(torch.from_numpy(element_ids), device),
        fractions=send(torch.from_numpy(fractions), device),
        tokens=tokens,
        targets={name: send(values, device) for name, values in labels.items()},
        masked=masked,
    )


def send(tensor, device):
    """A tensor of the CPU on a device, without waiting for the copy."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def make_tokens(dataset, rows, drawn=None, device=CPU):
    """Tokens (B, L, P) of some rows on a device, and which (B, L) were not measured under drawn effects, or None.

    Effects are computed on the CPU; without them a GPU renders the patterns.
    """
    two_theta, offsets = dataset.take("two_theta", rows)
    intensity, _ = dataset.take("intensity", rows)
    if drawn is None and device.type != "cpu":
        sticks = (send(torch.from_numpy(x), device) for x in (two_theta, intensity, offsets))
        return patterns.patchify(render_torch(*sticks)), None
    if drawn is None:
        return torch.from_numpy(patterns.patchify(patterns.render(two_theta, intensity, offsets))), None
    hkl = lattices = None
    if dataset.has_hkl:
        hkl = np.stack([dataset.take(index, rows)[0] for index in "hkl"], axis=1)
        lattices = dataset.take("lattice", rows)[0].reshape(-1, 6)
    signals, masked = augmented(two_theta, intensity, offsets, drawn, hkl, lattices)
    return send(torch.from_numpy(patterns.patchify(signals)), device), send(torch.from_numpy(masked), device)


def render_torch(two_theta, intensity, offsets, sigma=patterns.SIGMA, *, mixing=0.0, shift=0.0):
    """patterns.render() in torch: patterns (B, 4250) float32 on the device of the sticks, without waiting for it.

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


def exchanged_rows(rows):
    """For each of some rows another of them, half of them further on: pairs that do not belong together."""
    return np.roll(rows, len(rows) // 2)


def drawn_targets(n_targets, step, batch_size, seed):
    """Index (B,) of the target each example of a step is trained on, uniform; a function of its arguments alone."""
    return torch.from_numpy(np.random.default_rng((seed, step, n_targets)).integers(n_targets, size=batch_size))


def drawn_absent(rate, step, batch_size, seed):
    """What is not given (B, 2) of the examples of a step, composition and xrd: each at this rate, never both."""
    share = np.random.default_rng((seed, step, *ABSENT_STREAM)).random(batch_size)
    return torch.from_numpy(np.stack([share < rate, share >= 1 - rate], axis=1))


def drawn_effects(effects, step, batch_size, seed):
    """The Effects drawn for the examples of a step; a function of its arguments alone."""
    return draw(effects, batch_size, (seed, step, *EFFECTS_STREAM))
