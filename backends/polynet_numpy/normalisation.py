"""Normalisation, in few passes over memory.

What is normalised together is a row of a matrix: the features of a sample, or a channel of all
samples in the CHWN layout of `windows.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from polynet_numpy import compiled, loops
from polynet_numpy.results import Call, empty, in_turn, like, repeat, run
from polynet_numpy.windows import as_chwn, as_nchw


def layer_norm(
    xp: Any, x: Any, weight: Any = None, bias: Any = None, *, axes: int, eps: float
) -> Any:
    """Layer normalisation: rows are samples, and each column has its weight and its bias.

    With G = g·weight, the gradient is r·(G - mean(G) - y·mean(G·y)).
    """
    given = (x, weight, bias)
    if axes != 1 or weight is None or bias is None or not _fit(*given) or x.ndim < 2:
        return NotImplemented
    whole, n = x.shape, x.shape[-1]
    rows = x.reshape(-1, n)
    out, y, (mean, variance, r) = like(rows), like(rows), _numbers(rows, 3)
    repeat(_standardise, rows, weight, bias, eps, mean, variance, r, y, out)

    def pullback(g: Any, needs: tuple[bool, ...]) -> Any:
        g = g.reshape(-1, n)
        work, back, (level, slope) = like(g), like(g), _numbers(g, 2)
        ones, gradients = np.ones(len(g), g.dtype), [None] * 3
        run(np.multiply, g, y, out=work)
        for i, terms in ((1, work), (2, g)):
            if needs[i]:
                gradients[i] = empty((n,), g.dtype)
                run(np.dot, ones, terms, out=gradients[i])
        if needs[0]:
            repeat(_of_rows, g, y, r, weight, level, slope, work, back)
            gradients[0] = back.reshape(whole)
        return gradients

    return out.reshape(whole), pullback


def batch_norm(xp: Any, x: Any, weight: Any = None, bias: Any = None, *, eps: float) -> Any:
    """Batch normalisation: rows are channels, each with its weight and its bias.

    The gradient is g·s + (g₁ - s·Σg)/n + y·(2·g₂/r - s·Σ(g·y))/n, where s = r·weight, g₁ and g₂
    are the gradients of the mean and the variance, and n is the length of a row.
    """
    if weight is None or bias is None or not _fit(x, weight, bias) or x.ndim < 4:
        return NotImplemented
    chwn = as_chwn(x)
    whole, rows = chwn.shape, chwn.reshape(len(chwn), -1)
    out, y, (mean, variance, r) = like(rows), like(rows), _numbers(rows, 3)
    columns = weight[:, None], bias[:, None]
    repeat(_standardise, rows, *columns, eps, mean, variance, r, y, out)

    def pullback(gradients: tuple[Any, Any, Any], needs: tuple[bool, ...]) -> Any:
        g = as_chwn(gradients[0]).reshape(whole[0], -1)
        work, back, (total, slope) = like(g), like(g), _numbers(g, 2)
        others = (a[:, None] for a in gradients[1:])
        repeat(_of_columns, g, y, r, columns[0], *others, total, slope, work, back)
        images = as_nchw(back.reshape(whole))
        return images, slope.reshape(-1), total.reshape(-1)

    return (as_nchw(out.reshape(whole)), mean.reshape(-1), variance.reshape(-1)), pullback


def _fit(x: Any, *others: Any) -> bool:
    return x.size and x.dtype.char in "fd" and all(a.dtype == x.dtype for a in others)


def _numbers(rows: Any, count: int) -> list[Any]:
    """Memory for `count` columns of one number for each row."""
    return [empty((rows.shape[0], 1), rows.dtype) for _ in range(count)]


def _mean(x: np.ndarray, out: np.ndarray) -> None:
    np.add.reduce(x, axis=1, keepdims=True, out=out)
    np.divide(out, x.dtype.type(x.shape[1]), out=out)


def _standardise(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    eps: float,
    mean: np.ndarray,
    variance: np.ndarray,
    r: np.ndarray,
    y: np.ndarray,
    out: np.ndarray,
) -> Call:
    """y = (x - mean)·r, and y·weight + bias; r = 1 / √(variance + eps)."""
    small = x.dtype.type(eps)

    def by_numpy() -> None:
        _mean(x, mean)
        np.subtract(x, mean, out=y)
        np.multiply(y, y, out=out)
        _mean(out, variance)
        np.add(variance, small, out=r)
        np.sqrt(r, out=r)
        np.divide(1, r, out=r)
        np.multiply(y, r, out=y)
        np.multiply(y, weight, out=out)
        np.add(out, bias, out=out)

    standardise = compiled.bound(loops.standardise, x, small, mean, variance, r, y, out)
    scale = compiled.bound(
        loops.scale_columns if weight.ndim == 1 else loops.scale_rows, y, weight, bias, out
    )
    return by_numpy if standardise is None or scale is None else in_turn([standardise, scale])


def _of_rows(
    g: np.ndarray,
    y: np.ndarray,
    r: np.ndarray,
    weight: np.ndarray,
    level: np.ndarray,
    slope: np.ndarray,
    work: np.ndarray,
    out: np.ndarray,
) -> Call:
    def by_numpy() -> None:
        np.multiply(g, weight, out=out)
        _mean(out, level)
        np.multiply(out, y, out=work)
        _mean(work, slope)
        np.subtract(out, level, out=out)
        np.multiply(y, slope, out=work)
        np.subtract(out, work, out=out)
        np.multiply(out, r, out=out)

    found = compiled.bound(loops.of_standardised_rows, g, y, r, weight, work, out)
    return found or by_numpy


def _of_columns(
    g: np.ndarray,
    y: np.ndarray,
    r: np.ndarray,
    weight: np.ndarray,
    to_mean: np.ndarray,
    to_variance: np.ndarray,
    total: np.ndarray,
    slope: np.ndarray,
    work: np.ndarray,
    out: np.ndarray,
) -> Call:
    n = g.dtype.type(g.shape[1])

    def by_numpy() -> None:
        np.add.reduce(g, axis=1, keepdims=True, out=total)
        np.multiply(g, y, out=work)
        np.add.reduce(work, axis=1, keepdims=True, out=slope)
        scale = r * weight
        np.multiply(g, scale, out=out)
        np.add(out, (to_mean - scale * total) / n, out=out)
        np.multiply(y, (2 * to_variance / r - scale * slope) / n, out=work)
        np.add(out, work, out=out)

    args = g, y, r, weight, to_mean, to_variance, total, slope, work, out
    return compiled.bound(loops.of_standardised_columns, *args) or by_numpy


KERNELS: Mapping[str, Callable[..., Any]] = {"batch_norm": batch_norm, "layer_norm": layer_norm}
