"""Figures: arrays in, a matplotlib Figure out; units on the axes, colours that colour-blind readers tell apart."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import FuncFormatter, PercentFormatter

from xxlib import PROJECT
from xxlib.analysis.metrics import classification_metrics, regression_metrics
from xxlib.inputs.crystals import CRYSTAL_SYSTEMS
from xxlib.inputs.patterns import N_TOKENS, POINTS_PER_TOKEN, STEP, TWO_THETA, patchify

# Paul Tol's "bright" scheme has exactly seven colours; the crystal systems have these in every figure.
PALETTE = dict(
    zip(CRYSTAL_SYSTEMS, ("#BBBBBB", "#EE6677", "#CCBB44", "#228833", "#66CCEE", "#4477AA", "#AA3377"), strict=True)
)
# Everything else that is told apart by colour: Okabe and Ito's colours, without those too pale for a line.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")

ANGLE, INTENSITY = "2θ (degree)", "intensity (0-100)"
ATOM_RADIUS = 0.4  # of the atomic radius: drawn small enough to see what lies behind


def save_figure(figure, name):
    """Save a Figure as figures/<name>.png and return the path; `name` may hold folders, as in "mp36k/elements"."""
    path = PROJECT / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    return path


# Crystals and their patterns


def cell(crystal, title=""):
    """The unit cell of a Crystal in projection, seen along its b axis from a little above; scale in angstrom.

    Atoms on the border are drawn at every place of the cell they have.  Of a mixed site the last atom shows.
    """
    from pymatgen.core import Element

    view = _rotation(0, -75) @ _rotation(2, -20)
    corners = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)  # (8, 3)
    frac = crystal.frac_coords % 1.0
    frac = np.where(frac > 1 - 1e-3, frac - 1, frac)
    images = frac[:, None] + corners  # (n, 8, 3)
    inside = (images < 1 + 1e-3).all(-1)  # (n, 8)
    numbers = np.broadcast_to(crystal.atomic_numbers[:, None], inside.shape)[inside]
    x, y, depth = view @ (images[inside] @ crystal.lattice).T

    figure, axes = _subplots(size=(4.5, 4))
    ax = axes[0, 0]
    places = corners @ crystal.lattice @ view.T
    for i, j in np.argwhere(np.abs(corners[:, None] - corners).sum(-1) == 1):
        ax.plot(*places[[i, j], :2].T, color="0.4", linewidth=0.8, zorder=places[[i, j], 2].min() - 0.1)
    for name, end in zip("abc", crystal.lattice @ view.T):
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        ax.text(*(end[:2] / 2), f"$\\mathit{{{name}}}$", ha="center", va="center", bbox=white, zorder=100)
    for k, z in enumerate(np.unique(numbers)):
        element = Element.from_Z(int(z))
        radius = ATOM_RADIUS * float(element.atomic_radius or 1.5)
        style = {"facecolor": LINES[k % len(LINES)], "edgecolor": "black", "linewidth": 0.6}
        for i in np.flatnonzero(numbers == z):
            ax.add_patch(Circle((x[i], y[i]), radius, zorder=depth[i], **style))
        ax.scatter([], [], s=60, label=element.symbol, **style)
    ax.set(aspect="equal", xlabel="angstrom", ylabel="angstrom", title=title)
    ax.margins(0.15)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _rotation(axis, degrees):
    """Matrix (3, 3) of a rotation about x, y or z (axis 0, 1, 2)."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = cos
    matrix[i, j], matrix[j, i] = -sin, sin
    return matrix


def diffraction(sticks, pattern, title="", n_labels=6):
    """Sticks of one crystal, the strongest with their hkl, below its pattern (4250,)."""
    figure, (top, bottom) = _subplots(2, 1, size=(8, 4.5), sharex=True)
    top[0].plot(TWO_THETA, pattern, color=LINES[0], linewidth=1)
    bottom[0].vlines(sticks.two_theta, 0, sticks.intensity, color=LINES[1], linewidth=1)
    for i in np.argsort(-sticks.intensity)[:n_labels]:
        signed = [f"$\\bar{{{-h}}}$" if h < 0 else str(h) for h in sticks.hkl[i].tolist()]
        hkl = ("" if np.abs(sticks.hkl[i]).max() < 10 else " ").join(signed)
        at = (sticks.two_theta[i], sticks.intensity[i])
        bottom[0].annotate(hkl, at, xytext=(0, 2), textcoords="offset points", ha="center", fontsize=8)
    for ax, what in ((top[0], "pattern"), (bottom[0], "sticks")):
        ax.set(ylabel=INTENSITY, ylim=(0, 112), xlim=(TWO_THETA[0], TWO_THETA[-1]))
        ax.text(0.99, 0.95, what, transform=ax.transAxes, ha="right", va="top")
    bottom[0].set_xlabel(ANGLE)
    top[0].set_title(title)
    return figure


