"""Train every run of the tables on mp36k, important ones first:  python data/results/mp36k.py CRYSTALS.parquet

CRYSTALS.parquet is the mp36k file (data/README.md says where it comes from); --nomad names that of NOMAD 2018, without
which the runs on it are left out.  plan.py says which runs there are.  Runs whose results are in data/results/runs/ are
skipped, a killed one goes on; each finished run leaves its files there, to be committed, and renews the tables beside
this script.  Weights, in half precision, are among them as long as runs that start from them are missing.
"""

import argparse
import dataclasses
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pandas as pd
import plan

from xxlib import PROJECT, launch, prepare
from xxlib.analysis import floor, latent, measured, paper, tables
from xxlib.analysis.metrics import ignores_pattern
from xxlib.datasets.store import Dataset
from xxlib.training import runs
from xxlib.training.config import PRESETS, RunConfig
from xxlib.training.variants import MULTI

RESULTS = PROJECT / "data" / "results"
COMMITTED = RESULTS / "runs"
MEASURED = RESULTS / "measured_samples.csv"
WEIGHTS = "model.safetensors"
KEPT = ("run.json", "metrics.jsonl", "predictions.parquet", "latent.parquet", "results.json")


def planned():
    """plan.parts(), each run with the learning rate that its kind has chosen on `val`, where that is known."""
    rates = {}
    for kind in plan.KINDS:
        found = {config.learning_rate: runs.results(COMMITTED / config.name) for config in plan.search(kind)}
        highest = plan.HIGHEST.get(kind, max(found))
        working = [rate for rate, result in found.items() if result and not ignores_pattern(result) and rate <= highest]
        if all(found.values()) and working:
            rates[kind] = min(working, key=lambda rate: found[rate]["val/error"])
    usual = PRESETS["small"].learning_rate
    parts = {
        part: [dataclasses.replace(c, learning_rate=rates.get(plan.kind(c), usual)) for c in configs]
        for part, configs in plan.parts().items()
    }
    return parts | {"search": [config for kind in plan.KINDS for config in plan.search(kind)]}


def by_name():
    """Every planned run."""
    return {config.name: config for configs in planned().values() for config in configs}


def finish(config, n_threads):
    """Train a run without results; before it the search of its learning rate, and the run it starts from."""
    if runs.results(COMMITTED / config.name) is not None:
        return
    if not config.name.startswith(tables.SEARCH):
        for other in plan.search(plan.kind(config)):
            finish(other, n_threads)
        config = by_name()[config.name]
    start = by_name()[Path(config.initial).name] if config.initial else None
    if start:
        finish(start, n_threads)
        fetch(start)
        train(start, n_threads)  # where its weights are neither here nor committed
    train(config, n_threads)
    keep(config)
    if start and not waiting(start):
        for path in (COMMITTED / start.name).glob(f"{WEIGHTS}*"):
            path.unlink()
    write_tables()


def train(config, n_threads):
    """The run in data/runs, with the number of threads it was begun with."""
    begun = runs.RUNS / config.name / "run.json"
    n_threads = RunConfig.load(begun).n_threads if begun.exists() else n_threads
    launch.train(dataclasses.replace(config, n_threads=n_threads))


def waiting(start):
    """The planned runs that start from this one and have not finished."""
    initial = f"data/runs/{start.name}"
    others = [config for config in by_name().values() if config.initial == initial]
    return [config for config in others if runs.results(COMMITTED / config.name) is None]


def fetch(start):
    """Bring a finished run, whose weights are committed, to where other runs start from it."""
    committed, folder = COMMITTED / start.name, runs.RUNS / start.name
    if (committed / WEIGHTS).exists() and not (folder / WEIGHTS).exists():
        shutil.copytree(committed, folder, dirs_exist_ok=True)


def keep(config):
    """Copy what is committed of a finished run."""
    folder, kept = runs.RUNS / config.name, COMMITTED / config.name
    if config.targets == MULTI and config.evaluate_test:
        latent.describe(folder)
    kept.mkdir(parents=True, exist_ok=True)
    if waiting(config):
        tensors, about = runs.load_model(folder)
        runs.save_weights(kept, {name: tensor.half() for name, tensor in tensors.items()}, about)
    for name in KEPT:  # results.json last: it says that the run has finished
        if (folder / name).exists() and (name != "predictions.parquet" or config.evaluate_test):
            shutil.copy(folder / name, kept)


def finish_floors():
    """Gradient boosting on element statistics, a minute of one core each."""
    dataset = Dataset(PROJECT / PRESETS["small"].dataset)
    for target in plan.FLOORS:
        folder = COMMITTED / f"floor-{target}-s0"
        if runs.results(folder) is None:
            floor.floor(dataset, target, folder)
            write_tables()


