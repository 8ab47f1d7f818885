"""Windows that slide over images, for convolution and pooling.

In memory, images are laid out as CHWN: (channels, rows, columns, batch), and sequences and volumes
likewise. What one cell of a window covers is then in long contiguous runs. Results are NCHW views
of this layout, so that it is kept from one layer to the next.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from polynet_numpy.results import empty, run

Sizes = tuple[int, ...]
Ends = tuple[tuple[int, int], ...]


def output_sizes(sizes: Sizes, window: Sizes, stride: Sizes, dilation: Sizes) -> Sizes:
    """How many places a window takes along each axis, for axes of `sizes`, padding included."""
    axes = zip(sizes, window, stride, dilation, strict=True)
    return tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in axes)


def views(x: Any, window: Sizes, stride: Sizes, dilation: Sizes) -> list[Any]:
    """For each cell of the window, in row-major order, a view of what it covers at all its places.

    The window slides over the last axes of `x`.
    """
    places = output_sizes(x.shape[-len(window) :], window, stride, dilation)

    def index(cell: Sizes) -> Any:
        axes = zip(cell, places, stride, dilation, strict=True)
        return (..., *(slice(i * d, i * d + (n - 1) * s + 1, s) for i, n, s, d in axes))

    return [x[index(cell)] for cell in product(*map(range, window))]


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


def as_chwn(x: Any, padding: Ends = ()) -> Any:
    """NCHW images as CHWN, contiguous and padded with zeros; a view if possible."""
    x = x.transpose(*range(1, x.ndim), 0)
    if not any(map(any, padding)) and x.flags.c_contiguous:
        return x
    channels, *sizes, n = x.shape
    padding = padding or ((0, 0),) * len(sizes)
    wide = (size + a + b for size, (a, b) in zip(sizes, padding, strict=True))
    y = empty((channels, *wide, n), x.dtype)
    run(_pad_into, x, tuple(a for a, _ in padding), y)
    return y


def _pad_into(x: np.ndarray, before: Sizes, y: np.ndarray) -> None:
    if y.shape != x.shape:
        y.fill(0)
    places = (slice(a, a + n) for a, n in zip(before, x.shape[1:-1], strict=True))
    y[(slice(None), *places)] = x


def as_nchw(chwn: Any) -> Any:
    """A view of CHWN images as NCHW."""
    return chwn.transpose(chwn.ndim - 1, *range(chwn.ndim - 1))