def tokens(pattern, title=""):
    """A pattern (4250,) cut into its 17 tokens: above in place, below one token a row, as the encoder reads them."""
    edges = TWO_THETA[0] + STEP * POINTS_PER_TOKEN * np.arange(N_TOKENS + 1)
    figure, (top, bottom) = _subplots(2, 1, size=(8, 6), height_ratios=(1, 1.4))
    ax = top[0]
    for k, (left, right) in enumerate(pairwise(edges)):
        ax.axvspan(left, right, color=("0.93", "white")[k % 2], zorder=0)
        ax.text((left + right) / 2, 104, str(k + 1), ha="center", fontsize=9)
    ax.plot(TWO_THETA, pattern, color=LINES[0], linewidth=1)
    ax.set(xlabel=ANGLE, ylabel=INTENSITY, xlim=edges[[0, -1]], ylim=(0, 115), title=title, xticks=range(10, 91, 10))

    ax = bottom[0]
    width = STEP * POINTS_PER_TOKEN  # degree
    # Most of a pattern is low: the square root of the intensity shows weak peaks beside strong ones.
    image = ax.imshow(
        patchify(pattern), aspect="auto", cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest",
        extent=(0, width, N_TOKENS + 0.5, 0.5),
    )  # fmt: skip
    ax.hlines(np.arange(1.5, N_TOKENS), 0, width, color="white", linewidth=1)
    ax.set(xlabel="2θ from the start of the token (degree)", ylabel="token", yticks=range(1, N_TOKENS + 1))
    ax.tick_params(axis="y", labelsize=8)
    figure.colorbar(image, ax=ax, label=INTENSITY, ticks=(0, 10, 25, 50, 100))
    return figure


def conditioning(conditioned, title=""):
    """Every step from a measured scan to its pattern (a Conditioned): as measured, on the grid, without background."""
    figure, axes = _subplots(3, 1, size=(8.5, 7.5))
    top, middle, bottom = axes[:, 0]
    at = f"{conditioned.wavelength:.4f} angstrom"
    measured = f"as measured: {len(conditioned.two_theta):,} points"
    top.plot(conditioned.two_theta, conditioned.intensity, color=LINES[0], linewidth=0.8, label=measured)
    top.set(xlabel=f"2θ at {at} (degree)", ylabel=f"intensity ({conditioned.unit})")
    middle.plot(TWO_THETA, conditioned.resampled, color=LINES[0], linewidth=0.8, label="on the grid, as Cu Kα sees it")
    middle.plot(TWO_THETA, conditioned.background, color=LINES[1], linewidth=1.5, label="background")
    middle.set(xlabel="2θ at Cu Kα (degree)", ylabel=f"intensity ({conditioned.unit}, scaled)")
    first, last = conditioned.covered
    inside = (first <= TWO_THETA) & (last >= TWO_THETA)
    bottom.plot(TWO_THETA[inside], conditioned.pattern[inside], color=LINES[0], linewidth=0.8, label="pattern")
    bottom.set(xlabel="2θ at Cu Kα (degree)", ylabel=INTENSITY)
    for ax in (middle, bottom):
        gaps = [pair for pair in ((TWO_THETA[0], first), (last, TWO_THETA[-1])) if pair[1] - pair[0] > STEP]
        for k, (left, right) in enumerate(gaps):
            ax.axvspan(left, right, color="0.88", zorder=0, label="_" * k + "not measured")
        ax.set_xlim(TWO_THETA[0], TWO_THETA[-1])
    for ax in (top, middle, bottom):
        ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
        ax.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=3, frameon=False, fontsize=9)
    figure.suptitle(title)
    return figure


# What a dataset holds


