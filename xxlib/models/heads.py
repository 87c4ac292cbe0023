"""Heads: from vectors to what is predicted; and what every model returns."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from xxlib.models.encoders.composition import MAX_Z
from xxlib.models.encoders.xrd import POINTS_PER_TOKEN
from xxlib.models.inputs import Tokens

MEAN_INTENSITY = 2.0  # of a pattern of 0-100, most of which is zero


class Output(NamedTuple):
    """What a model says of a batch."""

    predictions: dict[str, Tensor]  # name -> (B,) normalised value or (B, K) logits
    log_std: dict[str, Tensor]  # name -> (B,) of the regressions that come with an uncertainty
    fused: Tokens  # whose CLS the heads read
    encoded: dict[str, Tokens]  # modality -> before fusion
    weights: Tensor | None = None  # (B, N), how much each modality, or each expert, counts in a fusion that weighs


class TargetHeads(nn.ModuleDict):
    """One linear layer a target."""

    def __init__(self, d_fused, widths):
        """widths: name -> number of outputs: 1 for a regression, 2 for one that says how wide its error is."""
        super().__init__({name: nn.Linear(d_fused, width) for name, width in widths.items()})

    def forward(self, cls):
        """cls: (B, D) -> predictions and log_std, as Output has them."""
        predictions, log_std = {}, {}
        for name, head in self.items():
            out = head(cls)  # (B, width)
            if head.out_features == 2:
                predictions[name], log_std[name] = out.unbind(-1)
            else:
                predictions[name] = out.squeeze(-1) if head.out_features == 1 else out
        return predictions, log_std


class ElementTerms(nn.ModuleDict):
    """A sum over the elements of a composition for each regression, to which its head adds what is left."""

    def __init__(self, names):
        super().__init__({name: nn.Embedding(MAX_Z + 1, 1, padding_idx=0) for name in names})
        self.requires_grad_(False)

    def forward(self, composition):
        """name -> (B,) of a Composition; 0 of one that is all padding."""
        return {
            name: (terms(composition.element_ids)[..., 0] * composition.fractions).sum(1)
            for name, terms in self.items()
        }


class PatternGuess(nn.Module):
    """Masked XRD modelling: the reconstruction of tokens."""

    def __init__(self, d_fused):
        super().__init__()
        self.project = nn.Linear(d_fused, POINTS_PER_TOKEN)
        # From around zero one point in eight falls below zero for every pattern within the first steps, where a ReLU
        # has no gradient, and stays there.
        nn.init.constant_(self.project.bias, MEAN_INTENSITY)

    def forward(self, x):
        """x: (B, L, D) -> tokens (B, L, P), intensity 0-100 and never below 0."""
        return F.relu(self.project(x))


class ElementGuess(nn.Module):
    """Which element is hidden."""

    def __init__(self, d_fused):
        super().__init__()
        self.project = nn.Linear(d_fused, MAX_Z + 1)

    def forward(self, x):
        """x: (B, E, D) -> logits (B, E, 119) by atomic number."""
        return self.project(x)


GUESSES = {
    "composition": ElementGuess,
    "xrd": PatternGuess,
    "structure": ElementGuess,
}  # modality -> what guesses its hidden tokens
