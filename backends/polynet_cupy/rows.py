"""Activations, probabilities and losses: number by number, or row by row."""

from __future__ import annotations

import math
from typing import Any

from polynet_cupy.launch import (
    MOST_THREADS,
    PACK,
    THREADS,
    WARP,
    WIDE,
    by_pack,
    by_row,
    elementwise,
    real,
)

FEW = 32
"""The most numbers of a row that a single thread reads, one by one."""


def relu(xp: Any, x: Any) -> Any:
    """max(x, 0); the gradient is g where the result is not 0, else 0."""
    return _number_by_number(xp, "relu", x, of_result=True) if real(x) else NotImplemented


def gelu(xp: Any, x: Any, *, approximate: str = "none") -> Any:
    """x·Φ(x); its derivative is Φ(x) + x·φ(x)."""
    if not real(x) or approximate != "none":
        return NotImplemented
    return _number_by_number(xp, "gelu", x, of_result=False)


def _number_by_number(xp: Any, name: str, x: Any, *, of_result: bool) -> Any:
    """A function of one number; its derivative is a function of its result, or of its argument."""
    x = xp.contiguous(x)
    y = xp.empty(x.shape, dtype=x.dtype)
    by_pack(xp, f"{name}_forward", x.dtype, x.size, x, y, x.size)
    kept = y if of_result else x
    return y, (lambda g: _back(xp, name, g, kept),)


def _back(xp: Any, name: str, g: Any, kept: Any) -> Any:
    out = xp.empty(kept.shape, dtype=kept.dtype)
    by_pack(xp, f"{name}_backward", kept.dtype, kept.size, xp.contiguous(g), kept, out, kept.size)
    return out


def stopped(xp: Any, g: Any, y: Any) -> Any:
    """The gradient `g` behind a ReLU whose result was `y`: 0 where `y` is 0."""
    return _back(xp, "relu", g, y)


def dropout(xp: Any, x: Any, mask: Any, *, keep: float) -> Any:
    """x / keep where `mask` is true, else 0; the gradient is the same function of g."""
    if not real(x) or mask.dtype != xp.bool or mask.shape != x.shape:
        return NotImplemented
    mask = xp.contiguous(mask)

    def dropped(a: Any) -> Any:
        out = xp.empty(a.shape, dtype=a.dtype)
        given = (xp.contiguous(a), mask, out, a.size, float(keep))
        elementwise(xp, "dropout", a.dtype, a.size, *given)
        return out

    return dropped(x), (dropped, None)


def softmax(xp: Any, x: Any, *, axis: int = -1) -> Any:
    """y = softmax(x); the gradient is (g - Σ g·y)·y."""
    return _along(xp, "softmax", x, axis)


def log_softmax(xp: Any, x: Any, *, axis: int = -1) -> Any:
    """y = log softmax(x); the gradient is g - exp(y)·Σ g."""
    return _along(xp, "log_softmax", x, axis)


def _along(xp: Any, name: str, x: Any, axis: int) -> Any:
    if not isinstance(axis, int) or not -x.ndim <= axis < x.ndim or not x.size or not real(x):
        return NotImplemented
    axis %= x.ndim
    n, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])
    shape, dtype = x.shape, x.dtype  # so that the pullback does not keep x

    def run(which: str, *given: Any) -> Any:
        out = xp.empty(shape, dtype=dtype)
        by_row(xp, f"{name}_{which}", dtype, out.size // n, n, *given, out, n, inner)
        return out

    y = run("forward", xp.contiguous(x))
    return y, (lambda g: run("backward", xp.contiguous(g), y),)


def cross_entropy(xp: Any, logits: Any, targets: Any, *weights: Any, **options: Any) -> Any:
    """Mean of -log softmax(x)[class]; its gradient is (softmax(x) - one-hot) / batch."""
    if options or any(w is not None for w in weights):
        return NotImplemented
    wide = WIDE.get(targets.dtype.name)
    if wide is None or logits.ndim != 2 or targets.shape != logits.shape[:1]:
        return NotImplemented
    if not logits.size or not real(logits):
        return NotImplemented
    x, targets = xp.contiguous(logits), xp.contiguous(targets)
    rows, n = x.shape
    tops, logs = (xp.empty((rows,), dtype=x.dtype) for _ in range(2))
    value = xp.empty((), dtype=x.dtype)
    given = (x, targets, wide, tops, logs)
    if rows <= MOST_THREADS and n <= FEW:
        threads = -(-rows // WARP) * WARP
        xp.launch("cross_entropy_of_few", x.dtype, 1, threads, *given, value, rows, n)
    else:
        losses = xp.empty((rows,), dtype=x.dtype)
        by_row(xp, "cross_entropy_forward", x.dtype, rows, n, *given, losses, n)
        xp.launch("mean", x.dtype, 1, THREADS, losses, value, rows)

    def pullback(g: Any) -> Any:
        out = xp.empty(x.shape, dtype=x.dtype)
        each = PACK // x.itemsize
        each = 1 if n % each or any(xp.address(a) % PACK for a in (x, out)) else each
        how = (g, *given, out, rows, n, each)
        elementwise(xp, "cross_entropy_backward", x.dtype, x.size, *how, each=each)
        return out

    return value, (pullback, None, *weights)
