"""A powder pattern -> tokens: convolutions in front of a transformer."""

import math

import torch
from torch import nn

from xxlib.models.encoders.xrd import N_TOKENS, POINTS_PER_TOKEN, XRDEncoder
from xxlib.models.layers import Dropout

N_POINTS = N_TOKENS * POINTS_PER_TOKEN
START, STEP = 5.0, 0.02  # degree, of the grid
CHANNELS = 64
N_BLOCKS = 2
LEAST = 1e-4  # of the strongest line: below it the square root becomes linear, so that zero has a gradient


class ConvolutionalEncoder(XRDEncoder):
    """As XRDEncoder, but a token enters as what convolutions have read of it and of its neighbourhood.

    The CLS enters with a linear summary of all of them, in their order.  A hidden token is zeros for the convolutions,
    and [MASK] for what follows.
    """

    def __init__(self, config):
        """config: a ModelConfig."""
        super().__init__(config)
        D = config.encoders["xrd"].d_model
        self.embed = Convolutions(D, config.dropout)
        self.summary = nn.Linear(N_TOKENS * D, D)

    def learn_mask(self):
        """Have a [MASK] that stands where a token is hidden: (D,), as convolutions give it."""
        self.mask = nn.Parameter(torch.randn(self.cls.shape))

    def embedded(self, pattern):
        """CLS and tokens (B, 1 + L, D) of a Pattern, without positions."""
        tokens, hidden = pattern.tokens, pattern.hidden
        if hidden is not None and self.mask is not None:
            x = self.embed(tokens.masked_fill(hidden[..., None], 0))
            x = torch.where(hidden[..., None], self.mask, x)  # (B, L, D)
        else:
            x = self.embed(tokens)  # (B, L, D)
        cls = self.cls + self.summary(x.flatten(1))  # (B, D)
        return torch.cat([cls[:, None], x], dim=1)


class Convolutions(nn.Module):
    """Three strided convolutions of 2 degrees first, residual blocks, and one column a token.

    They see the square root of the intensity, in which weak lines count, the intensity, and sin^2(theta), in which the
    lines of a lattice lie evenly.  Kernels and strides follow Salgado et al., npj Comput. Mater. 9, 214 (2023): strides
    in place of pools, no batch norm.  An image of one row with channels last, which is twice as fast on a CPU.
    """

    def __init__(self, d_out, dropout):
        super().__init__()
        C = CHANNELS
        self.strided = nn.Sequential(
            _convolution(3, C, 100, stride=5, padding=48),  # (B, C, 1, 850)
            nn.GELU(),
            _convolution(C, C, 50, stride=5, padding=23),  # (B, C, 1, 170)
            nn.GELU(),
            Dropout(dropout),
            _convolution(C, 2 * C, 25, stride=2, padding=12),  # (B, 2C, 1, 85)
        )
        self.blocks = nn.Sequential(*(Block(2 * C, dropout) for _ in range(N_BLOCKS)))
        self.norm = nn.LayerNorm(2 * C)
        self.columns = nn.Linear(5 * 2 * C, d_out)
        theta = torch.deg2rad(START + STEP * torch.arange(N_POINTS, dtype=torch.float64)) / 2
        self.register_buffer("coordinate", (2 * theta.sin().square()).float(), persistent=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, tokens):
        """tokens: (B, L, P), intensity 0-100 -> (B, L, D)."""
        intensity = tokens.flatten(1).clamp_min(0) / 100  # (B, L P)
        root = (intensity + LEAST).sqrt() - LEAST**0.5
        x = torch.stack([2 * root, 2 * intensity, self.coordinate.expand_as(intensity)], dim=-1)
        x = x[:, None].permute(0, 3, 1, 2)  # (B, 3, 1, L P), channels last
        x = self.strided(x).permute(0, 2, 3, 1).squeeze(1)  # (B, 85, 2C)
        x = self.norm(self.blocks(x))  # (B, 85, 2C)
        return self.columns(x.unflatten(1, (N_TOKENS, -1)).flatten(2))  # (B, L, D)


class Block(nn.Module):
    """A residual block: normalisation, a convolution over 7 columns, GELU, a linear layer."""

    def __init__(self, channels, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.convolution = _convolution(channels, channels, 7, padding=3)
        self.out = nn.Linear(channels, channels)
        self.dropout = Dropout(dropout)

    def forward(self, x):
        """x: (B, T, C)."""
        seen = self.convolution(self.norm(x)[:, None].permute(0, 3, 1, 2)).permute(0, 2, 3, 1).squeeze(1)
        return x + self.dropout(self.out(nn.functional.gelu(seen)))


def _convolution(d_in, d_out, width, stride=1, padding=0):
    convolution = nn.Conv2d(d_in, d_out, (1, width), stride=(1, stride), padding=(0, padding))
    nn.init.normal_(convolution.weight, std=math.sqrt(2 / (d_in * width)))
    nn.init.zeros_(convolution.bias)
    return convolution
