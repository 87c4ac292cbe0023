"""What trained models say of samples: an ensemble of checkpoints, asked with both inputs or with one of them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import logsumexp
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from xxlib.datasets.batches import Batch, make_batch
from xxlib.datasets.targets import TARGETS, Normaliser
from xxlib.diffraction.effects import EFFECTS, draw
from xxlib.diffraction.patterns import patchify
from xxlib.models.config import MODALITIES
from xxlib.models.xxact import build
from xxlib.training import runs
from xxlib.training.config import RunConfig, from_dict

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


class Trained(NamedTuple):
    """What a model file holds."""

    model: nn.Module  # in eval mode
    config: RunConfig
    normalisers: dict[str, Normaliser]  # of its regressions


def trained(path):
    """The Trained of a model file; raises CheckpointError where it is missing or damaged."""
    path = Path(path)
    tensors, about = runs.load_model(path.parent, path.name)
    config = from_dict(about["config"])
    model = build(config.model, config.widths, config.objectives, config.partial)
    runs.load_weights(model, tensors, path)
    return Trained(model.eval(), config, {name: Normaliser(**values) for name, values in about["normalisers"].items()})


class Ensemble:
    """Models that read the same inputs; a target is answered by the mean of those that were trained on it."""

    def __init__(self, members):
        """members: Trained ones, of which the first says where a sample lies among the known ones."""
        self.members, self.config = members, members[0].config

    @classmethod
    def load(cls, paths):
        """From the model files of a checkpoint or of runs.

        Raises CheckpointError where there is none, or one is damaged or not of the same kind as the first.
        """
        paths = list(paths)
        members = [trained(path) for path in paths]
        if not members:
            raise runs.CheckpointError("there is no model file: give the folder of a released checkpoint")
        for path, member in zip(paths, members):
            if _question(member.config) != _question(members[0].config):
                raise runs.CheckpointError(f"{path} answers another question than {paths[0]}: they are no ensemble")
        return cls(members)

    @property
    def targets(self):
        """Names of all that is answered."""
        return tuple(name for name in TARGETS if self.answering(name))

    def answering(self, target):
        """The members that were trained on a target."""
        return [member for member in self.members if target in member.config.targets]

    @property
    def inputs(self):
        """The combinations of modalities that the models were trained to answer from, the fullest first."""
        whole = self.config.model.modalities
        return (whole, *((modality,) for modality in whole)) if self.config.modality_dropout else (whole,)

    @property
    def effects(self):
        """The Effects that the members were trained under; None: ideal patterns."""
        return EFFECTS.get(self.config.augmentation)

    @torch.no_grad()
    def __call__(self, batch):
        """Answers for a Batch.  Models that know no patterns in part take what was not measured for zero."""
        if not self.config.partial:
            batch = replace(batch, masked=None)
        with sdpa_kernel(SDPBackend.MATH):
            outputs = [member.model(*batch.inputs) for member in self.members]
        values, logits = {}, {}
        for name in self.targets:
            pairs = [(m, out.predictions[name].double().numpy()) for m, out in zip(self.members, outputs)
                     if name in out.predictions]  # fmt: skip
            if TARGETS[name].kind == "regression":
                restored = [member.normalisers[name].restore(z) for member, z in pairs]
                values[name] = np.maximum(np.mean(restored, axis=0), TARGETS[name].least)
            else:
                logs = [z - logsumexp(z, axis=-1, keepdims=True) for _, z in pairs]
                logits[name] = logsumexp(logs, axis=0) - np.log(len(logs))
        return Answers(values=values, logits=logits, vectors=outputs[0].cls.double().numpy())

    def of_rows(self, dataset, rows, modalities, effects=None, pattern_rows=None):
        """Answers for some rows of a Dataset from some of its modalities alone.

        effects: Effects that patterns are measured under, drawn as in evaluation; None: ideal ones.
        pattern_rows: of each row the one whose pattern it is given, where that is not its own.
        """
        drawn = draw(effects, len(rows), 0) if effects else None
        pieces = []
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            shown = None if pattern_rows is None else pattern_rows[part]
            batch = make_batch(dataset, rows[part], drawn=None if drawn is None else drawn[part], pattern_rows=shown)
            pieces.append(self(only(batch, modalities) if modalities != self.inputs[0] else batch))
        return Answers.joined(pieces)


def model_files(folder):
    """The model files of a checkpoint folder in the order of its members: model, model-2, ..., model-10."""
    return sorted(Path(folder).glob("model*.safetensors"), key=lambda path: (len(path.stem), path.stem))


def _question(config):
    """What the members of an ensemble have in common: training crystals, inputs, effects."""
    dataset = config.dataset, config.split, config.left_out
    return dataset, config.model.modalities, config.augmentation, config.modality_dropout > 0


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
