"""Crystals -> dataset on disk.

python -m xxlib.prepare parquet crystals.parquet data/mp36k     # the shared mp36k file, its split column kept
python -m xxlib.prepare cif     folder-of-cif    data/mine
python -m xxlib.prepare poscar  folder           data/mine       # VASP files
python -m xxlib.prepare extxyz  frames.extxyz    data/mine
python -m xxlib.prepare generated 10000          data/generated # crystals made from prototypes; --seed
python -m xxlib.prepare alexandria https://alexandria.icams.rub.de/data/pbe/ data/alexandria  # or a folder of the files
python -m xxlib.prepare jarvis  jdft_3d-12-12-2022.json.zip     data/jarvis
python -m xxlib.prepare lemat   compatible_pbe   data/lemat      # folder of parquet files; no labels
python -m xxlib.prepare mp36k   folder           data/mp36k      # of the public files that the shared one is made of
python -m xxlib.prepare materials_project all    data/mp         # or a chemical system: Li-Fe-O; needs MP_API_KEY
python -m xxlib.prepare optimade https://alexandria.icams.rub.de/pbe data/optimade   # any provider; no labels
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from xxlib.datasets import splits
from xxlib.datasets.sources.alexandria import alexandria
from xxlib.datasets.sources.files import cif_folder, extxyz_file, poscar_folder
from xxlib.datasets.sources.generated import generated
from xxlib.datasets.sources.jarvis import jarvis
from xxlib.datasets.sources.lemat import lemat
from xxlib.datasets.sources.materials_project import materials_project
from xxlib.datasets.sources.mp36k import mp36k
from xxlib.datasets.sources.optimade import optimade
from xxlib.datasets.sources.parquet import parquet
from xxlib.datasets.store import Writer
from xxlib.inputs.compositions import composition_of_crystal, reduced_formula
from xxlib.inputs.crystals import SYMPREC, RejectedCrystal, crystal_system, space_group
from xxlib.inputs.diffraction import CU_KA, STORED_RANGE, sticks

KINDS = {
    "parquet": lambda path, seed: parquet(path),
    "cif": lambda folder, seed: cif_folder(folder),
    "poscar": lambda folder, seed: poscar_folder(folder),
    "extxyz": lambda path, seed: extxyz_file(path),
    "generated": lambda n, seed: generated(int(n), seed),
    "alexandria": lambda place, seed: alexandria(place),
    "jarvis": lambda path, seed: jarvis(path),
    "lemat": lambda place, seed: lemat(place),
    "mp36k": lambda folder, seed: mp36k(folder),
    "materials_project": lambda system, seed: materials_project(**({} if system == "all" else {"chemsys": system})),
    "optimade": lambda url, seed: optimade(url),
}


def prepare(source, folder, *, seed=0, progress=True):
    """Write a dataset of the crystals of a Source to a folder.

    Crystals that were refused, by their reader or here, are listed in rejects.parquet.  Splits by formula are drawn
    from the seed where the source has none.  Returns (accepted, rejected) counts.
    """
    writer = Writer(folder)
    title = f"prepare {Path(folder).name}"
    for record in tqdm(source.records(), total=source.n_records, unit="crystal", desc=title, disable=not progress):
        try:
            writer.add(dataset_row(record, seed))
        except RejectedCrystal as error:
            writer.reject(record.id, record.place, str(error))
    writer.finish(
        source=source.about,
        wavelength={"name": "CuKa", "angstrom": CU_KA},
        two_theta_range=list(STORED_RANGE),
        symprec=SYMPREC,
        seed=seed,
    )
    return sum(writer.counts.values()), len(writer.rejects)


def dataset_row(record, seed=0):
    """One row of a shard (store.SCHEMA) of a Record; raises RejectedCrystal."""
    crystal, known = record.crystal(), record.known
    element_ids, fractions = composition_of_crystal(crystal)
    formula = known.get("formula") or reduced_formula(element_ids, fractions)
    number = known.get("space_group") or space_group(crystal)
    lines = sticks(crystal)
    return {
        "id": record.id,
        "formula": formula,
        "element_ids": element_ids,
        "fractions": fractions,
        "two_theta": lines.two_theta.astype(np.float32),
        "intensity": lines.intensity.astype(np.float16),
        "e_form": known.get("e_form"),
        "band_gap": known.get("band_gap"),
        "space_group": number,
        "crystal_system": crystal_system(number),
        "symmetry_source": "source" if "space_group" in known else "spglib",
        "split": known.get("split") or str(splits.by_formula([formula], seed)[0]),
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m xxlib.prepare", description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("source", help="file, folder or URL of the crystals, or number of crystals to generate")
    parser.add_argument("folder", type=Path, help="where the dataset goes; must not hold one yet")
    parser.add_argument("--seed", type=int, default=0, help="of the splits by formula and of the generator")
    options = parser.parse_args(arguments)
    try:
        source = KINDS[options.kind](options.source, options.seed)
        accepted, rejected = prepare(source, options.folder, seed=options.seed)
    except (ValueError, OSError) as error:
        sys.exit(f"prepare: {error}")
    print(
        f"{options.folder}: {accepted} crystals, {rejected} rejected" + (" (see rejects.parquet)" if rejected else "")
    )


if __name__ == "__main__":
    main()