def patterns_by_system(patterns, systems, names, title=""):
    """Patterns (n, 4250), one above the other, in the colours of their crystal systems; names: written at each."""
    if len(patterns) == 0:
        raise ValueError("no pattern: nothing to draw")
    figure, axes = _subplots(size=(8, 0.75 * len(patterns) + 0.8))
    ax = axes[0, 0]
    for k, (pattern, system, name) in enumerate(zip(patterns, systems, names, strict=True)):
        base = 120 * (len(patterns) - 1 - k)
        ax.fill_between(TWO_THETA, base, base + pattern, color=PALETTE[system], linewidth=0)
        ax.plot(TWO_THETA, base + pattern, color=PALETTE[system], linewidth=1)
        ax.text(90.5, base + 10, f"{name}\n{system}", fontsize=9)
    ax.set(xlabel=ANGLE, ylabel=INTENSITY + ", shifted", xlim=(5, 90), yticks=[], title=title)
    return figure


def elements(counts, n_crystals, title=""):
    """Periodic table of how many crystals contain each element.

    counts: (n,) number of crystals by atomic number (counts[0] is ignored), as np.bincount of element_ids makes them.
    """
    from pymatgen.core import Element

    counts = np.asarray(counts)
    if not counts[1:].any():
        raise ValueError("no element in any crystal: nothing to draw")
    most = max(counts[1:].max(), 10)
    norm, colours = LogNorm(max(1, most / 1000), most), plt.get_cmap("YlGnBu")
    figure, axes = _subplots(size=(9, 5))
    ax = axes[0, 0]
    for z in range(1, 119):
        element = Element.from_Z(z)
        f_block = 57 <= z <= 71 or 89 <= z <= 103
        column = 3 + (z - 57) % 32 if f_block else element.group
        row = element.row + 2.3 if f_block else element.row
        count = int(counts[z]) if z < len(counts) else 0
        fill = colours(norm(count)) if count else "white"
        ink = "white" if count and norm(count) > 0.55 else "black" if count else "0.6"
        ax.add_patch(
            Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=fill, edgecolor="0.75", linewidth=0.5)
        )
        ax.text(column, row - 0.08, element.symbol, ha="center", va="center", color=ink, fontsize=10)
        if count:
            share = 100 * count / n_crystals
            shown = f"{share:.1f}" if share >= 0.1 else "<0.1"
            ax.text(column, row + 0.32, shown, ha="center", va="center", color=ink, fontsize=7)
    ax.set(xlim=(0.4, 18.6), ylim=(9.9, 0.4), aspect="equal", title=title)
    ax.set_axis_off()
    scale = plt.cm.ScalarMappable(norm, colours)
    bar = figure.colorbar(scale, cax=ax.inset_axes((0.19, 0.82, 0.44, 0.03)), orientation="horizontal", extend="min")
    bar.set_label(f"crystals with the element, of {n_crystals:,} (below the symbol: %)", fontsize=9)
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure


def crystal_systems(names, title=""):
    """How many crystals belong to each crystal system; names: (n,) of CRYSTAL_SYSTEMS."""
    names = np.asarray(names)
    if len(names) == 0:
        raise ValueError("no crystal: nothing to draw")
    counts = np.array([(names == system).sum() for system in CRYSTAL_SYSTEMS])
    figure, axes = _subplots(size=(8.5, 3.8))
    ax = axes[0, 0]
    bars = ax.bar(CRYSTAL_SYSTEMS, counts, color=list(PALETTE.values()), edgecolor="black", linewidth=0.6)
    ax.bar_label(bars, [f"{100 * count / len(names):.1f} %" for count in counts], padding=2)
    ax.set(xlabel="crystal system", ylabel="number of crystals", title=title)
    ax.margins(y=0.12)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure


def preparation(times, sizes, memory, title=""):
    """What preparing crystals costs: time by stage and tool, bytes on disk, memory against the number of crystals.

    times: stage -> tool -> microseconds a crystal.  sizes: form -> bytes a crystal.  memory: process -> (number of
    crystals (k,), peak MB (k,)).
    """
    figure, axes = _subplots(1, 3, size=(13, 3.6), width_ratios=(2.2, 1, 1))
    left, middle, right = axes[0]
    tools = list(dict.fromkeys(tool for stage in times.values() for tool in stage))
    for k, tool in enumerate(tools):
        places = [i + 0.26 * (list(stage).index(tool) - (len(stage) - 1) / 2) for i, stage in enumerate(times.values())
                  if tool in stage]  # fmt: skip
        heights = [stage[tool] for stage in times.values() if tool in stage]
        bars = left.bar(places, heights, width=0.24, color=LINES[k], label=tool)
        left.bar_label(bars, [f"{height:,.0f}" for height in heights], fontsize=7, padding=1)
    left.set(yscale="log", ylabel="time (µs a crystal)", title=title)
    left.set_xticks(range(len(times)), [stage.replace(", ", "\n") for stage in times])
    left.margins(y=0.12)
    left.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=len(tools))
    bars = middle.bar(list(sizes), list(sizes.values()), color=[LINES[0], *["0.6"] * (len(sizes) - 1)], width=0.6)
    middle.bar_label(bars, [f"{size:,.0f}" for size in sizes.values()], fontsize=8, padding=1)
    middle.set(ylabel="size (bytes a crystal)")
    middle.margins(y=0.12)
    for k, (name, (n, peak)) in enumerate(memory.items()):
        right.plot(n, peak, color=LINES[k], marker="os^"[k % 3], linestyle=DASHES[k % len(DASHES)], label=name)
    right.set(xlabel="crystals prepared", ylabel="peak memory (MB)", xscale="log", ylim=(0, None))
    counts = sorted({count for n, _ in memory.values() for count in n})
    right.set_xticks(counts, [f"{count:,}" for count in counts])
    right.minorticks_off()
    right.margins(x=0.2)
    right.legend(frameon=False)
    return figure


