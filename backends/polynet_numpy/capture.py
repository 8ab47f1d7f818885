"""Capturing a training step as a list of NumPy's calls on fixed memory, which is then replayed.

What Python does around these calls (layers, derivatives, the record and its sweep) is the same in
every step, so it is done once, during the capture. Meanwhile arrays are `Captured`: each operation
on them is computed as usual, into memory from a pool, and its call is added to the list. Memory is
reused as soon as nothing refers to it any more, in the replay as in the capture.

A capture is independent of the values in arrays. An operation that reads one on the host, such as
float(x), cannot be captured, and raises `Uncapturable`.
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from polynet import tree
from polynet.backend import overwriting
from polynet_numpy.calls import as_arrays, gives, is_dense, store, store_all, with_settings
from polynet_numpy.functions import ABOUT, BY_NUMBERS, IN_PLACE, INTO, VIEWS, WITH_OUT
from polynet_numpy.pool import Block, Pool


class Uncapturable(TypeError):
    """A step did something that a replay could not repeat."""


WRITES_CONSTANT = (
    "the step writes to an array that it did not compute from its state and data; make the array "
    "from one of these, as np.zeros_like does"
)
WRITES_INPUT = (
    "the step writes over its state or its data, which it may only read: make new arrays, "
    "p - lr * g in place of p -= lr * g"
)
SHAPE_BY_VALUES = "the step makes an array of a shape that depends on the numbers in another"

_thread = threading.local()


def active() -> Capture | None:
    """The capture that is going on in this thread, or None."""
    return getattr(_thread, "capture", None)


class Capture:
    """The calls of one step, in order."""

    def __init__(self, pool: Pool, xp: Any) -> None:
        self.xp = xp
        """The namespace of its arrays."""
        self.calls: list[Callable[[], object]] = []
        self.elements = 0
        """How many elements go through calls that compiled loops could do."""
        self._pool = pool
        self._settings = np.geterr()

    @contextmanager
    def on(self) -> Iterator[None]:
        """Capture what this thread computes."""
        _thread.capture = self
        try:
            yield
        finally:
            _thread.capture = None

    # Arrays

    def empty(
        self, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...] | None = None
    ) -> Captured:
        block = self._pool.take(max(math.prod(shape) * np.dtype(dtype).itemsize, 1))
        return Captured(np.ndarray(shape, dtype, block.memory, 0, strides), block)

    def like(self, array: np.ndarray) -> Captured:
        """An array with the same shape, dtype and order of axes in memory."""
        return self.empty(array.shape, array.dtype, array.strides if is_dense(array) else None)

    def constant(self, array: np.ndarray) -> Captured:
        """An array that replays do not compute again."""
        return Captured(array, CONSTANT)

    def plain(self, x: Any) -> Any:
        """`Captured` arrays as NumPy arrays, also in lists, tuples and dicts."""
        return array_of(x)

    # Calls

    def run(self, function: Callable[..., object], args: tuple, options: dict[str, Any]) -> None:
        """Call a function that writes into its arguments, and add the call to the list."""
        call = partial(function, *map(_kept, args), **_kept(options))
        self._add(call)
        call()

    def _add(self, call: Callable[[], object]) -> None:
        """Add a call to the list, with the settings of `np.errstate` that hold now."""
        settings = np.geterr()
        same = settings == self._settings
        self.calls.append(call if same else partial(with_settings, settings, call))

    def repeat(
        self,
        make: Callable[..., Callable[[], object]],
        args: tuple,
        *,
        over: bool = False,
        by_loops: bool = True,
    ) -> None:
        """Add the call that `make` returns, and call it now unless it writes `over` the state.

        `make` is called once, with plain arrays.
        """
        plain = [_kept(a) for a in args]
        if by_loops:
            self.elements += sum(a.size for a in tree.leaves(plain) if isinstance(a, np.ndarray))
        call = make(*plain)
        if over:
            self._overwrites()
        self._add(call)
        if not over:
            call()

    def write(self, array: np.ndarray, other: Any) -> None:
        """Add a copy of a result to an array outside the pool, which only replays do."""
        self._overwrites()
        self.calls.append(partial(np.copyto, array, _kept(other)))

    def _overwrites(self) -> None:
        """Announce in the list, once, that the calls after it may write over the state."""
        if overwriting not in self.calls:
            self.calls.append(overwriting)

    def result(
        self,
        function: Callable[..., Any],
        args: tuple,
        options: dict[str, Any],
        *,
        out: bool = False,
        numbers: bool = False,
    ) -> Any:
        """The result of a function, captured.

        `out`: whether the function takes `out=`. `numbers`: whether Python's numbers among its
        arguments may be converted to arrays, as in the call of a ufunc.
        """
        value = function(*map(array_of, args), **array_of(options))
        kept, named = [_kept(a) for a in args], _kept(options)
        call = partial(function, *kept, **named)
        inputs = list(_captured((args, tuple(options.values()))))
        if isinstance(value, tuple | list):
            return self._several(value, call, inputs)
        if not isinstance(value, np.ndarray | np.generic):
            raise Uncapturable(f"{_name(function)} returned a {type(value).__name__}")
        if (view := _view(value, inputs)) is not None:
            if function not in VIEWS:
                self._add(call)  # the function may have written to the array that it returns
            return view
        if any(value is a for a in args):
            raise Uncapturable(WRITES_CONSTANT)
        y = self.like(np.asarray(value))
        converted = [partial(function, *as_arrays(kept), **named)] if numbers else []
        for into in (*converted, call) if out else ():
            if gives(partial(into, out=y.array), y.array, value):
                self._add(partial(into, out=y.array))
                return y
        y.array[...] = value
        self._add(partial(store, call, y.array))
        return y

    def _several(self, values: Any, call: Callable[[], Any], inputs: list[Captured]) -> Any:
        """`Captured` arrays for several results: views, or arrays computed anew in every replay."""
        views = [_view(value, inputs) for value in values]
        results = [
            self.like(np.asarray(value)) if view is None else view
            for view, value in zip(views, values, strict=True)
        ]
        if any(view is None for view in views):
            for y, value in zip(results, values, strict=True):
                y.array[...] = value
            self._add(partial(store_all, call, [y.array for y in results]))
        named = hasattr(values, "_fields")
        return type(values)(*results) if named else type(values)(results)


def _view(value: Any, inputs: list[Captured]) -> Captured | None:
    """A result as a `Captured` array, if it is a view of an input; else None."""
    for x in inputs:
        if isinstance(value, np.ndarray) and np.may_share_memory(value, x.array):
            return Captured(value, x.block)
    return None


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", repr(function))


def array_of(x: Any) -> Any:
    """`Captured` arrays as NumPy arrays, also in lists, tuples and dicts."""
    if type(x) is Captured:
        return x.array
    if type(x) in (tuple, list):  # subclasses, such as named tuples of settings, hold no arrays
        return type(x)(map(array_of, x))
    return {k: array_of(v) for k, v in x.items()} if type(x) is dict else x


def _kept(x: Any) -> Any:
    """`array_of`, with copies of plain arrays, whose numbers may change later in the step."""
    if isinstance(x, np.ndarray):
        return x.copy(order="K")
    if type(x) in (tuple, list):
        return type(x)(map(_kept, x))
    return {k: _kept(v) for k, v in x.items()} if type(x) is dict else array_of(x)


def _captured(x: Any) -> Iterator[Captured]:
    """The `Captured` arrays among arguments."""
    if type(x) is Captured:
        yield x
    elif type(x) in (tuple, list):
        for part in x:
            yield from _captured(part)


# Arrays

CONSTANT = object()


def _needed() -> Capture:
    capture = active()
    if capture is None:
        raise Uncapturable("an array of a captured step was used after it")
    return capture


class Captured(NDArrayOperatorsMixin):
    """An array of a step that is being captured: NumPy's array, and the block of its memory.

    `block` is None for arrays outside the pool: the state, the data and the rows. It is CONSTANT
    for arrays that no replay computes.
    """

    __slots__ = ("array", "block")

    device = "cpu"
    shape: Any
    dtype: Any
    flags: Any

    def __init__(self, array: np.ndarray, block: Any) -> None:
        self.array = array
        self.block = block

    def __repr__(self) -> str:
        return f"Captured({self.shape}, {self.dtype})"

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return _needed().xp

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **options: Any) -> Any:
        capture, function = _needed(), getattr(ufunc, method)
        out = options.pop("out", None)
        if out is None and method != "at":
            converts = method == "__call__"
            return capture.result(function, args, options, out=True, numbers=converts)
        if out is not None:
            options["out"] = out
        _written_to(args[0] if out is None else out[0])
        capture.run(function, args, options)
        return None if out is None else out[0]

    def __array_function__(self, function: Any, types: Any, args: tuple, options: dict) -> Any:
        capture = _needed()
        if function in ABOUT:
            return function(*map(array_of, args), **options)
        if function in IN_PLACE:
            _written_to(args[0])
            return capture.run(function, args, options)
        if options.get("out") is not None:
            _written_to(options["out"])
            capture.run(function, args, options)
            return options["out"]
        if function in BY_NUMBERS:
            raise Uncapturable(SHAPE_BY_VALUES)
        if function in INTO:
            return INTO[function](capture, *args, **options)
        return capture.result(function, args, options, out=function in WITH_OUT)

    def __pow__(self, other: Any) -> Any:  # NumPy's operator x**2 squares; np.power does not
        return _needed().result(operator.pow, (self, other), {})

    def __getitem__(self, key: Any) -> Any:
        if any(a.dtype.kind == "b" for a in _captured((key,))):
            raise Uncapturable(SHAPE_BY_VALUES)
        if isinstance(self.array[array_of(key)], np.generic):  # one number: take a view, no copy
            key = (*key, ...) if isinstance(key, tuple) else (key, ...)
        return _needed().result(operator.getitem, (self, key), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        _written_to(self)
        _needed().run(operator.setitem, (self, key, value), {})

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape: Any, **options: Any) -> Any:
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, **options)

    def transpose(self, *axes: Any) -> Any:
        return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def sort(self, axis: int = -1) -> None:
        _written_to(self)
        _needed().run(np.ndarray.sort, (self, axis), {})

    def flatten(self, order: Any = "C") -> Any:
        return np.ravel(self, order).copy()

    def astype(self, dtype: Any, order: Any = "K", copy: bool = True) -> Captured:
        if not copy and self.dtype == dtype:
            return self
        capture = _needed()
        y = capture.like(np.empty_like(self.array, dtype, order))
        capture.run(np.copyto, (y, self), {"casting": "unsafe"})
        return y

    def copy(self, order: Any = "C") -> Captured:
        capture = _needed()
        y = capture.like(np.empty_like(self.array, order=order))
        capture.run(np.copyto, (y, self), {})
        return y

    def view(self, *dtype: Any) -> Captured:
        return Captured(self.array.view(*dtype), self.block)

    def __copy__(self) -> Captured:
        return self.copy()

    def __deepcopy__(self, _memo: Any) -> Captured:
        return self.copy()

    def fill(self, value: Any) -> None:
        _written_to(self)
        _needed().run(np.copyto, (self, value), {})

    def _leave(self, *_: Any, **__: Any) -> NoReturn:
        raise Uncapturable(
            "the step reads an array's numbers on the host: by float(x), `if`, np.asarray(x) or "
            "the like"
        )

    __array__ = __bool__ = __int__ = __float__ = __complex__ = __index__ = _leave
    item = tolist = tobytes = __reduce_ex__ = _leave
    __hash__ = None  # type: ignore[assignment]  # == is elementwise


def _attribute(name: str) -> property:
    def get(self: Captured) -> Any:
        value = getattr(self.array, name)
        return Captured(value, self.block) if isinstance(value, np.ndarray) else value

    return property(get)


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of NumPy as a method; ufuncs, such as np.conj, would not bind to the array."""
    return lambda self, *args, **options: function(self, *args, **options)


for _each in ("shape dtype ndim size itemsize nbytes strides flags T mT real imag").split():
    setattr(Captured, _each, _attribute(_each))
for _each in (
    "all any argmax argmin argsort clip conj conjugate cumprod cumsum diagonal dot max mean min "
    "prod ravel repeat round searchsorted squeeze std sum swapaxes take trace var"
).split():
    setattr(Captured, _each, _method(getattr(np, _each)))


def _written_to(out: Any) -> None:
    """Refuse to write to an array that a replay does not compute."""
    if type(out) is not Captured or type(out.block) is not Block:
        is_input = type(out) is Captured and out.block is None
        raise Uncapturable(WRITES_INPUT if is_input else WRITES_CONSTANT)
