"""Judge released checkpoints on measured patterns:  python data/results/measured.py PATTERNS.parquet CHECKPOINT ...

PATTERNS.parquet: the measured patterns (data/README.md says where they come from). CHECKPOINT: folders as xxlib.release
writes them; names alone are those in data/checkpoints/. Every checkpoint is judged once: measured_log.csv says when, by
the checksums of its weights, and one that stands there is refused, so that no choice is made on these patterns; a
member of an ensemble alone is another checkpoint. Adds to measured_accuracy.csv (which figures.py draws),
measured_errors.csv, measured_trust.csv and measured_samples.csv beside this script.
"""

import argparse
import datetime
import sys
from pathlib import Path

import pandas as pd
import torch

from study.measured import judge, read
from xxlib import PROJECT
from xxlib.answering.inference import Ensemble, model_files
from xxlib.answering.trust import read_trust
from xxlib.datasets.batches import CPU
from xxlib.datasets.store import Dataset, sha256
from xxlib.predict import CHECKPOINTS
from xxlib.training import runs
from xxlib.training.machine import commit, hardware

TABLES = ("measured_accuracy.csv", "measured_errors.csv", "measured_trust.csv", "measured_samples.csv")


def add(table, path):
    """Rows after those of a CSV file."""
    if path.exists():
        table = pd.concat([pd.read_csv(path), table], ignore_index=True)
    runs.write_atomically(path, table.to_csv(index=False, float_format="%.5g").encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("patterns", type=Path, help="the measured patterns, a parquet file")
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="folder, or its name in data/checkpoints")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent, help="folder of the tables")
    arguments = parser.parse_args()
    log, patterns = arguments.results / "measured_log.csv", sha256(arguments.patterns)
    judged = pd.read_csv(log) if log.exists() else pd.DataFrame(columns=["model", "evaluated", "patterns_sha256"])
    judged = judged[judged["patterns_sha256"] == patterns].groupby(["model", "evaluated"])
    judged = {frozenset(rows["sha256"]) for _, rows in judged}
    checkpoints = {}
    for name in arguments.checkpoints:
        folder = CHECKPOINTS / name if (CHECKPOINTS / name).is_dir() else Path(name)
        weights = model_files(folder)
        if frozenset(map(sha256, weights)) in judged:
            sys.exit(f"measured: {name} was judged on these patterns before; its results are in {log.parent}")
        try:
            checkpoints[folder] = weights, Ensemble.load(weights), read_trust(folder)[0]
        except runs.CheckpointError as error:
            sys.exit(f"measured: {name}: {error}")
    measured = read(arguments.patterns)
    for folder, (weights, ensemble, trust) in checkpoints.items():
        dataset = Dataset(PROJECT / ensemble.config.dataset)
        # Before the results: an evaluation that fails half-way has been one, too.
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        about = {"model": folder.name, "evaluated": when, "patterns": arguments.patterns.name}
        about |= {"n": len(measured.table), "patterns_sha256": patterns}
        config = ensemble.config
        trained = {"dataset": config.dataset, "split": "experimental", "preset": config.preset, "seed": config.seed}
        trained |= {"commit": commit(), "hardware": hardware(CPU, torch.get_num_threads())}
        about |= trained
        add(pd.DataFrame([about | {"sha256": sha256(path)} for path in weights]), log)
        tables = judge(ensemble, trust, measured, dataset)
        for table, name in zip(tables, TABLES):
            if len(table):
                table.insert(0, "model", folder.name)
                add(table.assign(**trained), arguments.results / name)
        shown = tables[0].query("of == 'all'") if len(tables[0]) else tables[1]
        print(shown.to_string(index=False, float_format="{:.1f}".format))


if __name__ == "__main__":
    main()
