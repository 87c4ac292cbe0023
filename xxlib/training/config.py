"""A run: everything that decides what a training does, and what decides only how fast."""

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from xxlib.crystals.distortions import DISTORTIONS
from xxlib.datasets.batches import OF_STRUCTURES
from xxlib.datasets.splits import FAMILIES
from xxlib.datasets.targets import TARGETS
from xxlib.datasets.writing import write_atomically
from xxlib.diffraction.effects import EFFECTS
from xxlib.diffraction.patterns import N_TOKENS
from xxlib.models.build import ARCHITECTURES, guessable
from xxlib.models.config import ModelConfig
from xxlib.training.fields import ConfigError, check_fields, read_fields
from xxlib.training.relations import MEASURED

PRECISIONS = ("fp32", "bf16")
SPLIT_KINDS = ("formula", "random")
NAME = re.compile(r"\w[\w.,+=()@ -]{0,99}(?<! )")  # of a run, which is that of its folder and stands in scripts


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a run learns from, and how it is shown."""

    dataset: str  # folder, relative to the project's
    split: str = "formula"  # or "random", as in the paper
    left_out: str | None = None  # zero-shot: a family of crystals that is `test` and nothing else
    also: tuple[str, ...] = ()  # folders of further datasets, whose `train` joins with the labels that it has
    n_train: int | None = None  # of the training crystals of `dataset`, the beginning of any larger number; None: all
    unlabelled: str | None = None  # folder of a second dataset, whose crystals join pretraining
    unlabelled_alone: bool = False  # pretraining learns from those, and not from `train`
    effects: str | None = None  # name of Effects that patterns are measured under; None: ideal ones
    distortions: str | None = None  # name of Distortions that structures have; None: they are as they are
    absent_rate: float = 0.0  # probability that an example lacks a modality, for each of them; never all
    jitter: float = 0.0  # relative standard deviation of what fractions are multiplied by in training


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """What is learned: targets, or the objectives of pretraining."""

    targets: tuple[str, ...] = ()
    one_target: bool = True  # of several, each example of a step trains one, drawn uniformly, as in the paper; or all
    likelihood: bool = False  # regressions say how wide their error is, and train its likelihood, not squared errors
    absolute: bool = False  # regressions train absolute errors, not squared ones
    contrastive: tuple[tuple[str, str], ...] = ()  # pairs of modalities whose summaries are to find each other
    relational: tuple[tuple[str, str], ...] = ()  # pairs: how alike samples are in the first is taught to the second
    taught: str | None = None  # run folder, relative to the project's: what its heads read is what is learned
    masked: tuple[str, ...] = ()  # modalities whose hidden tokens are to be guessed
    hidden_rate: float = 0.05  # share of tokens that are hidden
    hidden_span: int = 1  # contiguous tokens that are hidden together

    @property
    def pretrains(self):
        """Whether this is pretraining."""
        return bool(self.contrastive or self.relational or self.taught or self.masked)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long and how fast is learned."""

    batch_size: int  # of all processes together
    n_steps: int
    learning_rate: float  # peak, after warm-up
    precision: str = "fp32"  # or "bf16": mixed
    averaged: float = 0.0  # share of the steps over which the weights that are judged and kept are averaged

    @property
    def samples(self):
        """How many samples a run sees."""
        return self.n_steps * self.batch_size


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What decides only the speed: a run that goes on may have other values.

    It is bitwise the run that it would have been where these and the number of processes are equal.
    """

    n_threads: int = 2  # of each process on a CPU
    micro_batch: int | None = None  # most samples a process holds at once; less memory, the same gradient
    checkpointing: bool = False  # of activations: layers are computed again in the backward pass, for less memory
    compile: bool = False  # layers by torch.compile: minutes to begin with, then less memory traffic


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run.  Written to run.json, the only thing that crosses the process boundary."""

    name: str  # of the run folder
    preset: str  # which of presets.PRESETS it started from
    data: Data
    model: ModelConfig = field(default_factory=ModelConfig)
    objectives: Objectives = Objectives(targets=("e_form",))
    budget: Budget
    machine: Machine = Machine()
    initial: str | None = None  # run folder, relative to the project's, whose encoders and fusion this run starts from
    frozen: bool = False  # transfer: those stay as they are, only the new heads train
    seed: int = 0
    evaluate_test: bool = True  # False while choosing: a search never sees `test`

    def __post_init__(self):
        check_fields(self)
        check_name(self.name)
        data, model, objectives, budget = self.data, self.model, self.objectives, self.budget
        _choose("targets", objectives.targets, TARGETS)
        _choose("split", (data.split,), SPLIT_KINDS)
        _choose("left_out", (data.left_out,), (None, *FAMILIES))
        _choose("effects", (data.effects,), (None, *EFFECTS))
        _choose("distortions", (data.distortions,), (None, *DISTORTIONS))
        _choose("precision", (budget.precision,), PRECISIONS)
        _choose("architecture", (model.architecture,), ARCHITECTURES)
        if bool(objectives.targets) == objectives.pretrains:
            raise ConfigError(
                "a run has either targets or, to pretrain, no targets and a contrastive, relational, taught or masked "
                "objective"
            )
        positive = {
            "n_train": data.n_train,
            "hidden_span": objectives.hidden_span,
            **vars(budget),
            **vars(self.machine),
        }
        for name in ("n_train", "hidden_span", "batch_size", "n_steps", "learning_rate", "n_threads", "micro_batch"):
            if positive[name] is not None and not positive[name] > 0:
                raise ConfigError(f"{name} {positive[name]} must be positive")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed {self.seed} must be from 0 to 2^63 - 1")
        if not 0 < objectives.hidden_rate < 1 or objectives.hidden_span > N_TOKENS:
            raise ConfigError(f"hidden_rate must be between 0 and 1, hidden_span at most {N_TOKENS} tokens")
        for pair in objectives.contrastive:
            if len(set(pair)) != 2 or not set(pair) <= set(model.modalities):
                raise ConfigError(f"contrastive {list(pair)}: give two of the modalities {', '.join(model.modalities)}")
        for pair in objectives.relational:
            if len(set(pair)) != 2 or not set(pair) <= set(model.modalities) or pair[0] not in MEASURED:
                raise ConfigError(
                    f"relational {list(pair)}: give two of the modalities {', '.join(model.modalities)}, of which the "
                    f"first, that teaches, is {' or '.join(MEASURED)}"
                )
        for modality in objectives.masked:
            if modality not in guessable(model):
                tokens = " and ".join(guessable(model)) or "no modality"
                raise ConfigError(f"masked {modality!r}: out of this model come the tokens of {tokens}, to be guessed")
        self._check_what_fits_the_architecture()
        if not 0 <= data.absent_rate <= 1 / max(2, len(model.modalities)):
            raise ConfigError(
                f"absent_rate {data.absent_rate} must be between 0 and 1 / {max(2, len(model.modalities))}"
            )
        if data.absent_rate and len(model.modalities) < 2:
            raise ConfigError("absent_rate needs a model of several modalities")
        if not 0 <= data.jitter < 1 or (data.jitter and "composition" not in model.modalities):
            raise ConfigError(f"jitter {data.jitter} must be from 0 to 1, and is of compositions")
        if not 0 <= budget.averaged <= 1:
            raise ConfigError(f"averaged {budget.averaged} must be from 0 to 1")
        if len(set(data.also) | {data.dataset}) <= len(data.also):
            raise ConfigError(f"also {', '.join(data.also)}: give each dataset once, and not {data.dataset}")
        if data.effects and "xrd" not in model.modalities:
            raise ConfigError("effects are of patterns: the model reads none")
        if data.distortions and not OF_STRUCTURES & set(model.modalities):
            raise ConfigError("distortions are of structures: the model reads none")
        if data.unlabelled and not objectives.pretrains:
            raise ConfigError("unlabelled crystals can only join pretraining: give an objective, or leave them out")
        if data.unlabelled_alone and not data.unlabelled:
            raise ConfigError("unlabelled_alone needs `unlabelled` crystals to learn from")
        if "least_e_form" in objectives.targets and data.split == "random":
            raise ConfigError("least_e_form: in a random split the lowest crystal of a formula may be one that judges")
        if model.has_experts and self.machine.micro_batch:
            raise ConfigError("micro_batch: experts are kept in use over a whole batch, leave it out")
        if objectives.absolute and objectives.likelihood:
            raise ConfigError("absolute errors or likelihood: the likelihood has absolute errors already")
        if self.frozen and (self.initial is None or objectives.pretrains):
            raise ConfigError("frozen encoders need an `initial` run to come from and targets to train heads for")

    def _check_what_fits_the_architecture(self):
        name, reads = self.model.architecture, ARCHITECTURES[self.model.architecture].reads
        if reads and set(self.model.modalities) != set(reads):
            raise ConfigError(f"architecture {name!r} reads {' and '.join(reads)}: give encoders of that")
        if name == "xxact":
            if len(self.model.modalities) > 1 and self.model.fusion is None:
                raise ConfigError("a model of several modalities needs a fusion")
            if self.partial and self.objectives.pretrains:
                raise ConfigError("effects and absent_rate are for training on targets alone")
            return
        if self.objectives.pretrains or self.initial:
            what = "contrastive, relational, taught, masked and initial"
            raise ConfigError(f"{name} has no pretraining: leave {what} out")
        if self.partial:
            raise ConfigError("effects and absent_rate are for XxaCT-NN alone")
        if self.objectives.likelihood:
            raise ConfigError(f"likelihood is for XxaCT-NN; {name} has the loss of its publication")

    @property
    def widths(self):
        """Number of outputs of each target, as models.build takes them."""
        kinds = {name: TARGETS[name] for name in self.objectives.targets}
        wide = {name for name, target in kinds.items() if target.kind == "regression" and self.objectives.likelihood}
        return {name: 2 if name in wide else target.width for name, target in kinds.items()}

    @property
    def partial(self):
        """Whether the model must do with patterns in part, or none: then it has a [MASK]."""
        return self.data.effects is not None or self.data.absent_rate > 0

    def but(self, **changes):
        """The same run with other values, each by its own name wherever it stands: run.but(name="x", n_steps=100)."""
        for group in GROUPS:
            own = {field.name for field in dataclasses.fields(GROUPS[group])}
            inner = {name: changes.pop(name) for name in own & set(changes)}
            if inner:
                changes[group] = dataclasses.replace(changes.get(group, getattr(self, group)), **inner)
        return dataclasses.replace(self, **changes)

    def is_same_run(self, other):
        """Whether another RunConfig decides the same result: all but `machine`."""
        return self == dataclasses.replace(other, machine=self.machine)

    def as_dict(self):
        """As run.json and the metadata of a model have it; from_dict reads it."""
        return dataclasses.asdict(self)

    def save(self, path):
        """Write as JSON."""
        write_atomically(path, (json.dumps(self.as_dict(), indent=1) + "\n").encode())

    @classmethod
    def load(cls, path):
        """Read from JSON; raises ConfigError naming file and key where the file is not a run."""
        if not Path(path).is_file():
            raise ConfigError(f"{path} is no file")
        try:
            values = json.loads(Path(path).read_text())
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is not JSON: {error}") from error
        try:
            return from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


