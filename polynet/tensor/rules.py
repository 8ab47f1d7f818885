"""Checks of calls, and of what a user's rule or a kernel returns, which would lose a gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from polynet.backend import Backend
from polynet.pytorch_names import OF_A_CALL, instead
from polynet.tensor.sweep import needs
from polynet.tensor.values import Tensor

EXPECTED = (
    "a rule is rule(xp, *arrays, **options) and returns its result and a tuple of pullbacks, one "
    "for each array, None for an array without a gradient: return y, (lambda g: …,)"
)


def checked(rule: Callable[..., Any]) -> Callable[..., Any]:
    """The rule with checks around it. polynet's own rules are tested, and returned unchanged."""
    if str(getattr(rule, "__module__", "")).partition(".")[0] == "polynet":
        return rule
    signature, name = inspect.signature(rule), f"op {rule.__name__}"
    if not _takes_arrays(signature):
        raise TypeError(f"{name}{signature}: {EXPECTED}")

    @wraps(rule)
    def checking(xp: Any, *args: Any, **options: Any) -> Any:
        for option, value in options.items():
            if type(value) is Tensor:
                raise TypeError(
                    f"{name} was given a recorded array by keyword, as {option}; arrays with a "
                    "gradient are arguments by position"
                )
        result = rule(xp, *args, **options)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"{name} returned a {type(result).__name__}; {EXPECTED}")
        return result[0], _checked_pullbacks(name, *result)

    checking.of_a_user = True  # type: ignore[attr-defined]  # whose pullbacks are counted
    return checking


def _takes_arrays(signature: inspect.Signature) -> bool:
    """Whether the rule takes a positional argument after the namespace."""
    kinds = [p.kind for p in signature.parameters.values()]
    several = inspect.Parameter.VAR_POSITIONAL in kinds
    return several or sum(kind < inspect.Parameter.VAR_POSITIONAL for kind in kinds) > 1


def _checked_pullbacks(name: str, value: Any, pullbacks: Any) -> Any:
    if pullbacks is None:
        return None
    several = isinstance(value, tuple | list)
    if callable(pullbacks):
        code = getattr(pullbacks, "__code__", None)
        if code is not None and code.co_argcount == 1 and not code.co_flags & inspect.CO_VARARGS:
            raise TypeError(
                f"{name} returned one function of the gradient alone; one for all arrays is "
                "pullback(g, needs), and a tuple of one has a comma: (lambda g: …,)"
            )
        return pullbacks
    if several or not isinstance(pullbacks, tuple):
        raise TypeError(
            f"{name} returned {'several results' if several else 'a result'} and a "
            f"{type(pullbacks).__name__}; {EXPECTED}. A rule with several results has one "
            "function, pullback(gs, needs)"
        )
    return tuple(p if p is None else _giving_arrays(name, p) for p in pullbacks)


def _giving_arrays(name: str, pullback: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The pullback with a check that it returns an array."""

    def giving(g: Any) -> Any:
        back = pullback(g)
        if not hasattr(back, "shape") and not isinstance(back, list | tuple):
            raise TypeError(
                f"a pullback of {name} returned a {type(back).__name__}; expected the gradient, "
                "an array. Where no gradient goes back, give None in place of the pullback"
            )
        return back

    return giving


def check_call(
    name: str, signature: inspect.Signature, args: Sequence[Any], options: Mapping[str, Any]
) -> None:
    """Raise TypeError, with the signature, for arguments that do not fit it.

    It is called where a call has failed: Python's own error would count the namespace too.
    """
    try:
        signature.bind(*args, **options)
    except TypeError as misfit:
        strange = next((option for option in options if option not in signature.parameters), "")
        todo = instead(strange, OF_A_CALL)
        if "too many positional" in str(misfit) and "*, " in str(signature):
            todo = "; what stands after * is given by its name"
        raise TypeError(f"{name}{signature}: {misfit}{todo}") from None


def check_count(rule: Callable[..., Any], result: Any, inputs: Sequence[Any]) -> None:
    """Raise TypeError if a user's rule lacks a pullback for an argument that needs a gradient."""
    pullbacks = result[1]
    if isinstance(pullbacks, tuple) and any(needs(inputs[len(pullbacks) :])):
        raise TypeError(
            f"op {rule.__name__} returned {len(pullbacks)} pullbacks for {len(inputs)} arguments; "
            f"{EXPECTED}"
        )


def check_kernel(name: str, backend: Backend, result: Any, inputs: Sequence[Any]) -> None:
    """Raise TypeError if a kernel's result has the wrong form, or would lose a gradient."""
    if not isinstance(result, tuple) or len(result) != 2:
        came = f"a {type(result).__name__}"
    else:
        pullbacks = result[1]
        if type(pullbacks) is tuple:
            if len(pullbacks) >= len(inputs) or not any(needs(inputs[len(pullbacks) :])):
                return
            came = f"{len(pullbacks)} pullbacks"
        elif pullbacks is None or callable(pullbacks):
            return
        else:
            came = repr(pullbacks)
    raise TypeError(
        f"the kernel {name!r} of backend {backend.name!r} returned {came}; expected its result and "
        "a tuple of pullbacks, one for each array it was given, None for one without a gradient"
    )


def refuse_complex(name: str) -> Callable[[Any, Any], None]:
    """A function `check(xp, x)` that raises TypeError unless `x` is an array that is not complex.

    It remembers the last dtype that passed, so that checking every call costs little.
    """
    real: Any = None

    def check(xp: Any, x: Any) -> None:
        nonlocal real
        dtype = getattr(x._value if type(x) is Tensor else x, "dtype", None)
        if dtype is real and dtype is not None:
            return
        if dtype is None:
            raise TypeError(
                f"{name} takes an array, and got a {type(x).__name__}: polynet.asarray(x) makes one"
            )
        if xp.isdtype(dtype, "complex floating"):
            raise TypeError(
                f"{name} takes real numbers, and got {dtype}: give it the real and the imaginary "
                "part separately, xp.real(x) and xp.imag(x)"
            )
        real = dtype

    return check
