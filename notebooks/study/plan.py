"""The runs behind every table and figure of mp36k, as data: important ones first.

Full budget for what carries a claim of the paper, half of it for the scaling and the random split, a quarter for the
rest.
"""

import dataclasses
from functools import partial

from study import variants
from xxlib.training.config import PRESETS

FULL = PRESETS["small"].n_steps
HALF, QUARTER = FULL // 2, FULL // 4

# Learning rates among which each kind of model chooses on `val`, in a quarter of the steps.  A tenth is too little: it
# prefers rates at which a fusion loses sight of the pattern later.  A first look (E_f) had batch 512 behind 256 and 256
# behind 128 for every model.
LEARNING_RATES = (2.5e-4, 5e-4, 1e-3, 2e-3)
# Where the highest of those was best.  Heads gain 0.4 % from the last doubling: there the search ends.
HIGHER = {"frozen": (4e-3, 8e-3, 1.6e-2, 3.2e-2), "fcn": (4e-3, 8e-3)}
# Pretraining and what follows it have the rate of the bimodal model from scratch: one rate for all, as in the paper.
# FCN+MLP has that of FCN, whose convolutions it is made of.  Predictors, which are asked for the pattern alone, too,
# have the rate of the preset.
KINDS = ("composition", "xrd", "bimodal", "frozen", "crabnet", "fcn")
# 1e-3 is best in a quarter of the steps, but over all of them a fusion loses sight of the pattern: the paper's rate.
HIGHEST = {"bimodal": 5e-4}

