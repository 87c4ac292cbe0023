"""What is seen of one sample: arrays in, a matplotlib Figure out, as in plots."""

from itertools import pairwise

import numpy as np
from matplotlib.patches import Patch

from xxlib.diffraction.patterns import N_TOKENS, POINTS_PER_TOKEN, STEP, TWO_THETA
from xxlib.plots.scans import classes, scan_or_pattern
from xxlib.plots.style import (
    ANGLE,
    COLUMN,
    EDGES,
    INTENSITY,
    LINES,
    PAGE,
    SMALL,
    entitle,
    journal,
    subplots,
)

HIDDEN, UNMEASURED = "#FBE3D6", "0.88"
PART = POINTS_PER_TOKEN * STEP  # degree, of a token
LEAST_DIFFERENCE = 5.0  # of 100: a scale that is drawn, or a fit that leaves nothing would look as if it left much


@journal
def reconstruction(pattern, reconstructed, hidden, unmeasured, title=""):
    """A pattern (4250,), and what a model makes of the parts that are hidden from it.

    reconstructed: (4250,).  hidden, unmeasured: (17,) bool, of the tokens: True = the model does not see it; it was not
    measured.
    """
    figure, axes = subplots(size=(PAGE, 2.5))
    ax = axes[0, 0]
    _tokens(ax, hidden, unmeasured)
    ax.plot(TWO_THETA, pattern, color=LINES[0], linewidth=0.8, label="pattern")
    shown = np.where(np.repeat(hidden, POINTS_PER_TOKEN), reconstructed, np.nan)
    if np.any(hidden):
        ax.plot(TWO_THETA, shown, color=LINES[1], label="reconstructed from what is seen")
    handles, _ = ax.get_legend_handles_labels()
    handles += [Patch(color=HIDDEN, label="hidden")] if np.any(hidden) else []
    handles += [Patch(color=UNMEASURED, label="not measured")] if np.any(unmeasured) else []
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    ax.set(xlabel=ANGLE, ylabel=INTENSITY, xlim=EDGES[[0, -1]], ylim=(0, 105), xticks=np.arange(10, 91, 10))
    entitle(figure, title)
    return figure


@journal
def attention(weights, elements, title=""):
    """Cross-attention from the tokens of a pattern to the elements: weights (1 + 17, 1 + E), CLS first."""
    figure, axes = subplots(size=(COLUMN if len(elements) < 4 else PAGE, 3.6))
    ax = axes[0, 0]
    image = ax.imshow(weights, cmap="Blues", vmin=0, aspect="auto")
    ax.set_xticks(range(1 + len(elements)), ["whole\nformula", *elements])
    ax.set_yticks(range(1 + N_TOKENS), ["whole pattern", *parts()])
    ax.set(xlabel="what is attended to", ylabel=f"part of the pattern, {ANGLE}")
    ax.spines[:].set_visible(False)
    figure.colorbar(image, ax=ax, label="attention (rows sum to 1)")
    entitle(figure, title)
    return figure


def parts():
    """The tokens of a pattern by their angles in degree: "5-10", ... "85-90"."""
    return [f"{left:.0f}-{right:.0f}" for left, right in pairwise(EDGES)]


@journal
def reasons(pattern, conditioned, points=None, pushes="", quantity="", title=""):
    """A scan with its background (or a pattern), and below it what its parts push an output by, 5 degree each.

    pattern: (4250,).  conditioned: the Conditioned of a scan, or None.  points: (4250,) of an attribution in the unit
    of `quantity`; None where there is none.  pushes: a line on what is no part of the pattern, as the elements.
    """
    rows = 1 if points is None else 2
    figure, axes = subplots(rows, 1, size=(PAGE, 1.8 + 0.9 * (rows - 1)), sharex=True, height_ratios=(2, 1)[:rows])
    scan_or_pattern(axes[0, 0], pattern, conditioned)
    if rows == 2:
        ax = axes[1, 0]
        per_part = points.reshape(N_TOKENS, POINTS_PER_TOKEN).sum(1)
        colours = [LINES[1] if value > 0 else LINES[0] for value in per_part]
        ax.bar((EDGES[:-1] + EDGES[1:]) / 2, per_part, width=0.92 * PART, color=colours)
        ax.axhline(0, color="0.4", linewidth=0.6)
        limit = 1.15 * max(np.abs(per_part).max(), 1e-9)
        ax.set(ylim=(-limit, limit), ylabel=quantity)
        ax.set_title(pushes, loc="left", fontsize=SMALL)
        axes[0, 0].set_xlabel("")
        figure.align_ylabels(axes[:, 0])
    axes[-1, 0].set(xlabel=ANGLE, xlim=EDGES[[0, -1]])
    entitle(figure, title)
    return figure


@journal
def answer(values, probabilities, sets, level, labels=None, title=""):
    """An answer: a bar a class, the regressions with their intervals.

    values: name with unit -> (value, low, high).  probabilities: class -> probability, or empty.  sets: the classes
    that hold the truth at `level`.  labels: the truth by the same names, and "class", where there is a label.
    """
    labels = labels or {}
    panels = len(values) + bool(probabilities)
    ratios = [1] * len(values) + [2.2] * bool(probabilities)
    figure, axes = subplots(1, panels, size=(PAGE if panels > 1 else COLUMN, 2.1), width_ratios=ratios)
    for ax, (name, (value, low, high)) in zip(axes[0], values.items()):
        ax.errorbar([0], [value], [[value - low], [high - value]], fmt="o", color=LINES[0], capsize=5, markersize=5)
        ax.annotate(f"{value:.2f}", (0, value), xytext=(7, 0), textcoords="offset points", va="center")
        if np.isfinite(labels.get(name, np.nan)):
            ax.axhline(labels[name], color=LINES[1], linestyle="--", label="true")
            ax.legend(loc="upper right")
        ax.set(xticks=[], xlim=(-1, 1), ylabel=name, xlabel=f"{level:.0%} interval")
        ax.margins(y=0.3)
    if probabilities:
        ax = axes[0, -1]
        classes(ax, probabilities, sets, level)
        for tick, name in zip(ax.get_yticklabels(), probabilities):
            tick.set_color(LINES[1] if name == labels.get("class") else "black")
    entitle(figure, title)
    return figure


