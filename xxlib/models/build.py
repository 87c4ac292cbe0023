"""ModelConfig -> model."""

from xxlib.models.baselines import FCN, FCNMLP, CrabNet
from xxlib.models.fusion import FUSIONS
from xxlib.models.heads import GUESSES
from xxlib.models.xxact import XxaCTNN

ARCHITECTURES = {"xxact": XxaCTNN, "fcn": FCN, "fcn_mlp": FCNMLP, "crabnet": CrabNet}


def build(config, widths, **pretraining):
    """The model of a ModelConfig.

    widths: target name -> number of outputs, as TargetHeads takes them.  pretraining: contrastive, masked and partial
    of XxaCTNN, and of it alone.
    """
    return ARCHITECTURES[config.architecture](config, widths, **pretraining)


def guessable(config):
    """The modalities whose hidden tokens a model of this ModelConfig can guess: those that come out of it."""
    if config.architecture != "xxact":
        return ()
    if config.fusion is None:
        come_out = config.modalities
    else:
        come_out = (config.fusion.query,) if FUSIONS[config.fusion.kind].keeps_tokens else ()
    return tuple(name for name in come_out if name in GUESSES)
