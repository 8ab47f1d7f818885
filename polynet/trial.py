"""A trial of some samples, so that what does not fit is said before the first step."""

from __future__ import annotations

import math
import warnings

import numpy as np

from polynet.arguments import target_check
from polynet.backend import Array, backend_of, to_numpy
from polynet.data import Feed
from polynet.errors import fitting
from polynet.nn import Module
from polynet.scores import Loss, applied, joined, loss_of

FEW = 8
"""Samples of which a mean is told from other sums."""
ROUNDING = 64
"""Units in the last place that a loss may differ by, as its sum is taken in another order."""


def try_out(
    net: Module, loss: Loss, data: Feed, held_out: Feed | None, size: int, parts: int
) -> None:
    """Try what `fit` is given: steps of `size` samples in so many parts, and validation data.

    As many samples go through the network as in training, since it or the loss may need so many:
    losses of triplets do. Of data that make their batches themselves it is the first batch.
    """
    count = _tried(net, loss, data, size // parts)
    if parts > 1 and count < data.samples:
        _check_parts(net, loss, data, size, parts)
    if held_out is not None:
        _tried(net, loss, held_out, count)


def _tried(net: Module, loss: Loss, data: Feed, count: int) -> int:
    """Let `count` samples through the network and the loss, or as many as there are; how many."""
    x, y, *weights = data.first(count)
    with fitting(x.shape[0]):
        outputs = applied(net, x)
    check = target_check(loss, outputs, y, data.names[1])
    if check is not None:
        check(to_numpy(y))
        data.check_targets(check)
    xp = backend_of(outputs).xp
    loss_of(loss, outputs, y, [xp.ones_like(w) for w in weights], data.names[2])
    return x.shape[0]


def _check_parts(net: Module, loss: Loss, data: Feed, size: int, parts: int) -> None:
    """Warn where steps in parts have other numbers than whole ones.

    The parts add up by their numbers of samples, or by their weights: to the loss of the whole
    if that is a mean over samples, and only then.
    """
    x, y, *weights = data.mixed(FEW, size)
    count, at_a_time = x.shape[0], size // parts
    cuts = range(0, count, at_a_time)
    outputs = joined([applied(net, x[i : min(i + at_a_time, count), ...]) for i in cuts])
    if not _is_mean(loss, outputs, y, *map(backend_of(outputs).xp.ones_like, weights)):
        warnings.warn(
            f"accumulate={parts}: the loss of {count} samples is not the mean of the losses of "
            f"each, so a step in parts is not that of {size} samples at once. Give weights of "
            "classes, and zeros for what is to be ignored, as sample_weight: by it parts are "
            "weighed",
            RuntimeWarning,
            stacklevel=4,  # where fit was called
        )


def _is_mean(loss: Loss, *data: Array) -> bool:
    """Whether the loss of all samples is the mean of the losses of each."""

    def of(first: int, end: int) -> float:
        outputs, y, *weights = (a[first:end, ...] for a in data)
        return float(to_numpy(loss_of(loss, outputs, y, weights, "sample_weight")))

    count = data[0].shape[0]
    try:
        with np.errstate(all="ignore"):
            whole, each = of(0, count), [of(i, i + 1) for i in range(count)]
    except Exception:  # noqa: BLE001 (what a loss raises for one sample is its own affair)
        return False
    near = ROUNDING * backend_of(data[0]).xp.finfo(data[0].dtype).eps * max(map(abs, each))
    return math.isfinite(near) and abs(whole - sum(each) / count) <= near
