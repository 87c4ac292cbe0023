"""Figures: what they show, in which units, in which colours."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.text import Text
from study.power_laws import power_law

from xxlib import plots
from xxlib.answering.calibration import refusal, reliability
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS, Crystal, lattice_from_cell
from xxlib.diffraction.patterns import TWO_THETA, render_one
from xxlib.diffraction.scattering import sticks
from xxlib.plots.style import COLUMN, PAGE
from xxlib.scans.conditioning import condition
from xxlib.scans.scan import Scan
from xxlib.training.metrics import accuracy_interval, regression_metrics

CSCL = Crystal(
    "CsCl", lattice_from_cell(4.12, 4.12, 4.12, 90, 90, 90), np.array([55, 17]),
    np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]), np.ones(2),
)  # fmt: skip
LINES = sticks(CSCL)
PATTERN = render_one(LINES)
SCAN = Scan(two_theta=TWO_THETA[500:3000], intensity=PATTERN[500:3000] + 10.0)
RNG = np.random.default_rng(0)
TRUE = RNG.normal(size=50)
SYSTEMS = RNG.integers(0, 7, 50).astype(float)
PROBABILITIES = RNG.dirichlet(np.ones(7), 50)
TWO, THREE_SYSTEMS = RNG.normal(size=(50, 2)), RNG.choice(["cubic", "trigonal", "triclinic"], 50)
SIZES = np.array([500.0, 1000, 2000, 4000])
FIT = power_law(SIZES, 5000 * SIZES**-0.5)
TWO_N = [1000, 4000]
INTERVAL = accuracy_interval(np.array([True, False]))
COUNTS = np.bincount([8, 8, 8, 26], minlength=119)

# function -> a call, and what must stand on the axes (x, y) of its panels
FIGURES = {
    plots.cell: (lambda: plots.cell(CSCL), [("angstrom", "angstrom")]),
    plots.diffraction: (lambda: plots.diffraction(LINES, PATTERN), [("", "0-100"), ("2θ (degree)", "0-100")]),
    plots.tokens: (lambda: plots.tokens(PATTERN), [("2θ (degree)", "0-100"), ("(degree)", "token")]),
    plots.conditioning: (
        lambda: plots.conditioning(condition(SCAN)),
        [("at 1.5418 Å (degree)", "(counts)"), ("Cu Kα (degree)", "(counts, scaled)"), ("(degree)", "0-100")],
    ),
    plots.sheet: (
        lambda: plots.sheet(PATTERN, condition(SCAN), {"cubic": 0.9, "trigonal": 0.1}, ("cubic",), 0.9, "q"),
        [("q (1/Å)", "(counts, scaled)"), ("probability (%)", "")],
    ),
    plots.answered: (
        lambda: plots.answered(
            condition(SCAN), "lines of NaCl", [30.0], {"E (eV)": (1, 0, 2)}, {"cubic": 1.0}, (), 0.9, {"E (eV)": 0.5}
        ),
        [("Cu Kα (degree)", "(counts, scaled)"), ("probability (%)", ""), ("", "E (eV)")],
    ),
    plots.series: (
        lambda: plots.series([PATTERN] * 3, [2, 0, 1], "time (h)", {"E (eV)": np.ones((3, 3))}, {"cubic": np.ones(3)}),
        [("Cu Kα (degree)", "time (h)"), ("E\n(eV)", ""), ("probability (%)", "")],
    ),
    plots.patterns_by_system: (
        lambda: plots.patterns_by_system([PATTERN, PATTERN], ["cubic", "trigonal"], ["a", "b"]),
        [("2θ (degree)", "0-100")],
    ),
    plots.elements: (lambda: plots.elements(COUNTS, 4), []),
    plots.pairs: (
        lambda: plots.pairs({"a model": pd.DataFrame([[0, -1.2], [np.nan, 0]], ["Na", "Cl"], ["Na", "Cl"])}, "E (eV)"),
        [("", ""), ("", "E (eV)")],
    ),
    plots.crystal_systems: (
        lambda: plots.crystal_systems(["cubic", "cubic", "trigonal"]),
        [("crystal system", "number of crystals")],
    ),
    plots.preparation: (
        lambda: plots.preparation(
            {"sticks, small": {"a": 1.0, "b": 10.0}, "pattern": {"a": 2.0}},
            {"sticks": 5, "dense": 9},
            {"p": (TWO_N, TWO_N)},
        ),
        [("", "time (µs a crystal)"), ("", "size (bytes a crystal)"), ("crystals prepared", "peak memory (MB)")],
    ),
    plots.parity: (
        lambda: plots.parity({"m": (TRUE, TRUE + 1), "n": (TRUE, TRUE)}, "E", "eV/atom"),
        [("true E (eV/atom)", "predicted E (eV/atom)"), ("true E (eV/atom)", "")],
    ),
    plots.confusion: (lambda: plots.confusion({"m": (SYSTEMS, PROBABILITIES)}), [("predicted", "true")]),
    plots.learning_curves: (
        lambda: plots.learning_curves({"m": ([1000, 2000], [3.0, 2.0])}, "MAE on val (meV/atom)"),
        [("samples seen (thousand)", "MAE on val (meV/atom)")],
    ),
    plots.differences: (
        lambda: plots.differences({"m": (["a", "b"], [1.0, -2.0], [0.5, 0.5])}, "gain (meV/atom)"),
        [("gain (meV/atom)", "")],
    ),
    plots.histograms: (
        lambda: plots.histograms(
            {"m": {"a": [0.4, 0.6], "b": [1, 0]}, "n": {"a": [0, 1]}}, [0, 1, 2], "x (eV)", "pairs"
        ),
        [("x (eV)", "pairs (%)"), ("x (eV)", "")],
    ),
    plots.progress: (
        lambda: plots.progress(pd.DataFrame({"samples": [8, 16], "train/loss": [2, 1], "val/error": [None, 1]}), 80),
        [("samples seen (thousand)", name) for name in ("loss", "judged on val", "samples/s, smoothed")],
    ),
    plots.latent: (
        lambda: plots.latent({"m": (TWO, THREE_SYSTEMS, (0.4, 0.2)), "n": (TWO, THREE_SYSTEMS, None)}),
        [("PC 1 (40 % of the variance)", "PC 2 (20 %"), ("dimension 1", "dimension 2")],
    ),
    plots.scaling: (
        lambda: plots.scaling({"m": (SIZES, 5000 * SIZES**-0.5, FIT), "n": (SIZES, SIZES, None)}, "MAE (meV/atom)"),
        [("training crystals", "MAE (meV/atom)")],
    ),
    plots.learning_columns: (
        lambda: plots.learning_columns({"MAE (eV)": {"m": ([1000, 2000], [3.0, 2.0])}}),
        [("samples seen (thousand)", "MAE (eV)")],
    ),
    plots.reliability: (
        lambda: plots.reliability({"m": reliability(PROBABILITIES, SYSTEMS)}),
        [("probability given to the answer (%)", "answers that are right (%)")],
    ),
    plots.refusal: (
        lambda: plots.refusal({"MAE (eV)": {"m": refusal(TRUE, np.abs(TRUE))}}),
        [("answered, the surest first (%)", "MAE (eV)")],
    ),
    plots.severity: (
        lambda: plots.severity(
            pd.DataFrame({"run": "m", "effect": "zero shift (degree)", "value": [0.1], "MAE": [1]}), "MAE"
        ),
        [("zero shift (degree)", "MAE")],
    ),
    plots.accuracies: (
        lambda: plots.accuracies({"m": pd.DataFrame([{"patterns": "measured", "of": "all"} | INTERVAL])}),
        [("crystal system right (%)", "")],
    ),
    plots.by_bin: (
        lambda: plots.by_bin({"m": ([9.0, np.nan], [1.0, np.nan])}, ["0-25", "> 25"], "above (meV/atom)", "MAE (eV)"),
        [("above (meV/atom)", "MAE (eV)")],
    ),
}


def words(figure):
    """Everything written inside the axes of a figure."""
    return [text.get_text() for ax in figure.axes for text in ax.texts]


@pytest.mark.parametrize("name", [function.__name__ for function in FIGURES])
def test_every_plot_is_a_figure_with_units_that_can_be_drawn(name):
    make, labels = FIGURES[getattr(plots, name)]
    figure = make()
    assert isinstance(figure, Figure)
    assert not plt.get_fignums(), "an open figure is shown twice in a notebook, and never freed"
    figure.draw_without_rendering()
    for ax, (x, y) in zip(figure.axes, labels):
        assert x in ax.get_xlabel() and y in ax.get_ylabel(), (ax.get_xlabel(), ax.get_ylabel())
        assert bool(x) == bool(ax.get_xlabel()) and bool(y) == bool(ax.get_ylabel())


def at_print_size(figure):
    """What of a figure is not as a journal has it, in words."""
    figure.draw_without_rendering()
    wide = figure.get_figwidth()
    faults = [] if wide in (COLUMN, PAGE) else [f"{wide} inch wide"]
    shown = figure.bbox.padded(0.01 * figure.dpi)
    for text in figure.findobj(Text):
        if text.get_text().strip() and text.get_visible() and all(map(Artist.get_visible, above(text, figure))):
            if text.get_fontsize() < 7:
                faults.append(f"{text.get_text()!r} has {text.get_fontsize():.1f} points")
            box = text.get_window_extent()
            if not (shown.contains(box.x0, box.y0) and shown.contains(box.x1, box.y1)) and is_tick_in_sight(
                text, figure
            ):
                faults.append(f"{text.get_text()!r} is cut")
    return faults


def above(artist, figure):
    """The axes that hold an artist."""
    return [artist.axes] if artist.axes is not None and artist.axes is not figure else []


def is_tick_in_sight(text, figure):
    """Whether a text is drawn: labels of ticks outside the limits of their axis are not."""
    for axis in (axis for ax in figure.findobj(Axes) for axis in (ax.xaxis, ax.yaxis)):
        for tick in axis.get_major_ticks() + axis.get_minor_ticks():
            if text in (tick.label1, tick.label2):
                low, high = sorted(axis.get_view_interval())
                return low <= tick.get_loc() <= high
    return True


@pytest.mark.parametrize("name", [function.__name__ for function in FIGURES])
def test_every_plot_is_at_print_size(name):
    """A column or a page wide, no letter smaller than 7 points, nothing that leaves the paper."""
    assert not at_print_size(FIGURES[getattr(plots, name)][0]())


def test_panels_have_letters():
    figure = plots.parity({"m": (TRUE, TRUE + 1), "n": (TRUE, TRUE)}, "E", "eV/atom")
    assert [ax.get_title(loc="left") for ax in figure.axes[:2]] == [r"$\bf{a}$  m", r"$\bf{b}$  n"]
    assert plots.parity({"m": (TRUE, TRUE)}, "E", "eV").axes[0].get_title(loc="left") == "m"


def test_points_at_the_ends_of_a_scale_are_whole():
    """An accuracy of 0 or 100 % is not cut in half by the axis."""
    rows = [{"patterns": "measured", "of": name, "n": 5, "accuracy (%)": end, "low (%)": 0, "high (%)": 100}
            for name, end in (("a", 0.0), ("b", 100.0))]  # fmt: skip
    low, high = plots.accuracies({"m": pd.DataFrame(rows)}).axes[0].get_xlim()
    assert low < -1 and high > 101


def test_lines_that_lie_on_each_other_are_told_apart():
    """The first is wider, and of markers in one place every other one is hollow and larger."""
    same = {"m": ([1000, 2000], [3.0, 2.0]), "n": ([1000, 2000], [3.0, 2.0])}
    first, second = plots.learning_curves(same, "MAE (eV)").axes[0].get_lines()
    assert first.get_linewidth() > second.get_linewidth() and second.get_linestyle() != "-"
    points = plots.scaling({"m": (SIZES, SIZES, None), "n": (SIZES, SIZES, None)}, "MAE (eV)").axes[0].get_lines()
    assert points[1].get_markersize() > points[0].get_markersize() and points[1].get_markerfacecolor() == "none"


def test_every_plot_is_tested():
    public = {getattr(plots, name) for name in plots.__all__ if callable(getattr(plots, name))}
    assert public - {plots.save_figure} == set(FIGURES)


def test_one_palette_for_the_crystal_systems():
    assert tuple(plots.PALETTE) == CRYSTAL_SYSTEMS
    bars = plots.crystal_systems(CRYSTAL_SYSTEMS).axes[0].patches
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars if bar.get_height()] == list(plots.PALETTE.values())
    fills = plots.patterns_by_system([PATTERN] * 7, CRYSTAL_SYSTEMS, CRYSTAL_SYSTEMS).axes[0].collections
    assert [to_hex(fill.get_facecolor()[0]).upper() for fill in fills] == list(plots.PALETTE.values())


# Machado, Oliveira and Fernandes, IEEE Trans. Vis. Comput. Graph. 15, 1291 (2009), severity 1, on linear RGB
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]


@pytest.mark.parametrize("sight", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["full", "deuteranopia", "protanopia"])
@pytest.mark.parametrize("colours", [list(plots.PALETTE.values()), plots.LINES], ids=["crystal systems", "lines"])
def test_colours_differ_for_every_reader(colours, sight):
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ np.transpose(sight)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear.clip(0, 1) @ to_xyz.T / [0.9505, 1, 1.089]
    x, y, z = np.cbrt(xyz).T  # near enough to CIE L*a*b* for colours that are not almost black
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
    distance = np.linalg.norm(lab[:, None] - lab, axis=-1) + 1000 * np.eye(len(lab))
    assert distance.min() > 10  # 2.3 is just noticeable side by side


def test_atoms_on_the_border_of_the_cell_are_at_every_corner():
    circles = [patch for patch in plots.cell(CSCL).axes[0].patches if isinstance(patch, Circle)]
    assert len(circles) == 8 + 1


def test_conditioning_shades_what_was_not_measured():
    conditioned = condition(SCAN)
    _, middle, bottom = plots.conditioning(conditioned).axes
    for ax in (middle, bottom):
        spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches]
        assert np.allclose(spans, [(5, 15), (64.98, 89.98)])
    assert np.array_equal(bottom.get_lines()[0].get_ydata(), conditioned.pattern[500:3000])


def test_the_strongest_sticks_have_their_hkl():
    figure = plots.diffraction(LINES, PATTERN, n_labels=1)
    assert any(set(text.strip("$").replace("\\bar", "")) >= set("10") for text in words(figure))  # {110} of CsCl
    assert len(words(figure)) == 1 + 2


def test_tokens_are_numbered_and_cut_every_five_degrees():
    figure = plots.tokens(PATTERN)
    assert words(figure) == [str(number) for number in range(1, 18)]
    image = figure.axes[1].images[0].get_array()
    assert image.shape == (17, 250) and np.array_equal(np.ravel(image), PATTERN)


def test_the_periodic_table_has_118_places_and_shares_of_crystals():
    figure = plots.elements(COUNTS, 4)
    squares = {patch.get_xy() for patch in figure.axes[0].patches if isinstance(patch, Rectangle)}
    assert len(squares) == 118
    assert min(x for x, _ in squares) > 0 and max(x for x, _ in squares) < 18
    shown = words(figure)
    assert shown[shown.index("O") + 1] == "75.0" and shown[shown.index("Fe") + 1] == "25.0"
    assert sum(text.replace(".", "").isdigit() for text in shown) == 2


def test_parity_says_what_the_metrics_say_of_the_labelled_crystals():
    true = np.where(np.arange(50) < 10, np.nan, TRUE)
    predicted = TRUE + RNG.normal(size=50)
    metrics = regression_metrics(true, predicted)
    (shown,) = words(plots.parity({"m": (true, predicted)}, "E", "eV"))
    assert f"{metrics['mae']:.3f} eV" in shown and f"{metrics['r2']:.3f}" in shown and "n 40" in shown


def test_parity_panels_share_one_scale():
    figure = plots.parity({"m": (TRUE, 3 * TRUE), "n": (TRUE, TRUE)}, "E", "eV")
    m, n = figure.axes
    assert m.get_xlim() == m.get_ylim() == n.get_xlim() == n.get_ylim()
    assert m.collections[0].norm is n.collections[0].norm
    assert m.get_xlim()[1] > 3 * TRUE.max()


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_title_of_parity_is_above_those_of_its_panels(n):
    figure = plots.parity({f"model {k}": (TRUE, TRUE) for k in range(n)}, "E", "eV", "of what")
    figure.savefig(io.BytesIO(), bbox_inches="tight")  # as it is saved: a first drawing has the title elsewhere
    lowest = figure._suptitle.get_window_extent().y0
    assert all(ax.title.get_window_extent().y1 < lowest for ax in figure.axes)


def test_confusion_is_normalised_by_row_and_shows_counts():
    true = np.array([0, 0, 0, 0, 6, np.nan])
    probabilities = np.eye(7)[[0, 0, 0, 1, 6, 3]]
    figure = plots.confusion({"m": (true, probabilities)})
    shares = figure.axes[0].collections[0].get_array().reshape(7, 7)
    assert np.array_equal(shares[0], [75, 25, 0, 0, 0, 0, 0])
    assert shares[3].sum() == 0, "a class that is absent has no share"
    assert list(filter(None, words(figure))) == ["75\n3", "25\n1", "100\n1"]
    assert "80.0 % right of 5" in figure.axes[0].get_title(loc="left")
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == list(CRYSTAL_SYSTEMS)


def test_learning_curves_tell_twelve_runs_apart():
    figure = plots.learning_curves({str(k): ([1000], [1.0]) for k in range(12)}, "MAE (eV)")
    lines = figure.axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 12
    assert list(lines[0].get_xdata()) == [1]


def test_several_seeds_are_a_mean_and_their_range():
    """A moment that one of them has not evaluated is none."""
    seeds = [[3.0, 2.0, np.nan, 1.0], [5.0, 2.5, 2.0, 2.0]]
    ax = plots.learning_curves({"m": ([1000, 2000, 3000, 4000], seeds)}, "MAE (eV)").axes[0]
    assert ax.get_lines()[0].get_xydata().tolist() == [[1, 4], [2, 2.25], [4, 1.5]]
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.ymin, band.ymax) == (1, 5) and "m: 1.5" in ax.figure.legends[0].get_texts()[0].get_text()
    assert not plots.learning_curves({"m": ([1000], [1.0])}, "MAE (eV)").axes[0].collections


def test_a_run_keeps_its_colour_in_every_column():
    both = {"scratch": ([1000, 2000], [2.0, 1.0]), "pretrained": ([1000, 2000], [np.nan, 0.5])}
    columns = {"MAE (eV)": both, "accuracy (%)": {"pretrained": ([1000], [50.0])}}
    figure = plots.learning_columns(columns)
    left, right = figure.axes
    colours = {line.get_label(): line.get_color() for line in left.get_lines()}
    assert right.get_lines()[0].get_color() == colours["pretrained"] != colours["scratch"]
    assert (left.get_yscale(), right.get_yscale()) == ("log", "linear")
    assert list(left.get_lines()[1].get_xdata()) == [2], "a moment without evaluation is no point"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["scratch", "pretrained"]
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.learning_columns({"MAE (eV)": {}})


def test_latent_panels_colour_each_crystal_by_its_system():
    figure = plots.latent({str(k): (TWO, THREE_SYSTEMS, None) for k in range(6)})
    figure.draw_without_rendering()
    assert len({ax.get_position().y0 for ax in figure.axes}) == 2, "six panels are two rows"
    drawn = figure.axes[5].collections[0]
    colour = {tuple(point): to_hex(c) for point, c in zip(drawn.get_offsets().data.tolist(), drawn.get_facecolors())}
    for point, system in zip(TWO.tolist(), THREE_SYSTEMS):
        assert colour[tuple(point)] == plots.PALETTE[system].lower()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(CRYSTAL_SYSTEMS)


def test_scaling_is_logarithmic_and_says_the_exponent():
    figure = plots.scaling({"m": (SIZES, 5000 * SIZES**-0.5, FIT)}, "MAE (meV/atom)")
    ax = figure.axes[0]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert "N^{-0.50}" in figure.legends[0].get_texts()[0].get_text()
    x, y = ax.get_lines()[0].get_data()
    assert np.allclose(y, 5000 * x**-0.5, rtol=1e-3) and x[0] < 500 and x[-1] > 4000
    figure.draw_without_rendering()
    assert list(ax.get_xticks()) == list(SIZES), "the sizes that there are, not decades between them"
    assert [text.get_text() for text in ax.get_xticklabels()] == [f"{size:,.0f}" for size in SIZES]

    others = plots.scaling({"m": (SIZES, SIZES, None)}, "MAE (eV)", others={"theirs": ([1e6, 4e6], [9, 8])})
    others.draw_without_rendering()
    assert list(others.axes[0].get_xticks()) == [1e3, 1e4, 1e5, 1e6], "their sizes are far from ours"
    assert [text.get_text() for text in others.legends[0].get_texts()] == ["m", "theirs"]

    close = np.array([1000, 2000, 5000, 6000])
    ticks = plots.scaling({"m": (close, close, None)}, "MAE (eV)").axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["1,000", "2,000", "", "6,000"], "two that touch are not both written"
    joined = plots.scaling({"m": (SIZES[::-1], SIZES[::-1] ** -0.5, None)}, "MAE (eV)").axes[0].get_lines()
    assert [list(line.get_xdata()) for line in joined] == [list(SIZES)], "without a law the points are joined in order"
    assert joined[0].get_linestyle() == "-"
    seeds = plots.scaling({"m": (np.append(SIZES, SIZES), np.ones(8), None)}, "MAE (eV)").axes[0]
    assert seeds.get_lines()[0].get_linestyle() == "None", "two errors of one size are no curve"


@pytest.mark.parametrize(("highest", "labels"), [(300, "100 200 300"), (1000, "100 200 300 500 700 1,000"),
                                                 (9000, "100 200 500 1,000 2,000 5,000")])  # fmt: skip
def test_a_logarithmic_axis_has_as_many_numbers_as_there_is_room_for(highest, labels):
    figure = plots.learning_curves({"m": ([1000, 2000], [100.0, highest])}, "MAE (meV/atom)")
    ax = figure.axes[0]
    ax.set_ylim(95, 1.05 * highest)
    figure.draw_without_rendering()
    low, high = ax.get_ylim()
    ticks = ax.yaxis.get_major_ticks() + ax.yaxis.get_minor_ticks()
    shown = {tick.get_loc(): tick.label1.get_text() for tick in ticks if low <= tick.get_loc() <= high}
    assert " ".join(shown[place] for place in sorted(shown) if shown[place]) == labels


def test_differences_are_rows_from_the_top_with_their_intervals():
    groups = {"m": (["a", "b"], [1.0, -2.0], [0.5, 0.25]), "n": ([], [], []), "o": (["E_f, again"], [3.0], [1.0])}
    figure = plots.differences(groups, "gain in E_f (meV/atom)")
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "$E_f$, again"]
    assert ax.get_xlabel() == "gain in $E_f$ (meV/atom)"
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first is at the top"
    bars = next(lines for lines in ax.collections if isinstance(lines, LineCollection))
    ends = [segment[:, 0].tolist() for segment in bars.get_segments()]
    assert ends == [[0.5, 1.5], [-2.25, -1.75], [2.0, 4.0]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["m", "o"], "nothing of an empty group"


@pytest.mark.parametrize(
    "empty",
    [
        lambda: plots.elements(np.zeros(119, int), 0),
        lambda: plots.crystal_systems([]),
        lambda: plots.patterns_by_system([], [], []),
        lambda: plots.parity({}, "E", "eV"),
        lambda: plots.parity({"m": ([np.nan], [1.0])}, "E", "eV"),
        lambda: plots.confusion({}),
        lambda: plots.confusion({"m": ([np.nan], np.ones((1, 7)))}),
        lambda: plots.learning_curves({}, "MAE (eV)"),
        lambda: plots.learning_curves({"m": ([], [])}, "MAE (eV)"),
        lambda: plots.progress(pd.DataFrame(), 80),
        lambda: plots.latent({}),
        lambda: plots.scaling({}, "MAE (eV)"),
        lambda: plots.differences({"m": ([], [], [])}, "gain (eV)"),
        lambda: plots.histograms({}, [0, 1], "x (eV)", "pairs"),
    ],
)
def test_nothing_to_draw_is_said(empty):
    with pytest.raises(ValueError, match="nothing to draw"):
        empty()


def test_save_figure_makes_folders_and_returns_the_path(tmp_path, monkeypatch):
    monkeypatch.setattr(plots.style, "PROJECT", tmp_path)
    path = plots.save_figure(plots.crystal_systems(["cubic"]), "demo/systems")
    assert path == tmp_path / "figures" / "demo" / "systems.png"
    assert path.read_bytes().startswith(b"\x89PNG") and path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_what_is_saved_is_for_print(tmp_path, monkeypatch):
    """300 dots an inch, as wide as it says, without the title, which stands in the file."""
    from PIL import Image

    monkeypatch.setattr(plots.style, "PROJECT", tmp_path)
    figure = plots.crystal_systems(["cubic"], "of one crystal")
    with Image.open(plots.save_figure(figure, "systems")) as image:
        assert image.width == 300 * COLUMN and image.text["Title"] == "of one crystal"
    assert figure.get_suptitle() == "of one crystal" and figure._suptitle.get_visible(), "a notebook shows it"
    with_title = np.asarray(Image.open(plots.save_figure(figure, "systems")))
    without = np.asarray(Image.open(plots.save_figure(plots.crystal_systems(["cubic"]), "plain")))
    assert np.array_equal(with_title, without)
