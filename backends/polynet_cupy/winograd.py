"""Convolution with 3 × 3 windows of stride 1, with four multiplications in place of nine.

The tile that the windows at 2 × 2 places see is transformed to 16 numbers, and so is each window.
Their products, number by number, are summed over the channels: these are 16 matrix products. See
`sources/winograd.cu`. A number that is not finite makes the results that depend on it NaN, and no
others. Numbers near the largest float may overflow, since the transformation adds them up.
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
"""Numbers that a tile becomes, and that a window becomes; so also the number of matrices."""
LEAST_CHANNELS = 32
"""Channels of a group, in and out; with fewer, the way through memory costs more than is saved."""
LEAST_TILES = 256
"""Tiles; with fewer, it is not worth transforming the windows."""
BLOCK, BLOCKS = 64, 256
"""Rows and columns that a block of cuBLASLt computes, and how many blocks keep a GPU busy."""


def suits(xp: Any, x: Any, weight: Any, out: Sizes, groups: int, steps: set[int]) -> bool:
    """Whether to compute a convolution in this way; `steps` are its strides and dilations.

    Not in TF32 or bfloat16: the numbers that are multiplied here are sums, and rounding them loses
    more than rounding the numbers themselves.
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
    """The convolution, and a function for its gradients.

    The gradient of the images is a convolution as well: of g, with the windows turned round. The
    gradient of the windows is a sum over the images. Where windows are few, it is summed in parts,
    so that there are enough blocks for a GPU.
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
    """The convolution with windows that have been made matrices already."""
    groups, channels = windows.shape[1:3]
    products = product(xp, windows, _matrices(xp, "winograd_seen", x, groups, before, out))
    y = xp.empty((x.shape[0], groups * channels, *out), dtype=x.dtype)
    given = (products, y, _tiles(y.shape, (0, 0), out))
    elementwise(xp, "winograd_places", y.dtype, products.size // NUMBERS, *given)
    return y


def _windows(xp: Any, weight: Any, groups: int, *, turned: bool) -> Any:
    """The windows as 16 matrices for each group, with one row per output channel."""
    outputs, channels = weight.shape[:2]
    count = outputs * channels
    out = xp.empty((NUMBERS, groups, outputs // groups, channels), dtype=weight.dtype)
    elementwise(xp, "winograd_windows", out.dtype, count, weight, out, count, int(turned))
    return out


def _matrices(
    xp: Any, kernel: str, x: Any, groups: int, before: Sizes, out: Sizes, parts: int = 1
) -> Any:
    """Images as 16 matrices for each of their parts and each group, with one row per channel."""
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
    """How many parts make enough blocks, if the images divide into so many; else one."""
    sizes = weight[0] // groups, weight[1]
    blocks = NUMBERS * groups * math.prod(-(-n // BLOCK) for n in sizes)
    least = -(-BLOCKS // blocks)
    return next((n for n in range(least, 4 * least) if not images % n), 1)
