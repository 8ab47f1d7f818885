"""Reductions of the standard, each with its derivative."""

from __future__ import annotations

import math

from polynet.ops.complex_numbers import in_dtype
from polynet.tensor import op


def _axes(x, axis):
    """The axes reduced, as non-negative numbers."""
    if axis is None:
        return tuple(range(x.ndim))
    return tuple(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))


def _kept(x, axes):
    """The shape of `x` with the reduced axes kept as 1."""
    return tuple(1 if i in axes else n for i, n in enumerate(x.shape))


@op
def sum(xp, x, /, *, axis=None, dtype=None, keepdims=False):  # noqa: A001 (the standard's name)
    y = xp.sum(x, axis=axis, dtype=dtype, keepdims=keepdims)
    shape, kept, kind = x.shape, _kept(x, _axes(x, axis)), x.dtype

    def pullback(g):
        if dtype is not None:
            g = in_dtype(xp, g, kind)
        return xp.broadcast_to(xp.reshape(g, kept), shape)

    return y, (pullback,)


@op
def mean(xp, x, /, *, axis=None, keepdims=False):
    y = xp.mean(x, axis=axis, keepdims=keepdims)
    axes = _axes(x, axis)
    shape, kept, count = x.shape, _kept(x, axes), math.prod(x.shape[a] for a in axes)
    return y, (lambda g: xp.broadcast_to(xp.reshape(g / count, kept), shape),)


def _extremum(xp, x, y, axis):
    """The pullback of max and min: equal shares to all who attain the extremum."""
    axes = _axes(x, axis)
    kept = _kept(x, axes)

    def pullback(g):
        attained = xp.astype(x == xp.reshape(y, kept), x.dtype)
        return attained * (xp.reshape(g, kept) / xp.sum(attained, axis=axes, keepdims=True))

    return pullback


@op
def max(xp, x, /, *, axis=None, keepdims=False):  # noqa: A001 (the standard's name)
    y = xp.max(x, axis=axis, keepdims=keepdims)
    return y, (_extremum(xp, x, y, axis),)


@op
def min(xp, x, /, *, axis=None, keepdims=False):  # noqa: A001 (the standard's name)
    y = xp.min(x, axis=axis, keepdims=keepdims)
    return y, (_extremum(xp, x, y, axis),)
