"""Reductions and running sums and products of the standard, each with its derivative."""

from __future__ import annotations

import math

from polynet.ops.complex_numbers import in_dtype, real_only
from polynet.ops.indexing import inverse, part, place_of
from polynet.tensor import op


def axes_of(x, axis):
    """The axes reduced, as non-negative numbers."""
    if axis is None:
        return tuple(range(x.ndim))
    return tuple(place_of(a, x.ndim) for a in (axis if isinstance(axis, tuple) else (axis,)))


def kept_by(x, axes):
    """The shape of `x` with the reduced axes kept as 1."""
    return tuple(1 if i in axes else n for i, n in enumerate(x.shape))


def _cast_back(xp, x, dtype, pullback):
    """`pullback` of an op that computes in `dtype`, cast to the dtype of `x`; None for integers."""
    if dtype is None:
        return (pullback,)
    if not xp.isdtype(dtype, ("real floating", "complex floating")):
        return None
    before = x.dtype
    return (lambda g: in_dtype(xp, pullback(g), before),)


@op
def sum(xp, x, /, *, axis=None, dtype=None, keepdims=False):  # noqa: A001 (the standard's name)
    y = xp.sum(x, axis=axis, dtype=dtype, keepdims=keepdims)
    shape, kept = x.shape, kept_by(x, axes_of(x, axis))
    return y, _cast_back(xp, x, dtype, lambda g: xp.broadcast_to(xp.reshape(g, kept), shape))


@op
def prod(xp, x, /, *, axis=None, dtype=None, keepdims=False):
    """The gradient of each factor is the product of all others, also where some are 0."""
    y = xp.prod(x, axis=axis, dtype=dtype, keepdims=keepdims)
    axes = axes_of(x, axis)
    order = (*(a for a in range(x.ndim) if a not in axes), *axes)
    back = inverse(order)
    rest = len(order) - len(axes)

    def pullback(g):
        turned = xp.permute_dims(x if dtype is None else xp.astype(x, dtype), order)
        outer, inner = turned.shape[:rest], turned.shape[rest:]
        rows = xp.reshape(turned, (*outer, math.prod(inner)))
        after = xp.flip(_exclusive_products(xp, xp.flip(rows, axis=-1), rest), axis=-1)
        others = _exclusive_products(xp, rows, rest) * after
        out = xp.reshape(g, (*outer, 1)) * others
        return xp.permute_dims(xp.reshape(out, (*outer, *inner)), back)

    return y, _cast_back(xp, x, dtype, pullback)


def _exclusive_products(xp, x, axis):
    """For each element, the product of all elements before it along `axis`."""
    return part(xp.cumulative_prod(x, axis=axis, include_initial=True), axis, 0, x.shape[axis])


@op
def mean(xp, x, /, *, axis=None, keepdims=False):
    y = xp.mean(x, axis=axis, keepdims=keepdims)
    axes = axes_of(x, axis)
    shape, kept, count = x.shape, kept_by(x, axes), math.prod(x.shape[a] for a in axes)
    return y, (lambda g: xp.broadcast_to(xp.reshape(g / count, kept), shape),)


@op
def var(xp, x, /, *, axis=None, correction=0.0, keepdims=False):
    y = xp.var(x, axis=axis, correction=correction, keepdims=keepdims)
    axes = axes_of(x, axis)
    kept, freedom = kept_by(x, axes), _freedom(x, axes, correction)

    def pullback(g):
        real_only(xp, "var", x)
        centred = x - xp.mean(x, axis=axes, keepdims=True)
        return xp.reshape(g, kept) * (centred * (2 / freedom))

    return y, (pullback,)


@op
def std(xp, x, /, *, axis=None, correction=0.0, keepdims=False):
    y = xp.std(x, axis=axis, correction=correction, keepdims=keepdims)
    axes = axes_of(x, axis)
    kept, freedom = kept_by(x, axes), _freedom(x, axes, correction)

    def pullback(g):  # 0 at the tip of the cone, where all are equal
        real_only(xp, "std", x)
        centred = x - xp.mean(x, axis=axes, keepdims=True)
        deviation = xp.reshape(xp.where(y == 0, math.inf, y), kept)
        return xp.reshape(g, kept) * (centred / (deviation * freedom))

    return y, (pullback,)


def _freedom(x, axes, correction):
    """The number that the sum of squares is divided by; NaN where it would not be above 0."""
    left = math.prod(x.shape[a] for a in axes) - correction
    return left if left > 0 else math.nan


def _extremum(xp, x, y, axis):
    """The pullback of max and min: equal shares to all elements that attain the extremum."""
    axes = axes_of(x, axis)
    kept = kept_by(x, axes)

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


@op
def cumulative_sum(xp, x, /, *, axis=None, dtype=None, include_initial=False):
    y = xp.cumulative_sum(x, axis=axis, dtype=dtype, include_initial=include_initial)
    place, count = _running_axis(x, axis)

    def pullback(g):
        g = part(g, place, 1, count + 1) if include_initial else g
        return xp.flip(xp.cumulative_sum(xp.flip(g, axis=place), axis=place), axis=place)

    return y, _cast_back(xp, x, dtype, pullback)


@op
def cumulative_prod(xp, x, /, *, axis=None, dtype=None, include_initial=False):
    """The gradient divides by nothing, so that it is right where factors are 0."""
    y = xp.cumulative_prod(x, axis=axis, dtype=dtype, include_initial=include_initial)
    place, count = _running_axis(x, axis)

    def pullback(g):
        g = part(g, place, 1, count + 1) if include_initial else g
        wide = x if dtype is None else xp.astype(x, dtype)
        return _exclusive_products(xp, wide, place) * _from_the_end(xp, g, wide, place)

    return y, _cast_back(xp, x, dtype, pullback)


def _running_axis(x, axis):
    """The axis that a running sum or product goes along, and its length."""
    if x.ndim == 0 or (axis is None and x.ndim > 1):
        raise ValueError(
            f"a running sum or product along axis={axis} of an array of {x.ndim} dimensions; "
            "give one of its axes, or reshape it to one dimension"
        )
    place = 0 if axis is None else place_of(axis, x.ndim)
    return place, x.shape[place]


def _from_the_end(xp, g, x, axis):
    """s with s_k = g_k + x_(k+1) s_(k+1), in log2(n) steps.

    After each, s_k sums twice as many terms. Hillis and Steele, "Data Parallel Algorithms",
    Communications of the ACM 29 (1986).
    """
    count, step = x.shape[axis], 1
    if count < 2:
        return g
    factor = part(x, axis, 1, count)  # of k: x_(k+1) … x_(k+step)
    while step < count:
        nearer = part(g, axis, 0, count - step) + factor * part(g, axis, step, count)
        g = xp.concat([nearer, part(g, axis, count - step, count)], axis=axis)
        left = count - 2 * step
        if left > 0:
            factor = part(factor, axis, 0, left) * part(factor, axis, step, count - step)
        step *= 2
    return g
