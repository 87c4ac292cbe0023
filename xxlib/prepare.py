"""Crystals -> dataset on disk.

python -m xxlib.prepare parquet crystals.parquet data/mp36k     # the shared mp36k file, its split column kept
python -m xxlib.prepare cif     folder-of-cif    data/mine
python -m xxlib.prepare generated 10000          data/generated # crystals made from prototypes; --seed
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from xxlib.datasets import sources, splits
from xxlib.datasets.store import Writer
from xxlib.inputs.compositions import composition_of_crystal, reduced_formula
from xxlib.inputs.crystals import SYMPREC, RejectedCrystal, crystal_system, space_group
from xxlib.inputs.diffraction import CU_KA, STORED_RANGE, sticks


def prepare(entries, folder, *, source, n_entries=None, seed=0, progress=True):
    """Write a dataset of some Entry objects to a folder.

    source: what is written into dataset.json about where they come from (a dict).  Crystals that were refused, by
    their reader or here, are listed in rejects.parquet.  Splits by formula are drawn where the source has none.
    Returns (accepted, rejected) counts.
    """
    writer = Writer(folder)
    for entry in tqdm(
        entries, total=n_entries, unit="crystal", desc=f"prepare {Path(folder).name}", disable=not progress
    ):
        if entry.crystal is None:
            writer.reject(entry.id, entry.source, entry.reason)
            continue
        try:
            writer.add(dataset_row(entry, seed))
        except RejectedCrystal as error:
            writer.reject(entry.id, entry.source, str(error))
    writer.finish(
        source=source,
        wavelength={"name": "CuKa", "angstrom": CU_KA},
        two_theta_range=list(STORED_RANGE),
        symprec=SYMPREC,
    )
    return sum(writer.counts.values()), len(writer.rejects)


def dataset_row(entry, seed=0):
    """One row of a shard (store.SCHEMA) of an Entry; raises RejectedCrystal."""
    crystal, known = entry.crystal, entry.known
    element_ids, fractions = composition_of_crystal(crystal)
    formula = known.get("formula") or reduced_formula(element_ids, fractions)
    number = known.get("space_group") or space_group(crystal)
    lines = sticks(crystal)
    return {
        "id": entry.id,
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
    parser.add_argument("kind", choices=("parquet", "cif", "generated"))
    parser.add_argument("source", help="parquet file, folder of CIF files, or number of crystals to generate")
    parser.add_argument("folder", type=Path, help="where the dataset goes; must not hold one yet")
    parser.add_argument("--seed", type=int, default=0, help="of the splits by formula and of the generator")
    options = parser.parse_args(arguments)
    try:
        if options.kind == "parquet":
            entries, count = sources.parquet_crystals(options.source), sources.parquet_length(options.source)
        elif options.kind == "cif":
            entries, count = sources.cif_crystals(options.source), len(sources.cif_paths(options.source))
        else:
            entries, count = sources.generated_crystals(int(options.source), options.seed), int(options.source)
        about = {"kind": options.kind, "name": Path(options.source).name, "seed": options.seed}
        accepted, rejected = prepare(entries, options.folder, source=about, n_entries=count, seed=options.seed)
    except (ValueError, OSError) as error:
        sys.exit(f"prepare: {error}")
    print(
        f"{options.folder}: {accepted} crystals, {rejected} rejected" + (" (see rejects.parquet)" if rejected else "")
    )


if __name__ == "__main__":
    main()
