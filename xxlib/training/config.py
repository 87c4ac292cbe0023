"""A run: everything that decides what a training does; and the presets."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from xxlib.datasets.targets import TARGETS
from xxlib.models.config import ModelConfig

PRECISIONS = ("fp32", "bf16")
SPLIT_KINDS = ("formula", "random")


class ConfigError(ValueError):
    """A run.json, or a RunConfig, that cannot be run; the message says which key and why."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run.  Written to run.json, the only thing that crosses the process boundary."""

    name: str  # of the run folder
    preset: str  # which of PRESETS it started from
    dataset: str  # folder of the dataset, relative to the project's
    targets: tuple[str, ...] = ("e_form",)  # two or more: each example of a step trains one, drawn uniformly
    split: str = "formula"  # or "random", as in the paper
    seed: int = 0
    batch_size: int
    n_steps: int
    learning_rate: float  # peak, after warm-up
    precision: str = "fp32"  # or "bf16": mixed
    n_threads: int = 2  # of one process on a CPU; a resumed run is bitwise equal only with the same number
    evaluate_test: bool = True  # False while choosing: a search never sees `test`
    model: ModelConfig

    def __post_init__(self):
        unknown = sorted(set(self.targets) - set(TARGETS))
        if unknown or not self.targets:
            raise ConfigError(f"targets {list(self.targets)}: choose from {', '.join(TARGETS)}")
        if self.split not in SPLIT_KINDS:
            raise ConfigError(f"split {self.split!r}: choose from {', '.join(SPLIT_KINDS)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision {self.precision!r}: choose from {', '.join(PRECISIONS)}")
        if min(self.batch_size, self.n_steps, self.n_threads) < 1 or not self.learning_rate > 0:
            raise ConfigError("batch_size, n_steps, n_threads and learning_rate must be positive")

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
