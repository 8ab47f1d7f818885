"""Recording an op: a rule becomes a function that adds a line to the record when it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper, wraps
from operator import itemgetter
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import array_api_compat

from polynet import tree
from polynet.backend import Array
from polynet.tensor.arguments import (
    each,
    highest_level,
    members,
    plain_backend,
    unwrapped,
    with_axis,
)
from polynet.tensor.rules import check_arrays, check_call, check_count, check_kernel, checked
from polynet.tensor.sweep import in_dtype
from polynet.tensor.values import Level, Parts, Tensor

P = ParamSpec("P")
"""The parameters of a function: those of its rule, after the namespace."""
R = TypeVar("R")

_SEVERAL = (tuple, list)
_bare = object.__new__
"""Makes a Tensor whose attributes are then set directly, which is faster than `__init__`."""


def op(rule: Callable[Concatenate[Any, P], Any]) -> Callable[P, Any]:
    """Make a differentiable function of a rule: a formula with its derivative beside it.

    `rule(xp, *arrays, **options)` returns its result and a tuple of pullbacks, one for each
    positional argument (None where no gradient goes back), or None for no pullbacks at all. A
    pullback takes the gradient `g` of the result and returns the gradient of its argument. Where
    the argument was broadcast, the gradient may have the broadcast shape: it is summed back to
    the argument's. A list of arrays is one argument, whose pullback returns a list.

    Where the gradients share work, the rule may return one function in place of the tuple:
    `pullback(g, needs)`, where `needs` has a bool for each positional argument, returns all
    gradients, None where there is none or none is needed. A rule may also return several results,
    as a tuple or list of arrays. Then it must return one such function, and `g` is a tuple of the
    gradients of the results.

    Rules and pullbacks write to none of their arguments and may be called any number of times.
    They put `g` first, as in `g * y`: an array that is not recorded may not know what to do with
    a Tensor on its right.

    >>> @op
    ... def cube(xp, x):
    ...     return x**3, (lambda g: g * 3 * x**2,)
    >>> import numpy as np
    >>> cube(np.asarray([2.0]))
    array([8.])
    """
    return _recorded(checked(rule), inspect.signature(rule))


def _recorded(
    rule: Callable[..., Any], signature: inspect.Signature, static: _Static | None = None
) -> Callable[..., Any]:
    """The function that runs `rule` and records it: one of the forms below that fits its signature.

    `_general` fits every rule; the others are faster.
    """
    parameters = list(signature.parameters.values())[1:]
    positional = _positional(signature)
    by_name = named_parameters(parameters)
    public = signature.replace(parameters=parameters)
    call: Any  # a function, which is given attributes
    if hasattr(rule, "of_a_user"):
        call = _general(rule, by_name, public)
    elif len(parameters) == len(positional) == 1:
        call = _unary(rule, static)
    elif len(parameters) == len(positional) == 2 and not by_name:
        call = _binary(rule, static)
    elif len(positional) == 1 and static is None:
        call = _unary_with_options(rule, public)
    else:
        call = _general(rule, by_name, public)
    call.__signature__ = public
    call.rule = rule
    return update_wrapper(call, rule)


def _positional(signature: inspect.Signature) -> list[str]:
    """The names of the arguments that may be given by position, after the namespace."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in list(signature.parameters.values())[1:] if p.kind in kinds]


class _Static(NamedTuple):
    """An op whose pullbacks are the same functions at every call: no closures are made for them."""

    formula: Any
    pullbacks: Any
    select: Any
    """Selects, from a tuple of the result and the arguments, the values that the pullbacks take."""


_NOT_STATIC = _Static(None, None, None)


def with_pullbacks(
    *pullbacks: Callable[..., Any] | None,
) -> Callable[[Callable[Concatenate[Any, P], R]], Callable[P, R]]:
    """Make a differentiable function from a formula and the pullbacks of its arguments.

    The decorated formula, `value(xp, *arrays, **options)`, computes the result. Each pullback
    takes the namespace, the gradient of the result, and then, by their names, those of the
    arguments and the result that it needs; the result's name is `out`. Only these values are saved.
    All pullbacks take the same parameters. None stands in place of a pullback where no gradient
    goes back. Derivatives of higher order differentiate the pullbacks; the formula itself, which
    may be an approximation, a rounding or a loop, is never differentiated.

    >>> import numpy as np, polynet
    >>> @with_pullbacks(lambda xp, g: g)
    ... def straight(xp, x):
    ...     return xp.round(x)
    >>> slope = polynet.grad(lambda x: straight(x) ** 2)
    >>> float(straight(np.asarray(1.4))), float(slope(np.asarray(1.4)))
    (1.0, 2.0)

    Raises TypeError if a pullback has a parameter that is neither `out` nor an argument's name.
    """

    def decorate(formula: Callable[Concatenate[Any, P], R]) -> Callable[P, R]:
        signature = inspect.signature(formula)
        given = _positional(signature)
        if len(pullbacks) < len(given):
            raise TypeError(
                f"{formula.__name__} takes {', '.join(given)} by position, and has "
                f"{len(pullbacks)} pullbacks; expected one for each, or None where no gradient "
                "goes back"
            )
        names = ["out", *list(signature.parameters)[1:]]
        select = _selection(formula, pullbacks, names)

        @wraps(formula)
        def rule(xp: Any, *args: Any, **options: Any) -> Any:
            nested = any(type(a) is Tensor for a in members(args))  # of lower levels, which record
            y = call(*args, **options) if nested else formula(xp, *args, **options)
            bound = signature.bind(xp, *args, **options)
            bound.apply_defaults()
            return y, pullbacks, select((y, *list(bound.arguments.values())[1:]))

        call = _recorded(rule, signature, _Static(formula, pullbacks, select))
        return call

    return decorate


