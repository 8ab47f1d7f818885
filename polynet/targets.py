"""Checks that targets and outputs are what the loss expects, such as labels or scores."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from polynet import losses, metrics, nn
from polynet.backend import Array, backend_of, to_numpy
from polynet.data.feeds import Check
from polynet.data.named import samples

REFUSED_LAST: dict[Any, dict[Any, str]] = {
    losses.binary_cross_entropy_with_logits: {
        nn.Sigmoid: "",
        nn.LogSigmoid: "",
        nn.Softmax: ". For classes that exclude one another, use cross_entropy",
    },
    losses.cross_entropy: {
        nn.Softmax: "",
        nn.Sigmoid: ". For several labels a sample, use binary_cross_entropy_with_logits",
        nn.LogSigmoid: ". For several labels a sample, use binary_cross_entropy_with_logits",
    },
}
"""By loss, the layers that a network may not end in, each with more advice for the error."""


def check_last_layer(net: nn.Module, loss: Any, measured: Iterable[Callable[..., float]]) -> None:
    """Raise ValueError if the loss or accuracy expects the scores before the last layer."""
    function, _ = parts_of(loss)
    *_, before, last = [net, net, *_one_after_another(net)]
    layers = next((layers for known, layers in REFUSED_LAST.items() if known is function), {})
    if type(last) in layers:
        raise ValueError(
            f"Trainer: the network ends in {last.label()}, and {function.__name__} takes the "
            "scores before it: leave the layer out, and call polynet.functional.sigmoid(outputs), "
            f"or softmax, afterwards{layers[type(last)]}"
        )
    single = isinstance(before, nn.Linear) and before.out_features == 1
    if type(last) is nn.Sigmoid and single and metrics.accuracy in measured:
        raise ValueError(
            f"Trainer: the network ends in {last.label()}, and accuracy takes the scores before "
            "it, above 0 meaning 1: leave the layer out, with "
            "losses.binary_cross_entropy_with_logits; or give a metric of your own, such as "
            "def right(targets, outputs): return ((outputs > 0.5) == targets).mean()"
        )


def _one_after_another(net: nn.Module) -> list[nn.Module]:
    """The layers in the order of their calls or, where that is unknown, the network."""
    if not isinstance(net, nn.Sequential) or type(net).forward is not nn.Sequential.forward:
        return [net]
    return [layer for part in net for layer in _one_after_another(part)]


def check_outputs(loss: Any, outputs: Any) -> None:
    """Raise ValueError for outputs that the loss accepts, but that cannot be what it expects."""
    function, _ = parts_of(loss)
    if function is losses.nll and not isinstance(outputs, dict):
        host = to_numpy(outputs)
        if host.max(initial=0) > 1e-3:
            raise ValueError(
                f"nll takes log-probabilities, which are at most 0; the network gives "
                f"{host.max():.4g}. For scores, use cross_entropy, or end it in nn.LogSoftmax(1)"
            )
    if function is losses.cross_entropy and tuple(getattr(outputs, "shape", ()))[1:2] == (1,):
        raise ValueError(
            "cross_entropy is of two classes or more, and the network has 1 output, for which it "
            "is always 0; give the network one output for each class, or use "
            "binary_cross_entropy_with_logits, whose targets are 0 and 1"
        )


def target_check(loss: Any, outputs: Any, targets: Any, name: str) -> Check | None:
    """A function that refuses targets which the loss, with or without options, cannot take.

    It checks them on the host, except those whose weight is 0. None where nothing is to be checked.
    """
    if isinstance(outputs, dict) or isinstance(targets, dict):
        return None  # only the user's own loss knows what it makes of a dict
    function, options = parts_of(loss)
    of_labels = function in (losses.cross_entropy, losses.nll, losses.multi_margin)
    integral = backend_of(targets).xp.isdtype(targets.dtype, "integral")
    check: Callable[[np.ndarray], None]
    if of_labels and integral and outputs.ndim > 1:
        ignored = options.get("ignore_index")
        check = functools.partial(_check_labels, outputs.shape[1], ignored, name)
    elif (
        function is losses.cross_entropy
        and outputs.ndim > 1
        and tuple(targets.shape) == tuple(outputs.shape)
    ):
        check = functools.partial(_check_probabilities, name)
    elif function is losses.binary_cross_entropy_with_logits and not integral:
        check = functools.partial(_check_chances, name)
    elif function is losses.hinge:
        check = functools.partial(_check_signs, name)
    else:
        return None
    return lambda host, weights: check(host if weights is None else host[weights != 0])


def total_weight(loss: Any, targets: Any, weights: list[Any]) -> float:
    """The total weight in a batch's loss: the number of its samples, or the sum of their weights.

    For losses of labels with `weight` or `ignore_index`, it is the sum of the labels' weights.
    """
    w = np.asarray(to_numpy(weights[0]), float) if weights else np.ones(samples(targets))
    function, options = parts_of(loss)
    classes, ignored = options.get("weight"), options.get("ignore_index")
    weighs = classes is not None or ignored is not None
    if function in (losses.cross_entropy, losses.nll) and weighs:
        labels = to_numpy(targets)
        if labels.dtype.kind not in "iu":
            return float(w.sum())
        each = np.ones(labels.shape)
        if classes is not None:
            each = np.asarray(to_numpy(classes), float).take(labels, mode="clip")
        each = np.where(labels == ignored, 0, each) if ignored is not None else each
        w = w.reshape(-1, *(1,) * (labels.ndim - 1)) * each
    return float(w.sum())


def parts_of(loss: Any) -> tuple[Callable[..., Array], dict[str, Any]]:
    """A loss's function, and its options."""
    if isinstance(loss, functools.partial):
        return loss.func, loss.keywords
    return loss, {}


