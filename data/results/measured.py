"""Judge trained models on measured patterns:  python data/results/measured.py PATTERNS.parquet RUN ...

PATTERNS.parquet: the measured patterns (data/README.md says where they come from).  RUN: run folders with their
model.safetensors; names alone are those in data/runs/.  Every model is judged once: measured_log.csv says when, by its
checksum, and one that stands there is refused, so that no choice is made on these patterns.  Adds to
measured_accuracy.csv (which figures.py draws), measured_errors.csv and measured_samples.csv beside this script.
"""

import argparse
import datetime
import sys
from pathlib import Path

import pandas as pd

from xxlib import PROJECT
from xxlib.analysis.evaluation import trained
from xxlib.analysis.measured import judge, read
from xxlib.datasets.store import Dataset, sha256
from xxlib.training import runs
from xxlib.training.machine import commit

TABLES = ("measured_accuracy.csv", "measured_errors.csv", "measured_samples.csv")


def add(table, path):
    """Rows after those of a CSV file."""
    if path.exists():
        table = pd.concat([pd.read_csv(path), table], ignore_index=True)
    runs.write_atomically(path, table.to_csv(index=False, float_format="%.5g").encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("patterns", type=Path, help="the measured patterns, a parquet file")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or its name in data/runs")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent, help="folder of the tables")
    arguments = parser.parse_args()
    log, patterns = arguments.results / "measured_log.csv", sha256(arguments.patterns)
    judged = pd.read_csv(log) if log.exists() else pd.DataFrame(columns=["sha256", "patterns_sha256"])
    judged = set(judged["sha256"][judged["patterns_sha256"] == patterns])
    models = {}
    for run in arguments.runs:
        folder = Path(run) if (Path(run) / "run.json").exists() else runs.RUNS / run
        checksum = sha256(folder / "model.safetensors")
        if checksum in judged:
            sys.exit(f"measured: {run} was judged on these patterns before; its results are in {log.parent}")
        models[checksum] = trained(folder)
    measured = read(arguments.patterns)
    for checksum, (model, config, normalisers) in models.items():
        dataset = Dataset(PROJECT / config.dataset)
        # Before the results: an evaluation that fails half-way has been one, too.
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        about = {"run": config.name, "evaluated": when, "patterns": arguments.patterns.name, "n": len(measured.table)}
        about |= {"patterns_sha256": patterns, "sha256": checksum, "commit": commit()}
        add(pd.DataFrame([about]), log)
        tables = judge(model, config, normalisers, measured, dataset)
        for table, name in zip(tables, TABLES):
            if len(table):
                table.insert(0, "run", config.name)
                add(table, arguments.results / name)
        shown = tables[0].query("of == 'all'") if len(tables[0]) else tables[1]
        print(shown.to_string(index=False, float_format="{:.1f}".format))


if __name__ == "__main__":
    main()
