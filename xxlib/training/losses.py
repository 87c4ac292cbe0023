"""Losses: pure functions of tensors.

Each divides by a count that may be given: that of a whole batch of which the tensors are a part.  The losses of all
parts then add up to the loss of the batch, and their gradients to its gradient, however the batch is divided.
"""

import math

import torch
import torch.nn.functional as F


def robust_l1(prediction, log_std, target):
    """Negative log likelihood of a Laplace distribution (without its constant) with a predicted width, one an example.

    sqrt(2) |prediction - target| exp(-log_std) + log_std, as CrabNet (Wang et al., npj Comput. Mater. 7, 77, 2021) and
    Roost train; exp(log_std) is the standard deviation.  All (B,).
    """
    return math.sqrt(2) * (prediction - target).abs() * torch.exp(-log_std) + log_std


def target_losses(predictions, targets, drawn=None, counts=None, log_std=None):
    """Mean loss of each target over the examples that have its label: name -> scalar.

    predictions: name -> (B,) normalised values or (B, K) logits.  targets: name -> (B,) normalised values, NaN = no
    label, or (B,) class indices, -1 = no label.  Regressions: mean squared error; classifications: cross-entropy.
    drawn: (B,) index of the one target (in the order of `targets`) that each example is trained on; then each loss is a
    sum over its own examples divided by B, so that they add up to the mean over the batch.
    log_std: name -> (B,) of the regressions that the model gives an uncertainty; their loss is robust_l1.
    counts: target_counts of the whole batch, where this is a part of it.
    """
    counts = counts or target_counts(targets, drawn)
    losses = {}
    for index, (name, target) in enumerate(targets.items()):
        prediction = predictions[name]
        if prediction.ndim == 1:
            used = torch.isfinite(target)
            known = torch.where(used, target, 0)
            if log_std and name in log_std:
                losses_each = robust_l1(prediction, log_std[name], known)  # (B,)
            else:
                losses_each = (prediction - known).square()  # (B,)
        else:
            used = target >= 0
            losses_each = F.cross_entropy(prediction, target.clamp_min(0), reduction="none")  # (B,)
        if drawn is not None:
            used = used & (drawn == index)
        losses[name] = torch.where(used, losses_each, 0).sum() / counts[name]
    return losses


def target_counts(targets, drawn=None):
    """What target_losses divides by: name -> number of examples that have the label; of all where targets are drawn."""
    if drawn is not None:
        return dict.fromkeys(targets, len(drawn))
    used = {name: t.isfinite() if t.is_floating_point() else t >= 0 for name, t in targets.items()}
    return {name: labelled.sum().clamp_min(1) for name, labelled in used.items()}


def contrastive_loss(composition, xrd, logit_scale, part=slice(None)):
    """Symmetric cross-entropy over the pairs of a batch: which pattern belongs to which composition, and back.

    composition, xrd: (B, D), row i of both is one crystal; compared by cosine similarity.  logit_scale: log(1 / tau).
    part: the rows whose terms are computed, against all others; the losses of all parts add up to that of the batch.
    Equal embeddings give log B (Radford et al., arXiv 2103.00020).
    """
    composition, xrd = F.normalize(composition, dim=-1), F.normalize(xrd, dim=-1)
    own = torch.arange(len(xrd), device=xrd.device)[part]
    to_xrd = logit_scale.exp() * composition[part] @ xrd.T  # (b, B)
    to_composition = logit_scale.exp() * xrd[part] @ composition.T  # (b, B)
    terms = F.cross_entropy(to_xrd, own, reduction="sum") + F.cross_entropy(to_composition, own, reduction="sum")
    return terms / (2 * len(xrd))


def masked_xrd_loss(reconstructed, tokens, masked, count=None):
    """Mean squared error over hidden tokens only (Eq. 3 of arXiv 2507.01054); 0 where none is hidden.

    reconstructed, tokens: (B, L, P), intensity 0-100.  masked: (B, L), True = hidden.
    count: number of hidden tokens of the whole batch, where this is a part of it.
    """
    squares = (reconstructed - tokens).square().mean(-1)  # (B, L)
    return torch.where(masked, squares, 0).sum() / (masked.sum().clamp_min(1) if count is None else count)
