"""Figures of how models learn, and of what they have learned: curves, scaling, differences, latent space."""

from textwrap import fill

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from xxlib.plots.style import (
    COLUMN,
    DASHES,
    LINES,
    MARKERS,
    PAGE,
    PALETTE,
    WIDTHS,
    entitle,
    journal,
    letter,
    subplots,
    typeset,
)


@journal
def learning_curves(curves, quantity, title="", log=True):
    """A metric on `val` against the samples seen, one line a run; the legend gives its last value.

    curves: name -> (samples (n,), values (n,)); a value of NaN is of a moment without evaluation.  Values (seeds, n)
    are those of several runs: their mean is drawn, and their range as a band.
    quantity: name and unit, "MAE on val (meV/atom)".
    """
    curves = _evaluated(curves)
    figure, axes = subplots(size=(COLUMN, 2.2 + 0.14 * len(curves)))
    ax = axes[0, 0]
    for k, (name, (samples, values)) in enumerate(curves.items()):
        last = values.mean(0)[-1] if len(samples) else np.nan
        _line(ax, k, samples, values, f"{name}: {float(f'{last:.3g}'):,g}")
    if log:
        _log_scale(ax)
    ax.set(xlabel="samples seen (thousand)", ylabel=fill(quantity, 26))
    ax.set_xlim(left=0)
    ax.grid(which="both")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower left")
    entitle(figure, title)
    return figure


@journal
def learning_columns(columns, title=""):
    """Learning curves of the same runs side by side, one column a metric on `val`; a run keeps its colour.

    columns: quantity with unit -> curves, as learning_curves takes them.  Accuracies are drawn as they are, errors on a
    logarithmic axis.
    """
    columns = {quantity: _evaluated(curves) for quantity, curves in columns.items()}
    names = list(dict.fromkeys(name for curves in columns.values() for name in curves))
    figure, axes = subplots(1, len(columns), size=(COLUMN if len(columns) == 1 else PAGE, 2.7))
    for ax, (quantity, curves) in zip(axes[0], columns.items()):
        for name, (samples, values) in curves.items():
            _line(ax, names.index(name), samples, values, name)
        if "accuracy" not in quantity:
            _log_scale(ax)
        ax.set(xlabel="samples seen (thousand)", ylabel=fill(quantity, 26))
        ax.set_xlim(left=0)
        ax.grid(which="both")
    lines = {label: line for ax in axes[0] for line, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=min(4, len(lines)))
    letter(axes)
    entitle(figure, title)
    return figure


def _line(ax, k, samples, values, label):
    """The k-th curve: the mean of values (seeds, n), and their range where there are several."""
    style = {"color": LINES[k % len(LINES)], "linestyle": DASHES[k % len(DASHES)], "linewidth": WIDTHS[k % len(WIDTHS)]}
    ax.plot(samples / 1000, values.mean(0), label=label, **style)
    if len(values) > 1:
        ax.fill_between(samples / 1000, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0)


def _evaluated(curves):
    """name -> samples (n,) and values (seeds, n), without the moments that have no evaluation."""
    evaluated = {}
    for name, (samples, values) in curves.items():
        values = np.atleast_2d(np.array(values, float))
        there = np.isfinite(values).all(0)
        evaluated[name] = np.array(samples, float)[there], values[:, there]
    if not any(len(samples) for samples, _ in evaluated.values()):
        raise ValueError("no evaluation in any run: nothing to draw")
    return evaluated


