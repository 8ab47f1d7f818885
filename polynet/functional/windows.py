"""Windows that slide over an array, for convolution and pooling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import product
from operator import add
from typing import Any

import array_api_compat

from polynet.backend import Array
from polynet.ops.indexing import put_slice

Sizes = tuple[int, ...]


def output_sizes(x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> Sizes:
    """The number of places of a window along each of the last axes of `x`, padding included.

    Raises ValueError where the window does not fit.
    """
    sizes = tuple(x.shape[-len(window) :])
    reach = tuple(d * (w - 1) + 1 for w, d in zip(window, dilation, strict=True))
    out = tuple((n - r) // s + 1 for n, r, s in zip(sizes, reach, stride, strict=True))
    if any(n < 1 for n in out):
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


def ends(
    x: Array, window: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, *, ceil_mode: bool
) -> list[tuple[int, int]]:
    """How far the windows reach before and after each of the last axes of `x`.

    This is the `padding`; with `ceil_mode`, also as far as a last window that begins within `x`.
    """
    found = []
    sizes = x.shape[-len(window) :]
    for n, w, s, p, d in zip(sizes, window, stride, padding, dilation, strict=True):
        reach = d * (w - 1) + 1
        last = -(-(n + 2 * p - reach) // s)
        last -= last * s >= n + p  # a window that begins in the padding sees nothing
        found.append((p, max(p, last * s + reach - n - p) if ceil_mode else p))
    return found


def views(x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> list[Array]:
    """What each cell of the window sees, in reading order: a strided part of `x`."""
    out = output_sizes(x, window, stride, dilation)

    def part(places: tuple[range, ...]) -> Array:
        return x[(..., *(slice(r.start, r[-1] + 1, r.step) for r in places))]

    return [part(places) for places in _places(out, window, stride, dilation)]


def overlapped(
    cells: Sequence[Array], window: Sizes, stride: Sizes, dilation: Sizes, sizes: Sizes
) -> Array:
    """The transpose of `views`: zeros of `sizes`, with every cell added where it would see."""
    axes = len(window)
    others, out = tuple(cells[0].shape[:-axes]), tuple(cells[0].shape[-axes:])
    seen = _places(out, window, stride, dilation)
    parts = (
        put_slice(cell, (*map(range, others), *places), (*others, *sizes))
        for cell, places in zip(cells, seen, strict=True)
    )
    return reduce(add, parts)


def _places(
    out: Sizes, window: Sizes, stride: Sizes, dilation: Sizes
) -> Iterator[tuple[range, ...]]:
    """The places of each cell of the window, in reading order, as it moves to `out` places."""
    for cell in product(*map(range, window)):
        steps = zip(cell, out, stride, dilation, strict=True)
        yield tuple(range(i * d, i * d + (n - 1) * s + 1, s) for i, n, s, d in steps)
