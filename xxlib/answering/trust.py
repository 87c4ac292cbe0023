"""How far an ensemble's answers can be trusted: fitted on `val`, measured on `test`, stored beside the weights.

calibration.json        everything below but the vectors
neighbours.safetensors  vectors of training crystals, for each combination of inputs
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from xxlib.answering.calibration import Classes, Intervals, calibration_error, refusal, reliability
from xxlib.answering.novelty import ALARM, Contradiction, nearest
from xxlib.crystals.compositions import MAX_Z
from xxlib.training.records import JOINED
from xxlib.training.runs import CheckpointError, read_checked, write_checked

NEIGHBOURS = "neighbours.safetensors"
ANSWERED = (0.5, 0.8)  # shares of the samples at which the error of the surest is reported


@dataclass(frozen=True, eq=False, kw_only=True)
class Trust:
    """Of the answers that an ensemble gives from one combination of inputs."""

    intervals: dict[str, Intervals]  # of the regressions
    classes: dict[str, Classes]  # of the classifications
    farthest: float  # ALARM of ordinary samples are nearer to the training crystals
    training_vectors: np.ndarray  # (m, D) float16, of training crystals

    @classmethod
    def fit(cls, output, labels, training_vectors):
        """From the EnsembleOutput for `val` and its labels, name -> (n,)."""
        vectors, distance = _features(output, training_vectors)
        return cls(
            intervals={name: Intervals.fit(values, labels[name], vectors) for name, values in output.values.items()},
            classes={name: Classes.fit(logits, labels[name]) for name, logits in output.logits.items()},
            farthest=float(np.quantile(distance, ALARM)),
            training_vectors=training_vectors,
        )

    def half_widths(self, output):
        """Of the interval around each regression: name -> (n,) in its unit."""
        vectors, _ = _features(output, self.training_vectors)
        return {name: intervals.half_widths(vectors) for name, intervals in self.intervals.items()}

    def distance(self, output):
        """How far samples are from the training crystals: (n,)."""
        return _features(output, self.training_vectors)[1]

    def measure(self, output, labels):
        """Errors, and whether their intervals and sets hold, on crystals that nothing was fitted to: a flat dict."""
        unlike = self.distance(output) > self.farthest
        out = {"crystals": len(unlike), "unlike the training (%)": 100 * float(unlike.mean())}
        doubt_and_error = doubts(self, output, labels)
        for name in self.intervals:
            half, residuals = doubt_and_error[name]
            labelled = np.isfinite(residuals)
            if not labelled.any():
                continue
            out[f"{name} mae"] = float(residuals[labelled].mean())
            out[f"{name} coverage (%)"] = 100 * float((residuals <= half)[labelled].mean())
            out[f"{name} mean width"] = 2 * float(half[labelled].mean())
            shares, errors = refusal(half, residuals)
            out |= {f"{name} mae, surest {share:.0%}": float(errors[_at(shares, share)]) for share in ANSWERED}
        for name, classes in self.classes.items():
            doubt, wrong = doubt_and_error[name]
            labelled = np.isfinite(wrong)
            probabilities = classes.probabilities(output.logits[name])
            sets, true = classes.sets(probabilities)[labelled], labels[name][labelled].astype(int)
            out[f"{name} accuracy (%)"] = 100 - 100 * float(wrong[labelled].mean())
            error = calibration_error(reliability(probabilities, labels[name]))
            out[f"{name} calibration error (%)"] = 100 * error
            out[f"{name} set coverage (%)"] = 100 * float(sets[np.arange(len(sets)), true].mean())
            out[f"{name} mean set size"] = float(sets.sum(-1).mean())
            shares, errors = refusal(doubt, wrong)
            for share in ANSWERED:
                out[f"{name} accuracy (%), surest {share:.0%}"] = 100 - 100 * float(errors[_at(shares, share)])
        return out


def doubts(trust, output, labels):
    """Who is how sure, and how wrong: target -> (doubt (n,), error (n,), NaN = no label), larger doubt = less sure.

    The error of a regression is in its unit, that of a class 0 or 1.
    """
    pairs = {}
    for name, half in trust.half_widths(output).items():
        pairs[name] = half, np.abs(output.values[name] - labels[name])
    for name, classes in trust.classes.items():
        probabilities = classes.probabilities(output.logits[name])
        wrong = np.where(np.isfinite(labels[name]), probabilities.argmax(-1) != labels[name], np.nan)
        pairs[name] = -probabilities.max(-1), wrong
    return pairs


def _features(output, training_vectors):
    """(vectors with their log distance (n, D + 1), distance (n,) to the training crystals)."""
    distance = nearest(output.vectors, training_vectors.astype(np.float64))[0].mean(1)
    return np.column_stack([output.vectors, np.log(distance + 1e-9)]), distance


def _at(shares, share):
    return min(int(np.searchsorted(shares, share)), len(shares) - 1)


def write_trust(folder, trust, contradiction, elements):
    """Files of a checkpoint folder.

    trust: modalities -> Trust.  contradiction: Contradiction or None.  elements: (119,) number of training crystals
    that contain an element, by atomic number.
    """
    values = {
        "inputs": {
            JOINED.join(modalities): {
                "modalities": modalities,
                "farthest": part.farthest,
                "intervals": {name: dataclasses.asdict(fitted) for name, fitted in part.intervals.items()},
                "classes": {name: dataclasses.asdict(fitted) for name, fitted in part.classes.items()},
            }
            for modalities, part in trust.items()
        },
        "contradiction": contradiction and dataclasses.asdict(contradiction),
        "elements": [int(count) for count in elements],
    }
    write_checked(Path(folder) / "calibration.json", (json.dumps(values) + "\n").encode())
    vectors = {JOINED.join(modalities): part.training_vectors for modalities, part in trust.items()}
    write_checked(Path(folder) / NEIGHBOURS, save(vectors))


def read_trust(folder):
    """(trust, contradiction, elements) as write_trust takes them; raises CheckpointError where a file is damaged."""
    path = Path(folder) / "calibration.json"
    values, vectors = json.loads(read_checked(path)), load(read_checked(Path(folder) / NEIGHBOURS))
    try:
        trust = {
            tuple(part["modalities"]): Trust(
                intervals={target: Intervals(**_tuples(fitted)) for target, fitted in part["intervals"].items()},
                classes={target: Classes(**fitted) for target, fitted in part["classes"].items()},
                farthest=part["farthest"],
                training_vectors=vectors[name],
            )
            for name, part in values["inputs"].items()
        }
        contradiction = Contradiction(**_tuples(values["contradiction"])) if values["contradiction"] else None
        elements = np.array(values["elements"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is of another version ({error}): release the run again") from error
    return trust, contradiction, elements


def _tuples(values):
    """A dict of JSON with its lists as the dataclasses have them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def count_elements(dataset, rows):
    """Number of crystals among some rows of a Dataset that contain each element: (119,) by atomic number."""
    element_ids, _ = dataset.take("element_ids", rows)
    return np.bincount(element_ids, minlength=MAX_Z + 1)
