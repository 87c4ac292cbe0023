"""What known crystals that explain a measured scan add to what the released model says of the formation energy.

    PYTHONPATH=notebooks .venv/bin/python -m study.measured_stand_ins PATTERNS.parquet

PATTERNS.parquet: measured patterns, as study.measured reads them; those with an energy are asked about, and no crystal
of their own formula is known.  Reader of structures and weights are those that stand_ins.py has chosen on `val`, among
the readers whose weights are in data/runs.  Each is judged once, as measured_log.csv says.
Cost: 2 s a scan.
"""

import argparse
import datetime
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from study.archive import RESULTS
from study.asking import DATASET, all_known, dataset, explained, of_formula
from study.measured import add, scan_of
from study.stand_ins import NAME, SETTING, TARGET, WEIGHTS, as_dataset, believed, committed, first, said
from xxlib import PROJECT
from xxlib.answering.inference import Ensemble, model_files
from xxlib.answering.predictor import DEFAULT as RELEASED
from xxlib.candidates.observed import Observed
from xxlib.datasets.batches import CPU
from xxlib.datasets.store import sha256
from xxlib.datasets.targets import TARGETS
from xxlib.scans.samples import read_sample
from xxlib.training.machine import commit, hardware
from xxlib.training.runs import RUNS, results

TABLE = f"measured_{NAME}"


def candidates(scans):
    """What may be the crystals of measured scans, a table, as stand_ins.candidates has it.

    Of a scan that cannot be read nothing is.
    """
    known, found = all_known(), []
    for row, scan in enumerate(tqdm(scans.to_dict("records"), desc=SETTING, unit="scan")):
        try:
            sample = read_sample(scan["reduced_formula"], scan_of(scan))
        except ValueError:
            found.append(first(row, None))
            continue
        composition, mask = (sample.element_ids, sample.fractions), of_formula(known.library, sample)
        found.append(first(row, explained(known, Observed.of_sample(sample), mask, composition)[0]))
    return found


def chosen():
    """The row of stand_ins.csv with the least error of formula and pattern whose reader of structures is here."""
    rows = committed().query("given == 'composition + xrd'")
    here = rows[[bool(results(RUNS / name)) for name in rows["reader of structures"]]]
    if here.empty:
        sys.exit("measured_stand_ins: the weights of no reader of approximate structures are in data/runs: make study")
    return here.sort_values("with candidates").iloc[0]


def judge(scans, row, folder):
    """Errors of measured crystals by the reader and weights of a row of stand_ins.csv: a row as there.

    alone: by the released checkpoint, as it was judged on the same scans.  Raises ValueError, naming a sample, where it
    was not, or where the dataset lacks its crystal.
    """
    kept = pd.read_csv(RESULTS / "measured_samples.csv").query("model == @RELEASED and given == 'composition + xrd'")
    alone = kept.query("patterns == 'measured'").set_index("sample")[f"{TARGET}_predicted"].reindex(scans["sample"])
    rows = pd.Index(dataset().column("id")[:]).get_indexer(scans["mp_id"])
    for name, unknown in zip(scans["sample"], alone.isna().to_numpy() | (rows < 0)):
        if unknown:
            raise ValueError(f"{name}: {RELEASED} was not judged on it, or {dataset().folder} has no such crystal")
    ensemble = Ensemble.load(model_files(RUNS / row["reader of structures"]))
    found = candidates(scans)
    told = said(found, as_dataset(found, folder), ensemble)
    values = {
        "alone": alone.to_numpy(),
        "with candidates": believed(told, alone.to_numpy(), row[list(WEIGHTS)].to_numpy(float)),
        "true structure": ensemble.of_rows(dataset(), rows, ensemble.config.model.modalities).values[TARGET],
    }
    sure, scale = (told["none"] < 0.5).to_numpy(), TARGETS[TARGET].error_scale
    about = {"reader of structures": row["reader of structures"], "reader of what is given": RELEASED}
    about |= {"target": TARGET, "unit": TARGETS[TARGET].error_unit}
    about |= {"crystals": len(scans), "explained": int(sure.sum())}
    all_errors = {name: scale * np.abs(value - scans[TARGET].to_numpy()) for name, value in values.items()}
    gains = pd.Series(all_errors["alone"] - all_errors["with candidates"])
    about |= {"gain": gains.mean(), "+- gain": 1.96 * gains.sem()}
    for name, errors in all_errors.items():
        about |= {name: errors.mean(), f"{name}, explained": errors[sure].mean() if sure.any() else np.nan}
    origin = {"dataset": DATASET, "split": "experimental", "setting": SETTING, "patterns": "measured"}
    origin |= {"preset": "small", "seed": 0, "commit": commit(), "hardware": hardware(CPU, 1)}
    return pd.DataFrame([about | origin])


def findings(place=RESULTS):
    """What candidates give to measured crystals, in a sentence; none where nothing was asked."""
    path = place / f"{TABLE}.csv"
    return [
        f"Candidates take the error of E_f of {row['crystals']} measured crystals from {row['alone']:.0f} "
        f"({row['reader of what is given']}, from formula and scan) to {row['with candidates']:.0f} {row['unit']} "
        f"({row['reader of structures']}): {row['gain']:.1f} ± {row['+- gain']:.1f} less. Where the candidates are "
        f"likelier than none of them ({row['explained']} scans), {row['alone, explained']:.0f} become "
        f"{row['with candidates, explained']:.0f}. The true structures alone give {row['true structure']:.0f}."
        for row in (pd.read_csv(path).to_dict("records") if path.exists() else ())
    ]


def main():
    parser = argparse.ArgumentParser(prog="python -m study.measured_stand_ins", description=__doc__.split("\n")[0])
    parser.add_argument("patterns", type=Path, help="measured patterns, a parquet file")
    parser.add_argument("--kept", type=Path, default=PROJECT / "build" / TABLE, help="folder of the candidates")
    arguments = parser.parse_args()
    row, log = chosen(), RESULTS / "measured_log.csv"
    (weights,) = model_files(RUNS / row["reader of structures"])
    entry = {"model": f"{NAME} by {row['reader of structures']} and {RELEASED}", "patterns": arguments.patterns.name}
    entry |= {"patterns_sha256": sha256(arguments.patterns), "sha256": sha256(weights)}
    before = pd.read_csv(log)
    if (before[list(entry)] == pd.Series(entry)).all(axis=1).any():
        sys.exit(f"measured_stand_ins: {arguments.patterns.name} was asked with this reader; {RESULTS} has the answers")
    scans = pd.read_parquet(arguments.patterns)
    if missing := {"sample", "reduced_formula", "mp_id", "intensity", TARGET} - set(scans):
        sys.exit(f"measured_stand_ins: {arguments.patterns} has no column {', '.join(sorted(missing))}")
    scans = scans.dropna(subset=TARGET).reset_index(drop=True)
    entry |= {"evaluated": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "n": len(scans)}
    try:
        table = judge(scans, row, arguments.kept / entry["patterns_sha256"][:12])
    except ValueError as error:
        sys.exit(f"measured_stand_ins: {error}")
    add(pd.DataFrame([entry | {"commit": commit()}]), log)
    table.to_csv(RESULTS / f"{TABLE}.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
