"""Windows that slide over images, for convolution and pooling.

In memory, images are laid out as (channels, rows, columns, batch), and sequences and volumes
likewise. The numbers that one cell of a window sees are then long runs of memory, and so are the
arrays that pass from one pooling or activation to the next. Results are views of this layout with
the usual order of axes.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from polynet_numpy.results import empty, run

Sizes = tuple[int, ...]
Ends = tuple[tuple[int, int], ...]


def places_of(sizes: Sizes, window: Sizes, stride: Sizes, dilation: Sizes) -> Sizes:
    """How many places a window has along each axis, for axes of `sizes`, padding included."""
    axes = zip(sizes, window, stride, dilation, strict=True)
    return tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in axes)


def cells_of(x: Any, window: Sizes, stride: Sizes, dilation: Sizes) -> list[Any]:
    """For each cell of the window, a view of the numbers of `x` that it sees, in reading order.

    The window slides over the last axes of `x`.
    """
    places = places_of(x.shape[-len(window) :], window, stride, dilation)

    def part(cell: Sizes) -> Any:
        axes = zip(cell, places, stride, dilation, strict=True)
        return (..., *(slice(i * d, i * d + (n - 1) * s + 1, s) for i, n, s, d in axes))

    return [x[part(cell)] for cell in product(*map(range, window))]


def padded(x: Any, padding: Ends, value: float) -> Any:
    """`x`, with `value` around its last axes; `x` itself where there is no padding."""
    if not any(map(any, padding)):
        return x
    sizes = x.shape[-len(padding) :]
    wide = (n + a + b for n, (a, b) in zip(sizes, padding, strict=True))
    y = np.full_like(x, value, shape=(*x.shape[: -len(padding)], *wide))
    y[within(x, padding)] = x
    return y


def within(x: np.ndarray, padding: Ends) -> Any:
    """The index of `x` in the padded array."""
    sizes = x.shape[-len(padding) :]
    return (..., *(slice(a, a + n) for n, (a, _) in zip(sizes, padding, strict=True)))


def laid(x: Any, padding: Ends = ()) -> Any:
    """`x` as (channels, rows, columns, batch), contiguous, zeros around it; a view if possible."""
    x = x.transpose(*range(1, x.ndim), 0)
    if not any(map(any, padding)) and x.flags.c_contiguous:
        return x
    channels, *sizes, n = x.shape
    padding = padding or ((0, 0),) * len(sizes)
    wide = (size + a + b for size, (a, b) in zip(sizes, padding, strict=True))
    y = empty((channels, *wide, n), x.dtype)
    run(_lay, x, tuple(a for a, _ in padding), y)
    return y


def _lay(x: np.ndarray, before: Sizes, y: np.ndarray) -> None:
    if y.shape != x.shape:
        y.fill(0)
    places = (slice(a, a + n) for a, n in zip(before, x.shape[1:-1], strict=True))
    y[(slice(None), *places)] = x


def as_images(lying: Any) -> Any:
    """A view of what is laid out so, with the usual order of axes."""
    return lying.transpose(lying.ndim - 1, *range(lying.ndim - 1))
