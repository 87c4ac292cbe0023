"""What is trained next, and kept: every planned run that is missing, each after the one that it starts from."""

import re
import sys
import time
from collections import defaultdict

import pandas as pd
from tqdm import tqdm

from study import (
    archive,
    experiments,
    few_labels,
    floor,
    formulas,
    latent,
    mp90k,
    other_pretrainings,
    plus,
    readers,
    representations,
    texts,
)
from xxlib import PROJECT, launch, prepare
from xxlib.datasets.batches import OF_STRUCTURES
from xxlib.datasets.store import Dataset
from xxlib.launching import processes
from xxlib.training import records, runs
from xxlib.training.presets import PRESETS

POLL = 1  # seconds
TASKS = ("contrastive", "relational", "taught", "masked")


def done(name):
    """The Record of a run, None where it is missing."""
    return archive.read(name, archive.RESULTS)


def start_of(config):
    """The name of the run that a run starts from, or is taught by; or None."""
    first = config.initial or config.objectives.taught
    return first and first.rpartition("/")[2]


def ordered(configs):
    """The names of the runs to train for some RunConfigs, each after its start."""
    planned, queue = experiments.planned(), {}

    def add(name, is_start=False):
        if name in queue or (done(name) and (archive.weights(name) or not is_start)):
            return
        if start := start_of(planned[name]):
            add(start, is_start=True)
        queue[name] = None

    for config in configs:
        add(config.name)
    return list(queue)


def train(configs, n_threads, at_once, minutes):
    """Train what is missing for some RunConfigs, `at_once` at a time; the names and words of those that failed.

    What starts from a run that failed is left out.  Runs under way after `minutes`, or at an interruption, save their
    state.
    """
    planned, todo, running, failed = experiments.planned(), ordered(configs), [], {}
    deadline, finished = time.monotonic() + 60 * minutes, 0
    total = sum(planned[name].budget.samples for name in todo)
    bar = tqdm(total=total, unit="sample", unit_scale=True, mininterval=1 if sys.stderr.isatty() else 60)
    try:
        while time.monotonic() < deadline:
            ready = [name for name in todo if start_of(planned[name]) not in {*todo, *running, *failed}]
            for name in ready[: at_once - len(running)]:
                todo.remove(name)
                running.append(name)
                begin(planned[name], n_threads)
            if not running:
                break
            time.sleep(POLL)
            for name in [name for name in running if not processes.owner(runs.RUNS / name)]:
                running.remove(name)
                finished += planned[name].budget.samples
                try:
                    bar.write(f"{name} {_outcome(launch.attach(name))}")
                    keep(planned[name])
                    experiments.write_tables(archive.RESULTS, archive.RESULTS)
                except launch.TrainingFailed as error:
                    failed[name] = str(error)
            seen = [records.value(runs.metrics(runs.RUNS / name), "samples", split="train") or 0 for name in running]
            bar.set_postfix_str(", ".join(running), refresh=False)
            bar.update(finished + sum(seen) - bar.n)
    finally:
        bar.close()
        for name in running:
            if processes.owner(runs.RUNS / name):
                launch.stop(name)
    return failed


def begin(config, n_threads):
    """Start a run in data/runs, or follow it where it runs already."""
    if start_of(config):
        archive.fetch_weights(start_of(config))
    if not processes.owner(runs.RUNS / config.name):
        launch.train(config.but(n_threads=n_threads), detach=True)


def _outcome(result):
    test = [one for one in result["metrics"] if one["split"] == "test" and not one["exchanged"] and one["target"]]
    shown = {f"{one['target']} {one['metric']}": round(one["value"], 4) for one in test}
    return f"{result['seconds'] / 60:.1f} min {shown}"


def waiting(name):
    """The planned runs that start from this one and are missing."""
    return [config for config in experiments.planned().values() if start_of(config) == name and not done(config.name)]


def keep(config):
    """Leave what is committed of a finished run; remove the weights of its start where it was the last to need them."""
    if waiting(config.name):
        archive.keep_weights(config.name)
    if not done(config.name):  # else it was trained again for its weights
        if config in representations.runs():
            latent.describe(runs.RUNS / config.name)
        archive.keep(config.name)
        keep_val()
    if start_of(config) and not waiting(start_of(config)):
        archive.drop_weights(start_of(config))


def finish_floors():
    """Gradient boosting on element statistics, a minute of one core each."""
    here = [dataset for dataset in (floor.DATASET, mp90k.DATASET) if is_there(dataset)]
    missing = {floor.name(target, dataset=of): (of, target, ()) for of in here for target in floor.TARGETS}
    missing |= {plus.BOOSTING["equal"]: (floor.DATASET, "band_gap", ())}
    if is_there(formulas.GAPS):
        missing[plus.BOOSTING["all"]] = floor.DATASET, "band_gap", (Dataset(PROJECT / formulas.GAPS),)
    missing = {name: of for name, of in missing.items() if not done(name)}
    for name, (dataset, target, also) in missing.items():
        thorough = name in plus.BOOSTING.values()
        floor.floor(Dataset(PROJECT / dataset), target, runs.RUNS / name, also=also, thorough=thorough)
        archive.keep(name)
    keep_val()
    if missing:
        experiments.write_tables()


