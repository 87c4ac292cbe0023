"""A released checkpoint that answers for samples, refuses what it cannot answer, and warns where it may be wrong."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from hashlib import sha1
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xxlib import PACKAGE, PROJECT
from xxlib.answering import questions
from xxlib.answering.answer import SampleAnswer, reason, table_of
from xxlib.answering.cautions import cautions
from xxlib.answering.inference import Ensemble, batch_of, load_guessing, model_files
from xxlib.answering.joint import by_known_crystals, by_lines, by_network, read_joint, systems_of
from xxlib.answering.novelty import nearest
from xxlib.answering.phases import second_phase
from xxlib.answering.phases import warnings as phase_warnings
from xxlib.answering.trust import check_trust, read_trust
from xxlib.candidates.explanation import Explanation, NothingToExplain
from xxlib.candidates.known import DEFAULT as KNOWN
from xxlib.candidates.known import KnownCrystals, find
from xxlib.crystals.elements import atomic_number
from xxlib.datasets.archives import unpack
from xxlib.datasets.downloads import cache, fetch
from xxlib.datasets.store import Dataset
from xxlib.datasets.targets import TARGETS, Target
from xxlib.scans.samples import Sample
from xxlib.training.records import JOINED
from xxlib.training.runs import CheckpointError

log = logging.getLogger(__name__)
CHECKPOINTS = PROJECT / "data" / "checkpoints"
SHIPPED = PACKAGE / "checkpoints"  # those of data/checkpoints, where a wheel was installed
DEFAULT = "mp36k-wide"
N_NEAREST = 5
AT_ONCE = 4  # samples that are worked on, in threads: what takes long is compiled and lets the others run


class Predictor:
    """A released checkpoint that answers for samples."""

    def __init__(self, folder: str | Path):
        """folder: of a checkpoint, as xxlib.release writes it.  Raises CheckpointError where it is damaged."""
        folder = Path(folder)
        if not (folder / "calibration.json").is_file():
            raise CheckpointError(
                f"{folder} is no released checkpoint (no calibration.json). Of a finished run, "
                f"`python -m xxlib.release {folder} data/checkpoints/<name>` makes one"
            )
        self.name, self.folder = folder.name, folder
        self.ensemble = Ensemble.load(model_files(folder))
        guessing = folder / "reconstructing.safetensors"
        self.reconstructing = load_guessing(guessing) if guessing.is_file() else None
        self.trust, self.contradiction, self.elements = read_trust(folder)
        self.training, self.unseen = Dataset(folder / "training"), Dataset(folder / "unseen")  # crystals it carries
        self.joint = read_joint(folder)  # with known crystals
        check_trust(folder, self.trust, self.contradiction, self.ensemble, self.training)
        log.info("loaded %r from %s", self, folder)

    @cached_property
    def known(self) -> KnownCrystals | None:
        """The KnownCrystals that scans are explained by; None where data/libraries has none."""
        return KnownCrystals.load(KNOWN) if find(KNOWN) else None

    def explanation(
        self,
        formula: str | None = None,
        pattern: Any = None,
        *,
        elements: Sequence[str] | None = None,
        anode: str | float | None = None,
        scan: int | None = None,
    ) -> Explanation:
        """The Explanation of one sample by known crystals: candidates, their structures, the lines that remain.

        formula, pattern, anode, scan: as in a call.  elements: symbols of all that may be in the sample, where its
        formula is not known; with neither, all known crystals are tried.
        Raises ValueError where the pattern cannot be read or has too few lines, LibraryError where there is no library.
        """
        known = self.known or KnownCrystals.load(KNOWN)
        numbers = None if elements is None else [atomic_number(symbol) for symbol in elements]
        return known.explain(questions.sample_of(formula, pattern, anode, scan), elements=numbers)

    def candidates(self, formula: str | None = None, pattern: Any = None, **given: Any) -> pd.DataFrame:
        """The known crystals that explain one sample, the likeliest first: a DataFrame; see explanation()."""
        return self.explanation(formula, pattern, **given).table()

    def cells(self, pattern: Any, *, anode: str | float | None = None, scan: int | None = None) -> pd.DataFrame:
        """Cells that explain the lines of a pattern with no crystal known, the likeliest lattice first: a DataFrame.

        pattern, anode, scan: as in a call.  Raises as explanation() does.
        """
        found = (self.known or KnownCrystals.load(KNOWN)).index(questions.sample_of(None, pattern, anode, scan))
        return found.table()

    @classmethod
    def load(cls, source: str | Path = DEFAULT, sha256: str | None = None) -> "Predictor":
        """A checkpoint by its name in data/checkpoints, by its folder, or by the URL of an archive of it.

        sha256: of the archive at a URL, which must be given.  Raises CheckpointError, DatasetError or DownloadError.
        """
        if str(source).startswith(("http://", "https://")):
            return cls(_downloaded(source, sha256))
        folder = next((path for path in (CHECKPOINTS / source, SHIPPED / source, Path(source)) if path.is_dir()), None)
        if folder is None:
            there = ", ".join(sorted(path.name for of in (CHECKPOINTS, SHIPPED) for path in of.glob("*/"))) or "none"
            raise CheckpointError(f"there is no checkpoint {source}: here are {there}; or give a folder or a URL")
        return cls(folder)

    @property
    def targets(self) -> dict[str, Target]:
        """What is answered, by name, with its unit or its classes."""
        return {name: TARGETS[name] for name in self.ensemble.targets}

    def __repr__(self):
        what = ", ".join(f"{name} ({t.unit})" if t.unit else name for name, t in self.targets.items())
        inputs = ", from ".join(map(JOINED.join, self.trust))
        return f"<Predictor {self.name}: {what}; from {inputs}; {sum(self.elements > 0)} elements>"

    def __call__(
        self,
        formula: str | pd.DataFrame | Sequence | None = None,
        pattern: Any = None,
        *,
        anode: str | float | Sequence | None = None,
        scan: int | Sequence | None = None,
    ) -> pd.DataFrame:
        """Answers as a table (answer.table_of), one row a sample.

        formula: "LaMnO3", or None where it is not known.  pattern: a diffractometer file, a Scan, a Conditioned, a
        pair of arrays (two_theta, intensity), a table of two columns (two_theta, q or d, and intensity), an array
        (4250,) on the grid, or None.  Or one table of samples, with any of the columns formula, pattern, anode, scan.
        anode: "Cu", "Mo", ... or angstrom, for files that do not state their wavelength.  scan: which one, from 0, of
        a file with several.
        Each may be a list (or an array, or a column), one entry a sample; what is none holds for all of them.

        What cannot be answered is refused: for one sample with a ValueError that says why and what to do, in a list
        with an empty row whose column `refused` says it.
        """
        if isinstance(formula, pd.DataFrame):
            formula, pattern, anode, scan = questions.columns_of(formula, pattern, anode, scan)
        given = (formula, pattern, anode, scan)
        if not any(questions.several(*given)):
            return table_of(self.answer([questions.sample_of(*given)]))
        return table_of(list(self.answers(questions.aligned(*given))))

    def answers(self, samples: Iterable[tuple]) -> Iterator[SampleAnswer]:
        """The SampleAnswers of samples, each (formula, pattern, anode, scan) as for a call, in their order.

        One without an answer says why.  Several are worked on at a time, one a core.
        """
        _ = self.known  # opened once, before the threads
        pool = ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1))
        try:
            yield from pool.map(lambda sample: self.answer_or_refuse(*sample), samples)
        finally:
            pool.shutdown(cancel_futures=True)

    def answer_or_refuse(
        self,
        formula: str | None = None,
        pattern: Any = None,
        anode: str | float | None = None,
        scan: int | None = None,
    ) -> SampleAnswer:
        """The SampleAnswer of one sample, given as for a call; where there is none, it says why."""
        try:
            return self.answer([questions.sample_of(formula, pattern, anode, scan)])[0]
        except Exception as error:  # whatever it is, it is this sample's alone
            return SampleAnswer(sample=questions.unread(formula, pattern), refused=reason(error))

    def answer(self, samples: Iterable[Sample]) -> list[SampleAnswer]:
        """The SampleAnswers for Samples; raises ValueError for one that the model cannot say anything of."""
        return [self._answer(sample) for sample in samples]

    def _answer(self, sample):
        self._check(sample)
        output = self.ensemble(batch_of(sample))
        trust = self.trust[sample.modalities]
        half = trust.half_widths(output)
        values = {}
        for name, (value,) in output.values.items():
            low = max(value - half[name][0], TARGETS[name].least)
            values[name] = (float(value), float(low), float(value + half[name][0]))
        shares = {name: classes.probabilities(output.logits[name])[0] for name, classes in trust.classes.items()}
        chosen = {name: classes.sets(shares[name][None])[0] for name, classes in trust.classes.items()}
        explanation = self._explained(sample)
        if explanation is not None:
            self._join(explanation, shares, chosen)
        probabilities, sets = {}, {}
        for name, own in shares.items():
            labels, order = TARGETS[name].classes, np.argsort(-own, kind="stable")
            probabilities[name] = {labels[i]: float(own[i]) for i in order}
            sets[name] = tuple(labels[i] for i in order if chosen[name][i])
        _, places = nearest(output.vectors, trust.training_vectors.astype(np.float64), N_NEAREST)
        second, found = (None, 0.0), ()
        if explanation is not None and len(sample.element_ids):
            second = second_phase(self.known, sample, explanation)
            found = phase_warnings(self.known, sample, explanation, second)
        return SampleAnswer(
            sample=sample, values=values, probabilities=probabilities, sets=sets, nearest=places[0],
            explanation=explanation, second=second,
            warnings=(*sample.warnings, *cautions(self, sample, output, explanation), *found),
        )  # fmt: skip

    def _explained(self, sample):
        """The Explanation of a Sample with a pattern; None where there is no library, or nothing to explain."""
        if "xrd" not in sample.modalities or self.known is None:
            return None
        try:
            return self.known.explain(sample)
        except NothingToExplain:
            return None

    def _join(self, explanation, shares, chosen):
        """Put the posterior of the network and of known crystals into its probabilities, and into the sets chosen."""
        joint = self.joint.get(explanation.kind)
        if joint is None or "crystal_system" not in shares:
            return
        network = by_network(*(shares[name][None] for name in ("crystal_system", "space_group") if name in shares))
        groups = joint.space_groups(*by_known_crystals(explanation), np.stack([network, by_lines(explanation)], axis=1))
        for name, own in (("space_group", groups[0]), ("crystal_system", systems_of(groups)[0])):
            if name in shares:
                shares[name], chosen[name] = own, (own >= joint.thresholds[name]) | (own == own.max())

    def _check(self, sample):
        if sample.modalities not in self.trust:
            names = " or from ".join(map(JOINED.join, self.trust))
            raise ValueError(
                f"{self.name} answers from {names}, not from {JOINED.join(sample.modalities)} alone: give what is "
                "missing, or load another checkpoint"
            )
        strange = [symbol for z, symbol in zip(sample.element_ids, sample.elements) if not self.elements[z]]
        if strange:
            raise ValueError(
                f"no crystal that {self.name} was trained on contains {' or '.join(strange)}, so that it knows nothing "
                "of it: give the pattern alone (without the formula), or train with such crystals"
            )

    def neighbours(self, answer: SampleAnswer) -> pd.DataFrame:
        """The training crystals nearest to a sample in the model's eyes: a table, the nearest first."""
        names = ("id", "formula", "crystal_system")
        columns = {name: self.training.column(name)[answer.nearest] for name in names}
        for name in ("e_form", "band_gap"):
            columns[name] = self.training.labels[name][answer.nearest]
        table = pd.DataFrame(columns).dropna(axis="columns", how="all")
        table.attrs["units"] = {name: TARGETS[name].unit for name in ("e_form", "band_gap") if name in table}
        return table


def _downloaded(url, sha256):
    """The checkpoint folder in an archive at a URL."""
    if sha256 is None:
        raise CheckpointError(f"{url}: a checkpoint from the web is loaded with its checksum only: give sha256=")
    folder = unpack(fetch(url, sha256=sha256), cache() / "checkpoints" / sha1(url.encode()).hexdigest()[:12])
    folders = [path.parent for path in sorted(folder.rglob("calibration.json"))]
    if len(folders) != 1:
        raise CheckpointError(f"{url} holds {len(folders)} checkpoints (calibration.json), not one")
    return folders[0]
