"""Sticks -> pattern on the grid -> tokens."""

import numpy as np
from numba import njit

START, STEP, N_POINTS = 5.0, 0.02, 4250  # two_theta = START + STEP i, degree; the last point is 89.98
N_TOKENS, POINTS_PER_TOKEN = 17, 250  # 5 degrees a token
TWO_THETA = START + STEP * np.arange(N_POINTS)
SIGMA = 0.1  # degree, standard deviation of a peak in the paper's patterns

REACH = 5.0  # standard deviations after which a peak is cut: exp(-12.5) = 4e-6 of its height
SUB_STEPS = 32  # positions of a peak between two grid points that the table holds; linear between them, 5e-4 of 100


def grid():
    """The grid as it is written into every dataset and checkpoint."""
    return {"start": START, "step": STEP, "n_points": N_POINTS}


def pattern(sticks, sigma=SIGMA):
    """Pattern (4250,) float32 of Sticks: a Gaussian of standard deviation `sigma` (degree) each, maximum 100."""
    offsets = np.array([0, len(sticks.two_theta)])
    return patterns(sticks.two_theta, sticks.intensity, offsets, sigma)[0]


def patterns(two_theta, intensity, offsets, sigma=SIGMA):
    """Patterns (B, 4250) float32 of B crystals whose sticks lie one after the other.

    two_theta (degree), intensity: (p,); crystal b owns offsets[b]:offsets[b + 1].  Each pattern's maximum is 100.
    Raises ValueError where a crystal has no intensity on the grid.
    """
    out = np.zeros((len(offsets) - 1, N_POINTS), np.float32)
    _smear(
        np.asarray(two_theta, np.float64),
        np.asarray(intensity, np.float32),
        np.asarray(offsets, np.int64),
        _gaussians(sigma),
        out,
    )
    heights = out.max(1)
    if not (heights > 0).all():
        raise ValueError(
            f"pattern {np.flatnonzero(~(heights > 0))[0]} of the batch has no intensity between 5 and 90 degree"
        )
    out *= (100 / heights)[:, None]
    return out


def patchify(patterns):
    """Tokens (..., 17, 250) of patterns (..., 4250); numpy or torch."""
    return patterns.reshape(*patterns.shape[:-1], N_TOKENS, POINTS_PER_TOKEN)


def unpatchify(tokens):
    """Patterns (..., 4250) of tokens (..., 17, 250); numpy or torch."""
    return tokens.reshape(*tokens.shape[:-2], N_POINTS)


def _gaussians(sigma):
    """Peaks of height 1 at SUB_STEPS + 1 positions between two grid points: (SUB_STEPS + 1, 2 reach + 2) float32."""
    reach = int(np.ceil(REACH * sigma / STEP))
    points = np.arange(-reach, reach + 2) * STEP
    centres = np.arange(SUB_STEPS + 1)[:, None] / SUB_STEPS * STEP
    return np.exp(-0.5 * ((points - centres) / sigma) ** 2).astype(np.float32)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _smear(two_theta, intensity, offsets, table, out):
    width = table.shape[1]
    reach = (width - 2) // 2
    for b in range(len(offsets) - 1):
        row = out[b]
        for i in range(offsets[b], offsets[b + 1]):
            position = (two_theta[i] - START) / STEP
            point = int(np.floor(position))
            sub = (position - point) * SUB_STEPS
            node = min(int(sub), SUB_STEPS - 1)
            upper = np.float32(sub - node)
            high = intensity[i] * upper
            low = intensity[i] - high
            # Views from zero: an index that could be negative would keep the loop from being vectorised.
            start = min(max(0, point - reach), N_POINTS)
            stop = max(start, min(point - reach + width, N_POINTS))
            target = row[start:stop]
            left = table[node, start - point + reach :]
            right = table[node + 1, start - point + reach :]
            for w in range(len(target)):
                target[w] += low * left[w] + high * right[w]
