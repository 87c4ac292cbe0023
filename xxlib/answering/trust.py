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
from xxlib.training.runs import UNREADABLE, CheckpointError, read_checked, write_checked

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
    stored, neighbours = read_checked(path), read_checked(Path(folder) / NEIGHBOURS)
    try:
        values, vectors = json.loads(stored), load(neighbours)
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
        for part in trust.values():
            _check_part(part)
        if contradiction:
            _check_numbers("contradiction", *contradiction.weights, contradiction.bias, contradiction.threshold)
        if elements.shape != (MAX_Z + 1,) or elements.dtype.kind != "i" or elements.min() < 0:
            raise ValueError(f"elements are not {MAX_Z + 1} numbers of crystals")
    except (*UNREADABLE, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} is damaged or of another version ({why}): release the run again") from error
    return trust, contradiction, elements


def _check_part(part):
    """Raise ValueError where a Trust cannot have been fitted."""
    vectors = part.training_vectors
    if vectors.ndim != 2 or not vectors.size or vectors.dtype.kind != "f" or not np.isfinite(vectors).all():
        raise ValueError(f"{NEIGHBOURS} holds {vectors.dtype} of shape {vectors.shape}, not finite vectors")
    _check_numbers("farthest", part.farthest, least=0)
    for name, fitted in part.intervals.items():
        _check_numbers(f"the quantile of {name}", fitted.quantile, least=0, most=np.inf)
        _check_numbers(f"the difficulty of {name}", *fitted.mean, *fitted.weights)
        if len(fitted.mean) != len(fitted.weights) or len(fitted.mean) not in (0, vectors.shape[1] + 1):
            raise ValueError(f"the difficulty of {name} has {len(fitted.mean)} and {len(fitted.weights)} numbers")
    for name, fitted in part.classes.items():
        _check_numbers(f"the temperature of {name}", fitted.temperature, least=1e-6)
        _check_numbers(f"the threshold of {name}", fitted.threshold, least=-np.inf, most=1)


def _check_numbers(name, *numbers, least=-1e30, most=1e30):
    """Raise ValueError unless all are numbers from `least` to `most`."""
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float) or not least <= number <= most:
            raise ValueError(f"{name} is {repr(number)[:40]}")


def check_trust(folder, trust, contradiction, ensemble, training):
    """Raise CheckpointError where what read_trust gives is not of an ensemble and its Dataset of training crystals."""
    try:
        if set(trust) != set(ensemble.inputs):
            given = ", ".join(sorted(map(JOINED.join, trust)))
            raise ValueError(f"calibrated from {given or 'nothing'}, the model answers from other inputs")
        for modalities, part in trust.items():
            output = ensemble.of_rows(training, np.arange(1), modalities)
            if part.intervals.keys() != output.values.keys() or part.classes.keys() != output.logits.keys():
                raise ValueError(f"calibrated for {', '.join([*part.intervals, *part.classes])}, not for its targets")
            expected = (len(training), output.vectors.shape[1])
            if part.training_vectors.shape != expected:
                raise ValueError(f"vectors of shape {part.training_vectors.shape}, not {expected}")
        n_signs = 1 + 3 * (len(output.values) + len(output.logits))
        if contradiction and (len(contradiction.weights) != n_signs or len(ensemble.inputs) < 2):
            raise ValueError(f"a contradiction of {len(contradiction.weights)} signs")
    except ValueError as error:
        raise CheckpointError(f"{folder} does not fit together ({error}): release the runs again") from error


def _tuples(values):
    """A dict of JSON with its lists as the dataclasses have them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def count_elements(dataset, rows):
    """Number of crystals among some rows of a Dataset that contain each element: (119,) by atomic number."""
    element_ids, _ = dataset.take("element_ids", rows)
    return np.bincount(element_ids, minlength=MAX_Z + 1)