# What a model says


def parity(panels, quantity, unit, title=""):
    """Predicted against true values, one panel a model, coloured by the number of crystals in a place.

    panels: name -> (true (n,), predicted (n,)) in `unit`; crystals without a label (NaN) are left out.
    """
    known = {}
    for name, (true, predicted) in panels.items():
        true, predicted = np.asarray(true, float), np.asarray(predicted, float)
        known[name] = true[np.isfinite(true)], predicted[np.isfinite(true)]
        if len(known[name][0]) == 0:
            raise ValueError(f"{name} has no crystal with a label: nothing to draw")
    if not known:
        raise ValueError("no model: nothing to draw")
    every = np.concatenate([values for pair in known.values() for values in pair])
    low, high = every.min(), every.max()
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)

    figure, axes = _subplots(1, len(known), size=(3.4 * len(known) + 0.8, 3.9), sharex=True, sharey=True)
    cells = [
        ax.hexbin(*pair, gridsize=55, extent=(low, high, low, high), mincnt=1, cmap="viridis", linewidths=0.1)
        for ax, pair in zip(axes[0], known.values())
    ]
    norm = LogNorm(1, max(2, *(cell.get_array().max() for cell in cells)))  # one colour scale for all panels
    for ax, drawn, (name, pair) in zip(axes[0], cells, known.items()):
        drawn.set_norm(norm)
        metrics = regression_metrics(*pair)
        ax.plot([low, high], [low, high], color="black", linewidth=0.8, linestyle="--")
        words = f"MAE {metrics['mae']:.3f} {unit}\n$R^2$ {metrics['r2']:.3f}\nn {len(pair[0]):,}"
        ax.text(0.04, 0.96, words, transform=ax.transAxes, va="top", fontsize=9)
        ax.set(xlabel=f"true {quantity} ({unit})", xlim=(low, high), ylim=(low, high), aspect="equal", title=name)
    axes[0, 0].set_ylabel(f"predicted {quantity} ({unit})")
    bar = figure.colorbar(cells[-1], ax=axes[0, -1], label="crystals in a cell", fraction=0.05)
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
    figure, axes = _subplots(1, len(panels), size=(4.6 * len(panels) + 1.8, 5.4), sharey=True)
    for ax, (name, (true, probabilities)) in zip(axes[0], panels.items()):
        true, probabilities = np.asarray(true, float), np.asarray(probabilities)
        known = np.isfinite(true)
        if not known.any():
            raise ValueError(f"{name} has no crystal with a label: nothing to draw")
        pairs = K * true[known].astype(int) + probabilities[known].argmax(1)
        counts = np.bincount(pairs, minlength=K * K).reshape(K, K)  # (true, predicted)
        shares = 100 * counts / counts.sum(1, keepdims=True).clip(1)
        image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for i, j in np.ndindex(K, K):
            if counts[i, j]:
                words, ink = f"{shares[i, j]:.0f} %\n{counts[i, j]:,}", "white" if shares[i, j] > 55 else "black"
                ax.text(j, i, words, ha="center", va="center", color=ink, fontsize=8)
        accuracy = 100 * classification_metrics(true, probabilities)["accuracy"]
        ax.set(xlabel="predicted", xticks=range(K), title=f"{name}: {accuracy:.1f} % right of {known.sum():,}")
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
    figure, axes = _subplots(size=(5.2, 4.4))
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
    figure, axes = _subplots(1, len(panels), size=(4.2 * len(panels) + 0.4, 3.6))
    for ax, (quantity, curves) in zip(axes[0], panels.items()):
        for k, (name, (shares, values)) in enumerate(curves.items()):
            seen = np.asarray(shares) >= 0.05  # fewer answers are noise
            style = {"color": LINES[k % len(LINES)], "linestyle": DASHES[k % len(DASHES)]}
            ax.plot(100 * shares[seen], values[seen], linewidth=1.4, label=name, **style)
        ax.set(xlabel="answered, the surest first (%)", ylabel=quantity, xlim=(0, 100))
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.suptitle(title)
    return figure


