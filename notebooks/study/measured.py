"""A released checkpoint on measured patterns, beside the simulated ones of the same crystals."""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from xxlib.answering.inference import only
from xxlib.crystals.compositions import composition_of_formula
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.datasets.batches import Batch, make_batch
from xxlib.diffraction.patterns import patchify, restrict, unpatchify
from xxlib.diffraction.wavelengths import CU_KA
from xxlib.scans.conditioning import condition
from xxlib.scans.scan import Scan, checked
from xxlib.training.judging import given, modalities_given
from xxlib.training.metrics import accuracy_interval

RANGES = ((10, 90), (20, 90), (5, 70), (5, 50), (10, 70), (20, 50))  # degree, for accuracy against range
ERRORS = {"e_form": ("E_f (meV/atom)", 1000), "band_gap": ("band gap (eV)", 1)}


@dataclass(frozen=True, eq=False)
class Patterns:
    """Patterns of known crystals, measured or simulated."""

    table: pd.DataFrame  # (n): sample, formula, crystal_system, mp_id or None, e_form (eV/atom), band_gap (eV)
    patterns: np.ndarray  # (n, 4250), maximum 100
    masked: np.ndarray  # (n, 17) bool, True = nothing of this token was measured

    def taken(self, which):
        """Some of them: which (n,) bool."""
        return Patterns(self.table[which], self.patterns[which], self.masked[which])

    def within(self, start, end):
        """The same patterns seen from start to end (degree) only."""
        patterns, masked = restrict(self.patterns, start, end)
        return Patterns(self.table, patterns, masked | self.masked)


def read(path):
    """Measured Patterns of a table (parquet) of scans for Cu K-alpha, each conditioned.

    Columns: sample, reduced_formula, crystal_system, two_theta (degree) and intensity; of the crystals that the dataset
    holds also mp_id, e_form, band_gap.
    """
    table = pd.read_parquet(path)
    scans = zip(table.pop("two_theta"), table.pop("intensity"), table["sample"])
    conditioned = []
    for two_theta, intensity, sample in tqdm(scans, total=len(table), desc="conditioning", unit="scan"):
        angle, counts = np.asarray(two_theta, np.float64), np.asarray(intensity, np.float64)
        conditioned.append(condition(checked(Scan(two_theta=angle, intensity=counts, wavelength=CU_KA, sample=sample))))
    about = table.rename(columns={"reduced_formula": "formula"})
    return Patterns(
        about[["sample", "formula", "crystal_system", "mp_id", "e_form", "band_gap"]],
        np.stack([each.pattern for each in conditioned]),
        np.stack([each.tokens_outside for each in conditioned]),
    )


def simulated(measured, dataset):
    """The ideal Patterns of measured crystals that are all in a Dataset, by mp_id."""
    row_of = {name: row for row, name in enumerate(dataset.column("id"))}
    tokens = make_batch(dataset, np.array([row_of[name] for name in measured.table["mp_id"]])).tokens.numpy()
    return Patterns(measured.table, unpatchify(tokens), np.zeros(tokens.shape[:2], bool))


def answers(ensemble, patterns, words):
    """What an Ensemble says of Patterns, given what words say: one of evaluation.given(its config)."""
    compositions = [composition_of_formula(formula) for formula in patterns.table["formula"]]
    element_ids = np.zeros((len(compositions), max(len(ids) for ids, _ in compositions)), np.int64)
    fractions = np.zeros(element_ids.shape, np.float32)
    for row, (ids, shares) in enumerate(compositions):
        element_ids[row, : len(ids)], fractions[row, : len(ids)] = ids, shares
    batch = Batch(
        element_ids=torch.from_numpy(element_ids), fractions=torch.from_numpy(fractions),
        tokens=torch.from_numpy(patchify(patterns.patterns)), targets={}, masked=torch.from_numpy(patterns.masked),
    )  # fmt: skip
    modalities = modalities_given(words)
    return ensemble(only(batch, modalities) if modalities != ensemble.inputs[0] else batch)


def labels_of(table):
    """What is known of measured crystals, as Trust.measure takes it: name -> (n,), classes as indices."""
    known = {name: table[name].to_numpy(float) for name in ERRORS}
    return known | {"crystal_system": table["crystal_system"].map(CRYSTAL_SYSTEMS.index).to_numpy(float)}


