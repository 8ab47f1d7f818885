"""Checks of a Trainer's arguments, and the place (backend, device, dtype) that they choose."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from polynet.backend import (
    Array,
    Backend,
    backend_of,
    chosen_backend,
    common_backend,
    get_backend,
    use_backend,
)
from polynet.data import Place, is_device_array
from polynet.data.named import arrays_of
from polynet.errors import MixedBackendsError
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
    several = isinstance(given, Iterable) and not isinstance(given, str) and not callable(given)
    found = list(given) if several else [given]
    others = [f for f in found if not callable(f)]
    if others or not several:
        raise TypeError(f"{what}; got {'a list with ' if several else ''}{(others or found)[0]!r}")
    return found


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


def place_for(
    net: Module, x: Any, asked: str | Backend | None, device: str | None, dtype: str | None
) -> Place:
    """The place of a network: where it is, else the place asked for, else where `x` is."""
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
    """The place of a network whose parameters are drawn; raises if another place was asked for."""
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
    found = str(drawn[0].dtype).rpartition(".")[2]
    if dtype is not None and dtype != found:
        raise TypeError(
            f"the network is {found}, the Trainer was given dtype {dtype!r}; leave it out, or "
            "draw the network with init(dtype=…)"
        )
    return Place(backend, native, found)
