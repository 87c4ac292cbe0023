"""Figures of measured scans: how one becomes a pattern, what is said of it, a series of them."""

import numpy as np

from xxlib.diffraction.axes import along
from xxlib.diffraction.patterns import STEP, TWO_THETA
from xxlib.diffraction.wavelengths import CU_KA
from xxlib.plots.style import (
    INTENSITY,
    LINES,
    PAGE,
    PALETTE,
    SMALL,
    entitle,
    grid_along,
    in_black,
    journal,
    letter,
    scale_along,
    subplots,
)

LEAST_SHOWN = 0.05  # probability: a class that is never likelier is left out of a series


@journal
def conditioning(conditioned, title="", axis="two_theta"):
    """Every step from a measured scan to its pattern (a Conditioned): as measured, on the grid, without background.

    axis: "two_theta", "q" or "d", of all three.
    """
    figure, axes = subplots(3, 1, size=(PAGE, 5.4))
    top, middle, bottom = axes[:, 0]
    measured = f"as measured: {len(conditioned.two_theta):,} points"
    top.plot(along(axis, conditioned.two_theta, conditioned.wavelength), conditioned.intensity, color=LINES[0],
             linewidth=0.7, label=measured)  # fmt: skip
    scale_along(top, axis)
    if axis == "two_theta":
        ends = conditioned.two_theta[[0, -1]]
        top.set(xlabel=f"2θ at {conditioned.wavelength:.4f} Å (degree)", xlim=ends)
    top.set_ylabel(f"intensity\n({conditioned.unit})")
    _steps(middle, conditioned, axis)
    first, last = conditioned.covered
    inside = (first <= TWO_THETA) & (last >= TWO_THETA)
    bottom.plot(grid_along(axis)[inside], conditioned.pattern[inside], color=LINES[0], linewidth=0.7, label="pattern")
    bottom.set_ylabel(INTENSITY)
    for ax in (middle, bottom):
        _not_measured(ax, conditioned, axis)
        scale_along(ax, axis)
    for ax in (top, middle, bottom):
        ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
        ax.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=3)
    letter(axes)
    entitle(figure, title)
    return figure


def _steps(ax, conditioned, axis):
    """A scan on the grid, and its background."""
    x = grid_along(axis)
    ax.plot(x, conditioned.resampled, color=LINES[0], linewidth=0.7, label="scan, as with Cu Kα")
    ax.plot(x, conditioned.background, color=LINES[1], linewidth=1.2, label="background")
    ax.set_ylabel(f"intensity\n({conditioned.unit}, scaled)")


def _not_measured(ax, conditioned, axis):
    first, last = conditioned.covered
    gaps = [pair for pair in ((TWO_THETA[0], first), (last, TWO_THETA[-1])) if pair[1] - pair[0] > STEP]
    for k, ends in enumerate(gaps):
        left, right = grid_along(axis)[np.searchsorted(TWO_THETA, np.array(ends) - STEP / 2)]
        ax.axvspan(left, right, color="0.88", zorder=0, label="_" * k + "not measured")


def scan_or_pattern(ax, pattern, conditioned, axis="two_theta"):
    """On axes: a scan on the grid with its background, a Conditioned; where that is None, a pattern (4250,)."""
    if conditioned is None:
        ax.plot(grid_along(axis), pattern, color=LINES[0], linewidth=0.7)
        ax.set_ylabel(INTENSITY)
    else:
        _steps(ax, conditioned, axis)
        _not_measured(ax, conditioned, axis)
        ax.legend(loc="upper right")
    ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
    scale_along(ax, axis)


@journal
def sheet(pattern, conditioned, probabilities, sets, level, axis="two_theta", known=("", ())):
    """One sample of a report: its scan with the background (or its pattern, where that was given), and its classes.

    pattern: (4250,), or None where there is none.  conditioned: the Conditioned of a scan, or None.  probabilities:
    class -> probability.  sets: the classes that hold the truth at `level`, in black.  known: name of a known crystal
    and 2 theta (n,) of its lines in degree, which are drawn beneath the scan.
    """
    seen, said = pattern is not None, bool(probabilities)
    ratios = [3] * seen + [1] * said
    figure, axes = subplots(1, len(ratios), size=(PAGE if seen else PAGE / 2, 1.9), width_ratios=ratios)
    if seen:
        scan_or_pattern(axes[0, 0], pattern, conditioned, axis)
        if len(known[1]):
            _ticks(axes[0, 0], *known, axis)
            axes[0, 0].legend(loc="upper right")
    if said:
        classes(axes[0, -1], probabilities, sets, level)
    return figure


def _ticks(ax, crystal, lines, axis):
    """The lines of a known crystal, 2 theta (n,) in degree, beneath a scan."""
    top, lines = ax.get_ylim()[1], np.asarray(lines)
    x = along(axis, lines[(lines > TWO_THETA[0]) & (lines < TWO_THETA[-1])], CU_KA)
    ax.vlines(x, -0.09 * top, -0.03 * top, color=LINES[2], linewidth=0.9, label=crystal)
    ax.set_ylim(-0.12 * top, top)


