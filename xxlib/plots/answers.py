"""Figures of what models say of crystals: right or wrong, sure or unsure, measured or simulated."""

from textwrap import fill

import numpy as np
import seaborn as sns
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter

from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.plots.style import COLUMN, DASHES, LINES, MARKERS, PAGE, SMALL, WIDTHS, entitle, journal, letter, subplots
from xxlib.training.metrics import classification_metrics, regression_metrics


@journal
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

    n = len(labelled)
    width = COLUMN if n == 1 else PAGE
    figure, axes = subplots(1, n, size=(width, (width - 0.6) / n + 0.7), sharex=True, sharey=True)
    cells = [
        ax.hexbin(*pair, gridsize=55, extent=(low, high, low, high), mincnt=1, cmap="viridis", linewidths=0.1)
        for ax, pair in zip(axes[0], labelled.values())
    ]
    norm = LogNorm(1, max(2, *(cell.get_array().max() for cell in cells)))  # one colour scale for all panels
    for ax, drawn, pair in zip(axes[0], cells, labelled.values()):
        drawn.set_norm(norm)
        metrics = regression_metrics(*pair)
        ax.plot([low, high], [low, high], color="black", linewidth=0.6, linestyle="--")
        legend = f"MAE {metrics['mae']:.3f} {unit}\n$R^2$ {metrics['r2']:.3f}\nn {len(pair[0]):,}"
        ax.text(0.03, 0.98, legend, transform=ax.transAxes, va="top", fontsize=SMALL)
        ax.set(xlabel=f"true {quantity} ({unit})", xlim=(low, high), ylim=(low, high), box_aspect=1)
    axes[0, 0].set_ylabel(f"predicted {quantity} ({unit})")
    beside = axes[0, -1].inset_axes((1.05, 0, 0.05, 1))  # as tall as the panels, whose width the layout then knows
    bar = figure.colorbar(cells[-1], cax=beside, label="crystals in a cell")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    bar.ax.yaxis.set_minor_formatter("")
    letter(axes, [fill(name, 24) for name in labelled])
    entitle(figure, title)
    return figure


