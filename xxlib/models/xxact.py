"""XxaCT-NN (arXiv 2507.01054): composition encoder, XRD encoder, cross-attention fusion, heads; its unimodal forms."""

from torch import nn

from xxlib.models.baselines import FCN, FCNMLP, CrabNet
from xxlib.models.encoders import CompositionEncoder, XRDEncoder
from xxlib.models.fusion import CrossAttentionFusion
from xxlib.models.heads import Output, TargetHeads


class XxaCTNN(nn.Module):
    """Both modalities through the fusion, or one modality through its own CLS, to the heads."""

    def __init__(self, config, widths):
        super().__init__()
        self.composition_encoder = CompositionEncoder(config) if "composition" in config.modalities else None
        self.xrd_encoder = XRDEncoder(config) if "xrd" in config.modalities else None
        bimodal = self.composition_encoder is not None and self.xrd_encoder is not None
        self.fusion = CrossAttentionFusion(config) if bimodal else None
        self.heads = TargetHeads(config.d_fused, widths)

    def forward(self, element_ids, fractions, tokens):
        """element_ids, fractions: (B, E).  tokens: (B, L, P), intensity 0-100."""
        composition_cls = xrd_cls = None
        # The heads read the CLS alone, so the last layer before them computes no other row.
        unimodal = self.fusion is None
        if self.composition_encoder is not None:
            composition, pad = self.composition_encoder(element_ids, fractions, cls_only=unimodal)  # (B, 1 + E, D)
            cls = composition_cls = composition[:, 0]  # (B, D)
        if self.xrd_encoder is not None:
            xrd = self.xrd_encoder(tokens, cls_only=unimodal)  # (B, 1 + L, D)
            cls = xrd_cls = xrd[:, 0]  # (B, D)
        if self.fusion is not None:
            cls = self.fusion(xrd, composition, pad, cls_only=True)[:, 0]  # (B, D)
        return Output(self.heads(cls), cls, composition_cls, xrd_cls)


def build(config, widths):
    """The model of a ModelConfig; widths: target name -> number of outputs (1 for a regression)."""
    architectures = {"xxact": XxaCTNN, "fcn": FCN, "fcn_mlp": FCNMLP, "crabnet": CrabNet}
    return architectures[config.architecture](config, widths)


def count_parameters(module):
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
