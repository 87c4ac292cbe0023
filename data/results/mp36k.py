"""Train every run of the tables on mp36k, important rows first:  python data/results/mp36k.py CRYSTALS.parquet

CRYSTALS.parquet is the mp36k file (data/README.md says where it comes from).  Runs whose results are in
data/results/runs/ are skipped, a killed one goes on; each finished run leaves its run.json, metrics.jsonl, results.json
and predictions.parquet there, to be committed, and renews data/results/table_1.csv and data/results/search.csv.
"""

import argparse
import dataclasses
import shutil
from pathlib import Path

from xxlib import PROJECT, launch, prepare
from xxlib.analysis import tables
from xxlib.training import runs
from xxlib.training.config import PRESETS

COMMITTED = PROJECT / "data" / "results" / "runs"
DATASET = PROJECT / "data" / "mp36k"

MODALITIES = {"composition": ("composition",), "xrd": ("xrd",), "bimodal": ("composition", "xrd")}
# A first look (0.1 of the samples, E_f on `val`) had batch 512 behind 256 and 256 behind 128 for every model.
LEARNING_RATES = (5e-4, 1e-3, 2e-3)
SEARCH_SHARE = 0.1  # of the steps of a full run


def run_config(name, modalities, **changes):
    """The small preset with other modalities and changes."""
    small = PRESETS["small"]
    model = dataclasses.replace(small.model, modalities=MODALITIES[modalities])
    return dataclasses.replace(small, name=name, model=model, **changes)


def search(modalities):
    """The runs among which the learning rate is chosen on `val`, on E_f; the same for every model."""
    n_steps = round(SEARCH_SHARE * PRESETS["small"].n_steps)
    return [
        run_config(
            f"search-{modalities}-lr{rate:g}", modalities, learning_rate=rate, n_steps=n_steps, evaluate_test=False
        )
        for rate in LEARNING_RATES
    ]


def chosen(modalities):
    """Learning rate of the search run with the least error on `val`."""
    return min(search(modalities), key=lambda config: finished(config)["val/error"]).learning_rate


def table_1():
    """Each modality for each target, then two more seeds where the comparison is the claim."""
    for targets in (("e_form",), ("crystal_system",), ("band_gap",)):
        for modalities in MODALITIES:
            yield run_config(
                f"{modalities}-{targets[0]}-s0", modalities, targets=targets, learning_rate=chosen(modalities)
            )
        if targets == ("e_form",):
            multi = ("e_form", "crystal_system")
            yield run_config("bimodal-multi-s0", "bimodal", targets=multi, learning_rate=chosen("bimodal"))
    for seed in (1, 2):
        for modalities in ("composition", "bimodal"):
            yield run_config(f"{modalities}-e_form-s{seed}", modalities, seed=seed, learning_rate=chosen(modalities))


def finished(config):
    """Results of a run: committed ones, or trained now and put beside them."""
    folder = COMMITTED / config.name
    if runs.results(folder) is None:
        launch.train(config)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("run.json", "metrics.jsonl", "predictions.parquet", "results.json"):
            if name != "predictions.parquet" or config.evaluate_test:
                shutil.copy(runs.RUNS / config.name / name, folder)
        write_tables()
    return runs.results(folder)


def write_tables():
    """The tables of all that is finished."""
    tables.table_1(COMMITTED).to_csv(COMMITTED.parent / "table_1.csv", index=False, float_format="%.5g")
    tables.results_table(COMMITTED, search=True).to_csv(
        COMMITTED.parent / "search.csv", index=False, float_format="%.5g"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("crystals", type=Path, help="the mp36k parquet file")
    crystals = parser.parse_args().crystals.resolve()
    if not (DATASET / "dataset.json").exists():
        prepare.main(["parquet", str(crystals), str(DATASET)])
    for modalities in MODALITIES:
        print(modalities, chosen(modalities), flush=True)
    for config in table_1():
        result = finished(config)
        shown = {name: round(value, 4) for name, value in result.items() if name.startswith("test/")}
        print(config.name, f"{result['seconds'] / 60:.1f} min", shown, flush=True)
    write_tables()


if __name__ == "__main__":
    main()
