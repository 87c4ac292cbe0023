"""The experiments, important ones first, and what is made of all of them: runs, tables, figures, findings."""

import importlib

import pandas as pd

from study import archive
from study.archive import RESULTS
from xxlib import plots
from xxlib.training import records

NAMES = "modalities predictors pretraining representations transfer scaling encoders crystal_systems splits families "
NAMES += "other_pretrainings few_labels learning_rates mp90k polymorphs growth leads plus measured noise throughput"
EXPERIMENTS = tuple(importlib.import_module(f"study.{name}") for name in NAMES.split())


def planned():
    """Every run of `small` by its name, in the order in which they are trained."""
    having = [experiment for experiment in EXPERIMENTS if hasattr(experiment, "runs")]
    return {config.name: config for experiment in having for config in experiment.runs()}


def tidy(place=RESULTS):
    """The final metrics of every run, in the unit of the target: one row a run and metric, with what a record says."""
    finished = [archive.read(name, place) for name in archive.names(place)]
    rows = [{"run": record.name} | metric for record in finished for metric in record.metrics]
    return pd.DataFrame(rows, columns=["run", *records.KEYS]).drop(columns="step")


def write_tables(folder=None, place=RESULTS):
    """Every table that follows from the records, of what is finished and with what is missing."""
    folder = folder or RESULTS
    tables = {one.TABLE: one.table(place=place) for one in EXPERIMENTS if hasattr(one, "TABLE")}
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.5g")
    tidy(place).to_csv(folder / "runs.csv", index=False, float_format="%.7g")


def draw(place=RESULTS):
    """Every figure of the committed runs, into figures/mp36k; their names."""
    drawn = {}
    for experiment in EXPERIMENTS:
        drawn |= experiment.figures(place=place) if hasattr(experiment, "figures") else {}
    for name, figure in drawn.items():
        plots.save_figure(figure, f"mp36k/{name}")
    return list(drawn)


def findings(place=RESULTS):
    """What every experiment has found: Findings of the paper's claims, sentences of the rest, by experiment."""
    named = zip(NAMES.split(), EXPERIMENTS)
    return {name: one.findings(place=place) for name, one in named if hasattr(one, "findings")}
