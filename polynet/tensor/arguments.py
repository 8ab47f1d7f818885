"""An op's arguments: finding their level, unwrapping them, checking that they belong together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from polynet import tree
from polynet.backend import Backend, backend_of
from polynet.errors import RecordError
from polynet.integers import integer
from polynet.tensor.values import Level, Tensor, mixed, without_level

CONTAINERS = frozenset({list, tuple, dict})
"""The types of arguments in which an op looks for arrays."""
_PYTHON_SCALARS = frozenset({bool, int, float, complex, str})


_AXIS = (int, type(None))


def with_axis(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of function `name`, in which `axis` is an int of Python, a tuple of them or None.

    Not every library takes NumPy's integers, and some take True for 1. Raises TypeError for
    anything that is no integer.
    """
    axis = options.get("axis")
    if type(axis) in _AXIS:
        return options
    several = axis if isinstance(axis, tuple) else (axis,)
    numbers = tuple(integer(a, least=-math.inf) for a in several)
    if None in numbers:
        raise TypeError(f"{name}: axis is an integer, or a tuple of integers; got {axis!r}")
    return {**options, "axis": numbers if isinstance(axis, tuple) else numbers[0]}


def members(args: Iterable[Any]) -> Iterator[Any]:
    """The arguments, with lists, tuples and dicts replaced by their leaves."""
    for a in args:
        if type(a) in CONTAINERS:
            yield from tree.leaves(a)
        else:
            yield a


def highest_level(args: Iterable[Any]) -> Level | None:
    """The highest level among the Tensors in `args`, or None."""
    highest = None
    for a in args:
        if type(a) is Tensor:
            if highest is None or a._level.id > highest.id:
                highest = a._level
        elif type(a) in CONTAINERS:
            for b in tree.leaves(a):
                if type(b) is Tensor and (highest is None or b._level.id > highest.id):
                    highest = b._level
    return highest


def each(function: Callable[[Any], Any], args: Iterable[Any]) -> list[Any]:
    """`function` of each argument; where that is a list, tuple or dict, of each of its leaves."""
    return [tree.map(function, a) if type(a) in CONTAINERS else function(a) for a in args]


def unwrapped(level: Level, args: tuple) -> tuple[list[Any], Any]:
    """The arguments without `level`, and the namespace for the values inside.

    Where some of these values are Tensors of lower levels, plain arrays become Tensors too.
    """
    inner = each(lambda a: without_level(level, a), args)
    for a in members(inner):
        if type(a) is Tensor:
            if level.plain:
                a._level.require_open()
                raise RecordError(
                    "a Tensor of another derivative met a Tensor of a derivative that was opened "
                    "in another thread; open it there in contextvars.copy_context().run"
                )
        elif type(a) not in level.types:
            level.admit(a)
    if level.plain:
        return inner, level.xp
    return lifted(level, inner), level.namespace


def lifted(level: Level, args: Iterable[Any]) -> list[Any]:
    """The arguments, with plain arrays made into constant Tensors.

    Mixed arguments would fail in libraries whose arrays do not leave the operator of
    `array @ tensor` to the Tensor.
    """
    is_array, constants = level.backend.is_array, level.namespace.constants
    return each(lambda a: Tensor(a, constants) if is_array(a) else a, args)


def plain_backend(args: tuple) -> Backend:
    """The one backend of all arrays among arguments that hold no Tensor."""
    backend = None
    for a in {type(a): a for a in tree.leaves(args)}.values():  # one of each type is enough
        if type(a) in _PYTHON_SCALARS or not hasattr(a, "dtype") or isinstance(a, type):
            continue
        if backend is None:
            backend = backend_of(a)
        elif not backend.is_array(a):
            raise mixed(a, backend)
    if backend is None:
        raise TypeError("expected at least one array, got none; make one with polynet.asarray(x)")
    return backend
