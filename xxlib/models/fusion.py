"""Fusion: the pattern asks, the composition answers."""

from torch import nn

from xxlib.models.layers import DecoderLayer


class CrossAttentionFusion(nn.Module):
    """Transformer decoder: queries are the XRD tokens, keys and values the elements.  No final norm."""

    def __init__(self, config):
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(config.d_fused, config.fusion_heads, config.fusion_d_ff, config.dropout)
            for _ in range(config.fusion_layers)
        )

    def forward(self, xrd, composition, pad, cls_only=False):
        """xrd: (B, 1 + L, D).  composition: (B, 1 + E, D) with pad (B, 1 + E), True = ignore.

        cls_only: compute and return the CLS row alone, (B, 1, D).
        """
        *layers, last = self.layers
        for layer in layers:
            xrd = layer(xrd, composition, pad)
        return last(xrd, composition, pad, cls_only)  # (B, 1 + L or 1, D)
