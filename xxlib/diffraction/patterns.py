"""Sticks -> pattern on the grid -> tokens."""

import numpy as np
from numba import njit

START, STEP, N_POINTS = 5.0, 0.02, 4250  # two_theta = START + STEP i, degree; the last point is 89.98
N_TOKENS, POINTS_PER_TOKEN = 17, 250  # 5 degrees a token
TWO_THETA = START + STEP * np.arange(N_POINTS)
SIGMA = 0.1  # degree, standard deviation of a peak in the paper's patterns

GAUSSIAN_AREA = np.float32(np.sqrt(2 * np.pi))  # of a peak of height 1 and sigma 1
BLOCK = 8  # points that one turn of the vectorised loop takes
REACH, VOIGT_REACH = 5.0, 8.0  # standard deviations after which a Gaussian, a pseudo-Voigt peak is cut
# The Lorentzian 1 / (1 + u^2 / CURVATURE), u in standard deviations of the Gaussian of the same full width at half
# maximum, less what is left of it at VOIGT_REACH, so that it ends at zero.
CURVATURE = 2 * np.log(2)
TAIL = 1 / (1 + VOIGT_REACH**2 / CURVATURE)
_area_to_the_tail = 2 * np.sqrt(CURVATURE) * np.arctan(VOIGT_REACH / np.sqrt(CURVATURE))
LORENTZIAN_AREA = np.float32((_area_to_the_tail - 2 * VOIGT_REACH * TAIL) / (1 - TAIL))  # of a peak of height 1


def grid():
    """The grid as it is written into every dataset and checkpoint."""
    return {"start": START, "step": STEP, "n_points": N_POINTS}


def render_one(sticks, sigma=SIGMA, mixing=0.0):
    """Pattern (4250,) float32 of Sticks, maximum 100; sigma and mixing as in render()."""
    offsets = np.array([0, len(sticks.two_theta)])
    return render(sticks.two_theta, sticks.intensity, offsets, sigma, mixing=mixing)[0]


def render(two_theta, intensity, offsets, sigma=SIGMA, *, mixing=0.0, shift=0.0):
    """Patterns (B, 4250) float32 of B crystals whose sticks lie one after the other; each one's maximum is 100.

    two_theta (degree), intensity: (p,); crystal b owns offsets[b]:offsets[b + 1].
    sigma: standard deviation in degree of each peak (p,), or of all.  A peak keeps its area whatever its width.
    mixing: Lorentzian share (p,) of each peak, or of all: a pseudo-Voigt, 0 is the Gaussian.  The Lorentzian has the
    same full width at half maximum, 2.3548 sigma, and ends at 8 sigma: 2.1 % of its height are taken off for that.
    shift: degree, (B,) or of all, added to the angles of a crystal.
    Raises ValueError where a crystal has no intensity on the grid.
    """
    n, counts = len(two_theta), np.diff(offsets)
    out = np.empty((len(counts), N_POINTS), np.float32)
    shift = np.broadcast_to(np.asarray(shift, np.float64), len(counts))
    heights = _smear(
        np.asarray(two_theta, np.float64),
        np.asarray(intensity, np.float32),
        np.asarray(offsets, np.int64),
        np.broadcast_to(np.asarray(sigma, np.float32), n),
        np.broadcast_to(np.asarray(mixing, np.float32), n),
        shift,
        out,
    )
    empty = np.flatnonzero(~(heights > 0))
    if len(empty):
        raise ValueError(f"pattern {empty[0]} of the batch has no intensity between 5 and 90 degree")
    return out


def patchify(patterns):
    """Tokens (..., 17, 250) of patterns (..., 4250); numpy or torch."""
    return patterns.reshape(*patterns.shape[:-1], N_TOKENS, POINTS_PER_TOKEN)


def unpatchify(tokens):
    """Patterns (..., 4250) of tokens (..., 17, 250); numpy or torch."""
    return tokens.reshape(*tokens.shape[:-2], N_POINTS)


