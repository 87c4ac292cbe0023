"""What figures have in common: colours, names of axes, panels; and how they are saved."""

import matplotlib.pyplot as plt
import numpy as np

from xxlib import PROJECT
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.diffraction.patterns import N_TOKENS, POINTS_PER_TOKEN, STEP, TWO_THETA

# Paul Tol's "bright" scheme has exactly seven colours; the crystal systems have these in every figure.
PALETTE = dict(
    zip(CRYSTAL_SYSTEMS, ("#BBBBBB", "#EE6677", "#CCBB44", "#228833", "#66CCEE", "#4477AA", "#AA3377"), strict=True)
)
# Everything else that is told apart by colour: Okabe and Ito's colours, without those too pale for a line.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")

ANGLE, INTENSITY = "2θ (degree)", "intensity (0-100)"
EDGES = TWO_THETA[0] + STEP * POINTS_PER_TOKEN * np.arange(N_TOKENS + 1)  # degree, of the tokens of a pattern


def save_figure(figure, name):
    """Save a Figure as figures/<name>.png and return the path; `name` may hold folders, as in "mp36k/figure_4"."""
    path = PROJECT / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    return path


def subplots(n_rows=1, n_columns=1, *, size, **options):
    """A Figure of a size in inches, and its axes (n_rows, n_columns)."""
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False, **options)
    plt.close(figure)  # a notebook would show it twice: as an open figure and as the value of its cell
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_axisbelow(True)
    return figure, axes
