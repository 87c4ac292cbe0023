"""What trained models say of samples: an ensemble of checkpoints, asked with both inputs or with one of them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import logsumexp
from torch.nn.attention import SDPBackend, sdpa_kernel

from xxlib.datasets.batches import Batch, make_batch
from xxlib.datasets.targets import TARGETS, Normaliser
from xxlib.inputs.patterns import patchify
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


class Ensemble:
    """Trained models of the same targets and inputs, whose answers are averaged; one is an ensemble, too."""

    def __init__(self, models, normalisers, config):
        """models: in eval mode.  normalisers: of each model, target -> Normaliser.  config: RunConfig of the first."""
        self.models, self.normalisers, self.config = models, normalisers, config

    @classmethod
    def load(cls, paths):
        """From model files (each with its sha256 sidecar).

        Raises CheckpointError where one is damaged or not of the same kind as the first.
        """
        models, normalisers, configs = [], [], []
        for path in map(Path, paths):
            tensors, about = runs.load_model(path.parent, path.name)
            config = from_dict(about["config"])
            widths = {name: TARGETS[name].width for name in config.targets}
            model = build(config.model, widths, config.objectives)
            runs.load_weights(model, tensors, path)
            models.append(model.eval())
            normalisers.append({name: Normaliser(**values) for name, values in about["normalisers"].items()})
            configs.append(config)
            same = ("targets", "dataset", "split", "left_out")
            if any(getattr(config, name) != getattr(configs[0], name) for name in same):
                raise runs.CheckpointError(f"{path} answers another question than {paths[0]}: they are no ensemble")
        return cls(models, normalisers, configs[0])

    @property
    def inputs(self):
        """The combinations of modalities that the models were trained to answer from, the fullest first."""
        return (self.config.model.modalities,)

    @torch.no_grad()
    def __call__(self, element_ids, fractions, tokens, masked=None):
        """Answers for a batch, given as Batch.inputs: (B, E), (B, E), (B, L, P) and, True = not measured, (B, L)."""
        inputs = (element_ids, fractions, tokens) + (() if masked is None else (masked,))
        with sdpa_kernel(SDPBackend.MATH):
            outputs = [model(*inputs) for model in self.models]
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

    def of_rows(self, dataset, rows, modalities, pattern_rows=None):
        """Answers for some rows of a Dataset from some of its modalities alone.

        pattern_rows: of each row the one whose pattern it is given, where that is not its own.
        """
        pieces = []
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            batch = make_batch(dataset, rows[part])
            if pattern_rows is not None:
                batch = replace(batch, tokens=make_batch(dataset, pattern_rows[part]).tokens)
            pieces.append(self(*without(batch, modalities)))
        return Answers.joined(pieces)


def batch_of(sample):
    """A Batch of one Sample."""
    return Batch(
        element_ids=torch.from_numpy(sample.element_ids.astype(np.int64))[None],
        fractions=torch.from_numpy(sample.fractions)[None],
        tokens=torch.from_numpy(patchify(sample.pattern))[None],
        targets={},
    )


def without(batch, modalities):
    """The inputs of a Batch from some modalities alone."""
    return batch.element_ids, batch.fractions, batch.tokens
