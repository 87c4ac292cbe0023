"""How probable each candidate is, and that none of them is right: a small model, fitted where the answer is known.

A conditional logit (McFadden 1974): every candidate has a score, a sum of weights times features; "none of these" has
one, too; probabilities are their softmax.  Fitted by the likelihood of the space group that is true.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

PENALTY = 5e-4  # on the squares of the weights of standardised features
KNOTS = (-3.5, -2.5, -1.8, -1.2, -0.7)  # of log10(1 - score): its weight is linear in pieces
FEATURES = (
    *(f"misfit above {knot}" for knot in KNOTS), "misfit", "behind the best fit", "cell misfit", "free cell parameters",
    "free coordinates", "reflections", "coordinates a line", "exchange", "volume", "moved", "symmetry raised",
    "supporters", "rarer", "unchanged", "rank",
)  # fmt: skip
NONE_FEATURES = ("least misfit", *(f"least misfit above {knot}" for knot in KNOTS), "candidates", "few lines", "always")


def features(matches, known_space_groups, n_tried, n_lines):
    """Features (k, F) of Matches, and (G,) of "none of these".

    known_space_groups: (k,) of the crystals before refinement.  n_tried: how many candidates there were before.
    n_lines: of the pattern.
    """
    misfit = np.log10(np.clip(1 - matches.scores, 1e-5, 1))
    least = misfit.min(initial=0.0)
    groups = matches.space_groups
    near = misfit < misfit[:, None] + 0.3  # of each candidate, those that fit nearly as well or better
    supporters = ((groups[:, None] == groups) & near).sum(1)
    columns = [np.maximum(misfit - knot, 0) for knot in KNOTS]
    columns += [
        misfit, misfit - least, np.log10(np.clip(1 - matches.cell_scores, 1e-4, 1)), matches.n_free,
        np.log1p(matches.n_coordinates), np.log(np.maximum(matches.n_lines, 1)),
        np.minimum((matches.n_coordinates + matches.n_free) / max(n_lines, 1), 3.0), np.minimum(matches.costs, 15.0),
        np.minimum(np.abs(np.log(matches.volumes / matches.expected_volumes)), 0.3), np.minimum(matches.moved, 0.3),
        groups != known_space_groups, np.log(supporters), np.log1p((near & (groups[:, None] != groups)).sum(1)),
        matches.costs == 0, np.log1p(np.arange(len(groups))),
    ]  # fmt: skip
    none = [least, *(max(least - knot, 0) for knot in KNOTS), np.log1p(n_tried), np.log(max(n_lines, 1)), 1.0]
    return np.stack(columns, axis=1).astype(float), np.array(none, float)


@dataclass(frozen=True)
class Ranking:
    """Weights of the features of candidates, and of "none of these"."""

    weights: tuple[float, ...]  # (F,)
    none_weights: tuple[float, ...]  # (G,)

    def probabilities(self, candidates, none):
        """(k,) of candidates with features (k, F), and of "none of these" with features (G,)."""
        scores = np.append(candidates @ np.array(self.weights), none @ np.array(self.none_weights))
        shares = np.exp(scores - logsumexp(scores))
        return shares[:-1], float(shares[-1])

    @classmethod
    def fit(cls, samples):
        """From (features (k, F), features of "none" (G,), right (k,) bool) of samples whose answer is known."""
        n, n_weights = len(samples), samples[0][0].shape[1]
        # A row a candidate, and behind those of a sample one of "none": its own features beside zeros.
        rows = np.concatenate([_block(table, none) for table, none, _ in samples])
        right = np.concatenate([np.append(true, not true.any()) for *_, true in samples])
        lengths = np.array([len(table) + 1 for table, *_ in samples])
        starts = np.cumsum(lengths) - lengths
        of_none = np.zeros(len(rows), bool)
        of_none[starts + lengths - 1] = True
        deviation = np.append(rows[~of_none, :n_weights].std(0), rows[of_none, n_weights:].std(0))
        deviation[deviation < 1e-9] = 1.0  # the same for all, but for rounding
        scaled = rows / deviation

        def loss(x):
            scores = scaled @ x
            whole = np.logaddexp.reduceat(scores, starts)
            true = np.logaddexp.reduceat(np.where(right, scores, -1e9), starts)
            change = np.exp(scores - np.repeat(whole, lengths))
            change -= np.where(right, np.exp(scores - np.repeat(true, lengths)), 0.0)
            value = (whole - true).mean() + 0.5 * PENALTY * (x @ x)
            return value, change @ scaled / n + PENALTY * x

        x = minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B").x / deviation
        return cls(tuple(x[:n_weights].tolist()), tuple(x[n_weights:].tolist()))


def _block(table, none):
    """Candidates with features (k, F) and, in the last row, "none" with features (G,): (k + 1, F + G)."""
    out = np.zeros((len(table) + 1, table.shape[1] + len(none)))
    out[:-1, : table.shape[1]] = table
    out[-1, table.shape[1] :] = none
    return out
