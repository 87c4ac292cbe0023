"""What the paper says, arXiv 2507.01054: the numbers of data/results/paper.csv, and the rows under ours in the tables.

A line of paper.csv is a number: in which of our tables it stands (`table`), where the paper has it (`source`), of what
(model, modalities, targets, start, metric), and under which column.  Where the paper contradicts itself both stand.
"""

from typing import NamedTuple

import pandas as pd

from study.archive import RESULTS

CRYSTALS = 4_554_752  # that the paper trains on
PARAMETERS = 112  # millions
BATCH, EPOCHS = 32_768, 50
# Of every row of the paper, in the columns that our rows have.
ORIGIN = {"dataset": "Alexandria", "labels": "DFT labels of Alexandria", "split": "random", "preset": "paper"}
STARTS = {  # of Tables 2 and 5, in words
    "scratch": "from scratch",
    "contrastive": "after the contrastive task",
    "mxm": "after masked modelling",
    "contrastive + mxm": "after both tasks",
}
ABOUT = ["model", "modalities", "targets", "start", "metric"]


def numbers(table):
    """The lines of paper.csv for one of our tables."""
    every = pd.read_csv(RESULTS / "paper.csv", keep_default_na=False, dtype={"value": float})
    return every[every["table"] == table]


def beneath(table, name):
    """One of our tables, by its name, with the paper's rows beneath ours; their model says where the paper has them."""
    found = numbers(name)
    if found.empty:
        return table
    wide = found.pivot(index=[*ABOUT, "source"], columns="column", values="value").reset_index()
    order = found.drop_duplicates([*ABOUT, "source"])[[*ABOUT, "source"]]
    wide = order.merge(wide, how="left").assign(**ORIGIN)
    wide["model"] += " (paper, " + wide.pop("source") + ")"
    return pd.concat([table, wide[[column for column in wide if column in table]]], ignore_index=True)


def said(table, column, decimals=None, **of):
    """A number of the paper as a page shows it, both where there are two: "96.8 or 97.2"; of: values of ABOUT."""
    found = numbers(table)
    for name, value in (of | {"column": column}).items():
        found = found[found[name] == value]
    if found.empty:
        raise KeyError(f"paper.csv has no {column} of {of} for {table}")
    return " or ".join(f"{value:,g}" if decimals is None else f"{value:.{decimals}f}" for value in found["value"])


class Law(NamedTuple):
    """A fit of Figure 3: error = prefactor D^exponent in eV/atom, D in millions of training crystals."""

    prefactor: float
    exponent: float

    def error(self, n):
        """The error in meV/atom at n training crystals."""
        return 1000 * self.prefactor * (n / 1e6) ** self.exponent


def captions():
    """What the paper has beside figures of ours: name of the figure -> sentences."""
    of_mae, after = {"metric": "MAE of E_f (meV/atom)"}, list(STARTS)[1:]
    scores = _listed(STARTS, "table_5", "mean, all dimensions", model="XxaCT-NN")
    steps = _listed(STARTS, "table_2", "steps to scratch's 25%", **of_mae)
    times = _listed(after, "table_2", "speed-up", **of_mae)
    fits = laws()
    gaps = [fits["composition"].error(n) - fits["composition + xrd"].error(n) for n in (1e6, 4.5e6)]
    stated = [said("fits of figure_3", f"gap at {n} M") for n in (1, 4.5)]
    return {
        "figure_2": f"The paper's mean silhouettes: {scores}.",
        "figure_3": f"Thin lines: the paper's fits, from 1 million crystals to its {CRYSTALS:,}. The paper states gaps "
        f"of {' and '.join(stated)} meV/atom at 1 and 4.5 million; its fits are {gaps[0]:.1f} and {gaps[1]:.1f} apart.",
        "figure_6": f"The paper's steps to what scratch has at 25 %: {steps}. The speed-ups that it states: {times}.",
    }


def _listed(starts, table, column, **of):
    return ", ".join(f"{STARTS[start]} {said(table, column, start=start, **of)}" for start in starts)


def laws():
    """The fits of Figure 3, by what the models are given."""
    found = numbers("fits of figure_3").pivot(index="modalities", columns="column", values="value")
    return {name: Law(*found.loc[name, list(Law._fields)]) for name in ("composition", "composition + xrd")}
