"""Losses: how far a network's outputs are from the targets, as one number, the batch's mean.

Those for classes take logits, the scores before softmax or sigmoid.
"""

from __future__ import annotations

import array_api_compat

from polynet.functional import log_softmax
from polynet.tensor import composition


@composition
def mse(xp, outputs, targets, /):
    """Mean squared error: mean of (outputs - targets)², for two arrays of one shape.

    Raises ValueError where the shapes differ, TypeError where the targets are integers.

    >>> import numpy as np
    >>> float(mse(np.asarray([1.0, 2.0]), np.asarray([1.0, 4.0])))
    2.0
    """
    _check_like("mse", outputs, targets)
    return xp.mean(xp.square(outputs - targets))


@composition
def binary_cross_entropy_with_logits(xp, logits, targets, /):
    """Binary cross entropy: mean of log(1 + eˣ) - x·y, for logits x and targets y in [0, 1].

    It is -y log p - (1 - y) log(1 - p) with p = sigmoid(x), without overflow. Both arrays have
    one shape. Raises ValueError where the shapes differ, TypeError where targets are integers.

    >>> import numpy as np
    >>> float(binary_cross_entropy_with_logits(np.asarray([1000.0]), np.asarray([0.0])))
    1000.0
    """
    _check_like("binary_cross_entropy_with_logits", logits, targets)
    return xp.mean(xp.logaddexp(logits, xp.zeros_like(logits)) - logits * targets)


@composition
def cross_entropy(xp, logits, targets, /):
    """Cross entropy: mean over the batch of -log softmax(logits)[class].

    `logits` are (batch, classes); `targets` integers (batch,), from 0 to classes - 1, or
    probabilities (batch, classes), such as one-hot rows. Raises ValueError for other shapes.
    A label out of range cannot be seen on a device; `Trainer.fit` checks labels on the host.

    >>> import numpy as np
    >>> float(cross_entropy(np.asarray([[0.0, 1000.0]]), np.asarray([0])))
    1000.0
    """
    _check_classes(xp, logits, targets)
    scores = log_softmax(logits, axis=-1)
    if xp.isdtype(targets.dtype, "integral"):
        device = array_api_compat.device(targets)
        classes = xp.arange(logits.shape[1], dtype=xp.int32, device=device)
        right = xp.expand_dims(xp.astype(targets, xp.int32), axis=1) == classes
        return -xp.sum(xp.where(right, scores, 0)) / logits.shape[0]
    return -xp.sum(scores * targets) / logits.shape[0]


def _check_classes(xp, logits, targets):
    if logits.ndim != 2:
        raise ValueError(
            f"cross_entropy: expected logits of shape (batch, classes), got {tuple(logits.shape)}"
        )
    if xp.isdtype(targets.dtype, "integral"):
        if tuple(targets.shape) != (logits.shape[0],):
            raise ValueError(
                f"cross_entropy: integer targets for logits {tuple(logits.shape)} have shape "
                f"({logits.shape[0]},), one class a sample; got {tuple(targets.shape)}"
            )
    elif tuple(targets.shape) != tuple(logits.shape):
        raise ValueError(
            f"cross_entropy: targets of {targets.dtype} are probabilities, of the logits' shape "
            f"{tuple(logits.shape)}; got {tuple(targets.shape)}. Labels are integers of shape "
            "(batch,)"
        )
    else:
        _check_dtype("cross_entropy", logits, targets)


def _check_like(name, outputs, targets):
    if tuple(outputs.shape) != tuple(targets.shape):
        one = tuple(outputs.shape) == (*targets.shape, 1)
        todo = "give targets[:, None]" if one else f"reshape the targets to {tuple(outputs.shape)}"
        raise ValueError(
            f"{name}: outputs have shape {tuple(outputs.shape)}, targets {tuple(targets.shape)}; "
            f"they must be equal: {todo}"
        )
    _check_dtype(name, outputs, targets)


def _check_dtype(name, outputs, targets):
    if targets.dtype != outputs.dtype:
        raise TypeError(f"{name}: targets are {targets.dtype}; expected {outputs.dtype}")
