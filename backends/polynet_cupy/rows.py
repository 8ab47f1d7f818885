"""Activations, probabilities, losses and normalising: elementwise, or row by row."""

from __future__ import annotations

import math
from typing import Any

from polynet_cupy.launch import THREADS, by_row, column_sum, elementwise, real


def relu(xp: Any, x: Any) -> Any:
    """max(x, 0); where the result is 0, the gradient stops."""
    if not real(x):
        return NotImplemented
    x = xp.contiguous(x)
    y = xp.empty(x.shape, dtype=x.dtype)
    elementwise(xp, "relu_forward", x.dtype, x.size, x, y, x.size)

    def pullback(g: Any) -> Any:
        out = xp.empty(x.shape, dtype=x.dtype)
        elementwise(xp, "relu_backward", x.dtype, x.size, xp.contiguous(g), y, out, x.size)
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
