"""Train every run of the tables on mp36k, important ones first:  python data/results/mp36k.py CRYSTALS.parquet

CRYSTALS.parquet is the mp36k file (data/README.md says where it comes from); --nomad names that of NOMAD 2018, without
which the runs on it are left out.  plan.py says which runs there are.  Runs whose results are in data/results/runs/ are
skipped, a killed one goes on; each finished run leaves its files there, to be committed, and renews the tables beside
this script.  Weights, in half precision, are among them as long as runs that start from them are missing.
"""

import argparse
import dataclasses
import math
import re
import shutil
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path

import pandas as pd
import plan
from tqdm import tqdm

from study import floor, latent, measured, paper, tables
from study.variants import MULTI
from xxlib import PROJECT, launch, prepare
from xxlib.datasets.store import Dataset
from xxlib.launching import processes
from xxlib.training import runs
from xxlib.training.config import PRESETS, RunConfig
from xxlib.training.metrics import ignores_pattern

RESULTS = PROJECT / "data" / "results"
COMMITTED = RESULTS / "runs"
MEASURED = RESULTS / "measured_samples.csv"
POLL = 1  # seconds
WEIGHTS = "model.safetensors"
KEPT = ("run.json", "metrics.jsonl", "predictions.parquet", "latent.parquet", "results.json")


def chosen():
    """Kind of model -> the learning rate that it has chosen on `val`, of those whose search is finished."""
    rates = {}
    for kind in plan.KINDS:
        found = {config.learning_rate: runs.results(COMMITTED / config.name) for config in plan.search(kind)}
        highest = plan.HIGHEST.get(kind, max(found))
        working = [rate for rate, result in found.items() if result and not ignores_pattern(result) and rate <= highest]
        if all(found.values()) and working:
            rates[kind] = min(working, key=lambda rate: found[rate]["val/error"])
    return rates


def planned():
    """plan.parts(), each run with the learning rate that its kind has chosen, where that is known."""
    rates, usual = chosen(), PRESETS["small"].learning_rate
    parts = {
        part: [dataclasses.replace(c, learning_rate=rates.get(plan.kind(c), usual)) for c in configs]
        for part, configs in plan.parts().items()
    }
    return parts | {"search": [config for kind in plan.KINDS for config in plan.search(kind)]}


def by_name():
    """Every planned run."""
    return {config.name: config for configs in planned().values() for config in configs}


def ordered(configs):
    """The names of the runs to train for some RunConfigs, each after what it needs."""
    planned, found = by_name(), {}

    def add(name, start=False):
        there = runs.results(COMMITTED / name) is not None
        if start:
            there = there and any(has_weights(folder / name) for folder in (runs.RUNS, COMMITTED))
        if name not in found and not there:
            for other in needs(planned[name]):
                add(other, start=other == start_of(planned[name]))
            found[name] = None

    for config in configs:
        add(config.name)
    return list(found)


def needs(config):
    """The names of the runs before a run: the search of its learning rate, and the run that it starts from."""
    search = [] if config.name.startswith(tables.SEARCH) else plan.search(plan.kind(config))
    return [other.name for other in search] + [start_of(config)] * bool(config.initial)


def start_of(config):
    """The name of the run that a run starts from, or None."""
    return config.initial and Path(config.initial).name


def has_weights(folder):
    """Whether the run in a folder has finished and its weights are there; those of one under way are not its last."""
    return runs.results(folder) is not None and (folder / WEIGHTS).exists()


def train(configs, n_threads, at_once, minutes):
    """Train what is missing for some RunConfigs, `at_once` at a time; the names and words of those that failed.

    What needs a run that failed is left out.  Runs under way after `minutes`, or at an interruption, save their state.
    """
    planned, todo, running, failed = by_name(), ordered(configs), [], {}
    size = {name: planned[name].n_steps * planned[name].batch_size for name in todo}
    deadline, finished = time.monotonic() + 60 * minutes, 0
    bar = tqdm(total=sum(size.values()), unit="sample", unit_scale=True, mininterval=1 if sys.stderr.isatty() else 60)
    try:
        while time.monotonic() < deadline:
            ready = [name for name in todo if not set(needs(planned[name])) & {*todo, *running, *failed}]
            for name in ready[: at_once - len(running)]:
                todo.remove(name)
                running.append(name)
                begin(by_name()[name], n_threads)
            if not running:
                break
            time.sleep(POLL)
            for name in [name for name in running if not processes.owner(runs.RUNS / name)]:
                running.remove(name)
                finished += size[name]
                try:
                    bar.write(f"{name} {said(launch.attach(name))}")
                    keep(by_name()[name])
                    write_tables()
                except launch.TrainingFailed as error:
                    failed[name] = str(error)
            last = [(runs.metrics(runs.RUNS / name) or [{"samples": 0}])[-1]["samples"] for name in running]
            bar.set_postfix_str(", ".join(running), refresh=False)
            bar.update(finished + sum(last) - bar.n)
    finally:
        bar.close()
        for name in running:
            if processes.owner(runs.RUNS / name):
                launch.stop(name)
    return failed


