"""A crystal structure -> tokens: gated convolutions over a graph of neighbours."""

import torch
import torch.nn.functional as F
from torch import nn

from xxlib.models.encoders.composition import MAX_Z
from xxlib.models.inputs import Tokens
from xxlib.models.layers import Dropout

RADIUS, STEP = 8.0, 0.2  # angstrom: centres and width of the Gaussians that a distance is expanded in
N_GAUSSIANS = 41


class StructureEncoder(nn.Module):
    """CGCNN (Xie and Grossman, Phys. Rev. Lett. 120, 145301, 2018): a token an atom, and their mean as CLS.

    Beside the publication: element vectors are learned and not tabulated properties; layer norm in place of batch norm,
    so that a crystal's answer and gradient do not depend on what shares its batch, its micro-batch or its process.
    Of the kind "edge_updates" what an edge says changes from layer to layer, as in ALIGNN and coGN.
    Distances alone enter: the answer is that of the crystal wherever it lies and however it is turned or mirrored.
    """

    masks_what_is_absent = False  # it is padding

    def __init__(self, config):
        """config: a ModelConfig."""
        super().__init__()
        sizes = config.encoders["structure"]
        D = sizes.d_model
        updates = sizes.kind == "edge_updates"
        self.element_vectors = nn.Embedding(MAX_Z + 1, D, padding_idx=0)
        self.register_buffer("gaussians", STEP * torch.arange(N_GAUSSIANS), persistent=False)
        self.embed_edges = nn.Linear(N_GAUSSIANS, D) if updates else nn.Identity()
        d_edge = D if updates else N_GAUSSIANS
        self.layers = nn.ModuleList(GatedConvolution(D, d_edge, updates, config.dropout) for _ in range(sizes.n_layers))
        self.project = nn.Linear(D, config.d_fused)
        self.register_parameter("mask", None)

    def learn_mask(self):
        """Have a [MASK] that stands where an atom's element is hidden: an element vector."""
        self.mask = nn.Parameter(torch.randn(self.element_vectors.embedding_dim))

    def forward(self, structure, cls_only=False):
        """Tokens (B, 1 + T, d_fused) of a Structure; of the CLS alone, (B, 1, d_fused), where cls_only.

        Padding is computed nowhere: atoms are rows (N, D) of all crystals, edges rows (M, .) of all atoms.
        """
        there = ~structure.pad  # (B, T)
        x = self.element_vectors(structure.atom_ids[there])  # (N, D)
        if structure.hidden is not None and self.mask is not None:
            x = torch.where(structure.hidden[there][:, None], self.mask, x)
        kept = there.flatten()[structure.edges[0]]  # (M,), not those of crystals that are not given
        centres, others = (there.flatten().cumsum(0) - 1)[structure.edges[:, kept]]  # (M,) each, rows of x
        edges = torch.exp(-(((structure.distances[kept, None] - self.gaussians) / STEP) ** 2))  # (M, G)
        edges = self.embed_edges(edges)
        for layer in self.layers:
            x, edges = layer(x, edges, centres, others)
        rows = there.nonzero()[:, 0]  # (N,), the crystal of each atom
        sums = summed(x, rows, len(there))  # (B, D)
        cls = self.project(F.softplus(sums / there.sum(1, keepdim=True).clamp_min(1)))
        cls = F.softplus(cls)[:, None]  # (B, 1, d_fused)
        if cls_only:
            return Tokens(cls, structure.pad.new_zeros(len(there), 1))
        tokens = cls.new_zeros(*there.shape, cls.shape[-1])
        tokens[there] = self.project(F.softplus(x)).to(tokens.dtype)  # (B, T, d_fused)
        return Tokens(torch.cat([cls, tokens], dim=1), F.pad(structure.pad, (1, 0), value=False))


class GatedConvolution(nn.Module):
    """Every neighbour adds its core, as far as its gate is open; both see centre, neighbour and edge (their Eq. 5)."""

    def __init__(self, d_model, d_edge, updates, dropout):
        super().__init__()
        self.updates = updates
        width = (3 if updates else 2) * d_model
        # One linear layer of centre, neighbour and edge side by side, in three parts: those of atoms are computed once
        # an atom, and there are twelve times as many edges.
        self.centre = nn.Linear(d_model, width)
        self.other = nn.Linear(d_model, width, bias=False)
        self.edge = nn.Linear(d_edge, width, bias=False)
        self.norm_edges, self.norm = nn.LayerNorm(width), nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x, edges, centres, others):
        """x: (N, D), edges: (M, d_edge), centres and others: (M,) rows of x -> x and edges, changed."""
        z = self.edge(edges) + taken(self.centre(x), centres) + taken(self.other(x), others)  # (M, 2D or 3D)
        gate, core, *change = self.norm_edges(z).chunk(3 if self.updates else 2, dim=-1)  # (M, D) each
        messages = summed(gate.sigmoid() * F.softplus(core), centres, len(x))  # (N, D)
        x = F.softplus(x + self.dropout(self.norm(messages)))
        return x, edges + F.silu(change[0]) if self.updates else edges


def taken(x, rows):
    """x[rows]: (N, D), (M,) -> (M, D).  By gather, whose gradient on a CPU is a sum and not one row after another."""
    return x.gather(0, rows[:, None].expand(-1, x.shape[1]))


def summed(x, rows, n):
    """The sums (n, D) of the rows of x (M, D) that belong to each of n."""
    return x.new_zeros(n, x.shape[1]).scatter_add(0, rows[:, None].expand_as(x), x)
