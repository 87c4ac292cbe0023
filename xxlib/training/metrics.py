"""How good predictions are: plain numpy on all examples at once, never averages of batch averages."""

import numpy as np
import pandas as pd

CONFIDENCE = 0.95  # of intervals
KNOWN, NEW = "known formula", "new formula"  # crystals whose formula is in train, and the others
# Relative change of a metric: of an encoder that has collapsed 1e-7, of one that a model hardly reads yet down to 4e-4.
IGNORED = 1e-5
IGNORES = "answers the same when it is given the pattern of another crystal: a lower learning rate may help"


def regression_metrics(true, predicted):
    """mae and rmse in the unit of the target, r2; examples without a label (NaN) do not count."""
    labelled = np.isfinite(true)
    error = predicted[labelled] - true[labelled]
    variance = np.square(true[labelled] - true[labelled].mean()).mean()
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "r2": float(1 - np.square(error).mean() / variance) if variance > 0 else float("nan"),
    }


def classification_metrics(true, probabilities):
    """accuracy, balanced_accuracy (mean over the classes present) and log_loss (nat).

    true: (n,) class indices, NaN = no label.  probabilities: (n, K).
    """
    labelled = np.isfinite(true)
    true, probabilities = true[labelled].astype(int), probabilities[labelled]
    right = probabilities.argmax(1) == true
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean([right[true == k].mean() for k in np.unique(true)])),
        "log_loss": float(-np.log(np.maximum(probabilities[np.arange(len(true)), true], 1e-12)).mean()),
    }


def ignores_pattern(records):
    """Whether a model of several modalities answers without its pattern.

    records: of `val`, of one step.  True where every metric stays within IGNORED of what it is when patterns are
    exchanged: the encoder of patterns has collapsed to one output, which an error of the whole may hide.
    """
    val = [one for one in records if one["split"] == "val" and one["target"] and one["effects"] is None]
    own = {(one["given"], one["target"], one["metric"]): one["value"] for one in val if one["exchanged"] is None}
    exchanged = [one for one in val if one["exchanged"] == "xrd"]
    pairs = [(one["value"], own[one["given"], one["target"], one["metric"]]) for one in exchanged]
    return bool(pairs) and all(abs(a - b) <= IGNORED * abs(b) for a, b in pairs)


def limit_of_composition(formulas, labels, kind):
    """What the best possible model of the composition alone would reach, because polymorphs share a formula.

    formulas, labels: (n,), NaN = no label; kind: of the target.  Returns the MAE that the median of each formula has
    ("regression"), or the accuracy of its most frequent class ("classification").
    """
    by_formula = pd.Series(labels).groupby(np.asarray(formulas))
    if kind == "regression":
        return float((labels - by_formula.transform("median")).abs().mean())
    return float(by_formula.agg(lambda labels: labels.value_counts().max()).sum() / by_formula.count().sum())


def accuracy_interval(right):
    """n, accuracy (%) and the ends of its 95 % interval (Wilson 1927) of outcomes (n,) bool, as a dict."""
    if not len(right):
        return {"n": 0, "accuracy (%)": np.nan, "low (%)": np.nan, "high (%)": np.nan}
    from scipy.stats import binomtest  # half as long to import as torch, and no training needs it

    interval = binomtest(int(np.sum(right)), len(right)).proportion_ci(CONFIDENCE, "wilson")
    shares = {"accuracy (%)": np.mean(right), "low (%)": interval.low, "high (%)": interval.high}
    return {"n": len(right)} | {name: 100 * float(share) for name, share in shares.items()}
