"""Pooling, and the description of a window that goes over sequences, images or volumes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from polynet_cupy.launch import elementwise, real

Sizes = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]
"""Along each axis, the padding before and after."""
AXES = np.dtype([(name, np.int32) for name in ("z", "y", "x")])
"""`Axes` in the sources, field by field."""
WINDOW = np.dtype(
    [
        *((name, AXES) for name in ("size", "out", "window", "stride", "pad", "dilation")),
        *((name, np.int32) for name in ("volumes", "channels")),
        *((name, np.int64) for name in ("image_step", "volume_step", "cell_step")),
    ]
)
"""`Window` in the sources, field by field."""
LACKING = (1, 1, 1, 1, 0, 1)
"""Size, out, window, stride, pad and dilation along an axis that sequences or images lack."""
MOST = 2**31 - 1
"""The most volumes, places of a padded volume, and steps: the kernels count them in 32 bits."""


def by_window(xp: Any, kernel: str, dtype: Any, size: int, window: Sizes, *args: Any) -> None:
    """Start a kernel of `windows.cu` with one thread per element, as it is for so many axes."""
    elementwise(xp, f"{kernel}_3d" if len(window) == 3 else kernel, dtype, size, *args)


def max_pool(
    xp: Any, x: Any, *, window: Sizes, stride: Sizes, padding: Sizes,
    dilation: Sizes | None = None, ceil_mode: bool = False,
) -> Any:  # fmt: skip
    """The largest number of each window; the gradient goes to the place where it stood."""
    dilation = dilation or (1,) * len(window)
    out = _places(x, window, stride, padding, dilation, ceil_mode=ceil_mode)
    if out is None:
        return NotImplemented
    x = xp.contiguous(x)
    over = window_over(x.shape, window, stride, padding, dilation, out)
    y = xp.empty((*x.shape[: -len(window)], *out), dtype=x.dtype)
    places = xp.empty(y.shape, dtype=xp.int32)
    by_window(xp, "max_pool_forward", x.dtype, y.size, window, x, y, places, over)
    shape, dtype = x.shape, x.dtype  # so that the pullback does not keep x

    def pullback(g: Any) -> Any:
        back = xp.empty(shape, dtype=dtype)
        given = (xp.contiguous(g), places, back, over)
        by_window(xp, "max_pool_backward", dtype, back.size, window, *given)
        return back

    return y, (pullback,)


def avg_pool(
    xp: Any, x: Any, *, window: Sizes, stride: Sizes, padding: Sizes,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Any:  # fmt: skip
    """The mean of each window."""
    ones = (1,) * len(window)
    out = _places(x, window, stride, padding, ones, ceil_mode=ceil_mode)
    if out is None:
        return NotImplemented
    x, with_pad = xp.contiguous(x), int(count_include_pad)
    over = window_over(x.shape, window, stride, padding, ones, out)
    y = xp.empty((*x.shape[: -len(window)], *out), dtype=x.dtype)
    by_window(xp, "avg_pool_forward", x.dtype, y.size, window, x, y, over, with_pad)
    shape, dtype = x.shape, x.dtype  # so that the pullback does not keep x

    def pullback(g: Any) -> Any:
        back = xp.empty(shape, dtype=dtype)
        given = (xp.contiguous(g), back, over, with_pad)
        by_window(xp, "avg_pool_backward", dtype, back.size, window, *given)
        return back

    return y, (pullback,)


def countable(*numbers: int) -> bool:
    """Whether the kernels can count up to all of these numbers."""
    return max(numbers) <= MOST


def places_along(n: int, window: int, stride: int, dilation: int) -> int:
    """How many places a window has along an axis of length `n`, padding included."""
    return (n - dilation * (window - 1) - 1) // stride + 1


def _places(
    x: Any, window: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, *, ceil_mode: bool
) -> Sizes | None:
    """How many places the window has along each axis; None if the kernels cannot do this."""
    if len(window) not in (1, 2, 3) or x.ndim < len(window) or not x.size or not real(x):
        return None
    out = []
    sizes = x.shape[-len(window) :]
    for n, w, s, p, d in zip(sizes, window, stride, padding, dilation, strict=True):
        reach = d * (w - 1) + 1
        count = places_along(n + 2 * p, w, s, d)
        if ceil_mode and p < reach:
            last = -(-(n + 2 * p - reach) // s)
            # A window that begins in the padding behind the end sees nothing, and does not count.
            count = last + (last * s < n + p)
        if count < 1 or p >= reach:
            return None
        out.append(count)
    volumes = math.prod(x.shape[: -len(window)])
    padded = [n + 2 * p for n, p in zip(sizes, padding, strict=True)]
    small = countable(volumes, math.prod(padded), math.prod(out), *window, *stride, *dilation)
    return tuple(out) if small else None


def window_over(
    images: Sizes, window: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, out: Sizes,
    seen: Sizes = (1, 0, 0, 0),
) -> np.ndarray:  # fmt: skip
    """The description of a window that goes over the last axes of images of this shape.

    `seen` is for convolutions only: how many channels an image has, and the distances in what the
    window sees from one image, volume and cell to the next.
    """
    axes, volumes = len(window), math.prod(images[: -len(window)])
    each = zip(LACKING, (images[-axes:], out, window, stride, padding, dilation), strict=True)
    triples = ((*(n for _ in range(3 - axes)), *along) for n, along in each)
    return np.array((*triples, volumes, *seen), dtype=WINDOW)
