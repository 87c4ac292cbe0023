"""What trained models say of samples: an ensemble of checkpoints, asked with both inputs or with one of them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import logsumexp
from torch.nn.attention import SDPBackend, sdpa_kernel

from xxlib.datasets.batches import Batch, make_batch
from xxlib.datasets.targets import TARGETS, Normaliser
from xxlib.inputs.augmentation import EFFECTS, draw
from xxlib.inputs.patterns import patchify
from xxlib.models.config import MODALITIES
from xxlib.models.xxact import build
from xxlib.training import runs
from xxlib.training.config import from_dict

BATCH = 256


@dataclass(frozen=True, eq=False, kw_only=True)
class Answers:
    """What an ensemble says of n samples."""

    values: dict[str, np.ndarray]  # regression -> (n,) in the unit of the target, mean over the members
    logits: dict[str, np.ndarray]  # classification -> (n, K) logarithm of the mean probability
    vectors: np.ndarray  # (n, D) the CLS that the heads of the first member read

    def taken(self, rows):
        """The Answers for some of the samples, in the order of rows (k,)."""
        return Answers(
            values={name: values[rows] for name, values in self.values.items()},
            logits={name: logits[rows] for name, logits in self.logits.items()},
            vectors=self.vectors[rows],
        )

    @classmethod
    def joined(cls, pieces):
        """The samples of several Answers, one after the other."""
        return cls(
            values={name: np.concatenate([piece.values[name] for piece in pieces]) for name in pieces[0].values},
            logits={name: np.concatenate([piece.logits[name] for piece in pieces]) for name in pieces[0].logits},
            vectors=np.concatenate([piece.vectors for piece in pieces]),
        )


def trained(path):
    """The model of a model file in eval mode, its RunConfig and its normalisers: target -> Normaliser.

    Raises CheckpointError where the file is missing or damaged.
    """
    path = Path(path)
    tensors, about = runs.load_model(path.parent, path.name)
    config = from_dict(about["config"])
    model = build(config.model, config.widths, config.objectives, config.partial)
    runs.load_weights(model, tensors, path)
    return model.eval(), config, {name: Normaliser(**values) for name, values in about["normalisers"].items()}


class Ensemble:
    """Trained models of the same targets and inputs, whose answers are averaged; one is an ensemble, too."""

    def __init__(self, models, normalisers, config):
        """models: in eval mode.  normalisers: of each model, target -> Normaliser.  config: RunConfig of the first."""
        self.models, self.normalisers, self.config = models, normalisers, config

    @classmethod
    def load(cls, paths):
        """From the model files of a checkpoint or of runs.

        Raises CheckpointError where there is none, or one is damaged or not of the same kind as the first.
        """
        models, normalisers, configs = [], [], []
        for path in map(Path, paths):
            model, config, scales = trained(path)
            models.append(model)
            normalisers.append(scales)
            configs.append(config)
            same = ("targets", "dataset", "split", "left_out", "augmentation", "modality_dropout")
            if any(getattr(config, name) != getattr(configs[0], name) for name in same):
                raise runs.CheckpointError(f"{path} answers another question than {paths[0]}: they are no ensemble")
        if not models:
            raise runs.CheckpointError("there is no model file: give the folder of a released checkpoint")
        return cls(models, normalisers, configs[0])

    @property
    def inputs(self):
        """The combinations of modalities that the models were trained to answer from, the fullest first."""
        whole = self.config.model.modalities
        return (whole, *((modality,) for modality in whole)) if self.config.modality_dropout else (whole,)

    @torch.no_grad()
    def __call__(self, batch):
        """Answers for a Batch.  Models that know no patterns in part take what was not measured for zero."""
        if not self.config.partial:
            batch = replace(batch, masked=None)
        with sdpa_kernel(SDPBackend.MATH):
            outputs = [model(*batch.inputs) for model in self.models]
        values, logits = {}, {}
        for name in self.config.targets:
            said = [output.predictions[name].double().numpy() for output in outputs]
            if TARGETS[name].kind == "regression":
                restored = [normaliser[name].restore(z) for normaliser, z in zip(self.normalisers, said)]
                values[name] = np.maximum(np.mean(restored, axis=0), TARGETS[name].least)
            else:
                logs = [z - logsumexp(z, axis=-1, keepdims=True) for z in said]
                logits[name] = logsumexp(logs, axis=0) - np.log(len(logs))
        return Answers(values=values, logits=logits, vectors=outputs[0].cls.double().numpy())

    def of_rows(self, dataset, rows, modalities, augmentation=None, pattern_rows=None):
        """Answers for some rows of a Dataset from some of its modalities alone.

        augmentation: name of the Effects that patterns are measured under, drawn as in evaluation; None: ideal ones.
        pattern_rows: of each row the one whose pattern it is given, where that is not its own.
        """
        drawn = draw(EFFECTS[augmentation], len(rows), 0) if augmentation else None
        pieces = []
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            effects = None if drawn is None else drawn[part]
            shown = None if pattern_rows is None else pattern_rows[part]
            batch = make_batch(dataset, rows[part], drawn=effects, pattern_rows=shown)
            pieces.append(self(only(batch, modalities) if modalities != self.inputs[0] else batch))
        return Answers.joined(pieces)


def batch_of(sample):
    """A Batch of one Sample."""
    n = max(1, len(sample.element_ids))  # a composition that is not known is padding
    element_ids, fractions = np.zeros(n, np.int64), np.zeros(n, np.float32)
    element_ids[: len(sample.element_ids)], fractions[: len(sample.element_ids)] = sample.element_ids, sample.fractions
    return Batch(
        element_ids=torch.from_numpy(element_ids)[None],
        fractions=torch.from_numpy(fractions)[None],
        tokens=torch.from_numpy(patchify(sample.pattern))[None],
        targets={},
        masked=torch.from_numpy(sample.masked)[None],
    )


def only(batch, modalities):
    """The same Batch from some modalities alone."""
    absent = torch.tensor([[modality not in modalities for modality in MODALITIES]])
    return batch.without(absent.expand(len(batch.tokens), -1))
