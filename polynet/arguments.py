"""Checks of a Trainer's arguments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np

from polynet.nn import Module
from polynet.optim import Optimizer

Metric = Callable[[np.ndarray, np.ndarray], float]
Callback = Callable[[Any], object]


def metrics_by_name(given: Iterable[Metric]) -> dict[str, Metric]:
    """The metrics, by the names of their functions, which must differ."""
    what = "Trainer: metrics is a list of functions (targets, outputs) -> number"
    metrics = functions(given, what)
    names = [getattr(metric, "__name__", None) for metric in metrics]
    for name, metric in zip(names, metrics, strict=True):
        if name is None or name == "loss" or names.count(name) > 1:
            raise ValueError(
                f"Trainer: metrics are kept under their functions' names, which must differ "
                f"from one another and from 'loss'; got {name or repr(metric)!r}: use `def`"
            )
    return dict(zip(map(str, names), metrics, strict=True))


def functions(given: Any, what: str) -> list[Callable[..., Any]]:
    """`given` as a list of functions; TypeError, which begins with `what`, for anything else."""
    if not isinstance(given, Iterable) or isinstance(given, str) or callable(given):
        raise TypeError(f"{what}; got {given!r}")
    listed = list(given)
    for item in listed:
        if not callable(item):
            raise TypeError(f"{what}; got a list with {item!r}")
    return listed


def callbacks_in_order(given: Any) -> list[Callback]:
    """The callbacks in their order, except that those which save the run come last."""
    callbacks = functions(given, "fit: callbacks is a list of functions (trainer) -> bool or None")
    for callback in callbacks:
        if isinstance(callback, type):
            name = callback.__name__
            raise TypeError(
                f"fit: callbacks holds the class {name} itself; give an instance: {name}(…)"
            )
    return sorted(callbacks, key=lambda callback: getattr(callback, "last", False))


def check_each(callbacks: Sequence[Callback], trainer: Any, numbers: Collection[str]) -> None:
    """Let callbacks raise before the first step what they would otherwise raise after an epoch.

    `numbers` are the names of the numbers that the history will get from each epoch of this `fit`.
    """
    for callback in callbacks:
        getattr(callback, "check_before_fit", lambda *_: None)(trainer, numbers)


def call_each(callbacks: Sequence[Callback], trainer: Any) -> bool:
    """Call every callback; return whether one returned True, not a number such as 1."""
    answers = [callback(trainer) for callback in callbacks]
    return any(isinstance(a, bool | np.bool_) and a for a in answers)


def check_kinds(net: Any, loss: Any, optimizer: Any) -> None:
    """Raise TypeError unless each argument is of the kind that its name says."""
    if not isinstance(net, Module):
        raise TypeError(f"Trainer: net is a {type(net).__name__}; expected a polynet.nn.Module")
    check_loss(loss)
    if not isinstance(optimizer, Optimizer):
        given = (
            "the class itself" if isinstance(optimizer, type) else f"a {type(optimizer).__name__}"
        )
        raise TypeError(f"Trainer: optimizer is {given}; expected one such as optim.Adam(lr=1e-3)")


def check_loss(loss: Any) -> None:
    """Raise TypeError unless `loss` is a function."""
    if not callable(loss):
        raise TypeError(
            f"Trainer: loss is {loss!r}; expected a function such as polynet.losses.mse"
        )
