"""Softmax of rows, in few passes over memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from polynet_numpy import compiled, loops
from polynet_numpy.results import Call, empty, like, repeat


def softmax(xp: Any, x: Any, *, axis: int = -1) -> Any:
    """y = exp(x - max x) / Σ exp(x - max x) along the last axis; the gradient is (g - Σ g·y)·y."""
    if not x.ndim or not x.size or axis not in (-1, x.ndim - 1):
        return NotImplemented
    if x.dtype.char not in "fd" or not x.flags.c_contiguous:
        return NotImplemented
    rows = x.reshape(-1, x.shape[-1])
    y, total = like(rows), empty((len(rows), 1), x.dtype)
    repeat(_softmax, rows, total, y)

    def pullback(g: Any) -> Any:
        back = like(y)
        repeat(_of_softmax, g.reshape(y.shape), y, total, back)
        return back.reshape(g.shape)

    return y.reshape(x.shape), (pullback,)


def _softmax(x: np.ndarray, total: np.ndarray, y: np.ndarray) -> Call:
    def by_numpy() -> None:
        np.maximum.reduce(x, axis=1, keepdims=True, out=total)
        total[total == -np.inf] = 0
        np.subtract(x, total, out=y)
        np.exp(y, out=y)
        np.add.reduce(y, axis=1, keepdims=True, out=total)
        np.divide(y, total, out=y)

    shift, share = compiled.bound(loops.shift_rows, x, y), compiled.bound(loops.share_rows, y)
    if shift is None or share is None:
        return by_numpy

    def by_loops() -> None:
        if shift():
            np.exp(y, out=y)
            share()
        else:
            by_numpy()

    return by_loops


def _of_softmax(g: np.ndarray, y: np.ndarray, total: np.ndarray, out: np.ndarray) -> Call:
    def by_numpy() -> None:
        np.multiply(g, y, out=out)
        np.add.reduce(out, axis=1, keepdims=True, out=total)
        np.subtract(g, total, out=out)
        np.multiply(out, y, out=out)

    return compiled.bound(loops.of_softmax, g, y, out) or by_numpy


KERNELS: Mapping[str, Callable[..., Any]] = {"softmax": softmax}
