"""Several runs beside each other: in one figure, or as event files for TensorBoard."""

from pathlib import Path

import pandas as pd
from study.tables import with_unit

from xxlib import plots
from xxlib.training import runs


def compare(names, metric="val/error", title=""):
    """Figure of one metric of several runs of data/runs, finished or not, against the samples seen.

    metric: as metrics.jsonl names it; drawn in the unit of the tables.  Raises ValueError where no run has it, with
    those that there are.
    """
    tables = {name: pd.DataFrame(runs.metrics(runs.RUNS / name)) for name in names}
    if not any(metric in table for table in tables.values()):
        there = sorted({column for table in tables.values() for column in table if "/" in column})
        raise ValueError(f"none of {', '.join(names)} has {metric}; there are: {', '.join(there) or 'none'}")
    known = {name: table[["samples", metric]].dropna() for name, table in tables.items() if metric in table}
    *split, kind = metric.split("/")
    quantity, scale = with_unit(kind)
    curves = {name: (table["samples"], scale * table[metric]) for name, table in known.items()}
    quantity = " on ".join([quantity, *split])
    return plots.learning_curves(curves, quantity, title, log="accuracy" not in metric and "r2" not in metric)


def write_events(names, folder):
    """Write the metrics of runs of data/runs as event files, by samples seen: then tensorboard --logdir FOLDER.

    Needs the extra `tensorboard`: pip install tensorboard.
    """
    from torch.utils.tensorboard import SummaryWriter

    for name in names:
        with SummaryWriter(Path(folder) / name) as writer:
            for line in runs.metrics(runs.RUNS / name):
                values = {key: value for key, value in line.items() if key not in ("step", "samples", "seconds")}
                for key, value in values.items():
                    writer.add_scalar(key, value, line["samples"])
