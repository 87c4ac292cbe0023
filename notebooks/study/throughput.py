"""What to expect of which hardware?  Samples per second of training; measured numbers only.

data/results/throughput.csv is kept by hand: fill a row by training it and reading `samples` and `seconds` of its
results.json; tests/benchmarks/train_step.py measures the step alone.  GFLOP and MB are those of one sample
(xxlib.training.cost), for four elements.
Cost: none.
"""

import pandas as pd

from study.tables import committed
from xxlib.training.cost import step_cost


def table(config=None, result=None, processes=1):
    """The committed rows and, beside them, a run trained here: its RunConfig, results and number of processes."""
    rows = committed("throughput")
    if config is not None:
        flops, moved = step_cost(config)
        here = {
            "preset": config.preset,
            "modalities": " + ".join(config.model.modalities),
            "GFLOP per sample": flops / 1e9,
            "MB per sample": moved / 1e6,
            "hardware": f"this machine: {result['hardware']}",
            "processes": processes,
            "precision": config.budget.precision,
            "samples/s": round(result["samples"] / result["seconds"]),
            "where from": f"run {config.name}",
        }
        rows = pd.concat([rows, pd.DataFrame([here])], ignore_index=True)
    rows["samples/s"] = rows["samples/s"].map("{:,.0f}".format, na_action="ignore").fillna("not measured")
    return rows
