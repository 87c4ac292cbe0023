"""Masked modelling: which tokens are hidden."""

import numpy as np

from xxlib.diffraction.patterns import N_TOKENS


def hidden_tokens(n, rate=0.05, span=1, seed=0):
    """Which tokens of n patterns are hidden: (n, 17) bool, a function of its arguments alone.

    Each token is hidden with probability `rate`.  With a `span` of more than one, runs of so many contiguous tokens
    are: as many as hide, overlaps apart, the same share.  A pattern that would hide nothing hides one token, or run,
    drawn uniformly: with 17 tokens at 5 % that is 42 % of them, and the effective rate is 7.5 %.
    seed: an int or several, as numpy.random.default_rng takes them.
    """
    random = np.random.default_rng(seed)
    n_starts = N_TOKENS - span + 1
    starts = random.random((n, n_starts)) < rate * N_TOKENS / (span * n_starts)
    fallback = random.integers(n_starts, size=n)
    none = ~starts.any(1)
    starts[none, fallback[none]] = True
    masked = np.zeros((n, N_TOKENS), bool)
    for shift in range(span):
        masked[:, shift : shift + n_starts] |= starts
    return masked


def hidden_elements(lengths, rate=0.05, seed=0):
    """Which elements of compositions of `lengths` (n,) elements are hidden: (n, longest) bool, at least one of each."""
    random = np.random.default_rng(seed)
    places = np.arange(lengths.max())
    hidden = random.random((len(lengths), len(places))) < rate
    fallback = (random.random(len(lengths)) * lengths).astype(int)
    hidden |= ~(hidden & (places < lengths[:, None])).any(1, keepdims=True) & (places == fallback[:, None])
    return hidden & (places < lengths[:, None])
