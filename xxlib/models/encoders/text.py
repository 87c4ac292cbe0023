"""A description in words -> tokens: a small transformer."""

import torch
import torch.nn.functional as F
from torch import nn

from xxlib.models.inputs import Tokens
from xxlib.models.layers import EncoderLayer

N_WORDS = 1320  # of xxlib.crystals.descriptions.WORDS, padding among them
MAX_WORDS = 128  # of a text: 99 of 100 descriptions of mp36k are shorter


class TextEncoder(nn.Module):
    """A transformer over the words of a text, with a CLS in front and learned positions."""

    masks_what_is_absent = False  # it is padding

    def __init__(self, config):
        """config: a ModelConfig."""
        super().__init__()
        sizes = config.encoders["text"]
        D = sizes.d_model
        self.embed = nn.Embedding(N_WORDS, D, padding_idx=0)
        self.cls = nn.Parameter(torch.randn(D))
        self.positions = nn.Parameter(torch.randn(1 + MAX_WORDS, D))
        self.layers = nn.ModuleList(
            EncoderLayer(D, sizes.n_heads, sizes.d_ff, config.dropout) for _ in range(sizes.n_layers)
        )
        self.project = nn.Linear(D, config.d_fused)

    def forward(self, text, cls_only=False):
        """Tokens (B, 1 + S, d_fused) of a Text; of the CLS alone, (B, 1, d_fused), where cls_only."""
        x = self.embed(text.word_ids)  # (B, S, D)
        x = torch.cat([self.cls.expand(len(x), 1, -1), x], dim=1)  # (B, 1 + S, D)
        x, pad = x + self.positions[: x.shape[1]], F.pad(text.pad, (1, 0), value=False)  # (B, 1 + S)
        *layers, last = self.layers
        for layer in layers:
            x = layer(x, pad)
        x = self.project(last(x, pad, cls_only))  # (B, 1 + S or 1, d_fused)
        return Tokens(x, pad[:, : x.shape[1]])
