"""Teachers: what a trained model, which may read more, says of the crystals that a student is to say the same of."""

import numpy as np
import torch

from xxlib import PROJECT
from xxlib.datasets.batches import OF_STRUCTURES, has_modalities
from xxlib.datasets.store import DatasetError
from xxlib.models.build import build
from xxlib.training import runs
from xxlib.training.config import ConfigError, from_dict
from xxlib.training.embeddings import embeddings
from xxlib.training.examples import check_structures
from xxlib.training.starts import check_unseen


def vectors_to_learn(config, examples, device):
    """Examples.taught of a RunConfig: what the heads of the run that it names as `taught` read of train and val.

    About their mean over train, and of mean square 1 there: a student that has learned nothing has a loss of 1.
    Raises ConfigError where that run does not fit, or has seen crystals that this one is judged on; CheckpointError
    where its weights are missing or damaged; DatasetError where the dataset lacks what it reads.
    """
    path, dataset = config.objectives.taught, examples.dataset
    tensors, metadata = runs.load_model(PROJECT / path)
    earlier = from_dict(metadata["config"])
    check_unseen(path, earlier, config)
    if not earlier.objectives.targets:
        raise ConfigError(f"taught {path}: it has no targets, its heads read nothing that was learned")
    widths = earlier.model.d_fused, config.model.d_fused
    if len(set(widths)) > 1:
        raise ConfigError(f"taught {path}: its vectors have {widths[0]} numbers, those of this model {widths[1]}")
    teacher = build(earlier.model, earlier.widths, partial=earlier.partial).to(device)
    runs.load_weights(teacher, tensors, PROJECT / path / "model.safetensors")

    modalities = earlier.model.modalities
    if OF_STRUCTURES & set(modalities):
        check_structures(dataset, examples.rows, config.data)
    rows = np.concatenate([examples.rows["train"], examples.rows["val"]])
    rows = rows[torch.stack([*has_modalities(dataset, rows, modalities).values()]).all(0).numpy()]
    of_train = np.isin(rows, examples.rows["train"])
    if not of_train.any():
        raise DatasetError(f"{dataset.folder}: no crystal of train has what {path} reads, {' and '.join(modalities)}")
    vectors = embeddings(teacher, dataset, rows, modalities)["fused"]  # (n, D)
    vectors -= vectors[of_train].mean(0)
    vectors /= np.sqrt(np.square(vectors[of_train]).mean())
    taught = torch.full((len(dataset), vectors.shape[1]), torch.nan)
    taught[rows] = torch.from_numpy(vectors)
    return taught.to(device)
