"""A run: everything that decides what a training does; and the presets."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from xxlib.datasets.splits import FAMILIES
from xxlib.datasets.targets import TARGETS
from xxlib.diffraction.effects import EFFECTS
from xxlib.diffraction.patterns import N_TOKENS
from xxlib.models.config import ModelConfig

PRECISIONS = ("fp32", "bf16")
SPLIT_KINDS = ("formula", "random")
OBJECTIVES = {"contrastive": ("composition", "xrd"), "mxm": ("xrd",)}  # name -> the modalities it needs


class ConfigError(ValueError):
    """A run.json, or a RunConfig, that cannot be run; the message says which key and why."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run.  Written to run.json, the only thing that crosses the process boundary."""

    name: str  # of the run folder
    preset: str  # which of PRESETS it started from
    dataset: str  # folder of the dataset, relative to the project's
    targets: tuple[str, ...] = ("e_form",)
    one_target: bool = True  # of several, each example of a step trains one, drawn uniformly, as in the paper; or all
    likelihood: bool = False  # regressions say how wide their error is, and train its likelihood, not squared errors
    objectives: tuple[str, ...] = ()  # of pretraining: "contrastive", "mxm" or both; then there are no targets
    hidden_rate: float = 0.05  # share of tokens that mxm hides
    hidden_span: int = 1  # contiguous tokens that are hidden together
    unlabelled: str | None = None  # folder of a second dataset, whose crystals join pretraining
    initial: str | None = None  # run folder, relative to the project's, whose encoders and fusion this run starts from
    frozen: bool = False  # transfer: those stay as they are, only the new heads train
    split: str = "formula"  # or "random", as in the paper
    left_out: str | None = None  # zero-shot: a family of crystals that is `test` and nothing else
    n_train: int | None = None  # of the training crystals, the beginning of any larger number; 0: unlabelled ones alone
    seed: int = 0
    batch_size: int  # of all processes together
    n_steps: int
    learning_rate: float  # peak, after warm-up
    precision: str = "fp32"  # or "bf16": mixed
    n_threads: int = 2  # of each process on a CPU; a resumed run is bitwise equal only with the same number
    micro_batch: int | None = None  # most samples a process holds at once; less memory, the same gradient
    checkpointing: bool = False  # of activations: layers are computed again in the backward pass, for less memory
    augmentation: str | None = None  # or the name of Effects: patterns as under those of xxlib.diffraction.effects
    modality_dropout: float = 0.0  # probability that an example lacks its composition, and that it lacks its pattern
    compile: bool = False  # layers by torch.compile: minutes to begin with, then less memory traffic
    evaluate_test: bool = True  # False while choosing: a search never sees `test`
    model: ModelConfig

    def __post_init__(self):
        for field, known in (("targets", TARGETS), ("objectives", OBJECTIVES)):
            if not set(getattr(self, field)) <= set(known):
                raise ConfigError(f"{field} {list(getattr(self, field))}: choose from {', '.join(known)}")
        if bool(self.targets) == bool(self.objectives):
            raise ConfigError("a run has either targets or, to pretrain, objectives and `targets` empty")
        choices = {"split": SPLIT_KINDS, "precision": PRECISIONS, "left_out": (None, *FAMILIES)}
        choices["augmentation"] = (None, *EFFECTS)
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise ConfigError(f"{field} {getattr(self, field)!r}: choose from {', '.join(map(str, known))}")
        for field in ("batch_size", "n_steps", "n_threads", "learning_rate", "micro_batch", "n_train", "hidden_span"):
            value = getattr(self, field)
            unlabelled_alone = field == "n_train" and value == 0 and self.unlabelled
            if value is not None and not value > 0 and not unlabelled_alone:
                raise ConfigError(f"{field} {value} must be positive")
        if not 0 < self.hidden_rate < 1 or self.hidden_span > N_TOKENS:
            raise ConfigError(f"hidden_rate must be between 0 and 1, hidden_span at most {N_TOKENS} tokens")
        for objective in self.objectives:
            if not set(OBJECTIVES[objective]) <= set(self.model.modalities):
                raise ConfigError(f"{objective} needs the modalities {' and '.join(OBJECTIVES[objective])}")
        if (self.objectives or self.initial) and self.model.architecture != "xxact":
            raise ConfigError(f"{self.model.architecture} has no pretraining: leave objectives and initial out")
        if not 0 <= self.modality_dropout <= 0.5:
            raise ConfigError(f"modality_dropout {self.modality_dropout} must be between 0 and 0.5, for each modality")
        if self.modality_dropout and len(self.model.modalities) < 2:
            raise ConfigError("modality_dropout needs a model of both modalities")
        if self.augmentation and "xrd" not in self.model.modalities:
            raise ConfigError("augmentation is of patterns: the model reads none")
        if self.partial and (self.objectives or self.model.architecture != "xxact"):
            raise ConfigError("augmentation and modality_dropout are for training XxaCT-NN on targets alone")
        if self.likelihood and self.model.architecture != "xxact":
            raise ConfigError(f"likelihood is for XxaCT-NN; {self.model.architecture} has the loss of its publication")
        if self.unlabelled and not self.objectives:
            raise ConfigError("unlabelled crystals can only join pretraining: give objectives, or leave them out")
        if self.frozen and (self.initial is None or self.objectives):
            raise ConfigError("frozen encoders need an `initial` run to come from and targets to train heads for")

    @property
    def widths(self):
        """Number of outputs of each target, as models.build takes them."""
        kinds = {name: TARGETS[name] for name in self.targets}
        wide = {name for name, target in kinds.items() if target.kind == "regression" and self.likelihood}
        return {name: 2 if name in wide else target.width for name, target in kinds.items()}

    @property
    def partial(self):
        """Whether the model must do with patterns in part, or none: then it has a [MASK]."""
        return self.augmentation is not None or self.modality_dropout > 0

    def save(self, path):
        """Write as JSON."""
        Path(path).write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path):
        """Read from JSON; raises ConfigError naming file and key where the file is not a run."""
        try:
            values = json.loads(Path(path).read_text())
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON: {error}") from error
        try:
            return from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def from_dict(values):
    """RunConfig of the dict that dataclasses.asdict makes; raises ConfigError for unknown or missing keys."""
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        raise ConfigError("not a run: it must be an object whose `model` is an object")
    model = _checked(ModelConfig, values["model"], "model.")
    return _checked(RunConfig, values | {"model": model}, "")


