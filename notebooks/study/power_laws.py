"""Power laws: how an error falls with the number of training crystals, and where two of them cross.

Intervals are 95 % and come from the covariance of the fit: parameters are drawn from the multivariate Student
distribution around the best ones, with as many degrees of freedom as points less parameters, and every interval (of a
parameter, of the curve, of a crossing) is taken from the same draws.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import least_squares
from scipy.stats import multivariate_t

DRAWS = 2000
INTERVAL = (2.5, 97.5)  # percentiles
LARGEST = 700.0  # of which e to the power is still a number


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """error = a N^-b + c, with its 95 % intervals; N in training crystals, a and c in the unit of the error."""

    a: float
    b: float
    c: float
    draws: np.ndarray  # (DRAWS, 3): log a, b, log c that the points allow; of few points a itself may overflow

    def error(self, n):
        """The fitted error at n (k,) training crystals: (k,)."""
        return self.a * np.asarray(n, float) ** -self.b + self.c

    def band(self, n):
        """Lower and upper end of the error at n (k,) training crystals: (k,) each."""
        ends = np.percentile(_log_errors(self.draws, np.log(n)), INTERVAL, axis=0)
        return np.exp(ends.clip(max=LARGEST))

    def interval(self, name):
        """Lower and upper end of the parameter "a", "b" or "c"."""
        # No mean of a number and the -inf that is the logarithm of c = 0.
        ends = np.percentile(self.draws[:, "abc".index(name)], INTERVAL, method="nearest")
        return tuple((ends if name == "b" else np.exp(ends.clip(max=LARGEST))).tolist())


def _log_errors(parameters, log_n):
    """Logarithms of the errors at sizes (m,) of laws (k, 3), given as PowerLaw.draws: (k, m)."""
    log_a, b, log_c = parameters.T[..., None]
    return np.logaddexp(log_a - b * log_n, log_c)


def power_law(n, errors, floor=False, seed=0):
    """The PowerLaw through errors (k,) at n (k,) training crystals, one point a run: least squares of log(error).

    floor: fit c >= 0 as well, the error that no number of crystals removes; 0 where left out.  Raises ValueError where
    there are not more points than parameters, or fewer sizes than parameters.
    """
    n, errors = np.asarray(n, float), np.asarray(errors, float)
    parameters = 3 if floor else 2
    if len(n) <= parameters or len(np.unique(n)) < parameters:
        raise ValueError(f"{len(n)} points at {len(np.unique(n))} sizes: a fit of {parameters} parameters needs more")
    if not (n > 0).all() or not (errors > 0).all():
        raise ValueError("sizes and errors must be positive: a power law is a line between their logarithms")

    # The size is counted from its geometric mean, where a and b are least entangled; c in units of the smallest error.
    centre, unit = np.exp(np.log(n).mean()), errors.min()

    def residuals(x):
        return np.log(np.exp(x[0]) * (n / centre) ** -x[1] + (x[2] * unit if floor else 0)) - np.log(errors)

    slope, height = np.polyfit(np.log(n / centre), np.log(errors), 1)
    start, low = [height, -slope, 0.1][:parameters], [-np.inf, -np.inf, 0.0][:parameters]
    fit = least_squares(residuals, start, bounds=(low, np.inf), x_scale="jac", xtol=1e-12, ftol=1e-12)
    freedom = len(n) - parameters
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac) * np.square(fit.fun).sum() / freedom
    drawn = multivariate_t(fit.x, covariance, df=freedom, allow_singular=True, seed=seed).rvs(DRAWS)  # (DRAWS, p)

    def unscaled(x):
        with np.errstate(divide="ignore"):
            log_c = np.log(np.maximum(x[..., 2] * unit, 0) if floor else np.zeros(x.shape[:-1]))
        return np.stack([x[..., 0] + x[..., 1] * np.log(centre), x[..., 1], log_c], axis=-1)

    log_a, b, log_c = unscaled(fit.x).tolist()
    return PowerLaw(float(np.exp(log_a)), b, float(np.exp(log_c)), unscaled(drawn))


def crossing(first, second, largest=1e12):
    """Number of training crystals at which two PowerLaws are equal, and the ends of its 95 % interval.

    Laws with a floor may be equal twice: the larger number counts.
    An end is inf where the points allow that the lines do not cross below `largest`, and 0 where they allow that they
    have crossed before one crystal.  Raises ValueError where the fitted lines themselves do not cross in between.
    """
    grid = np.linspace(0, np.log(largest), 300)

    def last_crossing(gap, before):
        """gap: (k, 300) log ratio of the errors; before: its sign at one crystal.  log N (k,)."""
        side = np.sign(gap) == before
        last = side.shape[1] - 1 - side[:, ::-1].argmax(1)  # the last place on the side of before
        i = np.minimum(last, len(grid) - 2)
        rows = np.arange(len(gap))
        y0, y1 = gap[rows, i], gap[rows, i + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            at = grid[i] + (grid[i + 1] - grid[i]) * y0 / (y0 - y1)
        return np.where(side[:, -1], np.inf, np.where(side.any(1), at, -np.inf))

    gap = (np.log(first.error(np.exp(grid))) - np.log(second.error(np.exp(grid))))[None]
    before = np.sign(gap[0, 0])
    (at,) = last_crossing(gap, before)
    if not np.isfinite(at):
        raise ValueError(f"the fitted lines do not cross between 1 and {largest:g} training crystals")
    # Shuffled, for two fits draw with the same seed and would otherwise vary in step.
    shuffled = np.random.default_rng(0).permutation(second.draws)
    drawn = last_crossing(_log_errors(first.draws, grid) - _log_errors(shuffled, grid), before)
    ends = np.percentile(drawn, INTERVAL, method="nearest")  # no mean of a number and inf
    return float(np.exp(at)), *np.exp(ends).tolist()


def crossings(fits):
    """Where each two of several PowerLaws (name -> fit) are equal: a table with the ends of the 95 % interval.

    A pair that does not cross has no number.
    """
    rows = []
    for (one, first), (other, second) in itertools.combinations(fits.items(), 2):
        try:
            at = crossing(first, second)
        except ValueError:
            at = (np.nan,) * 3
        rows.append({"lines": f"{one} and {other}", **dict(zip(("training crystals", "from", "to"), at))})
    return pd.DataFrame(rows, columns=["lines", "training crystals", "from", "to"])
