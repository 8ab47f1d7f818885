"""Compositions: functions written from ops, which a backend may replace by kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Concatenate

from polynet.tensor.arguments import highest_level, lifted, plain_backend, with_axis
from polynet.tensor.recording import P, R, apply_at, named_parameters, to_positional
from polynet.tensor.rules import check_arrays, check_call, check_kernel, is_own, refuse_complex
from polynet.tensor.values import Tensor


def composition(definition: Callable[Concatenate[Any, P], R]) -> Callable[P, R]:
    """Make a function that is written from ops, and that a backend may replace by a kernel.

    `definition(xp, *arrays, **options)` defines the function on every backend. A kernel of the
    same name runs in its place where the arrays are plain and their gradients will be plain,
    unless it returns `NotImplemented`.

    The kernel of a function of trees of arrays, such as an optimizer's formula, has no derivative
    and may write over its arguments. So it does not run where an array in the trees is recorded.

    >>> import numpy as np
    >>> @composition
    ... def softplus(xp, x, /):
    ...     return xp.log1p(xp.exp(x))
    >>> softplus(np.asarray([0.0]))
    array([0.69314718])
    """
    return _composed(definition, None)


def real_composition(definition: Callable[Concatenate[Any, P], R]) -> Callable[P, R]:
    """A `composition` of real numbers: where its first array is complex, it raises TypeError.

    It is for functions that compare numbers or take their absolute value: not all libraries raise
    an error for that. Complex arrays reach neither the kernel nor the definition.
    """
    return _composed(definition, refuse_complex(definition.__name__))


def checking(check: Callable[..., None]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a composition whose calls are checked before a kernel or the definition sees them.

    `check` takes the name of the composition, and then what the composition takes.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name, public = function.__name__, inspect.signature(function)

        def call(*args: P.args, **options: P.kwargs) -> R:
            try:
                check(name, *args, **options)
            except AttributeError:  # of what is no array, which the function refuses itself
                pass
            except TypeError:
                check_call(name, public, args, options)
                raise
            return function(*args, **options)

        return update_wrapper(call, function)

    return decorate


def _composed(
    definition: Callable[Concatenate[Any, P], R], check: Callable[[Any, Any], None] | None
) -> Callable[P, R]:
    name = definition.__name__
    signature = inspect.signature(definition)
    parameters = list(signature.parameters.values())[1:]
    by_name = named_parameters(parameters)
    public = signature.replace(parameters=parameters)
    own = is_own(definition)

    def call(*args: Any, **options: Any) -> Any:
        try:
            if options:
                options = with_axis(name, options) if own else options
                args, options = to_positional(args, options, by_name)
            level = highest_level((*args, *options.values()) if options else args)
            if level is None:
                backend = plain_backend(args)
                if check is not None:
                    check(backend.xp, args[0])
                kernel = backend.kernels.get(name)
                if kernel is not None:
                    result = kernel(backend.xp, *args, **options)
                    if result is not NotImplemented:
                        check_kernel(name, backend, result, ())
                        return result[0]
                return definition(backend.xp, *args, **options)
            if check is not None:
                check(level.xp, args[0])
            kernel = level.kernels.get(name)
            if kernel is not None and dict not in map(type, args) and not _some_recorded(options):
                result = apply_at(level, kernel, args, options, name)
                if result is not NotImplemented:
                    return result
            return definition(level.namespace, *lifted(level, args), **options)
        except TypeError:
            check_call(name, public, args, options)
            raise
        except AttributeError as error:
            check_arrays(name, args, error)
            raise

    wrapped: Any = update_wrapper(call, definition)  # Any: the function is given attributes
    wrapped.__signature__ = public
    wrapped.definition = definition
    return wrapped


def _some_recorded(options: dict[str, Any]) -> bool:
    """Whether an option is a recorded number: a kernel has no gradient for options."""
    return bool(options) and Tensor in map(type, options.values())