def _checked(cls, values, where):
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"unknown key {where}{unknown[0]}; known are {', '.join(fields)}")
    missing = [name for name, f in fields.items() if f.default is dataclasses.MISSING and name not in values]
    if missing:
        raise ConfigError(f"missing key {where}{missing[0]}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


PRESETS = {
    # The embedded dataset on a laptop, to see that everything runs: about 10 s on 2 cores.
    "smoke": RunConfig(
        name="smoke",
        preset="smoke",
        dataset="data/demo",
        batch_size=64,
        n_steps=200,
        learning_rate=1e-3,
        model=ModelConfig(
            d_model=64,
            n_layers=2,
            composition_d_ff=128,
            xrd_d_ff=128,
            d_fused=64,
            fusion_layers=2,
            fusion_heads=4,
            fusion_d_ff=128,
        ),
    ),
    # Materials Project crystals without a GPU: about 25 minutes on 2 cores for both modalities.
    "small": RunConfig(
        name="small",
        preset="small",
        dataset="data/mp36k",
        batch_size=128,
        n_steps=8000,
        learning_rate=1e-3,
        model=ModelConfig(
            d_model=128,
            composition_d_ff=512,
            xrd_d_ff=256,
            d_fused=128,
            fusion_layers=3,
            fusion_heads=4,
            fusion_d_ff=256,
        ),
    ),
    # The paper's model, with the recipe scaled to 27,833 training crystals; for one large GPU.
    "paper": RunConfig(
        name="paper",
        preset="paper",
        dataset="data/mp36k",
        batch_size=512,
        n_steps=4000,
        learning_rate=1e-4,
        precision="bf16",
        model=ModelConfig(),
    ),
}
