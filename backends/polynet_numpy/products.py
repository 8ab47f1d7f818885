"""Matrix products in parts, each so small that OpenBLAS computes it without packing its factors.

Where a processor has AVX-512, it does so up to a million multiplications. Packing takes longer than
the product where the first factor has few rows: the weights of a convolution, or the samples of a
small batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from polynet_numpy.results import Call

AVX512 = {"AVX512_SKX", "X86_V4"}  # NumPy's name until 2.3, and since


def unpacked(config: Mapping[str, Any]) -> int:
    """The most multiplications of a product that needs no packing, by NumPy's configuration.

    Where a processor has no extensions, the configuration says nothing of them.
    """
    found = config.get("SIMD Extensions", {}).get("found", ())
    return 10**6 if AVX512 & {*found} else 0


SMALL = unpacked(np.show_config("dicts"))
FEW = 32
"""The number of rows up to which narrow parts are faster than the whole, too."""
WIDTHS = 16, 64
"""Parts have a multiple of so many columns: the first where rows are few, the second elsewhere."""


def in_parts(samples: int, weights: int) -> bool:
    """Whether the product of so many samples and a matrix of weights is faster in parts."""
    return 1 < samples <= FEW and 0 < SMALL < samples * weights


def products(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> Iterator[Call]:
    """Calls that put `a @ b` into `out`; all are stacks of matrices, with one axis before them."""
    width = WIDTHS[a.shape[1] > FEW]
    width = SMALL // math.prod(a.shape[1:]) // width * width
    whole = b.shape[-1] // width * width if width else 0
    if whole:
        split = partial(_split, whole=whole, width=width)
        yield partial(np.matmul, a[:, None], split(b), out=split(out))
    if whole < b.shape[-1]:
        yield partial(np.matmul, a, b[..., whole:], out=out[..., whole:])


def _split(x: np.ndarray, whole: int, width: int) -> np.ndarray:
    """The first `whole` columns of matrices as a stack with `width` columns at a time, a view."""
    return x[..., :whole].reshape(*x.shape[:-1], -1, width).swapaxes(1, 2)
