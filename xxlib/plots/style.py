"""What figures have in common: the size of print, colours, names of axes, panels; and how they are saved.

A figure is as wide as a column or a page of a journal and is read at that size: nothing in it is smaller than 7 points.
"""

import io
from functools import wraps
from string import ascii_lowercase
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np

from xxlib import PROJECT
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.diffraction.axes import along
from xxlib.diffraction.patterns import N_TOKENS, POINTS_PER_TOKEN, STEP, TWO_THETA
from xxlib.diffraction.wavelengths import CU_KA

COLUMN, PAGE = 3.5, 7.2  # inch: one column and two of a journal, 89 and 183 mm
TEXT, SMALL = 8, 7  # points
DOTS = 110  # an inch, of pictures that are seen on a screen
JOURNAL = {
    "font.size": TEXT, "axes.labelsize": TEXT, "axes.titlesize": TEXT, "figure.titlesize": TEXT,
    "legend.fontsize": SMALL, "legend.title_fontsize": SMALL, "xtick.labelsize": SMALL, "ytick.labelsize": SMALL,
    "axes.linewidth": 0.6, "grid.linewidth": 0.5, "grid.color": "0.92", "lines.linewidth": 1.1, "lines.markersize": 3.5,
    "patch.linewidth": 0.5, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "legend.frameon": False, "legend.handlelength": 1.8, "figure.dpi": 200, "figure.constrained_layout.w_pad": 0.03,
    "figure.constrained_layout.h_pad": 0.03,
}  # fmt: skip

# Paul Tol's "bright" scheme has exactly seven colours; the crystal systems have these in every figure.
PALETTE = dict(
    zip(CRYSTAL_SYSTEMS, ("#BBBBBB", "#EE6677", "#CCBB44", "#228833", "#66CCEE", "#4477AA", "#AA3377"), strict=True)
)
# Everything else that is told apart by colour: Okabe and Ito's colours, without those too pale for a line.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")
MARKERS = "os^Dvp"
WIDTHS = (1.7, 1.1, 1.1, 1.1)  # points: a line that lies on the first leaves its edges to be seen

ANGLE, INTENSITY = "2θ (degree)", "intensity (0-100)"
ALONG = {"two_theta": "2θ at Cu Kα (degree)", "q": "scattering vector q (1/Å)", "d": "lattice spacing d (Å)"}
EDGES = TWO_THETA[0] + STEP * POINTS_PER_TOKEN * np.arange(N_TOKENS + 1)  # degree, of the tokens of a pattern


def journal(draw):
    """A function that draws a Figure, drawing it in the style of a journal."""

    @wraps(draw)
    def drawing(*arguments, **options):
        with plt.rc_context(JOURNAL):
            return draw(*arguments, **options)

    return drawing


def save_figure(figure, name):
    """Save a Figure as figures/<name>.pdf and, with 300 dots an inch, .png, and return the path of the latter.

    `name` may hold folders, as in "mp36k/figure_4".  A journal has no titles in figures: it is in the file's metadata.
    """
    path = PROJECT / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    title = figure._suptitle
    said = {"Title": title.get_text() if title else ""}
    if title:
        title.set(visible=False, in_layout=False)
    with plt.rc_context({"pdf.fonttype": 42}):  # letters stay letters
        figure.savefig(path, dpi=300, metadata=said)
        figure.savefig(path.with_suffix(".pdf"), dpi=300, metadata=said | {"CreationDate": None})
    if title:
        title.set(visible=True, in_layout=True)
    return path


def typeset(name):
    """A name from a table as a figure shows it: E_f as $E_f$."""
    return name.replace("E_f", "$E_f$")


def subplots(n_rows=1, n_columns=1, *, size, **options):
    """A Figure of a size in inches, and its axes (n_rows, n_columns)."""
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False, **options)
    plt.close(figure)  # a notebook would show it twice: as an open figure and as the value of its cell
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_axisbelow(True)
        # Ticks are made when a figure is drawn, which may be after its style has been left.
        ax.tick_params(labelsize=plt.rcParams["xtick.labelsize"], width=plt.rcParams["axes.linewidth"])
    return figure, axes


def entitle(figure, title):
    """A title above a Figure, in lines that are no wider than it; save_figure leaves it out."""
    figure.suptitle(fill(title, int(15 * figure.get_figwidth())))


def letter(axes, names=()):
    """a, b, c, ... above the left end of each of several panels, and after it what the panel is of."""
    panels = list(np.ravel(axes))
    for k, ax in enumerate(panels):
        words = [rf"$\bf{{{ascii_lowercase[k]}}}$"] * (len(panels) > 1) + list(names[k : k + 1])
        ax.set_title("  ".join(words), loc="left", fontsize=SMALL if names else TEXT)


def in_black(level):
    """What the black outlines of classes mean: one of these is right, in so many cases."""
    return f"outlined: {level:.0%} sure"


def grid_along(axis):
    """Values (4250,) of the grid along "two_theta", "q" or "d"."""
    return along(axis, TWO_THETA, CU_KA)


def scale_along(ax, axis):
    """Name and limits of a horizontal axis along "two_theta", "q" or "d": small angles on the left."""
    ends = grid_along(axis)[[0, -1]]
    ax.set(xlabel=ALONG[axis], xlim=ends, xscale="log" if axis == "d" else "linear")
    if axis == "d":
        ticks = [10, 5, 4, 3, 2, 1.5, 1.2]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()


def png(figure, title=True):
    """A figure as PNG for a screen; title: False where it stands beside the picture already."""
    if not title and figure._suptitle:
        figure._suptitle.set(visible=False, in_layout=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DOTS)
    return buffer.getvalue()
