"""Pooling, and the description of a window that goes over images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from polynet_cupy.launch import elementwise, real

Sizes = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]
"""Along each axis, the padding before and after."""
WINDOW = np.dtype(
    [
        *(
            (name, np.int32)
            for name in (
                "planes", "height", "width", "out_height", "out_width", "window_height",
                "window_width", "stride_y", "stride_x", "pad_y", "pad_x", "dilation_y",
                "dilation_x", "channels",
            )
        ),
        *((name, np.int64) for name in ("image_step", "plane_step", "cell_step")),
    ]
)  # fmt: skip
"""`Window` in the sources, field by field."""
ROW = (1, 1, 1, 1, 0, 1)
"""Size, out, window, stride, pad and dilation along the axis that a sequence does not have."""
MOST = 2**31 - 1
"""The most planes, places of a padded plane, and steps: the kernels count them in 32 bits."""


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
    elementwise(xp, "max_pool_forward", x.dtype, y.size, x, y, places, over)
    shape, dtype = x.shape, x.dtype  # so that the pullback does not keep x

    def pullback(g: Any) -> Any:
        back = xp.empty(shape, dtype=dtype)
        given = (xp.contiguous(g), places, back, over)
        elementwise(xp, "max_pool_backward", dtype, back.size, *given)
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
    elementwise(xp, "avg_pool_forward", x.dtype, y.size, x, y, over, with_pad)
    shape, dtype = x.shape, x.dtype  # so that the pullback does not keep x

    def pullback(g: Any) -> Any:
        back = xp.empty(shape, dtype=dtype)
        given = (xp.contiguous(g), back, over, with_pad)
        elementwise(xp, "avg_pool_backward", dtype, back.size, *given)
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
    if len(window) not in (1, 2) or x.ndim < len(window) or not x.size or not real(x):
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
    planes = math.prod(x.shape[: -len(window)])
    padded = [n + 2 * p for n, p in zip(sizes, padding, strict=True)]
    small = countable(planes, math.prod(padded), math.prod(out), *window, *stride, *dilation)
    return tuple(out) if small else None


def window_over(
    images: Sizes, window: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, out: Sizes,
    seen: Sizes = (1, 0, 0, 0),
) -> np.ndarray:  # fmt: skip
    """The description of a window that goes over the last axes of images of this shape.

    `seen` is for convolutions only: how many channels an image has, and the distances in what the
    window sees from one image, plane and cell to the next.
    """
    planes, sizes = math.prod(images[: -len(window)]), tuple(images[-len(window) :])
    axes = (sizes, out, window, stride, padding, dilation)
    pairs = [tuple(a) if len(a) == 2 else (n, *a) for n, a in zip(ROW, axes, strict=True)]
    return np.array((planes, *(n for pair in pairs for n in pair), *seen), dtype=WINDOW)