def _selection(
    formula: Callable[..., Any], pullbacks: tuple[Callable[..., Any] | None, ...], names: list[str]
) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """A function that selects the pullbacks' arguments from a tuple of the values of `names`."""
    taken = [list(inspect.signature(p).parameters)[2:] for p in pullbacks if p is not None]
    wanted = taken[0] if taken else []
    if any(other != wanted for other in taken) or not set(wanted) <= set(names):
        raise TypeError(
            f"the pullbacks of {formula.__name__!r} take {' and '.join(map(str, taken))} after the "
            f"namespace and the gradient; expected the same of all, of {', '.join(names)}"
        )
    places = [names.index(name) for name in wanted]
    if len(places) > 1:
        return itemgetter(*places)
    start = places[0] if places else 0
    return itemgetter(slice(start, start + len(places)))


def named_parameters(parameters: list[inspect.Parameter]) -> dict[str, tuple[int, Any]]:
    """The position and the default of each parameter that may be given by position or by name."""
    return {
        p.name: (i, p.default)
        for i, p in enumerate(parameters)
        if p.kind is p.POSITIONAL_OR_KEYWORD
    }


def to_positional(
    args: tuple, options: dict, by_name: dict[str, tuple[int, Any]]
) -> tuple[tuple, dict]:
    """Move positional arguments that were given by name to their position."""
    filled = list(args)
    rest = dict(options)
    for name, (place, default) in by_name.items():
        if place < len(filled):
            continue
        if not any(other in rest for other in by_name):
            break
        value = rest.pop(name, default)
        if value is inspect.Parameter.empty or place > len(filled):
            raise TypeError(f"missing argument {name!r}, or one before it")
        filled.append(value)
    return tuple(filled), rest


def _general(
    rule: Callable[..., Any], by_name: dict[str, tuple[int, Any]], public: inspect.Signature
) -> Callable[..., Any]:
    place, own = by_name.get("axis", (None,))[0], not hasattr(rule, "of_a_user")

    def call(*args: Any, **options: Any) -> Any:
        try:
            if own and place is not None and len(args) > place:
                axis = with_axis(rule.__name__, {"axis": args[place]})["axis"]
                args = (*args[:place], axis, *args[place + 1 :])
            if options:
                options = with_axis(rule.__name__, options) if own else options
                args, options = to_positional(args, options, by_name)
            return apply(rule, args, options)
        except TypeError:
            check_call(rule.__name__, public, args, options)
            raise
        except AttributeError as error:
            check_arrays(rule.__name__, args, error)
            raise

    return call


def _unary(rule: Callable[..., Any], static: _Static | None) -> Callable[..., Any]:
    formula, static_pullbacks, select = static or _NOT_STATIC

    def call(x: Any, /) -> Any:
        if type(x) is Tensor:
            level = x._level
            if level.plain:
                line = x._line
                if formula is None:
                    value, pullbacks = rule(level.xp, x._value)
                    saved = None
                else:
                    value, pullbacks = formula(level.xp, x._value), static_pullbacks
                    saved = select((value, x._value))
                try:
                    shape = value.shape
                except AttributeError:  # several results
                    return _written(level, value, (line,), pullbacks, saved)
                if line is None or pullbacks is None:
                    return Tensor(value, level)
                result = _bare(Tensor)
                result._value = value
                result._level = level
                result._line = level.write(shape, (line,), pullbacks, saved)
                return result
        return apply(rule, (x,), {})

    return call


def _unary_with_options(rule: Callable[..., Any], public: inspect.Signature) -> Callable[..., Any]:
    def call(x: Any, /, *more: Any, **options: Any) -> Any:
        try:
            options = with_axis(rule.__name__, options)
            if type(x) is Tensor and not more:
                level = x._level
                if level.plain:
                    value, pullbacks = rule(level.xp, x._value, **options)
                    return _written(level, value, (x._line,), pullbacks, None)
            return apply(rule, (x, *more), options)
        except TypeError:
            check_call(rule.__name__, public, (x, *more), options)
            raise
        except AttributeError as error:
            check_arrays(rule.__name__, (x, *more), error)
            raise

    return call


