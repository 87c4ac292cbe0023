"""What a run learns from and is judged on: its crystals, split by split, and the scales they give."""

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from xxlib import PROJECT
from xxlib.crystals.neighbours import RADIUS
from xxlib.datasets import splits
from xxlib.datasets.batches import OF_STRUCTURES, collate_pattern
from xxlib.datasets.store import Dataset, DatasetError, joined
from xxlib.datasets.structures import has_structure, texts
from xxlib.datasets.targets import TARGETS, Normaliser, Target
from xxlib.diffraction.effects import EFFECTS
from xxlib.models.encoders.text import MAX_WORDS
from xxlib.training import parallel

SCALE_CRYSTALS = 4096  # whose patterns give the mean square of a token, and whose texts are counted


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The crystals of a run."""

    dataset: Dataset
    rows: dict[str, np.ndarray]  # of train, val and test; those of train with the crystals of further datasets
    targets: list[Target]
    normalisers: dict[str, Normaliser]  # of the regressions, fitted on train
    token_mean_square: float | None = None  # of masked patterns: mean of the squared intensity (0-100) over train
    taught: Tensor | None = None  # (crystals of the dataset, D) what a teacher has of train and val; NaN: nothing
    cls: Tensor | None = None  # (crystals of the dataset, D) what heads read of those of train, from frozen encoders


def examples_of(config):
    """The Examples of a RunConfig; raises DatasetError where the dataset does not hold them."""
    dataset = Dataset(PROJECT / config.data.dataset, check=parallel.rank() == 0)
    assigned = dataset.column("split")
    if config.data.split == "random":
        assigned = splits.by_random(assigned, config.seed)
    if config.data.left_out:
        assigned = splits.by_family(assigned, members_of(dataset, config.data.left_out))
    rows = {split: dataset.indices(split, assigned) for split in splits.SHUFFLED}
    if min(map(len, rows.values())) == 0:
        counts = {split: len(chosen) for split, chosen in rows.items()}
        raise DatasetError(f"{dataset.folder} needs crystals in train, val and test; for this run it has {counts}")
    n_train = config.data.n_train
    if n_train is not None:
        if n_train > len(rows["train"]):
            raise DatasetError(
                f"{dataset.folder} has {len(rows['train'])} training crystals, n_train asks for {n_train}"
            )
        rows["train"] = splits.beginning(rows["train"], n_train, config.seed)
    main, joins = dataset, []
    for folder in config.data.also:
        other, free = _further(main, assigned, folder, config)
        free &= (other.column("split") == "train") & ~other.column("id").isin(dataset.column("id")[:])
        joins.append(len(dataset) + np.flatnonzero(free))
        dataset = joined(dataset, other)
    rows["train"] = np.concatenate([rows["train"], *joins])
    effects = config.data.effects and EFFECTS[config.data.effects]
    if effects and effects.cell and not dataset.has_hkl:
        raise DatasetError(
            f"{' or '.join((config.data.dataset, *config.data.also))} has no reflections, which effects "
            f"{config.data.effects!r} need to strain cells: prepare it with --hkl"
        )
    targets = [TARGETS[name] for name in config.objectives.targets]
    normalisers = {}
    for target in targets:
        if target.kind == "regression":
            try:
                normalisers[target.name] = Normaliser.fit(dataset.labels[target.name][rows["train"]])
            except ValueError as error:
                raise DatasetError(f"{dataset.folder}, {target.name}: {error}") from error
    if config.data.unlabelled:
        other, free = _further(main, assigned, config.data.unlabelled, config)
        more = len(dataset) + np.flatnonzero(free)
        dataset = joined(dataset, other)
        rows["train"] = more if config.data.unlabelled_alone else np.concatenate([rows["train"], more])
    if OF_STRUCTURES & set(config.model.modalities):
        check_structures(dataset, rows, config.data)
    if "text" in config.model.modalities:
        _count_long_texts(dataset, splits.beginning(rows["train"], SCALE_CRYSTALS, config.seed))
    if "description" in config.model.modalities:
        _count_descriptions(dataset, np.concatenate(list(rows.values())))
    mean_square = None
    if "xrd" in config.objectives.masked:
        seen = splits.beginning(rows["train"], SCALE_CRYSTALS, config.seed)
        seen = seen[dataset.lengths("two_theta", seen) > 0]
        squares = [collate_pattern(dataset, np.array([row]))[0].tokens.square().mean().item() for row in seen]
        mean_square = float(np.mean(squares))
    return Examples(dataset=dataset, rows=rows, targets=targets, normalisers=normalisers, token_mean_square=mean_square)


def check_structures(dataset, rows, data):
    """Raise DatasetError where the dataset of a run has no structures; warn of its crystals that have none to read.

    rows: as Examples has them.  data: the Data of the run.
    """
    if not dataset.has_structure:
        folders = filter(None, (data.dataset, *data.also, data.unlabelled))
        raise DatasetError(
            f"{' or '.join(folders)} has no structures, which this model reads: prepare it with --structure"
        )
    everyone = np.concatenate(list(rows.values()))
    n = len(everyone) - int(has_structure(dataset, everyone).sum())
    if n:
        warnings.warn(
            f"{n} of {len(everyone)} crystals are formulas alone, have sites of several elements or an atom without a "
            f"neighbour within {RADIUS:g} angstrom: no structure is read of them",
            stacklevel=3,
        )


def _count_long_texts(dataset, rows):
    """Warn where the texts of some rows are longer than what is read of them."""
    rows = rows[has_structure(dataset, rows)]
    n = sum(len(words) > MAX_WORDS for words in texts(dataset, rows))
    if n:
        warnings.warn(
            f"{n} of the first {len(rows)} texts are longer than {MAX_WORDS} words: what is beyond is not read",
            stacklevel=3,
        )


def _count_descriptions(dataset, rows):
    """Warn where nothing is written of some rows."""
    n = int((dataset.descriptions[rows] == "").sum())
    if n:
        warnings.warn(f"{n} of {len(rows)} crystals have no description: nothing is read of them", stacklevel=3)


def _further(dataset, assigned, folder, config):
    """A further Dataset, and which of its crystals (n,) may be learned from.

    Crystals whose composition is judged in the first (val, test, experimental) stay out, and with them the family that
    is left out.
    """
    other = Dataset(PROJECT / folder, check=parallel.rank() == 0)
    judged = np.isin(assigned, ("val", "test", "experimental"))
    held = {composition for composition, counts in zip(_compositions(dataset), judged) if counts}
    names = set(dataset.column("formula")[judged])
    free = [
        composition not in held and formula not in names
        for composition, formula in zip(_compositions(other), other.column("formula"))
    ]
    if config.data.left_out:
        free = free & ~members_of(other, config.data.left_out)
    return other, np.asarray(free)


def members_of(dataset, family):
    """Which crystals of a Dataset are of a family, a name of splits.FAMILIES: (n,) bool."""
    return np.array([splits.FAMILIES[family](*composition) for composition in _compositions(dataset)])


def _compositions(dataset):
    """Of every crystal its atomic numbers and their fractions, to four decimals."""
    rows = np.arange(len(dataset))
    ids, offsets = dataset.take("element_ids", rows)
    fractions = dataset.take("fractions", rows)[0].round(4)
    for start, end in itertools.pairwise(offsets):
        yield tuple(ids[start:end].tolist()), tuple(fractions[start:end].tolist())
