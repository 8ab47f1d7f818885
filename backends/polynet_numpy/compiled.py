"""Compiling the loops of `loops.py` by Numba, and running them on several threads.

The results are the same to the last bit with NumPy or Numba, and on any number of threads, so that
a run that was stopped can continue with the same numbers. Importing Numba and loading compiled
loops from its cache on disk takes a second; compiling them, once on each machine, takes some
seconds more. So Numba is used only once it can save as much time: after `WORTH` elements have gone
through NumPy's functions instead, or if the program itself has imported Numba.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib import metadata
from itertools import pairwise
from typing import Any

import numpy as np

from polynet.errors import warn
from polynet_numpy import loops, vectors

WORTH = 300_000_000
"""The number of elements that take a second longer without Numba."""
SHARE = 1 << 17
"""The least number of elements for a thread: waking it for fewer takes longer than the work."""

INNER = (loops.summed_by_8, loops.summed, loops.largest)
"""Loops that other loops call."""
KNOWN = frozenset("?bBhHiIlLqQfd")
"""The dtypes, by NumPy's letters, that loops are compiled for."""

Loop = Callable[..., Any]

_done = 0
_uncached = False


def version() -> str | None:
    """Numba's version, found without importing it; None where Numba is not installed."""
    try:
        return metadata.version("numba")
    except metadata.PackageNotFoundError:
        return None


def count_without_numba(elements: int) -> None:
    """Count elements that went through NumPy's functions and could have gone through loops."""
    global _done  # noqa: PLW0603 (one count for the process)
    _done += elements


def wanted() -> bool:
    """Whether Numba is installed, and worth the time that its start takes."""
    return (_done >= WORTH or "numba" in sys.modules) and _numba() is not None


@cache
def _numba() -> Any:
    """Numba; None where it is not installed, or cannot be imported."""
    if version() is None:
        return None
    try:
        import numba
    except ImportError as error:  # such as a Numba made for another NumPy
        warn(
            f"Numba {version()} cannot be imported, so NumPy's own functions are used, which are "
            f"slower: {error}",
        )
        return None
    for inner in INNER:
        numba.extending.register_jitable(inner)
    vectors.register(numba)
    return numba


# How a loop is called


def bound(loop: Loop, *args: Any) -> Callable[[], Any] | None:
    """The compiled loop with its arguments; None if Numba is not wanted, or cannot take them.

    Arguments are arrays and NumPy's numbers. Arrays must be contiguous, and all dtypes in `KNOWN`.
    """
    if not wanted() or not all(a.dtype.char in KNOWN and a.dtype.isnative for a in args):
        return None
    if not all(a.flags.c_contiguous for a in args if isinstance(a, np.ndarray)):
        return None
    return partial(_compiled(loop, tuple(map(_kind, args))), *args)


def either(loop: Callable[[], bool] | None, otherwise: Callable[[], None]) -> Callable[[], None]:
    """A call of `loop`, and of `otherwise` if that returned False, or if there is no loop."""
    if loop is None:
        return otherwise

    def call() -> None:
        if not loop():
            otherwise()

    return call


def split(loop: Loop, arrays: Sequence[np.ndarray], *numbers: Any) -> Callable[[], Any] | None:
    """`bound` on several threads, for an elementwise loop; all arrays must have equal strides."""
    flat = [a.ravel(order="K") for a in arrays]
    alike = all(a.strides == arrays[0].strides for a in arrays)
    if not alike or not all(map(np.may_share_memory, flat, arrays)):
        return None
    cuts = _cuts(flat[0].size, flat[0].size)
    return _together([bound(loop, *(v[a:b] for v in flat), *numbers) for a, b in cuts])


