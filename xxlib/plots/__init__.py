"""Figures: arrays and tables in, a matplotlib Figure out.

Units are on the axes, colours are those that colour-blind readers tell apart.
"""

from xxlib.plots.answers import accuracies, by_bin, confusion, pairs, parity, refusal, reliability, severity
from xxlib.plots.crystals import cell, diffraction, tokens
from xxlib.plots.datasets import crystal_systems, elements, patterns_by_system, preparation
from xxlib.plots.learning import differences, histograms, latent, learning_columns, learning_curves, progress, scaling
from xxlib.plots.scans import answered, conditioning, series, sheet
from xxlib.plots.style import DASHES, LINES, PALETTE, save_figure

__all__ = [
    "DASHES", "LINES", "PALETTE", "accuracies", "answered", "by_bin", "cell", "conditioning", "confusion",
    "crystal_systems", "differences", "diffraction", "elements", "histograms", "latent", "learning_columns",
    "learning_curves", "pairs", "parity", "patterns_by_system", "preparation", "progress", "refusal", "reliability",
    "save_figure", "scaling", "series", "severity", "sheet", "tokens",
]  # fmt: skip