def keep_val():
    """Leave what the runs whose answers are weighed predict for `val`, of those that were trained here."""
    for name in plus.members():
        if done(name) and runs.results(runs.RUNS / name) and archive.predictions(name, split="val") is None:
            archive.keep_val(name)


def is_there(dataset):
    """Whether a dataset is prepared."""
    return (PROJECT / dataset / "dataset.json").exists()


def listed(configs):
    """Table of runs: whether they are done, minutes they took or, from the throughput of their like, will take."""
    speeds, planned = defaultdict(list), experiments.planned()
    finished = {name: done(name) for name in planned}
    like = {
        n: (c.model.architecture, c.model.modalities, c.frozen, *(getattr(c.objectives, task) for task in TASKS))
        for n, c in planned.items()
    }
    for name, record in finished.items():
        if record:
            speeds[like[name]].append(record.samples / record.seconds)
    rows = []
    for config in configs:
        record, throughputs = finished[config.name], speeds[like[config.name]]
        seconds = config.budget.samples / (sum(throughputs) / len(throughputs)) if throughputs else float("nan")
        begun = (runs.RUNS / config.name / "metrics.jsonl").exists()
        state = "done" if record else "begun" if begun else "missing"
        rows.append({"run": config.name, "state": state, "minutes": (record.seconds if record else seconds) / 60})
    return pd.DataFrame(rows).round(1)


def make_datasets(files, configs):
    """The datasets that runs need, that are not there, and whose file is given; files: dataset -> Path."""

    def make(dataset, kind, read=None, options=()):
        folder, path = PROJECT / dataset, files.get(dataset)
        trained = [config for config in configs if dataset in (config.data.dataset, *config.data.also)]
        if not trained or path is None or is_there(dataset):
            return
        if any(map(_reads_structures, trained)) and "--structure" not in options:
            options = [*options, "--structure"]
        if read is None:
            return prepare.main([kind, str(path.resolve()), str(folder), *options])
        written = folder.with_suffix(".parquet")
        try:
            read(path).to_parquet(written)
        except (OSError, ValueError) as error:
            raise SystemExit(str(error)) from None
        prepare.main([kind, str(written), str(folder), *options])
        written.unlink()

    mp36k = PRESETS["small"].data.dataset
    if not is_there(mp36k) and files.get(mp36k) is None:
        raise SystemExit(f"{PROJECT / mp36k} is not there: give the mp36k parquet file with --crystals")
    make(mp36k, "parquet")
    make(mp90k.DATASET, "parquet")
    make(readers.UNLABELLED, "parquet", options=readers.STORED)
    make(readers.OQMD, "oqmd", options=readers.STORED)
    make(texts.MODULI, "parquet", lambda path: texts.moduli_table(path, files[mp90k.DATASET]))
    # Its own split has no `val`, and the same formulas on both sides.
    make(few_labels.NOMAD, "parquet", lambda path: pd.read_parquet(path).drop(columns="split"))
    make(formulas.DATASET, "formulas", formulas.formula_table)
    make(formulas.GAPS, "formulas", formulas.gap_table)
    make(formulas.MEASURED, "formulas", lambda path: formulas.measured_gap_table(path, files[mp90k.DATASET]))
    if any(config.data.unlabelled == other_pretrainings.GENERATED for config in configs):
        prepare.main(["generated", "50000", str(PROJECT / other_pretrainings.GENERATED)])


def _reads_structures(config):
    """Whether a planned run, or its teacher, reads structures."""
    reads = set(config.model.modalities)
    if config.objectives.taught:
        reads |= set(experiments.planned()[start_of(config)].model.modalities)
    return bool(OF_STRUCTURES & reads)


def left_out(configs):
    """The runs among some RunConfigs, and those they start from, that cannot be trained: name -> option to give."""
    options = {few_labels.NOMAD: "--nomad", mp90k.DATASET: "--mp90k", formulas.DATASET: "--labels"}
    options |= {formulas.GAPS: "--labels", readers.UNLABELLED: "--mp-unlabelled", readers.OQMD: "--oqmd-icsd"}
    options |= {texts.MODULI: "--moduli and --mp90k", formulas.MEASURED: "--labels and --mp90k"}
    options[readers.MINERALS] = f"larixite (pip) and xxlib prepare amcsd amcsd {readers.MINERALS} --hkl"
    absent = {folder: option for folder, option in options.items() if not is_there(folder)}
    planned, without = experiments.planned(), {}
    for name in ordered(configs):  # each after its start
        config = planned[name]
        needed = [absent[folder] for folder in (config.data.dataset, *config.data.also) if folder in absent]
        if needed or start_of(config) in without:
            without[name] = " and ".join(needed) or without[start_of(config)]
    return without


def lacking(without):
    """A line a table that will lack rows; without: as left_out says."""
    for one in experiments.EXPERIMENTS:
        there = hasattr(one, "TABLE") and hasattr(one, "runs")
        names = [config.name for config in one.runs() if config.name in without] if there else []
        if names:
            options = dict.fromkeys(without[name] for name in names)
            yield f"{one.TABLE}.csv will lack {', '.join(names)}: give {', '.join(options)}"


def chosen(pattern):
    """The planned runs whose name has a regular expression, by name."""
    return {name: config for name, config in experiments.planned().items() if re.search(pattern, name)}
