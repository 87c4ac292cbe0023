"""Sizes of a model."""

from dataclasses import dataclass

MODALITIES = ("composition", "xrd")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What XxaCT-NN is built of; the defaults are the paper's (arXiv 2507.01054)."""

    modalities: tuple[str, ...] = MODALITIES  # both, or one of them: then its CLS goes straight to the heads
    d_model: int = 512  # width of both encoders
    n_layers: int = 3
    n_heads: int = 4
    composition_d_ff: int = 2048
    xrd_d_ff: int = 1024
    d_fused: int = 768  # width after the encoders' projections and of the fusion
    fusion_layers: int = 12
    fusion_heads: int = 12
    fusion_d_ff: int = 2048
    dropout: float = 0.1

    def __post_init__(self):
        if not self.modalities or not set(self.modalities) <= set(MODALITIES):
            raise ValueError(f"modalities {self.modalities} must be one or both of {MODALITIES}")
        if self.d_model % (2 * self.n_heads) or self.d_fused % self.fusion_heads:
            raise ValueError("d_model must be a multiple of 2 n_heads, d_fused of fusion_heads")
