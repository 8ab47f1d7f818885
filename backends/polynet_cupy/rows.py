"""Activations, probabilities and losses: elementwise, or row by row."""

from __future__ import annotations

import math
from typing import Any

from polynet_cupy.launch import THREADS, by_pack, by_row, elementwise, real


def relu(xp: Any, x: Any) -> Any:
    """max(x, 0); where the result is 0, the gradient stops."""
    return _number_by_number(xp, "relu", x, of_result=True) if real(x) else NotImplemented


def gelu(xp: Any, x: Any, *, approximate: str = "none") -> Any:
    """x·Φ(x); its derivative is Φ(x) + x·φ(x)."""
    if not real(x) or approximate != "none":
        return NotImplemented
    return _number_by_number(xp, "gelu", x, of_result=False)


def _number_by_number(xp: Any, name: str, x: Any, *, of_result: bool) -> Any:
    """A function of one number, whose derivative is one of its result, or of what it was given."""
    x = xp.contiguous(x)
    y = xp.empty(x.shape, dtype=x.dtype)
    by_pack(xp, f"{name}_forward", x.dtype, x.size, x, y, x.size)
    kept = y if of_result else x

    def pullback(g: Any) -> Any:
        out = xp.empty(x.shape, dtype=x.dtype)
        by_pack(xp, f"{name}_backward", x.dtype, x.size, xp.contiguous(g), kept, out, x.size)
        return out

    return y, (pullback,)


def dropout(xp: Any, x: Any, mask: Any, *, keep: float) -> Any:
    """x / keep where `mask` is true, else 0; what goes back is the same of g."""
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
    if not isinstance(axis, int) or not x.ndim or not x.size or not real(x):
        return NotImplemented
    axis %= x.ndim
    n, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])

    def run(which: str, *given: Any) -> Any:
        out = xp.empty(x.shape, dtype=x.dtype)
        by_row(xp, f"{name}_{which}", x.dtype, x.size // n, n, *given, out, n, inner)
        return out

    y = run("forward", xp.contiguous(x))
    return y, (lambda g: run("backward", xp.contiguous(g), y),)


def cross_entropy(xp: Any, logits: Any, targets: Any, *weights: Any, **options: Any) -> Any:
    """Mean of -log softmax(x)[class]; its gradient is (softmax(x) - one-hot) / batch."""
    if options or any(w is not None for w in weights):
        return NotImplemented
    wide = targets.dtype.name == "int64"
    labels = (wide or targets.dtype.name == "int32") and targets.shape == logits.shape[:1]
    if not labels or logits.ndim != 2 or not logits.size or not real(logits):
        return NotImplemented
    x, targets = xp.contiguous(logits), xp.contiguous(targets)
    rows, n = x.shape
    tops, logs, losses = (xp.empty((rows,), dtype=x.dtype) for _ in range(3))
    given = (x, targets, int(wide), tops, logs)
    by_row(xp, "cross_entropy_forward", x.dtype, rows, n, *given, losses, n)
    value = xp.empty((), dtype=x.dtype)
    xp.launch("mean", x.dtype, 1, THREADS, losses, value, rows)

    def pullback(g: Any) -> Any:
        out = xp.empty(x.shape, dtype=x.dtype)
        elementwise(xp, "cross_entropy_backward", x.dtype, x.size, g, *given, out, rows, n)
        return out

    return value, (pullback, None, *weights)
