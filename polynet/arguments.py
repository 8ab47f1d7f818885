"""What a Trainer is given: checked, and the place that it means for the network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from polynet import losses
from polynet.backend import (
    Array,
    Backend,
    backend_of,
    chosen_backend,
    common_backend,
    get_backend,
    to_numpy,
    use_backend,
)
from polynet.data import Place, Source, is_batches, is_device_array
from polynet.data.feed import Check
from polynet.data.named import arrays_of, samples
from polynet.errors import MixedBackendsError
from polynet.nn import Module
from polynet.optim import Optimizer

Metric = Callable[[np.ndarray, np.ndarray], float]
Callback = Callable[[Any], object]


def by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """The metrics by their functions' names, which must differ."""
    names = [getattr(metric, "__name__", None) for metric in metrics]
    for name, metric in zip(names, metrics, strict=True):
        if name is None or name == "loss" or names.count(name) > 1:
            raise ValueError(
                f"Trainer: metrics are recorded under their functions' names, which must differ "
                f"from one another and from 'loss'; got {name or repr(metric)!r}: def a function"
            )
    return dict(zip(map(str, names), metrics, strict=True))


def validation(given: Any) -> tuple[Any, Any, Any]:
    """`validation_data` as x, y and sample_weight."""
    several = isinstance(given, tuple) or (isinstance(given, list) and not all(map(_batch, given)))
    if not several and (isinstance(given, Source) or callable(given) or is_batches(given)):
        return given, None, None
    if not several or len(given) not in {2, 3}:
        raise TypeError(
            "validation_data is (x, y), (x, y, sample_weight), a list of such batches or a source; "
            f"got a {type(given).__name__}"
        )
    return given[0], given[1], given[2] if len(given) > 2 else None


def _batch(x: Any) -> bool:
    """Whether it is (x, y) or (x, y, sample_weight), of arrays or dicts of them."""
    several = isinstance(x, tuple | list) and len(x) in {2, 3}
    return several and all(hasattr(a, "shape") or isinstance(a, Mapping) for a in x)


def in_turn(callbacks: Any) -> list[Callback]:
    """The callbacks as given, but those last that save what the others did.

    One that saves says now, before anything is trained, if its folder is missing.
    """
    if callable(callbacks) or not all(map(callable, callbacks)):
        raise TypeError("fit: callbacks is a list of functions (trainer) -> bool or None")
    for callback in callbacks:
        if isinstance(callback, type):
            name = callback.__name__
            raise TypeError(f"fit: callbacks holds the class {name} itself; give one: {name}(…)")
        getattr(callback, "check_folder", lambda: None)()
    return sorted(callbacks, key=lambda callback: getattr(callback, "last", False))


def call_each(callbacks: Sequence[Callback], trainer: Any) -> bool:
    """Call every one; whether one returned True: other values, such as numbers, end nothing."""
    answers = [callback(trainer) for callback in callbacks]
    return any(isinstance(a, bool | np.bool_) and a for a in answers)


def check_kinds(net: Any, loss: Any, optimizer: Any, metrics: Any) -> None:
    """Raise TypeError for what is not what its name says."""
    if not isinstance(net, Module):
        raise TypeError(f"Trainer: net is a {type(net).__name__}; expected a polynet.nn.Module")
    check_loss(loss)
    if not isinstance(optimizer, Optimizer):
        given = (
            "the class itself" if isinstance(optimizer, type) else f"a {type(optimizer).__name__}"
        )
        raise TypeError(f"Trainer: optimizer is {given}; expected one such as optim.Adam(lr=1e-3)")
    if callable(metrics) or not all(callable(m) for m in metrics):
        raise TypeError("Trainer: metrics is a list of functions (targets, outputs) -> number")


def check_loss(loss: Any) -> None:
    """Raise TypeError for what is no function."""
    if not callable(loss):
        raise TypeError(
            f"Trainer: loss is {loss!r}; expected a function such as polynet.losses.mse"
        )


def target_check(
    loss: Any, outputs: Any, targets: Any, name: str, *, weighed: bool
) -> Check | None:
    """What refuses targets that the loss, with options or without, does not know.

    It looks at them on the host; None where there is nothing to look for. Targets that are
    `weighed` may hold others than those that count.
    """
    if isinstance(outputs, dict) or isinstance(targets, dict):
        return None  # what is made of them, a loss of one's own knows
    options = loss.keywords if isinstance(loss, functools.partial) else {}
    kind = loss.func if isinstance(loss, functools.partial) else loss
    of_labels = kind in (losses.cross_entropy, losses.nll, losses.multi_margin)
    integral = backend_of(targets).xp.isdtype(targets.dtype, "integral")
    if of_labels and integral and outputs.ndim > 1:
        ignored = options.get("ignore_index")
        return functools.partial(_check_labels, outputs.shape[1], ignored, name)
    if kind is losses.binary_cross_entropy_with_logits and not integral:
        return functools.partial(_check_chances, name)
    if kind is losses.hinge and not weighed:
        return functools.partial(_check_signs, name)
    return None


