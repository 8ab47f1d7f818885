"""Pooling: one number for what a window sees."""

from __future__ import annotations

import math

from polynet.functional.windows import padded, views
from polynet.tensor import composition


@composition
def max_pool(xp, x, /, *, window, stride, padding):
    """The largest number in each window, over the last axes of `x`, one for each of `window`.

    `padding` counts places on both sides, which never win. Where several are largest, the
    gradient goes to the first, as in PyTorch; a NaN wins.
    """
    ends = tuple((p, p) for p in padding)
    cells = views(padded(xp, x, ends, -math.inf), window, stride, (1,) * len(window))
    largest = cells[0]
    for cell in cells[1:]:
        largest = xp.where((cell > largest) | xp.isnan(cell), cell, largest)
    return largest


@composition
def avg_pool(xp, x, /, *, window, stride, padding):
    """The mean of each window, over the last axes of `x`; zeros of the padding count."""
    cells = views(padded(xp, x, tuple((p, p) for p in padding)), window, stride, (1,) * len(window))
    total = cells[0]
    for cell in cells[1:]:
        total = total + cell
    return total / len(cells)
