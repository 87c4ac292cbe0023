"""Losses: pure functions of tensors.

Each divides by a count that may be given: that of a whole batch of which the tensors are a part.  The losses of all
parts then add up to the loss of the batch, and their gradients to its gradient, however the batch is divided.
"""

import math

import torch
import torch.nn.functional as F

# Of the similarities that one modality teaches another: of 127 others of a batch of mp36k it leaves 4 by composition
# and 28 by pattern, counted as the exponential of the entropy.
RELATION_TEMPERATURE = 0.05


def robust_l1(prediction, log_std, target):
    """Negative log likelihood of a Laplace distribution (without its constant) with a predicted width, one an example.

    sqrt(2) |prediction - target| exp(-log_std) + log_std, as CrabNet (Wang et al., npj Comput. Mater. 7, 77, 2021) and
    Roost train; exp(log_std) is the standard deviation.  All (B,).
    """
    return math.sqrt(2) * (prediction - target).abs() * torch.exp(-log_std) + log_std


def target_losses(predictions, targets, drawn=None, counts=None, log_std=None, absolute=False):
    """Mean loss of each target over the examples that have its label: name -> scalar.

    predictions: name -> (B,) normalised values or (B, K) logits.  targets: name -> (B,) normalised values, NaN = no
    label, or (B,) class indices, -1 = no label.  Regressions: mean squared error; classifications: cross-entropy.
    drawn: (B,) index of the one target (in the order of `targets`) that each example is trained on; then each loss is a
    sum over its own examples divided by B, so that they add up to the mean over the batch.
    log_std: name -> (B,) of the regressions that the model gives an uncertainty; their loss is robust_l1.
    absolute: the loss of the other regressions is the mean absolute error.
    counts: target_counts of the whole batch, where this is a part of it.
    """
    counts = counts or target_counts(targets, drawn)
    losses = {}
    for index, (name, target) in enumerate(targets.items()):
        prediction = predictions[name]
        if prediction.ndim == 1:
            used = torch.isfinite(target)
            label = torch.where(used, target, 0)
            if log_std and name in log_std:
                losses_each = robust_l1(prediction, log_std[name], label)  # (B,)
            else:
                losses_each = (prediction - label).abs() if absolute else (prediction - label).square()  # (B,)
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


def contrastive_loss(first, second, logit_scale, part=slice(None), paired=None):
    """Symmetric cross-entropy over the pairs of a batch: which row of one modality belongs to which of the other.

    first, second: (B, D), row i of both is one sample; compared by cosine similarity.  logit_scale: log(1 / tau).
    part: the rows whose terms are computed, against all others; the losses of all parts add up to that of the batch.
    paired: (B,) bool, the samples that have both modalities, where not all do; the others count for nothing.
    Equal embeddings give log B (Radford et al., arXiv 2103.00020).
    """
    first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    own = torch.arange(len(second), device=second.device)[part]
    to_second = logit_scale.exp() * first[part] @ second.T  # (b, B)
    to_first = logit_scale.exp() * second[part] @ first.T  # (b, B)
    if paired is None:
        terms = F.cross_entropy(to_second, own, reduction="sum") + F.cross_entropy(to_first, own, reduction="sum")
        return terms / (2 * len(second))
    mine = paired[part]
    terms = sum(
        F.cross_entropy(logits[mine][:, paired], paired.cumsum(0)[part][mine] - 1, reduction="sum")
        for logits in (to_second, to_first)
    )
    return terms / (2 * paired.sum().clamp_min(1))


def masked_xrd_loss(reconstructed, tokens, hidden, count=None):
    """Mean squared error over hidden tokens only (Eq. 3 of arXiv 2507.01054); 0 where none is hidden.

    reconstructed, tokens: (B, L, P), intensity 0-100.  hidden: (B, L) bool.
    count: number of hidden tokens of the whole batch, where this is a part of it.
    """
    squares = (reconstructed - tokens).square().mean(-1)  # (B, L)
    return torch.where(hidden, squares, 0).sum() / (hidden.sum().clamp_min(1) if count is None else count)


def masked_element_loss(logits, element_ids, hidden, count=None):
    """Mean cross-entropy over hidden elements only; 0 where none is hidden.

    logits: (B, E, 119).  element_ids: (B, E).  hidden: (B, E) bool.  count: as in masked_xrd_loss.
    """
    losses = F.cross_entropy(logits.flatten(0, 1), element_ids.flatten(), reduction="none").view(hidden.shape)  # (B, E)
    return torch.where(hidden, losses, 0).sum() / (hidden.sum().clamp_min(1) if count is None else count)


def relational_loss(learned, measured, part=slice(None), paired=None):
    """How far the similarities of learned vectors are from those that were measured in another modality: 0 where equal.

    Of each sample, the divergence (Kullback-Leibler) between softmaxes over the cosines with all others of the batch,
    as in MMFRL (Zhou et al., arXiv 2410.12128): no pair is right or wrong, some are more alike than others.
    learned: (B, D), measured: (B, V).  part, paired: as in contrastive_loss.
    """
    paired = torch.ones(len(learned), dtype=torch.bool, device=learned.device) if paired is None else paired
    everyone = torch.arange(len(learned), device=learned.device)
    others = paired & (everyone[part, None] != everyone)  # (b, B)
    likely = []
    for vectors in (learned, measured):
        vectors = F.normalize(vectors, dim=-1)
        cosines = vectors[part] @ vectors.T / RELATION_TEMPERATURE  # (b, B)
        likely.append(cosines.masked_fill(~others, torch.finfo(cosines.dtype).min).log_softmax(-1))
    divergence = F.kl_div(*likely, reduction="none", log_target=True).sum(-1)  # (b,)
    return divergence[paired[part]].sum() / paired.sum().clamp_min(1)


def taught_loss(own, taught, count=None):
    """How far the vectors of a student are from those that its teacher has: the mean square of what they differ by.

    own, taught: (B, D), NaN of samples that the teacher does not read, which count for nothing.
    count: number of the others of the whole batch, where this is a part of it.
    """
    read = taught.isfinite().all(-1)  # (B,)
    squares = (own - torch.where(read[:, None], taught, 0)).square().mean(-1)  # (B,)
    return torch.where(read, squares, 0).sum() / (read.sum().clamp_min(1) if count is None else count)


def balance_loss(weights, used=None):
    """The squared coefficient of variation of how much a batch uses each expert, 0 where it uses all alike.

    The loss of importance of Shazeer et al., arXiv 1701.06538, Eq. 6 and 7.  weights: (B, N), rows add up to 1.
    used: (N,), the sum of the weights of the whole batch, where this is a part of it.
    """
    own = weights.sum(0)  # (N,)
    used = own.detach() if used is None else used
    # The parts of a square: its value is shared out, and its gradient is that of the square.
    squares = (2 * own - own.detach()) @ used / used.sum().square()
    return len(used) * squares - own.detach().sum() / used.sum()
