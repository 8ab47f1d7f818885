"""Convolution by 3 × 3 windows side by side, with four multiplications where there were nine.

What windows at 2 × 2 places see becomes 16 numbers, each window becomes 16 numbers, and what is
summed over the channels is their product, number by number: 16 products of matrices. See
`sources/winograd.cu`. What is no finite number comes out as NaN where it is seen, and nowhere else;
numbers near the largest may overflow, since tiles are summed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from polynet_cupy.launch import elementwise
from polynet_cupy.products import product
from polynet_cupy.windows import Padding, Sizes

TILES = np.dtype(
    [
        (name, np.int32)
        for name in (
            "images", "channels", "height", "width", "rows", "columns", "pad_y", "pad_x", "together"
        )
    ]
)  # fmt: skip
"""`Tiles` in the sources, field by field."""
CELLS = (3, 3)
NUMBERS = 16
"""Those of a tile, and of a window: as many matrices."""
LEAST_CHANNELS = 32
"""Of a group, in and out: with fewer, what is saved is less than what goes through memory."""
LEAST_TILES = 256
"""For windows that are worth becoming 16 numbers each."""
BLOCK, BLOCKS = 64, 256
"""Rows and columns that a block of cuBLASLt computes, and blocks that keep a GPU busy."""


def suits(xp: Any, x: Any, weight: Any, out: Sizes, groups: int, steps: set[int]) -> bool:
    """Whether a convolution with these strides and dilations is one to be computed so.

    In TF32 or bfloat16 it is not: what is multiplied here are sums, and rounding them loses more.
    """
    if tuple(weight.shape[2:]) != CELLS or steps != {1}:
        return False
    if xp.precision != "float32" and x.dtype.name != "float64":
        return False
    channels = min(weight.shape[0] // groups, weight.shape[1])
    tiles = math.prod(map(_tiles_along, out)) * x.shape[0]
    return channels >= LEAST_CHANNELS and tiles >= LEAST_TILES


def convolution(
    xp: Any, x: Any, weight: Any, padding: Padding, groups: int
) -> tuple[Any, Callable[..., tuple[Any, Any]]]:
    """The convolution, and what goes back.

    To the images goes a convolution, too: of the gradient, by windows that are turned round. The
    windows' is a sum over the images, of which parts make blocks enough where windows are few.
    """
    before = tuple(n for n, _ in padding)
    axes = zip(x.shape[2:], padding, CELLS, strict=True)
    out = tuple(n + sum(ends) - k + 1 for n, ends, k in axes)

    def back(g: Any, to_x: bool, to_weight: bool) -> tuple[Any, Any]:
        gx = gw = None
        if to_x:
            within = tuple(k - 1 - n for n, k in zip(before, CELLS, strict=True))
            windows = _windows(xp, weight, groups, turned=True).mT
            gx = _convolved(xp, g, windows, within, x.shape[2:])
        if to_weight:
            parts = _parts(x.shape[0], weight.shape, groups)
            spread = _matrices(xp, "winograd_of_places", g, groups, (0, 0), out, parts)
            seen = _matrices(xp, "winograd_seen", x, groups, before, out, parts)
            products = product(xp, spread, seen.mT)
            gw, count = xp.empty(weight.shape, dtype=x.dtype), math.prod(weight.shape[:2])
            elementwise(xp, "winograd_of_windows", x.dtype, count, products, gw, count, parts)
        return gx, gw

    windows = _windows(xp, weight, groups, turned=False)
    return _convolved(xp, x, windows, before, out), back


def _convolved(xp: Any, x: Any, windows: Any, before: Sizes, out: Sizes) -> Any:
    """By windows that are matrices already."""
    groups, channels = windows.shape[1:3]
    products = product(xp, windows, _matrices(xp, "winograd_seen", x, groups, before, out))
    y = xp.empty((x.shape[0], groups * channels, *out), dtype=x.dtype)
    given = (products, y, _tiles(y.shape, (0, 0), out))
    elementwise(xp, "winograd_places", y.dtype, products.size // NUMBERS, *given)
    return y


def _windows(xp: Any, weight: Any, groups: int, *, turned: bool) -> Any:
    """16 matrices for each group, of a row for each output."""
    outputs, channels = weight.shape[:2]
    count = outputs * channels
    out = xp.empty((NUMBERS, groups, outputs // groups, channels), dtype=weight.dtype)
    elementwise(xp, "winograd_windows", out.dtype, count, weight, out, count, int(turned))
    return out


def _matrices(
    xp: Any, kernel: str, x: Any, groups: int, before: Sizes, out: Sizes, parts: int = 1
) -> Any:
    """16 matrices for each part of the images and group, of a row for each channel."""
    channels, tiles = x.shape[1], math.prod(map(_tiles_along, out))
    columns = x.shape[0] // parts * tiles
    found = xp.empty((parts * NUMBERS, groups, channels // groups, columns), dtype=x.dtype)
    given = (x, found, _tiles(x.shape, before, out, parts))
    elementwise(xp, kernel, x.dtype, found.size // NUMBERS, *given)
    return found


def _tiles(images: Sizes, before: Sizes, out: Sizes, parts: int = 1) -> np.ndarray:
    along = map(_tiles_along, out)
    return np.array((*images, *along, *before, images[0] // parts), dtype=TILES)


def _tiles_along(places: int) -> int:
    return -(-places // 2)


def _parts(images: int, weight: Sizes, groups: int) -> int:
    """So many that there are blocks enough, if the images can be parted so; else one."""
    sizes = weight[0] // groups, weight[1]
    blocks = NUMBERS * groups * math.prod(-(-n // BLOCK) for n in sizes)
    least = -(-BLOCKS // blocks)
    return next((n for n in range(least, 4 * least) if not images % n), 1)