def counted(loss: Any, targets: Any, weights: list[Any]) -> float:
    """What of a batch its loss is the mean over: its samples, or what they weigh.

    Of losses of labels that have `weight` or `ignore_index` it is what the labels weigh.
    """
    w = np.asarray(to_numpy(weights[0]), float) if weights else np.ones(samples(targets))
    options = loss.keywords if isinstance(loss, functools.partial) else {}
    kind = loss.func if isinstance(loss, functools.partial) else loss
    classes, ignored = options.get("weight"), options.get("ignore_index")
    if kind in (losses.cross_entropy, losses.nll) and (classes is not None or ignored is not None):
        labels = to_numpy(targets)
        if labels.dtype.kind not in "iu":
            return float(w.sum())
        each = np.ones(labels.shape)
        if classes is not None:
            each = np.asarray(to_numpy(classes), float).take(labels, mode="clip")
        each = np.where(labels == ignored, 0, each) if ignored is not None else each
        w = w.reshape(-1, *(1,) * (labels.ndim - 1)) * each
    return float(w.sum())


def _check_chances(name: str, targets: np.ndarray) -> None:
    low, high = targets.min(initial=0), targets.max(initial=0)
    if low < 0 or high > 1:
        raise ValueError(
            f"{name} holds numbers from {low} to {high}; binary_cross_entropy_with_logits takes "
            "0, 1, and what is between: of -1 and 1 make (y + 1) / 2, of two labels y == label"
        )


def _check_signs(name: str, targets: np.ndarray) -> None:
    other = targets[np.abs(targets) != 1]
    if other.size:
        raise ValueError(
            f"{name} holds {other.flat[0]}; hinge takes -1 and 1: of 0 and 1 make 2.0 * y - 1"
        )


def _check_labels(classes: int, ignored: int | None, name: str, labels: np.ndarray) -> None:
    counted = labels if ignored is None else labels[labels != ignored]
    low, high = counted.min(initial=0), counted.max(initial=0)
    if low < 0 or high >= classes:
        raise ValueError(
            f"{name} holds class {high if high >= classes else low}, the network has {classes} "
            f"outputs: classes count from 0 to {classes - 1}; labels that do not count are "
            "ignore_index= of the loss"
        )


def place_for(
    net: Module, x: Any, asked: str | Backend | None, device: str | None, dtype: str | None
) -> Place:
    """Where a network belongs: where it is, else where asked, else where `x` is."""
    drawn = [p for p in net.parameters().values() if hasattr(p, "dtype")]
    if drawn:
        return _where_drawn(drawn, asked, device, dtype)
    there = next((a for _, a in arrays_of(x) if is_device_array(a)), None)
    if asked is None and chosen_backend() is None and there is not None:
        backend = backend_of(there)
        native = backend.device(device) if device else backend.device_of(there)
    else:
        backend = get_backend(asked)
        native = backend.device(device)
    return Place(backend, native, dtype or "float32")


def _where_drawn(
    drawn: list[Array], asked: str | Backend | None, device: str | None, dtype: str | None
) -> Place:
    """Where a network is that has its parameters."""
    with nullcontext() if asked is None else use_backend(asked):
        backend, native = common_backend(drawn, "the network's parameters")
    if asked is not None:
        wanted = get_backend(asked)
        if wanted.name != backend.name:
            raise MixedBackendsError(
                f"the network is on {backend.name!r}, the Trainer was given backend "
                f"{wanted.name!r}; move it with net.to(backend=…)"
            )
        backend = wanted
    if device is not None and backend.device(device) != native:
        raise MixedBackendsError(
            f"the network is on {native}, the Trainer was given device {device!r}; move it "
            "with net.to(device=…)"
        )
    own = str(drawn[0].dtype).rpartition(".")[2]
    if dtype is not None and dtype != own:
        raise TypeError(
            f"the network is {own}, the Trainer was given dtype {dtype!r}; leave it out, or "
            "draw the network with init(dtype=…)"
        )
    return Place(backend, native, own)
