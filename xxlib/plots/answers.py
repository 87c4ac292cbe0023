"""Figures of what models say of crystals: right or wrong, sure or unsure, measured or simulated."""

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, PercentFormatter

from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.plots.style import DASHES, LINES, subplots
from xxlib.training.metrics import classification_metrics, regression_metrics


def parity(panels, quantity, unit, title=""):
    """Predicted against true values, one panel a model, coloured by the number of crystals in a place.

    panels: name -> (true (n,), predicted (n,)) in `unit`; crystals without a label (NaN) are left out.
    """
    labelled = {}
    for name, (true, predicted) in panels.items():
        true, predicted = np.asarray(true, float), np.asarray(predicted, float)
        labelled[name] = true[np.isfinite(true)], predicted[np.isfinite(true)]
        if len(labelled[name][0]) == 0:
            raise ValueError(f"{name} has no crystal with a label: nothing to draw")
    if not labelled:
        raise ValueError("no model: nothing to draw")
    every = np.concatenate([values for pair in labelled.values() for values in pair])
    low, high = every.min(), every.max()
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)

    figure, axes = subplots(1, len(labelled), size=(3.4 * len(labelled) + 0.8, 4.3), sharex=True, sharey=True)
    cells = [
        ax.hexbin(*pair, gridsize=55, extent=(low, high, low, high), mincnt=1, cmap="viridis", linewidths=0.1)
        for ax, pair in zip(axes[0], labelled.values())
    ]
    norm = LogNorm(1, max(2, *(cell.get_array().max() for cell in cells)))  # one colour scale for all panels
    for ax, drawn, (name, pair) in zip(axes[0], cells, labelled.items()):
        drawn.set_norm(norm)
        metrics = regression_metrics(*pair)
        ax.plot([low, high], [low, high], color="black", linewidth=0.8, linestyle="--")
        legend = f"MAE {metrics['mae']:.3f} {unit}\n$R^2$ {metrics['r2']:.3f}\nn {len(pair[0]):,}"
        ax.text(0.04, 0.96, legend, transform=ax.transAxes, va="top", fontsize=9)
        ax.set(xlabel=f"true {quantity} ({unit})", xlim=(low, high), ylim=(low, high), box_aspect=1, title=name)
    axes[0, 0].set_ylabel(f"predicted {quantity} ({unit})")
    beside = axes[0, -1].inset_axes((1.05, 0, 0.05, 1))  # as tall as the panels, whose width the layout then knows
    bar = figure.colorbar(cells[-1], cax=beside, label="crystals in a cell")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    bar.ax.yaxis.set_minor_formatter("")
    figure.suptitle(title)
    return figure


def confusion(panels, classes=CRYSTAL_SYSTEMS, title=""):
    """Which class is taken for which, one panel a model: share of each true class in colour, numbers of crystals below.

    panels: name -> (true (n,) class indices, NaN = no label; probabilities (n, K)).
    """
    if not panels:
        raise ValueError("no model: nothing to draw")
    K = len(classes)
    figure, axes = subplots(1, len(panels), size=(4.6 * len(panels) + 1.8, 5.4), sharey=True)
    for ax, (name, (true, probabilities)) in zip(axes[0], panels.items()):
        true, probabilities = np.asarray(true, float), np.asarray(probabilities)
        labelled = np.isfinite(true)
        if not labelled.any():
            raise ValueError(f"{name} has no crystal with a label: nothing to draw")
        pairs = K * true[labelled].astype(int) + probabilities[labelled].argmax(1)
        counts = np.bincount(pairs, minlength=K * K).reshape(K, K)  # (true, predicted)
        shares = 100 * counts / counts.sum(1, keepdims=True).clip(1)
        image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for i, j in np.ndindex(K, K):
            if counts[i, j]:
                label, ink = f"{shares[i, j]:.0f} %\n{counts[i, j]:,}", "white" if shares[i, j] > 55 else "black"
                ax.text(j, i, label, ha="center", va="center", color=ink, fontsize=8)
        accuracy = 100 * classification_metrics(true, probabilities)["accuracy"]
        ax.set(xlabel="predicted", xticks=range(K), title=f"{name}: {accuracy:.1f} % right of {labelled.sum():,}")
        ax.set_xticklabels(classes, rotation=40, ha="right", rotation_mode="anchor")
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    axes[0, 0].set(ylabel="true", yticks=range(K), yticklabels=classes)
    bar = figure.colorbar(image, ax=axes[0, -1], label="share of the true class (%)", fraction=0.045)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(symbol=""))
    figure.suptitle(title)
    return figure


def reliability(panels, title=""):
    """Is what is said with 80 % right in 80 % of cases?  Accuracy against confidence, points as large as their share.

    panels: name -> table of calibration.reliability.
    """
    figure, axes = subplots(size=(5.2, 4.4))
    ax = axes[0, 0]
    ax.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle="--", label="as sure as right")
    for k, (name, table) in enumerate(panels.items()):
        share = table["crystals"] / table["crystals"].sum()
        x, y = 100 * table["confidence"], 100 * table["accuracy"]
        ax.plot(x, y, color=LINES[k % len(LINES)], linewidth=1)
        ax.scatter(x, y, s=20 + 400 * share, color=LINES[k % len(LINES)], alpha=0.7, linewidths=0, label=name)
    ax.set(xlabel="probability given to the answer (%)", ylabel="answers that are right (%)", title=title)
    ax.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    ax.legend(frameon=False, loc="upper left", fontsize=9)
    return figure


