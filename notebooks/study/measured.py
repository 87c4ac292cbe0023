"""How good is a released checkpoint on measured patterns, beside the simulated ones of the same crystals?

    PYTHONPATH=notebooks .venv/bin/python -m study.measured PATTERNS.parquet CHECKPOINT ...

PATTERNS.parquet: the measured patterns (data/README.md says where they come from).  CHECKPOINT: folders as
xxlib.release writes them; names alone are those in data/checkpoints.  Every checkpoint is judged once: measured_log.csv
says when, by the checksums of its weights, and one that stands there is refused, so that no choice is made on these
patterns; a member of an ensemble alone is another checkpoint.  Crystals of mp36k with a measured formula train nothing;
further datasets hold some of the other formulas, so that accuracy is also that of formulas of which no crystal, alike
to NEAR, has trained a reader: the datasets of its runs must be in data/.  Adds to measured_accuracy, measured_errors,
measured_trust and measured_samples.csv.
Cost: a minute a checkpoint.
"""

import argparse
import datetime
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from study.archive import RESULTS
from study.claims import SUPERSEDED, WORDS, spoken
from xxlib import PROJECT, plots
from xxlib.answering.inference import Ensemble, model_files
from xxlib.answering.predictor import CHECKPOINTS
from xxlib.answering.trust import read_trust
from xxlib.crystals.compositions import composition_of_formula
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.datasets.batches import CPU, make_batch, sample_batch
from xxlib.datasets.store import Dataset, sha256
from xxlib.datasets.targets import TARGETS
from xxlib.diffraction.patterns import restrict, unpatchify
from xxlib.diffraction.wavelengths import CU_KA
from xxlib.scans.conditioning import condition
from xxlib.scans.scan import Scan, checked
from xxlib.training.examples import examples_of
from xxlib.training.machine import commit, hardware
from xxlib.training.metrics import accuracy_interval
from xxlib.training.runs import CheckpointError, write_atomically

TABLE = "measured_lost"  # follows from the committed samples; the others are added to by the command
TABLES = ("measured_accuracy", "measured_errors", "measured_trust", "measured_samples")
RANGES = ((10, 90), (20, 90), (5, 70), (5, 50), (10, 70), (20, 50))  # degree, for accuracy against range
SHOWN = ("measured", "measured, in the dataset", "simulated")  # kinds of patterns in the figures
REGRESSIONS = ("e_form", "band_gap")
LABELS = ("sample", "formula", "crystal_system", "space_group", "mp_id", *REGRESSIONS)
NO_COMPOSITION = np.zeros(0, np.uint8), np.zeros(0, np.float32)
FIRST = "patterns"  # the file of patterns whose figures come first
JOINED = " + "
NEAR = 0.01  # compositions are alike where no fraction differs by more
NEW = "formulas that train nothing"


@dataclass(frozen=True, eq=False)
class Patterns:
    """Patterns of labelled crystals, measured or simulated."""

    table: pd.DataFrame  # (n): sample, formula, crystal_system, mp_id or None, e_form (eV/atom), band_gap (eV)
    patterns: np.ndarray  # (n, 4250), maximum 100
    hidden: np.ndarray  # (n, 17) bool, True = nothing of this token was measured

    def taken(self, which):
        """Some of them: which (n,) bool."""
        return Patterns(self.table[which], self.patterns[which], self.hidden[which])

    def within(self, start, end):
        """The same patterns seen from start to end (degree) only."""
        patterns, hidden = restrict(self.patterns, start, end)
        return Patterns(self.table, patterns, hidden | self.hidden)


def read(path):
    """Measured Patterns of a table (parquet) of scans for Cu K-alpha, each conditioned.

    Columns: sample, crystal_system, space_group, two_theta (degree) or two_theta_start and two_theta_step, intensity;
    reduced_formula where it is known; of the crystals that the dataset holds also mp_id, e_form, band_gap.
    """
    table = pd.read_parquet(path)
    conditioned = [
        condition(checked(scan_of(row))) for row in tqdm(table.to_dict("records"), desc="conditioning", unit="scan")
    ]
    labels = table.rename(columns={"reduced_formula": "formula"})
    return Patterns(
        labels.reindex(columns=LABELS),
        np.stack([each.pattern for each in conditioned]),
        np.stack([each.tokens_outside for each in conditioned]),
    )


def scan_of(row):
    """The Scan of a row of such a table."""
    intensity, two_theta = np.asarray(row["intensity"], np.float64), row.get("two_theta")
    if two_theta is None:
        two_theta = row["two_theta_start"] + row["two_theta_step"] * np.arange(len(intensity))
    angle = np.asarray(two_theta, np.float64)
    return Scan(two_theta=angle, intensity=intensity, wavelength=CU_KA, sample=row["sample"])


def simulated(measured, dataset):
    """The ideal Patterns of measured crystals that are all in a Dataset, by mp_id."""
    row_of = {name: row for row, name in enumerate(np.asarray(dataset.column("id")))}
    batch = make_batch(dataset, np.array([row_of[name] for name in measured.table["mp_id"]]), ("xrd",))
    tokens = batch.inputs["xrd"].tokens.numpy()
    return Patterns(measured.table, unpatchify(tokens), np.zeros(tokens.shape[:2], bool))


