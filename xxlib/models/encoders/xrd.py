"""A powder pattern -> tokens: the paper's transformer."""

import torch
from torch import nn

from xxlib.models.inputs import Tokens
from xxlib.models.layers import EncoderLayer

N_TOKENS, POINTS_PER_TOKEN = 17, 250
INTENSITY_SCALE = 10.0  # of 0-100; the root mean square of a pattern is 8, so that a token enters with unit size


class XRDEncoder(nn.Module):
    """A transformer over the tokens of a pattern, with a CLS in front and learned positions."""

    masks_what_is_absent = True

    def __init__(self, config):
        """config: a ModelConfig."""
        super().__init__()
        sizes = config.encoders["xrd"]
        D = sizes.d_model
        self.embed = nn.Linear(POINTS_PER_TOKEN, D)
        self.cls = nn.Parameter(torch.randn(D))
        self.positions = nn.Parameter(torch.randn(1 + N_TOKENS, D))
        self.layers = nn.ModuleList(
            EncoderLayer(D, sizes.n_heads, sizes.d_ff, config.dropout) for _ in range(sizes.n_layers)
        )
        self.project = nn.Linear(D, config.d_fused)
        self.register_parameter("mask", None)

    def learn_mask(self):
        """Have a [MASK] that stands where a token is hidden: intensity 0-100, as a token."""
        self.mask = nn.Parameter(torch.randn(POINTS_PER_TOKEN))

    def forward(self, pattern, cls_only=False):
        """Tokens (B, 1 + L, d_fused) of a Pattern; of the CLS alone, (B, 1, d_fused), where cls_only.

        Without a [MASK] a token that was not measured is what it holds: zeros.
        """
        x = self.embedded(pattern) + self.positions  # (B, 1 + L, D)
        *layers, last = self.layers
        for layer in layers:
            x = layer(x)
        return Tokens(self.project(last(x, cls_only=cls_only)))  # (B, 1 + L or 1, d_fused)

    def embedded(self, pattern):
        """CLS and tokens (B, 1 + L, D) of a Pattern, without positions."""
        tokens = pattern.tokens
        if pattern.hidden is not None and self.mask is not None:
            tokens = torch.where(pattern.hidden[..., None], self.mask, tokens)  # (B, L, P)
        x = self.embed(tokens / INTENSITY_SCALE)  # (B, L, D)
        return torch.cat([self.cls.expand(len(x), 1, -1), x], dim=1)
