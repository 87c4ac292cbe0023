"""XxaCT-NN (arXiv 2507.01054): an encoder a modality, a fusion, heads; and its unimodal forms."""

import math

import torch
from torch import nn

from xxlib.models.encoders.composition import CompositionEncoder
from xxlib.models.encoders.convolutions import ConvolutionalEncoder
from xxlib.models.encoders.language import DescriptionEncoder, LanguageModelEncoder
from xxlib.models.encoders.structure import StructureEncoder
from xxlib.models.encoders.text import TextEncoder
from xxlib.models.encoders.xrd import XRDEncoder
from xxlib.models.fusion import FUSIONS
from xxlib.models.heads import GUESSES, ElementTerms, Output, TargetHeads

TEMPERATURE = 0.07  # tau of a contrastive loss at the start
ENCODERS = {
    ("composition", "transformer"): CompositionEncoder,
    ("xrd", "transformer"): XRDEncoder,
    ("xrd", "convolutions"): ConvolutionalEncoder,
    ("structure", "cgcnn"): StructureEncoder,
    ("structure", "edge_updates"): StructureEncoder,
    ("text", "transformer"): TextEncoder,
    ("text", "language_model"): LanguageModelEncoder,
    ("description", "language_model"): DescriptionEncoder,
}


class XxaCTNN(nn.Module):
    """Several modalities through their encoders and a fusion, or one through its encoder, to the heads.

    contrastive: pairs of modalities whose summaries are compared, each pair with a temperature.  masked: modalities of
    which hidden tokens are guessed.  partial: patterns may come in part, or not at all: then, and where they are
    guessed, there is a [MASK].  Compositions may always be all padding.
    """

    reads = None  # any modalities

    def __init__(self, config, widths, *, contrastive=(), masked=(), partial=False):
        super().__init__()
        kinds = {name: sizes.kind for name, sizes in config.encoders.items()}
        self.encoders = nn.ModuleDict({name: ENCODERS[name, kind](config) for name, kind in kinds.items()})
        fusion = config.fusion
        self.fusion = FUSIONS[fusion.kind](fusion, config.d_fused, config.dropout) if fusion else None
        self.heads = TargetHeads(config.d_fused, widths)
        regressions = [name for name, width in widths.items() if width <= 2] if config.element_terms else []
        self.element_terms = ElementTerms(regressions)
        self.guess = nn.ModuleDict({name: GUESSES[name](config.d_fused) for name in masked})
        start = math.log(1 / TEMPERATURE)
        self.logit_scales = nn.ParameterDict({"+".join(pair): torch.tensor(start) for pair in contrastive})
        for name, encoder in self.encoders.items():
            if name in masked or (partial and encoder.masks_what_is_absent):
                encoder.learn_mask()

    def forward(self, inputs, given=None, *, tokens=False):
        """Output of inputs by modality; given: modality -> (B,) bool, which samples have it, or None where all do.

        tokens: also compute the tokens of the last layer, which the heads do not read: it is a tenth of a step.
        """
        alone = self.fusion is None
        encoded = {
            name: encoder(inputs[name], cls_only=alone and not tokens) for name, encoder in self.encoders.items()
        }
        if alone:
            fused, weights = next(iter(encoded.values())), None
        else:
            fused, weights = self.fusion(encoded, given, cls_only=not tokens)
        predictions, log_std = self.heads(fused.x[:, 0])
        if self.element_terms:
            terms = self.element_terms(inputs["composition"])
            predictions |= {name: predictions[name] + sums for name, sums in terms.items()}
        return Output(predictions, log_std, fused, encoded, weights)

    def summaries(self, inputs, names):
        """The CLS of some modalities before fusion, (B, D) each: what a contrastive loss compares."""
        return [self.encoders[name](inputs[name], cls_only=True).x[:, 0] for name in names]


def shared_names(model):
    """Names of the state that pretraining hands on: of the encoders and the fusion, without heads."""
    return [name for name in model.state_dict() if name.startswith(("encoders.", "fusion."))]


def count_parameters(module):
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