def outputs(ensemble, patterns, given):
    """The EnsembleOutput for Patterns, given some of the modalities."""
    formulas = patterns.table["formula"]
    compositions = [composition_of_formula(one) if isinstance(one, str) else NO_COMPOSITION for one in formulas]
    batch = sample_batch(*map(list, zip(*compositions)), patterns.patterns, patterns.hidden)
    return ensemble(batch.only(given))


def trained(formulas, ensemble):
    """Of which formulas, (n,) or None, a crystal has trained what an Ensemble says of symmetry: (n,) bool.

    Raises DatasetError where a dataset of its runs is not there.
    """
    wanted = {}
    for k, formula in enumerate(formulas):
        if isinstance(formula, str):
            ids, fractions = composition_of_formula(formula)
            order = np.argsort(ids)
            wanted.setdefault(tuple(ids[order].tolist()), []).append((k, fractions[order]))
    found = np.zeros(len(formulas), bool)
    for member in ensemble.answering("crystal_system"):
        examples = examples_of(member.config)
        rows = examples.rows["train"]
        (ids, ends), fractions = (examples.dataset.take(name, rows) for name in ("element_ids", "fractions"))
        for start, end in itertools.pairwise(ends):
            order = np.argsort(ids[start:end])
            for k, own in wanted.get(tuple(ids[start:end][order].tolist()), ()):
                found[k] |= np.abs(fractions[0][start:end][order] - own).max() < NEAR
    return found


def labels_of(table):
    """The labels of measured crystals, as Trust.measure takes them: name -> (n,), classes as indices."""
    labels = {name: table[name].to_numpy(float) for name in REGRESSIONS}
    labels["space_group"] = table["space_group"].to_numpy(float) - 1
    return labels | {"crystal_system": table["crystal_system"].map(CRYSTAL_SYSTEMS.index).to_numpy(float)}


def judge(ensemble, trust, measured, dataset, name="measured"):
    """Four tables of a released checkpoint on measured Patterns: accuracy, errors, what its certainty is worth, and
    what it predicts for each sample.

    Each also on the measured patterns of those crystals that the dataset holds, and on the ideal patterns of the same.
    Accuracy is that of the crystal system, with Wilson's interval: of all, of each system, and within RANGES.
    trust: as trust.read_trust gives it, fitted on simulated patterns.  name: what the measured patterns are called.
    """
    kinds, formulas = {name: measured}, measured.table["formula"].notna().all()
    asked = [given for given in ensemble.inputs if formulas or "composition" not in given]
    in_dataset = measured.table["mp_id"].isin(np.asarray(dataset.column("id"))).to_numpy()
    if in_dataset.any():
        kinds[f"{name}, in the dataset"] = measured.taken(in_dataset)
        kinds[name.replace("measured", "simulated", 1)] = simulated(measured.taken(in_dataset), dataset)
    accuracies, errors, certainties, samples = [], [], [], []
    for given, (kind, patterns) in itertools.product(asked, kinds.items()):
        view, part = {"given": JOINED.join(given), "patterns": kind}, trust[given]
        output, labels = outputs(ensemble, patterns, given), labels_of(patterns.table)
        certainties.append(view | part.measure(output, labels))
        samples.append(_samples(patterns.table, output, part).assign(**view))
        labelled = [target for target in output.values if np.isfinite(labels[target]).any()]
        errors += [view | _error(target, labels[target], output.values[target]) for target in labelled]
        if "crystal_system" in output.logits:
            right = {"all": _right(output, labels)}
            for system in CRYSTAL_SYSTEMS:
                right[system] = right["all"][patterns.table["crystal_system"] == system]
            if NEW in patterns.table:
                right[NEW] = right["all"][patterns.table[NEW].to_numpy(bool)]
            for start, end in RANGES if kind == "measured" and "xrd" in given else ():
                within = outputs(ensemble, patterns.within(start, end), given)
                right[f"{start}-{end} degree"] = _right(within, labels)
            accuracies += [view | {"of": of} | accuracy_interval(of_group) for of, of_group in right.items()]
    return *map(pd.DataFrame, (accuracies, errors, certainties)), pd.concat(samples, ignore_index=True)


def table(samples=None, place=RESULTS, draws=10_000):
    """Accuracy of the crystal system on simulated and on measured patterns of the same crystals, and what is lost.

    One row a model and what it was given, in % and points; `low` and `high` hold the loss in 95 % of the draws of a
    paired bootstrap over the crystals.  samples: the last table of judge, with a column model; those that say of what
    and how it was made are kept.
    """
    samples = pd.read_csv(place / "measured_samples.csv") if samples is None else samples
    rows, rng = [], np.random.default_rng(0)
    labels = [name for name in ("dataset", "split", "preset", "seed", "commit", "hardware") if name in samples]
    right = (100.0 * (samples["crystal_system_predicted"] == samples["crystal_system"])).rename("right")
    for keys, group in samples.assign(right=right).groupby(["model", "given", *labels], sort=False):
        model, given, *origin = keys
        sides = {kind: part.set_index("sample")["right"] for kind, part in group.groupby("patterns")}
        if not {"simulated", "measured, in the dataset"} <= set(sides) or "xrd" not in given.split(JOINED):
            continue
        before, after = sides["simulated"], sides["measured, in the dataset"]
        change = (before - after).to_numpy()
        low, high = np.percentile(rng.choice(change, (draws, len(change))).mean(1), (2.5, 97.5))
        row = {"model": model, "given": given, "n": len(change)}
        row |= {"simulated (%)": before.mean(), "measured (%)": after.mean(), "lost (points)": change.mean()}
        row |= {"low (points)": low, "high (points)": high} | dict(zip(labels, origin))
        rows.append(row)
    return pd.DataFrame(rows)


