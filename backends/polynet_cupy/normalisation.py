"""Normalising: over the last axes, row by row, or by channel."""

from __future__ import annotations

import math
from typing import Any

from polynet_cupy.launch import MOST_THREADS, by_row, column_sum, elementwise, real

MOST = 2**31 - 1
"""Numbers of a channel: the kernels count them in 32 bits."""


def layer_norm(
    xp: Any, x: Any, weight: Any = None, bias: Any = None, *, axes: int, eps: float
) -> Any:
    """Normalised row by row; its three gradients share what was kept of each row."""
    shape = x.shape[x.ndim - axes :]
    given = [a for a in (x, weight, bias) if a is not None]
    if not real(*given) or not x.size or any(a.shape != shape for a in given[1:]):
        return NotImplemented
    n = math.prod(shape)
    rows = x.size // n
    x, weight, bias = (None if a is None else xp.contiguous(a) for a in (x, weight, bias))
    y = xp.empty(x.shape, dtype=x.dtype)
    means, scales = (xp.empty((rows,), dtype=x.dtype) for _ in range(2))
    eps = float(eps)
    by_row(xp, "layer_norm_forward", x.dtype, rows, n, x, weight, bias, y, means, scales, n, eps)

    def pullback(g: Any, needs: tuple[bool, ...]) -> Any:
        g = xp.contiguous(g)
        found: list[Any] = [None] * len(needs)
        if needs[0]:
            found[0] = xp.empty(x.shape, dtype=x.dtype)
            kept = (weight, means, scales)
            by_row(xp, "layer_norm_backward", x.dtype, rows, n, g, x, *kept, found[0], n)
        if any(needs[1:2]):
            product = xp.empty((rows, n), dtype=x.dtype)
            kept = (means, scales, product)
            elementwise(xp, "layer_norm_weighted", x.dtype, x.size, g, x, *kept, x.size, n)
            found[1] = xp.reshape(column_sum(xp, product), shape)
        if any(needs[2:]):
            found[2] = xp.reshape(column_sum(xp, xp.reshape(g, (rows, n))), shape)
        return tuple(found)

    return y, pullback


def batch_norm(xp: Any, x: Any, weight: Any = None, bias: Any = None, *, eps: float) -> Any:
    """Normalised channel by channel, and what mean and variance were."""
    if x.ndim < 2 or not x.size or not real(x, weight, bias):
        return NotImplemented
    samples, channels, size = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    if samples * size > MOST or any(
        a is not None and a.shape != (channels,) for a in (weight, bias)
    ):
        return NotImplemented
    x, weight, bias = (None if a is None else xp.contiguous(a) for a in (x, weight, bias))
    y = xp.empty(x.shape, dtype=x.dtype)
    kept = tuple(xp.empty((channels,), dtype=x.dtype) for _ in range(2))
    how = (samples, channels, size, float(eps))

    def by_channel(kernel: str, *given: Any) -> None:
        by_row(xp, kernel, x.dtype, channels, samples * size, *given, *how, most=MOST_THREADS)

    def pullback(gradients: Any, needs: tuple[bool, ...]) -> Any:
        g, *to_kept = map(xp.contiguous, gradients)
        slope, level = (xp.empty((channels,), dtype=x.dtype) for _ in range(2))
        by_channel("batch_norm_sums", g, x, *kept, level, slope)
        found = [None, slope, level][: len(needs)]
        if needs[0]:
            found[0] = xp.empty(x.shape, dtype=x.dtype)
            given = (g, x, weight, *kept, level, slope, *to_kept, found[0])
            elementwise(xp, "batch_norm_backward", x.dtype, x.size, *given, *how)
        return tuple(a if needed else None for a, needed in zip(found, needs, strict=True))

    by_channel("batch_norm_forward", x, weight, bias, y, *kept)
    return (y, *kept), pullback
