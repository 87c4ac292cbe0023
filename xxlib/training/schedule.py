"""The learning rate: linear warm-up, then half a cosine."""

import math

START, END = 1e-6, 1e-7  # learning rates of the first and of the last step, as in the paper
WARM_UP = 0.1  # share of all steps


def learning_rate(step, n_steps, peak):
    """Learning rate of a step (0 .. n_steps - 1): from START to `peak` over the warm-up, then down to END."""
    warm_up = max(1, round(WARM_UP * n_steps))
    if step < warm_up:
        return START + (peak - START) * step / warm_up
    progress = (step - warm_up) / max(1, n_steps - 1 - warm_up)
    return END + (peak - END) * 0.5 * (1 + math.cos(math.pi * progress))