def figures(place=RESULTS):
    """Accuracies of the models, a figure for each thing they were given."""
    drawn = {}
    every = pd.read_csv(place / "measured_accuracy.csv")
    every = every[~every["model"].isin(SUPERSEDED)]
    for given, rows in every[every["patterns"].isin(SHOWN)].groupby("given"):
        panels = {spoken(model): of_model for model, of_model in rows.groupby("model", sort=False)}
        name = f"measured_{given.replace(JOINED, '_and_')}"
        drawn[name] = plots.accuracies(panels, f"Crystal system {WORDS[given]}")
    return drawn


def findings(place=RESULTS):
    """What is lost on measured patterns, a sentence a row."""
    return [
        f"{row['model']} loses {row['lost (points)']:.0f} points of crystal system {WORDS[row['given']]} "
        f"on the measured patterns of {row['n']} crystals (95 %: {row['low (points)']:.0f} to "
        f"{row['high (points)']:.0f})."
        for _, row in table(place=place).iterrows()
    ]


def _right(output, labels):
    """Whose crystal system is right: (n,) bool."""
    return output.logits["crystal_system"].argmax(1) == labels["crystal_system"]


def _error(name, true, predicted):
    """Mean absolute error over the samples with a label, and its standard error, as a dict."""
    target, labelled = TARGETS[name], np.isfinite(true)
    off = pd.Series(target.error_scale * np.abs(predicted[labelled] - true[labelled]))
    of = f"{target.short} ({target.error_unit})"
    return {"of": of, "n": len(off), "MAE": off.mean(), "standard error": off.sem()}


def _samples(table, output, trust):
    """What is predicted of each sample, how surely, and whether it looks unlike the training, beside its labels."""
    columns = {"unlike the training": trust.distance(output) > trust.farthest}
    for name, half in trust.half_widths(output).items():
        value = output.values[name]
        columns |= {f"{name}_predicted": value, f"{name}_low": value - half, f"{name}_high": value + half}
    if "crystal_system" in output.logits:
        probabilities = trust.classes["crystal_system"].probabilities(output.logits["crystal_system"])
        columns["crystal_system_predicted"] = np.array(CRYSTAL_SYSTEMS)[probabilities.argmax(1)]
        columns |= {f"p({system})": share for system, share in zip(CRYSTAL_SYSTEMS, probabilities.T)}
    return table.assign(**columns)


# ---------------------------------------------------------------- the command


def add(table, path):
    """Rows after those of a CSV file."""
    if path.exists():
        table = pd.concat([pd.read_csv(path), table], ignore_index=True)
    write_atomically(path, table.to_csv(index=False, float_format="%.5g").encode())


def main():
    parser = argparse.ArgumentParser(prog="python -m study.measured", description=__doc__.split("\n")[0])
    parser.add_argument("patterns", type=Path, help="the measured patterns, a parquet file")
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="folder, or its name in data/checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
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
        except CheckpointError as error:
            sys.exit(f"measured: {name}: {error}")
    measured = read(arguments.patterns)
    for folder, (weights, ensemble, trust) in checkpoints.items():
        config = ensemble.config
        # Before the results: an evaluation that fails half-way has been one, too.
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        made = {
            "dataset": config.data.dataset,
            "split": "experimental",
            "preset": config.preset,
            "seed": config.seed,
        }
        made |= {"commit": commit(), "hardware": hardware(CPU, torch.get_num_threads())}
        entry = {"model": folder.name, "evaluated": when, "patterns": arguments.patterns.name}
        entry |= {"n": len(measured.table), "patterns_sha256": patterns} | made
        add(pd.DataFrame([entry | {"sha256": sha256(path)} for path in weights]), log)
        stem = arguments.patterns.stem
        of = "measured" if stem == FIRST else f"measured, {stem}"
        if measured.table["formula"].notna().all():
            measured.table[NEW] = ~trained(measured.table["formula"], ensemble)
        tables = judge(ensemble, trust, measured, Dataset(PROJECT / config.data.dataset), of)
        for name, table in zip(TABLES, tables):
            if len(table):
                table.insert(0, "model", folder.name)
                add(table.assign(**made), arguments.results / f"{name}.csv")
        shown = tables[0].query("of in ('all', @NEW)") if len(tables[0]) else tables[1]
        print(shown.to_string(index=False, float_format="{:.1f}".format))


if __name__ == "__main__":
    main()
