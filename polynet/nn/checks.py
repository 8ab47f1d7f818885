"""Checks of layers' settings and inputs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Real
from typing import Any

from polynet import integers
from polynet.backend import Array
from polynet.errors import A_NUMBER_DID
from polynet.nn.module import Module
from polynet.ops import array_namespace


def positive(layer: str, **settings: Any) -> tuple[int, ...]:
    """The settings as Python integers; ValueError unless every one is a positive integer."""
    return tuple(integers.positive(f"{layer}: {name}", v) for name, v in settings.items())


def signed_integers(layer: str, **settings: Any) -> tuple[int, ...]:
    """The settings as Python integers, which may be negative; ValueError for anything else."""
    numbers = []
    for name, value in settings.items():
        number = integers.integer(value, least=-math.inf)
        if number is None:
            raise ValueError(f"{layer}: {name} is an integer; got {value!r}")
        numbers.append(number)
    return tuple(numbers)


def yes_or_no(layer: str, **settings: Any) -> None:
    """ValueError unless every one of the settings is true or false."""
    for name, value in settings.items():
        if value not in (True, False):
            raise ValueError(f"{layer}: {name} is True or False; got {value!r}")


def epsilon(layer: str, eps: Any) -> float:
    """What is added to a variance, as a float; ValueError unless it is a finite number from 0."""
    if isinstance(eps, bool) or not isinstance(eps, Real) or not 0 <= float(eps) < math.inf:
        raise ValueError(f"{layer}: eps is a number, at least 0; got {eps!r}")
    return float(eps)


def per_axis(layer: str, name: str, value: Any, axes: int, *, least: int = 1) -> tuple[int, ...]:
    """One number for every axis; a single integer is the number for all of them."""
    given = value if isinstance(value, Sequence) else (value,) * axes
    numbers = integers.several(given, least=least)
    if numbers is None or len(numbers) != axes:
        several = f" or {axes} of them" if axes > 1 else ""
        raise ValueError(f"{layer}: {name} is an integer from {least}{several}; got {value!r}")
    return numbers


def shortened(numbers: tuple[int | None, ...]) -> str:
    """The numbers as people write them: a single number where all are the same."""
    return str(numbers[0]) if len(set(numbers)) == 1 else str(numbers)


def check_same_dtype(layer: Module, x: Array, parameter: Array) -> None:
    """Raise TypeError unless the input has the parameters' dtype."""
    if x.dtype != parameter.dtype:
        xp = array_namespace(parameter)
        todo = "convert the inputs, or draw the parameters with init(dtype=…)"
        if hasattr(xp, "float64") and x.dtype == xp.float64:
            todo += f". Where the network made them so, {A_NUMBER_DID}"
        if not xp.isdtype(x.dtype, "real floating"):
            todo = (
                "convert the inputs, np.asarray(x, dtype='float32'), and divide pixels by 255; "
                "only an Embedding takes whole numbers as they are"
            )
        raise TypeError(
            f"{layer.label()}: the inputs are {x.dtype}, the parameters {parameter.dtype}; {todo}"
        )


def check_images(layer: Module, x: Array, axes: int, channels: int | None = None) -> None:
    """Raise ValueError unless inputs have `axes` axes after the channels, as images have two.

    Where `channels` is given, the inputs must have that number of channels.
    """
    if len(x.shape) != 2 + axes or channels not in (None, x.shape[1]):
        error = wrong_shape(layer, shape_of_images(axes, channels), x)
        if len(x.shape) == 2 + axes and x.shape[-1] == channels:
            order = (0, axes + 1, *range(1, axes + 1))
            error.add_note(f"Where the channels are last: np.transpose(x, {order})")
        raise error


def shape_of_images(axes: int, channels: int | None = None) -> str:
    """The shape as text: of sequences where `axes` is 1, of images (2), of volumes (3)."""
    sizes = ", ".join(("depth", "height", "width")[-axes:])
    return f"(batch, {channels or 'channels'}, {sizes})"


def wrong_shape(layer: Module, expected: str, x: Array) -> ValueError:
    """The error for inputs of a wrong shape; `expected` is the right one as text, "(batch, 3)"."""
    found = tuple(x.shape)
    return ValueError(
        f"{layer.label()}: expected inputs of shape {expected}, got {found}"
        f"{_without_batch(expected, found)}"
    )


def _without_batch(expected: str, found: tuple[int, ...]) -> str:
    """A sentence with the remedy where only the batch axis is missing; "" where more is wrong."""
    for shape in re.findall(r"\((.*?)\)", expected):
        before, batch, after = shape.partition("batch")
        sizes = [size for size in (before + after).split(", ") if size]
        if sizes[-1:] == ["…"]:
            sizes[-1:] = ["any"] * (len(found) - len(sizes) + 1)
        fits = [not size.isdigit() or int(size) == n for size, n in zip(sizes, found, strict=False)]
        if batch and "channels" not in sizes and len(sizes) == len(found) and all(fits):
            index = ":, None, ..." if before else "None, ..."
            return f". One sample is a batch of one: x[{index}]"
    return ""
