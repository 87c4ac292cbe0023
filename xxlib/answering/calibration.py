"""How sure an answer is: temperatures, conformal intervals and sets, fitted on crystals that nothing was trained on.

Split-conformal prediction (Vovk et al. 2005; Lei et al., J. Am. Stat. Assoc. 113, 1094, 2018): where new samples are
like those of the fit, intervals and sets hold the truth with the probability LEVEL, whatever the model is.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.linear_model import GammaRegressor

LEVEL = 0.9  # share of intervals and sets that hold the truth
DIFFICULTY_RANGE = np.log(10)  # a sample counts as at most ten times harder or easier than the median one
PENALTY = 0.01  # on the weights of the difficulty, of standardised dimensions
FOLDS = 5


@dataclass(frozen=True)
class Intervals:
    """prediction +- quantile * difficulty of one regression target."""

    quantile: float  # in the unit of the target
    mean: tuple[float, ...] = ()  # (D,) of the vectors; empty: all samples count as equally hard
    weights: tuple[float, ...] = ()  # (D,) log difficulty per unit of a vector

    @classmethod
    def fit(cls, predicted, true, vectors):
        """From predictions and labels (n,) and the vectors (n, D) of the same crystals; NaN = no label.

        The difficulty, where it makes intervals better (Winkler's score in cross-validation), is a linear function of
        the vector, fitted to the size of the residuals.
        """
        labelled = np.isfinite(true)
        residuals, vectors = np.abs(predicted - true)[labelled], vectors[labelled]
        folds = np.arange(len(residuals)) % FOLDS
        difficulty = np.empty(len(residuals))  # of each crystal by a fit that has not seen it
        for fold in range(FOLDS):
            mean, weights = _fit_difficulty(residuals[folds != fold], vectors[folds != fold])
            difficulty[folds == fold] = _difficulty(vectors[folds == fold], mean, weights)
        flat, local = conformal_quantile(residuals), conformal_quantile(residuals / difficulty)
        if _winkler(residuals, np.full(len(residuals), flat)) <= _winkler(residuals, local * difficulty):
            return cls(flat)
        mean, weights = _fit_difficulty(residuals, vectors)
        return cls(local, tuple(mean.tolist()), tuple(weights.tolist()))

    def half_widths(self, vectors):
        """(n,) in the unit of the target, of vectors (n, D)."""
        if not self.weights:
            return np.full(len(vectors), self.quantile)
        return self.quantile * _difficulty(vectors, np.array(self.mean), np.array(self.weights))


def _fit_difficulty(residuals, vectors):
    """(mean, weights) of a regression of the size of residuals on vectors: gamma deviance, logarithmic link."""
    mean, scale = vectors.mean(0), vectors.std(0) + 1e-6
    model = GammaRegressor(alpha=PENALTY, solver="newton-cholesky")
    return mean, model.fit((vectors - mean) / scale, residuals + 1e-9).coef_ / scale


def _difficulty(vectors, mean, weights):
    return np.exp(np.clip((vectors - mean) @ weights, -DIFFICULTY_RANGE, DIFFICULTY_RANGE))


def _winkler(residuals, half_widths):
    """Mean interval score (Winkler 1972): the width, and 2 / (1 - LEVEL) times what the truth lies outside."""
    return np.mean(2 * half_widths + 2 / (1 - LEVEL) * np.maximum(residuals - half_widths, 0))


@dataclass(frozen=True)
class Classes:
    """Calibrated probabilities of one classification target, and the set of classes that holds the truth."""

    temperature: float
    threshold: float  # a class with at least this probability belongs to the set

    @classmethod
    def fit(cls, logits, true):
        """From logits (n, K) and class indices (n,), NaN = no label: the temperature of least log loss (Guo et al.
        2017), then the threshold."""
        labelled = np.isfinite(true)
        logits, true = logits[labelled], true[labelled].astype(int)
        rows = np.arange(len(true))

        def log_loss(log_temperature):
            return -log_softmax(logits / np.exp(log_temperature), axis=-1)[rows, true].mean()

        temperature = float(np.exp(minimize_scalar(log_loss, bounds=(-3, 3), method="bounded").x))
        doubts = 1 - softmax(logits / temperature, axis=-1)[rows, true]
        return cls(temperature, 1 - conformal_quantile(doubts))

    def probabilities(self, logits):
        """(n, K)."""
        return softmax(logits / self.temperature, axis=-1)

    def sets(self, probabilities):
        """Which classes belong to the set: (n, K) bool.  The most probable class always does."""
        most = probabilities.max(-1, keepdims=True)
        return (probabilities >= self.threshold) | (probabilities == most)


def conformal_quantile(scores, level=LEVEL):
    """The value that a new score stays below with the probability `level`; infinite where the scores are too few."""
    rank = int(np.ceil((len(scores) + 1) * level))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else float("inf")


def reliability(probabilities, true, n_bins=10):
    """Is what is said with 80 % right in 80 % of cases?  One row a bin of the largest probability.

    probabilities: (n, K).  true: (n,) class indices, NaN = no label.  Columns: confidence (mean), accuracy, crystals.
    """
    labelled = np.isfinite(true)
    confidence, right = probabilities[labelled].max(-1), probabilities[labelled].argmax(-1) == true[labelled]
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    rows = [(confidence[bins == b].mean(), right[bins == b].mean(), (bins == b).sum()) for b in np.unique(bins)]
    return pd.DataFrame(rows, columns=["confidence", "accuracy", "crystals"])


def calibration_error(table):
    """Expected calibration error of a reliability table: mean distance of confidence and accuracy."""
    return float(np.average((table["confidence"] - table["accuracy"]).abs(), weights=table["crystals"]))


def refusal(doubt, errors):
    """What is left of the error where the most doubtful answers are refused: (share answered (n,), mean error (n,)).

    doubt: (n,), larger = less sure.  errors: (n,), NaN = no label.
    """
    labelled = np.isfinite(errors)
    order = np.argsort(doubt[labelled], kind="stable")
    n = np.arange(1, len(order) + 1)
    return n / len(order), np.cumsum(errors[labelled][order]) / n
