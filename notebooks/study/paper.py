"""What the paper says, arXiv 2507.01054: the numbers of data/results/paper.csv, and the rows under ours in the tables.

A line of paper.csv is a number: in which of our tables it stands (`table`), where the paper has it (`source`), of what
(model, modalities, targets, start, metric), and under which column.  Where the paper contradicts itself both stand.
"""

import pandas as pd

from study.archive import RESULTS

CRYSTALS = 4_554_752  # that the paper trains on
# Of every row of the paper, in the columns that our rows have.
ORIGIN = {"dataset": "Alexandria", "labels": "DFT labels of Alexandria", "split": "random", "preset": "paper"}
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
    return " or ".join(f"{value:g}" if decimals is None else f"{value:.{decimals}f}" for value in found["value"])
