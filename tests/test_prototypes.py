"""Generated crystals, and the demonstration dataset made of them."""

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from xxlib.crystals import prototypes, substitutions
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS, Crystal, RejectedCrystal, check, crystal_system, space_group
from xxlib.datasets.preparing.rows import Work
from xxlib.datasets.sources.generated import COARSE_SIGMA, COARSE_STEP, SAME_PATTERN, generated
from xxlib.datasets.sources.parquet import parquet
from xxlib.datasets.store import Dataset
from xxlib.diffraction import patterns
from xxlib.diffraction.scattering import sticks

DEMO = Path(__file__).parents[1] / "data" / "demo"


def same(crystal, other):
    """Equal in id, cell, elements and places, bit for bit."""
    return (
        crystal.id == other.id
        and np.array_equal(crystal.lattice, other.lattice)
        and np.array_equal(crystal.atomic_numbers, other.atomic_numbers)
        and np.array_equal(crystal.frac_coords, other.frac_coords)
    )


# The generator


def test_crystal_depends_on_seed_and_number_alone():
    in_a_row = list(islice(prototypes.generate(5), 12))
    assert all(same(crystal, prototypes.generated(5, i)) for i, crystal in reversed(list(enumerate(in_a_row))))
    assert all(same(crystal, other) for crystal, other in zip(in_a_row[7:], prototypes.generate(5, start=7)))
    cells = [crystal.lattice.tobytes() for crystal in (*in_a_row, prototypes.generated(6, 0))]
    assert len(set(cells)) == len(cells)


def test_order_of_sets_does_not_matter():
    """The table of ions comes from a Python set, whose order changes from process to process."""
    code = (
        "from xxlib.crystals.prototypes import generated;"
        "print(*[generated(1, i).lattice.tobytes().hex() for i in range(9)])"
    )
    command, environment = [sys.executable, "-c", code], os.environ | {"PYTHONHASHSEED": "1"}
    elsewhere = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout.strip()
    assert elsewhere.split() == [prototypes.generated(1, i).lattice.tobytes().hex() for i in range(9)]


def test_generated_crystals_are_crystals():
    for crystal in islice(prototypes.generate(11), 50):
        check(crystal)
        assert set(crystal.atomic_numbers) <= set(substitutions.ELEMENTS)
        assert len(crystal.atomic_numbers) <= prototypes.MAX_CELL_ATOMS
        assert np.array_equal(crystal.frac_coords, crystal.frac_coords.round(6))
        assert (crystal.occupancies == 1).all()


def test_volume_is_that_of_pymatgen():
    from pymatgen.core import Structure
    from pymatgen.core.structure_prediction.volume_predictor import DLSVolumePredictor

    predictor = DLSVolumePredictor(min_scaling=None, max_scaling=None)
    for crystal in islice(prototypes.generate(3), 25):
        structure = Structure(crystal.lattice, crystal.atomic_numbers, crystal.frac_coords)
        assert predictor.predict(structure) == pytest.approx(crystal.volume, rel=2e-4)  # the rounding of the cell


def test_ionic_decorations_are_neutral():
    ionic = [p for p in prototypes.prototypes() if p.ions]
    charges, rng, changed = substitutions.ions()[1], np.random.default_rng(0), 0
    assert len(ionic) > 50
    for p in ionic:
        amounts = np.bincount(p.kinds)
        assert amounts @ charges[list(p.ions)] == 0
        try:
            ions = substitutions.new_ions(rng, p.ions, amounts)
        except RejectedCrystal:
            continue
        assert amounts @ charges[ions] == 0
        changed += tuple(ions) != p.ions
    assert changed > 20


def test_similar_elements_replace_each_other():
    likeness = substitutions.likeness()
    zirconium, hafnium, oxygen, radon = 40, 72, 8, 86
    assert likeness[zirconium, hafnium] > 0.9
    assert likeness[zirconium, oxygen] < 1e-6
    assert likeness[zirconium, radon] == 0


def test_distortions_of_rock_salt_reach_its_subgroups():
    rock_salt = next(p for p in prototypes.prototypes() if p.name == "AB_cF8_225_a_b")
    numbers = np.array(rock_salt.elements)[rock_salt.kinds]
    rng, seen = np.random.default_rng(0), Counter()
    for _ in range(150):
        lattice, frac = prototypes._distort(rng, rock_salt.lattice, rock_salt.frac, numbers)
        seen[crystal_system(space_group(Crystal("x", lattice, numbers, frac, np.ones(2)), symprec=1e-4))] += 1
    assert set(seen) == set(CRYSTAL_SYSTEMS) - {"hexagonal"}  # no six-fold axis in a cube


def test_part_of_a_sublattice_is_ordered():
    rock_salt = next(p for p in prototypes.prototypes() if p.name == "AB_cF8_225_a_b")
    lattice, _, kinds, split = prototypes._split(
        np.random.default_rng(0), rock_salt.lattice, rock_salt.frac, rock_salt.kinds
    )
    assert abs(np.linalg.det(lattice)) == pytest.approx(2 * abs(np.linalg.det(rock_salt.lattice)))
    assert sorted(np.bincount(kinds)) == [1, 1, 2]
    assert np.bincount(kinds)[split] == 1