def judge(ensemble, trust, measured, dataset):
    """Four tables of a released checkpoint on measured Patterns: accuracy, errors, what its certainty is worth, and
    what it says of each sample.

    Each also on the measured patterns of those crystals that the dataset holds, and on the ideal patterns of the same.
    Accuracy is that of the crystal system, with Wilson's interval: of all, of each system, and within RANGES.
    trust: as trust.read_trust gives it, fitted on simulated patterns.
    """
    kinds = {"measured": measured}
    in_dataset = measured.table["mp_id"].isin(dataset.column("id")).to_numpy()
    if in_dataset.any():
        kinds["measured, in the dataset"] = measured.taken(in_dataset)
        kinds["simulated"] = simulated(measured.taken(in_dataset), dataset)
    accuracies, errors, certainties, samples = [], [], [], []
    for words, (kind, patterns) in itertools.product(given(ensemble.config), kinds.items()):
        about, part = {"given": words, "patterns": kind}, trust[modalities_given(words)]
        said, known = answers(ensemble, patterns, words), labels_of(patterns.table)
        certainties.append(about | part.measure(said, known))
        samples.append(_samples(patterns.table, said, part).assign(**about))
        errors += [about | _error(name, known[name], values) for name, values in said.values.items()]
        if "crystal_system" in said.logits:
            right = {"all": _right(said, known)}
            for system in CRYSTAL_SYSTEMS:
                right[system] = right["all"][patterns.table["crystal_system"] == system]
            for start, end in RANGES if kind == "measured" and "xrd" in modalities_given(words) else ():
                right[f"{start}-{end} degree"] = _right(answers(ensemble, patterns.within(start, end), words), known)
            accuracies += [about | {"of": name} | accuracy_interval(found) for name, found in right.items()]
    return *map(pd.DataFrame, (accuracies, errors, certainties)), pd.concat(samples, ignore_index=True)


def lost(samples, draws=10_000):
    """Accuracy of the crystal system on simulated and on measured patterns of the same crystals, and what is lost.

    One row a model and what it was given, in % and points; `low` and `high` hold the loss in 95 % of the draws of a
    paired bootstrap over the crystals.  samples: the last table of judge, with a column model; those that say of what
    and how it was made are kept.
    """
    rows, rng = [], np.random.default_rng(0)
    about = [name for name in ("dataset", "split", "preset", "seed", "commit", "hardware") if name in samples]
    right = (100.0 * (samples["crystal_system_predicted"] == samples["crystal_system"])).rename("right")
    for keys, group in samples.assign(right=right).groupby(["model", "given", *about], sort=False):
        model, words, *origin = keys
        sides = {kind: part.set_index("sample")["right"] for kind, part in group.groupby("patterns")}
        if "simulated" not in sides or "xrd" not in modalities_given(words):
            continue
        before, after = sides["simulated"], sides["measured, in the dataset"]
        change = (before - after).to_numpy()
        low, high = np.percentile(rng.choice(change, (draws, len(change))).mean(1), (2.5, 97.5))
        row = {"model": model, "given": words, "n": len(change)}
        row |= {"simulated (%)": before.mean(), "measured (%)": after.mean(), "lost (points)": change.mean()}
        row |= {"low (points)": low, "high (points)": high} | dict(zip(about, origin))
        rows.append(row)
    return pd.DataFrame(rows)


def _right(said, known):
    """Whose crystal system is right: (n,) bool."""
    return said.logits["crystal_system"].argmax(1) == known["crystal_system"]


def _error(name, true, said):
    """Mean absolute error over the samples with a label, and its standard error, as a dict."""
    words, scale = ERRORS[name]
    known = np.isfinite(true)
    off = pd.Series(scale * np.abs(said[known] - true[known]))
    return {"of": words, "n": len(off), "MAE": off.mean(), "standard error": off.sem()}


def _samples(table, said, trust):
    """What is said of each sample, how surely, and whether it looks unlike the training, beside what is known."""
    columns = {"unlike the training": trust.distance(said) > trust.farthest}
    for name, half in trust.half_widths(said).items():
        value = said.values[name]
        columns |= {f"{name}_predicted": value, f"{name}_low": value - half, f"{name}_high": value + half}
    if "crystal_system" in said.logits:
        probabilities = trust.classes["crystal_system"].probabilities(said.logits["crystal_system"])
        columns["crystal_system_predicted"] = np.array(CRYSTAL_SYSTEMS)[probabilities.argmax(1)]
        columns |= {f"p({system})": share for system, share in zip(CRYSTAL_SYSTEMS, probabilities.T)}
    return table.assign(**columns)