NEAR = 1e-2
"""The error that is allowed in probabilities and in their sum."""


def _check_chances(name: str, targets: np.ndarray) -> None:
    low, high = targets.min(initial=0), targets.max(initial=0)
    if low < -NEAR or high > 1 + NEAR:
        raise ValueError(
            f"{name} holds numbers from {low} to {high}; binary_cross_entropy_with_logits takes "
            "0, 1, and what is between: convert -1 and 1 by (y + 1) / 2, labels by y == label"
        )


def _check_probabilities(name: str, targets: np.ndarray) -> None:
    """Probabilities of classes are on axis 1. Rounding is allowed, as is a sample of zeros only."""
    low, high = targets.min(initial=0), targets.max(initial=0)
    sums = targets.sum(axis=1)
    odd = (np.abs(sums - 1) > NEAR) & (np.abs(sums) > NEAR)
    if low < -NEAR or high > 1 + NEAR or odd.any():
        sums_up = "; not all sums over the classes are 1" if odd.any() else ""
        raise ValueError(
            f"{name} holds numbers from {low:.4g} to {high:.4g}{sums_up}. Floating targets of "
            "cross_entropy are the probabilities of the classes. Labels are integers, "
            "y.astype('int64'); several labels a sample are for binary_cross_entropy_with_logits, "
            "and numbers for mse"
        )


def _check_signs(name: str, targets: np.ndarray) -> None:
    other = targets[np.abs(targets) != 1]
    if other.size:
        raise ValueError(
            f"{name} holds {other.flat[0]}; hinge takes -1 and 1: convert 0 and 1 by 2.0 * y - 1"
        )


def _check_labels(classes: int, ignored: int | None, name: str, labels: np.ndarray) -> None:
    counted = labels if ignored is None else labels[labels != ignored]
    low, high = counted.min(initial=0), counted.max(initial=0)
    if low < 0 or high >= classes:
        raise ValueError(
            f"{name} holds class {high if high >= classes else low}, the network has {classes} "
            f"outputs: classes count from 0 to {classes - 1}; give the loss a label that does not "
            "count as ignore_index="
        )
