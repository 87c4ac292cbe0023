"""Losses: pure functions of tensors."""

import torch
import torch.nn.functional as F


def target_losses(predictions, targets, drawn=None):
    """Mean loss of each target over the examples that have its label: name -> scalar.

    predictions: name -> (B,) normalised values or (B, K) logits.  targets: name -> (B,) normalised values, NaN = no
    label, or (B,) class indices, -1 = no label.  Regressions: mean squared error; classifications: cross-entropy.
    drawn: (B,) index of the one target (in the order of `targets`) that each example is trained on; then each loss is a
    sum over its own examples divided by B, so that they add up to the mean over the batch.
    """
    losses = {}
    for index, (name, target) in enumerate(targets.items()):
        prediction = predictions[name]
        if prediction.ndim == 1:
            used = torch.isfinite(target)
            losses_each = (prediction - torch.where(used, target, 0)).square()  # (B,)
        else:
            used = target >= 0
            losses_each = F.cross_entropy(prediction, target.clamp_min(0), reduction="none")  # (B,)
        if drawn is not None:
            used = used & (drawn == index)
        count = used.sum().clamp_min(1) if drawn is None else len(target)
        losses[name] = torch.where(used, losses_each, 0).sum() / count
    return losses
