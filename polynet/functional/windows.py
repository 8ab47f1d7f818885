"""Windows that slide over an array, for convolution and pooling.

A window consists of cells, and takes one place after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import product
from operator import add
from typing import Any

from polynet.backend import Array
from polynet.integers import several
from polynet.ops.indexing import put_slice

Sizes = tuple[int, ...]


def check_each(name: str, axes: int, least: int, **settings: Any) -> None:
    """Raise ValueError unless each setting is a sequence of `axes` integers from `least` up."""
    for setting, value in settings.items():
        numbers = several(value, least=least)
        if numbers is None or len(numbers) != axes:
            raise ValueError(
                f"{name}: {setting} is a tuple of {axes} integers from {least}, one for each axis "
                f"of the window; got {value!r}"
            )


def output_sizes(x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> Sizes:
    """How many places a window takes along each of the last axes of `x`, which is padded already.

    Raises ValueError where the window does not fit.
    """
    sizes = tuple(x.shape[-len(window) :])
    reach = tuple(d * (w - 1) + 1 for w, d in zip(window, dilation, strict=True))
    out = tuple((n - r) // s + 1 for n, r, s in zip(sizes, reach, stride, strict=True))
    if any(n < 1 for n in out):
        raise ValueError(f"a window of {reach} does not fit into {sizes}, padding included")
    return out


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
        last -= last * s >= n + p  # a window that begins in the padding does not count
        found.append((p, max(p, last * s + reach - n - p) if ceil_mode else p))
    return found


def views(x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> list[Array]:
    """For each cell of the window, in row-major order, the elements of `x` at all its places."""
    out = output_sizes(x, window, stride, dilation)
    return [
        x[(..., *(slice(r.start, r[-1] + 1, r.step) for r in ranges))]
        for ranges in _ranges(out, window, stride, dilation)
    ]


def overlapped(
    cells: Sequence[Array], window: Sizes, stride: Sizes, dilation: Sizes, sizes: Sizes
) -> Array:
    """The transpose of `views`: each cell is added to the elements that `views` would take it from.

    The last axes of the result have `sizes`.
    """
    axes = len(window)
    others, out = tuple(cells[0].shape[:-axes]), tuple(cells[0].shape[-axes:])
    parts = (
        put_slice(cell, (*map(range, others), *ranges), (*others, *sizes))
        for cell, ranges in zip(cells, _ranges(out, window, stride, dilation), strict=True)
    )
    return reduce(add, parts)


def _ranges(
    out: Sizes, window: Sizes, stride: Sizes, dilation: Sizes
) -> Iterator[tuple[range, ...]]:
    """For each cell of the window, in row-major order, the indices it covers along each axis."""
    for cell in product(*map(range, window)):
        axes = zip(cell, out, stride, dilation, strict=True)
        yield tuple(range(i * d, i * d + (n - 1) * s + 1, s) for i, n, s, d in axes)
