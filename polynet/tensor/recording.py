"""Recording an op: a rule becomes a function that writes what it did at the end of the record."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from polynet.tensor.arguments import each, highest_level, members, plain_backend, unwrapped
from polynet.tensor.values import CONSTANT, Tensor

_bare = object.__new__
"""The common cases fill in a Tensor themselves: the call of its `__init__` would cost more."""


def op(rule: Callable[..., Any]) -> Callable[..., Any]:
    """Make a differentiable function of a rule: a formula with its derivative beside it.

    `rule(xp, *arrays, **options)` returns its result and a tuple of pullbacks, one for each
    positional argument (None where no gradient goes back), or None for no pullbacks at all. A
    pullback takes the gradient `g` of the result to that of its argument; one in a shape that
    the argument was broadcast to is summed back. A list of arrays is one argument, whose
    pullback returns a list. Rules and pullbacks write to nothing they were given, may be called
    any number of times, and put `g` first (`g * y`: an array that is not recorded may not know
    what to do with a Tensor on its right).

    >>> @op
    ... def cube(xp, x):
    ...     return x**3, (lambda g: g * 3 * x**2,)
    >>> import numpy as np
    >>> cube(np.asarray([2.0]))
    array([8.])
    """
    parameters = list(inspect.signature(rule).parameters.values())[1:]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p.name for p in parameters if p.kind in kinds]
    by_name = named_parameters(parameters)
    if len(parameters) == len(positional) == 1:
        call = _unary(rule)
    elif len(parameters) == len(positional) == 2 and not by_name:
        call = _binary(rule)
    elif len(positional) == 1:
        call = _unary_with_options(rule)
    else:

        def call(*args: Any, **options: Any) -> Any:
            if options:
                args, options = to_positional(args, options, by_name)
            return apply(rule, args, options)

    update_wrapper(call, rule)
    call.rule = rule  # type: ignore[attr-defined]
    return call


def named_parameters(parameters: list[inspect.Parameter]) -> dict[str, tuple[int, Any]]:
    """Place and default of each parameter that may be given by position or by name."""
    return {
        p.name: (i, p.default)
        for i, p in enumerate(parameters)
        if p.kind is p.POSITIONAL_OR_KEYWORD
    }


def to_positional(
    args: tuple, options: dict, by_name: dict[str, tuple[int, Any]]
) -> tuple[tuple, dict]:
    """Move arguments that are positional, but were given by name, to their place."""
    filled = list(args)
    rest = dict(options)
    for name, (place, default) in by_name.items():
        if place < len(filled):
            continue
        if not any(other in rest for other in by_name):
            break
        value = rest.pop(name, default)
        if value is inspect.Parameter.empty:
            raise TypeError(f"missing argument {name!r}")
        filled.append(value)
    return tuple(filled), rest


def _unary(rule: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, /) -> Any:
        if type(x) is Tensor:
            level = x._level
            if level.plain:
                value, pullbacks = rule(level.xp, x._value)
                line = x._line
                if line is None or pullbacks is None:
                    return Tensor(value, level)
                result = _bare(Tensor)
                result._value = value
                result._level = level
                result._line = level.write((value.shape, (line,), pullbacks))
                return result
        return apply(rule, (x,), {})

    return call


def _unary_with_options(rule: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, /, **options: Any) -> Any:
        if type(x) is Tensor:
            level = x._level
            if level.plain:
                value, pullbacks = rule(level.xp, x._value, **options)
                line = x._line
                if line is None or pullbacks is None:
                    return Tensor(value, level)
                return Tensor(value, level, level.write((value.shape, (line,), pullbacks)))
        return apply(rule, (x,), options)

    return call


def _binary(rule: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, y: Any, /) -> Any:
        i = j = None
        if type(x) is Tensor:
            level = x._level
            i = x._line
            a = x._value
            if type(y) is Tensor:
                j = y._line
                b = y._value
                if y._level is not level:
                    if level.id == CONSTANT:
                        level = y._level
                    elif y._level.id != CONSTANT:
                        return apply(rule, (x, y), {})
            else:
                b = y
                if type(y) not in level.types:
                    level.admit(y)
        elif type(y) is Tensor:
            level = y._level
            j = y._line
            a = x
            b = y._value
            if type(x) not in level.types:
                level.admit(x)
        else:
            return apply(rule, (x, y), {})
        if not level.plain:
            return apply(rule, (x, y), {})
        value, pullbacks = rule(level.xp, a, b)
        if (i is None and j is None) or pullbacks is None:
            return Tensor(value, level)
        result = _bare(Tensor)
        result._value = value
        result._level = level
        result._line = level.write((value.shape, (i, j), pullbacks))
        return result

    return call


def apply(rule: Callable[..., Any], args: tuple, options: dict[str, Any]) -> Any:
    """Run a rule on any arguments and record it; NotImplemented where the rule declines."""
    level = highest_level(args)
    if level is None:
        result = rule(plain_backend(args).xp, *args, **options)
        return result if result is NotImplemented else result[0]
    inner, xp = unwrapped(level, args)
    result = rule(xp, *inner, **options)
    if result is NotImplemented:
        return result
    value, pullbacks = result
    inputs = each(lambda a: a._line if type(a) is Tensor and a._level is level else None, args)
    if pullbacks is None or all(line is None for line in members(inputs)):
        return Tensor(value, level)
    return Tensor(value, level, level.write((value.shape, inputs, pullbacks)))
