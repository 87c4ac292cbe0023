"""Losses: pure functions of tensors."""

import math

import torch
import torch.nn.functional as F


def robust_l1(prediction, log_std, target):
    """Negative log likelihood of a Laplace distribution (without its constant) with a predicted width, one an example.

    sqrt(2) |prediction - target| exp(-log_std) + log_std, as CrabNet (Wang et al., npj Comput. Mater. 7, 77, 2021) and
    Roost train; exp(log_std) is the standard deviation.  All (B,).
    """
    return math.sqrt(2) * (prediction - target).abs() * torch.exp(-log_std) + log_std


def target_losses(predictions, targets, drawn=None, log_std=None):
    """Mean loss of each target over the examples that have its label: name -> scalar.

    predictions: name -> (B,) normalised values or (B, K) logits.  targets: name -> (B,) normalised values, NaN = no
    label, or (B,) class indices, -1 = no label.  Regressions: mean squared error; classifications: cross-entropy.
    drawn: (B,) index of the one target (in the order of `targets`) that each example is trained on; then each loss is a
    sum over its own examples divided by B, so that they add up to the mean over the batch.
    log_std: name -> (B,) of the regressions that the model gives an uncertainty; their loss is robust_l1.
    """
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
        count = used.sum().clamp_min(1) if drawn is None else len(target)
        losses[name] = torch.where(used, losses_each, 0).sum() / count
    return losses
