"""Where a run begins that does not begin from nothing."""

from xxlib import PROJECT
from xxlib.models.xxact import shared_names
from xxlib.training import runs
from xxlib.training.config import ConfigError, from_dict


def start_from(model, config):
    """Give a model the encoders and the fusion of the run that a RunConfig names as `initial`; its heads are new, and
    so is what that run does not have: the encoders of further modalities, and the fusion with them.

    Raises ConfigError where that run does not fit, or has seen crystals that this one is judged on; CheckpointError
    where its weights are missing or damaged.
    """
    folder = PROJECT / config.initial
    tensors, metadata = runs.load_model(folder)
    earlier = from_dict(metadata["config"])
    if earlier.data.dataset == config.data.dataset:
        judged = [(name, getattr(earlier.data, name), getattr(config.data, name)) for name in ("split", "left_out")]
        judged += [("seed", earlier.seed, config.seed)] * (config.data.split == "random")
        for name, there, here in judged:
            if there != here:
                raise ConfigError(
                    f"{config.initial} has seen crystals that judge this run: its {name} is {there!r}, here it is "
                    f"{here!r}"
                )
    state, names = model.state_dict(), shared_names(model)
    if not config.frozen:  # a [MASK] and an encoder that it does not have start anew; frozen ones could not
        new = tuple(f"encoders.{name}." for name in model.encoders if name not in earlier.model.modalities)
        new += ("fusion.",) if earlier.model.fusion is None else ()
        names = [name for name in names if name in tensors or (not name.endswith(".mask") and not name.startswith(new))]
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ConfigError(f"{config.initial} lacks {missing[0]}: its model is {earlier.model}")
    runs.load_weights(model, state | {name: tensors[name] for name in names}, folder / "model.safetensors")
