"""What is seen of one sample: arrays in, a matplotlib Figure out, as in plots."""

from itertools import pairwise

import numpy as np
from matplotlib.patches import Patch

from xxlib.diffraction.patterns import N_TOKENS, POINTS_PER_TOKEN, TWO_THETA
from xxlib.plots.style import ANGLE, EDGES, INTENSITY, LINES, PALETTE, subplots

HIDDEN, UNMEASURED = "#FBE3D6", "0.88"
LEAST_DIFFERENCE = 5.0  # of 100: a scale that is drawn, or a fit that leaves nothing would look as if it left much


def reconstruction(pattern, reconstructed, hidden, unmeasured, title=""):
    """A pattern (4250,) with its 17 tokens, and what a model makes of the hidden ones.

    reconstructed: (4250,).  hidden, unmeasured: (17,) bool, True = the model does not see it; it was not measured.
    """
    figure, axes = subplots(size=(10, 3.8))
    ax = axes[0, 0]
    _tokens(ax, hidden, unmeasured)
    ax.plot(TWO_THETA, pattern, color=LINES[0], linewidth=0.9, label="pattern")
    shown = np.where(np.repeat(hidden, POINTS_PER_TOKEN), reconstructed, np.nan)
    if np.any(hidden):
        ax.plot(TWO_THETA, shown, color=LINES[1], linewidth=1.2, label="reconstructed from what is seen")
    _legend(ax, hidden, unmeasured)
    ax.set(xlabel=ANGLE, ylabel=INTENSITY, xlim=EDGES[[0, -1]], ylim=(0, 115), title=title)
    return figure


def attention(weights, elements, title=""):
    """Cross-attention from the tokens of a pattern to the elements: weights (1 + 17, 1 + E), CLS first."""
    figure, axes = subplots(size=(1.0 * len(elements) + 3.4, 5.6))
    ax = axes[0, 0]
    image = ax.imshow(weights, cmap="Blues", vmin=0, aspect="auto")
    labels = [f"{left:.0f}-{right:.0f}" for left, right in pairwise(EDGES)]
    ax.set_xticks(range(1 + len(elements)), ["whole\nformula", *elements])
    ax.set_yticks(range(1 + N_TOKENS), ["whole pattern", *labels])
    ax.set(xlabel="what is attended to", ylabel=f"token, {ANGLE}", title=title)
    ax.spines[:].set_visible(False)
    figure.colorbar(image, ax=ax, label="attention (rows sum to 1)")
    return figure


def attribution(pattern, points, elements, shares, quantity, title=""):
    """What pushes an output up or down: points (4250,) of the pattern, shares (E,) of the elements, in `quantity`."""
    figure, axes = subplots(1, 2, size=(10, 3.8), width_ratios=(3, 1))
    left, right = axes[0]
    left.plot(TWO_THETA, pattern, color="0.75", linewidth=0.8)
    left.set(xlabel=ANGLE, ylabel=INTENSITY, xlim=EDGES[[0, -1]], ylim=(0, 115), title=title)
    per_token = points.reshape(N_TOKENS, POINTS_PER_TOKEN).sum(1)
    bars = left.twinx()
    colours = [LINES[1] if value > 0 else LINES[0] for value in per_token]
    bars.bar((EDGES[:-1] + EDGES[1:]) / 2, per_token, width=4.6, color=colours, alpha=0.45)
    bars.axhline(0, color="0.4", linewidth=0.6)
    bars.set_ylabel(f"attribution of a token ({quantity})")
    limit = 1.15 * max(np.abs(per_token).max(), 1e-9)
    bars.set_ylim(-limit, limit)
    right.barh(elements, shares, color=[LINES[1] if value > 0 else LINES[0] for value in shares])
    right.axvline(0, color="0.4", linewidth=0.6)
    right.invert_yaxis()
    right.set(xlabel=f"attribution ({quantity})", title="elements")
    return figure


def answer(values, probabilities, sets, level, labels=None, title=""):
    """An answer: a bar a class, the regressions with their intervals.

    values: name with unit -> (value, low, high).  probabilities: class -> probability, or empty.  sets: the classes
    that hold the truth at `level`.  labels: the truth by the same names, and "class", where there is a label.
    """
    labels = labels or {}
    panels = len(values) + bool(probabilities)
    ratios = [1] * len(values) + [1.6] * bool(probabilities)
    figure, axes = subplots(1, panels, size=(2.4 * len(values) + 4.6 * bool(probabilities), 3.6), width_ratios=ratios)
    for ax, (name, (value, low, high)) in zip(axes[0], values.items()):
        ax.errorbar([0], [value], [[value - low], [high - value]], fmt="o", color=LINES[0], capsize=8, markersize=8)
        ax.annotate(f"{value:.2f}", (0, value), xytext=(10, 0), textcoords="offset points", va="center")
        if np.isfinite(labels.get(name, np.nan)):
            ax.axhline(labels[name], color=LINES[1], linestyle="--", linewidth=1.2, label="label")
            ax.legend(frameon=False, loc="upper right")
        ax.set(xticks=[], xlim=(-1, 1), ylabel=name, title=f"{level:.0%} interval")
        ax.margins(y=0.3)
    if probabilities:
        ax = axes[0, -1]
        names = list(probabilities)
        edge = ["black" if name in sets else "none" for name in names]
        bars = ax.barh(names, [100 * p for p in probabilities.values()], color=[PALETTE.get(n, "0.6") for n in names],
                       edgecolor=edge, linewidth=1.2)  # fmt: skip
        ax.bar_label(bars, [f"{100 * p:.0f} %" for p in probabilities.values()], padding=3, fontsize=9)
        ax.invert_yaxis()
        ax.set(xlabel="probability (%)", xlim=(0, 112), title=f"framed: {level:.0%} set")
        for tick, name in zip(ax.get_yticklabels(), names):
            tick.set_color(LINES[1] if name == labels.get("class") else "black")
    figure.suptitle(title)
    return figure


