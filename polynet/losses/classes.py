"""Losses of classes: how far scores are from labels, or from probabilities."""

from __future__ import annotations

import math

from polynet.functional import log_softmax, logsigmoid, relu
from polynet.losses.shared import (
    batch_mean,
    check_dtype,
    check_like,
    is_label,
    mean_of_labels,
    nan_if_unknown,
    per_class,
)
from polynet.tensor import real_composition


@real_composition
def binary_cross_entropy_with_logits(xp, logits, targets, /, sample_weight=None, pos_weight=None):
    """Binary cross entropy: mean of -y log p - (1 - y) log(1 - p), with p = sigmoid(x).

    Logits x and targets y, which are in [0, 1], have the same shape. No number overflows, and no
    digits cancel where p is close to y. `pos_weight` multiplies the first term. It is a number, or
    a list or an array with one number for each place along the last axis. Raises ValueError where
    the shapes differ, TypeError where targets are integers. Targets outside [0, 1] cannot be
    detected on a device; `Trainer.fit` looks for them on the host.

    >>> import numpy as np
    >>> float(binary_cross_entropy_with_logits(np.asarray([1000.0]), np.asarray([0.0])))
    1000.0
    """
    name = "binary_cross_entropy_with_logits"
    check_like(name, logits, targets)
    share = targets
    if pos_weight is not None:
        if not isinstance(pos_weight, float | int):
            pos_weight = per_class(xp, name, pos_weight, logits, -1)
        share = targets * pos_weight
    values = -share * logsigmoid(logits) - (1 - targets) * logsigmoid(-logits)
    return batch_mean(xp, name, values, sample_weight)