@journal
def neighbours(pattern, others, names, title=""):
    """The pattern of a sample (4250,), or None, above those of the materials (n, 4250) that are nearest to it."""
    rows = ([] if pattern is None else [("this sample", pattern, LINES[1])]) + [
        (name, values, LINES[0]) for name, values in zip(names, others)
    ]
    figure, axes = subplots(size=(PAGE, 0.5 * len(rows) + 0.8))
    ax = axes[0, 0]
    for k, (name, values, colour) in enumerate(rows):
        base = 120 * (len(rows) - 1 - k)
        if pattern is not None and k:
            ax.fill_between(TWO_THETA, base, base + pattern, color=LINES[1], alpha=0.25, linewidth=0)
        ax.plot(TWO_THETA, base + values, color=colour, linewidth=0.8)
        ax.text(90.5, base + 10, name, fontsize=SMALL)
    ax.set(xlabel=ANGLE, ylabel=INTENSITY + ", shifted", xlim=(5, 90), yticks=[])
    entitle(figure, title)
    return figure


@journal
def candidate(observed, measured, phases, unexplained, absent=(), title=""):
    """A scan, the pattern calculated of known crystals, and the difference; between them the lines of each crystal.

    observed: (4250,), 0-100, without background and noise.  measured: (4250,) bool.  phases: for each crystal (name,
    pattern (4250,) on the scale of the scan, 2 theta (n,) of its lines in degree); none where nothing explains it.
    unexplained: 2 theta (p,) in degree of observed lines that none of them has.  absent: 2 theta (q,) of lines that
    they should have and the scan has not.
    Intensity is on a scale of square roots, as counting noise is: weak lines are seen beside strong ones.
    """
    rows = max(len(phases), 1)
    figure, axes = subplots(3, 1, size=(PAGE, 3.0 + 0.15 * rows), sharex=True, height_ratios=(4, 0.35 * rows, 1.2))
    top, middle, bottom = axes[:, 0]
    shown = np.where(measured, observed, np.nan)
    calculated = sum((pattern for _, pattern, _ in phases), np.zeros(len(observed)))
    top.plot(TWO_THETA, shown, color="0.6", linewidth=1.6, label="scan")
    if phases:
        top.plot(TWO_THETA, np.where(measured, calculated, np.nan), color=LINES[1], linewidth=0.8, label="calculated")
    _marks(top, observed, unexplained, "unexplained", marker="v", color=LINES[3])
    _marks(top, calculated, absent, "calculated and absent", marker="v", edgecolor=LINES[5], facecolor="none")
    top.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
    top.set(ylabel=INTENSITY, ylim=(0, 135), yticks=(0, 1, 10, 25, 50, 100))
    figure.legend(*top.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    for k, (_, _, lines) in enumerate(phases):
        middle.vlines(lines, -k - 0.4, -k + 0.4, color=LINES[(1, 2)[k % 2]], linewidth=0.8)
    middle.set(ylim=(0.5 - rows, 0.5), yticks=-np.arange(len(phases)))
    middle.set_yticklabels([name for name, *_ in phases])
    middle.tick_params(left=False, bottom=False)
    middle.spines[:].set_visible(False)
    difference = shown - calculated
    bottom.plot(TWO_THETA, difference, color=LINES[0], linewidth=0.8)
    bottom.axhline(0, color="0.6", linewidth=0.6, zorder=0)
    largest = 1.1 * max(np.nanmax(np.abs(difference), initial=0), LEAST_DIFFERENCE)
    bottom.set(xlabel=ANGLE, ylabel="difference", xlim=EDGES[[0, -1]], ylim=(-largest, largest))
    figure.align_ylabels([top, bottom])
    for ax in (top, bottom):
        for left, right in _gaps(measured):
            ax.axvspan(left, right, color=UNMEASURED, zorder=0)
    entitle(figure, title)
    return figure


def _marks(ax, pattern, two_theta, what, **style):
    """A mark above each of some lines of a pattern (4250,); the legend gives their number."""
    if not len(two_theta):
        return
    at = np.searchsorted(TWO_THETA, two_theta).clip(max=len(TWO_THETA) - 1)
    heights = [(np.sqrt(pattern[max(0, i - 5) : i + 6].max()) + 0.5) ** 2 for i in at]
    label = f"{len(at)} {'line' if len(at) == 1 else 'lines'} {what}"
    ax.scatter(two_theta, heights, s=12, linewidth=0.8, zorder=3, label=label, **style)


def _gaps(measured):
    """2 theta of the ends of what was not measured, of points (4250,) bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~measured, [False]]).astype(int)))
    return [(TWO_THETA[first], TWO_THETA[end - 1]) for first, end in edges.reshape(-1, 2)]


def _tokens(ax, hidden, unmeasured):
    for k, (left, right) in enumerate(pairwise(EDGES)):
        colour = UNMEASURED if unmeasured[k] else HIDDEN if hidden[k] else ("0.96", "white")[k % 2]
        ax.axvspan(left, right, color=colour, zorder=0)