def classes(ax, probabilities, sets, level):
    """Draw probabilities of classes (7 at most, by name) as bars, those of the set outlined."""
    names = list(probabilities)[:7]
    shares = [100 * probabilities[name] for name in names]
    edges = ["black" if name in sets else "none" for name in names]
    bars = ax.barh(names, shares, color=[PALETTE.get(name, "0.6") for name in names], edgecolor=edges, linewidth=0.8)
    ax.bar_label(bars, [f"{share:.0f} %" for share in shares], padding=2, fontsize=SMALL)
    ax.invert_yaxis()
    ax.set(xlabel=f"probability (%)\n{in_black(level)}", xlim=(0, 125), xticks=(0, 50, 100))


@journal
def series(patterns, values, label, regressions, probabilities, axis="two_theta"):
    """Lines over a series of scans, and beside them the answers over it.

    patterns: (n, 4250), NaN where there is none.  values: (n,) of what changes, `label` its name and unit.
    regressions: name and unit -> (n, 3) value, low, high.  probabilities: class -> (n,); NaN where it was refused.
    """
    order = np.argsort(values, kind="stable")
    values, patterns = np.asarray(values, float)[order], np.asarray(patterns, float)[order]
    if len(values) < 2:
        raise ValueError("a series has two scans at least: nothing to draw")
    n_panels = 1 + len(regressions) + bool(probabilities)
    ratios = [2.4] + [1] * (n_panels - 1)
    figure, axes = subplots(1, n_panels, size=(PAGE, 3.2), width_ratios=ratios, sharey=True)
    ax = axes[0, 0]
    middles = (values[1:] + values[:-1]) / 2
    edges = np.r_[2 * values[0] - middles[0], middles, 2 * values[-1] - middles[-1]]
    x = grid_along(axis)
    # The square root shows weak lines beside strong ones.
    image = ax.pcolormesh(
        np.r_[x, 2 * x[-1] - x[-2]], edges, np.sqrt(patterns), cmap="magma_r", vmin=0, vmax=10, rasterized=True
    )
    scale_along(ax, axis)
    ax.set(ylabel=label, ylim=edges[[0, -1]])
    bar = figure.colorbar(image, ax=ax, location="top", ticks=[0, 10**0.5, 5, 10], shrink=0.5, aspect=40)
    bar.ax.set_xticklabels(["0", "10", "25", "100"])
    bar.set_label("intensity (0-100)")
    for k, (quantity, answers) in enumerate(regressions.items()):
        ax, (value, low, high) = axes[0, 1 + k], np.asarray(answers, float)[order].T
        style = {"color": LINES[0], "marker": "o", "markersize": 2.5, "elinewidth": 0.5, "ecolor": "0.6"}
        ax.errorbar(value, values, xerr=[value - low, high - value], **style)
        ax.set_xlabel(quantity.replace(" (", "\n("))
        ax.grid(axis="x")
    if probabilities:
        ax = axes[0, -1]
        for name, shares in probabilities.items():
            shares = np.asarray(shares, float)[order]
            if np.nanmax(shares, initial=0) > LEAST_SHOWN:
                ax.plot(100 * shares, values, color=PALETTE.get(name, "0.5"), marker="o", markersize=2.5, label=name)
        ax.set(xlabel="probability (%)", xlim=(-3, 103))
        ax.grid(axis="x")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower right", ncols=7)
    letter(axes)
    return figure


@journal
def answered(conditioned, crystal, lines, values, probabilities, sets, level, labels=None):
    """An answer at a glance: a scan with its background and the lines of a known crystal, classes, and numbers.

    conditioned: the Conditioned of the scan.  crystal: name of the known crystal; lines: 2 theta (n,) of its lines in
    degree.  values: name with unit -> (value, low, high); labels: name with unit -> the truth, where it is known.
    probabilities, sets, level: as sheet takes them.
    """
    labels = labels or {}
    figure, axes = subplots(1, 2 + len(values), size=(PAGE, 2.5), width_ratios=[3, 1.2] + [0.45] * len(values))
    ax = axes[0, 0]
    _steps(ax, conditioned, "two_theta")
    _not_measured(ax, conditioned, "two_theta")
    _ticks(ax, crystal, lines, "two_theta")
    scale_along(ax, "two_theta")
    classes(axes[0, 1], probabilities, sets, level)
    for ax, (name, (value, low, high)) in zip(axes[0, 2:], values.items()):
        style = {"fmt": "o", "color": LINES[0], "capsize": 4, "label": f"predicted, {level:.0%} interval"}
        ax.errorbar([0], [value], [[value - low], [high - value]], **style)
        ax.annotate(f"{value:.2f}", (0, value), xytext=(6, 0), textcoords="offset points", va="center", fontsize=SMALL)
        if name in labels:
            ax.plot([-0.6, 0.6], 2 * [labels[name]], color=LINES[3], linewidth=1.4, label="label, DFT")
        ax.set(xticks=[], xlim=(-1, 2.4), ylabel=name)
        ax.margins(y=0.25)
    handles = {label: handle for ax in axes[0, [0, -1]] for handle, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3)
    letter(axes)
    return figure