@journal
def progress(metrics, n_samples, title=""):
    """A run so far, against the samples seen: its losses, what it is judged by on `val`, its speed.

    metrics: table of a moment a row: samples, samples_per_s, "train/loss", "val/error", "val/e_form mae", ...; only
    `samples` is needed.  n_samples: of the whole run.
    """
    if len(metrics) == 0:
        raise ValueError("no line of metrics: nothing to draw")
    judged = [name for name in metrics if name.startswith("val/") and " " in name]
    losses = [name for name in metrics if name.startswith("train/") or name == "val/error"]
    if len([name for name in losses if name.startswith("train/")]) == 2 and "train/loss" in losses:
        losses.remove("train/loss")  # of one target it is that of the target
    metrics = metrics.assign(samples_per_s=_smooth(metrics.get("samples_per_s")))
    panels = ((losses, "loss"), (judged, "judged on val"), (["samples_per_s"], "samples/s, smoothed"))
    figure, axes = subplots(1, 3, size=(PAGE, 2.2), width_ratios=(1.4, 1.4, 1))
    every = losses + judged  # a colour each
    for ax, (names, quantity) in zip(axes[0], panels):
        for name in names:
            drawn = metrics[["samples", name]].dropna()
            k = every.index(name) if name in every else 0
            style = {"color": LINES[k % len(LINES)], "linestyle": DASHES[k // len(LINES) % len(DASHES)]}
            ax.plot(drawn["samples"] / 1000, drawn[name], marker=".", markersize=3, label=name, **style)
        if names and names != ["samples_per_s"] and (metrics[names].min() > 0).all():
            _log_scale(ax)
        ax.set(xlabel="samples seen (thousand)", ylabel=quantity, xlim=(0, n_samples / 1000))
        ax.grid()
    entitle(figure, title)
    lines = [pair for ax in axes[0, :2] for pair in zip(*ax.get_legend_handles_labels())]
    if lines:
        widest = max(len(label) for _, label in lines)
        figure.legend(*zip(*lines), loc="outside lower center", ncols=2 if widest > 40 else 3 if widest > 25 else 4)
    axes[0, 2].set_ylim(bottom=0)
    return figure


def _smooth(rates):
    """Rates as a mean over the last moments: an evaluation or a saved state slows a single one down."""
    return np.nan if rates is None else rates.astype(float).rolling(10, min_periods=1).mean()


def _log_scale(ax):
    """A logarithmic y axis with plain numbers, between the decades only as many as there is room for."""

    def minor(value, _):
        low, high = ax.get_ylim()
        digit = round(value / 10 ** np.floor(np.log10(value)))
        shown = range(1, 10) if high < 4 * low else (2, 3, 5, 7) if high < 20 * low else (2, 5)
        return f"{value:,g}" if digit in shown else ""

    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.yaxis.set_minor_formatter(FuncFormatter(minor))


@journal
def scaling(panels, quantity, title="", others=None):
    """Error against the number of training crystals, both logarithmic: runs as points, fits as lines, 95 % as bands.

    Points without a fit are joined where they have one error a size.
    panels: name -> (n (k,) training crystals, errors (k,), its scaling.PowerLaw or None).  quantity: name and unit,
    "MAE on test (meV/atom)".  The sizes are the ticks; the legend gives each exponent with its interval.
    others: name -> (n (k,), errors (k,)), thin lines of what others have published; the ticks are then powers of ten.
    """
    if not panels:
        raise ValueError("no model: nothing to draw")
    others = others or {}
    figure, axes = subplots(size=(COLUMN, 2.5 + 0.2 * (len(panels) + len(others))))
    ax, handles = axes[0, 0], []
    for k, (name, (n, errors, fit)) in enumerate(panels.items()):
        colour, dashes = LINES[k % len(LINES)], DASHES[k % len(DASHES)]
        # Every other marker is hollow and larger: of two in one place both are seen.
        style = {"marker": MARKERS[k % len(MARKERS)], "markersize": 5 if k % 2 else 3.5, "zorder": 3 + k % 2}
        style |= {"markerfacecolor": "none" if k % 2 else colour, "color": colour}
        label, joined = name, ""
        if fit is not None:
            grid = np.geomspace(min(n) / 1.3, max(n) * 1.3, 100)
            low, high = fit.interval("b")
            label = f"{name}: $\\propto N^{{{-fit.b:.2f}}}$ ({-high:.2f} to {-low:.2f})"
            if fit.c > 0:
                label = label.replace("\\propto ", f"{fit.c:.3g} + a\\,")
            ax.plot(grid, fit.error(grid), color=colour, linestyle=dashes)
            ax.fill_between(grid, *fit.band(grid), color=colour, alpha=0.15, linewidth=0)
        elif len(set(n)) == len(n):
            joined = dashes
        order = np.argsort(np.asarray(n, float), kind="stable")
        ax.plot(np.asarray(n, float)[order], np.asarray(errors, float)[order], linestyle=joined, **style)
        handles.append(Line2D([], [], linestyle=dashes if fit or joined else "", label=label, **style))
    for k, (name, (n, errors)) in enumerate(others.items()):
        (line,) = ax.plot(n, errors, color="0.35", linewidth=0.7, linestyle=DASHES[k % len(DASHES)], label=name)
        handles.append(line)
    ax.set(xscale="log", xlabel="training crystals N", ylabel=quantity)
    sizes = sorted({int(size) for n, *_ in panels.values() for size in n})
    if others:
        sizes = [10**k for k in range(3, 8) if min(sizes) / 2 < 10**k < 2 * max(max(n) for n, _ in others.values())]
    ax.set_xticks(sizes, [f"{size:,}" if size in apart(sizes) else "" for size in sizes])
    ax.xaxis.set_minor_locator(NullLocator())
    _log_scale(ax)
    ax.grid(which="major")
    figure.legend(handles=handles, loc="outside lower left")
    entitle(figure, title)
    return figure


def apart(sizes):
    """Those of some sizes, ascending, whose numbers do not touch on a logarithmic axis: the largest, and downwards."""
    kept, room = sizes[-1:], 0.12 * np.log(sizes[-1] / sizes[0])
    for size in reversed(sizes[:-1]):
        if np.log(kept[-1] / size) > room:
            kept.append(size)
    return kept


@journal
def differences(groups, quantity, title=""):
    """What runs differ by from one they are compared with, a row each: the difference and its 95 % interval.

    groups: name -> (labels (k,), differences (k,), half-widths of their intervals (k,)); a group has one colour and
    stands in the legend.  quantity: name and unit, "gain of MAE of E_f on test (meV/atom)".
    """
    groups = {name: of_group for name, of_group in groups.items() if len(of_group[0])}
    labels = [typeset(label) for of_group, *_ in groups.values() for label in of_group]
    if not labels:
        raise ValueError("no difference: nothing to draw")
    figure, axes = subplots(size=(PAGE, 0.8 + 0.2 * len(labels)))
    ax, rows = axes[0, 0], range(len(labels))
    table = pd.concat(
        pd.DataFrame({"value": list(values), "half": list(half_widths), "group": name})
        for name, (_, values, half_widths) in groups.items()
    )
    colours = [LINES[k % len(LINES)] for k in range(len(groups))]
    inks = table["group"].map(dict(zip(groups, colours)))
    ax.errorbar(table["value"], rows, xerr=table["half"], ecolor=inks, linestyle="", zorder=2)
    style = {"hue": "group", "style": "group", "palette": colours, "markers": list(MARKERS[: len(groups)])}
    sns.scatterplot(table, x="value", y=list(rows), ax=ax, s=22, linewidth=0, zorder=3, **style)
    ax.axvline(0, color="0.3", linewidth=0.8, zorder=1)
    ax.set_yticks(range(len(labels)), labels)
    ax.set(xlabel=typeset(quantity), ylabel="", ylim=(len(labels) - 0.5, -0.5))
    ax.grid(axis="x")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))  # without seaborn's title
    entitle(figure, title)
    return figure


