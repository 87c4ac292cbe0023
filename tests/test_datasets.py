"""Datasets: what is written is read, what is damaged is refused, what must not leak does not."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pymatgen.core import Lattice, Structure

from xxlib.crystals.crystal import Crystal
from xxlib.datasets import batches, splits
from xxlib.datasets.sources import Source, parsed, refused
from xxlib.datasets.sources.files import cif_folder
from xxlib.datasets.sources.formulas import formulas
from xxlib.datasets.store import Dataset, DatasetError, sha256
from xxlib.datasets.targets import Normaliser
from xxlib.diffraction.scattering import sticks
from xxlib.prepare import prepare


def rock_salt(a, first, second, id):
    frac = [
        [0, 0, 0],
        [0, 0.5, 0.5],
        [0.5, 0, 0.5],
        [0.5, 0.5, 0],
        [0.5, 0.5, 0.5],
        [0.5, 0, 0],
        [0, 0.5, 0],
        [0, 0, 0.5],
    ]
    return Crystal(id, np.eye(3) * a, np.array([first] * 4 + [second] * 4), np.array(frac, float), np.ones(8))


def rock_salts(n=12):
    pairs = [(first, second) for first in (3, 11, 19, 37) for second in (9, 17, 35)][:n]
    return [rock_salt(4.0 + 0.1 * i, first, second, f"rs-{i}") for i, (first, second) in enumerate(pairs)]


def listed(*records):
    return Source({"name": "rock salts"}, lambda: iter(records), len(records))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset of 12 rock salts; every third without e_form; one crystal rejected."""
    folder = tmp_path_factory.mktemp("data") / "rock-salts"
    names = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    records = [
        parsed(crystal, "here", split=names[i], **({"e_form": -float(i)} if i % 3 else {}))
        for i, crystal in enumerate(rock_salts())
    ]
    assert prepare(listed(*records, refused("bad", "there", "no atoms")), folder, progress=False) == (12, 1)
    return folder


