"""NumPy's own way to do what the definitions in `polynet.functional` and `polynet.losses` say.

A kernel writes only to arrays it made during this very call, and before returning them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def linear(xp: Any, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> Any:
    """y = x Wᵀ + b, with the bias added in place."""
    if x.ndim != 2 or weight.ndim != 2:
        return NotImplemented
    y = x @ weight.T
    if bias is None:
        return y, (lambda g: g @ weight, lambda g: g.T @ x)
    if bias.ndim != 1 or bias.dtype != y.dtype:
        return NotImplemented
    y += bias
    return y, (lambda g: g @ weight, lambda g: g.T @ x, lambda g: g.sum(axis=0))


def relu(xp: Any, x: np.ndarray) -> Any:
    """max(x, 0); where the result is not 0, the gradient passes."""
    y = np.maximum(x, 0)
    return y, (lambda g: np.where(y != 0, g, g.dtype.type(0)),)


def cross_entropy(xp: Any, logits: np.ndarray, targets: np.ndarray) -> Any:
    """Mean of log Σ exp(x) - x[class]; its gradient is (softmax(x) - one-hot) / batch."""
    labels = targets.dtype.kind in "iu" and targets.shape == logits.shape[:1]
    if not labels or logits.ndim != 2 or logits.shape[0] == 0:
        return NotImplemented
    count, classes = logits.shape
    if targets.min() < 0 or targets.max() >= classes:
        raise ValueError(
            f"cross_entropy: labels from {targets.min()} to {targets.max()} for {classes} classes; "
            f"expected 0 to {classes - 1}"
        )
    rows = np.arange(count)
    shifted = logits - logits.max(axis=1, keepdims=True)
    truth = shifted[rows, targets]
    e = np.exp(shifted, out=shifted)
    total = e.sum(axis=1, keepdims=True)
    value = (np.log(total[:, 0]) - truth).sum() / logits.dtype.type(count)

    def pullback(g: np.ndarray) -> np.ndarray:
        out = e / total
        out[rows, targets] -= 1
        out *= g / logits.dtype.type(count)
        return out

    return value, (pullback, None)


def put_slice(xp: Any, x: np.ndarray, places: tuple[range, ...], shape: tuple[int, ...]) -> Any:
    """Zeros of `shape`, with `x` put into its places."""
    part = tuple(slice(r.start, r.stop, r.step) for r in places)
    y = np.zeros(shape, dtype=x.dtype)
    y[part] = x
    return y, (lambda g: g[part],)


def segment_sum(xp: Any, x: np.ndarray, segments: np.ndarray, count: int) -> Any:
    """Rows summed by segment: sorted, so that each sum is of neighbours."""
    if x.ndim == 1:
        total = np.bincount(segments, weights=x, minlength=count).astype(x.dtype, copy=False)
        return total, (lambda g: g[segments], None)
    y = np.zeros((count, *x.shape[1:]), dtype=x.dtype)
    if x.shape[0]:
        order = np.argsort(segments, kind="stable")
        found = segments[order]
        starts = np.flatnonzero(np.concatenate([[True], found[1:] != found[:-1]]))
        y[found[starts]] = np.add.reduceat(x[order], starts, axis=0)
    return y, (lambda g: g[segments], None)


KERNELS: Mapping[str, Callable[..., Any]] = {
    "cross_entropy": cross_entropy,
    "linear": linear,
    "put_slice": put_slice,
    "relu": relu,
    "segment_sum": segment_sum,
}
