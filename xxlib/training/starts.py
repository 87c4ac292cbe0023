"""Where a run begins that does not begin from nothing."""

from xxlib import PROJECT
from xxlib.models.xxact import encoder_names
from xxlib.training import runs
from xxlib.training.config import ConfigError, from_dict


def start_from(model, config):
    """Give a model the encoders and the fusion of the run that a RunConfig names as `initial`; its heads are new.

    Raises ConfigError where that run does not fit, or has seen crystals that this one is judged on; CheckpointError
    where its weights are missing or damaged.
    """
    folder = PROJECT / config.initial
    tensors, about = runs.load_model(folder)
    earlier = from_dict(about["config"])
    judged = ("split", "left_out") + (("seed",) if config.split == "random" else ())
    for name in judged if earlier.dataset == config.dataset else ():
        there, here = getattr(earlier, name), getattr(config, name)
        if there != here:
            raise ConfigError(
                f"{config.initial} has seen crystals that judge this run: its {name} is {there!r}, here it is {here!r}"
            )
    state, names = model.state_dict(), encoder_names(model)
    if not config.frozen and "mask" not in tensors:  # it starts anew; a frozen one could not
        names = [name for name in names if name != "mask"]
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ConfigError(f"{config.initial} lacks {missing[0]}: its model is {earlier.model}")
    runs.load_weights(model, state | {name: tensors[name] for name in names}, folder / "model.safetensors")
