"""Convolution by im2col: matrix products with columns that are gathered piece by piece.

A column holds what a window covers at one place. Images are in the layout of `windows.py`, CHWN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from polynet_numpy.products import products
from polynet_numpy.results import Call, empty, in_turn, repeat, run
from polynet_numpy.windows import Ends, Sizes, as_chwn, as_nchw, output_sizes, views

PIECE = 1 << 19
"""Bytes of columns that are gathered at a time, so that they stay in the cache."""
LEAST = 512
"""The least number of columns gathered at a time: matrix products with fewer are slow."""
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
    """Convolution by im2col, piece by piece, forward and back."""
    given = [a for a in (x, weight, bias) if a is not None]
    if x.ndim < 3 or weight.ndim != x.ndim or len({a.dtype for a in given}) != 1:
        return NotImplemented
    if x.dtype.kind != "f" or not x.size or not weight.size or weight.shape[0] % groups:
        return NotImplemented
    if x.shape[1] != groups * weight.shape[1]:
        return NotImplemented
    sizes = tuple(n + sum(ends) for n, ends in zip(x.shape[2:], padding, strict=True))
    if min(output_sizes(sizes, weight.shape[2:], stride, dilation)) < 1:
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
    padded = as_chwn(x, padding)
    matrices = weight.reshape(groups, out // groups, -1)
    how = _How(window, stride, dilation, groups)
    y = _convolved(padded, matrices, bias, how)

    def pullback(g: Any, needs: tuple[bool, ...]) -> Any:
        chwn = as_chwn(g)
        grads: list[Any] = [None] * len(needs)
        if needs[0]:
            grads[0] = as_nchw(input_gradient(g, chwn))
        if needs[1]:
            grads[1] = _weight_gradient(padded, chwn, how).reshape(weight.shape)
        if needs[2:] and needs[2]:
            grads[2] = np.sum(chwn.reshape(out, -1), axis=1)
        return grads

    def input_gradient(g: Any, chwn: Any) -> Any:
        reach = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
        ends = tuple((r - a, r - b) for r, (a, b) in zip(reach, padding, strict=True))
        if set(stride) == {1} and out <= 2 * channels and min(map(min, ends)) >= 0:
            # A convolution of `g` with the flipped windows is less work than col2im.
            flip = (..., *(slice(None, None, -1) for _ in window))
            flipped = weight.reshape(groups, out // groups, -1, *window)[flip].swapaxes(1, 2)
            flipped = flipped.reshape(groups, channels // groups, -1)
            return _convolved(as_chwn(g, ends), flipped, None, how)
        gx = _col2im(padded.shape, matrices, chwn, how)
        within = (slice(a, a + n) for (a, _), n in zip(padding, sizes, strict=True))
        return gx[(slice(None), *within)]

    return as_nchw(y), pullback


class _How(NamedTuple):
    """How a window slides over the padded images, `padded`."""

    window: Sizes
    stride: Sizes
    dilation: Sizes
    groups: int

    def places(self, padded: Any) -> Sizes:
        return output_sizes(padded.shape[1:-1], self.window, self.stride, self.dilation)

    def is_identity(self, padded: Any) -> bool:
        """Whether the window is one cell that covers all of `padded`: im2col is not needed."""
        return set(self.window) == {1} and self.places(padded) == padded.shape[1:-1]


def _memory_for(padded: Any, how: _How, least: int = LEAST) -> tuple[int, Any]:
    """How many rows of places are gathered at a time, and memory for their columns."""
    if how.is_identity(padded):
        return 0, None
    places, dtype = how.places(padded), padded.dtype
    height = padded.shape[0] * math.prod(how.window)
    row_columns = math.prod(places[1:]) * padded.shape[-1]
    most = max(PIECE // (height * row_columns * dtype.itemsize), -(-least // row_columns))
    most = -(-places[0] // -(-places[0] // most))  # so that the pieces have nearly equal sizes
    return most, empty((height, most * row_columns + APART // dtype.itemsize), dtype)


def _pieces(
    places: Sizes, most: int, row_columns: int, memory: np.ndarray
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """For some rows of places at a time: the slice of rows, that of their columns, and a matrix.

    All pieces share the memory of the matrix.
    """
    for start in range(0, places[0], most):
        stop = min(start + most, places[0])
        columns = slice(start * row_columns, stop * row_columns)
        yield slice(start, stop), columns, memory[:, : (stop - start) * row_columns]


def _im2col(
    padded: np.ndarray, how: _How, most: int, memory: np.ndarray
) -> Iterator[tuple[list[Call], slice, np.ndarray]]:
    """For each piece: calls that gather it, the slice of its columns, and the columns.

    The columns are (groups, channels·cells, columns).
    """
    channels, n = padded.shape[0], padded.shape[-1]
    places, (window, stride, dilation, groups) = how.places(padded), how
    if how.is_identity(padded):
        yield [], slice(None), padded.reshape(groups, channels // groups, -1)
        return
    first, *along, last = padded.strides
    by_cell, by_place = ([a * m for a, m in zip(along, s, strict=True)] for s in (dilation, stride))
    cells = as_strided(
        padded,
        (channels, *window, *places, n),
        (first, *by_cell, *by_place, last),
        writeable=False,
    )
    every = (slice(None),) * (1 + len(window))
    for rows, part, matrix in _pieces(places, most, math.prod(places[1:]) * n, memory):
        some = cells[(*every, rows)]
        gather = partial(np.copyto, matrix.reshape(some.shape), some)  # splitting axes never copies
        yield [gather], part, matrix.reshape(groups, len(matrix) // groups, -1)


def _convolved(padded: Any, matrices: Any, bias: Any, how: _How) -> Any:
    """The convolution of the images in `padded`, as CHWN."""
    places, n = how.places(padded), padded.shape[-1]
    y = empty((*matrices.shape[:2], math.prod(places) * n), padded.dtype)
    repeat(_convolve, padded, matrices, bias, how, *_memory_for(padded, how), y, by_loops=False)
    return y.reshape(-1, *places, n)


def _convolve(
    padded: np.ndarray,
    matrices: np.ndarray,
    bias: np.ndarray | None,
    how: _How,
    most: int,
    memory: np.ndarray,
    y: np.ndarray,
) -> Call:
    calls: list[Call] = []
    for gather, part, columns in _im2col(padded, how, most, memory):
        some = y[..., part]
        calls += [*gather, *products(matrices, columns, some)]
        if bias is not None:
            calls.append(partial(np.add, some, bias.reshape(*y.shape[:2], 1), out=some))
    return in_turn(calls)


def _weight_gradient(padded: Any, g: Any, how: _How) -> Any:
    """The gradient of the matrices of weights."""
    outs = g.shape[0] // how.groups
    height = padded.shape[0] // how.groups * math.prod(how.window)
    total, piece = (empty((how.groups, height, outs), g.dtype) for _ in range(2))
    y = empty((how.groups, outs, height), g.dtype)
    flat = g.reshape(how.groups, outs, -1)
    repeat(
        _sum_of_weight_gradients,
        padded,
        flat,
        how,
        *_memory_for(padded, how),
        total,
        piece,
        y,
        by_loops=False,
    )
    return y


def _sum_of_weight_gradients(
    padded: np.ndarray,
    g: np.ndarray,
    how: _How,
    most: int,
    memory: np.ndarray,
    total: np.ndarray,
    piece: np.ndarray,
    y: np.ndarray,
) -> Call:
    calls: list[Call] = [partial(total.fill, 0)]
    for gather, part, columns in _im2col(padded, how, most, memory):
        product = partial(np.matmul, columns, g[..., part].mT, out=piece)  # faster than transposed
        calls += [*gather, product, partial(np.add, total, piece, out=total)]
    return in_turn([*calls, partial(np.copyto, y, total.mT)])


def _col2im(shape: Sizes, matrices: Any, g: Any, how: _How) -> Any:
    """The gradient of `padded`, which has `shape`: each column is added to where it came from."""
    y = empty(shape, g.dtype)
    if how.is_identity(y):
        flat = g.reshape(how.groups, -1, math.prod(shape[1:]))
        run(np.matmul, matrices.mT, flat, out=y.reshape(how.groups, -1, flat.shape[2]))
        return y
    transposed = empty(matrices.mT.shape, g.dtype)
    repeat(
        _add_columns,
        matrices,
        transposed,
        g,
        how,
        *_memory_for(y, how, 2 * LEAST),
        y,
        by_loops=False,
    )
    return y


def _add_columns(
    matrices: np.ndarray,
    transposed: np.ndarray,
    g: np.ndarray,
    how: _How,
    most: int,
    memory: np.ndarray,
    y: np.ndarray,
) -> Call:
    (window, stride, dilation, groups), channels, n = how, y.shape[0], y.shape[-1]
    places, row_columns = g.shape[1:-1], math.prod(g.shape[2:])
    flat = g.reshape(groups, -1, places[0] * row_columns)
    calls: list[Call] = [partial(np.copyto, transposed, matrices.mT), partial(y.fill, 0)]
    for rows, part, matrix in _pieces(places, most, row_columns, memory):
        columns = matrix.reshape(groups, len(matrix) // groups, -1)  # splitting axes never copies
        calls.append(partial(np.matmul, transposed, flat[..., part], out=columns))
        count = rows.stop - rows.start
        by_cell = matrix.reshape(channels, -1, count, *places[1:], n)
        first = rows.start * stride[0]
        reached = y[:, first : first + (count - 1) * stride[0] + dilation[0] * (window[0] - 1) + 1]
        cells = views(_as_cnhw(reached), window, stride, dilation)
        for i, cell in enumerate(cells):
            calls.append(partial(np.add, cell, _as_cnhw(by_cell[:, i]), out=cell))
    return in_turn(calls)


def _as_cnhw(chwn: np.ndarray) -> np.ndarray:
    """CHWN as CNHW, since windows slide over the last axes."""
    return chwn.transpose(0, chwn.ndim - 1, *range(1, chwn.ndim - 1))


KERNELS: Mapping[str, Callable[..., Any]] = {"convolution": convolution}