def refusal(panels, title=""):
    """What the answers are worth that are left where the least sure are refused, one panel a quantity.

    panels: quantity and unit -> name -> (share answered (n,), value among them (n,)), as calibration.refusal has them.
    """
    figure, axes = subplots(1, len(panels), size=(4.2 * len(panels) + 0.4, 3.6))
    for ax, (quantity, curves) in zip(axes[0], panels.items()):
        for k, (name, (shares, values)) in enumerate(curves.items()):
            seen = np.asarray(shares) >= 0.05  # fewer answers are noise
            style = {"color": LINES[k % len(LINES)], "linestyle": DASHES[k % len(DASHES)]}
            ax.plot(100 * shares[seen], values[seen], linewidth=1.4, label=name, **style)
        ax.set(xlabel="answered, the surest first (%)", ylabel=quantity, xlim=(0, 100))
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.suptitle(title)
    return figure


def severity(table, quantity, title=""):
    """A noise study: one panel an effect, a quantity on `val` against its severity, one line a run.

    table: columns run, effect (words with unit), value, and the quantity by its name with unit; with "low (%)" and
    "high (%)" where that is "accuracy (%)", drawn as bands.
    """
    if len(table) == 0:
        raise ValueError("no row: nothing to draw")
    effects = list(dict.fromkeys(table["effect"]))
    n_columns = min(4, len(effects))
    n_rows = -(-len(effects) // n_columns)
    figure, axes = subplots(n_rows, n_columns, size=(2.9 * n_columns, 2.4 * n_rows + 0.6), sharey=True)
    for ax in axes.flat[len(effects) :]:
        ax.set_axis_off()
    names = list(dict.fromkeys(table["run"]))
    for ax, effect in zip(axes.flat, effects):
        for k, name in enumerate(names):
            points = table[(table["effect"] == effect) & (table["run"] == name)]
            values = points["value"].to_numpy(float)
            colour = LINES[k % len(LINES)]
            style = {"color": colour, "linestyle": DASHES[k % len(DASHES)]}
            ax.plot(values, points[quantity], marker=".", linewidth=1.5, label=name, **style)
            if quantity == "accuracy (%)":
                ax.fill_between(values, points["low (%)"], points["high (%)"], color=colour, alpha=0.15, linewidth=0)
        if values.min() > 0 and values.max() / values.min() >= 10:
            ax.set_xscale("log")
            ax.set_xticks(values, [f"{value:,g}" for value in values], fontsize=8)
            ax.minorticks_off()
        if values[0] > values[-1]:
            ax.invert_xaxis()  # to the right it gets worse
        ax.set(xlabel=effect)
        ax.grid(color="0.92")
    for ax in axes[:, 0]:
        ax.set_ylabel(quantity)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    return figure


def accuracies(panels, title=""):
    """Accuracy with its interval of several groups of samples, one panel a model, one colour a kind of patterns.

    panels: name -> table with columns patterns, of (the group), n, "accuracy (%)", "low (%)", "high (%)".
    """
    if not panels:
        raise ValueError("no model: nothing to draw")
    groups = list(dict.fromkeys(group for table in panels.values() for group in table["of"]))
    figure, axes = subplots(1, len(panels), size=(4.2 * len(panels) + 1, 0.32 * len(groups) + 1.8), sharey=True)
    kinds = list(dict.fromkeys(kind for table in panels.values() for kind in table["patterns"]))
    for ax, (name, table) in zip(axes[0], panels.items()):
        for k, kind in enumerate(kinds):
            rows = table[(table["patterns"] == kind) & (table["n"] > 0)]
            places = [groups.index(group) + 0.22 * (k - (len(kinds) - 1) / 2) for group in rows["of"]]
            centre = rows["accuracy (%)"].to_numpy()
            ends = np.stack([centre - rows["low (%)"], rows["high (%)"] - centre]).clip(0)
            style = {"fmt": "os^D"[k % 4], "color": LINES[k % len(LINES)], "markersize": 5}
            ax.errorbar(centre, places, xerr=ends, label=kind, **style)
        ax.set(xlabel="accuracy of the crystal system (%)", xlim=(0, 100), title=name)
        ax.grid(axis="x", color="0.92")
    axes[0, 0].set(yticks=range(len(groups)), yticklabels=groups, ylim=(len(groups) - 0.5, -0.5))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    return figure


def by_bin(lines, bins, axis, quantity, title=""):
    """A mean with its interval in each of several bins, a line a model; models stand side by side in a bin.

    lines: name -> (means (k,), half-widths of their intervals (k,)), NaN where a bin is empty.  bins: their names (k,).
    axis, quantity: name and unit of what is binned and of what is drawn, on a logarithmic axis.
    """
    if not lines:
        raise ValueError("no model: nothing to draw")
    figure, axes = subplots(size=(8.2, 4.2))
    ax = axes[0, 0]
    for k, (name, (means, half_widths)) in enumerate(lines.items()):
        places = np.arange(len(bins)) + 0.08 * (k - (len(lines) - 1) / 2)
        style = {"fmt": "os^Dv"[k % 5] + "-", "color": LINES[k % len(LINES)], "markersize": 5, "linewidth": 1}
        ax.errorbar(places, np.asarray(means, float), yerr=np.asarray(half_widths, float), label=name, **style)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if f"{value:g}"[0] in "25" else ""))
    ax.set(xticks=range(len(bins)), xticklabels=bins, xlabel=axis, ylabel=quantity, title=title)
    ax.grid(axis="y", color="0.92")
    ax.legend(frameon=False)
    return figure
