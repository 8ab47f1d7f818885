"""NumPy's own way to do what the definitions in `polynet.functional` and `polynet.losses` say.

A kernel writes only to arrays it made during this very call, and before returning them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from polynet import random
from polynet_numpy import optimizers, windows
from polynet_numpy.memory import SMALLEST, empty


def linear(xp: Any, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> Any:
    """y = x Wᵀ + b, with the bias added in place."""
    given = (x, weight) if bias is None else (x, weight, bias)
    if x.ndim != 2 or weight.ndim != 2 or (bias is not None and bias.ndim != 1):
        return NotImplemented
    if x.dtype.char not in "fd" or any(a.dtype != x.dtype for a in given):
        return NotImplemented
    y = product(x, weight.T)
    if bias is not None:
        y += bias
    pullbacks = (lambda g: product(g, weight), lambda g: product(g.T, x), lambda g: g.sum(axis=0))
    return y, pullbacks[: len(given)]


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product of two matrices."""
    shape = a.shape[0], b.shape[1]
    if shape[0] * shape[1] * a.itemsize < SMALLEST:
        return a.dot(b)
    return np.dot(a, b, out=empty(shape, a.dtype))


def relu(xp: Any, x: np.ndarray) -> Any:
    """max(x, 0); where the result is not 0, the gradient passes."""
    if x.dtype.char not in "fd":
        return NotImplemented
    y = np.maximum(x, 0)
    return y, (lambda g: windows.kept(y != 0, g),)


def cross_entropy(
    xp: Any, logits: np.ndarray, targets: np.ndarray, *weights: Any, **options: Any
) -> Any:
    """Mean of log Σ exp(x) - x[class]; its gradient is (softmax(x) - one-hot) / batch."""
    if options or any(w is not None for w in weights):
        return NotImplemented
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

    return value, (pullback, None, *weights)


def put_slice(xp: Any, x: np.ndarray, places: tuple[range, ...], shape: tuple[int, ...]) -> Any:
    """Zeros of `shape`, with `x` put into its places."""
    part = tuple(slice(r.start, r.stop, r.step) for r in places)
    y = np.zeros(shape, dtype=x.dtype)
    y[part] = x
    return y, (lambda g: g[part],)


def segment_sum(xp: Any, x: np.ndarray, segments: np.ndarray, count: int) -> Any:
    """Rows summed by segment: sorted, so that each sum is of neighbours."""
    if x.ndim == 1 and x.dtype.kind == "f":  # bincount adds real numbers only
        total = np.bincount(segments, weights=x, minlength=count).astype(x.dtype, copy=False)
        return total, (lambda g: g[segments], None)
    y = np.zeros((count, *x.shape[1:]), dtype=x.dtype)
    if x.shape[0]:
        order = np.argsort(segments, kind="stable")
        found = segments[order]
        starts = np.flatnonzero(np.concatenate([[True], found[1:] != found[:-1]]))
        y[found[starts]] = np.add.reduceat(x[order], starts, axis=0)
    return y, (lambda g: g[segments], None)


PIECE = 16384
"""Counters at a time, so that their words stay in the cache."""


def keep_mask(
    xp: Any,
    key: np.ndarray,
    step: np.ndarray,
    *,
    shape: tuple[int, ...],
    keep: float,
    first: int = 0,
) -> Any:
    """Threefry in place, in pieces; each pair of words is four halves as it lies in memory."""
    largest = round(keep * 65536) - 1  # of the halves that keep
    if sys.byteorder != "little" or largest < 0:
        return NotImplemented
    rows, size = shape[0], math.prod(shape[1:])
    blocks = -(-size // random.HALVES_PER_BLOCK)
    k0, k1 = key.view(np.uint32)
    keys = (k0, k1, k0 ^ k1 ^ np.uint32(random.PARITY))
    words = np.empty((rows * blocks, 2), dtype=np.uint32)
    moved = np.empty(PIECE, dtype=np.uint32)
    with np.errstate(over="ignore"):
        second = step.view(np.uint32)[0] + k1
        for start in range(0, rows * blocks, PIECE):
            piece = words[start : start + PIECE]
            counters = np.arange(first * blocks + start, first * blocks + start + len(piece))
            x0 = counters.astype(np.uint32)
            x0 += k0
            x1 = np.full(len(piece), second)
            t = moved[: len(piece)]
            for turn in range(5):
                for r in random.ROTATIONS[turn % 2]:
                    x0 += x1
                    np.left_shift(x1, r, out=t)
                    x1 >>= 32 - r
                    x1 |= t
                    x1 ^= x0
                x0 += keys[(turn + 1) % 3]
                x1 += keys[(turn + 2) % 3] + np.uint32(turn + 1)
            piece[:, 0] = x0
            piece[:, 1] = x1
    halves = words.view(np.uint16).reshape(rows, blocks * random.HALVES_PER_BLOCK)[:, :size]
    return (halves <= np.uint16(largest)).reshape(shape), None


KERNELS: Mapping[str, Callable[..., Any]] = {
    **optimizers.KERNELS,
    "cross_entropy": cross_entropy,
    "keep_mask": keep_mask,
    "linear": linear,
    "put_slice": put_slice,
    "relu": relu,
    "segment_sum": segment_sum,
    **windows.KERNELS,
}
