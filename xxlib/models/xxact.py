"""XxaCT-NN (arXiv 2507.01054): composition encoder, XRD encoder, cross-attention fusion, heads; its unimodal forms."""

import math

import torch
from torch import nn

from xxlib.models.baselines import FCN, FCNMLP, CrabNet
from xxlib.models.encoders import CompositionEncoder, XRDEncoder
from xxlib.models.fusion import CrossAttentionFusion
from xxlib.models.heads import MaskedXRDHead, Output, TargetHeads

TEMPERATURE = 0.07  # tau of the contrastive loss at the start


class XxaCTNN(nn.Module):
    """Both modalities through the fusion, or one modality through its own CLS, to the heads."""

    def __init__(self, config, widths, objectives=()):
        super().__init__()
        self.composition_encoder = CompositionEncoder(config) if "composition" in config.modalities else None
        self.xrd_encoder = XRDEncoder(config) if "xrd" in config.modalities else None
        bimodal = self.composition_encoder is not None and self.xrd_encoder is not None
        self.fusion = CrossAttentionFusion(config) if bimodal else None
        self.heads = TargetHeads(config.d_fused, widths)
        self.masked_xrd = MaskedXRDHead(config.d_fused) if "mxm" in objectives else None
        scale = torch.tensor(math.log(1 / TEMPERATURE))
        self.logit_scale = nn.Parameter(scale) if "contrastive" in objectives else None

    def forward(self, element_ids, fractions, tokens, masked=None):
        """element_ids, fractions: (B, E).  tokens: (B, L, P), intensity 0-100.

        masked: (B, L), True = hidden: the model sees [MASK] there and reconstructs the tokens.
        """
        composition_cls = xrd_cls = reconstructed = None
        # The heads read the CLS alone, so the last layer before them computes no other row.
        unimodal, cls_only = self.fusion is None, masked is None
        if self.composition_encoder is not None:
            composition, pad = self.composition_encoder(element_ids, fractions, cls_only=unimodal)  # (B, 1 + E, D)
            cls = composition_cls = composition[:, 0]  # (B, D)
        if self.xrd_encoder is not None:
            seen = tokens if masked is None else self.masked_xrd.hide(tokens, masked)
            x = self.xrd_encoder(seen, cls_only=unimodal and cls_only)  # (B, 1 + L, D)
            cls = xrd_cls = x[:, 0]  # (B, D)
        if self.fusion is not None:
            x = self.fusion(x, composition, pad, cls_only=cls_only)  # (B, 1 + L, D)
            cls = x[:, 0]  # (B, D)
        if masked is not None:
            reconstructed = self.masked_xrd(x[:, 1:])  # (B, L, P)
        return Output(self.heads(cls), cls, composition_cls, xrd_cls, reconstructed)

    def summaries(self, element_ids, fractions, tokens):
        """The two CLS before fusion, (B, D) each: what the contrastive loss compares."""
        composition, _ = self.composition_encoder(element_ids, fractions, cls_only=True)  # (B, 1, D)
        return composition[:, 0], self.xrd_encoder(tokens, cls_only=True)[:, 0]


ARCHITECTURES = {"xxact": XxaCTNN, "fcn": FCN, "fcn_mlp": FCNMLP, "crabnet": CrabNet}


def build(config, widths, objectives=()):
    """The model of a ModelConfig.

    widths: target name -> number of outputs (1 for a regression).  objectives: of pretraining, "contrastive" and "mxm";
    for XxaCT-NN alone.
    """
    model = ARCHITECTURES[config.architecture]
    return model(config, widths, objectives) if objectives else model(config, widths)


def encoder_names(model):
    """Names of the state that pretraining hands on: of the encoders and the fusion, without heads."""
    parts = ("composition_encoder.", "xrd_encoder.", "fusion.")
    return [name for name in model.state_dict() if name.startswith(parts)]


def count_parameters(module):
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
