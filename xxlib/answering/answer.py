"""What is said of one sample, and how sure it is: as a row of a table, as JSON, as lines to read."""

import re
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from xxlib.answering.calibration import LEVEL
from xxlib.answering.phases import UNEXPLAINED
from xxlib.candidates.explanation import Explanation
from xxlib.datasets.downloads import DownloadError
from xxlib.datasets.store import DatasetError
from xxlib.datasets.targets import TARGETS
from xxlib.scans.samples import Sample
from xxlib.training.records import JOINED
from xxlib.training.runs import CheckpointError

GIVEN = {"composition": "the formula", "xrd": "the pattern"}  # a modality, as a sentence calls it
FIRST = 3  # known crystals that an answer names
MOST_COLUMNS = 10  # classes of a target, up to which each has a column
MOST_NAMED = 5  # classes of a set that lines name
SHOWN = (
    "probability", "known_formula", "id", "exchange", "space_group", "crystal_system", "a", "b", "c", "alpha", "beta",
    "gamma", "score",
)  # fmt: skip
# What the checks of this project raise, and what the system says of files: their messages are reasons already.
REASONS = (CheckpointError, DatasetError, DownloadError, ValueError, OSError)


def reason(error: BaseException) -> str:
    """Why something was refused, in one line: what the check says that refused it, or what kind of fault it was."""
    message = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"this takes more memory than there is ({message or 'MemoryError'}): give less at once"
    if message and isinstance(error, REASONS):
        return message
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    kind = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return f"no check foresaw what happened here ({kind}{place}): please report it, with the file or formula"


def in_terms_of(sentence: str, options: dict[str, str]) -> str:
    """A sentence that advises arguments of Python (scan=), where these are called otherwise: {"scan": "--number"}."""
    for argument, option in options.items():
        sentence = re.sub(rf"\b{argument}=(?=\w)", f"{option} ", sentence)
        sentence = re.sub(rf"\b{argument}=", option, sentence)
    return sentence