def test_generated_source_leaves_duplicates_out(monkeypatch):
    """Of a source that makes everything twice, the second time in a primitive cell elsewhere, half is kept."""
    once = [prototypes.generated(0, i) for i in range(20)]
    twice = []
    for crystal in once:
        lattice, frac, numbers = prototypes._standard(
            crystal.lattice, crystal.frac_coords, crystal.atomic_numbers, prototypes.EXACT, primitive=True
        )
        twice += [crystal, Crystal("copy of " + crystal.id, lattice, numbers, frac + 0.3, np.ones(len(numbers)))]
    monkeypatch.setattr(prototypes, "generated", lambda seed, i: twice[i])
    source = generated(20, seed=0)
    piece = Work()(list(islice(source.records(), 40))).without_repeats(source.distinct())
    assert piece.batch["id"].to_pylist() == [f"gen-0-{2 * i}" for i in range(20)]
    assert piece.reasons[5] == "repeats gen-0-4: the same formula, space group and pattern"


# The demonstration dataset


@pytest.fixture(scope="module")
def demo():
    return Dataset(DEMO)  # verifies the checksums


@pytest.fixture(scope="module")
def crystals():
    return [record.crystal() for record in parquet(DEMO / "crystals.parquet").records()]


def rebuilds(committed, demo, row):
    """Whether a committed crystal and its stored sticks are what the generator makes today."""
    _, seed, number = committed.id.split("-")
    crystal = prototypes.generated(int(seed), int(number))
    lines = sticks(crystal)
    return (
        same(crystal, committed)
        and np.array_equal(lines.two_theta.astype(np.float32), demo.take("two_theta", [row])[0])
        and np.array_equal(lines.intensity.astype(np.float16), demo.take("intensity", [row])[0])
    )


def test_demo_rebuilds_from_its_seed(demo, crystals):
    rows = np.random.default_rng(0).choice(len(crystals), 100, replace=False)
    assert [crystals[row].id for row in rows if not rebuilds(crystals[row], demo, row)] == []


@pytest.mark.stress
def test_all_of_demo_rebuilds_from_its_seed(demo, crystals):
    assert [crystal.id for row, crystal in enumerate(crystals) if not rebuilds(crystal, demo, row)] == []


def test_demo_is_balanced(demo, crystals):
    assert len(demo) == len(crystals) >= 3900
    assert [crystal.id for crystal in crystals] == demo.column("id").tolist()
    systems = Counter(demo.column("crystal_system"))
    assert all(systems[system] >= 200 for system in CRYSTAL_SYSTEMS)
    n_elements = np.diff(demo.take("element_ids", np.arange(len(demo)))[1])
    assert np.isin(n_elements, (3, 4)).mean() >= 0.5


def test_demo_has_no_duplicates(demo):
    """No two crystals of one formula and space group have the same pattern."""
    rows = np.arange(len(demo))
    (two_theta, offsets), (intensity, _) = demo.take("two_theta", rows), demo.take("intensity", rows)
    coarse = patterns.render(two_theta, intensity, offsets, COARSE_SIGMA)[:, ::COARSE_STEP]
    coarse /= np.linalg.norm(coarse, axis=1, keepdims=True)
    alike = defaultdict(list)
    for row, key in enumerate(zip(demo.column("formula"), demo.column("space_group"))):
        alike[key].append(row)
    for rows in alike.values():
        cosine = coarse[rows] @ coarse[rows].T
        assert (cosine[np.triu_indices(len(rows), 1)] < SAME_PATTERN + 1e-3).all()  # compared in half precision
    assert len(set(demo.column("id"))) == len(demo)


def test_demo_splits_formulas(demo):
    formulas, splits = demo.column("formula"), demo.column("split")
    assert len(set(zip(formulas, splits))) == len(set(formulas))
    assert set(splits) == {"train", "val", "test"}


def test_demo_says_what_its_labels_are(demo):
    source = demo.meta["source"]
    statement = "CHGNet labels, not DFT"
    assert source["labels"] == statement
    assert json.loads((DEMO / "references.json").read_text())["labels"] == statement
    assert pq.read_schema(DEMO / "crystals.parquet").metadata[b"labels"].decode() == statement
    assert statement in (DEMO / "README.md").read_text()
    low, high = source["e_form_window"]
    e_form = demo.column("e_form")
    assert ((e_form >= low) & (e_form <= high)).all()
    assert demo.meta["rejects"] == source["left_out"]
    assert np.isnan(demo.column("band_gap")).all()


def test_demo_is_small():
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) <= 6_000_000


def test_demo_labels_are_those_of_chgnet(demo, crystals):
    chgnet = pytest.importorskip("chgnet.model")
    from pymatgen.core import Element, Structure

    model = chgnet.CHGNet.load(use_device="cpu", verbose=False)
    elements = json.loads((DEMO / "references.json").read_text())["elements"]
    for row in np.random.default_rng(0).choice(len(crystals), 20, replace=False):
        crystal = crystals[row]
        structure = Structure(crystal.lattice, crystal.atomic_numbers, crystal.frac_coords)
        energy = float(model.predict_structure(structure, task="e")["e"])
        reference = np.mean([elements[Element.from_Z(int(z)).symbol]["energy"] for z in crystal.atomic_numbers])
        assert demo.column("e_form")[row] == pytest.approx(energy - reference, abs=1e-4)
