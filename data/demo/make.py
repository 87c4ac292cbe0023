"""The demonstration dataset: crystals generated from prototypes, with CHGNet labels, not DFT.

    python data/demo/make.py generate   # candidates, from the seed; needs no CHGNet
    python data/demo/make.py label      # their energies and the elements'; needs data/demo/requirements.txt
    python data/demo/make.py write      # crystals.parquet, references.json and the dataset; where label ran

Nothing is relaxed, and every energy is CHGNet's for the cell as it is.  e_form is the energy per atom minus the mean of
the energies of the elements; that of an element is the lowest CHGNet gives for the AFLOW prototypes of one element
with up to 4 atoms, over a range of volumes, and for the molecule where there is one.  This is approximate: metals whose
ground state is larger (Mn) or magnetic, and solids held together by weak forces, have references somewhat too high.
"""

import argparse
import json
from collections import Counter
from importlib.metadata import version
from itertools import chain, product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from xxlib.crystals import prototypes, substitutions
from xxlib.crystals.compositions import composition_of_crystal, reduced_formula
from xxlib.crystals.crystal import Crystal, crystal_system, space_group
from xxlib.crystals.elements import symbol
from xxlib.datasets.preparing.rows import Work
from xxlib.datasets.sources import Source, refused
from xxlib.datasets.sources.generated import generated
from xxlib.datasets.sources.parquet import parquet
from xxlib.prepare import prepare

SEED = 0
N_CRYSTALS = 4200  # candidates; the window of e_form takes some
MOST_OF_A_SYSTEM = 720
MOST_OF_FEW_ELEMENTS = 1900  # crystals of one or two elements
WINDOW = (-5.0, 2.5)  # eV/atom; what lies outside is left out
LABELS = "CHGNet labels, not DFT"

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "demo"
CANDIDATES = BUILD / "candidates.parquet"
CANDIDATE_ENERGIES, ELEMENT_ENERGIES = BUILD / "candidates.jsonl", BUILD / "elements.jsonl"

BOND_LENGTH = {1: 0.74, 7: 1.10, 8: 1.21, 9: 1.41, 17: 1.99, 35: 2.28, 53: 2.67}  # of the diatomic elements, angstrom
BOX = 10.0  # angstrom, cell of a molecule: more than CHGNet's cutoff away from its images
STRETCHES = (0.95, 1.0, 1.05, 1.1, 1.15, 1.2)  # of the cell lengths at the DLS volume; DLS elements are dense
MOST_REFERENCE_ATOMS = 4


def balanced(records, n):
    """The first n crystals that leave no crystal system and no number of elements in excess."""
    systems, few_elements = Counter(), 0
    for record in records:
        crystal = record.crystal()
        few = len(np.unique(crystal.atomic_numbers)) <= 2
        system = crystal_system(space_group(crystal))
        if systems[system] == MOST_OF_A_SYSTEM or (few and few_elements == MOST_OF_FEW_ELEMENTS):
            continue
        systems[system] += 1
        few_elements += few
        yield record
        if systems.total() == n:
            return


def crystal_table(records):
    """Columns of sources.parquet, one crystal a row."""
    rows = []
    for record in records:
        crystal = record.crystal()
        cell = dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), prototypes.rounded_cell(crystal.lattice).tolist()))
        rows.append(
            {"id": record.id, "reduced_formula": reduced_formula(*composition_of_crystal(crystal))}
            | cell
            | {"atomic_numbers": crystal.atomic_numbers.astype(np.uint8), "frac_coords": crystal.frac_coords.ravel()}
        )
    return pa.Table.from_pylist(rows)


def generate():
    """Candidates, balanced over crystal systems and numbers of elements."""
    BUILD.mkdir(parents=True, exist_ok=True)
    CANDIDATE_ENERGIES.unlink(missing_ok=True)  # of other candidates
    source, work = generated(N_CRYSTALS, SEED), Work()
    distinct = source.distinct()
    records = (record for record in source.records() if len(work([record]).without_repeats(distinct).batch))
    chosen = tqdm(balanced(records, N_CRYSTALS), total=N_CRYSTALS, unit="crystal", desc="generate")
    pq.write_table(crystal_table(chosen), CANDIDATES)


def elemental_crystals():
    """Candidates for the ground state of every element: Crystal objects whose id is "Z structure stretch"."""
    # Numbered, because several prototypes share an AFLOW label: alpha As, beta O2 and graphite are all A_hR2_166_c.
    types = [
        (f"{p.name}#{number}", p)
        for number, p in enumerate(prototypes.prototypes())
        if len(p.elements) == 1 and len(p.frac) <= MOST_REFERENCE_ATOMS
    ]
    for z in substitutions.ELEMENTS:
        cells = []
        for name, p in types:
            numbers = np.full(len(p.frac), z)
            cells.append((name, p.lattice * prototypes.dls_scale(p.lattice, p.frac, numbers), numbers, p.frac))
        for (name, lattice, numbers, frac), stretch in product(cells, STRETCHES):
            crystal = Crystal(f"{z} {name} {stretch}", lattice * stretch, numbers, frac, np.ones(len(numbers)))
            if crystal.volume >= prototypes.MIN_VOLUME_PER_ATOM * len(numbers):
                yield crystal
        if z in BOND_LENGTH:
            for stretch in STRETCHES:
                frac = np.array([[0, 0, 0], [0, 0, BOND_LENGTH[z] * stretch / BOX]])
                yield Crystal(f"{z} molecule {stretch}", BOX * np.eye(3), np.array([z, z]), frac, np.ones(2))


