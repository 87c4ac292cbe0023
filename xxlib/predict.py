"""Checkpoint + formula + pattern -> answer with its uncertainty: python -m xxlib.predict --formula LaMnO3 scan.xrdml

In a notebook:  model = Predictor.load("mp36k-small");  model("LaMnO3", "scan.xrdml")
"""

import argparse
import json
import sys
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from xxlib import PROJECT
from xxlib.answering.calibration import LEVEL
from xxlib.answering.inference import Ensemble, batch_of, model_files, only, trained
from xxlib.answering.novelty import ALARM, nearest, signs_of_disagreement
from xxlib.answering.trust import name_of, read_trust
from xxlib.datasets.archives import unpack
from xxlib.datasets.downloads import DownloadError, cache, fetch
from xxlib.datasets.store import Dataset, DatasetError
from xxlib.datasets.targets import TARGETS
from xxlib.diffraction import patterns
from xxlib.diffraction.scattering import Sticks
from xxlib.scans.conditioning import better_anode
from xxlib.scans.samples import Sample, read_sample
from xxlib.training.runs import CheckpointError

CHECKPOINTS = PROJECT / "data" / "checkpoints"
DEFAULT = "mp36k-small"
RARE = 10  # training crystals: an element in fewer is warned of
N_NEAREST = 5
GOOD_FIT = 0.6  # correlation of a scan with the lines of a known crystal


@dataclass(frozen=True, eq=False, kw_only=True)
class Prediction:
    """What is said of one sample, and how sure it is."""

    sample: Sample
    values: dict[str, tuple[float, float, float]] = field(default_factory=dict)  # value, low, high in the unit
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)  # class -> probability, highest first
    sets: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of classes, with the truth at LEVEL
    nearest: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # rows of the known crystals, (N_NEAREST,)
    warnings: tuple[str, ...] = ()  # plain sentences
    refused: str = ""  # why there is no answer

    def row(self):
        """A row of the table: units and LEVEL in the names of the columns."""
        row = {
            "formula": self.sample.formula,
            "pattern": self.sample.name,
            "answered from": name_of(self.sample.modalities),
        }
        for name, (value, low, high) in self.values.items():
            unit = TARGETS[name].unit
            row |= {f"{name} ({unit})": value, f"{name} {LEVEL:.0%} from ({unit})": low}
            row |= {f"{name} {LEVEL:.0%} to ({unit})": high}
        for name, probabilities in self.probabilities.items():
            first, probability = next(iter(probabilities.items()))
            row |= {name: first, f"{name} probability": probability}
            row |= {f"{name} {LEVEL:.0%} set": " or ".join(self.sets[name])}
            row |= {f"P({label})": probabilities[label] for label in TARGETS[name].classes}
        return row | {"warnings": list(self.warnings), "refused": self.refused}

    def json(self):
        """Numbers, intervals, probabilities, units and warnings as one flat dict that JSON can hold."""
        out = {"formula": self.sample.formula or None, "pattern": self.sample.name or None}
        out |= {"answered_from": list(self.sample.modalities), "level": LEVEL}
        for name, (value, low, high) in self.values.items():
            out |= {name: value, f"{name}_interval": [low, high]}
        for name, probabilities in self.probabilities.items():
            out |= {name: next(iter(probabilities)), f"{name}_probabilities": probabilities}
            out |= {f"{name}_set": list(self.sets[name])}
        units = {name: TARGETS[name].unit for name in self.values}
        return out | {"units": units, "warnings": list(self.warnings)}

    def __str__(self):
        """A few readable lines."""
        about = " and ".join(filter(None, (self.sample.formula, self.sample.name)))
        lines = [f"{about}, answered from {name_of(self.sample.modalities)}"]
        for name, (value, low, high) in self.values.items():
            unit, shown = TARGETS[name].unit, SHOWN.get(name, name)
            lines.append(f"  {shown:17} {value:7.3f} {unit} ({LEVEL:.0%}: {low:.3f} to {high:.3f} {unit})")
        for name, probabilities in self.probabilities.items():
            first, probability = next(iter(probabilities.items()))
            others = " or ".join(self.sets[name])
            lines.append(f"  {SHOWN.get(name, name):17} {first}, {probability:.0%} ({LEVEL:.0%}: {others})")
        return "\n".join([*lines, *(f"  ! {warning}" for warning in self.warnings)])


SHOWN = {"e_form": "formation energy", "band_gap": "band gap", "crystal_system": "crystal system"}


