"""A composition -> tokens: CrabNet's encoder."""

import torch
import torch.nn.functional as F
from torch import nn

from xxlib.models.inputs import Tokens
from xxlib.models.layers import EncoderLayer

MAX_Z = 118
ELEMENT_FEATURES = 200  # width of an element vector, as mat2vec's
FRACTION_RESOLUTION = 5000


class CompositionEncoder(nn.Module):
    """CrabNet's encoder (Wang et al., npj Comput. Mater. 7, 77, 2021) with a CLS in front.

    An element is its vector plus two sinusoidal encodings of its fraction: linear in the first half of the width,
    logarithmic in the second, each with a learned weight.  The CLS gets none.  with_cls=False is CrabNet's own form:
    no CLS, no projection.  Vectors that are not learned come from a checkpoint or from set_element_vectors; until then
    they are NaN, and so is everything computed from them.
    """

    masks_what_is_absent = False  # it is padding

    def __init__(self, config, with_cls=True):
        """config: a ModelConfig."""
        super().__init__()
        sizes = config.encoders["composition"]
        D = sizes.d_model
        self.element_vectors = nn.Embedding(MAX_Z + 1, ELEMENT_FEATURES, padding_idx=0)
        self.fixed_vectors = None
        if config.element_vectors != "learned":
            fixed = nn.Embedding(MAX_Z + 1, ELEMENT_FEATURES, padding_idx=0)
            nn.init.constant_(fixed.weight, torch.nan).requires_grad_(False)
            if config.element_vectors == "mat2vec":
                self.element_vectors = fixed
            else:
                self.fixed_vectors, self.embed_fixed = fixed, nn.Linear(ELEMENT_FEATURES, D, bias=False)
        self.embed = nn.Linear(ELEMENT_FEATURES, D)
        self.cls = nn.Parameter(torch.randn(D)) if with_cls else None
        self.element_scaler = nn.Parameter(torch.ones(()))
        self.fraction_scaler = nn.Parameter(torch.ones(()))
        self.log_fraction_scaler = nn.Parameter(torch.ones(()))
        self.register_buffer("encodings", fraction_encodings(D // 2), persistent=False)
        self.layers = nn.ModuleList(
            EncoderLayer(D, sizes.n_heads, sizes.d_ff, config.dropout) for _ in range(sizes.n_layers)
        )
        self.project = nn.Linear(D, config.d_fused) if with_cls else nn.Identity()
        self.register_parameter("mask", None)

    def learn_mask(self):
        """Have a [MASK] that stands where an element is hidden: an element vector."""
        self.mask = nn.Parameter(torch.randn(ELEMENT_FEATURES))

    @torch.no_grad()
    def set_element_vectors(self, vectors):
        """vectors: (119, 200) by atomic number, row 0 zeros, as xxlib.crystals.compositions.mat2vec gives them."""
        (self.fixed_vectors or self.element_vectors).weight.copy_(torch.as_tensor(vectors))

    def forward(self, composition, cls_only=False):
        """Tokens (B, 1 + E, d_fused) of a Composition; of the CLS alone, (B, 1, d_fused), where cls_only."""
        vectors, fractions, pad = self.element_vectors(composition.element_ids), composition.fractions, composition.pad
        if composition.hidden is not None and self.mask is not None:
            vectors = torch.where(composition.hidden[..., None], self.mask, vectors)  # (B, E, 200)
        x = self.embed(vectors)  # (B, E, D)
        if self.fixed_vectors is not None:
            x = x + self.embed_fixed(self.fixed_vectors(composition.element_ids))
        x = x * 2**self.element_scaler
        linear = self.encodings[_nearest(fractions)] * 2 ** ((1 - self.fraction_scaler) ** 2)  # (B, E, D / 2)
        logarithmic = torch.log2(fractions.clamp_min(1e-9)).square().mul(0.0025).clamp_max(1)
        logarithmic = self.encodings[_nearest(logarithmic)] * 2 ** ((1 - self.log_fraction_scaler) ** 2)
        x = x + torch.cat([linear, logarithmic], dim=-1)  # (B, E, D)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), 1, -1), x], dim=1)  # (B, 1 + E, D)
            pad = F.pad(pad, (1, 0), value=False)  # (B, 1 + E)
        *layers, last = self.layers
        for layer in layers:
            x = layer(x, pad)
        x = self.project(last(x, pad, cls_only))  # (B, 1 + E or 1, d_fused)
        return Tokens(x, pad[:, : x.shape[1]])


def fraction_encodings(width):
    """Sinusoidal encodings of the fractions 1/5000 ... 1: (5000, width), as CrabNet's FractionalEncoder."""
    fraction = torch.arange(FRACTION_RESOLUTION, dtype=torch.float64)[:, None]
    phase = fraction / 50 ** (2 * torch.arange(width, dtype=torch.float64) / width)
    even = torch.arange(width) % 2 == 0
    return torch.where(even, phase.sin(), phase.cos()).float()


def _nearest(fractions):
    """Row of fraction_encodings nearest to each fraction."""
    return (fractions * FRACTION_RESOLUTION).round().long().clamp_min(1) - 1