def label():
    """Static CHGNet energies (eV/atom) of elements and candidates, one JSON line each; goes on where it stopped."""
    import torch
    from chgnet.model import CHGNet

    torch.set_num_threads(1)
    model = CHGNet.load(use_device="cpu", verbose=False)
    candidates = (record.crystal() for record in parquet(CANDIDATES).records())
    for path, crystals in ((ELEMENT_ENERGIES, elemental_crystals()), (CANDIDATE_ENERGIES, candidates)):
        done = energies(path) if path.exists() else {}
        todo = [crystal for crystal in crystals if crystal.id not in done]
        with open(path, "a") as file:
            for crystal in tqdm(todo, unit="crystal", desc=path.stem):
                print(json.dumps([crystal.id, energy(model, crystal)]), file=file, flush=True)


def energy(model, crystal):
    """CHGNet's energy (eV/atom) of a crystal as it is; None where it has none."""
    from pymatgen.core import Structure

    structure = Structure(crystal.lattice, crystal.atomic_numbers, crystal.frac_coords)
    try:
        return float(model.predict_structure(structure, task="e")["e"])
    except ValueError:  # an atom without neighbours within the cutoff
        return None


def energies(path):
    """Energies (eV/atom) by crystal id; None where CHGNet has none."""
    return dict(json.loads(line) for line in path.read_text().splitlines())


def references(energies):
    """Of each element the lowest energy (eV/atom) of its structures, and which it is: symbol -> a dict."""
    lowest = {}
    for crystal in elemental_crystals():
        z, structure, stretch = crystal.id.split()
        value, name = energies[crystal.id], symbol(int(z))
        if value is not None and (name not in lowest or value < lowest[name]["energy"]):
            lowest[name] = {"energy": value, "structure": structure, "stretch": float(stretch)}
    return lowest


def formation_energy(energy, atomic_numbers, elements):
    """Energy (eV/atom) of a crystal relative to its elements (references.json's "elements"); None where it has none."""
    if energy is None:
        return None
    return energy - float(np.mean([elements[symbol(z)]["energy"] for z in atomic_numbers]))


def write():
    """crystals.parquet, references.json and the dataset."""
    elements, by_id = references(energies(ELEMENT_ENERGIES)), energies(CANDIDATE_ENERGIES)
    about = {"labels": LABELS, "energy": "eV/atom, the lowest over structures and stretches of the cell"}
    (HERE / "references.json").write_text(json.dumps(about | {"elements": elements}, indent=1) + "\n")

    table = pq.read_table(CANDIDATES)
    ids, numbers = table["id"].to_pylist(), table["atomic_numbers"].to_pylist()
    e_form = [formation_energy(by_id[id], z, elements) for id, z in zip(ids, numbers)]
    kept = [value is not None and WINDOW[0] <= value <= WINDOW[1] for value in e_form]
    reasons = ["CHGNet: no energy" if v is None else f"CHGNet e_form {v:.3f} eV/atom, outside {WINDOW}" for v in e_form]
    left_out = [refused(id, f"prototypes, seed {SEED}", why) for id, why, keep in zip(ids, reasons, kept) if not keep]

    path = HERE / "crystals.parquet"
    table = table.append_column("e_form", pa.array(e_form, pa.float64()).cast(pa.float32())).filter(pa.array(kept))
    table = table.replace_schema_metadata({"labels": LABELS, "units": "angstrom, degree, eV/atom"})
    pq.write_table(table, path, compression="zstd", compression_level=19)

    for old in (HERE / "dataset.json", *HERE.glob("shard-*.arrow")):
        old.unlink(missing_ok=True)
    source = {
        "kind": "generated",
        "labels": LABELS,
        "e_form": "eV/atom, CHGNet's energy of the crystal as it is minus those of its elements (references.json)",
        "e_form_window": WINDOW,
        "left_out": len(left_out),
        "generator": "xxlib.crystals.prototypes.generated(seed, i) is the crystal gen-<seed>-<i>",
        "seed": SEED,
        "versions": {name: version(name) for name in ("chgnet", "pymatgen", "spglib", "numpy")},
    }
    prepare(Source(source, lambda: chain(parquet(path).records(), left_out), len(ids)), HERE, seed=SEED)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=("generate", "label", "write"))
    {"generate": generate, "label": label, "write": write}[parser.parse_args().step]()
