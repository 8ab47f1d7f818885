"""What a network gives for all samples: its outputs, and the numbers that say how good they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from polynet.arguments import Metric, target_check
from polynet.backend import Array, backend_of, to_numpy
from polynet.data import Feed, Resident
from polynet.nn import Module

Loss = Callable[..., Array]


def outputs_of(net: Module, data: Feed, batch_size: int) -> tuple[Array, list[Array]]:
    """The outputs for all samples; and their targets and weights, where there are any."""
    parts = []
    with closing(data.in_order(batch_size)) as batches:
        for x, *others in batches:
            parts.append((net(x), *others))
    outputs, *others = (joined(column) for column in zip(*parts, strict=True))
    if isinstance(data, Resident):
        return outputs, list(data.arrays[1:])  # which lie where the user's do
    return outputs, others


def joined(parts: Sequence[Array]) -> Array:
    """Arrays one after another along the axis of the samples."""
    return backend_of(parts[0]).xp.concat(list(parts), axis=0)


def loss_of(
    loss: Loss, outputs: Array, targets: Array, weights: Sequence[Array], name: str
) -> Array:
    """The loss; `weights` has the samples' weights, called `name`, where there are any.

    Raises TypeError for a loss that takes none, and for one that returns no 0-d array.
    """
    if weights and "sample_weight" not in inspect.signature(loss).parameters:
        raise TypeError(
            f"{name} was given, which the loss {loss!r} does not take; give it an argument "
            "sample_weight=None, of shape (batch,)"
        )
    value = loss(outputs, targets, **dict(zip(["sample_weight"], weights, strict=False)))
    if tuple(getattr(value, "shape", (0,))) != ():
        raise TypeError("the loss must return a 0-d array, such as the mean over the batch")
    return value


def scores(
    net: Module, data: Feed, loss: Loss, metrics: Mapping[str, Metric], batch_size: int = 256
) -> dict[str, float]:
    """The loss and the metrics on the data, by name."""
    outputs, (y, *weights) = outputs_of(net, data, batch_size)
    targets, answers = to_numpy(y), to_numpy(outputs)
    check = target_check(loss, outputs, y, data.names[1])
    if check is not None:
        check(targets)
    numbers = {"loss": float(to_numpy(loss_of(loss, outputs, y, weights, data.names[2])))}
    for name, metric in metrics.items():
        numbers[name] = float(metric(targets, answers))
    return numbers
