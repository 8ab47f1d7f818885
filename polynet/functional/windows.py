"""What a window sees as it slides over an array: the ground of convolution and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import array_api_compat

from polynet.backend import Array

Sizes = tuple[int, ...]


def output_size(n: int, window: int, stride: int, dilation: int) -> int:
    """How many places a window has along an axis of length `n`, padding included."""
    return (n - dilation * (window - 1) - 1) // stride + 1


def output_sizes(x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> Sizes:
    """The same for the last axes of `x`; raises ValueError where the window does not fit."""
    sizes = tuple(x.shape[-len(window) :])
    out = tuple(map(output_size, sizes, window, stride, dilation))
    if any(n < 1 for n in out):
        reach = tuple(d * (w - 1) + 1 for w, d in zip(window, dilation, strict=True))
        raise ValueError(f"a window of {reach} does not fit into {sizes}, padding included")
    return out


def padded(xp: Any, x: Array, padding: Sequence[tuple[int, int]], value: float = 0.0) -> Array:
    """`x` with `value` before and after each of its last axes."""
    device = array_api_compat.device(x)
    for axis, ends in enumerate(padding, start=len(x.shape) - len(padding)):
        if any(ends):
            shapes = [(*x.shape[:axis], n, *x.shape[axis + 1 :]) for n in ends]
            first, last = (xp.full(s, value, dtype=x.dtype, device=device) for s in shapes)
            x = xp.concat([first, x, last], axis=axis)
    return x


def views(x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> list[Array]:
    """What each cell of the window sees, in reading order: a strided part of `x`."""
    out = output_sizes(x, window, stride, dilation)

    def part(cell: Sizes) -> tuple[Any, ...]:
        places = zip(cell, out, stride, dilation, strict=True)
        return (..., *(slice(i * d, i * d + (n - 1) * s + 1, s) for i, n, s, d in places))

    return [x[part(cell)] for cell in product(*map(range, window))]
