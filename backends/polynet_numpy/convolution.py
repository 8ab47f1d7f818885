"""Convolution: matrix products with the numbers that the windows see, gathered piece by piece."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from polynet_numpy.results import empty, run
from polynet_numpy.windows import Ends, Sizes, as_images, cells_of, laid, places_of

PIECE = 1 << 19
"""Bytes of the windows' numbers that are gathered at a time, so that they stay in the cache."""
LEAST = 1024
"""The least number of places gathered at a time: matrix products with fewer columns are slow."""
APART = 64
"""Bytes between rows: rows a power of two apart would evict each other from the cache."""


def convolution(
    xp: Any,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Sizes,
    padding: Ends,
    dilation: Sizes,
    groups: int = 1,
) -> Any:
    """Matrix products with the numbers that the windows see, gathered piece by piece.

    The backward pass gathers in the same way.
    """
    given = [a for a in (x, weight, bias) if a is not None]
    if x.ndim < 3 or weight.ndim != x.ndim or len({a.dtype for a in given}) != 1:
        return NotImplemented
    if x.dtype.kind != "f" or not x.size or not weight.size or weight.shape[0] % groups:
        return NotImplemented
    if x.shape[1] != groups * weight.shape[1]:
        return NotImplemented
    sizes = tuple(n + sum(ends) for n, ends in zip(x.shape[2:], padding, strict=True))
    if min(places_of(sizes, weight.shape[2:], stride, dilation)) < 1:
        return NotImplemented
    return _convolution(x, weight, bias, stride, padding, dilation, groups)


