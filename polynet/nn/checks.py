"""Checks that layers share: of their settings, and of what comes in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polynet.backend import Array
from polynet.nn.module import Module


def positive(layer: str, **settings: Any) -> None:
    """Raise ValueError unless every setting is a positive integer."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{layer}: {name} is a positive integer; got {value!r}")


def each_axis(layer: str, name: str, value: Any, axes: int, *, least: int = 1) -> tuple[int, ...]:
    """One number for every axis: an integer stands for all."""
    numbers = (value,) * axes if isinstance(value, int) else value
    if (
        not isinstance(numbers, Sequence)
        or len(numbers) != axes
        or not all(isinstance(n, int) and not isinstance(n, bool) and n >= least for n in numbers)
    ):
        several = f" or {axes} of them" if axes > 1 else ""
        raise ValueError(f"{layer}: {name} is an integer from {least}{several}; got {value!r}")
    return tuple(numbers)


def short(numbers: tuple[int | None, ...]) -> str:
    """As people write it: one number where all are the same."""
    return str(numbers[0]) if len(set(numbers)) == 1 else str(numbers)


def same_dtype(layer: Module, x: Array, parameter: Array) -> None:
    """Raise TypeError unless the input has the parameters' dtype."""
    if x.dtype != parameter.dtype:
        raise TypeError(
            f"{layer.label()}: the inputs are {x.dtype}, the parameters {parameter.dtype}; "
            "convert the inputs, or draw the parameters with init(dtype=…)"
        )


def wrong_shape(layer: Module, expected: str, x: Array) -> ValueError:
    """The error for inputs of another shape than `expected` says."""
    return ValueError(f"{layer.label()}: expected inputs of shape {expected}, got {tuple(x.shape)}")
