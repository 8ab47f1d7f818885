"""Losses: how far a network's outputs are from the targets, as one number, the batch's mean.

A loss is a function `(outputs, targets, sample_weight=None)` that returns a 0-d array. With
`sample_weight` s, of shape (batch,), the mean is Σ s·l / Σ s, as in scikit-learn, and 0 where all
weights are 0. Options are given by keyword; for a loss with other options than the defaults, pass
`functools.partial(losses.huber, delta=0.5)`. Losses for classes take logits, the scores before
softmax or sigmoid; only `nll` and `kl_div` take log-probabilities.
"""

from typing import TYPE_CHECKING

from polynet.losses.classes import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    hinge,
    multi_margin,
    nll,
)
from polynet.losses.numbers import cosine_distance, huber, kl_div, l1, mse, smooth_l1
from polynet.pytorch_names import named_in

__all__ = [
    "binary_cross_entropy_with_logits", "cosine_distance", "cross_entropy", "hinge", "huber",
    "kl_div", "l1", "mse", "multi_margin", "nll", "smooth_l1",
]  # fmt: skip

if not TYPE_CHECKING:  # which would believe that every name exists
    __getattr__ = named_in(__name__, __all__)