def _convolution(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sizes,
    padding: Ends,
    dilation: Sizes,
    groups: int,
) -> tuple[Any, Callable[..., Any]]:
    channels, sizes = x.shape[1], x.shape[2:]
    out, window = weight.shape[0], weight.shape[2:]
    inside = laid(x, padding)
    matrices = weight.reshape(groups, out // groups, -1)
    how = _How(window, stride, dilation, groups)
    y = _correlated(inside, matrices, bias, how)

    def pullback(g: Any, needs: tuple[bool, ...]) -> Any:
        lying = laid(g)
        grads: list[Any] = [None] * len(needs)
        if needs[0]:
            grads[0] = as_images(of_input(g, lying))
        if needs[1]:
            grads[1] = _of_weight(inside, lying, how).reshape(weight.shape)
        if needs[2:] and needs[2]:
            grads[2] = np.sum(lying.reshape(out, -1), axis=1)
        return grads

    def of_input(g: Any, lying: Any) -> Any:
        reach = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
        ends = tuple((r - a, r - b) for r, (a, b) in zip(reach, padding, strict=True))
        if set(stride) == {1} and out <= channels and min(map(min, ends)) >= 0:
            # To gather from `g` with the window turned around is less work than to scatter `g`.
            backwards = (..., *(slice(None, None, -1) for _ in window))
            turned = weight.reshape(groups, out // groups, -1, *window)[backwards].swapaxes(1, 2)
            turned = turned.reshape(groups, channels // groups, -1)
            return _correlated(laid(g, ends), turned, None, how)
        gx = _scattered(inside.shape, matrices, lying, how)
        within = (slice(a, a + n) for (a, _), n in zip(padding, sizes, strict=True))
        return gx[(slice(None), *within)]

    return as_images(y), pullback


class _How(NamedTuple):
    """How a window slides over the padded images, which are called `inside` here."""

    window: Sizes
    stride: Sizes
    dilation: Sizes
    groups: int

    def places(self, inside: Any) -> Sizes:
        return places_of(inside.shape[1:-1], self.window, self.stride, self.dilation)

    def is_identity(self, inside: Any) -> bool:
        """Whether the window has one cell, which sees `inside` as it is."""
        return set(self.window) == {1} and self.places(inside) == inside.shape[1:-1]


def _matrix(height: int, run_: int, places: Sizes, dtype: Any) -> tuple[int, Any]:
    """How many rows of places are gathered at a time, and memory for what their windows see.

    The memory is a matrix with `height` rows and a column for each of these places; `run_` columns
    belong to one row of places.
    """
    most = max(PIECE // (height * run_ * dtype.itemsize), -(-LEAST // run_))
    most = -(-places[0] // -(-places[0] // most))  # so that the pieces have nearly equal sizes
    return most, empty((height, most * run_ + APART // dtype.itemsize), dtype)


def _pieces(
    places: Sizes, most: int, run_: int, memory: np.ndarray
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Some rows of places at a time: the slice of rows, their columns, and a matrix for them.

    The matrix reuses the memory of the piece before.
    """
    for start in range(0, places[0], most):
        stop = min(start + most, places[0])
        columns = slice(start * run_, stop * run_)
        yield slice(start, stop), columns, memory[:, : (stop - start) * run_]


def _memory_for(inside: Any, how: _How) -> tuple[int, Any]:
    if how.is_identity(inside):
        return 0, None
    places, height = how.places(inside), inside.shape[0] * math.prod(how.window)
    return _matrix(height, math.prod(places[1:]) * inside.shape[-1], places, inside.dtype)


def _seen(
    inside: np.ndarray, how: _How, most: int, memory: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """A slice of places, and the numbers that cells see there: (groups, channels·cells, places)."""
    channels, n = inside.shape[0], inside.shape[-1]
    places, (window, stride, dilation, groups) = how.places(inside), how
    if how.is_identity(inside):
        yield slice(None), inside.reshape(groups, channels // groups, -1)
        return
    first, *along, last = inside.strides
    by_cell, by_place = ([a * m for a, m in zip(along, s, strict=True)] for s in (dilation, stride))
    cells = as_strided(
        inside,
        (channels, *window, *places, n),
        (first, *by_cell, *by_place, last),
        writeable=False,
    )
    every = (slice(None),) * (1 + len(window))
    for rows, part, matrix in _pieces(places, most, math.prod(places[1:]) * n, memory):
        some = cells[(*every, rows)]
        matrix.reshape(some.shape)[...] = some
        yield part, matrix.reshape(groups, len(matrix) // groups, -1)


def _correlated(inside: Any, matrices: Any, bias: Any, how: _How) -> Any:
    """The convolution of the images in `inside`."""
    places, n = how.places(inside), inside.shape[-1]
    y = empty((*matrices.shape[:2], math.prod(places) * n), inside.dtype)
    run(_correlate, inside, matrices, bias, how, *_memory_for(inside, how), y)
    return y.reshape(-1, *places, n)


def _correlate(
    inside: np.ndarray,
    matrices: np.ndarray,
    bias: np.ndarray | None,
    how: _How,
    most: int,
    memory: np.ndarray,
    y: np.ndarray,
) -> None:
    for part, seen in _seen(inside, how, most, memory):
        np.matmul(matrices, seen, out=y[..., part])
        if bias is not None:
            y[..., part] += bias.reshape(*y.shape[:2], 1)


def _of_weight(inside: Any, g: Any, how: _How) -> Any:
    """The gradient of the matrices."""
    outs = g.shape[0] // how.groups
    height = inside.shape[0] // how.groups * math.prod(how.window)
    shape, dtype = (how.groups, height, outs), g.dtype
    total, piece, y = (
        empty(shape, dtype),
        empty(shape, dtype),
        empty((shape[0], outs, height), dtype),
    )
    flat = g.reshape(how.groups, outs, -1)
    run(_add_up, inside, flat, how, *_memory_for(inside, how), total, piece, y)
    return y


def _add_up(
    inside: np.ndarray,
    g: np.ndarray,
    how: _How,
    most: int,
    memory: np.ndarray,
    total: np.ndarray,
    piece: np.ndarray,
    y: np.ndarray,
) -> None:
    total.fill(0)
    for part, seen in _seen(inside, how, most, memory):
        total += np.matmul(seen, g[..., part].mT, out=piece)  # twice as fast as its transpose
    y[...] = total.mT


def _scattered(shape: Sizes, matrices: Any, g: Any, how: _How) -> Any:
    """The gradient of `inside`, which has `shape`: each place adds to the numbers its cells saw."""
    y = empty(shape, g.dtype)
    if how.is_identity(y):
        flat = g.reshape(how.groups, -1, math.prod(shape[1:]))
        run(np.matmul, matrices.mT, flat, out=y.reshape(how.groups, -1, flat.shape[2]))
        return y
    run(_scatter, matrices, g, how, *_memory_for(y, how), y)
    return y


def _scatter(
    matrices: np.ndarray, g: np.ndarray, how: _How, most: int, memory: np.ndarray, y: np.ndarray
) -> None:
    (window, stride, dilation, groups), channels, n = how, y.shape[0], y.shape[-1]
    places, run_ = g.shape[1:-1], math.prod(g.shape[2:])
    turned = np.ascontiguousarray(matrices.mT)
    flat = g.reshape(groups, -1, places[0] * run_)
    y.fill(0)
    for rows, part, matrix in _pieces(places, most, run_, memory):
        back = matrix.reshape(groups, len(matrix) // groups, -1)  # splitting axes never copies
        np.matmul(turned, flat[..., part], out=back)
        count = rows.stop - rows.start
        by_cell = matrix.reshape(channels, -1, count, *places[1:], n)
        first = rows.start * stride[0]
        reached = y[:, first : first + (count - 1) * stride[0] + dilation[0] * (window[0] - 1) + 1]
        cells = cells_of(_channel_first(reached), window, stride, dilation)
        for i, cell in enumerate(cells):
            cell += _channel_first(by_cell[:, i])


def _channel_first(lying: np.ndarray) -> np.ndarray:
    """(channels, *places, batch) as (channels, batch, *places), as windows slide over the last."""
    return lying.transpose(0, lying.ndim - 1, *range(1, lying.ndim - 1))


KERNELS: Mapping[str, Callable[..., Any]] = {"convolution": convolution}
