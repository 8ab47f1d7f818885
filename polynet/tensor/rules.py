"""Checks of calls, and of what a user's rule or a kernel returns, which would lose a gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from polynet.backend import Backend
from polynet.errors import did_you_mean
from polynet.pytorch_names import NO_PARAMETERS, OF_A_CALL, instead
from polynet.tensor.arguments import members
from polynet.tensor.sweep import needs
from polynet.tensor.values import Tensor

P = ParamSpec("P")
R = TypeVar("R")
K = TypeVar("K")

EXPECTED = (
    "a rule is rule(xp, *arrays, **options) and returns its result and a tuple of pullbacks, one "
    "for each array, None for an array without a gradient: return y, (lambda g: …,)"
)


def is_own(function: Callable[..., Any]) -> bool:
    """Whether a rule or a definition is polynet's, not a user's."""
    return str(getattr(function, "__module__", "")).partition(".")[0] == "polynet"


def checked(rule: Callable[..., Any]) -> Callable[..., Any]:
    """The rule with checks around it. polynet's own rules are tested, and returned unchanged."""
    if is_own(rule):
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
        names = signature.parameters
        bare = [p.replace(annotation=p.empty) for p in names.values()]
        shown = signature.replace(parameters=bare, return_annotation=signature.empty)
        strange = next((option for option in options if option not in names), "")
        todo = _about(strange, str(misfit), names) if strange else ""
        if "too many positional" in str(misfit) and "*, " in str(shown):
            todo = "; what stands after * is given by its name"
        if "multiple values for argument 'lr'" in str(misfit):
            todo = NO_PARAMETERS
        raise TypeError(f"{name}{shown}: {misfit}{todo}") from None


def check_arrays(name: str, args: Iterable[Any], error: AttributeError) -> None:
    """Raise TypeError for an argument that is no array, if the `error` is of what it lacks."""
    lacking = error.obj
    if not hasattr(lacking, "dtype") and any(a is lacking for a in members(args)):
        raise TypeError(
            f"{name.lstrip('_')}: expected an array, got {lacking!r}; polynet.asarray(x) makes one"
        ) from None


def _about(strange: str, misfit: str, names: Iterable[str]) -> str:
    """What an error of `misfit` says about an option that is not among these names."""
    near = did_you_mean(strange, names)
    also = "" if repr(strange) in misfit else f", and got an unexpected {strange!r}"
    return also + (instead(strange, OF_A_CALL) or (near and f".{near}"))


def told(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose calls that do not fit are told the signature."""

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        try:
            return function(*args, **options)
        except TypeError:
            public, given = inspect.signature(function), list(args)
            if "self" in public.parameters:  # of a method, whose caller does not give it
                public = inspect.signature(function.__get__(given.pop(0)))
            check_call(function.__name__, public, given, options)
            raise

    return call


def told_class(kind: type[K]) -> type[K]:
    """The class itself, whose calls that do not fit are told the signature."""
    init: Any = kind.__init__

    @wraps(init)
    def call(self: Any, *args: Any, **options: Any) -> None:
        try:
            init(self, *args, **options)
        except TypeError:
            name = (type(self) if type(self).__init__ is call else kind).__name__
            signature = inspect.signature(init.__get__(self))
            check_call(name, signature, args, options)
            raise

    kind.__init__ = call  # type: ignore[method-assign]  # of this class alone
    return kind


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
