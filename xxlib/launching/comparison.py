"""Several runs beside each other: the curves of a metric, or event files for TensorBoard."""

from pathlib import Path

from xxlib.datasets.targets import TARGETS
from xxlib.training import runs
from xxlib.training.config import RunConfig
from xxlib.training.records import curve


def curves(names, metric="error", target=None, split="val"):
    """A metric of several runs of data/runs, finished or not: name -> (samples, values); and what it is, with its unit.

    metric, target, split: as records have them; in the unit of the tables.  Raises ValueError where no run has it, with
    those that there are.
    """
    records = {name: runs.metrics(runs.RUNS / name) for name in names}
    quantity, scale = TARGETS[target].shown(metric) if target else (metric, 1.0)
    of_runs = {}
    for name, lines in records.items():
        steps, values = curve(lines, metric, target, split)
        if steps:
            batch_size = RunConfig.load(runs.RUNS / name / "run.json").budget.batch_size
            of_runs[name] = [step * batch_size for step in steps], [scale * value for value in values]
    if not of_runs:
        there = sorted({" ".join(filter(None, (one["split"], one["target"], one["metric"])))
                        for lines in records.values() for one in lines})  # fmt: skip
        wanted = " ".join(filter(None, (split, target, metric)))
        raise ValueError(f"none of {', '.join(names)} has {wanted}; there are: {', '.join(there) or 'none'}")
    return of_runs, f"{quantity} on {split}"


def write_events(names, folder):
    """Write the metrics of runs of data/runs as event files, by samples seen: then tensorboard --logdir FOLDER.

    Needs the extra `tensorboard`: pip install tensorboard.
    """
    from torch.utils.tensorboard import SummaryWriter

    for name in names:
        batch_size = RunConfig.load(runs.RUNS / name / "run.json").budget.batch_size
        with SummaryWriter(Path(folder) / name) as writer:
            for one in runs.metrics(runs.RUNS / name):
                view = [one["given"], one["effects"], one["exchanged"] and f"{one['exchanged']} exchanged"]
                metric = [one["split"], *view, one["target"], one["metric"]]
                writer.add_scalar("/".join(filter(None, metric)), one["value"], one["step"] * batch_size)
