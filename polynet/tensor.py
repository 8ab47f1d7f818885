"""The engine: arrays that record what happens to them, and the sweep back. It knows no formula.

Reverse-mode differentiation as in Griewank and Walther, *Evaluating Derivatives* (2008). Each
derivative being taken is a `Level`, and its record is a list: one line for each result, which
says from which earlier lines it was computed and how a gradient goes back to them. A `Tensor`
is a value, its level, and the number of its line.

Levels nest. An op unwraps the highest level among its inputs and runs its rule on what is
inside: on plain arrays, or on Tensors of the levels below, which record in turn. So the
pullbacks, being array code themselves, can be differentiated, to any order.
"""

from __future__ import annotations

import inspect
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator
from functools import update_wrapper
from typing import Any, NoReturn

from polynet import tree
from polynet.backend import Array, Backend, backend_of
from polynet.errors import MixedBackendsError, RecordError

_PYTHON_SCALARS = frozenset({bool, int, float, complex, str})

_ids = itertools.count(1)

CONSTANT = 0
"""The id of levels that record nothing: what is on them is a constant for every derivative."""


class Level:
    """One derivative being taken. Later levels have higher ids.

    `xp` is the backend's own namespace, `namespace` the differentiable one around it. A level
    is `plain` as long as all values on it are plain arrays, and no other derivative is open
    around it, whose Tensors could come back as gradients. On others all values are Tensors, and
    all rules run in the differentiable namespace.
    """

    __slots__ = ("backend", "id", "kernels", "namespace", "plain", "record", "types", "xp")

    def __init__(
        self, backend: Backend, namespace: Any, *, plain: bool = True, constant: bool = False
    ) -> None:
        self.id = CONSTANT if constant else next(_ids)
        self.backend = backend
        self.xp = backend.xp
        self.namespace = namespace
        self.kernels: Any = {}
        self.plain = plain
        self.record: Any = []
        self.types: set[type] = {bool, int, float, complex}

    def leaf(self, value: Array) -> Tensor:
        """A recorded Tensor that was computed from nothing."""
        if not self.plain:
            (value,) = _lifted(self, [value])
        return Tensor(value, self, self.write((value.shape, (), ())))

    def write(self, line: tuple[Any, ...]) -> int:
        """Add a line to the record, and say which number it has got."""
        record = self.record
        at = len(record)
        record.append(line)
        while record[at] is not line:  # another thread has written in between
            at += 1
        return at

    def admit(self, value: Any) -> None:
        """Refuse an array of another backend; what is no array is the rule's to judge."""
        if self.backend.is_array(value):
            self.types.add(type(value))
        elif hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, type):
            raise _mixed(value, self.backend)

    def require_open(self) -> None:
        """Raise RecordError if the derivative has ended."""
        if self.record is _ENDED:
            self.record.append(())

    def close(self) -> None:
        """End the derivative; a Tensor that outlives it says so when it is used."""
        self.record = _ENDED


class _Ended:
    """The record of a level that has ended."""

    def append(self, _line: object) -> NoReturn:
        raise RecordError(
            "this Tensor belongs to a derivative that has ended; return what you need from the "
            "differentiated function (has_aux=True), or keep polynet.stop_gradient of it"
        )

    def __len__(self) -> int:
        return 0


_ENDED = _Ended()


class Tensor:
    """An array that belongs to a derivative being taken. Its operators are ops.

    `_line` is the number of its line in the record, or None where no gradient can reach it.
    """

    __slots__ = ("_level", "_line", "_value")
    __array_ufunc__ = None  # NumPy's operators leave `array @ tensor` to the Tensor
    __hash__ = None  # type: ignore[assignment]  # == is elementwise, as in the standard

    def __init__(self, value: Array, level: Level, line: int | None = None) -> None:
        self._value = value
        self._level = level
        self._line = line

    @property
    def shape(self) -> tuple[int, ...]:
        return self._value.shape

    @property
    def dtype(self) -> Any:
        return self._value.dtype

    @property
    def device(self) -> Any:
        value = plain_value(self)
        return self._level.backend.device_of(value)

    @property
    def ndim(self) -> int:
        return len(self._value.shape)

    @property
    def size(self) -> int:
        count = 1
        for n in self._value.shape:
            count *= n
        return count

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return self._level.namespace

    def __repr__(self) -> str:
        state = "constant" if self._line is None else f"line {self._line}"
        return f"Tensor({self._value!r}, {state})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a 0-d Tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i, ...] for i in range(len(self)))  # type: ignore[index]  # see ops.operators

    def _leave(self, convert: Callable[[Any], Any], what: str) -> Any:
        if is_recorded(self):
            raise RecordError(
                f"{what} of a recorded Tensor would lose its gradient; take it of "
                "polynet.stop_gradient(x), or return x from the differentiated function"
            )
        return convert(plain_value(self))

    def __float__(self) -> float:
        return self._leave(float, "float()")

    def __int__(self) -> int:
        return self._leave(int, "int()")

    def __bool__(self) -> bool:
        return self._leave(bool, "the truth value")

    def __complex__(self) -> complex:
        return self._leave(complex, "complex()")

    def __index__(self) -> int:
        return self._leave(operator.index, "the index")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self._leave(self._level.backend.to_host, "a NumPy array")


