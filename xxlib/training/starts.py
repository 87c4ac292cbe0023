"""Where a run begins that does not begin from nothing."""

from xxlib import PROJECT
from xxlib.models.xxact import shared_names
from xxlib.training import runs
from xxlib.training.config import ConfigError, from_dict


def start_from(model, config):
    """Give a model the encoders and the fusion of the run that a RunConfig names as `initial`; its heads are new, and
    so is what that run does not have: the encoders of further modalities, and the fusion with them.

    A silent fusion hands on what the query's encoder knows, and with it the heads of the same targets.
    New are also the encoders of modalities that the earlier run did not read and, where it read one alone, the fusion;
    not of a frozen run, which could not learn them.
    Raises ConfigError where that run does not fit, or has seen crystals that this one is judged on; CheckpointError
    where its weights are missing or damaged.
    """
    folder = PROJECT / config.initial
    tensors, metadata = runs.load_model(folder)
    earlier = from_dict(metadata["config"])
    check_unseen(config.initial, earlier, config)
    state, names = model.state_dict(), shared_names(model)
    if not config.frozen:
        parts = set(map(_part, tensors))
        names = [name for name in names if name in tensors or (_part(name) in parts and not name.endswith(".mask"))]
    if config.model.fusion and config.model.fusion.silent:
        names += [name for name in tensors if name.startswith("heads.") and name in state]
    missing = [name for name in names if name not in tensors] or ["an encoder of this model"] * (not names)
    if missing:
        raise ConfigError(f"{config.initial} lacks {missing[0]}: its model is {earlier.model}")
    runs.load_weights(model, state | {name: tensors[name] for name in names}, folder / "model.safetensors")


def check_unseen(path, earlier, config):
    """Raise ConfigError where an earlier run has seen crystals of the same dataset that a RunConfig is judged on.

    path: of its folder, as the RunConfig has it.  earlier: its RunConfig.
    """
    if earlier.data.dataset != config.data.dataset:
        return
    judged = [(name, getattr(earlier.data, name), getattr(config.data, name)) for name in ("split", "left_out")]
    judged += [("seed", earlier.seed, config.seed)] * (config.data.split == "random")
    for name, there, here in judged:
        if there != here:
            raise ConfigError(
                f"{path} has seen crystals that judge this run: its {name} is {there!r}, here it is {here!r}"
            )


def _part(name):
    """The part of a model that a name of its state is of: "encoders.xrd", "fusion"."""
    return ".".join(name.split(".")[: 2 if name.startswith("encoders.") else 1])
