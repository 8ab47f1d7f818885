"""NumPy's kernels for the compositions in `polynet.functional` and `polynet.losses`.

A kernel makes the arrays for its results, and `run`s a function that writes into them, so that a
captured step can call it again. That function reads and writes nothing but its arguments.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from polynet import random
from polynet_numpy import (
    activation,
    compiled,
    convolution,
    loops,
    normalisation,
    optimizers,
    pooling,
    softmax,
)
from polynet_numpy.choice import choose
from polynet_numpy.functions import taken
from polynet_numpy.products import in_parts, products
from polynet_numpy.results import Call, empty, in_turn, like, repeat, run


def linear(xp: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    """y = x Wᵀ + b; the bias is added in place."""
    return _linear(x, weight, bias, relu=False)


def linear_relu(xp: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    """max(x Wᵀ + b, 0), computed in place; the gradient passes where the result is not 0."""
    return _linear(x, weight, bias, relu=True)


def _linear(x: Any, weight: Any, bias: Any, *, relu: bool) -> Any:
    given = (x, weight) if bias is None else (x, weight, bias)
    if x.ndim != 2 or weight.ndim != 2 or (bias is not None and bias.ndim != 1):
        return NotImplemented
    if x.dtype.char not in "fd" or any(a.dtype != x.dtype for a in given):
        return NotImplemented
    y = of_samples(x, weight.T)
    if bias is not None:
        repeat(_add_bias_relu if relu else _add_bias, y, bias)
    elif relu:
        run(np.maximum, y, x.dtype.type(0), out=y)

    def pullback(g: Any, needs: tuple[bool, ...]) -> Any:
        g = _stopped(y, g) if relu else g
        ways = (lambda: product(g, weight), lambda: product(g.T, x), lambda: sum_of_rows(g))
        return [way() if need else None for way, need in zip(ways, needs, strict=False)]

    return y, pullback


def of_samples(x: Any, weight: Any) -> Any:
    """The product of samples and weights, in parts for a small batch."""
    if not in_parts(x.shape[0], weight.size):
        return product(x, weight)
    y = empty((x.shape[0], weight.shape[1]), x.dtype)
    repeat(_of_samples, x, weight, y, by_loops=False)
    return y


def _of_samples(x: np.ndarray, weight: np.ndarray, y: np.ndarray) -> Call:
    return in_turn(list(products(x[None], weight[None], y[None])))


def product(a: Any, b: Any) -> Any:
    """The product of two matrices."""
    y = empty((a.shape[0], b.shape[1]), a.dtype)
    run(np.dot, a, b, out=y)
    return y


def sum_of_rows(x: Any) -> Any:
    """The sum of the rows of a matrix, by a matrix product, which is faster than `np.sum`."""
    y = empty(x.shape[1:], x.dtype)
    run(np.dot, np.ones(x.shape[0], x.dtype), x, out=y)
    return y


def relu(xp: Any, x: Any) -> Any:
    """max(x, 0); where the result is not 0, the gradient passes."""
    if x.dtype.char not in "fd":
        return NotImplemented
    y = like(x)
    repeat(_relu, x, y)
    return y, (lambda g: _stopped(y, g),)


def _stopped(y: Any, g: Any) -> Any:
    """`g` where the result `y` of a relu is not 0, else 0."""
    mask, back = like(y, bool), like(y, g.dtype)
    repeat(_where_not_0, y, g, mask, back)
    return back


def _add_bias(y: np.ndarray, bias: np.ndarray) -> Call:
    return compiled.bound(loops.add_bias, y, bias) or partial(np.add, y, bias, out=y)


def _add_bias_relu(y: np.ndarray, bias: np.ndarray) -> Call:
    def by_numpy() -> None:
        np.add(y, bias, out=y)
        np.maximum(y, y.dtype.type(0), out=y)

    return compiled.bound(loops.add_bias_relu, y, bias) or by_numpy


def _relu(x: np.ndarray, y: np.ndarray) -> Call:
    """There is no loop for this; by `repeat`, its elements count towards the start of Numba."""
    return partial(np.maximum, x, x.dtype.type(0), out=y)


def _where_not_0(y: np.ndarray, g: np.ndarray, mask: np.ndarray, out: np.ndarray) -> Call:
    def by_numpy() -> None:
        np.not_equal(y, 0, out=mask)
        choose(mask, g, 0, out)

    return compiled.split(loops.where_not_0, (y, g, out)) or by_numpy


def cross_entropy(xp: Any, logits: Any, targets: Any, *weights: Any, **options: Any) -> Any:
    """Mean of log Σ exp(x) - x[class]; its gradient is (softmax(x) - one-hot) / batch."""
    if options or any(w is not None for w in weights):
        return NotImplemented
    labels = targets.dtype.kind in "iu" and targets.shape == logits.shape[:1]
    if not labels or logits.dtype.kind != "f" or logits.ndim != 2 or logits.shape[0] == 0:
        return NotImplemented
    value, shape, dtype = empty((), logits.dtype), logits.shape, logits.dtype
    e = empty(logits.shape, logits.dtype)
    total, logs = (empty((logits.shape[0], 1), logits.dtype) for _ in range(2))
    repeat(_cross_entropy, logits, targets, e, total, logs, value)

    def pullback(g: Any) -> Any:
        back = empty(shape, dtype)
        repeat(_of_cross_entropy, e, total, targets, g, back)
        return back

    return value, (pullback, None, *weights)


FEW_CLASSES = 100
"""The number of classes up to which loops are faster than NumPy's functions on whole rows."""