def is_recorded(x: Any) -> bool:
    """Whether a gradient of some level can reach `x`."""
    while type(x) is Tensor:
        if x._line is not None:
            return True
        x = x._value
    return False


def plain_value(x: Any) -> Any:
    """The array inside all levels of a Tensor; anything else as it is."""
    while type(x) is Tensor:
        x = x._value
    return x


# Recording an op


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
    by_name = _by_name(parameters)
    if len(parameters) == len(positional) == 1:
        call = _unary(rule)
    elif len(parameters) == len(positional) == 2 and not by_name:
        call = _binary(rule)
    elif len(positional) == 1:
        call = _unary_with_options(rule)
    else:

        def call(*args: Any, **options: Any) -> Any:
            if options:
                args, options = _positional(args, options, by_name)
            return _apply(rule, args, options)

    update_wrapper(call, rule)
    call.rule = rule  # type: ignore[attr-defined]
    return call


def _by_name(parameters: list[inspect.Parameter]) -> dict[str, tuple[int, Any]]:
    """Place and default of each parameter that may be given by position or by name."""
    return {
        p.name: (i, p.default)
        for i, p in enumerate(parameters)
        if p.kind is p.POSITIONAL_OR_KEYWORD
    }


def _positional(
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
                return Tensor(value, level, level.write((value.shape, (line,), pullbacks)))
        return _apply(rule, (x,), {})

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
        return _apply(rule, (x,), options)

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
                        return _apply(rule, (x, y), {})
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
            return _apply(rule, (x, y), {})
        if not level.plain:
            return _apply(rule, (x, y), {})
        value, pullbacks = rule(level.xp, a, b)
        if (i is None and j is None) or pullbacks is None:
            return Tensor(value, level)
        return Tensor(value, level, level.write((value.shape, (i, j), pullbacks)))

    return call


def _members(args: Iterable[Any]) -> Iterator[Any]:
    """The arguments; lists, tuples and dicts opened."""
    for a in args:
        if type(a) is list or type(a) is tuple or type(a) is dict:
            yield from tree.leaves(a)
        else:
            yield a


def highest_level(args: Iterable[Any]) -> Level | None:
    """The highest level among the Tensors in `args`, or None."""
    found = None
    for a in _members(args):
        if type(a) is Tensor and (found is None or a._level.id > found.id):
            found = a._level
    return found


def _each(function: Callable[[Any], Any], args: Iterable[Any]) -> list[Any]:
    """`function` of every argument, and of every leaf of those that are lists, tuples or dicts."""
    return [tree.map(function, a) if type(a) in (list, tuple, dict) else function(a) for a in args]


def _apply(rule: Callable[..., Any], args: tuple, options: dict[str, Any]) -> Any:
    """Run a rule on any arguments and record it; NotImplemented where the rule declines."""
    level = highest_level(args)
    if level is None:
        result = rule(_plain_backend(args).xp, *args, **options)
        return result if result is NotImplemented else result[0]
    inner, xp = _unwrapped(level, args)
    result = rule(xp, *inner, **options)
    if result is NotImplemented:
        return result
    value, pullbacks = result
    inputs = _each(lambda a: a._line if type(a) is Tensor and a._level is level else None, args)
    if pullbacks is None or all(line is None for line in _members(inputs)):
        return Tensor(value, level)
    return Tensor(value, level, level.write((value.shape, inputs, pullbacks)))


def _unwrapped(level: Level, args: tuple) -> tuple[list[Any], Any]:
    """The arguments with `level` taken off, and the namespace for what remains.

    Where Tensors of lower levels remain, the rule meets Tensors only, and records in turn.
    """

    def inside(a: Any) -> Any:
        while type(a) is Tensor and (a._level is level or a._level.id == CONSTANT):
            a = a._value
        return a

    inner = _each(inside, args)
    for a in _members(inner):
        if type(a) is Tensor:
            if level.plain:
                a._level.require_open()
                raise RecordError(
                    "a Tensor of another derivative met one of a derivative that was opened in "
                    "another thread; open it there in contextvars.copy_context().run"
                )
        elif type(a) not in level.types:
            level.admit(a)
    if level.plain:
        return inner, level.xp
    return _lifted(level, inner), level.namespace


def _lifted(level: Level, args: Iterable[Any]) -> list[Any]:
    """The arguments, plain arrays as constant Tensors.

    So array code that was handed Tensors meets nothing else: `array @ tensor` is an error in
    libraries that do not leave it to the Tensor.
    """
    is_array, constants = level.backend.is_array, level.namespace.constants
    return _each(lambda a: Tensor(a, constants) if is_array(a) else a, args)


def _plain_backend(args: Iterable[Any]) -> Backend:
    """The one backend of all arrays among arguments that hold no Tensor."""
    found = None
    for a in _members(args):
        if type(a) in _PYTHON_SCALARS or not hasattr(a, "dtype") or isinstance(a, type):
            continue
        if found is None:
            found = backend_of(a)
        elif not found.is_array(a):
            raise _mixed(a, found)
    if found is None:
        raise TypeError("expected at least one array, got none; make one with polynet.asarray(x)")
    return found


def _mixed(array: Any, backend: Backend) -> MixedBackendsError:
    kind = type(array)
    return MixedBackendsError(
        f"an array of {kind.__module__}.{kind.__qualname__} met an array of backend "
        f"{backend.name!r}; move it there with polynet.asarray(x, backend={backend.name!r})"
    )


# Compositions


def composition(definition: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that is written from ops, and that a backend may replace by a kernel.

    `definition(xp, *arrays, **options)` is what the function means, on every backend. A kernel
    of the same name runs instead of it on plain arrays whose gradients will be plain; where it
    returns `NotImplemented`, the definition runs.

    >>> import numpy as np
    >>> @composition
    ... def softplus(xp, x, /):
    ...     return xp.log1p(xp.exp(x))
    >>> softplus(np.asarray([0.0]))
    array([0.69314718])
    """
    name = definition.__name__
    parameters = list(inspect.signature(definition).parameters.values())[1:]
    by_name = _by_name(parameters)

    def call(*args: Any, **options: Any) -> Any:
        if options:
            args, options = _positional(args, options, by_name)
        level = highest_level(args)
        if level is None:
            backend = _plain_backend(args)
            xp, kernel = backend.xp, backend.kernels.get(name)
        else:
            xp, kernel = level.namespace, level.kernels.get(name)
        if kernel is not None:
            result = _apply(kernel, args, options)
            if result is not NotImplemented:
                return result
        if level is not None:
            args = tuple(_lifted(level, args))
        return definition(xp, *args, **options)

    update_wrapper(call, definition)
    call.definition = definition  # type: ignore[attr-defined]
    return call


# The sweep


def sweep(level: Level, output: Tensor, g: Array, leaves: int, *, keep: bool = False) -> list[Any]:
    """Carry the gradient `g` of `output` back to the first `leaves` lines of the record.

    Returns one gradient a leaf, None where nothing arrived. Lines are freed on the way, unless
    `keep`. Each pullback is called at most once a sweep, and only where its input is recorded.
    """
    record = level.record
    xp = level.xp if level.plain else level.namespace
    assert output._line is not None
    gradients: list[Any] = [None] * (output._line + 1)
    gradients[output._line] = g
    for position in range(output._line, leaves - 1, -1):
        g = gradients.pop()
        _, inputs, pullbacks = record[position]
        if not keep:
            record[position] = None
        if g is None:
            continue
        if not level.plain and type(g) is not Tensor:
            g = Tensor(g, level.namespace.constants)
        for at, pullback in zip(inputs, pullbacks):  # noqa: B905 (a rule may give fewer pullbacks)
            if at is None or pullback is None:
                continue
            back = pullback(g)
            if type(at) is not int:
                for i, h in zip(at, back, strict=True):
                    if i is not None:
                        _arrive(xp, record[i][0], gradients, i, h)
            elif back.shape == record[at][0]:
                before = gradients[at]
                gradients[at] = back if before is None else before + back
            else:
                _arrive(xp, record[at][0], gradients, at, back)
    return gradients + [None] * (leaves - len(gradients))


def _arrive(xp: Any, shape: Any, gradients: list[Any], at: int, g: Array) -> None:
    """Add a gradient, summed to `shape`, to what line `at` has got."""
    if g.shape != shape:
        g = _sum_to(xp, g, shape)
    before = gradients[at]
    gradients[at] = g if before is None else before + g


def _sum_to(xp: Any, g: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which its input was broadcast."""
    extra = len(g.shape) - len(shape)
    kept = g.shape[max(extra, 0) :]
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, kept, strict=True)):
        raise ValueError(
            f"a pullback returned shape {tuple(g.shape)} for an input of shape {shape}"
        )
    stretched = (extra + i for i, n in enumerate(shape) if n != kept[i])
    return xp.reshape(xp.sum(g, axis=(*range(extra), *stretched)), shape)
