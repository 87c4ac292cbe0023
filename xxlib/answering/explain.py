"""What a model looks at: reconstruction of hidden tokens, cross-attention, attribution.  Models in, arrays out."""

import numpy as np
import torch

from xxlib.diffraction.patterns import unpatchify

STEPS = 32  # of the path of integrated gradients


@torch.no_grad()
def reconstruct(model, batch, hidden):
    """The pattern (4250,) of a Batch of one sample as a model of masked XRD modelling guesses it.

    hidden: (17,) bool, True = the model does not see this token.  What it makes of the others nothing has trained.
    Raises ValueError where the model was not pretrained to guess patterns.
    """
    if "xrd" not in getattr(model, "guess", {}):
        raise ValueError(
            "there is no model here that was trained to reconstruct hidden tokens: pretrain one (masked=('xrd',)) "
            "and release it with --reconstructing"
        )
    hidden = torch.as_tensor(np.asarray(hidden))[None]  # (1, L)
    inputs = batch.inputs | {"xrd": batch.inputs["xrd"]._replace(hidden=hidden)}
    tokens = model.guess["xrd"](model(inputs, batch.given, tokens=True).fused.x[:, 1:])  # (1, L, P)
    return unpatchify(tokens[0].numpy())


def cross_attention(model, batch):
    """How much each token of a Batch of one sample attends to each element: (1 + 17, 1 + E), rows sum to 1.

    First row: the CLS of the pattern, which the heads read; first column: the CLS of the composition.  Mean over layers
    and heads of the fusion.  Raises ValueError where the model has no such fusion.
    """
    return torch.stack(attention_of_layers(model, batch)).mean(0)[0].numpy()


def attention_similarities(model, batch):
    """How alike the atoms of a crystal attend to the words of its text, layer by layer: (layers, pairs of atoms).

    The cosine of the attention of every two atoms of a crystal of a Batch, CLS apart.  Raises as cross_attention.
    """
    atoms = ~batch.inputs["structure"].pad
    pairs = (atoms[:, :, None] & atoms[:, None, :]).triu(1)  # (B, T, T)
    similarities = []
    for weights in attention_of_layers(model, batch):
        directions = torch.nn.functional.normalize(weights[:, 1:], dim=-1)  # (B, T, 1 + S)
        similarities.append((directions @ directions.mT)[pairs])
    return torch.stack(similarities).numpy()


@torch.no_grad()
def attention_of_layers(model, batch):
    """Of each layer of a fusion how much each token of the query attends to each of the memory, mean over heads:
    (B, 1 + T, 1 + S), rows sum to 1.  Raises ValueError where the model has no such fusion."""
    fusion = getattr(model, "fusion", None)
    layers = [layer for layer in getattr(fusion, "layers", ()) if hasattr(layer, "cross_attention")]
    if not layers:
        raise ValueError("this model has no fusion by cross-attention: there is none to look at")
    weights = []

    def collect(attention, inputs):
        x, memory, pad = inputs
        D, heads = x.shape[-1], attention.n_heads
        weight, bias = attention.qkv.weight, attention.qkv.bias
        q = torch.nn.functional.linear(x, weight[:D], bias[:D]).unflatten(-1, (heads, -1))  # (B, T, H, D / H)
        k = torch.nn.functional.linear(memory, weight[D : 2 * D], bias[D : 2 * D]).unflatten(-1, (heads, -1))
        scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5  # (B, H, 1 + T, 1 + S)
        weights.append(scores.masked_fill(pad[:, None, None], -torch.inf).softmax(-1).mean(1))

    hooks = [layer.cross_attention.register_forward_pre_hook(collect) for layer in layers]
    try:
        model(batch.inputs, batch.given, tokens=True)  # all rows, of the last layer, too
    finally:
        for hook in hooks:
            hook.remove()
    return weights


def attribution(model, batch, target, index=None):
    """What moves one output away from that for an empty pattern of no elements: (points (4250,), elements (E,), rest).

    Integrated gradients (Sundararajan et al., arXiv 1703.01365) along the straight path from a pattern of zeros (where
    nothing was measured, it stays [MASK]) and element vectors of zeros; they add up to the difference of the two
    outputs but for `rest`, the error of the path's sum.  index: of the class whose logit it is, where the target has
    classes.  In normalised units, or logits.
    """
    try:
        from captum.attr import IntegratedGradients
    except ModuleNotFoundError:
        raise ValueError("what moved an answer is found by captum: pip install 'xxlib[explain]'") from None

    composition, pattern = batch.inputs["composition"], batch.inputs["xrd"]
    embedding = model.encoders["composition"].element_vectors

    def output(vectors, tokens):
        n = len(tokens)
        elements = composition._replace(
            element_ids=composition.element_ids.expand(n, -1), fractions=composition.fractions.expand(n, -1)
        )
        inputs = {"composition": elements, "xrd": pattern._replace(tokens=tokens)}
        hook = embedding.register_forward_hook(lambda *_: vectors)
        try:
            prediction = model(inputs, batch.given).predictions[target]
        finally:
            hook.remove()
        return prediction if index is None else prediction[:, index]

    start = (embedding(composition.element_ids).detach(), pattern.tokens)
    baselines = tuple(torch.zeros_like(values) for values in start)
    (elements, points), rest = IntegratedGradients(output).attribute(
        start, baselines, n_steps=STEPS, return_convergence_delta=True
    )
    return unpatchify(points.detach()[0].numpy()), elements.detach()[0].sum(-1).numpy(), float(rest)
