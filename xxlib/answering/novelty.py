"""Is a sample like those a model was trained on, and do its composition and its pattern belong together?"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

K = 5  # neighbours whose mean distance says how far a sample is from the training crystals
ALARM = 0.99  # share of ordinary samples that give no warning


def nearest(vectors, others, k=K):
    """Distances (n, k) of vectors (n, D) to their k nearest of others (m, D), and which these are (n, k)."""
    return NearestNeighbors(n_neighbors=min(k, len(others))).fit(others).kneighbors(vectors)


@dataclass(frozen=True)
class Contradiction:
    """Does a pattern belong to another composition?  A logistic regression on signs of disagreement."""

    weights: tuple[float, ...]  # (F,)
    bias: float
    threshold: float  # ALARM of the right pairs score below

    @classmethod
    def fit(cls, right, wrong):
        """From the signs (n, F) of pairs that belong together, and of pairs that do not."""
        signs, labels = np.concatenate([right, wrong]), np.repeat([0, 1], [len(right), len(wrong)])
        scaler = StandardScaler().fit(signs)
        model = LogisticRegression(max_iter=1000).fit(scaler.transform(signs), labels)
        weights = model.coef_[0] / scaler.scale_
        fitted = cls(tuple(weights.tolist()), float(model.intercept_[0] - weights @ scaler.mean_), 0.0)
        return cls(fitted.weights, fitted.bias, float(np.quantile(fitted.score(right), ALARM)))

    def score(self, signs):
        """(n,) from 0 (they belong together) to 1, of signs (n, F)."""
        return expit(signs @ np.array(self.weights) + self.bias)


def signs_of_disagreement(composition, xrd, both, distance):
    """Signs (n, F), larger = stronger, that a composition and a pattern do not belong together.

    composition, xrd, both: EnsembleOutputs for the same samples from one modality, the other, the two.  distance: (n,)
    of the vectors of `both` to those of training crystals.  A sign is this distance, and for each target how far each
    two of the three outputs are apart: the absolute difference of regressions, the divergence of probabilities.
    """
    pairs = ((composition, xrd), (composition, both), (xrd, both))
    columns = [np.log(distance + 1e-9)]
    columns += [np.abs(a.values[name] - b.values[name]) for name in both.values for a, b in pairs]
    columns += [jensen_shannon(a.logits[name], b.logits[name]) for name in both.logits for a, b in pairs]
    return np.stack(columns, axis=1)


def jensen_shannon(a, b):
    """Divergence (n,), nat, of the distributions that logits (n, K) stand for."""
    a, b = log_softmax(a, axis=-1), log_softmax(b, axis=-1)
    middle = np.logaddexp(a, b) - np.log(2)
    return 0.5 * ((np.exp(a) * (a - middle)).sum(-1) + (np.exp(b) * (b - middle)).sum(-1))


def auroc(ordinary, strange):
    """Probability that a strange sample scores above an ordinary one: 1 is perfect, 0.5 is chance."""
    labels = np.repeat([0, 1], [len(ordinary), len(strange)])
    return float(roc_auc_score(labels, np.concatenate([ordinary, strange])))
