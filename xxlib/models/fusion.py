"""Fusion: the tokens of several modalities become those of one.

Each takes Tokens by modality, and of each which samples have it (B,) bool, or None where all have all.  Beside the
fused Tokens it gives how much each modality, or expert, counts: (B, N), adding up to 1; None where none is weighed.

Shapes: B samples, M modalities, N of them or of experts, D width, T tokens of the query, S of the memory.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from xxlib.models.inputs import Tokens
from xxlib.models.layers import DecoderLayer, FeedForward


class CrossAttentionFusion(nn.Module):
    """Transformer decoder: the tokens of one modality ask, those of the others answer.  No final norm.

    What a sample does not have is in its tokens already: no elements, or hidden ones.
    """

    keeps_tokens = True  # those of the query come out

    def __init__(self, config, d_model, dropout):
        """config: a FusionConfig."""
        super().__init__()
        self.query, self.memory = config.query, config.memory
        self.layers = nn.ModuleList(
            DecoderLayer(d_model, config.n_heads, config.d_ff, dropout) for _ in range(config.n_layers)
        )
        if config.silent:
            for layer in self.layers:
                for last in (layer.self_attention.out, layer.cross_attention.out, layer.feed_forward[-1]):
                    nn.init.zeros_(last.weight)
                    nn.init.zeros_(last.bias)

    def forward(self, encoded, given=None, cls_only=False):
        """Tokens (B, 1 + T, D) of the query; cls_only: compute the CLS row alone, (B, 1, D)."""
        (x, pad), memory = encoded[self.query], side_by_side([encoded[name] for name in self.memory])
        *layers, last = self.layers
        for layer in layers:
            x = layer(x, *memory, pad)
        x = last(x, *memory, pad, cls_only)  # (B, 1 + T or 1, D)
        return Tokens(x, None if pad is None else pad[:, : x.shape[1]]), None


class MutualAttentionFusion(nn.Module):
    """Each modality asks the others, through a decoder of its own; what the summaries then say is joined."""

    keeps_tokens = False

    def __init__(self, config, d_model, dropout):
        super().__init__()
        names = (config.query, *config.memory)
        asking = {name: replace(config, query=name, memory=tuple(n for n in names if n != name)) for name in names}
        self.asking = nn.ModuleDict({n: CrossAttentionFusion(own, d_model, dropout) for n, own in asking.items()})
        self.join = nn.Linear(len(names) * d_model, d_model)

    def forward(self, encoded, given=None, cls_only=False):
        """Tokens (B, 1, D)."""
        cls = [decoder(encoded, cls_only=True)[0].x[:, 0] for decoder in self.asking.values()]  # M of (B, D)
        return Tokens(self.join(torch.cat(cls, dim=-1))[:, None]), None


class ConcatFusion(nn.Module):
    """The summaries of all modalities side by side through a network; one that a sample does not have is zeros."""

    keeps_tokens = False

    def __init__(self, config, d_model, dropout):
        super().__init__()
        self.names = (config.query, *config.memory)
        self.join = nn.Linear(len(self.names) * d_model, d_model)
        self.layers = nn.ModuleList(FeedForward(d_model, config.d_ff, dropout) for _ in range(config.n_layers))

    def forward(self, encoded, given=None, cls_only=False):
        """Tokens (B, 1, D)."""
        cls, _ = summaries(self.names, encoded, given)
        return Tokens(deepened(self.join(cls.flatten(1)), self.layers)[:, None]), None


class LateFusion(nn.Module):
    """The mean of what each modality that a sample has says by itself.

    Encoders end in a linear layer each, and heads are linear: the mean of the summaries gives the mean of the
    predictions, and of the logits, of heads that each modality had alone.
    """

    keeps_tokens = False

    def __init__(self, config, d_model, dropout):
        super().__init__()
        self.names = (config.query, *config.memory)

    def forward(self, encoded, given=None, cls_only=False):
        """Tokens (B, 1, D), and the weights (B, M)."""
        cls, there = summaries(self.names, encoded, given)
        weights = there / there.sum(1, keepdim=True).clamp_min(1)  # (B, M)
        return Tokens(weighed(cls, weights)), weights


class GatedFusion(nn.Module):
    """The summaries, each as much as a gate lets it, through a network.

    The gate sees all of them; softmax over those that a sample has.  After Arevalo et al., arXiv 1702.01992, whose gate
    is one of each component.  Before it has learned anything all count alike.
    """

    keeps_tokens = False

    def __init__(self, config, d_model, dropout):
        super().__init__()
        self.names = (config.query, *config.memory)
        self.gate = nn.Linear(len(self.names) * d_model, len(self.names))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self.layers = nn.ModuleList(FeedForward(d_model, config.d_ff, dropout) for _ in range(config.n_layers))

    def forward(self, encoded, given=None, cls_only=False):
        """Tokens (B, 1, D), and the weights (B, M) of the modalities."""
        cls, there = summaries(self.names, encoded, given)
        scores = self.gate(cls.flatten(1))  # (B, M)
        weights = scores.masked_fill(~there, torch.finfo(scores.dtype).min).softmax(-1)
        return Tokens(deepened(weighed(cls, weights), self.layers)), weights


class ExpertsFusion(nn.Module):
    """Networks as of concat, of which a gate chooses a few for each sample: noisy top-k gating (Shazeer et al.,
    arXiv 1701.06538, Eq. 3 to 5), its noise in training alone; losses.balance_loss keeps all of them in use.

    All are computed: at the size of a summary that takes less time than to sort the samples.  One expert is concat.
    """

    keeps_tokens = False

    def __init__(self, config, d_model, dropout):
        super().__init__()
        self.names, self.n_chosen = (config.query, *config.memory), config.n_chosen
        self.join = nn.Linear(len(self.names) * d_model, d_model)
        self.gate, self.noise = (nn.Linear(self.join.in_features, config.n_experts, bias=False) for _ in range(2))
        for linear in (self.gate, self.noise):  # as there: at first the noise alone chooses, and uses all alike
            nn.init.zeros_(linear.weight)
        self.experts = nn.ModuleList(
            nn.ModuleList(FeedForward(d_model, config.d_ff, dropout) for _ in range(config.n_layers))
            for _ in range(config.n_experts)
        )

    def forward(self, encoded, given=None, cls_only=False):
        """Tokens (B, 1, D), and the weights (B, N) of the experts: 0 of those that are not chosen."""
        cls = summaries(self.names, encoded, given)[0].flatten(1)  # (B, M D)
        scores = self.gate(cls)  # (B, N)
        if self.training:
            scores = scores + torch.randn_like(scores) * F.softplus(self.noise(cls))
        best, chosen = scores.topk(self.n_chosen)  # (B, K)
        shares = best.softmax(-1)  # (B, K)
        weights = shares.new_zeros(scores.shape).scatter(1, chosen, shares)
        x = self.join(cls)
        said = torch.stack([deepened(x, layers) for layers in self.experts], dim=1)  # (B, N, D)
        return Tokens(weighed(said, weights)), weights


FUSIONS = {
    "cross_attention": CrossAttentionFusion,
    "mutual_attention": MutualAttentionFusion,
    "concat": ConcatFusion,
    "late": LateFusion,
    "gated": GatedFusion,
    "experts": ExpertsFusion,
}


def summaries(names, encoded, given):
    """The CLS of some modalities (B, M, D), zeros where a sample does not have one; and which it has (B, M) bool."""
    cls = torch.stack([encoded[name].x[:, 0] for name in names], dim=1)  # (B, M, D)
    if given is None:
        return cls, cls.new_ones(cls.shape[:2], dtype=torch.bool)
    there = torch.stack([given[name] for name in names], dim=1)  # (B, M)
    return cls * there[..., None], there


def weighed(x, weights):
    """The sum (B, 1, D) of vectors (B, N, D) with their weights (B, N)."""
    return (x * weights[..., None]).sum(1, keepdim=True)


def deepened(x, layers):
    """x (..., D) through a network of residual layers."""
    for layer in layers:
        x = x + layer(F.relu(x))
    return x


def side_by_side(several):
    """The Tokens of several modalities, one after the other, as one (B, S, D) with its pad (B, S) or None."""
    if len(several) == 1:
        return several[0]
    pads = [pad if pad is not None else x.new_zeros(x.shape[:2], dtype=torch.bool) for x, pad in several]
    return Tokens(torch.cat([x for x, _ in several], dim=1), torch.cat(pads, dim=1))
