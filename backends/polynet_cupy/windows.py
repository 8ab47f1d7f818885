"""Pooling, and convolution as a matrix product of what the window sees (im2col)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from polynet_cupy.launch import column_sum, elementwise, real
from polynet_cupy.products import product, rounded

Sizes = tuple[int, ...]
WINDOW = np.dtype(
    [
        (name, np.int64)
        for name in (
            "planes", "height", "width", "out_height", "out_width", "window_height",
            "window_width", "stride_y", "stride_x", "pad_y", "pad_x", "dilation_y", "dilation_x",
        )
    ]
)  # fmt: skip
"""`Window` in the sources, field by field."""
ROW = (1, 1, 1, 1, 0, 1)
"""What a sequence has along the axis that it lacks: size, out, window, stride, pad, dilation."""
MOST = 2**31 - 1
"""Planes, and places in one: the kernels count both in 32 bits."""


def max_pool(
    xp: Any, x: Any, *, window: Sizes, stride: Sizes, padding: Sizes,
    dilation: Sizes | None = None, ceil_mode: bool = False,
) -> Any:  # fmt: skip
    """The largest number of each window, and where it stood."""
    dilation = dilation or (1,) * len(window)
    out = _places(x, window, stride, padding, dilation, ceil_mode=ceil_mode)
    if out is None:
        return NotImplemented
    x = xp.contiguous(x)
    over = _window(x, window, stride, padding, dilation, out)
    y = xp.empty((*x.shape[: -len(window)], *out), dtype=x.dtype)
    places = xp.empty(y.shape, dtype=xp.int32)
    elementwise(xp, "max_pool_forward", x.dtype, y.size, x, y, places, over)

    def pullback(g: Any) -> Any:
        back = xp.empty(x.shape, dtype=x.dtype)
        given = (xp.contiguous(g), places, back, over)
        elementwise(xp, "max_pool_backward", x.dtype, x.size, *given)
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
    over = _window(x, window, stride, padding, ones, out)
    y = xp.empty((*x.shape[: -len(window)], *out), dtype=x.dtype)
    elementwise(xp, "avg_pool_forward", x.dtype, y.size, x, y, over, with_pad)

    def pullback(g: Any) -> Any:
        back = xp.empty(x.shape, dtype=x.dtype)
        given = (xp.contiguous(g), back, over, with_pad)
        elementwise(xp, "avg_pool_backward", x.dtype, x.size, *given)
        return back

    return y, (pullback,)


def convolution(
    xp: Any, x: Any, weight: Any, bias: Any = None, *, stride: Sizes,
    padding: tuple[tuple[int, int], ...], dilation: Sizes, groups: int = 1,
) -> Any:  # fmt: skip
    """One product a sample and group: of the weights, and what the window sees there.

    What it sees is computed again for the weight's gradient: kept, it would be the largest of all
    that a network keeps.
    """
    if not _convolves(x, weight, bias, len(stride), groups):
        return NotImplemented
    window = tuple(weight.shape[2:])
    before = tuple(p for p, _ in padding)
    sizes = [n + sum(p) for n, p in zip(x.shape[2:], padding, strict=True)]
    out = tuple(map(_count, sizes, window, stride, dilation))
    if min(out) < 1 or math.prod(out) * math.prod(window) > MOST:
        return NotImplemented
    x, weight = (rounded(xp, xp.contiguous(a)) for a in (x, weight))
    over = _window(x, window, stride, before, dilation, out)
    batch, cells, places = x.shape[0], math.prod(weight.shape[1:]), math.prod(out)
    matrices = xp.reshape(weight, (1, groups, weight.shape[0] // groups, cells))
    as_it_is = {*window, *stride} == {1} and not any(map(sum, padding))

    def seen() -> Any:
        if as_it_is:
            return xp.reshape(x, (batch, groups, cells, places))
        columns = xp.empty((batch, groups, cells, places), dtype=x.dtype)
        kernel, dtype = ("im2col", x.dtype) if real(x) else ("im2col_bfloat16", "float32")
        elementwise(xp, kernel, dtype, columns.size // math.prod(window), x, columns, over)
        return columns

    def pullback(g: Any, needs: tuple[bool, ...]) -> Any:
        found: list[Any] = [None] * len(needs)
        images = xp.reshape(rounded(xp, xp.contiguous(g)), (batch, groups, -1, places))
        if needs[0]:
            back = product(xp, matrices.mT, images)
            found[0] = xp.reshape(back, x.shape) if as_it_is else xp.empty(x.shape, dtype=g.dtype)
            if not as_it_is:
                elementwise(xp, "col2im", g.dtype, x.size, back, found[0], over)
        if needs[1]:
            each = xp.reshape(product(xp, images, seen().mT), (batch, weight.size))
            found[1] = xp.reshape(column_sum(xp, each), weight.shape)
        if any(needs[2:]):
            found[2] = xp.sum(xp.reshape(g, (batch, -1, places)), axis=(0, 2))
        return tuple(found)

    y = xp.reshape(product(xp, matrices, seen()), (batch, weight.shape[0], *out))
    if bias is not None:
        y += xp.reshape(bias, (-1, *(1 for _ in out)))
    return y, pullback


def _convolves(x: Any, weight: Any, bias: Any, axes: int, groups: int) -> bool:
    """Whether the kernel can take these: images, a bank of windows for them, one dtype."""
    if axes not in (1, 2) or x.ndim != axes + 2 or weight.ndim != axes + 2:
        return False
    fits = x.shape[1] == weight.shape[1] * groups and not weight.shape[0] % groups
    planes = x.shape[0] * x.shape[1] <= MOST
    return bool(fits and planes and x.size and weight.size and real(x, weight, bias))


def _count(n: int, window: int, stride: int, dilation: int) -> int:
    """How many places a window has along an axis of length `n`, padding included."""
    return (n - dilation * (window - 1) - 1) // stride + 1


def _places(
    x: Any, window: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, *, ceil_mode: bool
) -> Sizes | None:
    """How many places the window has along each axis; None where the kernels do not follow."""
    if len(window) not in (1, 2) or x.ndim < len(window) or not x.size or not real(x):
        return None
    out = []
    sizes = x.shape[-len(window) :]
    for n, w, s, p, d in zip(sizes, window, stride, padding, dilation, strict=True):
        reach = d * (w - 1) + 1
        count = _count(n + 2 * p, w, s, d)
        if ceil_mode and p < reach:
            last = -(-(n + 2 * p - reach) // s)
            count = last + (last * s < n + p)  # one that begins in the padding sees nothing
        if count < 1 or p >= reach:
            return None
        out.append(count)
    planes = math.prod(x.shape[: -len(window)])
    small = max(planes, math.prod(sizes), math.prod(out)) <= MOST
    return tuple(out) if small else None


def _window(
    x: Any, window: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, out: Sizes
) -> np.ndarray:
    """The numbers of a window that goes over the last axes of `x`."""
    planes, sizes = math.prod(x.shape[: -len(window)]), tuple(x.shape[-len(window) :])
    axes = (sizes, out, window, stride, padding, dilation)
    pairs = [tuple(a) if len(a) == 2 else (n, *a) for n, a in zip(ROW, axes, strict=True)]
    return np.array((planes, *(n for pair in pairs for n in pair)), dtype=WINDOW)
