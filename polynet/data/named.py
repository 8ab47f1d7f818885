"""Samples of several arrays: a dict of arrays, by the names of the network's arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

NAMES = ("x", "y", "sample_weight")
"""The names of the arguments that hold samples."""


def each(function: Callable[[Any, str], Any], x: Any, name: str = "x") -> Any:
    """`function(array, name)` of an array; of a dict of arrays, a dict of the results.

    The names in the result are sorted, whatever their order in `x`. JAX sorts them too, and arrays
    of the same name meet where a loss takes the values of two dicts in turn. Raises TypeError for
    a dict that is empty, or has a name that is not a string.

    >>> each(lambda a, name: f"{name} is {a}", {"right": {"eye": 2}, "left": 1})
    {'left': "x['left'] is 1", 'right': {'eye': "x['right']['eye'] is 2"}}
    """
    if not isinstance(x, Mapping):
        return function(x, name)
    if not x or not all(isinstance(key, str) for key in x):
        raise TypeError(
            f"{name} is a dict of {list(x)}; expected arrays by their names, such as "
            '{"image": …, "age": …}'
        )
    return {key: each(function, x[key], f"{name}[{key!r}]") for key in sorted(x)}


def arrays_of(x: Any, name: str = "x") -> list[tuple[str, Any]]:
    """The array, or all the arrays of a dict, each with its name."""
    if not isinstance(x, Mapping):
        return [(name, x)]
    return [pair for key, a in x.items() for pair in arrays_of(a, f"{name}[{key!r}]")]


def samples(x: Any, name: str = "x") -> int:
    """The number of samples. Raises ValueError where arrays of a dict have different numbers."""
    (first, whole), *others = arrays_of(each(lambda a, _: a, x, name), name)
    if not hasattr(whole, "shape") and not hasattr(whole, "__len__"):
        raise TypeError(
            f"{first} is a {type(whole).__name__}; expected an array with a row for each sample"
        )
    for other, a in others:
        same_length(whole, a, (first, other))
    return whole.shape[0] if hasattr(whole, "shape") else len(whole)


def same_length(x: Any, y: Any, names: tuple[str, str] = ("x", "y")) -> int:
    """The number of samples in both. Raises ValueError where they differ."""
    counts = [samples(a, name) for a, name in zip((x, y), names, strict=True)]
    if counts[0] != counts[1]:
        raise ValueError(
            f"{names[0]} has {counts[0]} samples, {names[1]} {counts[1]}; expected the same number"
        )
    return counts[0]
