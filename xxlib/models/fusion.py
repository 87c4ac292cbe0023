"""Fusion: the tokens of several modalities become those of one.

Each takes Tokens by modality, and of each which samples have it (B,) bool, or None where all have all.
"""

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
        return Tokens(x, None if pad is None else pad[:, : x.shape[1]])


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
        cls = [encoded[name].x[:, 0] * (1 if given is None else given[name][:, None]) for name in self.names]
        x = self.join(torch.cat(cls, dim=-1))  # (B, D)
        for layer in self.layers:
            x = x + layer(F.relu(x))
        return Tokens(x[:, None])


FUSIONS = {"cross_attention": CrossAttentionFusion, "concat": ConcatFusion}


def side_by_side(several):
    """The Tokens of several modalities, one after the other, as one (B, S, D) with its pad (B, S) or None."""
    if len(several) == 1:
        return several[0]
    pads = [pad if pad is not None else x.new_zeros(x.shape[:2], dtype=torch.bool) for x, pad in several]
    return Tokens(torch.cat([x for x, _ in several], dim=1), torch.cat(pads, dim=1))