class Predictor:
    """A released checkpoint that answers for samples."""

    def __init__(self, folder):
        """folder: of a checkpoint, as xxlib.release writes it.  Raises CheckpointError where it is damaged."""
        folder = Path(folder)
        if not (folder / "calibration.json").is_file():
            raise CheckpointError(
                f"{folder} is no released checkpoint (no calibration.json). Of a finished run, "
                f"`python -m xxlib.release {folder} data/checkpoints/<name>` makes one"
            )
        self.name = folder.name
        self.ensemble = Ensemble.load(model_files(folder))
        guessing = folder / "reconstructing.safetensors"
        self.reconstructing = trained(guessing).model if guessing.is_file() else None
        self.trust, self.contradiction, self.elements = read_trust(folder)
        self.known, self.unseen = Dataset(folder / "known"), Dataset(folder / "unseen")

    @classmethod
    def load(cls, source=DEFAULT, sha256=None):
        """A checkpoint by its name in data/checkpoints, by its folder, or by the URL of an archive of it.

        sha256: of the archive at a URL, which must be given.  Raises CheckpointError, DatasetError or DownloadError.
        """
        if str(source).startswith(("http://", "https://")):
            return cls(_downloaded(source, sha256))
        folder = next((path for path in (CHECKPOINTS / source, Path(source)) if path.is_dir()), None)
        if folder is None:
            there = ", ".join(sorted(path.name for path in CHECKPOINTS.glob("*/"))) or "none"
            raise CheckpointError(f"there is no checkpoint {source}: here are {there}; or give a folder or a URL")
        return cls(folder)

    def __call__(self, formula=None, pattern=None, *, anode=None):
        """Answers as a table, one row a sample.

        formula: "LaMnO3", or None where it is not known.  pattern: a diffractometer file, a Scan, a Conditioned, an
        array (4250,) on the grid, or None.  Both may be lists of one length, one entry a sample.
        anode: "Cu", "Mo", ... or angstrom, for files that do not state their wavelength.

        What cannot be answered is refused: for one sample with a ValueError that says why and what to do, in a list
        with an empty row whose column `refused` says it.
        """
        if not any(isinstance(given, list | tuple | pd.Series) for given in (formula, pattern)):
            return pd.DataFrame([self.answer([read_sample(formula, pattern, anode=anode)])[0].row()])
        formulas, scans = _aligned(formula, pattern)
        return pd.DataFrame([prediction.row() for prediction in self._answered(formulas, scans, anode)])

    def _answered(self, formulas, scans, anode):
        for formula, pattern in zip(formulas, scans):
            try:
                yield self.answer([read_sample(formula, pattern, anode=anode)])[0]
            except ValueError as error:
                yield Prediction(sample=_unread(formula, pattern), refused=str(error))

    def answer(self, samples):
        """The Predictions for Samples; raises ValueError for a sample that the model cannot say anything of."""
        return [self._answer(sample) for sample in samples]

    def _answer(self, sample):
        modalities = sample.modalities
        self._check(sample)
        said = self.ensemble(batch_of(sample))
        trust = self.trust[modalities]
        half = trust.half_widths(said)
        values = {}
        for name, (value,) in said.values.items():
            low = max(value - half[name][0], TARGETS[name].least)
            values[name] = (float(value), float(low), float(value + half[name][0]))
        probabilities, sets = {}, {}
        for name, classes in trust.classes.items():
            shares = classes.probabilities(said.logits[name])
            order = np.argsort(-shares[0], kind="stable")
            labels = TARGETS[name].classes
            probabilities[name] = {labels[i]: float(shares[0, i]) for i in order}
            sets[name] = tuple(labels[i] for i in order if classes.sets(shares)[0, i])
        _, places = nearest(said.vectors, trust.known.astype(np.float64), N_NEAREST)
        return Prediction(
            sample=sample, values=values, probabilities=probabilities, sets=sets, nearest=places[0],
            warnings=(*sample.warnings, *self._warnings(sample, said)),
        )  # fmt: skip

    def _check(self, sample):
        if sample.modalities not in self.trust:
            names = " or from ".join(name_of(modalities) for modalities in self.trust)
            raise ValueError(
                f"{self.name} answers from {names}, not from {name_of(sample.modalities)} alone: give what is missing, "
                "or load another checkpoint"
            )
        unknown = [_symbol(z) for z in sample.element_ids if not self.elements[z]]
        if unknown:
            raise ValueError(
                f"no crystal that {self.name} was trained on contains {' or '.join(unknown)}, so that it knows nothing "
                "of it: give the pattern alone (without the formula), or train with such crystals"
            )

    def _warnings(self, sample, said):
        for z in sample.element_ids:
            if self.elements[z] < RARE:
                yield f"Only {self.elements[z]} of the training crystals contain {_symbol(z)}."
        n_unseen = int(sample.masked.sum())
        if "xrd" in sample.modalities and n_unseen and not self.ensemble.config.partial:
            yield f"{5 * n_unseen} of the 85 degree were not measured, and this model knows whole patterns only."
        trust = self.trust[sample.modalities]
        distance = trust.distance(said)
        if distance[0] > trust.farthest:
            yield (
                f"This sample is unlike the training crystals (farther from them than {ALARM:.0%} of ordinary ones): "
                "the interval and the probabilities may not hold."
            )
        if self.contradiction and len(sample.modalities) == 2:
            batch = batch_of(sample)
            alone = [self.ensemble(only(batch, (modality,))) for modality in sample.modalities]
            (score,) = self.contradiction.score(signs_of_disagreement(*alone, said, distance))
            if score > self.contradiction.threshold:
                yield (
                    f"Composition and pattern seem to contradict each other (only {1 - ALARM:.0%} of right pairs look "
                    "like this): check the formula, the wavelength, and whether the sample is one phase."
                )
        if sample.conditioned is not None and len(sample.element_ids):
            yield from self._wavelength_warning(sample)

    def _wavelength_warning(self, sample):
        """Where a known crystal has the formula: do its lines fit another wavelength better?"""
        rows = np.flatnonzero(self.known.column("formula") == _reduced(sample))
        anodes = set()  # that one phase of this formula fits well, and the wavelength taken does not fit
        for row in rows:
            two_theta, _ = self.known.take("two_theta", [row])
            intensity, _ = self.known.take("intensity", [row])
            lines = Sticks(two_theta.astype(float), intensity.astype(float), np.zeros((len(two_theta), 3), int))
            anode, fits = better_anode(sample.conditioned, lines)
            if fits["taken"] > GOOD_FIT:
                return
            if anode and fits[anode] > GOOD_FIT:
                anodes.add(anode)
        for anode in sorted(anodes):
            yield (
                f"The known lines of {_reduced(sample)} fit the wavelength of {anode} better than the "
                f"{sample.conditioned.wavelength:.4f} angstrom that was taken: check the anode."
            )

    def nearest_known(self, prediction):
        """The known training crystals nearest to a sample in the model's eyes: a table, the nearest first."""
        rows = prediction.nearest
        columns = {"id": self.known.column("id")[rows], "formula": self.known.column("formula")[rows]}
        columns["crystal_system"] = self.known.column("crystal_system")[rows]
        for name in ("e_form", "band_gap"):
            columns[f"{name} ({TARGETS[name].unit})"] = self.known.labels[name][rows]
        return pd.DataFrame(columns).dropna(axis="columns", how="all")


