"""The two encoders: a composition and a pattern, each to a CLS vector and one vector per element or token."""

import torch
import torch.nn.functional as F
from torch import nn

from xxlib.models.layers import EncoderLayer

MAX_Z = 118
ELEMENT_FEATURES = 200  # width of an element vector, as mat2vec's
FRACTION_RESOLUTION = 5000
N_TOKENS, POINTS_PER_TOKEN = 17, 250
INTENSITY_SCALE = 10.0  # of 0-100; the root mean square of a pattern is 8, so that a token enters with unit size


class CompositionEncoder(nn.Module):
    """CrabNet's encoder (Wang et al., npj Comput. Mater. 7, 77, 2021) with a CLS in front.

    An element is its vector plus two sinusoidal encodings of its fraction: linear in the first half of the width,
    logarithmic in the second, each with a learned weight.  The CLS gets none.  with_cls=False is CrabNet's own form:
    no CLS, no projection, d_fused is d_model.  Vectors that are not learned come from a checkpoint or from
    set_element_vectors; until then they are NaN, and so is everything computed from them.
    """

    def __init__(self, config, with_cls=True):
        super().__init__()
        D = config.d_model
        self.element_vectors = nn.Embedding(MAX_Z + 1, ELEMENT_FEATURES, padding_idx=0)
        if config.element_vectors != "learned":
            nn.init.constant_(self.element_vectors.weight, torch.nan).requires_grad_(False)
        self.embed = nn.Linear(ELEMENT_FEATURES, D)
        self.cls = nn.Parameter(torch.randn(D)) if with_cls else None
        self.element_scaler = nn.Parameter(torch.ones(()))
        self.fraction_scaler = nn.Parameter(torch.ones(()))
        self.log_fraction_scaler = nn.Parameter(torch.ones(()))
        self.register_buffer("encodings", fraction_encodings(D // 2), persistent=False)
        self.layers = nn.ModuleList(
            EncoderLayer(D, config.n_heads, config.composition_d_ff, config.dropout) for _ in range(config.n_layers)
        )
        self.project = nn.Linear(D, config.d_fused) if with_cls else nn.Identity()

    @torch.no_grad()
    def set_element_vectors(self, vectors):
        """vectors: (119, 200) by atomic number, row 0 zeros, as xxlib.crystals.compositions.mat2vec gives them."""
        self.element_vectors.weight.copy_(torch.as_tensor(vectors))

    def forward(self, element_ids, fractions, cls_only=False):
        """element_ids, fractions: (B, E) -> (B, 1 + E, d_fused) with CLS first, pad (B, 1 + E), True = ignore.

        cls_only: compute and return the CLS row alone, (B, 1, d_fused).
        """
        x = self.embed(self.element_vectors(element_ids)) * 2**self.element_scaler  # (B, E, D)
        linear = self.encodings[_nearest(fractions)] * 2 ** ((1 - self.fraction_scaler) ** 2)  # (B, E, D / 2)
        logarithmic = torch.log2(fractions.clamp_min(1e-9)).square().mul(0.0025).clamp_max(1)
        logarithmic = self.encodings[_nearest(logarithmic)] * 2 ** ((1 - self.log_fraction_scaler) ** 2)
        x = x + torch.cat([linear, logarithmic], dim=-1)  # (B, E, D)
        pad = element_ids == 0  # (B, E)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), 1, -1), x], dim=1)  # (B, 1 + E, D)
            pad = F.pad(pad, (1, 0), value=False)  # (B, 1 + E)
        *layers, last = self.layers
        for layer in layers:
            x = layer(x, pad)
        return self.project(last(x, pad, cls_only)), pad


class XRDEncoder(nn.Module):
    """A transformer over the tokens of a pattern, with a CLS in front and learned positions."""

    def __init__(self, config):
        super().__init__()
        D = config.d_model
        self.embed = nn.Linear(POINTS_PER_TOKEN, D)
        self.cls = nn.Parameter(torch.randn(D))
        self.positions = nn.Parameter(torch.randn(1 + N_TOKENS, D))
        self.layers = nn.ModuleList(
            EncoderLayer(D, config.n_heads, config.xrd_d_ff, config.dropout) for _ in range(config.n_layers)
        )
        self.project = nn.Linear(D, config.d_fused)

    def forward(self, tokens, cls_only=False):
        """tokens: (B, L, P), intensity 0-100 -> (B, 1 + L, d_fused) with CLS first; its row alone where cls_only."""
        x = self.embed(tokens / INTENSITY_SCALE)  # (B, L, D)
        x = torch.cat([self.cls.expand(len(x), 1, -1), x], dim=1) + self.positions  # (B, 1 + L, D)
        *layers, last = self.layers
        for layer in layers:
            x = layer(x)
        return self.project(last(x, cls_only=cls_only))  # (B, 1 + L or 1, d_fused)


def fraction_encodings(width):
    """Sinusoidal encodings of the fractions 1/5000 ... 1: (5000, width), as CrabNet's FractionalEncoder."""
    fraction = torch.arange(FRACTION_RESOLUTION, dtype=torch.float64)[:, None]
    phase = fraction / 50 ** (2 * torch.arange(width, dtype=torch.float64) / width)
    even = torch.arange(width) % 2 == 0
    return torch.where(even, phase.sin(), phase.cos()).float()


def _nearest(fractions):
    """Row of fraction_encodings nearest to each fraction."""
    return (fractions * FRACTION_RESOLUTION).round().long().clamp_min(1) - 1
