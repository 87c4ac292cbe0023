"""What the splits of a dataset share."""

from itertools import combinations

import numpy as np
import pandas as pd

from xxlib.datasets.splits import SPLITS


def leakage(dataset, splits=None):
    """Table of the ids and formulas that each pair of splits shares, with columns splits, ids, formulas.

    splits: (n,) names that replace the stored ones, as splits.by_random makes them.  Ids must never be shared, formulas
    not where the split is by formula.
    """
    ids, formulas = dataset.column("id"), dataset.column("formula")
    rows = {split: dataset.indices(split, splits) for split in SPLITS}
    return pd.DataFrame(
        {
            "splits": f"{one}, {other}",
            "ids": len(np.intersect1d(ids[rows[one]], ids[rows[other]])),
            "formulas": len(np.intersect1d(formulas[rows[one]], formulas[rows[other]])),
        }
        for one, other in combinations([split for split in SPLITS if len(rows[split])], 2)
    )