def write_tables():
    """Every table, of what is finished and with what is missing."""
    parts = planned()
    table_1 = parts["table_1"] + parts["baselines"]
    multi = [config for config in parts["table_2"] + parts["table_5"] if "crystal_system" in config.targets]
    singles = [config for config in parts["table_1"] if config.targets == ("crystal_system",)]
    unique = {config.name: config for config in [*singles, *multi]}
    written = {
        "table_1": paper.table_1(COMMITTED, table_1),
        "table_2": paper.table_2(COMMITTED, parts["table_2"]),
        "table_3": paper.table_3(COMMITTED, parts["table_3"]),
        "table_4": paper.table_4(COMMITTED, unique.values()),
        "table_5": paper.table_5(COMMITTED, parts["table_5"]),
        "transfer": paper.transfer(COMMITTED, parts["transfer"]),
        "search": tables.results_table(COMMITTED, search=True),
    }
    for part, metrics in (("figure_3", [tables.E_FORM]), ("hidden", [tables.E_FORM]), ("few_shot", [tables.BAND_GAP]),
                          ("splits", [tables.E_FORM, tables.CRYSTAL_SYSTEM])):  # fmt: skip
        written[part] = tables.summary_table(tables.planned_table(COMMITTED, parts[part]), metrics)
    # The choice among these is made on `val`, in every view of it.
    predictors = tables.planned_table(COMMITTED, parts["predictor"])
    views = [name for name in predictors if re.match(r"val.* (mae|accuracy) \(", name)]
    about = ["learning_rate", "n_steps", "dataset", "labels", "split", "preset", "seed", "hardware", "commit", "note"]
    written["predictor"] = predictors[["name", *views, *about]]
    written["measured_lost"] = measured.lost(pd.read_csv(MEASURED))
    for name, table in written.items():
        table.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.5g")


def listed(configs):
    """Table of runs: whether they are done, minutes they took or, from the throughput of their like, will take."""
    speeds = defaultdict(list)
    finished = {config.name: runs.results(COMMITTED / config.name) for config in configs}
    like = {c.name: (c.model.architecture, c.model.modalities, c.objectives, c.frozen) for c in configs}
    for config in configs:
        if result := finished[config.name]:
            speeds[like[config.name]].append(result["samples"] / result["seconds"])
    rows = []
    for config in configs:
        result, known = finished[config.name], speeds[like[config.name]]
        seconds = config.n_steps * config.batch_size / (sum(known) / len(known)) if known else float("nan")
        begun = (runs.RUNS / config.name / "metrics.jsonl").exists()
        state = "done" if result else "begun" if begun else "missing"
        rows.append({"run": config.name, "state": state, "minutes": (result["seconds"] if result else seconds) / 60})
    return pd.DataFrame(rows).round(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("crystals", type=Path, help="the mp36k parquet file", nargs="?")
    parser.add_argument("--nomad", type=Path, help="the NOMAD 2018 parquet file")
    parser.add_argument("--only", default="", metavar="PATTERN", help="runs whose name has this regular expression")
    parser.add_argument("--threads", type=int, default=PRESETS["small"].n_threads, help="of a run that is begun now")
    parser.add_argument("--list", action="store_true", help="what is done and missing, with minutes; then end")
    parser.add_argument("--tables", action="store_true", help="write the tables of what is there; then end")
    options = parser.parse_args()
    configs = {name: config for name, config in by_name().items() if re.search(options.only, name)}
    if options.list:
        table = listed(list(configs.values()))
        print(table.to_string(index=False, na_rep="unknown"))
        left = table[table["state"] != "done"]
        unknown = left["minutes"].isna().sum()
        print(f"{len(left)} of {len(table)} to do: {left['minutes'].sum() / 60:.1f} h, and {unknown} of unknown speed")
        return
    if options.tables:
        write_tables()
        return
    make_datasets(options.crystals, options.nomad, configs.values())
    finish_floors()
    for config in configs.values():
        if config.dataset == plan.NOMAD and not (PROJECT / plan.NOMAD / "dataset.json").exists():
            print(f"{config.name} is left out: give --nomad")
            continue
        finish(config, options.threads)
        result = runs.results(COMMITTED / config.name)
        shown = {name: round(value, 4) for name, value in result.items() if name.startswith("test/")}
        print(config.name, f"{result['seconds'] / 60:.1f} min", shown, flush=True)


def make_datasets(crystals, nomad, configs):
    """The datasets that runs need, where they are not there."""
    mp36k = PROJECT / PRESETS["small"].dataset
    if not (mp36k / "dataset.json").exists():
        if crystals is None:
            raise SystemExit(f"{mp36k} is not there: give the mp36k parquet file")
        prepare.main(["parquet", str(crystals.resolve()), str(mp36k)])
    if nomad and not (PROJECT / plan.NOMAD / "dataset.json").exists():
        # Its own split has no `val`, and the same formulas on both sides.
        without = PROJECT / "data" / "nomad2018.parquet"
        pd.read_parquet(nomad).drop(columns="split").to_parquet(without)
        prepare.main(["parquet", str(without), str(PROJECT / plan.NOMAD)])
        without.unlink()
    if any(config.unlabelled for config in configs):
        prepare.main(["generated", "50000", str(PROJECT / plan.GENERATED)])


if __name__ == "__main__":
    main()