@journal
def confusion(panels, classes=CRYSTAL_SYSTEMS, title=""):
    """Which class is taken for which, one panel a model: share of each true class in colour, numbers of crystals below.

    panels: name -> (true (n,) class indices, NaN = no label; probabilities (n, K)).
    """
    if not panels:
        raise ValueError("no model: nothing to draw")
    K, names = len(classes), []
    figure, axes = subplots(1, len(panels), size=(COLUMN if len(panels) == 1 else PAGE, 3.5), sharey=True)
    for ax, (name, (true, probabilities)) in zip(axes[0], panels.items()):
        true, probabilities = np.asarray(true, float), np.asarray(probabilities)
        labelled = np.isfinite(true)
        if not labelled.any():
            raise ValueError(f"{name} has no crystal with a label: nothing to draw")
        pairs = K * true[labelled].astype(int) + probabilities[labelled].argmax(1)
        counts = np.bincount(pairs, minlength=K * K).reshape(K, K)  # (true, predicted)
        shares = 100 * counts / counts.sum(1, keepdims=True).clip(1)
        said = np.array([[f"{share:.0f}\n{n:,}" if n else "" for share, n in zip(*row)] for row in zip(shares, counts)])
        last = ax is axes[0, -1]
        sns.heatmap(
            shares, ax=ax, cmap="Blues", vmin=0, vmax=100, annot=said, fmt="", annot_kws={"fontsize": SMALL},
            square=True, cbar=last, cbar_kws={"label": "share of the true class (%)", "shrink": 0.8},
            xticklabels=classes, yticklabels=classes,
        )  # fmt: skip
        accuracy = 100 * classification_metrics(true, probabilities)["accuracy"]
        names.append(f"{name}: {accuracy:.1f} % right of {labelled.sum():,}")
        ax.set_xlabel("predicted")
        ax.tick_params(length=0)
        ax.set_xticks(ax.get_xticks(), classes, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_yticks(ax.get_yticks(), classes, rotation=0)
    axes[0, 0].set_ylabel("true")
    letter(axes, names)
    entitle(figure, title)
    return figure


@journal
def pairs(panels, quantity, title=""):
    """What pairs of kinds have, one panel a model, as coloured squares with their numbers.

    panels: name -> DataFrame (K, K), the kinds as index and columns, NaN where a pair is not known.
    """
    if not panels:
        raise ValueError("no model: nothing to draw")
    largest = max(np.nanmax(np.abs(table.to_numpy(float)), initial=0) for table in panels.values())
    size = (COLUMN, 3.4) if len(panels) == 1 else (PAGE, 3.2)
    figure, axes = subplots(1, len(panels), size=size, sharey=True)
    for ax, table in zip(axes[0], panels.values()):
        last = ax is axes[0, -1]
        sns.heatmap(
            table.astype(float), ax=ax, cmap="vlag", vmin=-largest, vmax=largest, annot=True, fmt=".1f",
            annot_kws={"fontsize": SMALL}, square=True, cbar=last, cbar_kws={"label": quantity, "shrink": 0.6},
        )  # fmt: skip
        ax.set(xlabel="", ylabel="")
        ax.tick_params(length=0)
        ax.set_xticks(ax.get_xticks(), table.columns, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_yticks(ax.get_yticks(), table.index, rotation=0)
    letter(axes, list(panels))
    entitle(figure, title)
    return figure


@journal
def reliability(panels, title=""):
    """Is what is said with 80 % right in 80 % of cases?  Accuracy against confidence, points as large as their share.

    panels: name -> table of calibration.reliability.
    """
    figure, axes = subplots(size=(COLUMN, 3.4))
    ax = axes[0, 0]
    ax.plot([0, 100], [0, 100], color="black", linewidth=0.6, linestyle="--", label="as sure as right")
    for k, (name, table) in enumerate(panels.items()):
        share = table["crystals"] / table["crystals"].sum()
        x, y = 100 * table["confidence"], 100 * table["accuracy"]
        colour, style = LINES[k % len(LINES)], DASHES[k % len(DASHES)]
        ax.plot(x, y, color=colour, linestyle=style)
        label = f"{name}, n {table['crystals'].sum():,.0f}"
        ax.scatter(x, y, s=8 + 150 * share, color=colour, marker=MARKERS[k % len(MARKERS)], alpha=0.7, linewidths=0,
                   label=label, clip_on=False)  # fmt: skip
    ax.set(xlabel="probability given to the answer (%)", ylabel="answers that are right (%)")
    ax.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    for handle in ax.legend(loc="upper left").legend_handles[1:]:
        handle.set_sizes([16])
    entitle(figure, title)
    return figure


@journal
def refusal(panels, title=""):
    """What the answers are worth that are left where the least sure are refused, one panel a quantity.

    panels: quantity and unit -> name -> (share answered (n,), value among them (n,)), as calibration.refusal has them.
    """
    figure, axes = subplots(1, len(panels), size=(COLUMN if len(panels) == 1 else PAGE, 2.5))
    for ax, (quantity, curves) in zip(axes[0], panels.items()):
        for k, (name, (shares, values)) in enumerate(curves.items()):
            seen = np.asarray(shares) >= 0.05  # fewer answers are noise
            style = {"color": LINES[k % len(LINES)], "linestyle": DASHES[k % len(DASHES)]}
            style["linewidth"] = WIDTHS[k % len(WIDTHS)]
            ax.plot(100 * shares[seen], values[seen], label=name, **style)
        ax.set(xlabel="answered, the surest first (%)", ylabel=fill(quantity, 26), xlim=(0, 101))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    letter(axes)
    entitle(figure, title)
    return figure


@journal
def severity(table, quantity, title=""):
    """A noise study: one panel an effect, a quantity on `val` against its severity, one line a run.

    table: columns run, effect (words with unit), value, and the quantity by its name with unit; with "low (%)" and
    "high (%)" where that is "accuracy (%)", drawn as bands; n, of crystals.
    """
    if len(table) == 0:
        raise ValueError("no row: nothing to draw")
    effects, names = (list(dict.fromkeys(table[name])) for name in ("effect", "run"))
    n_columns = min(4, len(effects))
    n_rows = -(-len(effects) // n_columns)
    figure, axes = subplots(
        n_rows, n_columns, size=(PAGE if n_columns > 2 else COLUMN, 1.55 * n_rows + 0.4), sharey=True
    )
    for ax in axes.flat[len(effects) :]:
        ax.set_axis_off()
    named = "crystal system right (%)" if quantity == "accuracy (%)" else quantity
    colours, markers = dict(zip(names, LINES * len(names))), [MARKERS[k % len(MARKERS)] for k in range(len(names))]
    dashes = [("", (3, 1.5), (1, 1), (4, 1, 1, 1))[k % 4] for k in range(len(names))]
    for ax, effect in zip(axes.flat, effects):
        points = table[table["effect"] == effect]
        style = {"hue": "run", "style": "run", "palette": colours, "markers": markers, "dashes": dashes}
        style |= {"size": "run", "sizes": [WIDTHS[k % len(WIDTHS)] for k in range(len(names))]}
        legend = ax is axes.flat[0]
        sns.lineplot(points, x="value", y=quantity, ax=ax, markeredgewidth=0.3, legend=legend, errorbar=None, **style)
        for k, line in enumerate(ax.get_lines()):
            line.set_markersize(5.5 if k % len(names) == 0 else 3)  # in one place with another it is seen, too
        values = points["value"].drop_duplicates().to_numpy(float)
        if quantity == "accuracy (%)":
            for name in names:
                of_run = points[points["run"] == name]
                ends = (of_run["low (%)"], of_run["high (%)"])
                ax.fill_between(of_run["value"], *ends, color=colours[name], alpha=0.15, linewidth=0)
        if values.min() > 0 and values.max() / values.min() >= 10:
            ax.set_xscale("log")
            ax.set_xticks(values, [f"{value:,g}" for value in values], rotation=30)
            ax.minorticks_off()
        if values[0] > values[-1]:
            ax.invert_xaxis()  # to the right it gets worse
        ax.set(xlabel=fill(effect, 24), ylabel=fill(named, 18) if ax in axes[:, 0] else "")
        ax.margins(y=0.08)
        ax.grid()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    if axes.flat[0].get_legend():
        axes.flat[0].get_legend().remove()
    n = f", n {table['n'].max():,.0f}" if "n" in table else ""
    figure.legend(handles, [label + n for label in labels], loc="outside lower center", ncols=3)
    letter(axes.flat[: len(effects)])
    entitle(figure, title)
    return figure


@journal
def accuracies(panels, title=""):
    """Accuracy with its interval of several groups of samples, one panel a model, one colour a kind of patterns.

    panels: name -> table with columns patterns, of (the group), n, "accuracy (%)", "low (%)", "high (%)".
    """
    if not panels:
        raise ValueError("no model: nothing to draw")
    every = [(group, n) for table in panels.values() for group, n in zip(table["of"], table["n"])]
    groups = list(dict.fromkeys(group for group, _ in every))
    most = {group: max(n for other, n in every if other == group) for group in groups}
    width = COLUMN if len(panels) == 1 else PAGE
    figure, axes = subplots(1, len(panels), size=(width, 0.24 * len(groups) + 1.0), sharey=True)
    kinds = list(dict.fromkeys(kind for table in panels.values() for kind in table["patterns"]))
    for ax, table in zip(axes[0], panels.values()):
        for k, kind in enumerate(kinds):
            rows = table[(table["patterns"] == kind) & (table["n"] > 0)]
            places = [groups.index(group) + 0.22 * (k - (len(kinds) - 1) / 2) for group in rows["of"]]
            centre = rows["accuracy (%)"].to_numpy()
            ends = np.stack([centre - rows["low (%)"], rows["high (%)"] - centre]).clip(0)
            style = {"fmt": MARKERS[k % len(MARKERS)], "color": LINES[k % len(LINES)], "elinewidth": 0.8}
            label = f"{kind}, n {rows['n'].max():,.0f}" if len(rows) else kind
            ax.errorbar(centre, places, xerr=ends, label=label, **style)
        ax.set(xlabel="crystal system right (%)", xlim=(-3, 103))
        ax.grid(axis="x")
    named = [f"{group} ({most[group]:,})" for group in groups]
    axes[0, 0].set(yticks=range(len(groups)), yticklabels=named, ylim=(len(groups) - 0.5, -0.5))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    letter(axes, [fill(name, 90 // max(len(panels), 3)) for name in panels])
    entitle(figure, title)
    return figure


@journal
def by_bin(lines, bins, axis, quantity, title=""):
    """A mean with its interval in each of several bins, a line a model; models stand side by side in a bin.

    lines: name -> (means (k,), half-widths of their intervals (k,)), NaN where a bin is empty.  bins: their names (k,).
    axis, quantity: name and unit of what is binned and of what is drawn, on a logarithmic axis.
    """
    if not lines:
        raise ValueError("no model: nothing to draw")
    figure, axes = subplots(size=(PAGE, 3.2))
    ax = axes[0, 0]
    for k, (name, (means, half_widths)) in enumerate(lines.items()):
        places = np.arange(len(bins)) + 0.08 * (k - (len(lines) - 1) / 2)
        style = {"fmt": "os^Dv"[k % 5] + "-", "color": LINES[k % len(LINES)], "markersize": 5, "linewidth": 1}
        ax.errorbar(places, np.asarray(means, float), yerr=np.asarray(half_widths, float), label=name, **style)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if f"{value:g}"[0] in "25" else ""))
    ax.set(xticks=range(len(bins)), xticklabels=bins, xlabel=axis, ylabel=quantity)
    ax.grid(axis="y", color="0.92")
    ax.legend(frameon=False)
    entitle(figure, title)
    return figure