def copied(folder, tmp_path, **changes):
    """A copy of the dataset with changes in dataset.json."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    meta = json.loads((tmp_path / "dataset.json").read_text()) | changes
    (tmp_path / "dataset.json").write_text(json.dumps(meta))
    return tmp_path


def test_what_is_written_is_read(folder):
    dataset = Dataset(folder)
    crystals = rock_salts()
    assert len(dataset) == 12 and list(dataset.column("id")) == [crystal.id for crystal in crystals]
    assert dataset.column("formula")[1] == "LiCl"
    rows = np.array([7, 0, 3])
    two_theta, offsets = dataset.take("two_theta", rows)
    intensity, _ = dataset.take("intensity", rows)
    for b, row in enumerate(rows):
        lines = sticks(crystals[row])
        assert np.array_equal(two_theta[offsets[b] : offsets[b + 1]], lines.two_theta.astype(np.float32))
        assert np.array_equal(intensity[offsets[b] : offsets[b + 1]], lines.intensity.astype(np.float16))
    assert (dataset.column("space_group") == 225).all() and (dataset.column("symmetry_source") == "spglib").all()


def test_missing_labels_stay_missing(folder):
    labels = Dataset(folder).labels
    assert np.isnan(labels["e_form"][::3]).all() and np.isfinite(labels["e_form"][1::3]).all()
    assert np.isnan(labels["band_gap"]).all() and (labels["crystal_system"] == 6).all()


def test_memory_is_mapped_not_copied(folder):
    dataset = Dataset(folder)
    values = dataset.ragged[0]["two_theta"].values
    assert not values.flags.owndata and not values.flags.writeable


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 99}, "schema version 99"),
        ({"grid": {"start": 10.0, "step": 0.02, "n_points": 4250}}, "grid"),
        ({"shards": [{"file": "shard-00007.arrow", "rows": 1, "sha256": ""}]}, "shard-00007.arrow is missing"),
        ({"shards": [{"file": "shard-00000.arrow", "rows": 1, "sha256": "0" * 64}]}, "does not match its sha256"),
        ({"shards": 3}, "damaged"),
    ],
)
def test_a_dataset_that_does_not_fit_is_one_clear_line(folder, tmp_path, changes, words):
    with pytest.raises(DatasetError, match=words) as error:
        Dataset(copied(folder, tmp_path, **changes))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_flipped_bit_in_a_shard_is_noticed(folder, tmp_path):
    shard = copied(folder, tmp_path) / "shard-00000.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DatasetError, match=r"shard-00000\.arrow does not match its sha256"):
        Dataset(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("two_theta", np.nan), ("intensity", np.inf), ("fractions", np.nan)])
def test_a_number_that_is_none_is_named_and_not_learned_from(folder, tmp_path, name, value):
    copy = copied(folder, tmp_path)
    path = copy / "shard-00000.arrow"
    table = pa.ipc.open_file(path).read_all()
    lists = table.column(name).to_pylist()
    lists[7][1] = value
    column = table.schema.get_field_index(name)
    table = table.set_column(column, table.schema.field(name), pa.array(lists, table.schema.field(name).type))
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table.combine_chunks())
    meta = json.loads((copy / "dataset.json").read_text())
    meta["shards"][0]["sha256"] = sha256(path)
    (copy / "dataset.json").write_text(json.dumps(meta))
    dataset = Dataset(copy)
    crystal = dataset.column("id")[7]
    with pytest.raises(DatasetError, match=f"{name} of crystal {crystal} is not finite"):
        batches.make_batch(dataset, np.array([2, 7, 5]))
    assert batches.make_batch(dataset, np.array([2, 5])).inputs["xrd"].tokens.isfinite().all()


def test_an_unfinished_or_missing_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"dataset\.json is missing"):
        Dataset(tmp_path)


def test_a_finished_dataset_is_not_overwritten(folder):
    with pytest.raises(DatasetError, match="already holds a dataset"):
        prepare(listed(), folder, progress=False)


def test_nothing_accepted_says_why(tmp_path):
    with pytest.raises(DatasetError, match=r"1 were rejected: there: no atoms"):
        prepare(listed(refused("bad", "there", "no atoms")), tmp_path / "d", progress=False)


# ---------------------------------------------------------------- splits


def test_a_formula_is_in_one_split_whatever_surrounds_it():
    formulas = np.array([f"X{i % 500}" for i in range(2000)])
    names = splits.by_formula(formulas)
    for formula in np.unique(formulas):
        assert len(set(names[formulas == formula])) == 1
    assert np.array_equal(splits.by_formula(formulas[::-1])[::-1], names)
    assert 0.7 < np.mean(names == "train") < 0.9 and set(names) == {"train", "val", "test"}
    assert not np.array_equal(splits.by_formula(formulas, seed=1), names)


def test_random_split_keeps_sizes_and_never_touches_experimental():
    names = np.array(["train"] * 80 + ["val"] * 10 + ["test"] * 10 + ["experimental"] * 7)
    dealt = splits.by_random(names, seed=3)
    assert sorted(dealt) == sorted(names) and (dealt[-7:] == "experimental").all()
    assert not np.array_equal(dealt, names) and np.array_equal(dealt, splits.by_random(names, seed=3))


# ---------------------------------------------------------------- targets


def test_normaliser_is_mean_and_standard_deviation_of_the_labelled():
    normaliser = Normaliser.fit([1.0, 3.0, np.nan])
    assert (normaliser.mean, normaliser.std) == (2.0, 1.0)
    assert normaliser.restore(normaliser.normalise(5.0)) == 5.0
    with pytest.raises(ValueError, match="no spread"):
        Normaliser.fit([2.0, 2.0])


def test_labels_follow_from_columns(tmp_path):
    """The least energy of a formula is that of its lowest row, the volume that of the cell; OQMD's are its own."""
    table = tmp_path / "table.csv"
    table.write_text("formula,e_form,oqmd_e_form,volume\nNaCl,-2.0,,22.0\nNaCl,-2.1,-2.05,\nKCl,,-2.2,31.0\nMgO,-3,,\n")
    prepare(formulas(table), tmp_path / "data", n_workers=1, progress=False)
    labels = Dataset(tmp_path / "data").labels
    assert np.array_equal(labels["e_form"], [-2.0, -2.1, np.nan, -3], equal_nan=True)
    assert np.array_equal(labels["least_e_form"], [-2.1, -2.1, np.nan, -3], equal_nan=True)
    assert np.array_equal(labels["oqmd_e_form"], [np.nan, -2.05, -2.2, np.nan], equal_nan=True)
    assert np.allclose(labels["log_volume"], np.log([22, np.nan, 31, np.nan]), equal_nan=True)
    assert np.isnan(labels["oqmd_band_gap"]).all()  # no column of this dataset


def test_the_volume_of_a_crystal_is_its_cell_over_its_atoms(tmp_path):
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    skew = Structure(
        Lattice.from_parameters(3, 4, 5, 81, 92, 103), [{"Ti": 0.5}, "O"], [[0.1, 0.2, 0.3], [0.6, 0.5, 0]]
    )
    for name, structure in {"salt": salt, "skew": skew}.items():
        structure.to(str(tmp_path / f"{name}.cif"))
    prepare(cif_folder(tmp_path), tmp_path / "data", structure=True, n_workers=1, progress=False)
    dataset = Dataset(tmp_path / "data")
    volumes = dict(zip(dataset.column("id"), np.exp(dataset.labels["log_volume"])))
    assert volumes == pytest.approx({"salt.cif": 5.64**3 / 8, "skew.cif": skew.volume / 1.5}, rel=1e-6)
