"""Figures of what a dataset holds, and of what preparing it costs."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.diffraction.patterns import TWO_THETA
from xxlib.plots.style import (
    ANGLE,
    COLUMN,
    DASHES,
    INTENSITY,
    LINES,
    PAGE,
    PALETTE,
    SMALL,
    TEXT,
    entitle,
    journal,
    letter,
    subplots,
)


@journal
def patterns_by_system(patterns, systems, names, title=""):
    """Patterns (n, 4250), one above the other, in the colours of their crystal systems; names: written at each."""
    if len(patterns) == 0:
        raise ValueError("no pattern: nothing to draw")
    figure, axes = subplots(size=(PAGE, max(1.8, 0.5 * len(patterns) + 0.5)))
    ax = axes[0, 0]
    for k, (pattern, system, name) in enumerate(zip(patterns, systems, names, strict=True)):
        base = 120 * (len(patterns) - 1 - k)
        ax.fill_between(TWO_THETA, base, base + pattern, color=PALETTE[system], linewidth=0)
        ax.plot(TWO_THETA, base + pattern, color=PALETTE[system], linewidth=0.7)
        ax.text(90.5, base + 10, f"{name}\n{system}", fontsize=SMALL)
    ax.set(xlabel=ANGLE, ylabel=INTENSITY + ", shifted", xlim=(5, 90), yticks=[])
    entitle(figure, title)
    return figure


@journal
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
    figure, axes = subplots(size=(PAGE, 4.1))
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
        ax.text(column, row - 0.08, element.symbol, ha="center", va="center", color=ink, fontsize=TEXT)
        if count:
            share = 100 * count / n_crystals
            shown = f"{share:.1f}" if share >= 0.1 else "<0.1"
            ax.text(column, row + 0.32, shown, ha="center", va="center", color=ink, fontsize=SMALL)
    ax.set(xlim=(0.4, 18.6), ylim=(9.9, 0.4), aspect="equal")
    entitle(figure, title)
    ax.set_axis_off()
    scale = plt.cm.ScalarMappable(norm, colours)
    bar = figure.colorbar(scale, cax=ax.inset_axes((0.19, 0.82, 0.44, 0.03)), orientation="horizontal", extend="min")
    bar.set_label(f"crystals with the element, of {n_crystals:,} (below the symbol: %)")
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure


@journal
def crystal_systems(names, title=""):
    """How many crystals belong to each crystal system; names: (n,) of CRYSTAL_SYSTEMS."""
    names = np.asarray(names)
    if len(names) == 0:
        raise ValueError("no crystal: nothing to draw")
    figure, axes = subplots(size=(COLUMN, 2.4))
    ax = axes[0, 0]
    style = {"palette": PALETTE, "edgecolor": "black", "linewidth": 0.5, "saturation": 1, "legend": False}
    sns.countplot(x=names, hue=names, order=CRYSTAL_SYSTEMS, hue_order=CRYSTAL_SYSTEMS, ax=ax, **style)
    for k, system in enumerate(CRYSTAL_SYSTEMS):
        count = (names == system).sum()
        ax.annotate(f"{100 * count / len(names):.1f} %", (k, count), (0, 2), textcoords="offset points", ha="center",
                    fontsize=SMALL)  # fmt: skip
    ax.set(xlabel=f"crystal system of {len(names):,} crystals", ylabel="number of crystals")
    ax.set_xticks(range(len(CRYSTAL_SYSTEMS)), CRYSTAL_SYSTEMS, rotation=35, ha="right", rotation_mode="anchor")
    entitle(figure, title)
    ax.margins(y=0.12)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure


@journal
def preparation(times, sizes, memory, title=""):
    """What preparing crystals costs: time by stage and tool, bytes on disk, memory against the number of crystals.

    times: stage -> tool -> microseconds a crystal.  sizes: form -> bytes a crystal.  memory: process -> (number of
    crystals (k,), peak MB (k,)).
    """
    figure, axes = subplots(1, 3, size=(PAGE, 3.0), width_ratios=(2.2, 1, 1))
    left, middle, right = axes[0]
    tools = list(dict.fromkeys(tool for stage in times.values() for tool in stage))
    for k, tool in enumerate(tools):
        places = [i + 0.26 * (list(stage).index(tool) - (len(stage) - 1) / 2) for i, stage in enumerate(times.values())
                  if tool in stage]  # fmt: skip
        heights = [stage[tool] for stage in times.values() if tool in stage]
        bars = left.bar(places, heights, width=0.24, color=LINES[k], label=tool)
        left.bar_label(bars, [f"{height:,.0f}" for height in heights], fontsize=SMALL, padding=2, rotation=90)
    left.set(yscale="log", ylabel="time (µs a crystal)")
    left.set_xticks(
        range(len(times)),
        [stage.replace(", ", "\n") for stage in times],
        rotation=30,
        ha="right",
        rotation_mode="anchor",
    )
    left.margins(y=0.25)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=len(tools))
    bars = middle.bar(list(sizes), list(sizes.values()), color=[LINES[0], *["0.6"] * (len(sizes) - 1)], width=0.6)
    middle.bar_label(bars, [f"{size:,.0f}" for size in sizes.values()], fontsize=SMALL, padding=1)
    middle.set(ylabel="size (bytes a crystal)")
    middle.margins(y=0.12)
    for k, (name, (n, peak)) in enumerate(memory.items()):
        right.plot(n, peak, color=LINES[k], marker="os^"[k % 3], linestyle=DASHES[k % len(DASHES)], label=name)
    right.set(xlabel="crystals prepared", ylabel="peak memory (MB)", xscale="log", ylim=(0, None))
    counts = sorted({count for n, _ in memory.values() for count in n})
    right.set_xticks(counts, [f"{count:,}" for count in counts])
    right.minorticks_off()
    right.margins(x=0.2)
    right.legend()
    letter(axes)
    entitle(figure, title)
    return figure