def learning_curves(curves, quantity, title="", log=True):
    """A metric on `val` against the samples seen, one line a run; the legend gives its last value.

    curves: name -> (samples (n,), values (n,)); a value of NaN is of a moment without evaluation.
    quantity: name and unit, "MAE on val (meV/atom)".
    """
    curves = _evaluated(curves)
    figure, axes = _subplots(size=(8.5, 4))
    ax = axes[0, 0]
    for k, (name, (samples, values)) in enumerate(curves.items()):
        style = {"color": LINES[k % len(LINES)], "linestyle": DASHES[k % len(DASHES)]}
        last = values[-1] if len(values) else np.nan
        ax.plot(samples / 1000, values, linewidth=1.5, label=f"{name}: {last:.3g}", **style)
    if log:
        _log_scale(ax)
    ax.set(xlabel="samples seen (thousand)", ylabel=quantity, title=title)
    ax.set_xlim(left=0)
    ax.grid(which="both", color="0.92")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def learning_columns(columns, title=""):
    """Learning curves of the same runs side by side, one column a metric on `val`; a run keeps its colour.

    columns: quantity with unit -> curves, as learning_curves takes them.  Accuracies are drawn as they are, errors on a
    logarithmic axis.
    """
    columns = {quantity: _evaluated(curves) for quantity, curves in columns.items()}
    names = list(dict.fromkeys(name for curves in columns.values() for name in curves))
    figure, axes = _subplots(1, len(columns), size=(3.7 * len(columns), 3.6))
    for ax, (quantity, curves) in zip(axes[0], columns.items()):
        for name, (samples, values) in curves.items():
            k = names.index(name)
            style = {"color": LINES[k % len(LINES)], "linestyle": DASHES[k % len(DASHES)]}
            ax.plot(samples / 1000, values, linewidth=1.5, label=name, **style)
        if "accuracy" not in quantity:
            _log_scale(ax)
        ax.set(xlabel="samples seen (thousand)", ylabel=quantity)
        ax.set_xlim(left=0)
        ax.grid(which="both", color="0.92")
    lines = {label: line for ax in axes[0] for line, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=min(4, len(lines)), frameon=False)
    figure.suptitle(title)
    return figure


def _evaluated(curves):
    """name -> (2, n) samples and values, without the moments that have no evaluation."""
    curves = {name: np.array([samples, values], float) for name, (samples, values) in curves.items()}
    curves = {name: curve[:, np.isfinite(curve[1])] for name, curve in curves.items()}
    if not any(len(samples) for samples, _ in curves.values()):
        raise ValueError("no evaluation in any run: nothing to draw")
    return curves


