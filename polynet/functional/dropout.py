"""Dropout, for masks that are given."""

from __future__ import annotations

import math

from polynet.tensor import composition

SELU_SCALE = 1.0507009873554804934
SELU_ALPHA = 1.6732632423543772848
"""The constants with which `selu` keeps mean 0 and variance 1."""


@composition
def dropout(xp, x, mask, /, *, keep):
    """x / `keep` where `mask` is true, else 0: the mean over masks is x.

    With `keep` 0 the mask is false throughout, and the result is 0.

    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
    JMLR 15 (2014).
    """
    return xp.where(mask, x / (keep or 1.0), 0)  # or the gradient, 0 / 0, would be NaN


@composition
def alpha_dropout(xp, x, mask, /, *, keep):
    """a·x + b where `mask` is true, else a·α + b, where α = -1.7581 is the limit of `selu` at -∞.

    a = 1 / √(keep·(1 + (1 - keep)·α²)) and b = -a·(1 - keep)·α keep mean 0 and variance 1. With
    `keep` 0 the result is 0.

    Klambauer et al., "Self-Normalizing Neural Networks" (2017).
    """
    drop, floor = 1 - keep, -SELU_SCALE * SELU_ALPHA
    a = 1 / math.sqrt(keep * (1 + drop * floor * floor)) if keep else 0.0
    return xp.where(mask, x, floor) * a - a * drop * floor
