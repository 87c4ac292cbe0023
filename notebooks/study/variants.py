"""Runs that are compared: a preset with another model, target, start or budget, and a name that says which.

<model>-<target>[-<what else sets it apart>][-from-<start>]-s<seed>, or pretrain-<objectives>...: bimodal-e_form-s0,
pretrain-both-s0, bimodal-e_form-from-both-s0, bimodal-band_gap-steps2000-frozen-from-multi-s0.
Names of another preset than `small` begin with it: smoke-bimodal-e_form-s0.
"""

import dataclasses
from pathlib import Path

from xxlib.training.config import PRESETS

MODELS = {
    "composition": {"modalities": ("composition",)},
    "xrd": {"modalities": ("xrd",)},
    "bimodal": {"modalities": ("composition", "xrd")},
    "crabnet": {"architecture": "crabnet", "modalities": ("composition",)},
    "mat2vec": {"element_vectors": "mat2vec", "modalities": ("composition",)},
    "fcn": {"architecture": "fcn", "modalities": ("xrd",), "dropout": 0.2},
    "fcn_mlp": {"architecture": "fcn_mlp"},
}
MULTI = ("e_form", "crystal_system")  # never the band gap, which is the unseen target of transfer
PRETRAININGS = {"contrastive": ("contrastive",), "mxm": ("mxm",), "both": ("contrastive", "mxm")}
# How a change shows in the name; other changes do not.
WORDS = {
    "dataset": lambda folder: Path(folder).name,
    "n_steps": "steps{}".format,
    "split": str,
    "left_out": "without-{}".format,
    "n_train": "n{}".format,
    "hidden_rate": "rate{:g}".format,
    "hidden_span": "span{}".format,
    "unlabelled": lambda folder: f"with-{Path(folder).name}",
    "frozen": lambda _: "frozen",
    "likelihood": lambda _: "likelihood",
}


def variant(preset, model, target, start=None, **changes):
    """RunConfig of one of MODELS for a target, or for "multi", both of MULTI.

    start: RunConfig whose encoders and fusion it begins with.  changes: further fields of RunConfig.
    """
    base = PRESETS[preset]
    targets = MULTI if target == "multi" else (target,)
    config = {"model": dataclasses.replace(base.model, **MODELS[model]), "targets": targets}
    words = [model, target, *_words(changes)]
    if start is not None:
        config["initial"] = f"data/runs/{start.name}"
        words += ["from", *start.name.removeprefix(_prefix(preset)).split("-")[1:-1]]
    return _named(preset, words, config | changes)


def pretraining(preset, objectives, **changes):
    """RunConfig that pretrains with one of PRETRAININGS."""
    words = ["pretrain", objectives, *_words(changes)]
    return _named(preset, words, {"targets": (), "objectives": PRETRAININGS[objectives]} | changes)


def _named(preset, words, changes):
    name = _prefix(preset) + "-".join([*words, f"s{changes.get('seed', 0)}"])
    return dataclasses.replace(PRESETS[preset], name=name, **changes)


def _words(changes):
    return [word(changes[field]) for field, word in WORDS.items() if field in changes]


def _prefix(preset):
    return "" if preset == "small" else f"{preset}-"