@journal
def histograms(panels, bins, quantity, counted, title=""):
    """Shares in bins: panel -> line -> (n,); bins: (n + 1,) edges of the quantity; counted: what the shares are of."""
    if not panels:
        raise ValueError("no panel: nothing to draw")
    figure, axes = subplots(1, len(panels), size=(PAGE, 2.4), sharey=True)
    for ax, lines in zip(axes[0], panels.values()):
        for k, (name, shares) in enumerate(lines.items()):
            style = {"color": LINES[k % len(LINES)], "linestyle": DASHES[k % len(DASHES)]}
            ax.stairs(100 * np.asarray(shares), bins, label=name, **style)
        ax.set_xlabel(quantity)
    axes[0, 0].set_ylabel(f"{counted} (%)")
    axes[0, 0].legend()
    letter(axes, list(panels))
    entitle(figure, title)
    return figure


@journal
def latent(panels, title=""):
    """Crystals in two dimensions of a latent space, one panel a model, three panels a row, coloured by crystal system.

    panels: name -> (points (n, 2), systems (n,) of CRYSTAL_SYSTEMS, share of the variance of each dimension (2,), or
    None where the dimensions are not principal components).
    """
    if not panels:
        raise ValueError("no model: nothing to draw")
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure, axes = subplots(n_rows, n_columns, size=(COLUMN if n_columns == 1 else PAGE, 2.5 * n_rows + 0.4))
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (points, systems, shares) in zip(axes.flat, panels.values()):
        # In a random order: drawn one after the other, the last system would hide the first.
        order = np.random.default_rng(0).permutation(len(points))
        colours = np.array([PALETTE[system] for system in systems])
        ax.scatter(*np.asarray(points)[order].T, s=2.5, c=colours[order], alpha=0.7, linewidths=0, rasterized=True)
        labels = ["dimension 1", "dimension 2"]
        if shares is not None:
            labels = [f"PC {k + 1} ({100 * share:.0f} % of the variance)" for k, share in enumerate(shares)]
        ax.set(xlabel=labels[0], ylabel=labels[1])
        ax.locator_params(nbins=5)
    dots = [Line2D([], [], linestyle="", marker="o", color=colour, label=name) for name, colour in PALETTE.items()]
    figure.legend(handles=dots, loc="outside lower center", ncols=min(7, 3 * n_columns))
    names = [fill(f"{name}, n {len(points):,}", 32) for name, (points, *_) in panels.items()]
    letter(axes.flat[: len(panels)], names)
    entitle(figure, title)
    return figure
