"""Recording an op: a rule becomes a function that writes what it did at the end of the record."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper, wraps
from typing import Any

from polynet import tree
from polynet.backend import Array
from polynet.tensor.arguments import (
    each,
    highest_level,
    members,
    plain_backend,
    unwrapped,
)
from polynet.tensor.values import Level, Parts, Tensor

_bare = object.__new__
"""The common cases fill in a Tensor themselves: the call of its `__init__` would cost more."""


def op(rule: Callable[..., Any]) -> Callable[..., Any]:
    """Make a differentiable function of a rule: a formula with its derivative beside it.

    `rule(xp, *arrays, **options)` returns its result and a tuple of pullbacks, one for each
    positional argument (None where no gradient goes back), or None for no pullbacks at all. A
    pullback takes the gradient `g` of the result to that of its argument; one in a shape that
    the argument was broadcast to is summed back. A list of arrays is one argument, whose
    pullback returns a list.

    Where the gradients share work, the rule returns one function in place of the tuple:
    `pullback(g, needs)`, with a bool for each positional argument, returns all gradients, None
    where there is none or none is needed. A rule may return several results, as a tuple or
    list of arrays; then it must, and `g` is a tuple of their gradients.

    Rules and pullbacks write to nothing they were given, may be called any number of times, and
    put `g` first (`g * y`: an array that is not recorded may not know what to do with a Tensor
    on its right).

    >>> @op
    ... def cube(xp, x):
    ...     return x**3, (lambda g: g * 3 * x**2,)
    >>> import numpy as np
    >>> cube(np.asarray([2.0]))
    array([8.])
    """
    signature = inspect.signature(rule)
    parameters = list(signature.parameters.values())[1:]
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
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.rule = rule  # type: ignore[attr-defined]
    return call


def custom_derivative(pullback: Callable[..., Any]) -> Callable[..., Any]:
    """Make a differentiable function of a formula, with a derivative that stands on its own.

    The formula decorated, `value(xp, *arrays, **options)`, computes the result. `pullback(xp,
    g, y, *arrays, **options)` takes the gradient `g` of the result `y` to a tuple of those of
    the arrays, None where none goes back. It is the derivative of the function, to any order:
    that of the formula is never taken, be it an approximation, a rounding, or a loop.

    >>> import numpy as np, polynet
    >>> @custom_derivative(lambda xp, g, y, x: (g,))
    ... def straight(xp, x):
    ...     return xp.round(x)
    >>> slope = polynet.grad(lambda x: straight(x) ** 2)
    >>> float(straight(np.asarray(1.4))), float(slope(np.asarray(1.4)))
    (1.0, 2.0)
    """

    def decorate(value: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(value)
        def rule(xp: Any, *arrays: Any, **options: Any) -> Any:
            below = any(type(a) is Tensor for a in members(arrays))
            y = call(*arrays, **options) if below else value(xp, *arrays, **options)
            return y, lambda g, _needs: pullback(xp, g, y, *arrays, **options)

        call = op(rule)
        return call

    return decorate


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
                try:
                    shape = value.shape
                except AttributeError:  # several results
                    return _written(level, value, (line,), pullbacks)
                if line is None or pullbacks is None:
                    return Tensor(value, level)
                result = _bare(Tensor)
                result._value = value
                result._level = level
                result._line = level.write((shape, (line,), pullbacks))
                return result
        return apply(rule, (x,), {})

    return call


def _unary_with_options(rule: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, /, **options: Any) -> Any:
        if type(x) is Tensor:
            level = x._level
            if level.plain:
                value, pullbacks = rule(level.xp, x._value, **options)
                return _written(level, value, (x._line,), pullbacks)
        return apply(rule, (x,), options)

    return call


def _binary(rule: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, y: Any, /) -> Any:
        i = j = None
        a, b = x, y
        if type(x) is Tensor:
            level = x._level
            a = x._value
            i = x._line
            if type(y) is Tensor and y._level is level:
                b = y._value
                j = y._line
            elif type(y) not in level.types:
                return apply(rule, (x, y), {})
        elif type(y) is Tensor and type(x) in y._level.types:
            level = y._level
            b = y._value
            j = y._line
        else:
            return apply(rule, (x, y), {})
        if not level.plain:
            return apply(rule, (x, y), {})
        value, pullbacks = rule(level.xp, a, b)
        try:
            shape = value.shape
        except AttributeError:
            return _written(level, value, (i, j), pullbacks)
        if (i is None and j is None) or pullbacks is None:
            return Tensor(value, level)
        result = _bare(Tensor)
        result._value = value
        result._level = level
        result._line = level.write((shape, (i, j), pullbacks))
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
    result = _written(level, value, inputs, pullbacks)
    if level.watch is not None:
        level.watch(rule, result)
    return result


def _written(level: Level, value: Any, inputs: Any, pullbacks: Any) -> Any:
    """The result, or each of several, as a Tensor, on the record if a gradient can reach it."""
    recorded = pullbacks is not None and any(line is not None for line in members(inputs))
    if not isinstance(value, tuple | list):
        line = level.write((value.shape, inputs, pullbacks)) if recorded else None
        return Tensor(value, level, line)
    if not recorded:
        return tree.map(lambda v: Tensor(v, level), value)
    xp = level.xp if level.plain else level.namespace

    def joint(parts: Parts, needs: tuple[bool, ...]) -> Any:
        gs = (parts[i] if i in parts else xp.zeros_like(v) for i, v in enumerate(value))
        return pullbacks(tuple(gs), needs)

    at = level.write((None, inputs, joint))
    count = iter(range(len(value)))

    def part(v: Array) -> Tensor:
        i = next(count)
        return Tensor(v, level, level.write((v.shape, (at,), (lambda g: Parts({i: g}),))))

    return tree.map(part, value)
