"""Figures of one crystal and of its pattern."""

from itertools import pairwise

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.patches import Circle

from xxlib.diffraction.axes import along
from xxlib.diffraction.patterns import N_TOKENS, POINTS_PER_TOKEN, STEP, TWO_THETA, patchify
from xxlib.diffraction.wavelengths import CU_KA
from xxlib.plots.style import (
    ANGLE,
    COLUMN,
    EDGES,
    INTENSITY,
    LINES,
    PAGE,
    SMALL,
    entitle,
    grid_along,
    journal,
    letter,
    scale_along,
    subplots,
)

ATOM_RADIUS = 0.4  # of the atomic radius: drawn small enough to see what lies behind


@journal
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

    figure, axes = subplots(size=(COLUMN, 3.1))
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
        ax.scatter([], [], s=30, label=element.symbol, **style)
    ax.set(aspect="equal", xlabel="angstrom", ylabel="angstrom")
    ax.margins(0.15)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    entitle(figure, title)
    return figure


def _rotation(axis, degrees):
    """Matrix (3, 3) of a rotation about x, y or z (axis 0, 1, 2)."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = cos
    matrix[i, j], matrix[j, i] = -sin, sin
    return matrix


@journal
def diffraction(sticks, pattern, title="", n_labels=6, axis="two_theta"):
    """Sticks of one crystal, the strongest with their hkl, below its pattern (4250,).

    axis: "two_theta", "q" or "d", of both, of Cu K-alpha.
    """
    figure, (top, bottom) = subplots(2, 1, size=(PAGE, 3.4), sharex=True)
    top[0].plot(grid_along(axis), pattern, color=LINES[0], linewidth=0.8)
    places = along(axis, sticks.two_theta, CU_KA)
    bottom[0].vlines(places, 0, sticks.intensity, color=LINES[1], linewidth=0.8)
    for i in np.argsort(-sticks.intensity)[:n_labels]:
        signed = [f"$\\bar{{{-h}}}$" if h < 0 else str(h) for h in sticks.hkl[i].tolist()]
        hkl = ("" if np.abs(sticks.hkl[i]).max() < 10 else " ").join(signed)
        at = (places[i], sticks.intensity[i])
        bottom[0].annotate(hkl, at, xytext=(0, 2), textcoords="offset points", ha="center", fontsize=SMALL)
    for ax, what in ((top[0], "pattern"), (bottom[0], "sticks")):
        ax.set(ylabel=INTENSITY, ylim=(0, 115))
        ax.text(0.99, 0.95, what, transform=ax.transAxes, ha="right", va="top")
    scale_along(bottom[0], axis)
    if axis == "two_theta":
        bottom[0].set_xlabel(ANGLE)
    letter([top[0], bottom[0]])
    entitle(figure, title)
    return figure


@journal
def tokens(pattern, title=""):
    """A pattern (4250,) cut into its 17 tokens: above in place, below one token a row, as the encoder reads them."""
    figure, (top, bottom) = subplots(2, 1, size=(PAGE, 4.6), height_ratios=(1, 1.4))
    ax = top[0]
    for k, (left, right) in enumerate(pairwise(EDGES)):
        ax.axvspan(left, right, color=("0.93", "white")[k % 2], zorder=0)
        ax.text((left + right) / 2, 104, str(k + 1), ha="center", fontsize=SMALL)
    ax.plot(TWO_THETA, pattern, color=LINES[0], linewidth=0.8)
    ax.set(xlabel=ANGLE, ylabel=INTENSITY, xlim=EDGES[[0, -1]], ylim=(0, 115), xticks=range(10, 91, 10))

    ax = bottom[0]
    width = STEP * POINTS_PER_TOKEN  # degree
    # Most of a pattern is low: the square root of the intensity shows weak peaks beside strong ones.
    image = ax.imshow(
        patchify(pattern), aspect="auto", cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest",
        extent=(0, width, N_TOKENS + 0.5, 0.5),
    )  # fmt: skip
    ax.hlines(np.arange(1.5, N_TOKENS), 0, width, color="white", linewidth=1)
    ax.set(xlabel="2θ from the start of the token (degree)", ylabel="token", yticks=range(1, N_TOKENS + 1))
    figure.colorbar(image, ax=ax, label=INTENSITY, ticks=(0, 10, 25, 50, 100))
    letter([top[0], bottom[0]])
    entitle(figure, title)
    return figure
