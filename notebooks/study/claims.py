"""What is claimed and what runs say of it: whether a difference counts.

It does where its 95 % interval over seeds (Welch's t) leaves out zero, a side of one seed being taken to spread like
the other; where both have one seed, the interval over the crystals of `test`, which is said.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from study import archive
from study.archive import RESULTS

# How `given` is told to a person.
WORDS = {
    "composition + xrd": "from both",
    "composition": "from the composition alone",
    "xrd": "from the pattern alone",
}
OUTCOMES = ("held", "did not hold", "open")
# How figures call what the code calls otherwise, the longer ones first.
SPOKEN = {
    "composition + xrd": "composition and pattern",
    "contrastive + MXM": "both tasks",
    "from contrastive": "after the contrastive task",
    "from both": "after both tasks",
    "from mxm": "after masked modelling",
    "predictor-laboratory": "one network, laboratory effects in training",
    "predictor-ideal": "one network, ideal patterns in training",
    "mp36k-wide": "released model",
    "generated50k": "50,000 generated crystals",
    "mp36k": "crystals of mp36k",
    "xrd": "pattern",
    "MXM": "masked modelling",
}


SUPERSEDED = ("mp36k-small", "mp36k-plus")  # releases that figures leave out; tables keep them


def spoken(name):
    """A name as figures have it."""
    for ours, words in SPOKEN.items():
        if ours in name:
            return words.join(map(spoken, name.split(ours)))
    return name


@dataclass(frozen=True)
class Finding:
    """A claim, of which quantity, what was measured, and whether it "held", "did not hold" or is "open", with what
    decides that; what the paper has there.

    As a string it is a sentence of each but the paper's.
    """

    claim: str
    of: str
    measured: str
    verdict: str
    paper: str = ""

    @property
    def outcome(self):
        """ "held", "did not hold" or "open"."""
        return next(outcome for outcome in OUTCOMES if self.verdict.startswith(outcome))

    def __str__(self):
        return f"{self.claim}, {self.of}: {self.measured}. {self.verdict[0].upper()}{self.verdict[1:]}."


def unfinished(claim, of, missing, paper=""):
    """The Finding of a claim whose runs are missing."""
    return Finding(claim, of, f"not finished, missing {'; '.join(missing)}", "open", paper)


def outcome(findings):
    """What became of a claim, of which these are the Findings: "held for A and B, and is open for C"."""
    parts = []
    for one in OUTCOMES:
        if quantities := [finding.of for finding in findings if finding.outcome == one]:
            verb = "is open" if one == "open" else one
            parts.append(f"{verb} for {' and '.join(', '.join(quantities).rsplit(', ', 1))}")
    return ", and ".join(parts)


def measured(row, metric):
    """A metric of a row of a table, with its spread over seeds where it has one: "69.5 ± 1.4 (4 seeds)"."""
    spread = row[f"+- {metric}"]
    return f"{row[metric]:.3g}" + (f" ± {spread:.2g} ({row['seeds']:.0f} seeds)" if np.isfinite(spread) else "")


def paired(one, other, target, place=RESULTS, among=None):
    """How much larger the errors of one run are than those of another, and half of the 95 % interval of that.

    Over the crystals of `test` that both have, or those of them with ids `among` some; meV/atom, eV, or points of wrong
    classes.  NaN where no predictions are.
    """
    change = _change(one, other, target, place)
    if change is not None and among is not None:
        change = change[change.index.isin(among)]
    return (np.nan, np.nan) if change is None else (change.mean(), 1.96 * change.sem())


def scatter(one, other, target, place=RESULTS):
    """Standard error over the crystals of `test` of the difference of two runs' errors, NaN where one is not there."""
    change = _change(one, other, target, place)
    return np.nan if change is None else change.sem()


def _change(one, other, target, place):
    before, after = (archive.errors(name, target, place) for name in (other, one))
    return None if before is None or after is None else (after - before).dropna()


def verdict(one, other, metric, unit, better, scatter):
    """Whether the other row of a table is better, beyond the spread over seeds.

    better: 1 where larger is, -1 where smaller is.  scatter: standard error of the difference over the crystals of
    `test`, for where both have one seed.
    """
    spreads = np.array([row[f"+- {metric}"] for row in (one, other)], float)
    seeds = np.array([one["seeds"], other["seeds"]], float)
    several, difference = np.isfinite(spreads), other[metric] - one[metric]
    if not several.any():
        return counted(difference, scatter, unit, better)
    squares = np.where(several, spreads, np.nanmax(spreads)) ** 2 / seeds
    freedom = seeds[several] - 1
    if several.all() and squares.any():  # Welch and Satterthwaite
        freedom = squares.sum() ** 2 / (squares**2 / freedom).sum()
    return counted(difference, np.sqrt(squares.sum()), unit, better, np.min(freedom))


def counted(difference, error, unit="", better=1, freedom=None):
    """Whether a difference counts, in words.  error: its standard error over seeds, with its degrees of freedom, or
    over thousands of crystals."""
    reach = error * quantile(freedom or np.inf)
    held = "held" if better * difference > reach else "did not hold" if better * difference < -reach else "open"
    over = "seeds" if freedom else "crystals, one seed each"
    unit = f" {'points' if unit == '%' else unit}" if unit else ""
    interval = f"{difference - reach:+.2g} to {difference + reach:+.2g}"
    return f"{held}, {difference:+.2g}{unit} (95 % over {over}: {interval})"


def quantile(freedom):
    """How many standard errors a 95 % interval reaches to either side."""
    return t.ppf(0.975, freedom)
