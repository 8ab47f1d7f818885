"""NumPy's functions that a capture treats specially."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from polynet_numpy import compiled, loops
from polynet_numpy.choice import choose

ABOUT = {np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.iscomplexobj, np.isrealobj}
"""Functions whose result does not depend on the values in an array."""

BY_NUMBERS = {
    getattr(np, name)
    for name in (
        "argwhere compress extract flatnonzero nonzero unique unique_all unique_counts "
        "unique_inverse unique_values"
    ).split()
}
"""Functions whose result has a shape that depends on the values in an array."""

IN_PLACE = {np.copyto, np.fill_diagonal, np.place, np.put, np.put_along_axis, np.putmask}
"""Functions that write to their first argument, and return nothing."""

VIEWS = {
    *(operator.getitem, np.broadcast_to, np.diagonal, np.expand_dims, np.flip, np.imag),
    *(np.matrix_transpose, np.moveaxis, np.permute_dims, np.ravel, np.real, np.reshape),
    *(np.squeeze, np.swapaxes, np.transpose),
}
"""Functions that may return a view of their argument, and write to no argument."""

WITH_OUT = {
    np.all, np.any, np.argmax, np.argmin, np.clip, np.concatenate, np.cumprod, np.cumsum, np.dot,
    np.max, np.mean, np.min, np.prod, np.round, np.stack, np.std, np.sum, np.trace, np.var,
}  # fmt: skip
"""Functions that can write their result to `out=`.

`np.einsum` can, but it then adds up the numbers of a flipped array in another order.
"""


def _filled(value: Any) -> Callable[..., Any]:
    def full(capture: Any, x: Any, *args: Any, **options: Any) -> Any:
        like_x = np.empty_like(capture.plain(x), *args, **options)
        if not like_x.shape:  # one number, such as the gradient that a sweep starts with
            return capture.constant(np.full_like(like_x, value))
        y = capture.like(like_x)
        capture.run(np.copyto, (y, value), {})
        return y

    return full


def _full_like(capture: Any, x: Any, value: Any, *args: Any, **options: Any) -> Any:
    y = capture.like(np.empty_like(capture.plain(x), *args, **options))
    capture.run(np.copyto, (y, value), {"casting": "unsafe"})
    return y


def _empty_like(capture: Any, x: Any, *args: Any, **options: Any) -> Any:
    return capture.like(np.empty_like(capture.plain(x), *args, **options))


def _where(capture: Any, condition: Any, *choice: Any) -> Any:
    if not choice:
        return np.nonzero(condition)
    y = capture.like(np.where(capture.plain(condition), *capture.plain(choice)))
    capture.run(choose, (condition, *choice, y), {})
    return y


def _reshape(capture: Any, x: Any, shape: Any, **options: Any) -> Any:
    value = np.reshape(capture.plain(x), shape, **options)
    if options or not value.size or np.may_share_memory(value, capture.plain(x)):
        return capture.result(np.reshape, (x, shape), options)
    y = capture.like(value)
    capture.run(np.copyto, (y.reshape(x.shape), x), {})
    return y


def _take(capture: Any, x: Any, indices: Any, axis: int | None = None, **options: Any) -> Any:
    if options or axis is None:
        return capture.result(np.take, (x, indices, axis), options)
    indices = np.asarray(indices) if isinstance(indices, list | tuple) else indices
    y = capture.like(np.take(capture.plain(x), capture.plain(indices), axis))
    capture.repeat(taken, (x, indices, axis, y))
    return y


def taken(x: np.ndarray, indices: np.ndarray, axis: int, out: np.ndarray) -> Callable[[], object]:
    """`np.take` into `out`, without the copy that NumPy makes in case an index is out of bounds."""

    def by_numpy() -> None:
        fine = large and indices.min() >= 0 and indices.max() < x.shape[axis]
        if fine and out.flags.c_contiguous:
            np.take(x, indices, axis, out=out, mode="clip")
        else:
            out[...] = np.take(x, indices, axis)

    large = indices.size and out.nbytes > 1 << 16  # below, the check of the indices costs as much
    if axis != 0 or not all(a.flags.c_contiguous for a in (x, indices, out)):
        return by_numpy
    rows, width = indices.reshape(-1), math.prod(x.shape[1:])
    flat = x.reshape(len(x), width), rows, out.reshape(len(rows), width)
    return compiled.either(compiled.bound(loops.take_rows, *flat), by_numpy)


INTO: dict[Any, Callable[..., Any]] = {
    np.empty_like: _empty_like,
    np.full_like: _full_like,
    np.ones_like: _filled(1),
    np.reshape: _reshape,
    np.take: _take,
    np.where: _where,
    np.zeros_like: _filled(0),
}
"""Functions that are captured by one of those above, into memory of the capture.

It takes the capture, and then the arguments.
"""