def neighbours(pattern, others, names, title=""):
    """The pattern of a sample (4250,), or None, above those of the materials (n, 4250) that are nearest to it."""
    rows = ([] if pattern is None else [("this sample", pattern, LINES[1])]) + [
        (name, values, LINES[0]) for name, values in zip(names, others)
    ]
    figure, axes = subplots(size=(10, 0.8 * len(rows) + 0.9))
    ax = axes[0, 0]
    for k, (name, values, colour) in enumerate(rows):
        base = 120 * (len(rows) - 1 - k)
        if pattern is not None and k:
            ax.fill_between(TWO_THETA, base, base + pattern, color=LINES[1], alpha=0.25, linewidth=0)
        ax.plot(TWO_THETA, base + values, color=colour, linewidth=0.9)
        ax.text(90.5, base + 10, name, fontsize=9)
    ax.set(xlabel=ANGLE, ylabel=INTENSITY + ", shifted", xlim=(5, 90), yticks=[], title=title)
    return figure


def candidate(observed, measured, phases, unexplained, title=""):
    """A scan, the pattern calculated of known crystals, and the difference; between them the lines of each crystal.

    observed: (4250,), 0-100, without background and noise.  measured: (4250,) bool.  phases: for each crystal (name,
    pattern (4250,) on the scale of the scan, 2 theta (n,) of its lines in degree); none where nothing explains it.
    unexplained: 2 theta (p,) in degree of observed lines that none of them has.
    Intensity is on a scale of square roots, as counting noise is: weak lines are seen beside strong ones.
    """
    rows = max(len(phases), 1)
    figure, axes = subplots(3, 1, size=(7.2, 3.8 + 0.2 * rows), sharex=True, height_ratios=(4, 0.3 * rows, 1.2))
    top, middle, bottom = axes[:, 0]
    shown = np.where(measured, observed, np.nan)
    calculated = sum((pattern for _, pattern, _ in phases), np.zeros(len(observed)))
    top.plot(TWO_THETA, shown, color="0.6", linewidth=1.8, label="scan")
    if phases:
        top.plot(TWO_THETA, np.where(measured, calculated, np.nan), color=LINES[1], linewidth=0.8, label="calculated")
    at = np.searchsorted(TWO_THETA, unexplained).clip(max=len(TWO_THETA) - 1)
    heights = [observed[max(0, i - 5) : i + 6].max() for i in at]
    raised = [(np.sqrt(height) + 0.6) ** 2 for height in heights]
    if len(raised):
        label = f"{len(raised)} {'line' if len(raised) == 1 else 'lines'} unexplained"
        top.scatter(unexplained, raised, s=18, marker="v", color=LINES[3], zorder=3, label=label)
    top.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
    top.set(ylabel=INTENSITY, ylim=(0, 160), yticks=(0, 1, 10, 25, 50, 100), title=title)
    top.legend(loc="upper right", ncols=3, frameon=False, fontsize=9)
    for k, (_, _, lines) in enumerate(phases):
        middle.vlines(lines, -k - 0.4, -k + 0.4, color=LINES[(1, 2)[k % 2]], linewidth=0.8)
    middle.set(ylim=(0.5 - rows, 0.5), yticks=-np.arange(len(phases)))
    middle.set_yticklabels([name for name, *_ in phases], fontsize=8)
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
    return figure


def _gaps(measured):
    """2 theta of the ends of what was not measured, of points (4250,) bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~measured, [False]]).astype(int)))
    return [(TWO_THETA[first], TWO_THETA[end - 1]) for first, end in edges.reshape(-1, 2)]


def _tokens(ax, hidden, unmeasured):
    for k, (left, right) in enumerate(pairwise(EDGES)):
        colour = UNMEASURED if unmeasured[k] else HIDDEN if hidden[k] else ("0.96", "white")[k % 2]
        ax.axvspan(left, right, color=colour, zorder=0)
        ax.text((left + right) / 2, 104, str(k + 1), ha="center", fontsize=9)


def _legend(ax, hidden, unmeasured):
    handles, _ = ax.get_legend_handles_labels()
    handles += [Patch(color=HIDDEN, label="hidden")] if np.any(hidden) else []
    handles += [Patch(color=UNMEASURED, label="not measured")] if np.any(unmeasured) else []
    ax.legend(handles=handles, loc="upper right", bbox_to_anchor=(1, 0.9), frameon=False, fontsize=9)