def progress(metrics, n_samples, title=""):
    """A run so far, against the samples seen: its losses and its error on `val`, its learning rate, its speed.

    metrics: table of the lines of metrics.jsonl, in which only `samples` is needed.  n_samples: of the whole run.
    """
    if len(metrics) == 0:
        raise ValueError("no line of metrics: nothing to draw")
    losses = [name for name in metrics if name.startswith("train/") or name == "val/error"]
    panels = ((losses, "loss; error on val"), (["learning_rate"], "learning rate"), (["samples_per_s"], "samples/s"))
    figure, axes = _subplots(1, 3, size=(11, 2.6), width_ratios=(2, 1, 1))
    for ax, (names, quantity) in zip(axes[0], panels):
        for k, name in enumerate(names):
            known = metrics[["samples", name]].dropna() if name in metrics else metrics[["samples"]][:0]
            style = {"color": LINES[k % len(LINES)], "linestyle": DASHES[k // len(LINES) % len(DASHES)]}
            ax.plot(known["samples"] / 1000, known.get(name, []), marker=".", markersize=3, label=name, **style)
        ax.set(xlabel="samples seen (thousand)", ylabel=quantity, xlim=(0, n_samples / 1000))
        ax.grid(color="0.92")
    axes[0, 0].set_title(title)
    if losses:
        axes[0, 0].legend(frameon=False, fontsize=8)
        if (metrics[losses].min() > 0).all():
            _log_scale(axes[0, 0])
    axes[0, 2].set_ylim(bottom=0)
    return figure


def _log_scale(ax):
    """A logarithmic y axis with plain numbers."""
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.tick_params(axis="y", which="minor", labelsize=8)


# What a model has learned, and from how much


def latent(panels, title=""):
    """Crystals in two dimensions of a latent space, one panel a model, three panels a row, coloured by crystal system.

    panels: name -> (points (n, 2), systems (n,) of CRYSTAL_SYSTEMS, share of the variance of each dimension (2,), or
    None where the dimensions are not principal components).
    """
    if not panels:
        raise ValueError("no model: nothing to draw")
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure, axes = _subplots(n_rows, n_columns, size=(3.4 * n_columns + 0.2, 3.2 * n_rows + 0.6))
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (name, (points, systems, shares)) in zip(axes.flat, panels.items()):
        # In a random order: drawn one after the other, the last system would hide the first.
        order = np.random.default_rng(0).permutation(len(points))
        colours = np.array([PALETTE[system] for system in systems])
        ax.scatter(*np.asarray(points)[order].T, s=6, c=colours[order], alpha=0.7, linewidths=0, rasterized=True)
        labels = ["dimension 1", "dimension 2"]
        if shares is not None:
            labels = [f"PC {k + 1} ({100 * share:.0f} % of the variance)" for k, share in enumerate(shares)]
        ax.set(xlabel=labels[0], ylabel=labels[1], title=name)
        ax.locator_params(nbins=5)
    dots = [Line2D([], [], linestyle="", marker="o", color=colour, label=name) for name, colour in PALETTE.items()]
    figure.legend(handles=dots, loc="outside lower center", ncols=min(7, 3 * n_columns), frameon=False)
    figure.suptitle(title)
    return figure


def scaling(panels, quantity, title=""):
    """Error against the number of training crystals, both logarithmic: runs as points, fits as lines, 95 % as bands.

    panels: name -> (n (k,) training crystals, errors (k,), its scaling.PowerLaw or None).  quantity: name and unit,
    "MAE on test (meV/atom)".  The legend gives each exponent with its interval.
    """
    if not panels:
        raise ValueError("no model: nothing to draw")
    figure, axes = _subplots(size=(7.6, 4.2))
    ax = axes[0, 0]
    for k, (name, (n, errors, fit)) in enumerate(panels.items()):
        colour, marker = LINES[k % len(LINES)], "os^Dv"[k % 5]
        label = name
        if fit is not None:
            grid = np.geomspace(min(n) / 1.3, max(n) * 1.3, 100)
            low, high = fit.interval("b")
            label = f"{name}\n$\\propto N^{{-{fit.b:.2f}}}$ ({low:.2f} to {high:.2f})"
            if fit.c > 0:
                label = label.replace("\\propto ", f"{fit.c:.3g} + a\\,")
            ax.plot(grid, fit.error(grid), color=colour, linestyle=DASHES[k % len(DASHES)], linewidth=1.5)
            ax.fill_between(grid, *fit.band(grid), color=colour, alpha=0.15, linewidth=0)
        ax.scatter(
            n, errors, s=28, color=colour, marker=marker, edgecolor="white", linewidth=0.5, zorder=3, label=label
        )
    ax.set(xscale="log", yscale="log", xlabel="training crystals N", ylabel=quantity, title=title)
    for axis, form in ((ax.xaxis, "{:,.0f}"), (ax.yaxis, "{:,g}")):
        axis.set_major_formatter(FuncFormatter(lambda value, _, form=form: form.format(value)))
    ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "2357" else ""))
    ax.tick_params(axis="y", which="minor", labelsize=8)
    ax.xaxis.set_minor_formatter("")
    ax.grid(which="major", color="0.92")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, labelspacing=1)
    return figure


# What measurement does to a prediction


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
    figure, axes = _subplots(n_rows, n_columns, size=(2.9 * n_columns, 2.4 * n_rows + 0.6), sharey=True)
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
    figure, axes = _subplots(1, len(panels), size=(4.2 * len(panels) + 1, 0.32 * len(groups) + 1.8), sharey=True)
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


def _subplots(n_rows=1, n_columns=1, *, size, **options):
    """A Figure of a size in inches, and its axes (n_rows, n_columns)."""
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False, **options)
    plt.close(figure)  # a notebook would show it twice: as an open figure and as the value of its cell
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_axisbelow(True)
    return figure, axes
