"""The table of formulas with labels that compositions can learn from: OQMD's, the Materials Project's and measured
ones, without crystals.

The file (data/README.md says from where) has a label a row: property, reduced_formula, target.  Formulas of val, test
and experimental crystals are not among them.
"""

import hashlib

import numpy as np
import pandas as pd
import pyarrow as pa

from xxlib.crystals.compositions import composition_of_formula

DATASET, GAPS = "data/formulas", "data/formulas_gap"  # energies and volumes; band gaps of the Materials Project
MEASURED = "data/formulas_measured"  # band gaps as they were measured
COLUMNS = {"oqmd_e_form": "oqmd_e_form", "oqmd_band_gap": "oqmd_band_gap", "oqmd_volume_per_atom": "volume",
           "mp_e_form": "e_form"}  # fmt: skip
TRAIN, VAL = 0.98, 0.99  # ends of the shares of formulas that train and choose; they judge nothing but a pretraining
NEW_TRAIN, NEW_VAL = 0.4, 0.6  # the same of measured formulas without a crystal


def label_rows(path, properties):
    """The rows of the file that have one of some properties; raises ValueError where it has not the columns, or where
    none of its rows has."""
    try:
        labels = pd.read_parquet(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} is no parquet file of formulas with labels: {error}") from error
    if missing := {"property", "reduced_formula", "target"} - set(labels):
        raise ValueError(f"{path} is no file of formulas with labels: it has no column {', '.join(sorted(missing))}")
    chosen = labels[labels["property"].isin(list(properties))]
    if not len(chosen):
        there = ", ".join(map(str, labels["property"].unique()[:5])) or "none"
        raise ValueError(f"{path} has no label of {', '.join(properties)}: its properties are {there}")
    return chosen.astype({"reduced_formula": str, "property": str})


def gap_table(path):
    """What `prepare formulas` reads, as a DataFrame: a row a band gap of the Materials Project; all of them train."""
    labels = label_rows(path, ["mp_band_gap"])
    gaps = {"reduced_formula": labels["reduced_formula"].astype(str), "band_gap": labels["target"].astype(float)}
    return pd.DataFrame(gaps).assign(split="train")


def formula_table(path):
    """The same of OQMD's labels and of energies: a row a formula of OQMD, and a row an energy of the Materials
    Project, of which a formula has as many as it has crystals there."""
    labels = label_rows(path, COLUMNS)
    labels["property"] = labels["property"].map(COLUMNS)
    ours = labels[labels["property"] == "e_form"]
    oqmd = labels[labels["property"] != "e_form"].pivot(index="reduced_formula", columns="property", values="target")
    ours = ours[["reduced_formula", "target"]].rename(columns={"target": "e_form"})
    both = pd.concat([oqmd.astype(float).reset_index(), ours.astype({"e_form": float})], ignore_index=True)
    return both.assign(split=_splits(both["reduced_formula"], TRAIN, VAL))


def measured_gap_table(path, crystals):
    """What `prepare formulas` reads, as a DataFrame: a row a measured band gap.

    Compositions of which mp90k has a crystal (parquet file `crystals`) train: a teacher may have shown them to a
    student.  Of the others two fifths train and two fifths judge.
    """
    labels = pd.read_parquet(path, filters=[("property", "=", "experimental_band_gap")])
    names = labels["reduced_formula"].astype(str)
    crystals = pd.read_parquet(crystals, columns=["reduced_formula", "atomic_numbers"]).drop_duplicates(
        "reduced_formula"
    )
    there = {_shares(*np.unique(numbers, return_counts=True)) for numbers in crystals["atomic_numbers"]}
    known = [_shares(*composition_of_formula(name)) in there for name in names]
    split = np.where(known, "train", _splits(names, NEW_TRAIN, NEW_VAL))
    return pd.DataFrame({"reduced_formula": names, "band_gap": labels["target"].astype(float), "split": split})


def _shares(numbers, amounts):
    """Atomic numbers and their shares, to four decimals: the same however a formula is written."""
    return tuple(numbers.tolist()), tuple((amounts / amounts.sum()).astype(float).round(4).tolist())


def _splits(names, train, val):
    """The split of each of some formulas, by its hash; train and val: where their shares end."""
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in names]
    shares = np.array([int.from_bytes(digest, "big") / 2**64 for digest in digests])
    return np.select([shares < train, shares < val], ["train", "val"], "test")
