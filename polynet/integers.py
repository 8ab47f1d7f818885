"""What counts as an integer, where a setting is to be one."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any


def integer(value: Any, *, least: float = 1) -> int | None:
    """An integer, NumPy's too, as one of Python; None for what is none, or is below `least`.

    A boolean is none, though Python's, and old NumPy's, may stand for an index.

    >>> integer(3), integer(0), integer(True), integer(2.0)
    (3, None, None, None)
    """
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool":
        return None
    try:
        number = operator.index(value)
    except TypeError:
        return None
    return None if number < least else number


def several(given: Any, *, least: float = 1) -> tuple[int, ...] | None:
    """A list of integers as a tuple of Python's; None for what is none, or holds anything else.

    >>> several([2, 3]), several((2, 0)), several(2)
    ((2, 3), None, None)
    """
    if not isinstance(given, Sequence):
        return None
    numbers = tuple(n for v in given if (n := integer(v, least=least)) is not None)
    return numbers if len(numbers) == len(given) else None


def positive(what: str, value: Any) -> int:
    """A positive integer as one of Python; ValueError, which names `what`, for anything else."""
    number = integer(value)
    if number is None:
        raise ValueError(f"{what} is a positive integer; got {value!r}")
    return number


def at_least_0(what: str, value: Any) -> int:
    """An integer that is not negative; ValueError, which names `what`, for anything else."""
    number = integer(value, least=0)
    if number is None:
        raise ValueError(f"{what} is an integer, at least 0; got {value!r}")
    return number


def sides(what: str, size: Any) -> tuple[int, int]:
    """(height, width) of an image: one positive integer for both, or two.

    ValueError, which names `what`, for anything else.
    """
    found = several(size if isinstance(size, Sequence) else (size, size))
    if found is None or len(found) != 2:
        raise ValueError(f"{what}: size is a positive integer, or (height, width); got {size!r}")
    return found[0], found[1]
