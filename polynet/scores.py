"""A network's outputs for all samples, and its scores: the loss and the metrics."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from polynet.arguments import Metric
from polynet.backend import Array, backend_of, to_numpy, use_backend
from polynet.data import Feed
from polynet.data.named import arrays_of, samples
from polynet.targets import check_outputs, target_check, total_weight
from polynet.tree import map as tree_map

Loss = Callable[..., Array]
Forward = Callable[[Any, int], Any]
"""A network that predicts: a function of samples and of the index of the first one."""
AT_ONCE = 256
"""How many samples at a time go through a network that only predicts, by default."""


def outputs_of(forward: Forward, data: Feed, batch_size: int) -> Any:
    """The outputs for all samples."""
    parts, seen = [], 0
    with closing(data.in_order(batch_size)) as batches:
        for x, *_ in batches:
            outputs, count = applied(forward, x, seen), samples(x)
            check_rows(outputs, count, of_rows=not data.makes_batches)
            parts.append(outputs)
            seen += count
    if not parts:
        raise ValueError(f"{data.names[0]} gave no batch")
    return joined(parts)


def applied(forward: Forward, x: Any, first: int = 0) -> Any:
    """The network's output for the samples from number `first` on.

    Raises TypeError where the output is neither an array nor a dict of arrays, such as a tuple.
    """
    outputs = forward(x, first)
    if not all(hasattr(a, "shape") for _, a in arrays_of(outputs, "the network's output")):
        raise TypeError(
            f"the network returned a {type(outputs).__name__}; in a Trainer it returns one array, "
            'or several in a dict, {"name": array, …}: put it into a Module whose forward returns '
            "that, such as self.lstm(x)[0]"
        )
    return outputs


def check_rows(outputs: Any, count: int, *, of_rows: bool = False) -> None:
    """Raise ValueError if an output in a dict lacks a row for each sample, as joining needs.

    Where the samples are the rows `of_rows` of an array, also an output alone must have these rows.
    """
    for name, a in arrays_of(outputs, "the network's output"):
        several = isinstance(outputs, dict)
        if (several or of_rows) and tuple(a.shape[:1]) != (count,):
            todo = (
                "outputs that are joined, for metrics, predict or a step in parts, have a row for "
                "each sample: broadcast it"
                if several
                else "expected a row for each, as x has. One sample is a batch of one, x[None]; a "
                "batch that is a whole goes into a list, [(x, y)]"
            )
            raise ValueError(f"{name} has shape {tuple(a.shape)} for {count} samples; {todo}")


def joined(parts: Sequence[Any], what: str = "the network's output") -> Any:
    """The arrays joined along the axis of the samples."""

    def of_one(*arrays: Any) -> Any:
        sizes = {tuple(a.shape[1:]): tuple(a.shape) for a in arrays}
        if len(sizes) > 1:
            first, other, *_ = sizes.values()
            raise ValueError(
                f"{what} has shape {first} for one batch, and {other} for another: they cannot be "
                "joined, as predict returns them and metrics are given them"
            )
        return backend_of(arrays[0]).xp.concat(list(arrays), axis=0)

    return tree_map(of_one, parts[0], *parts[1:])


def loss_of(loss: Loss, outputs: Any, targets: Any, weights: Sequence[Array], name: str) -> Array:
    """The loss; `weights` has the samples' weights, called `name`, where there are any.

    Raises TypeError for weights that the loss does not take, and for a loss that returns no 0-d
    array.
    """
    if weights and "sample_weight" not in inspect.signature(loss).parameters:
        raise TypeError(
            f"{name} was given, which the loss {loss!r} does not take; give it an argument "
            "sample_weight=None, of shape (batch,)"
        )
    with _noting_arguments("the loss", outputs, targets):
        value = loss(outputs, targets, **dict(zip(["sample_weight"], weights, strict=False)))
    shape = getattr(value, "shape", None)
    if shape is None or tuple(shape) != ():
        came = f"a {type(value).__name__}" if shape is None else f"an array of shape {tuple(shape)}"
        raise TypeError(
            f"the loss returned {came}; expected a 0-d array, such as the mean over the batch"
        )
    return value


def whole_batches(size: int) -> int:
    """The largest multiple of `size` up to `AT_ONCE`, or `size`: a loss may need whole batches."""
    return size * max(1, AT_ONCE // size)


def _with_the_rest(batches: Iterator[Any], size: int) -> Iterator[Any]:
    """The batches, of which a shorter last one is joined to the one before it.

    A loss that looks across the batch may have no value for a single sample.
    """
    held = None
    for batch in batches:
        if held is not None and samples(batch[0]) < size:
            batch = joined([held, batch])
        elif held is not None:
            yield held
        held = batch
    if held is not None:
        yield held


def scores(
    forward: Forward, data: Feed, loss: Loss, metrics: Mapping[str, Metric], batch_size: int
) -> dict[str, float]:
    """The loss and the metrics on the data, by name.

    The loss is the mean of the batches' losses, each weighted by the number of its samples, or by
    the sum of their weights. Metrics get all samples at once.
    """
    values, sizes, kept, weights, seen = [], [], [], [], 0
    with closing(data.in_order(batch_size)) as made:
        batches = made if data.makes_batches else _with_the_rest(made, batch_size)
        for x, y, *weights in batches:
            outputs, count = applied(forward, x, seen), samples(x)
            check_outputs(loss, outputs)
            check = target_check(loss, outputs, y, data.names[1])
            targets = tree_map(to_numpy, y) if metrics or check is not None else y
            if check is not None:
                check(targets, to_numpy(weights[0]) if weights else None)
            if metrics:  # before the loss, which may write over what it is given
                check_rows(outputs, count)
                kept.append((targets, tree_map(to_numpy, outputs)))
            seen += count
            size = total_weight(loss, targets, weights)
            if size:  # else the loss is a mean of nothing
                values.append(loss_of(loss, outputs, y, weights, data.names[2]))
                sizes.append(size)
    if not seen:
        raise ValueError(f"{data.names[0]} gave no batch")
    if weights and not sizes:
        why = "holds zeros only; give some samples a weight above 0"
        raise ValueError(f"{data.names[2]} {why}")
    terms = (float(to_numpy(v)) * size for v, size in zip(values, sizes, strict=True))
    numbers = {"loss": math.fsum(terms) / (math.fsum(sizes) or 1.0)}
    return numbers | _measured(metrics, kept, data.names[1]) if metrics else numbers


def _measured(
    metrics: Mapping[str, Metric], kept: Sequence[tuple[Any, Any]], targets: str
) -> dict[str, float]:
    """The metrics by name, of the (targets, outputs) of all batches; `targets` is a name."""
    numbers = {}
    with use_backend("numpy"):
        truths, answers = map(joined, zip(*kept, strict=True), (targets, "the network's output"))
    for name, metric in metrics.items():
        advice = "A metric of classes takes polynet.metrics.classes(outputs)"
        with _noting_arguments(f"metric {name!r}", answers, truths, advice):
            value = metric(truths, answers)
        numbers[name] = _number(name, value)
    return numbers


@contextmanager
def _noting_arguments(who: str, outputs: Any, targets: Any, advice: str = "") -> Iterator[None]:
    """Add what a loss or metric was given to its errors: it may expect something else.

    Dicts are always described, arrays only where there is `advice` about them.
    """
    try:
        yield
    except Exception as error:
        several = {"outputs": outputs, "targets": targets}
        dicts = {name: list(a) for name, a in several.items() if isinstance(a, dict)}
        if dicts:
            words = ", ".join(f"{name} are a dict of {keys}" for name, keys in dicts.items())
            error.add_note(f"{who} was given what the network and the data have: {words}")
        elif advice:
            error.add_note(
                f"{who} was given targets of shape {targets.shape} and the network's outputs, of "
                f"shape {outputs.shape}. {advice}"
            )
        raise


def _number(name: str, value: Any) -> float:
    """The number that a metric returned; TypeError for anything else."""
    if not hasattr(value, "__float__") or tuple(getattr(value, "shape", ())) != ():
        shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
        raise TypeError(
            f"metric {name!r} returned a {type(value).__name__}{shape}; expected a number, such as "
            "a mean over the samples"
        )
    return float(value)
