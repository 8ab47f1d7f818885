"""What kernels call, whether a step is being recorded or not: results, and calls to be repeated.

While one is recorded, results stand in memory of its pool, and calls are written down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from polynet_numpy.recording import Recorded, active, array_of


def run(function: Callable[..., object], *args: Any, **options: Any) -> None:
    """Call a function that writes its results into arrays it is given; now, and in each replay.

    What it writes to are arrays of `empty`, made for this call. It reads and writes nothing else
    that changes from step to step.
    """
    recording = active()
    if recording is None:
        function(*args, **options)
    else:
        recording.run(function, args, options)


def repeat(make: Callable[..., Callable[[], object]], *args: Any, over: bool = False) -> None:
    """`run` what `make` returns for the arrays: what it does is done once for all replays.

    Where it writes `over` the state, a replay does so, and the recording does not.
    """
    recording = active()
    if recording is None:
        make(*args)()
    else:
        recording.repeat(make, args, over=over)


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array for a result, not initialised; of the pool while a step is recorded."""
    recording = active()
    return np.empty(shape, dtype) if recording is None else recording.empty(shape, dtype)


def like(x: Any, dtype: Any = None) -> Any:
    """An array for a result in the shape and order in memory of another, and in its dtype."""
    recording, y = active(), np.empty_like(array_of(x), dtype)
    return y if recording is None else recording.like(y)


def form(x: Any) -> np.ndarray:
    """A stand-in for `x`, for `like` to be given later: its shape, dtype and strides, no memory."""
    return as_strided(np.empty(1, x.dtype), x.shape, x.strides, writeable=False)


def copy(x: Any) -> Any:
    """A contiguous copy, as an array for a result."""
    y = empty(x.shape, x.dtype)
    run(np.copyto, y, x)
    return y


def apart(g: Any) -> Any:
    """A gradient, or a copy where it may stand in a state's memory, outside the pool."""
    return copy(g) if type(g) is Recorded and g.block is None else g
