"""Functions for kernels, which work whether or not a step is being captured.

During a capture, results are in memory of the capture's pool, and calls are added to its list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from polynet_numpy.capture import Captured, active, array_of

Call = Callable[[], object]


def run(function: Callable[..., object], *args: Any, **options: Any) -> None:
    """Call a function that writes its results into its arguments, now and in each replay.

    It must write only to arrays from `empty` that were made for this call. Apart from its arguments
    it must not read or write anything that changes from step to step.
    """
    capture = active()
    if capture is None:
        function(*args, **options)
    else:
        capture.run(function, args, options)


def repeat(
    make: Callable[..., Call],
    *args: Any,
    over: bool = False,
    by_loops: bool = True,
) -> None:
    """`run` the call that `make` returns for the arrays; `make` itself runs once for all replays.

    A call that writes `over` the state is made by replays only, not during the capture. `by_loops`:
    whether compiled loops could do it, so that it counts towards the start of Numba.
    """
    capture = active()
    if capture is None:
        make(*args)()
    else:
        capture.repeat(make, args, over=over, by_loops=by_loops)


def in_turn(calls: Sequence[Call]) -> Call:
    """One call that makes all the calls, one after the other."""

    def call() -> None:
        for each in calls:
            each()

    return call


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """An uninitialised array for a result, from the pool while a step is captured."""
    capture = active()
    return np.empty(shape, dtype) if capture is None else capture.empty(shape, dtype)


def like(x: Any, dtype: Any = None) -> Any:
    """An uninitialised array with the shape and memory order of `x`, and its dtype by default."""
    capture, y = active(), np.empty_like(array_of(x), dtype)
    return y if capture is None else capture.like(y)


def form(x: Any) -> np.ndarray:
    """An array with the shape, dtype and strides of `x`, but no memory, to pass to `like` later."""
    return as_strided(np.empty(1, x.dtype), x.shape, x.strides, writeable=False)


def copy(x: Any) -> Any:
    """A contiguous copy, as an array for a result."""
    y = empty(x.shape, x.dtype)
    run(np.copyto, y, x)
    return y


def apart(g: Any) -> Any:
    """A gradient, or a copy if it may lie in the state's memory, which is outside the pool."""
    return copy(g) if type(g) is Captured and g.block is None else g
