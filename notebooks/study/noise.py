"""The noise study of trained models:  python data/results/noise.py FOLDER ...

FOLDER: a run, or a checkpoint as xxlib.release writes it; names alone are those in data/runs and data/checkpoints.
Writes noise.csv beside this script, on `val` of the dataset of each, and keeps what it says of others; figures.py
draws it.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import torch

from study.severity import noise_study
from xxlib.answering.inference import Ensemble, model_files
from xxlib.datasets.batches import CPU
from xxlib.predict import CHECKPOINTS
from xxlib.training import runs
from xxlib.training.machine import commit, hardware


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of a run or a checkpoint, or its name")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent, help="folder of noise.csv")
    arguments = parser.parse_args()
    path = arguments.results / "noise.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["run"])
    for name in arguments.folders:
        places = (Path(name), CHECKPOINTS / name, runs.RUNS / name)
        try:
            ensemble = Ensemble.load(next(filter(None, map(model_files, places)), []))
        except runs.CheckpointError as error:
            sys.exit(f"noise: {name}: {error}")
        config = ensemble.config
        about = {"run": Path(name).name, "dataset": config.dataset, "split": "val", "preset": config.preset}
        about |= {"seed": config.seed, "commit": commit(), "hardware": hardware(CPU, torch.get_num_threads())}
        studied = noise_study(ensemble).assign(**about)
        table = pd.concat([table[table["run"] != about["run"]], studied], ignore_index=True)
        runs.write_atomically(path, table.to_csv(index=False, float_format="%.5g").encode())


if __name__ == "__main__":
    main()
