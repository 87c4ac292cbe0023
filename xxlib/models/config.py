"""Sizes of a model."""

from dataclasses import dataclass, field, replace

from xxlib.models.fusion import FUSIONS
from xxlib.models.inputs import INPUTS

KINDS = {  # of encoders, by modality
    "composition": ("transformer",),
    "xrd": ("transformer", "convolutions"),
    "structure": ("cgcnn", "edge_updates"),
    "text": ("transformer", "language_model"),
    "description": ("language_model",),
}
ELEMENT_VECTORS = ("learned", "mat2vec", "learned + mat2vec")
LARGEST = {"d_model": 16_384, "n_layers": 500, "n_heads": 256, "d_ff": 65_536, "d_fused": 16_384, "n_experts": 256}
MOST_WEIGHTS = 1e11


class ModelError(ValueError):
    """A model that cannot be built; the message says which part does not fit and why."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A transformer that reads one modality; of patterns, with convolutions in front where kind is "convolutions".

    Of structures a graph network, which has neither heads nor d_ff; of texts also, and of descriptions always, a
    language model, of its own sizes.
    """

    kind: str = "transformer"  # a name of KINDS
    d_model: int = 512
    n_layers: int = 3
    n_heads: int = 4
    d_ff: int = 1024
    folder: str | None = None  # of a language model, relative to the project's, or the name of a package that has one
    lora: int = 0  # rank of what is learned of a language model; 0: nothing


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """How the encoded modalities become one.

    Cross-attention has a query and its memory.  The other kinds treat all modalities alike: "mutual_attention", where
    each asks the others, and four of their summaries, of which "late" has no layers.
    """

    kind: str = "cross_attention"  # a name of fusion.FUSIONS
    query: str = "xrd"  # the modality whose tokens come out
    memory: tuple[str, ...] = ("composition",)  # the others, which it asks
    n_layers: int = 12
    n_heads: int = 12
    d_ff: int = 2048
    silent: bool = False  # its layers add nothing at first: what the query's encoder knows reaches the heads
    n_experts: int = 4  # of the kind "experts"
    n_chosen: int = 2  # of them, for each sample


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What a model is built of; the defaults are XxaCT-NN's of the paper (arXiv 2507.01054).

    The other architectures are the paper's baselines (baselines.py): they read the modalities of `encoders`, and have
    most sizes as published.
    """

    architecture: str = "xxact"  # a name of build.ARCHITECTURES
    encoders: dict[str, EncoderConfig] = field(
        default_factory=lambda: {"composition": EncoderConfig(d_ff=2048), "xrd": EncoderConfig()}
    )
    fusion: FusionConfig | None = FusionConfig()  # None: one modality, whose CLS goes straight to the heads
    element_vectors: str = "learned"  # or "mat2vec": fixed, from the package ElementEmbeddings; or both side by side
    element_terms: bool = False  # regressions are what is left of a sum over elements, fitted to train
    d_fused: int = 768  # width after the encoders' projections and of the fusion
    dropout: float = 0.1

    def __post_init__(self):
        if not self.encoders or not set(self.encoders) <= set(INPUTS):
            raise ModelError(f"encoders of {', '.join(self.encoders) or 'nothing'}: choose from {', '.join(INPUTS)}")
        if self.element_vectors not in ELEMENT_VECTORS:
            raise ModelError(f"element_vectors {self.element_vectors!r}: choose from {', '.join(ELEMENT_VECTORS)}")
        if self.element_vectors != "learned" and "composition" not in self.encoders:
            raise ModelError(f"element_vectors {self.element_vectors!r}: this model reads no composition")
        if self.element_terms and ("composition" not in self.encoders or self.architecture != "xxact"):
            raise ModelError("element_terms: this model reads no composition, or is none of XxaCT-NN")
        self._check_sizes()
        for name, encoder in self.encoders.items():
            if encoder.kind not in KINDS[name]:
                raise ModelError(f"encoder of {name}: kind {encoder.kind!r}, choose from {', '.join(KINDS[name])}")
            if (encoder.kind == "language_model") == (encoder.folder is None):
                raise ModelError(f"encoder of {name}: a language model, and nothing else, has a folder")
            if encoder.lora < 0 or (encoder.lora and encoder.folder is None):
                raise ModelError(f"encoder of {name}: lora {encoder.lora} is the rank of matrices of a language model")
            if encoder.d_model % (2 * encoder.n_heads):
                raise ModelError(f"encoder of {name}: d_model must be a multiple of 2 n_heads")
        if self.fusion:
            if self.fusion.kind not in FUSIONS:
                raise ModelError(f"fusion {self.fusion.kind!r}: choose from {', '.join(FUSIONS)}")
            fused = (self.fusion.query, *self.fusion.memory)
            if sorted(fused) != sorted(self.encoders):
                raise ModelError(
                    f"a fusion of {' and '.join(fused)}, but the model reads {' and '.join(self.encoders)}"
                )
            if self.d_fused % self.fusion.n_heads:
                raise ModelError("d_fused must be a multiple of the fusion's n_heads")
            if not 0 < self.fusion.n_chosen <= self.fusion.n_experts:
                raise ModelError(f"fusion: n_chosen {self.fusion.n_chosen} must be from 1 to n_experts")

    def _check_sizes(self):
        parts = {f"encoder of {name}: ": vars(encoder) for name, encoder in self.encoders.items()}
        parts |= {"": {"d_fused": self.d_fused}, "fusion: ": vars(self.fusion) if self.fusion else {}}
        for part, sizes in parts.items():
            for name in LARGEST.keys() & sizes.keys():
                if type(sizes[name]) is not int or not 0 < sizes[name] <= LARGEST[name]:
                    raise ModelError(f"{part}{name} {sizes[name]!r} must be a whole number from 1 to {LARGEST[name]}")
        weights = 0
        for sizes in parts.values():
            width = sizes.get("d_model", self.d_fused)
            times = {"experts": sizes.get("n_experts", 1), "mutual_attention": len(self.encoders)}
            layers = sizes.get("n_layers", 0) * times.get(sizes.get("kind"), 1)
            weights += layers * width * (4 * width + 2 * sizes.get("d_ff", 0))
        if weights > MOST_WEIGHTS:
            raise ModelError(f"a model of {weights:.2g} weights: at most {MOST_WEIGHTS:g}")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ModelError(f"dropout {self.dropout!r} must be at least 0 and below 1")

    @property
    def modalities(self):
        """Names of the modalities that the model reads."""
        return tuple(self.encoders)

    @property
    def has_experts(self):
        """Whether its fusion chooses among experts, which are to be kept in use."""
        return self.fusion is not None and self.fusion.kind == "experts"

    def only(self, modality):
        """The same model of one modality, without fusion."""
        return replace(self, encoders={modality: self.encoders[modality]}, fusion=None)