def restrict(patterns, start, end):
    """Patterns (..., 4250) seen from `start` to `end` degree only, and which tokens lie wholly outside.

    start, end: of all patterns, then the tokens are (17,); or (...) of each, then they are (..., 17), True = outside.
    Points outside are zero, the maximum of what is left is 100; a token that is partly outside is kept.
    Raises ValueError where a pattern has no intensity inside.
    """
    inside = (np.asarray(start)[..., None] - 1e-6 <= TWO_THETA) & (np.asarray(end)[..., None] + 1e-6 >= TWO_THETA)
    cut = np.where(inside, patterns, patterns.dtype.type(0))
    heights = cut.max(-1, keepdims=True)
    if not (heights > 0).all():
        raise ValueError(f"a pattern has no intensity between {np.min(start):g} and {np.max(end):g} degree")
    return cut * (100 / heights), tokens_outside(inside)


def tokens_outside(measured):
    """Which tokens (..., 17) have none of the points of the grid that were measured (..., 4250): True = none."""
    return ~patchify(measured).any(-1)


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def _smear(two_theta, intensity, offsets, sigma, mixing, shift, out):
    """Writes the patterns to out, maximum 100, and returns what their maxima were."""
    row, steps = np.empty(N_POINTS + BLOCK, np.float32), np.arange(N_POINTS + BLOCK).astype(np.float32)
    heights = np.empty(len(out), np.float32)
    for b in range(len(offsets) - 1):
        row[:] = 0
        for i in range(offsets[b], offsets[b + 1]):
            position = (two_theta[i] + shift[b] - START) * (1 / STEP)
            eta = mixing[i]
            reach = (VOIGT_REACH if eta > 0 else REACH) * sigma[i] * (1 / STEP)
            start = min(max(0, int(np.ceil(position - reach))), N_POINTS)
            stop = max(start, min(int(position + reach) + 1, N_POINTS))
            per_point, first = np.float32(STEP) / sigma[i], np.float32(start - position)
            # Unsigned, because an index that could be negative would keep the loop from being vectorised; whole blocks,
            # because what is left of one is not.
            begin, points = np.uint64(start), range(np.uint64((stop - start + BLOCK - 1) // BLOCK * BLOCK))
            if eta > 0:
                rest = np.float32(1) - eta
                height = intensity[i] * per_point / (eta * LORENTZIAN_AREA + rest * GAUSSIAN_AREA)
                lorentzian, gaussian = eta * height, rest * height
                for w in points:
                    u = (first + steps[w]) * per_point
                    row[begin + w] += lorentzian * _lorentzian(u) + gaussian * _gaussian(u)
            else:
                height = intensity[i] * per_point / GAUSSIAN_AREA
                for w in points:
                    row[begin + w] += height * _gaussian((first + steps[w]) * per_point)
        total = np.float32(0)
        for w in range(N_POINTS):
            total += row[w]
        heights[b] = _largest(row) if total > 0 else 0  # and where it is not a number
        scale = np.float32(100) / heights[b]
        for w in range(N_POINTS):
            out[b, w] = row[w] * scale
    return heights


@njit(cache=True, fastmath={"nnan", "nsz", "reassoc"})
def _largest(row):
    largest = row[0]
    for w in range(N_POINTS):
        largest = max(largest, row[w])
    return largest


@njit(inline="always")
def _gaussian(u):
    """exp(-u^2 / 2) within 4e-6, without a call that would keep a loop from being vectorised."""
    # Four terms of Taylor's series at a sixteenth, to the sixteenth power; 3e-6 beyond 5 sigma, where it would fail.
    z = max(u * u * np.float32(-1 / 32), np.float32(-0.8))
    e = np.float32(1) + z * (np.float32(1) + z * (np.float32(1 / 2) + z * (np.float32(1 / 6) + z * np.float32(1 / 24))))
    e *= e
    e *= e
    e *= e
    return e * e


@njit(inline="always")
def _lorentzian(u):
    value = np.float32(1) / (np.float32(1) + u * u * np.float32(1 / CURVATURE))
    return max(value - np.float32(TAIL), np.float32(0)) * np.float32(1 / (1 - TAIL))