@dataclass(frozen=True, eq=False, kw_only=True)
class SampleAnswer:
    """The answer for one sample, or why there is none."""

    sample: Sample
    values: dict[str, tuple[float, float, float]] = field(default_factory=dict)  # value, low, high in the unit
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)  # class -> probability, highest first
    sets: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of classes, with the truth at LEVEL
    nearest: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # rows of the predictor's training crystals
    explanation: Explanation | None = None  # by known crystals
    second: tuple[Explanation | None, float] = (None, 0.0)  # of the lines that remain; its share of the intensity
    warnings: tuple[str, ...] = ()  # plain sentences
    refused: str = ""  # why there is no answer

    @property
    def title(self) -> str:
        """The sample by its formula and its pattern."""
        return " and ".join(filter(None, (self.sample.formula, self.sample.name)))

    def row(self) -> dict:
        """A row of the table: its columns in snake_case; their units are with the table (table_of)."""
        row = {
            "formula": self.sample.formula,
            "pattern": self.sample.name,
            "answered_from": JOINED.join(self.sample.modalities),
        }
        for name, (value, low, high) in self.values.items():
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        for name, probabilities in self.probabilities.items():
            first, probability = next(iter(probabilities.items()))
            row |= {name: first, f"{name}_probability": probability, f"{name}_set": " or ".join(self.sets[name])}
            if len(probabilities) <= MOST_COLUMNS:
                row |= {f"p_{label}": probabilities[label] for label in TARGETS[name].classes}
        if self.explanation is not None:
            first = next(iter(self.candidates()), {})
            row |= {"known_crystal": first.get("id"), "known_crystal_probability": first.get("probability", 0.0)}
            row |= {"no_known_crystal_probability": self.explanation.none}
        return row | {"warnings": list(self.warnings), "refused": self.refused}

    @property
    def known_crystal(self) -> dict | None:
        """The first of candidates(), where known crystals explain the scan; None where none does or none was asked."""
        explained = self.explanation is not None and self.explanation.none < UNEXPLAINED
        return next(iter(self.candidates(1)), None) if explained else None

    def candidates(self, most: int = FIRST) -> list[dict]:
        """The first known crystals that explain the sample, as dicts of id, formula, exchange, cell, probability."""
        if self.explanation is None or not len(self.explanation):
            return []
        return self.explanation.table().head(most)[list(SHOWN)].to_dict("records")

    def json(self) -> dict:
        """Numbers, intervals, probabilities, units, warnings, or the refusal, as one flat dict that JSON can hold."""
        out = {"formula": self.sample.formula or None, "pattern": self.sample.name or None}
        out |= {"answered_from": list(self.sample.modalities), "level": LEVEL}
        for name, (value, low, high) in self.values.items():
            out |= {name: value, f"{name}_interval": [low, high]}
        for name, probabilities in self.probabilities.items():
            out |= {name: next(iter(probabilities)), f"{name}_probabilities": probabilities}
            out |= {f"{name}_set": list(self.sets[name])}
        if self.refused:
            return out | {"refused": self.refused}
        if self.explanation is not None:
            out |= {"candidates": self.candidates(), "none_of_these": self.explanation.none}
            if self.explanation.indexed is not None:
                out["cells"] = self.explanation.indexed.table().head(FIRST).to_dict("records")
        return out | {"units": {name: TARGETS[name].unit for name in self.values}, "warnings": list(self.warnings)}

    def line(self) -> str:
        """All that is most likely, in one line."""
        said = [
            f"{TARGETS[name].title} {value:.3f} {TARGETS[name].unit}" for name, (value, _, _) in self.values.items()
        ]
        for probabilities in self.probabilities.values():
            first, probability = next(iter(probabilities.items()))
            said.append(f"{first} ({probability:.0%})")
        return f"{self.title}: {', '.join(said)}" + (f"  ! {len(self.warnings)} warnings" if self.warnings else "")

    def __str__(self):
        """A few readable lines."""
        lines = [f"{self.title}, answered from {' and '.join(GIVEN[m] for m in self.sample.modalities)}"]
        for name, (value, low, high) in self.values.items():
            target = TARGETS[name]
            interval = f"({LEVEL:.0%}: {low:.3f} to {high:.3f} {target.unit})"
            lines.append(f"  {target.title:17} {value:7.3f} {target.unit} {interval}")
        for name, probabilities in self.probabilities.items():
            first, probability = next(iter(probabilities.items()))
            others = " or ".join(self.sets[name][:MOST_NAMED])
            if len(self.sets[name]) > MOST_NAMED:
                others += f" or {len(self.sets[name]) - MOST_NAMED} others"
            lines.append(f"  {TARGETS[name].title:17} {first}, {probability:.0%} ({LEVEL:.0%}: {others})")
        for k, one in enumerate(self.candidates()):
            cell = " ".join(f"{one[name]:.4g}" for name in "abc")
            exchange = f" with {one['exchange']}" if one["exchange"] else ""
            name = f"{one['known_formula']} ({one['id']}){exchange}"
            title = "known crystals" if k == 0 else ""
            lines.append(f"  {title:17} {one['probability']:4.0%}  {name}, space group {one['space_group']}, {cell} A")
        if self.explanation is not None:
            lines.append(f"  {'':17} {self.explanation.none:4.0%}  none of these")
            if self.explanation.indexed is not None:
                cell = self.explanation.indexed.table().iloc[0]
                edges = " ".join(f"{cell[name]:.4g}" for name in "abc")
                share, lattice = cell["probability"], cell["lattice"]
                lines.append(f"  {'by lines alone':17} {share:4.0%}  lattice {lattice}, {edges} A")
        return "\n".join([*lines, *(f"  ! {warning}" for warning in self.warnings)])


def table_of(answers: list[SampleAnswer]) -> pd.DataFrame:
    """Answers as a table, one row a sample, warnings and refusals last.

    A value's interval (_low, _high) and a set of classes hold the truth with the probability attrs["level"];
    attrs["units"]: column -> unit.
    """
    table = pd.DataFrame([answer.row() for answer in answers])
    last = ["warnings", "refused"]
    table = table[[*(name for name in table if name not in last), *last]]
    targets = dict.fromkeys(name for answer in answers for name in answer.values)
    units = {name + end: TARGETS[name].unit for name in targets for end in ("", "_low", "_high")}
    table.attrs = {"level": LEVEL, "units": units}
    return table
