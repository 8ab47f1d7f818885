"""Rows added by segment, slices put into zeros, and the masks of dropout."""

from __future__ import annotations

import math
from typing import Any

from polynet import random
from polynet_cupy.launch import WIDE, elementwise, real

MOST_ROWS = 1 << 17
"""The kernel compares each row with every other; with more rows, the definition is faster."""
MOST_NUMBERS = 1 << 28
"""Numbers of the matrix that the definition makes; with more, it would not fit into memory."""


def put_slice(xp: Any, x: Any, places: tuple[range, ...], shape: tuple[int, ...]) -> Any:
    """Zeros of `shape`, with `x` at `places`."""
    part = tuple(slice(r.start, r.stop, r.step) for r in places)
    y = xp.zeros(shape, dtype=x.dtype)
    y[part] = x
    return y, (lambda g: g[part],)


def segment_sum(xp: Any, x: Any, segments: Any, count: int) -> Any:
    """Rows summed by segment. Each sum adds its rows in order, so its bits are always the same."""
    n = segments.shape[0]
    wide = WIDE.get(segments.dtype.name)
    long = n > MOST_ROWS and n * count <= MOST_NUMBERS
    if not real(x) or long or wide is None:
        return NotImplemented
    y = xp.zeros((count, *x.shape[1:]), dtype=x.dtype)
    if x.size:
        x, segments = xp.contiguous(x), xp.contiguous(segments)
        following, first = xp.empty((n,), dtype=xp.int32), xp.empty((n,), dtype=xp.bool)
        chains = (segments, wide, following, first)
        elementwise(xp, "segment_chains", x.dtype, n, *chains, n)
        width = x.size // n
        elementwise(xp, "segment_sum", x.dtype, x.size, x, *chains, y, n, width, count)
    return y, (lambda g: xp.take(g, segments, axis=0), None)


def keep_mask(
    xp: Any, key: Any, step: Any, *, shape: tuple[int, ...], keep: float, first: int = 0
) -> Any:
    """One thread makes one Threefry block, whose four halves decide four elements of the mask."""
    rows, size = shape[0], math.prod(shape[1:])
    blocks = -(-size // random.HALVES_PER_BLOCK)
    out = xp.empty(shape, dtype=xp.bool)
    given = (xp.contiguous(key), xp.contiguous(step), out, rows, size, blocks, int(first))
    elementwise(xp, "keep_mask", "float32", rows * blocks, *given, round(keep * 65536))
    return out, None
