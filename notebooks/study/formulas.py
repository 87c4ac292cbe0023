"""The table of formulas with labels that compositions can learn from: OQMD's and the Materials Project's, without
crystals.

The file (data/README.md says from where) has a label a row: property, reduced_formula, target.  Formulas of val, test
and experimental crystals are not among them.
"""

import hashlib

import numpy as np
import pandas as pd
import pyarrow as pa

DATASET, GAPS = "data/formulas", "data/formulas_gap"  # energies and volumes; band gaps of the Materials Project
COLUMNS = {"oqmd_e_form": "oqmd_e_form", "oqmd_band_gap": "oqmd_band_gap", "oqmd_volume_per_atom": "volume",
           "mp_e_form": "e_form"}  # fmt: skip
TRAIN, VAL = 0.98, 0.99  # ends of the shares of formulas that train and choose; they judge nothing but a pretraining


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
    digests = [hashlib.sha256(formula.encode()).digest()[:8] for formula in both["reduced_formula"]]
    shares = np.array([int.from_bytes(digest, "big") / 2**64 for digest in digests])
    return both.assign(split=np.select([shares < TRAIN, shares < VAL], ["train", "val"], "test"))
