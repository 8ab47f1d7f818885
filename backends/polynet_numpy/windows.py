"""Convolution and pooling.

Inside, images lie as (channels, rows, columns, batch): what one cell of a window sees is then
long runs of memory, and so is what two poolings or activations in a row hand each other. Results
are views of that in the usual order of axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

Sizes = tuple[int, ...]
Ends = tuple[tuple[int, int], ...]

PIECE = 1 << 19
"""Bytes of what windows see that are gathered at a time, so that they stay in the cache …"""
LEAST = 1024
"""… unless that were fewer places than this, at which matrix products are slow."""
APART = 64
"""Bytes between rows: at a distance of a power of two they would push each other out."""

NOTHING = ((0, 0), (0, 0))
"""No padding."""


def _places(sizes: Sizes, window: Sizes, stride: Sizes, dilation: Sizes) -> Sizes:
    """How many places a window has along each axis of such a size, padding included."""
    axes = zip(sizes, window, stride, dilation, strict=True)
    return tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in axes)


def _cells(x: np.ndarray, window: Sizes, stride: Sizes, dilation: Sizes) -> list[np.ndarray]:
    """What each cell of the window sees of the last axes of `x`, in reading order."""
    places = _places(x.shape[-len(window) :], window, stride, dilation)

    def part(cell: Sizes) -> Any:
        axes = zip(cell, places, stride, dilation, strict=True)
        return (..., *(slice(i * d, i * d + (n - 1) * s + 1, s) for i, n, s, d in axes))

    return [x[part(cell)] for cell in product(*map(range, window))]


def _padded(x: np.ndarray, padding: Ends, value: float) -> np.ndarray:
    """`x`, with `value` around its last axes; `x` itself where there is no padding."""
    if not any(map(any, padding)):
        return x
    sizes = x.shape[-len(padding) :]
    wide = (n + a + b for n, (a, b) in zip(sizes, padding, strict=True))
    y = np.full_like(x, value, shape=(*x.shape[: -len(padding)], *wide))
    y[_within(x, padding)] = x
    return y


def _within(x: np.ndarray, padding: Ends) -> Any:
    """Where `x` stands in itself padded."""
    sizes = x.shape[-len(padding) :]
    return (..., *(slice(a, a + n) for n, (a, _) in zip(sizes, padding, strict=True)))


# Convolution


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
    """Matrix products with what the windows see, gathered piece by piece, forward and backward."""
    given = [a for a in (x, weight, bias) if a is not None]
    if x.ndim not in (3, 4) or weight.ndim != x.ndim or len({a.dtype for a in given}) != 1:
        return NotImplemented
    if x.dtype.kind != "f" or not x.size or not weight.size or weight.shape[0] % groups:
        return NotImplemented
    if x.shape[1] != groups * weight.shape[1]:
        return NotImplemented
    sizes = tuple(n + sum(ends) for n, ends in zip(x.shape[2:], padding, strict=True))
    if min(_places(sizes, weight.shape[2:], stride, dilation)) < 1:
        return NotImplemented
    if x.ndim == 4:
        return _convolution(x, weight, bias, stride, padding, dilation, groups)
    lifted = (*stride, 1), (*padding, (0, 0)), (*dilation, 1)  # a sequence is one column
    y, back = _convolution(x[..., None], weight[..., None], bias, *lifted, groups)

    def pullback(g: np.ndarray, needs: tuple[bool, ...]) -> Any:
        gx, gw, *rest = back(g[..., None], needs)
        return (*(a if a is None else a[..., 0] for a in (gx, gw)), *rest)

    return y[..., 0], pullback


def _convolution(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    stride: Sizes,
    padding: Ends,
    dilation: Sizes,
    groups: int,
) -> tuple[np.ndarray, Callable[..., Any]]:
    channels, height, width = x.shape[1:]
    out, window = weight.shape[0], weight.shape[2:]
    inside = _inside(x, padding)
    matrices = weight.reshape(groups, out // groups, -1)
    how = (window, stride, dilation, groups)
    y = _correlated(inside, matrices, bias, *how)
    places = y.shape[1:3]

    def pullback(g: np.ndarray, needs: tuple[bool, ...]) -> Any:
        lying = _inside(g, NOTHING)
        grads: list[Any] = [None] * len(needs)
        if needs[0]:
            grads[0] = of_input(g, lying).transpose(3, 0, 1, 2)
        if needs[1]:
            total = np.zeros((groups, matrices.shape[2], out // groups), dtype=g.dtype)
            flat = lying.reshape(groups, out // groups, -1)
            for part, seen in _seen(inside, places, *how):
                total += np.matmul(seen, flat[..., part].mT)  # twice as fast as its transpose
            grads[1] = total.mT.reshape(weight.shape)
        if needs[2:] and needs[2]:
            grads[2] = lying.reshape(out, -1).sum(axis=1)
        return grads

    def of_input(g: np.ndarray, lying: np.ndarray) -> np.ndarray:
        reach = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
        ends = tuple((r - a, r - b) for r, (a, b) in zip(reach, padding, strict=True))
        if stride == (1, 1) and out <= channels and min(map(min, ends)) >= 0:
            # To gather from `g` with the window turned around is less than to scatter it.
            turned = weight.reshape(groups, out // groups, -1, *window)[..., ::-1, ::-1]
            turned = turned.swapaxes(1, 2).reshape(groups, channels // groups, -1)
            return _correlated(_inside(g, ends), turned, None, *how)
        (top, _), (left, _) = padding
        gx = _scattered(inside.shape, matrices, lying, *how)
        return gx[:, top : top + height, left : left + width]

    return y.transpose(3, 0, 1, 2), pullback


def _inside(x: np.ndarray, padding: Ends) -> np.ndarray:
    """(channels, rows, columns, batch), contiguous, with zeros around; `x` itself where it is."""
    x = x.transpose(1, 2, 3, 0)
    if not any(map(any, padding)):
        return np.ascontiguousarray(x)
    (top, bottom), (left, right) = padding
    channels, height, width, n = x.shape
    y = np.zeros((channels, top + height + bottom, left + width + right, n), dtype=x.dtype)
    y[:, top : top + height, left : left + width] = x
    return y


def _pieces(
    places: Sizes, height: int, n: int, dtype: Any
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Some rows of places at a time: which they are, which columns, and a matrix for them.

    The matrix has `height` rows, and columns for these places and `n` samples; its memory is
    that of the piece before.
    """
    run = places[1] * n
    most = max(PIECE // (height * run * dtype.itemsize), -(-LEAST // run))
    most = -(-places[0] // -(-places[0] // most))  # as even as can be
    memory = np.empty((height, most * run + APART // dtype.itemsize), dtype=dtype)
    for start in range(0, places[0], most):
        stop = min(start + most, places[0])
        yield (
            slice(start, stop),
            slice(start * run, stop * run),
            memory[:, : (stop - start) * run],
        )


def _seen(
    inside: np.ndarray, places: Sizes, window: Sizes, stride: Sizes, dilation: Sizes, groups: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """What each cell of the window sees, a piece at a time: (groups, channels·cells, places)."""
    channels, n = inside.shape[0], inside.shape[3]
    if window == (1, 1) and places == inside.shape[1:3]:
        yield slice(None), inside.reshape(groups, channels // groups, -1)
        return
    a, b, c, d = inside.strides
    cells = as_strided(
        inside,
        (channels, *window, *places, n),
        (a, b * dilation[0], c * dilation[1], b * stride[0], c * stride[1], d),
        writeable=False,
    )
    height = channels * math.prod(window)
    for rows, part, matrix in _pieces(places, height, n, inside.dtype):
        by_cell = (channels, *window, rows.stop - rows.start, places[1], n)
        matrix.reshape(by_cell)[...] = cells[:, :, :, rows]
        yield part, matrix.reshape(groups, height // groups, -1)


def _correlated(
    inside: np.ndarray,
    matrices: np.ndarray,
    bias: np.ndarray | None,
    window: Sizes,
    stride: Sizes,
    dilation: Sizes,
    groups: int,
) -> np.ndarray:
    """The convolution of what lies inside."""
    places = _places(inside.shape[1:3], window, stride, dilation)
    n, outs = inside.shape[3], matrices.shape[1]
    y = np.empty((groups, outs, math.prod(places) * n), dtype=inside.dtype)
    for part, seen in _seen(inside, places, window, stride, dilation, groups):
        np.matmul(matrices, seen, out=y[..., part])
        if bias is not None:
            y[..., part] += bias.reshape(groups, outs, 1)
    return y.reshape(groups * outs, *places, n)


def _scattered(
    shape: Sizes,
    matrices: np.ndarray,
    g: np.ndarray,
    window: Sizes,
    stride: Sizes,
    dilation: Sizes,
    groups: int,
) -> np.ndarray:
    """The gradient of what lay inside in this shape: each place adds to what its cells saw."""
    channels, n, places = shape[0], shape[3], g.shape[1:3]
    turned = np.ascontiguousarray(matrices.mT)
    flat = g.reshape(groups, -1, math.prod(places) * n)
    if window == (1, 1) and places == shape[1:3]:
        return np.matmul(turned, flat).reshape(shape)
    y = np.zeros(shape, dtype=g.dtype)
    height = channels * math.prod(window)
    for rows, part, matrix in _pieces(places, height, n, g.dtype):
        back = matrix.reshape(groups, height // groups, -1)  # splitting axes never copies
        np.matmul(turned, flat[..., part], out=back)
        count = rows.stop - rows.start
        by_cell = matrix.reshape(channels, -1, count, places[1], n)
        first = rows.start * stride[0]
        reached = y[:, first : first + (count - 1) * stride[0] + dilation[0] * (window[0] - 1) + 1]
        cells = _cells(reached.transpose(0, 3, 1, 2), window, stride, dilation)
        for i, cell in enumerate(cells):
            cell += by_cell[:, i].transpose(0, 3, 1, 2)
    return y


# Pooling


def max_pool(
    xp: Any,
    x: np.ndarray,
    *,
    window: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes | None = None,
    ceil_mode: bool = False,
) -> Any:
    """The largest number of each window; the gradient goes to the first of several."""
    how = (window, stride, dilation or (1,) * len(window))
    wide, ends = _pooled(x, padding, -math.inf, how)
    if wide is None or ceil_mode:
        return NotImplemented
    cells = _cells(wide, *how)
    y = _folded(np.maximum, cells)

    def pullback(g: np.ndarray) -> np.ndarray:
        lying = np.empty_like(y)  # as the masks do
        lying[...] = g
        back = np.zeros_like(wide)
        targets = _cells(back, *how)
        left = np.ones_like(y, dtype=bool)  # where the largest was not met yet
        for cell, target in zip(cells, targets, strict=True):
            found = cell == y
            found &= left
            left ^= found
            target += kept(found, lying)
        if left.any():  # a NaN is equal to nothing; by the definition, the last one wins
            for cell, target in zip(reversed(cells), reversed(targets), strict=True):
                found = left & np.isnan(cell)
                left ^= found
                target += kept(found, lying)
        return back[_within(x, ends)]

    return y, (pullback,)


def avg_pool(
    xp: Any,
    x: np.ndarray,
    *,
    window: Sizes,
    stride: Sizes,
    padding: Sizes,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The mean of each window, where all of them count as many numbers."""
    how = (window, stride, (1,) * len(window))
    wide, ends = _pooled(x, padding, 0, how)
    if wide is None or ceil_mode or (any(padding) and not count_include_pad):
        return NotImplemented
    y = _folded(np.add, _cells(wide, *how))
    y /= math.prod(window)

    def pullback(g: np.ndarray) -> np.ndarray:
        back = np.zeros_like(wide)
        part = g / math.prod(window)
        for target in _cells(back, *how):
            target += part
        return back[_within(x, ends)]

    return y, (pullback,)


def _pooled(
    x: np.ndarray, padding: Sizes, value: float, how: tuple[Sizes, Sizes, Sizes]
) -> tuple[np.ndarray | None, Ends]:
    """What a window goes over that slides so, None where that is declined; and the padding."""
    ends = tuple((p, p) for p in padding)
    if x.dtype.char not in "fd" or not x.size or x.ndim < len(padding):
        return None, ends
    wide = _padded(x, ends, value)
    fits = min(_places(wide.shape[-len(padding) :], *how)) > 0
    return wide if fits else None, ends


def _folded(combine: np.ufunc, cells: list[np.ndarray]) -> np.ndarray:
    """All cells together, as an array of its own."""
    if len(cells) == 1:
        return cells[0].copy(order="K")
    y = combine(cells[0], cells[1])
    for cell in cells[2:]:
        combine(y, cell, out=y)
    return y


def kept(mask: np.ndarray, g: np.ndarray) -> np.ndarray:
    """`g` where `mask` is true, else 0: by their bits, since `np.where` jumps at every number."""
    bits = np.negative(mask.view(np.int8)).astype(f"i{g.itemsize}")
    bits &= g.view(bits.dtype)
    return bits.view(g.dtype)


KERNELS = {kernel.__name__: kernel for kernel in (avg_pool, convolution, max_pool)}
