"""Sizes of a model."""

from dataclasses import dataclass

MODALITIES = ("composition", "xrd")
# What reads which modalities; XxaCT-NN reads both or one of them.
ARCHITECTURES = {"xxact": None, "fcn": ("xrd",), "fcn_mlp": MODALITIES, "crabnet": ("composition",)}
ELEMENT_VECTORS = ("learned", "mat2vec")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What a model is built of; the defaults are XxaCT-NN's of the paper (arXiv 2507.01054).

    The other architectures are the paper's baselines (baselines.py), of whose sizes most are fixed as published.
    """

    architecture: str = "xxact"  # one of ARCHITECTURES
    element_vectors: str = "learned"  # or "mat2vec": fixed, from the package ElementEmbeddings
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
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture {self.architecture!r}: choose from {', '.join(ARCHITECTURES)}")
        if self.element_vectors not in ELEMENT_VECTORS:
            raise ValueError(f"element_vectors {self.element_vectors!r}: choose from {', '.join(ELEMENT_VECTORS)}")
        if not self.modalities or not set(self.modalities) <= set(MODALITIES):
            raise ValueError(f"modalities {self.modalities} must be one or both of {MODALITIES}")
        if self.d_model % (2 * self.n_heads) or self.d_fused % self.fusion_heads:
            raise ValueError("d_model must be a multiple of 2 n_heads, d_fused of fusion_heads")
        reads = ARCHITECTURES[self.architecture]
        if reads and set(self.modalities) != set(reads):
            raise ValueError(f"architecture {self.architecture!r} reads {reads}: set modalities to that")
        encodes = self.architecture in ("xxact", "crabnet") and "composition" in self.modalities
        if self.element_vectors != "learned" and not encodes:
            raise ValueError(f"element_vectors {self.element_vectors!r}: this model has no composition encoder")