def _symbol(z):
    from pymatgen.core import Element

    return Element.from_Z(int(z)).symbol


def _reduced(sample):
    from xxlib.crystals.compositions import reduced_formula

    return reduced_formula(sample.element_ids, sample.fractions)


def _aligned(formula, pattern):
    """Lists of one length of formulas and patterns, None where there is none."""
    given = [list(value) if isinstance(value, list | tuple | pd.Series) else value for value in (formula, pattern)]
    lengths = {len(value) for value in given if isinstance(value, list)}
    if len(lengths) > 1:
        raise ValueError(f"{len(given[0])} formulas but {len(given[1])} patterns: give one of each for every sample")
    n = lengths.pop()
    return [value if isinstance(value, list) else [value] * n for value in given]


def _unread(formula, pattern):
    """What there is to name of a sample that could not be read."""
    name = Path(pattern).name if isinstance(pattern, str | Path) else "" if pattern is None else "array"
    return Sample(
        formula=str(formula or ""), element_ids=np.zeros(0, np.uint8), fractions=np.zeros(0, np.float32), name=name,
        pattern=np.zeros(patterns.N_POINTS, np.float32), masked=np.ones(patterns.N_TOKENS, bool),
    )  # fmt: skip


def _downloaded(url, sha256):
    """The checkpoint folder in an archive at a URL."""
    if sha256 is None:
        raise CheckpointError(f"{url}: a checkpoint from the web is loaded with its checksum only: give sha256=")
    folder = unpack(fetch(url, sha256=sha256), cache() / "checkpoints" / sha1(url.encode()).hexdigest()[:12])
    found = sorted(folder.rglob("calibration.json"))
    if len(found) != 1:
        raise CheckpointError(f"{url} holds {len(found)} checkpoints (calibration.json), not one")
    return found[0].parent


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m xxlib.predict", description=__doc__.split("\n")[0])
    parser.add_argument("scan", type=Path, nargs="?", help="file of a diffractometer; without it the formula answers")
    parser.add_argument("--formula", help="such as LaMnO3; without it the pattern answers")
    parser.add_argument("--anode", help="Cu, Mo, Co, ... or angstrom, where the file does not state the wavelength")
    parser.add_argument("--number", type=int, help="which scan, from 0, of a file with several")
    parser.add_argument("--model", default=DEFAULT, help=f"name, folder or URL of a checkpoint (default: {DEFAULT})")
    parser.add_argument("--sha256", help="of the checkpoint at a URL")
    parser.add_argument("--json", action="store_true", help="the last line is the answer as one JSON object")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        sample = read_sample(options.formula, options.scan, anode=_anode(options.anode), scan=options.number)
        prediction = Predictor.load(options.model, options.sha256).answer([sample])[0]
    except (CheckpointError, DatasetError, DownloadError, ValueError) as error:
        if options.json:
            print(json.dumps({"refused": str(error)}))
        sys.exit(f"predict: {error}")
    print(prediction)
    if options.json:
        print(json.dumps(prediction.json()))


def _anode(text):
    """An anode's name or a wavelength in angstrom."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


if __name__ == "__main__":
    main()
