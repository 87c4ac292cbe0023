"""A noise study: what a trained model loses on `val` as one effect of instrument or powder grows, all others absent."""

import pandas as pd
from tqdm import tqdm

from xxlib.diffraction.effects import Effects
from xxlib.training.examples import examples_of
from xxlib.training.judging import given, modalities_given
from xxlib.training.metrics import accuracy_interval, regression_metrics

# Words with unit, field of Effects, values from harmless to severe.
SEVERITIES = (
    ("instrument width (degree)", "instrument", (0.05, 0.1, 0.2, 0.4, 0.8)),
    ("crystallite size (nm)", "size", (200, 50, 20, 10, 5)),
    ("microstrain (%)", "strain", (0, 0.1, 0.2, 0.5, 1)),
    ("zero shift (degree)", "zero_shift", (0, 0.05, 0.1, 0.2, 0.4)),
    ("sample displacement (mm)", "displacement", (0, 0.1, 0.2, 0.4, 0.8)),
    ("change of the cell's lengths (%)", "lattice", (-3, -2, -1, 0, 1)),
    ("counts in the maximum", "counts", (100_000, 10_000, 1000, 300, 100)),
    ("background left (of 100)", "residue", (0, 0.5, 1, 2, 5)),
    ("strongest impurity line (of 100)", "impurity", (0, 5, 10, 20, 40)),
    ("scatter of line intensities (ln)", "line_scatter", (0, 0.25, 0.5, 0.75, 1)),
    ("start of the range (degree)", "start", (5, 10, 15, 20, 30)),
    ("end of the range (degree)", "end", (90, 80, 70, 60, 50)),
)
BACKGROUND = 5.0  # of 100: that whose counting noise is there where counts are studied
ERRORS = {"e_form": ("E_f MAE (meV/atom)", 1000), "band_gap": ("band gap MAE (eV)", 1)}


def noise_study(ensemble, severities=SEVERITIES):
    """What an Ensemble loses on `val` of its dataset: one row an effect, value and what is given.

    Accuracy of the crystal system with its interval, and MAE.  What is drawn for a crystal stays
    the same from value to value, so that differences are those of the severity.
    """
    examples = examples_of(ensemble.config)
    dataset, val = examples.dataset, examples.rows["val"]
    labels = {name: dataset.labels[name][val] for name in ensemble.targets}
    views = [words for words in given(ensemble.config) if "xrd" in modalities_given(words)]
    steps = [(effect, field, value, view) for effect, field, values in severities for value in values for view in views]
    rows = []
    for effect, field, value, view in tqdm(steps, desc="noise study", unit="evaluation"):
        effects = {field: (value, value)} | ({"background": (BACKGROUND, BACKGROUND)} if field == "counts" else {})
        said = ensemble.of_rows(dataset, val, modalities_given(view), Effects(**effects))
        row = {"given": view, "effect": effect, "value": value}
        if "crystal_system" in said.logits:
            row |= accuracy_interval(said.logits["crystal_system"].argmax(1) == labels["crystal_system"])
        for name, values in said.values.items():
            words, scale = ERRORS[name]
            row[words] = scale * regression_metrics(labels[name], values)["mae"]
        rows.append(row)
    return pd.DataFrame(rows)