SIZES = tuple(27833 // 2**k for k in (5, 4, 3, 2, 1, 0))  # training crystals, nested
HIDDEN_RATES, SPANS = (0.05, 0.1, 0.2, 0.3, 0.5), (2, 4)
SOURCES = {"e_form": 3, "crystal_system": 1, "multi": 1}  # target of what is transferred -> its seed
SHOTS = (30, 100, 300, 1000)
FAMILIES = ("chalcogenides", "perovskites", "intermetallics")
GENERATED, NOMAD = "data/generated50k", "data/nomad2018"
FLOORS = ("e_form", "band_gap", "crystal_system")  # gradient boosting: no training, see mp36k.py

# What answers for a measured scan: every target at once, from composition, pattern or both.
# Trained by its likelihood: by squared errors, what is asked without its composition outweighs all the rest.
PREDICTOR = {"targets": ("e_form", "band_gap", "crystal_system"), "one_target": False, "modality_dropout": 0.15}
PREDICTORS = {
    "laboratory": {"augmentation": "laboratory", "likelihood": True},
    "ideal": {"likelihood": True},
    "squares": {"augmentation": "laboratory"},
    "system": {"augmentation": "laboratory", "targets": ("crystal_system",), "modality_dropout": 0.3},
}

run = partial(variants.variant, "small")
pretraining = partial(variants.pretraining, "small")


def parts():
    """Table, figure or question -> its runs as RunConfigs, whose learning rates are still those of the preset."""
    modalities = ("composition", "xrd", "bimodal")
    pretrained = {name: pretraining(name) for name in ("both", "contrastive", "mxm")}
    # The latest seed of each, whose weights are kept until what starts from them has finished.
    source = {target: run("bimodal", target, seed=seed) for target, seed in SOURCES.items()}
    transfer = partial(run, target="band_gap", frozen=True, n_steps=QUARTER)
    multi = run("bimodal", "multi")
    multis = [run(model, "multi", seed=seed) for seed in (0, 1) for model in modalities]

    table_1 = [run(model, "e_form") for model in modalities]
    table_1 += [run(model, "crystal_system") for model in modalities]
    table_1 += [run(model, "band_gap") for model in modalities]
    table_1 += [run(model, "e_form", seed=seed) for seed in (1, 2, 3) for model in ("composition", "bimodal")]
    table_1 += [run(model, "crystal_system", seed=1) for model in ("composition", "bimodal")]
    # One seed each leaves open which is ahead.
    table_1 += [run(model, "band_gap", seed=seed) for seed in (1, 2) for model in ("composition", "bimodal")]
    # Equal samples; equal labels of each; and by likelihood, for beside squared errors a cross-entropy is ten times as
    # large and more.  What the likelihood itself does, with one modality and with both.
    table_1 += [*multis, run("bimodal", "multi", n_steps=2 * FULL), run("bimodal", "multi", likelihood=True)]
    table_1 += [run("composition", target, likelihood=True) for target in ("e_form", "multi", "band_gap")]
    table_1 += [run("bimodal", target, likelihood=True) for target in ("e_form", "band_gap")]

    # Each start with the same steps of fine-tuning; then from scratch with those of pretraining added, which for two
    # targets is also as many labels of each as a single-target run sees.  For one target: scratch against both tasks.
    starts = tuple(pretrained.values())
    table_2 = [*starts, multi, *(run("bimodal", "multi", start) for start in starts)]
    table_2 += [run("bimodal", "multi", n_steps=2 * FULL)]
    for target, seeds in (("e_form", (0, 1, 2)), ("crystal_system", (0,))):
        table_2 += [run("bimodal", target, *start, seed=seed) for seed in seeds for start in ((), (starts[0],))]

    table_5 = [*multis, *(run("bimodal", "multi", start) for start in pretrained.values())]

    unimodal = ("composition", "mat2vec", "crabnet", "xrd", "fcn")
    table_3 = [run(model, target, n_steps=QUARTER) for target in ("e_form", "crystal_system") for model in unimodal]

    transferred = [transfer("bimodal", start=start) for start in source.values()]
    transferred += [transfer(model, start=run(model, "multi", seed=1)) for model in ("composition", "xrd")]
    transferred += [transfer("bimodal", start=pretrained["both"])]
    transferred += [run(model, "band_gap") for model in modalities]

    figure_3 = []
    for size in SIZES:
        budget = {"n_steps": HALF, "n_train": size}
        figure_3 += [run("composition", "e_form", **budget), run("bimodal", "e_form", **budget)]
        figure_3 += [run("bimodal", "e_form", pretrained["both"], **budget)]

    baselines = [run(model, "e_form") for model in ("crabnet", "mat2vec", "fcn", "fcn_mlp")]
    baselines += [run(model, "crystal_system") for model in ("fcn", "fcn_mlp", "crabnet")]
    baselines += [run("bimodal", "space_group")]

    splits = [run(model, target, split="random", n_steps=HALF)
              for target in ("e_form", "crystal_system") for model in modalities]  # fmt: skip
    # Without one family each; beside them, what the same budget reaches that includes it.  mat2vec knows elements that
    # a family takes with it.
    models = ("composition", "mat2vec", "bimodal")
    families = [run(model, "e_form", left_out=family, n_steps=QUARTER) for family in FAMILIES for model in models]
    whole = {model: run(model, "e_form", n_steps=QUARTER) for model in models}

    masked = [pretraining("mxm", hidden_rate=rate, n_steps=QUARTER) for rate in HIDDEN_RATES]
    masked += [pretraining("mxm", hidden_rate=0.2, hidden_span=span, n_steps=QUARTER) for span in SPANS]
    masked += [pretraining("both", n_steps=QUARTER)]
    masked += [pretraining("both", unlabelled=GENERATED, n_steps=QUARTER)]
    masked += [pretraining("both", unlabelled=GENERATED, n_train=0, n_steps=QUARTER)]
    hidden = [whole["bimodal"]]
    for start in masked:
        hidden += [start, run("bimodal", "e_form", start, n_steps=QUARTER)]

    few_shot = []
    for shots in SHOTS:
        budget = {"dataset": NOMAD, "n_train": shots, "n_steps": QUARTER // 2}
        few_shot += [run("composition", "band_gap", **budget)]
        few_shot += [run("bimodal", "band_gap", *start, **budget)
                     for start in ((), (source["e_form"],), (source["multi"],), (pretrained["both"],))]  # fmt: skip

    predictors = [dataclasses.replace(run("bimodal", "e_form"), name=f"predictor-{name}-s0", **(PREDICTOR | changes))
                  for name, changes in PREDICTORS.items()]  # fmt: skip

    # What a checkpoint shows of hidden tokens: of the pattern alone, a quarter of the size.
    guessing = pretraining("mxm", hidden_rate=0.2, model=run("xrd", "e_form").model)

    return {
        "table_1": table_1,
        "predictor": predictors,
        "reconstructing": [dataclasses.replace(guessing, name="reconstructing-s0")],
        "table_2": table_2,
        "table_5": table_5,
        "transfer": transferred,
        "figure_3": figure_3,
        "baselines": baselines,
        "table_3": table_3,
        "splits": splits,
        "families": families + list(whole.values()),
        "hidden": hidden,
        "few_shot": few_shot,
    }


def kind(config):
    """Which of KINDS chose the learning rate of a run, or "predictor"."""
    if config.modality_dropout:
        return "predictor"
    if config.frozen:
        return "frozen"
    if config.model.architecture != "xxact":
        return config.model.architecture.removesuffix("_mlp")
    return "bimodal" if len(config.model.modalities) > 1 else config.model.modalities[0]


def search(kind):
    """The runs among which a kind chooses its learning rate: on E_f, except where it does not predict E_f.

    None for what is not of KINDS.
    """
    if kind not in KINDS:
        return []
    if kind == "frozen":
        config = run("bimodal", "band_gap", pretraining("both"), frozen=True)
    else:
        config = run(kind, "e_form")
    return [
        dataclasses.replace(
            config, name=f"search-{kind}-lr{rate:g}", learning_rate=rate, n_steps=QUARTER, evaluate_test=False
        )
        for rate in (*LEARNING_RATES, *HIGHER.get(kind, ()))
    ]