def _cuts(count: int, elements: int) -> list[tuple[int, int]]:
    """The start and the end of each thread's part of `count` items with `elements` in all."""
    parts = 1
    if elements >= 2 * SHARE and wanted():
        parts = min(_threads(), elements // SHARE)
    return list(pairwise(count * i // parts for i in range(parts + 1)))


def _together(calls: list[Callable[[], Any] | None]) -> Callable[[], Any] | None:
    """One call that makes all the calls, on a thread each; None if one of them is None."""
    made = [call for call in calls if call is not None]
    if len(made) < len(calls):
        return None
    first, *others = made
    if not others:
        return first

    def call() -> None:
        started = [_pool().submit(other) for other in others]
        first()
        for each in started:
            each.result()

    return call


def _kind(x: Any) -> Any:
    """What a loop is compiled for: a dtype; for an array also its axes, and if it is writable."""
    return (x.dtype, x.ndim, x.flags.writeable) if isinstance(x, np.ndarray) else x.dtype


@cache
def _compiled(loop: Loop, kinds: tuple[Any, ...]) -> Loop:
    numba = _numba()
    types = tuple(
        numba.types.Array(numba.from_dtype(kind[0]), kind[1], "C", readonly=not kind[2])
        if isinstance(kind, tuple)
        else numba.from_dtype(kind)
        for kind in kinds
    )
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(types, cache=True, **options)(loop)
    except Exception as error:  # noqa: BLE001 (its cache may be full, damaged or read-only)
        compiled: Loop = numba.njit(types, **options)(loop)
        if not isinstance(error, RuntimeError):  # which means that Numba found no cache folder
            _say_uncached(f"{type(error).__name__}: {error}")
        return compiled


def _say_uncached(why: str) -> None:
    """Warn once that loops are compiled anew in each process until Numba's cache is repaired."""
    global _uncached  # noqa: PLW0603 (one warning for the process)
    if not _uncached:
        _uncached = True
        warn(
            "Numba's cache of compiled loops cannot be used, so they are compiled anew in each "
            f"process: {why}. Make room for the cache, or delete it; its folder is "
            "NUMBA_CACHE_DIR, by default __pycache__ beside polynet_numpy/loops.py"
        )


@cache
def _threads() -> int:
    """The number of threads that Numba would use: one for each core, or NUMBA_NUM_THREADS."""
    return int(_numba().get_num_threads())


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(_threads() - 1, 1), "polynet-numpy")


if hasattr(os, "register_at_fork"):  # a forked process has the pool, but none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


# Adam


def adam(
    rows: Sequence[Sequence[np.ndarray]],
    step: np.ndarray,
    lr: np.ndarray,
    numbers: Sequence[float],
) -> Callable[[], object] | None:
    """A call that updates all rows of vectors (p, g, m, v) in place; see `optimizers.adam`.

    `step` and `lr` are read when the call is made. `numbers` are β₁, β₂, ε, the weight decay and
    the decoupled weight decay. The call knows the arrays, in pieces, by their addresses. There is
    at least one row, and all vectors have one dtype; a gradient may have gaps.
    """
    vectors = [v for row in rows for v in row]
    if not wanted() or not all(v.flags.c_contiguous for v in vectors):
        return None
    table = np.asarray([piece for row in rows for piece in _pieces(row)], np.int64).reshape(-1, 5)
    cuts = _cuts(len(table), int(table[:, 4].sum()))
    others = step, lr, np.asarray(numbers, float), np.empty(0, vectors[0].dtype)
    call = _together([bound(_adam(), table[a:b], *others) for a, b in cuts])
    if call is None:
        return None
    alive = _Alive(call)
    alive.arrays = vectors
    return alive


class _Alive(partial):
    """A call that keeps alive the arrays that it knows only by their addresses."""

    arrays: list[np.ndarray]


def _pieces(row: Sequence[np.ndarray]) -> list[list[int]]:
    """Addresses and size of each piece of the vectors; small pieces are easy to share out."""
    size, each = row[0].size, row[0].itemsize
    starts = range(0, size, SHARE // 4)
    return [
        [*(v.ctypes.data + each * start for v in row), min(SHARE // 4, size - start)]
        for start in starts
    ]


@cache
def _adam() -> Loop:
    """The loop, which needs Numba for turning addresses into arrays, and so is defined here."""
    numba = _numba()

    @numba.extending.intrinsic
    def pointer(_context: Any, address: Any, like: Any) -> Any:
        kind = numba.types.CPointer(like.dtype)

        def generate(context: Any, builder: Any, _: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(address, like), generate

    def adam(table: Any, step: Any, lr: Any, numbers: Any, like: Any) -> None:
        b1, b2, eps, decay, decoupled = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
        t, eta = step[0] + 1, float(lr[()])
        bias1 = -math.expm1(t * math.log(b1)) if b1 else 1.0
        root2 = math.sqrt(-math.expm1(t * math.log(b2))) if b2 else 1.0
        number = like.dtype.type
        rate, floor = number(eta * root2 / bias1), number(eps * root2)
        shrink, decay = number(1 - eta * decoupled), number(decay)
        beta1, beta2, rest1, rest2 = number(b1), number(b2), number(1 - b1), number(1 - b2)
        for k in range(table.shape[0]):
            n = table[k, 4]
            p = numba.carray(pointer(table[k, 0], like), n)
            g = numba.carray(pointer(table[k, 1], like), n)
            m = numba.carray(pointer(table[k, 2], like), n)
            v = numba.carray(pointer(table[k, 3], like), n)
            for i in range(n):
                d = g[i] if decay == 0 else g[i] + decay * p[i]
                m[i] = beta1 * m[i] + rest1 * d
                v[i] = beta2 * v[i] + rest2 * (d * d)
                p[i] = p[i] * shrink - rate * (m[i] / (math.sqrt(v[i]) + floor))

    return adam
