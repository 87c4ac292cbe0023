"""Divergence: the first step whose loss or gradient is not finite, noted without waiting for a GPU."""

import numpy as np
import torch

from xxlib.training import parallel, runs
from xxlib.training.steps import batches_of_step, rows_of_step

NAMED = 5  # samples in the message; diverged.json has all


def first_bad_step(first, step, losses, model):
    """`first` (a scalar tensor, -1 = none so far), or `step` where its losses or gradients are the first not finite.

    losses: name -> scalar, the same in all processes, as the gradients are: all processes agree.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    finite = torch.isfinite(norm + sum(losses.values()))
    return torch.where(finite | (first >= 0), first, step)


def explain(folder, examples, config, step):
    """The message of a run that diverged at a step (counted from 0); diverged.json gets the ids of the step's samples.

    Samples whose own pattern or composition is not finite are named first.
    """
    rows = rows_of_step(examples, config, step)
    ids = examples.dataset.column("id")[rows]
    (batch,) = batches_of_step(examples, config, step, [slice(None)], torch.device("cpu"))
    damaged = ids[~_finite(batch).numpy()]
    if parallel.rank() == 0:
        runs.write_json(folder / "diverged.json", {"step": step, "damaged": damaged.tolist(), "samples": ids.tolist()})
    named = damaged if len(damaged) else np.unique(ids)
    samples = ", ".join(named[:NAMED]) + (f" and {len(named) - NAMED} more" if len(named) > NAMED else "")
    if len(damaged):
        cause, advice = f"the pattern or composition of {samples} is not finite", "make the dataset again without them"
    else:
        cause = f"the loss or its gradient is not finite for the batch of {samples}"
        advice = "try half the learning rate" + (" or precision fp32" if config.budget.precision != "fp32" else "")
    return (
        f"{config.name} diverged at step {step}: {cause} (all of them in diverged.json).  The last checkpoint is from "
        f"before it.  {advice[0].upper()}{advice[1:]}, in a run of another name"
    )


def _finite(batch):
    """Which samples of a Batch hold finite numbers alone: (B,) bool."""
    values = [values for inputs in batch.inputs.values() for values in inputs if values is not None]
    return torch.stack([x.flatten(1).isfinite().all(1) for x in values if x.is_floating_point()]).all(0)
