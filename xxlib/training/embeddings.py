"""CLS vectors: what a model's encoders and fusion say of crystals."""

import numpy as np
import torch
from tqdm import tqdm

from xxlib.datasets.batches import chunks, make_batch
from xxlib.training import parallel

BATCH = 512
MOST_BYTES = 2**30  # of the vectors that are kept for a training


@torch.no_grad()
def embeddings(model, dataset, rows, modalities):
    """CLS vectors of some rows of a Dataset: name -> (n, D) float32.

    "fused" is the vector the heads read; the others, by modality, are those before fusion.  Of a unimodal model the one
    it has is also "fused".
    """
    device = next(model.parameters()).device
    model.eval()
    collected = {}
    bar = tqdm(total=len(rows), desc="embeddings", unit="crystal", disable=parallel.rank() > 0 or None)
    for chunk in chunks(rows, BATCH):
        batch = make_batch(dataset, chunk, modalities, device=device)
        output = model(batch.inputs, batch.given)
        for name, tokens in {"fused": output.fused, **output.encoded}.items():
            collected.setdefault(name, []).append(tokens.x[:, 0].float().cpu().numpy())
        bar.update(len(batch))
    bar.close()
    return {name: np.concatenate(pieces) for name, pieces in collected.items()}


def read_by_heads(model, examples, config):
    """Examples.cls of frozen encoders: one pass over the crystals of train in place of one a step.

    None where that is no saving, where it does not fit, or where inputs differ from step to step.
    """
    rows = examples.rows["train"]
    n_bytes = 4 * len(examples.dataset) * config.model.d_fused
    if config.partial or n_bytes > MOST_BYTES or config.budget.samples < len(rows):
        return None
    cls = torch.zeros(len(examples.dataset), config.model.d_fused)
    cls[rows] = torch.from_numpy(embeddings(model, examples.dataset, rows, config.model.modalities)["fused"])
    return cls.to(next(model.parameters()).device)