def _cross_entropy(
    logits: np.ndarray,
    targets: np.ndarray,
    e: np.ndarray,
    total: np.ndarray,
    logs: np.ndarray,
    value: np.ndarray,
) -> Call:
    """The loss into `value`; exp(x - max x) into `e`, and its sum for each sample into `total`."""
    count, classes = logits.shape

    truth, rows = np.empty(count, logits.dtype), np.arange(count)

    def by_numpy() -> None:
        if np.minimum.reduce(targets) < 0 or np.maximum.reduce(targets) >= classes:
            raise ValueError(
                f"cross_entropy: labels from {targets.min()} to {targets.max()} for {classes} "
                f"classes; expected 0 to {classes - 1}"
            )
        np.maximum.reduce(logits, axis=1, keepdims=True, out=total)
        np.subtract(logits, total, out=e)
        truth[:] = e[rows, targets]
        np.exp(e, out=e)
        np.add.reduce(e, axis=1, keepdims=True, out=total)
        np.log(total, out=logs)
        np.subtract(logs[:, 0], truth, out=truth)
        np.divide(np.add.reduce(truth), logits.dtype.type(count), out=value)

    shift = compiled.bound(loops.shift, logits, targets, e, truth)
    add_up = compiled.bound(loops.sum_columns, e, total)
    mean = compiled.bound(loops.mean_of_difference, logs, truth, value)
    if shift is None or add_up is None or mean is None or classes > FEW_CLASSES:
        return by_numpy

    def by_loops() -> None:
        if not shift():
            by_numpy()
            return
        np.exp(e, out=e)
        add_up()
        np.log(total, out=logs)
        mean()

    return by_loops


def _of_cross_entropy(
    e: np.ndarray, total: np.ndarray, targets: np.ndarray, g: np.ndarray, out: np.ndarray
) -> Call:
    count, rows = out.dtype.type(out.shape[0]), np.arange(out.shape[0])

    def by_numpy() -> None:
        np.divide(e, total, out=out)
        out[rows, targets] -= 1
        np.multiply(out, g / count, out=out)

    return compiled.bound(loops.of_cross_entropy, e, total, targets, np.asarray(g), out) or by_numpy


def put_slice(xp: Any, x: Any, places: tuple[range, ...], shape: tuple[int, ...]) -> Any:
    """Zeros of `shape`, with `x` put into its places."""
    part = tuple(slice(r.start, r.stop, r.step) for r in places)
    y = empty(shape, x.dtype)
    run(_put, x, part, y)
    return y, (lambda g: g[part],)


def _put(x: np.ndarray, part: tuple[slice, ...], out: np.ndarray) -> None:
    out.fill(0)
    out[part] = x


def segment_sum(xp: Any, x: Any, segments: Any, count: int) -> Any:
    """The sum of the rows of each segment; rows are sorted first, so that these are adjacent."""
    y, shape, dtype = empty((count, *x.shape[1:]), x.dtype), x.shape, x.dtype
    repeat(_segment_sum, x, segments, y)

    def pullback(g: Any) -> Any:
        back = empty(shape, dtype)
        repeat(taken, g, segments, 0, back)
        return back

    return y, (pullback, None)


def _segment_sum(x: np.ndarray, segments: np.ndarray, out: np.ndarray) -> Call:
    def by_numpy() -> None:
        if x.ndim == 1 and x.dtype.kind == "f":  # bincount adds real numbers only
            out[...] = np.bincount(segments, weights=x, minlength=len(out))
            return
        out.fill(0)
        if x.shape[0]:
            order = np.argsort(segments, kind="stable")
            found = segments[order]
            starts = np.flatnonzero(np.concatenate([[True], found[1:] != found[:-1]]))
            out[found[starts]] = np.add.reduceat(x[order], starts, axis=0)

    if x.ndim < 2 or x.dtype.char not in "fd" or not (x.flags.c_contiguous and compiled.wanted()):
        return by_numpy
    width = math.prod(x.shape[1:])
    order, ends = np.empty(len(x), np.int64), np.empty(len(out), np.int64)
    work = order, ends, np.empty(len(x), x.dtype)
    flat = x.reshape(len(x), width), segments, *work, out.reshape(len(out), width)
    loop = compiled.bound(loops.segment_sum, *flat)
    return compiled.either(loop, by_numpy)


PIECE = 16384
"""The number of counters in a piece, whose words stay in the cache."""


def keep_mask(
    xp: Any, key: Any, step: Any, *, shape: tuple[int, ...], keep: float, first: int = 0
) -> Any:
    """Threefry in place, in pieces; two 32-bit words in memory are the bits of four elements."""
    largest = round(keep * 65536) - 1  # the largest half for which an element is kept
    if sys.byteorder != "little" or largest < 0:
        return NotImplemented
    mask = empty(shape, np.dtype(bool))
    run(_keep_mask, key, step, first, largest, mask)
    return mask, None


def _keep_mask(
    key: np.ndarray, step: np.ndarray, first: int, largest: int, out: np.ndarray
) -> None:
    rows, size = out.shape[0], math.prod(out.shape[1:])
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
    np.less_equal(halves.reshape(out.shape), np.uint16(largest), out=out)


KERNELS: Mapping[str, Callable[..., Any]] = {
    **activation.KERNELS,
    **convolution.KERNELS,
    **normalisation.KERNELS,
    **optimizers.KERNELS,
    **pooling.KERNELS,
    **softmax.KERNELS,
    "cross_entropy": cross_entropy,
    "keep_mask": keep_mask,
    "linear": linear,
    "linear_relu": linear_relu,
    "put_slice": put_slice,
    "relu": relu,
    "segment_sum": segment_sum,
}
