"""Crystals of a dataset, and measured patterns, put to the known crystals: what they say of each.

Settings, always told apart.  In the library: the crystal itself is known.  Formula held out: no crystal with the
sample's formula, nor with any other of val, test and experimental, is.  Elements held out: no crystal of just the
sample's elements, either.
"""

import itertools
import pickle
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pandas as pd
from tqdm import tqdm

from study.measured import scan_of
from xxlib import PROJECT
from xxlib.candidates.cells import LATTICES
from xxlib.candidates.explanation import NothingToExplain
from xxlib.candidates.known import KnownCrystals
from xxlib.candidates.library import formula_key, stoichiometry
from xxlib.candidates.observed import Observed
from xxlib.candidates.stoichiometries import whole_amounts
from xxlib.datasets.batches import make_batch
from xxlib.datasets.store import Dataset
from xxlib.diffraction.effects import EFFECTS, draw
from xxlib.diffraction.patterns import TWO_THETA
from xxlib.diffraction.simulation import expansion
from xxlib.diffraction.wavelengths import ANODES
from xxlib.scans.samples import read_sample
from xxlib.scans.scan import Scan, ScanError

DATASET = "data/mp36k"
HELD_OUT = ("val", "test", "experimental")
MOST_ATOMS = 1000  # of a formula unit, more than a crystal of the dataset has
CHUNK = 20  # questions that are kept at once
COUNTS = 1000  # a unit of a simulated intensity, 0-100
OTHERS = tuple(name for name in ANODES if name != "Cu")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Questions of one kind."""

    given: str = "formula"  # or "elements", "nothing", "another formula": that of another sample, "another anode"
    setting: str = "formula held out"  # or "in the library", "elements held out"
    effects: str | None = None  # None: ideal patterns
    n: int = 300  # crystals, drawn at random

    @property
    def name(self):
        return "-".join((self.given, self.setting, self.effects or "ideal")).replace(" ", "_")


# ---------------------------------------------------------------- asking for simulated patterns


@cache
def all_known():
    """The released KnownCrystals."""
    known = KnownCrystals.load()
    return KnownCrystals(known.library, known.rankings)  # the lines alone are asked by lattices.py


@cache
def dataset():
    """The Dataset of the crystals that are asked for."""
    return Dataset(PROJECT / DATASET)


@cache
def _held_out():
    """(n,) bool, crystals of the library with a formula that is held out."""
    crystals, library = dataset(), all_known().library
    rows = np.concatenate([crystals.indices(split) for split in HELD_OUT])
    keys = {formula_key(*stoichiometry_of(*composition_of(crystals, row))) for row in rows}
    return np.isin(library.formula_keys, np.array(list(keys), np.uint64))


def composition_of(dataset, row):
    """(element_ids, fractions) of a crystal of a Dataset."""
    return tuple(dataset.take(name, [row])[0] for name in ("element_ids", "fractions"))


def stoichiometry_of(element_ids, fractions):
    """Least whole amounts and elements of the composition of a crystal, as Library has them."""
    totals = np.arange(1, MOST_ATOMS + 1)
    off = np.abs(totals[:, None] * fractions - np.round(totals[:, None] * fractions)).max(1)
    return stoichiometry(element_ids, fractions * totals[np.argmax(off < 1e-3)])


def hidden(dataset, row, setting):
    """(n,) bool, crystals of the library that are not seen for a crystal of a dataset; None: all are."""
    if setting == "in the library":
        return None
    if setting == "formula held out":
        return _held_out()
    library, (elements, _) = all_known().library, composition_of(dataset, row)
    among = library.within(elements)
    same = np.zeros(len(library), bool)
    same[among] = (library.elements_of(among) > 0).sum(1) == len(elements)
    return _held_out() | same


def drawn_for(row, effects):
    """What is Drawn for a crystal under effects, by name; None: nothing, its pattern is ideal."""
    return None if effects is None else draw(EFFECTS[effects], 1, [0, row])


def observed(dataset, row, effects, anode=None):
    """The Observed of a crystal of a dataset under effects, by name; how its volume was changed, logarithm.

    anode: what the scan is said to be of, though it is of Cu; None where too little of it is left then.
    """
    drawn = drawn_for(row, effects)
    pattern = make_batch(dataset, np.array([row]), ("xrd",), drawn=drawn).inputs["xrd"].tokens[0].flatten().numpy()
    measured, expanded = np.ones(len(TWO_THETA), bool), 0.0
    if drawn is not None:
        start, end = (drawn.values[name][0] for name in ("start", "end"))
        within = (start <= TWO_THETA) & (end >= TWO_THETA) | (drawn.values["cut"][0] == 0)
        if not pattern[~within].any():  # otherwise nothing was to be seen in the range drawn
            measured = within
        expanded = float(expansion(drawn, dataset.take("lattice", [row])[0].reshape(-1, 6))[0])
    return Observed.of(pattern, measured) if anode is None else _as_of(anode, pattern, measured), expanded


def _as_of(anode, pattern, measured):
    scan = Scan(two_theta=TWO_THETA[measured], intensity=COUNTS * pattern[measured])
    try:
        return Observed.of_sample(read_sample(None, scan, anode=anode))
    except ScanError:
        return None


def ask(asked, row, other):
    """The answer for a crystal of the dataset, as a dict, and its evidence; other: another crystal.

    Evidence: features of the candidates, of "none of these", as ranking.features has them, and their space groups.
    """
    crystals, known, given = dataset(), all_known(), {}
    anode = OTHERS[row % len(OTHERS)] if asked.given == "another anode" else None
    seen, expanded = observed(crystals, row, asked.effects, anode)
    if asked.given in ("formula", "another formula", "another anode"):
        given["composition"] = composition_of(crystals, other if asked.given == "another formula" else row)
    elif asked.given == "elements":
        given["elements"] = composition_of(crystals, row)[0].tolist()
    explanation, seconds = explained(known, seen, hidden(crystals, row, asked.setting), **given)
    true, log_volume = int(crystals.labels["space_group"][row]) + 1, crystals.labels["log_volume"][row] + expanded
    answer = {"row": row, "id": crystals.column("id")[row], "space_group": true, "seconds": seconds}
    answer |= said(explanation, crystals.column("formula")[row], np.exp(log_volume))
    if explanation is None:
        return answer, None
    return answer, (*explanation.evidence, explanation.matches.space_groups)


def explanation_of(row, setting, effects=None):
    """As explained(), for a crystal of the dataset by its formula and pattern."""
    crystals = dataset()
    seen, _ = observed(crystals, row, effects)
    return explained(all_known(), seen, hidden(crystals, row, setting), composition_of(crystals, row))


def explained(known, seen, mask, composition=None, elements=None):
    """The Explanation of an Observed, None where nothing can be told, and the seconds of CPU it took."""
    start = time.process_time()
    try:
        explanation = known.explain_observed(seen, composition, elements, mask) if seen is not None else None
    except NothingToExplain:
        explanation = None
    return explanation, time.process_time() - start


def said(explanation, formula="", volume=np.nan):
    """What an Explanation says: probability of none; space groups and theirs; of the first candidate its id, whether it
    is a known crystal of the formula as it is, its score, and how far its volume is from the true one (%)."""
    if explanation is None or not len(explanation):
        return {"none": 1.0, "groups": [], "shares": [], "first": "", "same_formula": False, "score": 0.0,
                "volume_off": np.nan}  # fmt: skip
    groups = explanation.space_groups()
    order = sorted(groups, key=groups.get, reverse=True)
    first, matches, library = explanation.order[0], explanation.matches, explanation.library
    crystal = matches.crystals[first]
    return {
        "none": explanation.none, "groups": order, "shares": [groups[number] for number in order],
        "first": library.ids[int(crystal)].as_py(), "score": float(matches.scores[first]),
        "same_formula": bool(matches.costs[first] == 0 and library.formula(crystal) == formula),
        "volume_off": float(100 * (matches.volumes[first] / volume - 1)),
    }  # fmt: skip


def answers(asked, split, folder, workers=1):
    """(Answers, a DataFrame, and evidence, a list) of one kind of question; kept in a folder as they come."""
    rows = np.random.default_rng(0).permutation(dataset().indices(split))[: asked.n + 1].tolist()
    pairs = list(itertools.pairwise(rows))
    found = kept(f"{split}-{asked.name}", partial(_chunk, asked), pairs, folder, workers)
    return pd.DataFrame([answer for answer, _ in found]), [evidence for _, evidence in found]


def kept(name, work, questions, folder, workers=1):
    """What work() makes of questions, CHUNK of them at a time: a list; kept in a folder as it comes."""
    paths = {start: folder / f"{name}-{start:05d}.pkl" for start in range(0, len(questions), CHUNK)}
    missing = [start for start, path in paths.items() if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(work, questions[start : start + CHUNK]) for start in missing]
        for job, start in zip(tqdm(jobs, desc=name, unit=f"{CHUNK} questions"), missing):
            part = paths[start].with_suffix(".part")
            part.write_bytes(pickle.dumps(job.result()))
            part.rename(paths[start])
    return [one for path in paths.values() for one in pickle.loads(path.read_bytes())]


def _chunk(asked, pairs):
    return [ask(asked, row, other) for row, other in pairs]


# ---------------------------------------------------------------- asking for measured patterns


def of_formula(library, sample):
    """(n,) bool, crystals of a Library that have the formula of a Sample, or one that its decimals may stand for."""
    wholes = whole_amounts(sample.element_ids, sample.fractions)
    return np.isin(library.formula_keys, np.array([formula_key(*one[:2]) for one in wholes], np.uint64))


def answers_measured(path, known, given, setting, minerals=None):
    """Answers for the measured patterns of a file, a DataFrame, with the Sample as it was read (None: it was refused).

    setting: "nothing hidden"; or "formula held out", where no crystal of the sample's formula is seen, of those whose
    formula is known.  in_library: the library has the sample's crystal, by mp_id.  published: the volume of an atom
    (cubic angstrom) in those of a Library of minerals, as measured, that have its formula and space group, the median.
    lattices: probabilities (14,) by the lines alone; ones where they have no cell.
    """
    rows, ids = [], set(known.library.ids.to_pylist())
    for row in tqdm(pd.read_parquet(path).to_dict("records"), desc=f"{path.stem}, {given}, {setting}", unit="scan"):
        formula = row.get("reduced_formula")
        if formula is None and (given == "formula" or setting == "formula held out"):
            continue
        answer, mask = {"id": row["sample"], "space_group": row["space_group"], "seconds": 0.0, "sample": None}, None
        answer["lattices"] = np.ones(len(LATTICES))
        answer["in_library"], answer["published"] = row.get("mp_id") in ids, np.nan
        try:
            sample = answer["sample"] = read_sample(formula, scan_of(row))
        except ValueError:  # nothing is said of it
            rows.append(answer | said(None))
            continue
        if setting == "formula held out":
            mask = of_formula(known.library, sample)
        if minerals is not None and formula is not None:
            alike = of_formula(minerals, sample)
            alike &= minerals.space_groups == row["space_group"]
            if alike.any():
                answer["published"] = float(np.median((minerals.volumes / minerals.n_atoms)[alike]))
        composition = (sample.element_ids, sample.fractions) if given == "formula" else None
        explanation, answer["seconds"] = explained(known, Observed.of_sample(sample), mask, composition)
        if explanation is not None and explanation.indexed is not None:
            answer["lattices"] = explanation.indexed.probabilities
        rows.append(answer | said(explanation, formula, answer["published"]))
    return pd.DataFrame(rows)
