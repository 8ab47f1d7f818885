"""A trial with a few samples: mistakes in data, network or loss show before the first step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from polynet.backend import Array, backend_of, to_numpy
from polynet.data import Feed
from polynet.data.named import samples
from polynet.data.order import rows_of_native
from polynet.errors import advising_on_memory, warn
from polynet.scores import Forward, Loss, applied, check_rows, joined, loss_of
from polynet.targets import check_outputs, target_check
from polynet.tree import map as tree_map

FEW = 8
"""The number of samples by which to check whether a loss is a mean over samples."""
ROUNDING = 64
"""Units in the last place by which a loss may differ because its sum has another order."""


def try_out(
    forward: Forward, loss: Loss, data: Feed, held_out: Feed | None, size: int, parts: int,
    *, measured: bool,
) -> int:  # fmt: skip
    """Try what `fit` is given: steps of `size` samples in `parts` parts, and validation data.

    Returns how many samples were put through the network at a time: as many as in training, since
    the network or the loss may need that many, as triplet losses do; or, where the data come in
    batches of their own, the size of the first batch. Where `measured`, the outputs for validation
    data must have a row for each sample, since metrics are given the outputs of all batches joined.
    """
    count = _tried(forward, loss, data, size // parts)
    if parts > 1 and count < data.samples:
        _check_parts(forward, loss, data, size, parts)
    if held_out is not None:
        _tried(forward, loss, held_out, count, joined_later=measured)
    return count


def _tried(
    forward: Forward, loss: Loss, data: Feed, count: int, *, joined_later: bool = False
) -> int:
    """Put `count` samples, or all if there are fewer, through network and loss; return how many."""
    x, y, *weights = data.first(count)
    tried = samples(x)
    with advising_on_memory(tried):
        outputs = applied(forward, x)
    if joined_later:
        check_rows(outputs, tried)
    check_outputs(loss, outputs)
    check = target_check(loss, outputs, y, data.names[1])
    if check is not None:
        check(to_numpy(y), to_numpy(weights[0]) if weights else None)
        data.check_targets(check)
    loss_of(loss, outputs, y, _ones(weights), data.names[2])
    return tried


def _weighted(data: tuple[Any, ...]) -> tuple[Any, ...]:
    """The samples whose weight is not 0; the targets of the others need not be valid."""
    if len(data) < 3:
        return data
    rows = np.flatnonzero(to_numpy(data[2]))
    weighted: tuple[Any, ...] = tree_map(lambda a: rows_of_native(a, rows), data)
    return weighted


def _ones(weights: Sequence[Array]) -> list[Array]:
    """Ones in place of weights, since all weights of a trial may be 0."""
    return [backend_of(w).xp.ones_like(w) for w in weights]


def _check_parts(forward: Forward, loss: Loss, data: Feed, size: int, parts: int) -> None:
    """Warn if a step in parts gives another loss than a whole step.

    The losses of the parts are weighted by their numbers of samples, or by their sums of weights,
    and added up. The sum is the loss of the whole step only if the loss is a mean over samples.
    """
    x, y, *weights = _weighted(data.mixed(FEW, size))
    if not samples(x):
        return
    count, at_a_time = samples(x), size // parts
    cuts = range(0, count, at_a_time)
    outputs = [applied(forward, _part(x, i, min(i + at_a_time, count))) for i in cuts]
    for first, part in zip(cuts, outputs, strict=True):
        check_rows(part, min(at_a_time, count - first))
    outputs = joined(outputs)
    if not _is_mean(loss, outputs, y, *_ones(weights)):
        warn(
            f"accumulate={parts}: the loss of {count} samples is not the mean of the losses of "
            f"each, so a step in parts is not the step of {size} samples at once. Give the weights "
            "of classes, and zeros for samples to ignore, as sample_weight, by which the parts are "
            "weighted",
        )


def _is_mean(loss: Loss, *data: Any) -> bool:
    """Whether the loss of all samples is the mean of the losses of each."""

    def of(first: int, end: int) -> Array:
        outputs, y, *weights = _part(data, first, end)
        return loss_of(loss, outputs, y, weights, "sample_weight")

    count = samples(data[0])
    try:
        with np.errstate(all="ignore"):
            value, each = of(0, count), [float(to_numpy(of(i, i + 1))) for i in range(count)]
    except Exception:  # noqa: BLE001 (what a loss raises for one sample is its own affair)
        return False
    near = ROUNDING * backend_of(value).xp.finfo(value.dtype).eps * max(map(abs, each))
    return math.isfinite(near) and abs(float(to_numpy(value)) - sum(each) / count) <= near


def _part(data: Any, start: int, end: int) -> Any:
    """The samples from `start` to `end` of each array."""
    return tree_map(lambda a: a[start:end, ...], data)
