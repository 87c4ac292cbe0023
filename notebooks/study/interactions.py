"""Which pairs of elements does a student of formulas use?  Shapley interactions (k-SII, by shapiq) between the elements
of formulas of mp36k's `test`, in what a run says of E_f from the composition alone.

    PYTHONPATH=notebooks .venv/bin/python -m study.interactions [FOLDER ...]

FOLDER: a run that reads the composition, or its name; otherwise those of compared() that are there.  A game's
players are the elements of a formula; what some of them are worth is E_f as the run says of them alone, in eV for an
atom of the whole formula; none is worth 0.  Interactions of at most two elements and the elements' own values add up to
E_f.  Writes interactions.csv: means over formulas by kinds of elements.  Needs the extra `interactions`.
Cost: half a minute a run.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from study import archive, knowledge, plus
from study.archive import RESULTS
from xxlib import PROJECT, plots
from xxlib.answering.inference import Ensemble, model_files
from xxlib.datasets.batches import CPU, chunks, sample_batch
from xxlib.datasets.store import Dataset
from xxlib.datasets.targets import TARGETS
from xxlib.diffraction.patterns import N_POINTS, N_TOKENS
from xxlib.training.machine import commit, hardware
from xxlib.training.runs import RUNS, CheckpointError, results, write_atomically

NAME = "interactions"
TARGET = TARGETS["e_form"]
N = 600  # formulas
MOST = 5  # elements of a formula: 31 parts
BATCH = 512
KINDS = ("alkali, alkaline earth", "rare earth, actinide", "transition metal", "other metal", "metalloid, H, C",
         "pnictogen", "chalcogen", "halogen")  # fmt: skip
VALUE, SIZE = "mean interaction (meV/atom)", "mean size (meV/atom)"


def kind(z):
    """The place in KINDS of an element, by atomic number."""
    from pymatgen.core import Element

    element = Element.from_Z(z)
    belongs = (
        element.is_alkali or element.is_alkaline,
        element.is_rare_earth or element.is_actinoid,
        element.is_transition_metal,
        element.is_post_transition_metal,
        False,
        element.symbol in ("N", "P", "As"),
        element.symbol in ("O", "S", "Se", "Te"),
        element.is_halogen,
    )
    return belongs.index(True) if any(belongs) else KINDS.index("metalloid, H, C")


def coalitions(n):
    """All parts of n players but none: (2**n - 1, n) bool."""
    return np.array(list(itertools.product((False, True), repeat=n)))[1:]


def worth(ensemble, formulas):
    """What each of coalitions() of each formula is worth, eV for an atom of all of it: [(2**E - 1,), ...].

    formulas: [(element_ids (E,), fractions (E,)), ...].
    """
    parts = [(ids[part], shares[part]) for ids, shares in formulas for part in coalitions(len(ids))]
    totals, said = np.array([shares.sum() for _, shares in parts]), []
    for rows in chunks(np.arange(len(parts)), BATCH):
        ids, shares = zip(*[(parts[row][0], (parts[row][1] / totals[row]).astype(np.float32)) for row in rows])
        nothing = np.zeros((len(rows), N_POINTS), np.float32), np.ones((len(rows), N_TOKENS), bool)
        said.append(ensemble(sample_batch(ids, shares, *nothing).only(("composition",))).values[TARGET.name])
    ends = np.cumsum([2 ** len(ids) - 1 for ids, _ in formulas])
    return np.split(totals * np.concatenate(said), ends[:-1])


def shapley(values, n):
    """Of n players whose coalitions() are worth `values`: own values (n,) and interactions of pairs (n, n).

    k-SII of order 2 (Bordt and von Luxburg, AISTATS 2023): they add up to what all are worth, each pair counted once.
    """
    from shapiq.game_theory.exact import ExactComputer

    if n == 1:
        return np.array(values), np.zeros((1, 1))
    of = dict(zip(map(tuple, coalitions(n)), values)) | {(False,) * n: 0.0}
    game = ExactComputer(n_players=n, game=lambda some: np.array([of[tuple(map(bool, one))] for one in some]))
    found = game("k-SII", 2).dict_values
    pairs = np.zeros((n, n))
    for i, j in itertools.combinations(range(n), 2):
        pairs[i, j] = pairs[j, i] = found.get((i, j), 0.0)  # what is 0 is left out
    return np.array([found.get((i,), 0.0) for i in range(n)]), pairs


def measure(ensemble, formulas):
    """A row a pair of elements in each of some formulas: the elements, by number, and their interaction, meV/atom."""
    rows = []
    for (ids, _), values in zip(formulas, worth(ensemble, formulas)):
        _, pairs = shapley(values, len(ids))
        rows += [(ids[i], ids[j], TARGET.error_scale * pairs[i, j])
                 for i, j in itertools.combinations(range(len(ids)), 2)]  # fmt: skip
    return pd.DataFrame(rows, columns=["one", "other", "interaction"])


def by_kind(pairs):
    """Of what measure() returns the mean interaction by kinds of elements, of pairs with at least ten examples."""
    kinds = {z: kind(int(z)) for z in pd.unique(pairs[["one", "other"]].to_numpy().ravel())}
    places = np.sort(pairs[["one", "other"]].map(kinds.get).to_numpy(), axis=1)
    table = pairs.assign(one=places[:, 0], other=places[:, 1], size=pairs["interaction"].abs())
    table = table.groupby(["one", "other"]).agg(
        pairs=("size", "size"), value=("interaction", "mean"), size=("size", "mean")
    )
    table = table[table["pairs"] >= 10].reset_index()
    for name in ("one", "other"):
        table[name] = [KINDS[place] for place in table[name]]
    return table.rename(columns={"value": VALUE, "size": SIZE})


def formulas_of(dataset, n=N):
    """Compositions of crystals of `test`, each formula once, of two to MOST elements."""
    rows = np.random.default_rng(0).permutation(dataset.indices("test"))
    lengths, names = dataset.lengths("element_ids", rows), dataset.column("formula")[rows]
    first = np.isin(np.arange(len(rows)), np.unique(names, return_index=True)[1])
    chosen = rows[first & (lengths >= 2) & (lengths <= MOST)][:n]
    return [tuple(dataset.take(name, [row])[0] for name in ("element_ids", "fractions")) for row in chosen]


def judged(folders):
    """The rows of interactions.csv of some runs."""
    tables = []
    for folder in tqdm(folders, desc="interactions of elements", unit="run"):
        ensemble = Ensemble.load(model_files(folder))
        config = ensemble.config
        if "composition" not in config.model.modalities or TARGET.name not in ensemble.targets:
            raise CheckpointError(f"{folder} does not say {TARGET.name} of a composition: there is nothing to look at")
        pairs = measure(ensemble, formulas_of(Dataset(PROJECT / config.data.dataset, check=False)))
        origin = {"dataset": config.data.dataset, "split": "test", "preset": config.preset, "seed": config.seed}
        tables.append(by_kind(pairs).assign(run=folder.name, **origin))
    return pd.concat(tables).assign(commit=commit(), hardware=hardware(CPU, 1))


def compared():
    """Words for the runs that are compared -> the run: a student from scratch, and taught; one that knows more."""
    found = {start: run for (task, start), run in knowledge.lines().items() if task == "E_f, second seed"}
    more = plus.seeds("composition", TARGET.name)[0]
    return {start: found[start] for start in (knowledge.ALONE, knowledge.TAUGHT)} | {"after OQMD's formulas": more}


def read(place=RESULTS):
    """The rows of each of compared() that is there, by its words."""
    path = place / f"{NAME}.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["run"])
    found = {word: table[table["run"] == run.name] for word, run in compared().items()}
    return {word: rows for word, rows in found.items() if len(rows)}


def figures(configs=None, place=RESULTS):
    """Mean Shapley interactions in E_f between kinds of elements."""
    tables = {word: rows.pivot(index="one", columns="other", values=VALUE) for word, rows in read(place).items()}
    panels = {word: table.reindex(index=KINDS, columns=KINDS) / 1000 for word, table in tables.items()}
    panels = {word: table.round(1) + 0.0 for word, table in panels.items()}  # no -0.0
    return {NAME: plots.pairs(panels, "mean interaction (eV/atom)", archive.label("small"))} if panels else {}


def findings(place=RESULTS):
    """Which kinds of elements bind most in the eyes of each run, and how alike two runs see them."""
    found = read(place)
    if not found:
        return ["Interactions between elements: no run is looked at."]
    said, values = [], {}
    for word, rows in found.items():
        most = rows.sort_values(SIZE, ascending=False).head(3)
        pairs = "; ".join(f"{row['one']} with {row['other']} {row[VALUE]:+.0f}" for _, row in most.iterrows())
        said.append(f"Interactions in E_f that are largest to a student {word} (mean, meV/atom): {pairs}.")
        values[word] = rows.set_index(["one", "other"])[VALUE]
    for (one, first), (other, second) in itertools.combinations(values.items(), 2):
        both = pd.concat([first, second], axis=1, keys=["first", "second"]).dropna()
        off = (both["second"] - both["first"]).abs()
        furthest = both.loc[off.idxmax()]
        said.append(
            f"Over {len(both)} pairs of kinds, interactions of students {one} and {other} correlate by "
            f"{both['first'].corr(both['second']):.3f}; they differ by {off.mean():.0f} meV/atom on average, most for "
            f"{' with '.join(off.idxmax())} ({furthest['first']:+.0f} and {furthest['second']:+.0f})."
        )
    return said


def main():
    parser = argparse.ArgumentParser(prog="python -m study.interactions", description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", metavar="FOLDER")
    options = parser.parse_args()
    folders = [Path(name) if Path(name).is_dir() else RUNS / name for name in options.folders]
    folders = folders or [RUNS / run.name for run in compared().values() if results(RUNS / run.name)]
    if not folders:
        sys.exit(f"none of {', '.join(run.name for run in compared().values())} is finished: train them first")
    try:
        table = judged(folders)
    except (CheckpointError, ModuleNotFoundError) as error:
        missing = ": pip install -e '.[interactions]'" if isinstance(error, ModuleNotFoundError) else ""
        sys.exit(f"{error}{missing}")
    path = RESULTS / f"{NAME}.csv"
    others = pd.read_csv(path).query("run not in @table.run") if path.exists() else None
    text = pd.concat([others, table]).to_csv(index=False, float_format="%.5g")
    write_atomically(path, text.encode())
    print("\n".join(findings()))


if __name__ == "__main__":
    main()
