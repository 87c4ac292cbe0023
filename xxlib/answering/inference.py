"""What trained models say of samples: an ensemble of checkpoints, asked with all inputs or with some of them."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import logsumexp
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from xxlib.datasets.batches import Batch, chunks, make_batch, sample_batch
from xxlib.datasets.targets import TARGETS, Normaliser
from xxlib.diffraction import patterns
from xxlib.diffraction.effects import EFFECTS, draw
from xxlib.models.inputs import INPUTS
from xxlib.scans.samples import Sample
from xxlib.training import runs
from xxlib.training.config import ConfigError, RunConfig, from_dict
from xxlib.training.state import build_model

BATCH = 256
ONE_AT_A_TIME = threading.Lock()  # which attention is computed how is a setting of the whole process


@dataclass(frozen=True, eq=False, kw_only=True)
class EnsembleOutput:
    """What an ensemble says of n samples."""

    values: dict[str, np.ndarray]  # regression -> (n,) in the unit of the target, mean over the members
    logits: dict[str, np.ndarray]  # classification -> (n, K) logarithm of the mean probability
    vectors: np.ndarray  # (n, D) the CLS that the heads of the first member read

    def taken(self, rows):
        """The outputs for some of the samples, in the order of rows (k,)."""
        return EnsembleOutput(
            values={name: values[rows] for name, values in self.values.items()},
            logits={name: logits[rows] for name, logits in self.logits.items()},
            vectors=self.vectors[rows],
        )

    @classmethod
    def joined(cls, pieces):
        """The samples of several outputs, one after the other."""
        return cls(
            values={name: np.concatenate([piece.values[name] for piece in pieces]) for name in pieces[0].values},
            logits={name: np.concatenate([piece.logits[name] for piece in pieces]) for name in pieces[0].logits},
            vectors=np.concatenate([piece.vectors for piece in pieces]),
        )


class TrainedModel(NamedTuple):
    """What a model file holds."""

    model: nn.Module  # in eval mode
    config: RunConfig
    normalisers: dict[str, Normaliser]  # of its regressions


def load_trained(path):
    """The TrainedModel of a model file; raises CheckpointError where it is missing, damaged or of an old design."""
    path = Path(path)
    tensors, metadata = runs.load_model(path.parent, path.name)
    try:
        config, grid = from_dict(metadata["config"]), metadata["grid"]
        normalisers = {name: Normaliser(**values) for name, values in metadata["normalisers"].items()}
        for name, fitted in normalisers.items():
            if not (np.isfinite(fitted.mean) and 0 < fitted.std < np.inf):
                raise ValueError(f"the mean of {name} is {fitted.mean}, its standard deviation {fitted.std}")
        if grid != patterns.grid():
            raise ValueError(f"it reads patterns on the grid {grid}, this xxlib has {patterns.grid()}")
        if {name for name in config.objectives.targets if TARGETS[name].kind == "regression"} != set(normalisers):
            raise ValueError(f"its normalisers are of {', '.join(normalisers) or 'nothing'}, not of its targets")
    except (ConfigError, ValueError) as error:
        raise runs.CheckpointError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise runs.CheckpointError(f"{path} is no model of this kit ({error}): train and release it again") from error
    with torch.device("meta"):  # without memory: what does not fit its own file may have any size
        runs.check_weights(build_model(config), tensors, path)
    model = build_model(config)
    runs.load_weights(model, tensors, path)
    return TrainedModel(model.eval(), config, normalisers)


def load_guessing(path):
    """The model of a file that guesses hidden tokens of patterns; raises CheckpointError as load_trained does."""
    trained = load_trained(path)
    if "xrd" not in trained.config.objectives.masked:
        raise runs.CheckpointError(f"{path} guesses no tokens of patterns: release it with another, or without")
    return trained.model


class Ensemble:
    """Models that read the same inputs; a target is answered by the mean of those that were trained on it."""

    def __init__(self, members):
        """members: TrainedModels, of which the first says where a sample lies among the training crystals."""
        self.members, self.config = members, members[0].config

    @classmethod
    def load(cls, paths):
        """From the model files of a checkpoint or of runs.

        Raises CheckpointError where there is none, or one is damaged or not of the same kind as the first.
        """
        paths = list(paths)
        members = [load_trained(path) for path in paths]
        if not members:
            raise runs.CheckpointError("there is no model file: give the folder of a released checkpoint")
        for path, member in zip(paths, members):
            if not member.config.objectives.targets:
                raise runs.CheckpointError(f"{path} answers no target: it was pretrained only")
            if _question(member.config) != _question(members[0].config):
                raise runs.CheckpointError(f"{path} answers another question than {paths[0]}: they are no ensemble")
        return cls(members)

    @property
    def targets(self):
        """Names of all that is answered."""
        return tuple(name for name in TARGETS if self.answering(name))

    def answering(self, target):
        """The members that were trained on a target."""
        return [member for member in self.members if target in member.config.objectives.targets]

    @property
    def inputs(self):
        """The combinations of modalities that the models were trained to answer from, the fullest first."""
        whole = tuple(name for name in INPUTS if name in self.config.model.modalities)  # in the order of a Sample
        return (whole, *((modality,) for modality in whole)) if self.config.data.absent_rate else (whole,)

    @property
    def effects(self):
        """The Effects that the members were trained under; None: ideal patterns."""
        return EFFECTS.get(self.config.data.effects)

    @torch.no_grad()
    def __call__(self, batch):
        """EnsembleOutput of a Batch."""
        with ONE_AT_A_TIME, sdpa_kernel(SDPBackend.MATH):
            outputs = [member.model(batch.inputs, batch.given) for member in self.members]
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
        return EnsembleOutput(values=values, logits=logits, vectors=outputs[0].fused.x[:, 0].double().numpy())

    def of_rows(self, dataset, rows, modalities, effects=None, pattern_rows=None):
        """EnsembleOutput for some rows of a Dataset from some of its modalities alone.

        effects: Effects that patterns are measured under, drawn as in evaluation; None: ideal ones.
        pattern_rows: of each row the one whose pattern it is given, where that is not its own.
        """
        drawn = draw(effects, len(rows), 0) if effects else None
        pieces = []
        for part in chunks(np.arange(len(rows)), BATCH):
            batch = make_batch(
                dataset, rows[part], self.config.model.modalities, drawn=None if drawn is None else drawn[part],
                rows_of={} if pattern_rows is None else {"xrd": pattern_rows[part]},
            )  # fmt: skip
            pieces.append(self(batch.only(modalities)))
        return EnsembleOutput.joined(pieces)


def model_files(folder):
    """The model files of a checkpoint folder in the order of its members: model, model-2, ..., model-10."""
    return sorted(Path(folder).glob("model*.safetensors"), key=lambda path: (len(path.stem), path.stem))


def _question(config):
    """What the members of an ensemble have in common: training crystals, inputs, whether patterns were ideal."""
    data = config.data
    return data.dataset, data.split, data.left_out, config.model.modalities, data.effects is None, data.absent_rate > 0


def batch_of(sample: Sample) -> Batch:
    """A Batch of one Sample."""
    return sample_batch([sample.element_ids], [sample.fractions], sample.pattern[None], sample.hidden[None])