@real_composition
def cross_entropy(
    xp, logits, targets, /, sample_weight=None, weight=None,
    *, label_smoothing=0.0, ignore_index=None,
):  # fmt: skip
    """Cross entropy: mean over the batch of -log softmax(logits)[class].

    `logits` are (batch, classes) or (batch, classes, d₁, …). `targets` are labels, integers from 0
    to classes - 1 of shape (batch,) or (batch, d₁, …), or probabilities of the logits' shape, such
    as one-hot rows. `weight` is a list or an array with a number for each class: with labels, the
    mean is then Σ w·l / Σ w. `label_smoothing` ε replaces one-hot y by (1-ε)·y + ε/classes.
    Labels equal to `ignore_index` do not count; unlike in PyTorch, no label is ignored by default.
    Where no label counts, the loss is 0.

    Raises ValueError for other shapes. If a label that counts is out of range, the loss is NaN, or
    an error is raised where the backend looks at the labels. `Trainer.fit` checks the labels on
    the host before it trains.

    >>> import numpy as np
    >>> float(cross_entropy(np.asarray([[0.0, 1000.0]]), np.asarray([0])))
    1000.0
    >>> from functools import partial
    >>> loss = partial(cross_entropy, weight=[1.0, 3.0], label_smoothing=0.1)
    >>> round(float(loss(np.asarray([[0.0, 0.0], [0.0, 0.0]]), np.asarray([0, 1]))), 4)
    0.6931
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"cross_entropy: label_smoothing is a number from 0 to 1; got {label_smoothing!r}"
        )
    if xp.isdtype(targets.dtype, "integral"):
        _check_labels(xp, "cross_entropy", logits, targets)
        scores = log_softmax(logits, axis=1)
        right = is_label(xp, logits, targets, ignore_index)
        value = mean_of_labels(
            xp, "cross_entropy", scores, right, sample_weight, weight, label_smoothing, ignore_index
        )
        return nan_if_unknown(xp, value, scores, targets, sample_weight, ignore_index)
    _check_probabilities(logits, targets, ignore_index)
    values = -log_softmax(logits, axis=1) * (
        targets * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    )
    if weight is not None:
        values = values * per_class(xp, "cross_entropy", weight, logits, 1)
    return batch_mean(xp, "cross_entropy", xp.sum(values, axis=1), sample_weight)


@real_composition
def nll(xp, log_probabilities, targets, /, sample_weight=None, weight=None, *, ignore_index=None):
    """Negative log likelihood: mean over the batch of -x[class], for log-probabilities x.

    Applied to the `log_softmax` of logits, it equals their `cross_entropy`, and has the same
    shapes, (batch, classes, …), the same `weight` and the same `ignore_index`. Targets are labels.

    >>> import numpy as np
    >>> float(nll(np.asarray([[-1.0, -2.0], [-3.0, -4.0]]), np.asarray([0, 1])))
    2.5
    """
    _check_labels(xp, "nll", log_probabilities, targets)
    right = is_label(xp, log_probabilities, targets, ignore_index)
    value = mean_of_labels(
        xp, "nll", log_probabilities, right, sample_weight, weight, 0.0, ignore_index
    )
    return nan_if_unknown(xp, value, log_probabilities, targets, sample_weight, ignore_index)


@real_composition
def hinge(xp, outputs, targets, /, sample_weight=None):
    """Hinge loss of two classes: mean of max(0, 1 - x·y), for scores x and targets y of -1 or 1.

    Both arrays have the same shape. Where x·y is 1, the derivative is 0. Raises as `mse` does.

    Cortes and Vapnik, "Support-Vector Networks", Machine Learning 20 (1995).

    >>> import numpy as np
    >>> float(hinge(np.asarray([0.5, -3.0]), np.asarray([1.0, -1.0])))
    0.25
    """
    check_like("hinge", outputs, targets)
    return batch_mean(xp, "hinge", relu(1 - outputs * targets), sample_weight)


@real_composition
def multi_margin(xp, logits, targets, /, sample_weight=None, weight=None, *, p=1, margin=1.0):
    """Hinge loss of several classes: mean of w[y]·Σ max(0, margin - x[y] + x[j])ᵖ / classes.

    `logits` x are (batch, classes), and `targets` y are integers (batch,). The sum is over all
    classes j except y, and p is 1 or 2. `weight` w is a list or an array with a number for each
    class. Raises ValueError for other shapes.

    >>> import numpy as np
    >>> float(multi_margin(np.asarray([[1.0, 0.5, -1.0]]), np.asarray([0])).round(4))
    0.1667
    """
    if p not in (1, 2):
        raise ValueError(f"multi_margin: p is 1 or 2; got {p!r}")
    _check_scores("multi_margin", logits, most=2)
    _check_labels(xp, "multi_margin", logits, targets)
    right = is_label(xp, logits, targets, None)
    of_label = xp.sum(xp.where(right, logits, 0), axis=1, keepdims=True)
    short = xp.where(right, 0, relu(logits - of_label + margin))
    values = xp.mean(short if p == 1 else xp.square(short), axis=1)
    if weight is not None:
        w = per_class(xp, "multi_margin", weight, logits, 1)
        values = values * xp.sum(xp.where(right, w, 0), axis=1)
    value = batch_mean(xp, "multi_margin", values, sample_weight)
    return nan_if_unknown(xp, value, logits, targets, sample_weight)


def _check_scores(name, scores, most=math.inf):
    if not 2 <= scores.ndim <= most:
        raise ValueError(
            f"{name}: expected logits of shape (batch, classes), got {tuple(scores.shape)}"
        )


def _check_labels(xp, name, scores, targets):
    if not xp.isdtype(targets.dtype, "integral"):
        raise TypeError(f"{name}: targets are {targets.dtype}; expected labels, which are integers")
    _check_scores(name, scores)
    expected = (scores.shape[0], *scores.shape[2:])
    if tuple(targets.shape) != expected:
        todo = ""
        if tuple(targets.shape) == (*expected, 1):
            todo = ": give targets[..., 0]"
        elif tuple(targets.shape) == tuple(scores.shape):
            todo = ": turn one-hot rows into labels by targets.argmax(axis=1)"
        raise ValueError(
            f"{name}: integer targets for logits {tuple(scores.shape)} have shape {expected}, one "
            f"class a sample; got {tuple(targets.shape)}{todo}"
        )


def _check_probabilities(logits, targets, ignore_index):
    _check_scores("cross_entropy", logits)
    if tuple(targets.shape) != tuple(logits.shape):
        raise ValueError(
            f"cross_entropy: targets of {targets.dtype} are probabilities, of the logits' shape "
            f"{tuple(logits.shape)}; got {tuple(targets.shape)}. Labels are integers of shape "
            "(batch,): y.astype('int64')"
        )
    if ignore_index is not None:
        raise ValueError("cross_entropy: ignore_index is for labels; targets are probabilities")
    check_dtype("cross_entropy", logits, targets)
