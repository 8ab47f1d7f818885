"""Checks of settings that must be integers."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any


def integer(value: Any, *, least: float = 1) -> int | None:
    """`value` as a Python integer; None if it is not an integer, or is below `least`.

    NumPy's integers count as integers, booleans do not.

    >>> integer(3), integer(0), integer(True), integer(2.0)
    (3, None, None, None)
    """
    if type(value) is int:
        return None if value < least else value
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool":
        return None
    try:
        number = operator.index(value)
    except TypeError:
        return None
    return None if number < least else number


def several(given: Any, *, least: float = 1) -> tuple[int, ...] | None:
    """A sequence of integers as a tuple of Python's; None if `given` is anything else.

    >>> several([2, 3]), several((2, 0)), several(2)
    ((2, 3), None, None)
    """
    if not isinstance(given, Sequence):
        return None
    numbers = tuple(n for v in given if (n := integer(v, least=least)) is not None)
    return numbers if len(numbers) == len(given) else None


def positive(what: str, value: Any) -> int:
    """`value` as a positive Python integer; for anything else, a ValueError that names `what`."""
    number = integer(value)
    if number is None:
        raise ValueError(f"{what} is a positive integer; got {value!r}")
    return number


def at_least_0(what: str, value: Any) -> int:
    """`value` as a Python integer from 0 up; for anything else, a ValueError that names `what`."""
    number = integer(value, least=0)
    if number is None:
        raise ValueError(f"{what} is an integer, at least 0; got {value!r}")
    return number


def sides(what: str, size: Any) -> tuple[int, int]:
    """(height, width) of an image, from one positive integer for both, or from two.

    For anything else, raises a ValueError that names `what`.
    """
    found = several(size if isinstance(size, Sequence) else (size, size))
    if found is None or len(found) != 2:
        raise ValueError(f"{what}: size is a positive integer, or (height, width); got {size!r}")
    return found[0], found[1]
