"""Losses of numbers and vectors: how far outputs are from targets of the same shape."""

from __future__ import annotations

from polynet.losses.shared import batch_mean, check_like
from polynet.tensor import real_composition


@real_composition
def mse(xp, outputs, targets, /, sample_weight=None):
    """Mean squared error: mean of (outputs - targets)², for two arrays of one shape.

    Raises ValueError where the shapes differ, TypeError where the targets are integers.

    >>> import numpy as np
    >>> float(mse(np.asarray([1.0, 2.0]), np.asarray([1.0, 4.0])))
    2.0
    """
    check_like("mse", outputs, targets)
    return batch_mean(xp, "mse", xp.square(outputs - targets), sample_weight)


@real_composition
def l1(xp, outputs, targets, /, sample_weight=None):
    """Mean absolute error: mean of |outputs - targets|, for two arrays of one shape.

    Where they are equal, the derivative is 0. Raises as `mse` does.

    >>> import numpy as np
    >>> float(l1(np.asarray([1.0, 2.0]), np.asarray([1.0, 4.0])))
    1.0
    """
    check_like("l1", outputs, targets)
    return batch_mean(xp, "l1", xp.abs(outputs - targets), sample_weight)


@real_composition
def smooth_l1(xp, outputs, targets, /, sample_weight=None, *, beta=1.0):
    """Mean of d² / 2β where |d| < β, else |d| - β / 2, with d = outputs - targets.

    It is the `l1` loss with its kink rounded; with β = 0 it is `l1`. Raises as `mse` does.

    Girshick, "Fast R-CNN", ICCV 2015.

    >>> import numpy as np
    >>> float(smooth_l1(np.asarray([1.0, 2.0]), np.asarray([1.0, 4.0])))
    0.75
    """
    check_like("smooth_l1", outputs, targets)
    if not beta >= 0:
        raise ValueError(f"smooth_l1: beta is a number, at least 0; got {beta!r}")
    d = outputs - targets
    size = xp.abs(d)
    if beta:
        near = xp.where(size < beta, d, 0)  # a large d² may overflow: its gradient would be 0·∞
        size = xp.where(size < beta, near / beta * near * 0.5, size - 0.5 * beta)
    return batch_mean(xp, "smooth_l1", size, sample_weight)


@real_composition
def huber(xp, outputs, targets, /, sample_weight=None, *, delta=1.0):
    """Mean of d² / 2 where |d| ≤ δ, else δ·(|d| - δ / 2), with d = outputs - targets.

    Raises as `mse` does.

    Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 35
    (1964).

    >>> import numpy as np
    >>> float(huber(np.asarray([1.0, 2.0]), np.asarray([1.0, 4.0]), delta=0.5))
    0.4375
    """
    check_like("huber", outputs, targets)
    if not delta > 0:
        raise ValueError(f"huber: delta is a number above 0; got {delta!r}")
    d = outputs - targets
    size = xp.abs(d)
    near = xp.where(size <= delta, d, 0)  # as in smooth_l1
    values = xp.where(size <= delta, xp.square(near) * 0.5, (size - 0.5 * delta) * delta)
    return batch_mean(xp, "huber", values, sample_weight)


@real_composition
def cosine_distance(xp, outputs, targets, /, sample_weight=None):
    """Mean of 1 - x·y / (‖x‖ ‖y‖), for vectors x and y along the last axis of the two arrays.

    It is PyTorch's `cosine_embedding_loss` with a target of 1. As there, 10⁻¹² is added to each
    squared norm, so that the loss is finite at zero. Raises as `mse` does.

    >>> import numpy as np
    >>> float(cosine_distance(np.asarray([[2.0, 0.0]]), np.asarray([[0.0, 1.0]])))
    1.0
    """
    check_like("cosine_distance", outputs, targets)
    square_x, square_y, product = (
        xp.sum(a, axis=-1) for a in (xp.square(outputs), xp.square(targets), outputs * targets)
    )
    cosine = product / xp.sqrt((square_x + 1e-12) * (square_y + 1e-12))
    return batch_mean(xp, "cosine_distance", 1 - cosine, sample_weight)


@real_composition
def kl_div(xp, log_probabilities, targets, /, sample_weight=None, *, log_target=False):
    """Kullback and Leibler's divergence: the batch's mean of Σ q·(log q - log p).

    The first array is log p, such as a result of `log_softmax`. The second is q, or log q with
    `log_target`. Both have the same shape, and the sum is over all axes but the first. It is
    PyTorch's loss with `reduction="batchmean"`, which is the divergence; PyTorch's default divides
    by the number of elements instead of the batch size. Raises as `mse` does.

    >>> import numpy as np
    >>> p, q = np.asarray([[0.5, 0.5]]), np.asarray([[1.0, 0.0]])
    >>> round(float(kl_div(np.log(p), q)), 4)
    0.6931
    """
    check_like("kl_div", log_probabilities, targets)
    if log_target:
        values = xp.exp(targets) * (targets - log_probabilities)
    else:
        logarithm = xp.log(xp.where(targets == 0, 1, targets))
        values = targets * (logarithm - log_probabilities)
    if values.ndim > 1:
        values = xp.sum(values, axis=tuple(range(1, values.ndim)))
    return batch_mean(xp, "kl_div", values, sample_weight)
