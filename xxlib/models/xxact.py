"""XxaCT-NN (arXiv 2507.01054): composition encoder, XRD encoder, cross-attention fusion, heads; its unimodal forms."""

import math

import torch
from torch import nn

from xxlib.models.baselines import FCN, FCNMLP, CrabNet
from xxlib.models.encoders import POINTS_PER_TOKEN, CompositionEncoder, XRDEncoder
from xxlib.models.fusion import CrossAttentionFusion
from xxlib.models.heads import MaskedXRDHead, Output, TargetHeads

TEMPERATURE = 0.07  # tau of the contrastive loss at the start


class XxaCTNN(nn.Module):
    """Both modalities through the fusion, or one modality through its own CLS, to the heads.

    partial: patterns may come in part, or not at all; then, and for masked modelling, there is a [MASK], which stands
    where a token is hidden.  Compositions may always be all padding.
    """

    def __init__(self, config, widths, objectives=(), partial=False):
        super().__init__()
        self.composition_encoder = CompositionEncoder(config) if "composition" in config.modalities else None
        self.xrd_encoder = XRDEncoder(config) if "xrd" in config.modalities else None
        bimodal = self.composition_encoder is not None and self.xrd_encoder is not None
        self.fusion = CrossAttentionFusion(config) if bimodal else None
        self.heads = TargetHeads(config.d_fused, widths)
        self.masked_xrd = MaskedXRDHead(config.d_fused) if "mxm" in objectives else None
        scale = torch.tensor(math.log(1 / TEMPERATURE))
        self.logit_scale = nn.Parameter(scale) if "contrastive" in objectives else None
        hides = partial or "mxm" in objectives
        self.mask = nn.Parameter(torch.randn(POINTS_PER_TOKEN)) if hides else None  # intensity 0-100, as a token

    def forward(self, element_ids, fractions, tokens, masked=None):
        """element_ids, fractions: (B, E).  tokens: (B, L, P), intensity 0-100.

        masked: (B, L), True = hidden or not measured: the model sees [MASK] there, and one for masked modelling
        reconstructs the tokens.
        """
        composition_cls = xrd_cls = reconstructed = None
        # The heads read the CLS alone, so the last layer before them computes no other row.
        unimodal, cls_only = self.fusion is None, masked is None or self.masked_xrd is None
        if self.composition_encoder is not None:
            composition, pad = self.composition_encoder(element_ids, fractions, cls_only=unimodal)  # (B, 1 + E, D)
            cls = composition_cls = composition[:, 0]  # (B, D)
        if self.xrd_encoder is not None:
            if masked is not None:
                tokens = torch.where(masked[..., None], self.mask, tokens)  # (B, L, P)
            x = self.xrd_encoder(tokens, cls_only=unimodal and cls_only)  # (B, 1 + L, D)
            cls = xrd_cls = x[:, 0]  # (B, D)
        if self.fusion is not None:
            x = self.fusion(x, composition, pad, cls_only=cls_only)  # (B, 1 + L, D)
            cls = x[:, 0]  # (B, D)
        if not cls_only:
            reconstructed = self.masked_xrd(x[:, 1:])  # (B, L, P)
        predictions, log_std = self.heads(cls)
        return Output(predictions, cls, composition_cls, xrd_cls, reconstructed, log_std)

    def summaries(self, element_ids, fractions, tokens):
        """The two CLS before fusion, (B, D) each: what the contrastive loss compares."""
        composition, _ = self.composition_encoder(element_ids, fractions, cls_only=True)  # (B, 1, D)
        return composition[:, 0], self.xrd_encoder(tokens, cls_only=True)[:, 0]


ARCHITECTURES = {"xxact": XxaCTNN, "fcn": FCN, "fcn_mlp": FCNMLP, "crabnet": CrabNet}


def build(config, widths, objectives=(), partial=False):
    """The model of a ModelConfig.

    widths: target name -> number of outputs, as TargetHeads takes them.  For XxaCT-NN alone: objectives, of
    pretraining, "contrastive" and "mxm"; partial, whether patterns may come in part or not at all.
    """
    model = ARCHITECTURES[config.architecture]
    return model(config, widths, objectives, partial) if objectives or partial else model(config, widths)


def encoder_names(model):
    """Names of the state that pretraining hands on: of the encoders, the fusion and [MASK], without heads."""
    parts = ("composition_encoder.", "xrd_encoder.", "fusion.")
    return [name for name in model.state_dict() if name.startswith(parts) or name == "mask"]


def count_parameters(module):
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