def _binary(rule: Callable[..., Any], static: _Static | None) -> Callable[..., Any]:
    formula, static_pullbacks, select = static or _NOT_STATIC

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
        if formula is None:
            value, pullbacks = rule(level.xp, a, b)
            saved = None
        else:
            value, pullbacks = formula(level.xp, a, b), static_pullbacks
            saved = select((value, a, b))
        try:
            shape = value.shape
        except AttributeError:  # several results, or what 1j * np.float64(2) is, Python's complex
            value = level.xp.asarray(value) if type(value) is complex else value
            return _written(level, value, (i, j), pullbacks, saved)
        if (i is None and j is None) or pullbacks is None:
            return Tensor(value, level)
        result = _bare(Tensor)
        result._value = value
        result._level = level
        result._line = level.write(shape, (i, j), pullbacks, saved)
        return result

    return call


def apply(rule: Callable[..., Any], args: tuple, options: dict[str, Any]) -> Any:
    """Run a rule on any arguments and record it; NotImplemented where the rule declines."""
    level = highest_level(args)
    if level is None:
        result = rule(plain_backend(args).xp, *args, **options)
        return result if result is NotImplemented else result[0]
    return apply_at(level, rule, args, options)


def apply_at(
    level: Level,
    rule: Callable[..., Any],
    args: tuple,
    options: dict[str, Any],
    kernel: str | None = None,
) -> Any:
    """`apply`, where the highest level among the arguments is known; the rule may be a `kernel`."""
    simple = _simply_unwrapped(level, args) if level.plain else None
    if simple is None:
        inner, xp = unwrapped(level, args)
        inputs = each(lambda a: a._line if type(a) is Tensor and a._level is level else None, args)
    else:
        (inner, inputs), xp = simple, level.xp
    result = rule(xp, *inner, **options)
    if result is NotImplemented:
        return result
    if kernel is not None:
        check_kernel(kernel, level.backend, result, inputs)
        result = result[0], _of_kernel(xp, *result)
    elif hasattr(rule, "of_a_user"):
        check_count(rule, result, inputs)
    value, pullbacks, *saved = result
    result = _written(level, value, tuple(inputs), pullbacks, saved[0] if saved else None)
    if level.watch is not None:
        level.watch(rule, result)
    return result


def _of_kernel(xp: Any, value: Any, pullbacks: Any) -> Any:
    """A kernel's pullbacks, which are given each gradient in the dtype of its result.

    It comes in another where a later op met a wider or a complex array. Ops take any dtype that the
    standard promotes, but the code of a kernel takes one.
    """
    if pullbacks is None:
        return None
    if isinstance(value, _SEVERAL):
        each_dtype = [v.dtype for v in value]

        def joint(gs: tuple[Array, ...], needs: tuple[bool, ...]) -> Any:
            pairs = zip(gs, each_dtype, strict=True)
            return pullbacks(tuple(in_dtype(xp, g, dtype) for g, dtype in pairs), needs)

        return joint
    dtype = value.dtype
    if callable(pullbacks):
        return lambda g, needs: pullbacks(in_dtype(xp, g, dtype), needs)

    def converting(pullback: Any) -> Any:
        if pullback is None:
            return None
        return lambda g: pullback(g if g.dtype is dtype else in_dtype(xp, g, dtype))

    return tuple(map(converting, pullbacks))


def _simply_unwrapped(level: Level, args: tuple) -> tuple[list[Any], list[int | None]] | None:
    """The values inside the arguments, and their lines, if all are of known types; else None."""
    inner, lines, types = [], [], level.types
    for a in args:
        if type(a) is Tensor and a._level is level:
            inner.append(a._value)
            lines.append(a._line)
        elif type(a) in types:
            inner.append(a)
            lines.append(None)
        else:
            return None
    return inner, lines


def _written(level: Level, value: Any, inputs: tuple[Any, ...], pullbacks: Any, saved: Any) -> Any:
    """The result as a Tensor, or each of several results; recorded if a gradient can go back."""
    recorded = pullbacks is not None and any(line is not None for line in members(inputs))
    if not isinstance(value, _SEVERAL):
        line = level.write(value.shape, inputs, pullbacks, saved) if recorded else None
        return Tensor(value, level, line)
    if not recorded:
        return tree.map(lambda v: Tensor(v, level), value)
    xp = level.xp if level.plain else level.namespace
    where = array_api_compat.device(value[0]) if value else None
    like = [(v.shape, {"dtype": v.dtype, "device": where}) for v in value]  # not the arrays

    def joint(parts: Parts, needs: tuple[bool, ...]) -> Any:
        gs = (parts[i] if i in parts else xp.zeros(s, **how) for i, (s, how) in enumerate(like))
        return pullbacks(tuple(gs), needs)

    at = level.write(None, inputs, joint, None)
    count = iter(range(len(value)))

    def part(v: Array) -> Tensor:
        i = next(count)
        back = (lambda g: Parts({i: g}),)
        return Tensor(v, level, level.write(v.shape, (at,), back, None))

    return tree.map(part, value)
