"""The noise study of trained models:  python data/results/noise.py RUN ...

RUN: run folders with their model.safetensors; names alone are those in data/runs/.  Writes noise.csv beside this
script, on `val` of each run's dataset, and figures/<dataset>/noise-*.png.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

from xxlib.analysis import plots
from xxlib.analysis.evaluation import trained
from xxlib.analysis.severity import noise_study
from xxlib.training import runs
from xxlib.training.examples import examples_of


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or its name in data/runs")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent, help="folder of noise.csv")
    arguments = parser.parse_args()
    tables = []
    for run in arguments.runs:
        folder = Path(run) if (Path(run) / "run.json").exists() else runs.RUNS / run
        model, config, _ = trained(folder)
        table = noise_study(model, config, examples_of(config), torch.device("cpu"))
        tables.append(table.assign(run=config.name))
    table = pd.concat(tables, ignore_index=True)
    table.to_csv(arguments.results / "noise.csv", index=False, float_format="%.5g")
    place = Path(config.dataset).name
    for words, part in table.groupby("given"):
        for quantity in (name for name in ("accuracy (%)", "E_f MAE (meV/atom)", "band gap MAE (eV)") if name in part):
            figure = plots.severity(part, quantity, f"on val, {words}")
            name = "-".join(["noise", *words.split(), quantity.split(" (")[0].replace(" ", "-").lower()])
            print(plots.save_figure(figure, f"{place}/{name}"))


if __name__ == "__main__":
    main()
