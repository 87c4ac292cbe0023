"""Runs that are compared: a preset with another model, target, start or budget, and a name for the eyes.

bimodal-e_form-s0, pretrain-both-s0, bimodal-band_gap-steps2000-frozen-from-multi-s0: model, target, what else sets a
run apart, what it starts from, seed.  Names of another preset than `small` begin with it.
Nothing is read from a name: an experiment lists its runs, and what is kept of one is found by its name.
"""

import dataclasses
from pathlib import Path

from xxlib.training.presets import PRESETS

MULTI = ("e_form", "crystal_system")  # never the band gap, which is the unseen target of transfer
PRETRAININGS = {
    "contrastive": {"contrastive": (("composition", "xrd"),)},
    "relational": {"relational": (("composition", "xrd"), ("xrd", "composition"))},
    "taught": {},  # by whom, is a change
    "mxm": {"masked": ("xrd",)},
    "both": {"contrastive": (("composition", "xrd"),), "masked": ("xrd",)},
}
# Peak learning rates of `small`, as learning_rates has chosen them on `val`.  Pretraining and what follows it have that
# of the bimodal model from scratch, as in the paper; FCN+MLP has that of FCN, whose convolutions it is made of.
RATES = {"composition": 1e-3, "xrd": 1e-3, "bimodal": 5e-4, "frozen": 3.2e-2, "crabnet": 1e-3, "fcn": 4e-3}
# What a run adds that is to take half of the time on a CPU with bf16.  The error stays: E_f of the composition alone by
# likelihood, 2,000 steps, `val`: 82.0 meV/atom, 82.7 in fp32.  Runs that were trained before have fp32.
MIXED = {"precision": "bf16"}
# How a change shows in the name; other changes do not.
WORDS = {
    "dataset": lambda folder: Path(folder).name,
    "n_steps": "steps{}".format,
    "split": str,
    "left_out": "without-{}".format,
    "n_train": "n{}".format,
    "unlabelled_alone": lambda _: "n0",
    "hidden_rate": "rate{:g}".format,
    "hidden_span": "span{}".format,
    "unlabelled": lambda folder: f"with-{Path(folder).name}",
    "frozen": lambda _: "frozen",
    "likelihood": lambda _: "likelihood",
    "absolute": lambda _: "absolute",
    "also": lambda folders: f"with-{'-'.join(Path(folder).name for folder in folders)}",
}


def models(preset):
    """The models that are compared, by name: ModelConfigs of the sizes of a preset."""
    both = PRESETS[preset].model
    composition, xrd = both.only("composition"), both.only("xrd")
    return {
        "composition": composition,
        "xrd": xrd,
        "bimodal": both,
        "crabnet": dataclasses.replace(composition, architecture="crabnet"),
        "mat2vec": dataclasses.replace(composition, element_vectors="mat2vec"),
        "convolutions": with_convolutions(xrd),
        "fcn": dataclasses.replace(xrd, architecture="fcn", dropout=0.2),
        "fcn_mlp": dataclasses.replace(both, architecture="fcn_mlp", fusion=None),
    }


def with_convolutions(model):
    """The same ModelConfig, its patterns read by convolutions."""
    encoder = dataclasses.replace(model.encoders["xrd"], kind="convolutions")
    return dataclasses.replace(model, encoders=model.encoders | {"xrd": encoder})


def variant(preset, model, target, start=None, **changes):
    """RunConfig of one of models() for a target, or for "multi", both of MULTI.

    start: RunConfig whose encoders and fusion it begins with.  changes: as RunConfig.but takes them.
    """
    values = {"model": models(preset)[model], "targets": MULTI if target == "multi" else (target,)}
    parts = [model, target, *_words(changes)]
    if start is not None:
        values["initial"] = f"data/runs/{start.name}"
        parts += ["from", *start.name.removeprefix(_prefix(preset)).split("-")[1:-1]]
    return _named(preset, parts, values | changes)


def pretraining(preset, objectives, **changes):
    """RunConfig that pretrains with one of PRETRAININGS."""
    parts = ["pretrain", objectives, *_words(changes)]
    return _named(preset, parts, {"targets": ()} | PRETRAININGS[objectives] | changes)


def kind(config):
    """Which of RATES is the learning rate of a run; None: that of the preset, or its own."""
    if config.data.absent_rate or config.preset != "small":
        return None
    if config.frozen:
        return "frozen"
    if config.model.architecture != "xxact":
        return config.model.architecture.removesuffix("_mlp")
    return "bimodal" if len(config.model.modalities) > 1 else config.model.modalities[0]


def _named(preset, parts, changes):
    name = _prefix(preset) + "-".join([*parts, f"s{changes.get('seed', 0)}"])
    config = PRESETS[preset].but(name=name, **changes)
    if preset == "small" and "learning_rate" not in changes and kind(config):
        return config.but(learning_rate=RATES[kind(config)])
    return config


def _words(changes):
    return [word(changes[field]) for field, word in WORDS.items() if changes.get(field, False) is not False]


def _prefix(preset):
    return "" if preset == "small" else f"{preset}-"
