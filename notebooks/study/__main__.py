"""The study from a terminal: PYTHONPATH=notebooks .venv/bin/python -m study --list

Without an option: what was trained here, and table 1.  --train skips runs whose records are in data/results/runs, and a
killed one goes on; each finished run leaves its record, to be committed, and renews the tables.
"""

import argparse
import math
import signal
from pathlib import Path

from study import experiments, few_labels, formulas, mp90k, readers, schedule, tables, texts
from xxlib.training import runs
from xxlib.training.presets import PRESETS


def main():
    parser = argparse.ArgumentParser(prog="python -m study", description=__doc__.split("\n")[0])
    parser.add_argument("--train", action="store_true", help="train what is missing, important runs first")
    parser.add_argument("--crystals", type=Path, help="the mp36k parquet file (data/README.md: from where)")
    parser.add_argument("--nomad", type=Path, help="the NOMAD 2018 parquet file")
    parser.add_argument("--mp90k", type=Path, help="the mp90k parquet file")
    parser.add_argument("--mp-unlabelled", type=Path, help="the parquet file of crystals without energies")
    parser.add_argument("--oqmd-icsd", type=Path, help="the parquet file of OQMD's crystals")
    parser.add_argument("--labels", type=Path, help="the parquet file of formulas with labels")
    parser.add_argument("--moduli", type=Path, help="the parquet file of bulk and shear moduli by mp_id")
    parser.add_argument("--only", default="", metavar="PATTERN", help="runs whose name has this regular expression")
    parser.add_argument("--threads", type=int, default=PRESETS["small"].machine.n_threads, help="of a run")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="runs that are trained at the same time")
    parser.add_argument("--minutes", type=float, default=math.inf, help="then save what is under way, and end")
    parser.add_argument("--list", action="store_true", help="what is done and missing, with minutes")
    parser.add_argument("--tables", action="store_true", help="write the tables of what is there")
    parser.add_argument("--figures", action="store_true", help="draw every figure of the committed runs")
    parser.add_argument("--findings", action="store_true", help="what the committed runs say, experiment by experiment")
    options = parser.parse_args()
    configs = schedule.chosen(options.only)
    if options.list:
        table = schedule.listed(list(configs.values()))
        print(table.to_string(index=False, na_rep="unknown"))
        left = table[table["state"] != "done"]
        unknown = left["minutes"].isna().sum()
        print(f"{len(left)} of {len(table)} to do: {left['minutes'].sum() / 60:.1f} h, and {unknown} of unknown speed")
    elif options.tables:
        experiments.write_tables()
    elif options.figures:
        print(*experiments.draw(), sep="\n")
    elif options.findings:
        for name, found in experiments.findings().items():
            print(f"{name}:", *found, sep="\n  ")
    elif options.train:
        train(configs, options)
    else:
        here = tables.summary_table(tables.results_table(runs.RUNS))
        print(f"Trained here (data/runs)\n{tables.as_text(here)}\n")
        print(f"Table 1 (data/results/table_1.csv)\n{tables.as_text(tables.committed('table_1'))}\n")


def train(configs, options):
    """Train what is missing of some runs, by name."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: runs save their state
    planned = experiments.planned()
    needed = [planned[name] for name in schedule.ordered(configs.values())]
    files = {PRESETS["small"].data.dataset: options.crystals, few_labels.NOMAD: options.nomad}
    files |= {mp90k.DATASET: options.mp90k, formulas.DATASET: options.labels, formulas.GAPS: options.labels}
    files |= {readers.UNLABELLED: options.mp_unlabelled, readers.OQMD: options.oqmd_icsd}
    if options.mp90k:  # which has the crystals of these labels
        files |= {texts.MODULI: options.moduli, formulas.MEASURED: options.labels}
    schedule.make_datasets(files, needed)
    schedule.finish_floors()
    without = schedule.left_out(configs.values())
    for line in schedule.lacking(without):
        print(line)
    there = [config for name, config in configs.items() if name not in without]
    try:
        failed = schedule.train(there, options.threads, options.at_once, options.minutes)
    except KeyboardInterrupt:
        raise SystemExit("interrupted: what was under way has saved its state, the same command goes on") from None
    if failed:
        raise SystemExit("\n".join(failed.values()))


if __name__ == "__main__":
    main()
