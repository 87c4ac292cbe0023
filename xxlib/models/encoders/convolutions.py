"""A powder pattern -> tokens: convolutions in front of a transformer."""

import torch
import torch.nn.functional as F
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
    """Three convolutions, each after some neighbouring columns have become one, and residual blocks.

    They see the square root of the intensity, in which weak lines count, the intensity, and sin^2(theta), in which the
    lines of a lattice lie evenly.  Large kernels first, no pools, no batch norm, as Salgado et al., npj Comput. Mater.
    9, 214 (2023), have them; a stride that is a reshape, which is twice as fast on a CPU.
    """

    def __init__(self, d_out, dropout):
        super().__init__()
        C = CHANNELS
        self.first = Convolution(5 * 3, C, 21)  # over 850 columns of 0.1 degree: 2.1 degrees
        self.second = Convolution(5 * C, C, 5)  # over 170 columns of 0.5 degree: 2.5 degrees
        self.third = Convolution(2 * C, 2 * C, 13)  # over 85 columns of a degree
        self.blocks = nn.Sequential(*(Block(2 * C, dropout) for _ in range(N_BLOCKS)))
        self.norm, self.dropout = nn.LayerNorm(2 * C), Dropout(dropout)
        self.columns = nn.Linear(5 * 2 * C, d_out)
        theta = torch.deg2rad(START + STEP * torch.arange(N_POINTS, dtype=torch.float64)) / 2
        self.register_buffer("coordinate", (2 * theta.sin().square()).float(), persistent=False)

    def forward(self, tokens):
        """tokens: (B, L, P), intensity 0-100 -> (B, L, D)."""
        intensity = tokens.flatten(1).clamp_min(0) / 100  # (B, L P)
        root = (intensity + LEAST).sqrt() - LEAST**0.5
        x = torch.stack([2 * root, 2 * intensity, self.coordinate.expand_as(intensity)], dim=-1)  # (B, L P, 3)
        x = F.gelu(self.first(wider(x, 5)))  # (B, 850, C)
        x = self.dropout(F.gelu(self.second(wider(x, 5))))  # (B, 170, C)
        x = self.norm(self.blocks(self.third(wider(x, 2))))  # (B, 85, 2C)
        return self.columns(wider(x, 5))  # (B, L, D)


class Block(nn.Module):
    """A residual block: normalisation, a convolution over 7 columns, GELU, a linear layer."""

    def __init__(self, channels, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.convolution = Convolution(channels, channels, 7)
        self.out = nn.Linear(channels, channels)
        self.dropout = Dropout(dropout)

    def forward(self, x):
        """x: (B, T, C)."""
        return x + self.dropout(self.out(F.gelu(self.convolution(self.norm(x)))))


class Convolution(nn.Module):
    """A convolution over an odd number of columns."""

    def __init__(self, d_in, d_out, width):
        super().__init__()
        # An image of one row with channels last: of the layouts of torch the fastest on a CPU.
        self.image = nn.Conv2d(d_in, d_out, (1, width), padding=(0, width // 2))
        nn.init.normal_(self.image.weight, std=(2 / (d_in * width)) ** 0.5)
        nn.init.zeros_(self.image.bias)

    def forward(self, x):
        """x: (B, T, C) -> (B, T, d_out)."""
        return self.image(x[:, None].permute(0, 3, 1, 2)).permute(0, 2, 3, 1).squeeze(1)


def wider(x, n):
    """Columns (B, n T, C) -> (B, T, n C): n neighbours as one."""
    return x.unflatten(1, (-1, n)).flatten(2)
