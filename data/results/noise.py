"""The noise study of trained models:  python data/results/noise.py RUN ...

RUN: run folders with their model.safetensors; names alone are those in data/runs/.  Writes noise.csv beside this
script, on `val` of each run's dataset; figures.py draws it.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

from xxlib.analysis.inference import trained
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
        model, config, _ = trained(folder / "model.safetensors")
        table = noise_study(model, config, examples_of(config), torch.device("cpu"))
        tables.append(table.assign(run=config.name))
    table = pd.concat(tables, ignore_index=True)
    table.to_csv(arguments.results / "noise.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
