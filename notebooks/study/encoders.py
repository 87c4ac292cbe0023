"""With what is each modality read best?  Table 3: variants of the unimodal models, all with a quarter of the steps.

The paper's Table 3 trains PXRDPiAYN's networks for 50 to 200 epochs; these are encoders that this kit has.
Cost: 10 runs, 1.5 hours on a core.
"""

from study import archive, paper
from study.archive import RESULTS
from study.claims import paired
from study.tables import CRYSTAL_SYSTEM, E_FORM, planned_table, summary_table
from study.variants import variant
from xxlib.training.presets import PRESETS

TABLE = "table_3"


def run(preset, model, target):
    return variant(preset, model, target, n_steps=PRESETS[preset].budget.n_steps // 4)


def runs(preset="small"):
    """The composition through three encoders, the pattern through two."""
    models = ("composition", "mat2vec", "crabnet", "xrd", "fcn")
    return [run(preset, model, target) for target in ("e_form", "crystal_system") for model in models]


def table(configs=None, place=RESULTS):
    """The summary of the runs."""
    return summary_table(planned_table(configs or runs(), place), (E_FORM, CRYSTAL_SYSTEM))


def findings(place=RESULTS):
    """The convolutional network against the transformer."""
    fcn, own = (run("small", model, "crystal_system").name for model in ("fcn", "xrd"))
    gain, half = paired(own, fcn, "crystal_system", place)
    of = [archive.value(name, "accuracy", "crystal_system", place=place) for name in (fcn, own)]
    theirs = [
        paper.said("table_1", CRYSTAL_SYSTEM, model=model, targets="crystal_system")
        for model in ("FCN", "XRD transformer")
    ]
    return [
        f"From the pattern alone FCN is right for {of[0]:.1f} % of the crystal systems, the transformer for "
        f"{of[1]:.1f} %: {gain:.1f} ± {half:.1f} points more (95 %, over the crystals of test, one seed each).",
        f"In the paper, with 4.5 million crystals, they are level: {theirs[0]} and {theirs[1]} %.",
    ]
