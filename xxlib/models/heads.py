"""Heads: from embeddings to what is predicted."""

from torch import nn


class TargetHeads(nn.ModuleDict):
    """One linear layer a target."""

    def __init__(self, d_fused, widths):
        """widths: name -> number of outputs, 1 for a regression."""
        super().__init__({name: nn.Linear(d_fused, width) for name, width in widths.items()})

    def forward(self, cls):
        """cls: (B, D) -> name -> (B,) normalised value of a regression, or (B, K) logits of a classification."""
        outputs = {name: head(cls) for name, head in self.items()}
        return {name: out.squeeze(-1) if out.shape[-1] == 1 else out for name, out in outputs.items()}