def begin(config, n_threads):
    """Start a run in data/runs, or follow it where it runs already, with the number of threads it was begun with."""
    if config.initial:
        fetch(start_of(config))
    path = runs.RUNS / config.name / "run.json"
    n_threads = RunConfig.load(path).n_threads if path.exists() else n_threads
    if not processes.owner(path.parent):
        launch.train(dataclasses.replace(config, n_threads=n_threads), detach=True)


def said(result):
    shown = {name: round(value, 4) for name, value in result.items() if name.startswith("test/")}
    return f"{result['seconds'] / 60:.1f} min {shown}"


def waiting(name):
    """The planned runs that start from this one and have not finished."""
    others = [config for config in by_name().values() if start_of(config) == name]
    return [config for config in others if runs.results(COMMITTED / config.name) is None]


def fetch(name):
    """Bring a finished run, whose weights are committed, to where other runs start from it."""
    if not has_weights(runs.RUNS / name):
        shutil.copytree(COMMITTED / name, runs.RUNS / name, dirs_exist_ok=True)


def keep(config):
    """Copy what is committed of a finished run; remove the weights of its start where it was the last to need them."""
    folder, kept = runs.RUNS / config.name, COMMITTED / config.name
    kept.mkdir(parents=True, exist_ok=True)
    if waiting(config.name):
        tensors, about = runs.load_model(folder)
        runs.save_weights(kept, {name: tensor.half() for name, tensor in tensors.items()}, about)
    if runs.results(kept) is None:  # else it was trained again for its weights
        if config.targets == MULTI and config.evaluate_test:
            latent.describe(folder)
        for name in KEPT:  # results.json last: it says that the run has finished
            if (folder / name).exists() and (name != "predictions.parquet" or config.evaluate_test):
                shutil.copy(folder / name, kept)
    if config.initial and not waiting(start_of(config)):
        for path in (COMMITTED / start_of(config)).glob(f"{WEIGHTS}*"):
            path.unlink()


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
        "families": paper.families(COMMITTED, parts["families"]),
        "hidden": paper.hidden(COMMITTED, parts["hidden"]),
        "search": tables.results_table(COMMITTED, search=True),
    }
    judged = [tables.E_FORM, tables.CRYSTAL_SYSTEM]
    judged += [name for metric in judged for name in tables.by_formula(metric)]
    for part, metrics in (("figure_3", [tables.E_FORM]), ("few_shot", [tables.BAND_GAP]), ("splits", judged)):
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
    speeds, planned = defaultdict(list), by_name()
    finished = {name: runs.results(COMMITTED / name) for name in planned}
    like = {n: (c.model.architecture, c.model.modalities, c.objectives, c.frozen) for n, c in planned.items()}
    for config in planned.values():
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
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="runs that are trained at the same time")
    parser.add_argument("--minutes", type=float, default=math.inf, help="then save what is under way, and end")
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: runs save their state
    planned = by_name()
    make_datasets(options.crystals, options.nomad, [planned[name] for name in ordered(configs.values())])
    finish_floors()
    without = [name for name, config in configs.items() if not (PROJECT / config.dataset / "dataset.json").exists()]
    if without:
        print(f"give --nomad; left out: {', '.join(without)}")
    known = [config for name, config in configs.items() if name not in without]
    try:
        failed = train(known, options.threads, options.at_once, options.minutes)
    except KeyboardInterrupt:
        raise SystemExit("interrupted: what was under way has saved its state, the same command goes on") from None
    if failed:
        raise SystemExit("\n".join(failed.values()))


def make_datasets(crystals, nomad, configs):
    """The datasets that runs need and that are not there."""
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
