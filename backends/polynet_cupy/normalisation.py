"""Normalisation: row by row, over the last axes; or channel by channel."""

from __future__ import annotations

import math
from typing import Any

from polynet_cupy.launch import THREADS, by_row, column_sum, elementwise, real

MOST = 2**31 - 1 - 16 * THREADS
"""The most numbers of a channel: kernels count them in 32 bits, up to 16 per thread too far."""
CHUNK = 4096
"""Numbers of a channel that one block takes; more if that would make over `PARTS` blocks."""
PARTS = 1024
"""The most blocks for one channel."""


def _parts(n: int) -> tuple[int, int]:
    """How many parts the n numbers of a channel are cut into, and how many numbers a part has."""
    chunk = max(CHUNK, -(-n // PARTS))
    return -(-n // chunk), chunk


def channel_sum(xp: Any, x: Any) -> Any:
    """The sum over all axes but the second one, which is the axis of channels."""
    samples, channels, size = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    if samples * size > MOST:
        return xp.sum(xp.reshape(x, (samples, channels, size)), axis=(0, 2))
    parts, chunk = _parts(samples * size)
    sums = xp.empty((parts, channels), dtype=x.dtype)
    given = (xp.contiguous(x), sums, samples, channels, size, chunk)
    xp.launch("channel_sums", x.dtype, parts * channels, THREADS, *given)
    return column_sum(xp, sums) if parts > 1 else sums[0, :]


def layer_norm(
    xp: Any, x: Any, weight: Any = None, bias: Any = None, *, axes: int, eps: float
) -> Any:
    """Normalisation row by row; the three gradients use the mean and scale kept for each row."""
    if axes > x.ndim or not x.size or not real(x, weight, bias):
        return NotImplemented
    shape = x.shape[x.ndim - axes :]
    if any(a is not None and a.shape != shape for a in (weight, bias)):
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
    """Normalisation channel by channel; returns the mean and variance of each channel as well."""
    if x.ndim < 2 or not x.size or not real(x, weight, bias):
        return NotImplemented
    samples, channels, size = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    if samples * size > MOST or any(
        a is not None and a.shape != (channels,) for a in (weight, bias)
    ):
        return NotImplemented
    x, weight, bias = (None if a is None else xp.contiguous(a) for a in (x, weight, bias))
    parts, chunk = _parts(samples * size)
    how = (samples, channels, size, chunk)

    def empty(*shape: int) -> list[Any]:
        return [xp.empty(shape, dtype=x.dtype) for _ in range(2)]

    def by_part(kernel: str, *given: Any) -> None:
        xp.launch(kernel, x.dtype, parts * channels, THREADS, *given)

    def pullback(gradients: Any, needs: tuple[bool, ...]) -> Any:
        g, *to_kept = map(xp.contiguous, gradients)
        of_parts = empty(parts, channels)
        by_part("batch_norm_sums", g, x, *kept, *of_parts, *how, float(eps))
        if needs[0]:
            out, sums = xp.empty(x.shape, dtype=x.dtype), empty(channels)
            given = (g, x, weight, *kept, *of_parts, *to_kept, out, *sums)
            by_part("batch_norm_backward", *given, *how, float(eps))
        else:
            out, sums = None, [column_sum(xp, a) for a in of_parts]
        found = [out, *sums[::-1]][: len(needs)]
        return tuple(a if needed else None for a, needed in zip(found, needs, strict=True))

    of_parts, kept, y = empty(parts, channels), empty(channels), xp.empty(x.shape, dtype=x.dtype)
    by_part("batch_norm_parts", x, *of_parts, *how)
    by_part("batch_norm_forward", x, weight, bias, *of_parts, y, *kept, *how, float(eps))
    return (y, *kept), pullback
