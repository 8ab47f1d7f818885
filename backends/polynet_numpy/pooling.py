"""Pooling: the largest number of each window, or the mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from polynet_numpy.choice import where
from polynet_numpy.results import form, like, run
from polynet_numpy.windows import Ends, Sizes, output_sizes, padded, views, within


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
    """The largest number of each window; of several equal ones, the first gets the gradient."""
    how = (window, stride, dilation or (1,) * len(window))
    padded_x, ends = _pooled(x, padding, -math.inf, how)
    if padded_x is None or ceil_mode:
        return NotImplemented
    cells = views(padded_x, *how)
    y, unpadded, outline = _folded(np.maximum, cells), within(x, ends), form(padded_x)

    def pullback(g: Any) -> Any:
        back = like(outline)
        gradient, pending, found = like(y), like(y, bool), like(y, bool)
        run(_to_the_largest, cells, y, g, gradient, pending, found, back, views(back, *how))
        return back[unpadded]

    return y, (pullback,)


def _to_the_largest(
    cells: list[np.ndarray],
    y: np.ndarray,
    g: np.ndarray,
    gradient: np.ndarray,
    pending: np.ndarray,
    found: np.ndarray,
    back: np.ndarray,
    targets: list[np.ndarray],
) -> None:
    gradient[...] = g  # in the memory layout of the masks
    back.fill(0)
    pending.fill(True)  # true for windows whose largest number has not been met yet
    for cell, target in zip(cells, targets, strict=True):
        np.equal(cell, y, out=found)
        found &= pending
        pending ^= found
        target += where(found, gradient, 0)
    if pending.any():  # a NaN is equal to nothing; by the definition, the last one wins
        for cell, target in zip(reversed(cells), reversed(targets), strict=True):
            np.logical_and(pending, np.isnan(cell), out=found)
            pending ^= found
            target += where(found, gradient, 0)


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
    """The mean of each window; declines settings with which windows count different elements."""
    how = (window, stride, (1,) * len(window))
    padded_x, ends = _pooled(x, padding, 0, how)
    if padded_x is None or ceil_mode or (any(padding) and not count_include_pad):
        return NotImplemented
    y = _folded(np.add, views(padded_x, *how))
    y /= math.prod(window)
    unpadded, outline = within(x, ends), form(padded_x)

    def pullback(g: Any) -> Any:
        back, part = like(outline), like(g)
        if stride == window and back.size == g.size * math.prod(window):
            run(_to_tiles, g, window, part, back)
        else:
            run(_to_all, g, math.prod(window), part, back, views(back, *how))
        return back[unpadded]

    return y, (pullback,)


def _to_all(
    g: np.ndarray, count: int, part: np.ndarray, back: np.ndarray, targets: list[np.ndarray]
) -> None:
    np.divide(g, count, out=part)
    back.fill(0)
    for target in targets:
        target += part


def _to_tiles(g: np.ndarray, window: Sizes, part: np.ndarray, back: np.ndarray) -> None:
    """`_to_all` for windows that tile the array: each element belongs to one window."""
    np.divide(g, math.prod(window), out=part)
    lead, rest = g.shape[: -len(window)], g.shape[-len(window) :]
    pairs = zip(rest, window, strict=True)
    tiles = back.reshape(*lead, *(n for pair in pairs for n in pair))  # splitting never copies
    tiles[...] = np.expand_dims(part, tuple(range(len(lead) + 1, tiles.ndim, 2)))


def _pooled(
    x: np.ndarray, padding: Sizes, value: float, how: tuple[Sizes, Sizes, Sizes]
) -> tuple[np.ndarray | None, Ends]:
    """The padded array, or None if the kernel declines; and the padding as pairs."""
    ends = tuple((p, p) for p in padding)
    if x.dtype.char not in "fd" or not x.size or x.ndim < len(padding):
        return None, ends
    padded_x = padded(x, ends, value)
    fits = min(output_sizes(padded_x.shape[-len(padding) :], *how)) > 0
    return padded_x if fits else None, ends


def _folded(combine: np.ufunc, cells: list[Any]) -> Any:
    """The cells combined into a new array by `combine`."""
    y = like(cells[0])
    run(_fold, combine, cells, y)
    return y


def _fold(combine: np.ufunc, cells: list[np.ndarray], y: np.ndarray) -> None:
    if len(cells) == 1:
        y[...] = cells[0]
        return
    combine(cells[0], cells[1], out=y)
    for cell in cells[2:]:
        combine(y, cell, out=y)


KERNELS: Mapping[str, Callable[..., Any]] = {"avg_pool": avg_pool, "max_pool": max_pool}
