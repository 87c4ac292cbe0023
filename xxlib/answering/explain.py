"""What a model looks at: reconstruction of hidden tokens, cross-attention, attribution.  Models in, arrays out."""

from dataclasses import replace

import numpy as np
import torch

from xxlib.diffraction.patterns import unpatchify

STEPS = 32  # of the path of integrated gradients


@torch.no_grad()
def reconstruct(model, batch, hidden):
    """The pattern (4250,) of a Batch of one sample as a model with a masked XRD head reconstructs it.

    hidden: (17,) bool, True = the model does not see this token.  What it makes of the others nothing has trained.
    Raises ValueError where the model was not pretrained to reconstruct.
    """
    if getattr(model, "masked_xrd", None) is None:
        raise ValueError(
            "there is no model here that was trained to reconstruct hidden tokens: pretrain one (objectives=('mxm',)) "
            "and release it with --reconstructing"
        )
    batch = replace(batch, masked=torch.as_tensor(np.asarray(hidden))[None])
    return unpatchify(model(*batch.inputs).reconstructed[0].numpy())


@torch.no_grad()
def cross_attention(model, batch):
    """How much each token of a Batch of one sample attends to each element: (1 + 17, 1 + E), rows sum to 1.

    First row: the CLS of the pattern, which the heads read; first column: the CLS of the composition.  Mean over layers
    and heads of the fusion.  Raises ValueError where the model has no fusion.
    """
    if getattr(model, "fusion", None) is None:
        raise ValueError("this model reads one modality: there is no cross-attention to look at")
    collected = []

    def collect(attention, inputs):
        x, memory, pad = inputs
        D, heads = x.shape[-1], attention.n_heads
        weight, bias = attention.qkv.weight, attention.qkv.bias
        q = torch.nn.functional.linear(x, weight[:D], bias[:D]).unflatten(-1, (heads, -1))  # (1, T, H, D / H)
        k = torch.nn.functional.linear(memory, weight[D : 2 * D], bias[D : 2 * D]).unflatten(-1, (heads, -1))
        scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5  # (1, H, T, 1 + E)
        collected.append(scores.masked_fill(pad[:, None, None], -torch.inf).softmax(-1).mean(1)[0])

    hooks = [layer.cross_attention.register_forward_pre_hook(collect) for layer in model.fusion.layers]
    try:
        composition, pad = model.composition_encoder(batch.element_ids, batch.fractions)
        x = model.xrd_encoder(seen_tokens(model, batch))
        model.fusion(x, composition, pad)  # all rows, of the last layer, too
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(collected).mean(0).numpy()


def seen_tokens(model, batch):
    """Tokens (B, L, P) with [MASK] where nothing was measured, if the model has one."""
    if model.mask is None or batch.masked is None:
        return batch.tokens
    return torch.where(batch.masked[..., None], model.mask, batch.tokens)


def attribution(model, batch, target, index=None):
    """What moves one output away from that for an empty pattern of no elements: (points (4250,), elements (E,), rest).

    Integrated gradients (Sundararajan et al., arXiv 1703.01365) along the straight path from a pattern of zeros (where
    nothing was measured, it stays [MASK]) and element vectors of zeros; they add up to the difference of the two
    outputs but for `rest`, the error of the path's sum.  index: of the class whose logit it is, where the target has
    classes.  In normalised units, or logits.
    """
    from captum.attr import IntegratedGradients

    masked = None if model.mask is None else batch.masked

    def output(vectors, tokens):
        n = len(tokens)
        element_ids, fractions = batch.element_ids.expand(n, -1), batch.fractions.expand(n, -1)
        hook = embedding.register_forward_hook(lambda *_: vectors)
        try:
            unseen = None if masked is None else masked.expand(n, -1)
            said = model(element_ids, fractions, tokens, unseen).predictions[target]
        finally:
            hook.remove()
        return said if index is None else said[:, index]

    embedding = model.composition_encoder.element_vectors
    inputs = (embedding(batch.element_ids).detach(), batch.tokens)
    baselines = tuple(torch.zeros_like(values) for values in inputs)
    (elements, points), rest = IntegratedGradients(output).attribute(
        inputs, baselines, n_steps=STEPS, return_convergence_delta=True
    )
    return unpatchify(points.detach()[0].numpy()), elements.detach()[0].sum(-1).numpy(), float(rest)