GROUPS = {"data": Data, "objectives": Objectives, "budget": Budget, "machine": Machine}
# Where the keys of the first design went.
MOVED = {
    **dict.fromkeys(("dataset", "split", "left_out", "n_train", "unlabelled"), "data"),
    **dict.fromkeys(("targets", "one_target", "likelihood", "hidden_rate", "hidden_span"), "objectives"),
    **dict.fromkeys(("batch_size", "n_steps", "learning_rate", "precision"), "budget"),
    **dict.fromkeys(("n_threads", "micro_batch", "checkpointing", "compile"), "machine"),
    "augmentation": "data.effects",
    "modality_dropout": "data.absent_rate",
}


def from_dict(values):
    """RunConfig of the dict that as_dict makes; raises ConfigError for unknown, missing or moved keys."""
    if not isinstance(values, dict):
        raise ConfigError("not a run: it must be an object")
    moved = [f"{key} is {to if '.' in to else f'{to}.{key}'}" for key, to in MOVED.items() if key in values]
    if moved:
        raise ConfigError(
            f"this is a run of the first design: {', '.join(moved)}, objectives is objectives.contrastive and "
            "objectives.masked, model has encoders and fusion; write it anew"
        )
    return read_fields(RunConfig, values)


def check_name(name):
    """Raise ConfigError for a text that cannot be the name of a run."""
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ConfigError(
            f"name {repr(name)[:110]}: a run's name is that of its folder, 1 to 100 letters, digits, blanks and "
            ". , _ + - = ( ) @, of which the first is a letter or digit"
        )


def _choose(field, values, choices):
    wrong = [value for value in values if value not in choices]
    if wrong:
        raise ConfigError(f"{field} {wrong[0]!r}: choose from {', '.join(map(str, choices))}")
