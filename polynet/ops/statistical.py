"""Reductions and running sums and products of the standard, each with its derivative."""

from __future__ import annotations

import math

from polynet.ops.complex_numbers import real_only
from polynet.ops.indexing import inverse_permutation, normalise_axis, slice_axis
from polynet.tensor import in_dtype, op


def reduced_axes(x, axis):
    """The axes that `axis` names, as non-negative integers; all axes for None."""
    if axis is None:
        return tuple(range(x.ndim))
    return tuple(normalise_axis(a, x.ndim) for a in (axis if isinstance(axis, tuple) else (axis,)))


def keepdims_shape(x, axes):
    """The shape that reducing `axes` of `x` gives with keepdims=True."""
    return tuple(1 if i in axes else n for i, n in enumerate(x.shape))


def _cast_back(xp, x, dtype, pullback):
    """The pullbacks of an op that computes in `dtype`: `pullback`, cast back to the dtype of `x`.

    None where `dtype` is an integer dtype, through which no gradient goes.
    """
    if dtype is None:
        return (pullback,)
    if not xp.isdtype(dtype, ("real floating", "complex floating")):
        return None
    before = x.dtype
    return (lambda g: in_dtype(xp, pullback(g), before),)


@op
def sum(xp, x, /, *, axis=None, dtype=None, keepdims=False):  # noqa: A001 (the standard's name)
    y = xp.sum(x, axis=axis, dtype=dtype, keepdims=keepdims)
    shape, kept = x.shape, keepdims_shape(x, reduced_axes(x, axis))
    return y, _cast_back(xp, x, dtype, lambda g: xp.broadcast_to(xp.reshape(g, kept), shape))


@op
def prod(xp, x, /, *, axis=None, dtype=None, keepdims=False):
    """The gradient of each factor is the product of all the others, even where some are 0."""
    y = xp.prod(x, axis=axis, dtype=dtype, keepdims=keepdims)
    axes = reduced_axes(x, axis)
    order = (*(a for a in range(x.ndim) if a not in axes), *axes)  # the reduced axes last
    kept = len(order) - len(axes)

    def pullback(g):
        factors = xp.permute_dims(x if dtype is None else xp.astype(x, dtype), order)
        outer, inner = factors.shape[:kept], factors.shape[kept:]
        rows = xp.reshape(factors, (*outer, math.prod(inner)))
        before = _exclusive_products(xp, rows, kept)
        after = xp.flip(_exclusive_products(xp, xp.flip(rows, axis=-1), kept), axis=-1)
        out = xp.reshape(g, (*outer, 1)) * (before * after)
        return xp.permute_dims(xp.reshape(out, (*outer, *inner)), inverse_permutation(order))

    return y, _cast_back(xp, x, dtype, pullback)


def _exclusive_products(xp, x, axis):
    """For each element, the product of all elements before it along `axis`."""
    return slice_axis(
        xp.cumulative_prod(x, axis=axis, include_initial=True), axis, 0, x.shape[axis]
    )


@op
def mean(xp, x, /, *, axis=None, keepdims=False):
    y = xp.mean(x, axis=axis, keepdims=keepdims)
    axes = reduced_axes(x, axis)
    shape, kept, count = x.shape, keepdims_shape(x, axes), math.prod(x.shape[a] for a in axes)
    return y, (lambda g: xp.broadcast_to(xp.reshape(g / count, kept), shape),)


@op
def var(xp, x, /, *, axis=None, correction=0.0, keepdims=False):
    y = xp.var(x, axis=axis, correction=correction, keepdims=keepdims)
    axes = reduced_axes(x, axis)
    kept, freedom = keepdims_shape(x, axes), _degrees_of_freedom(x, axes, correction)

    def pullback(g):
        real_only(xp, "var", x)
        centred = x - xp.mean(x, axis=axes, keepdims=True)
        return xp.reshape(g, kept) * (centred * (2 / freedom))

    return y, (pullback,)


@op
def std(xp, x, /, *, axis=None, correction=0.0, keepdims=False):
    y = xp.std(x, axis=axis, correction=correction, keepdims=keepdims)
    axes = reduced_axes(x, axis)
    kept, freedom = keepdims_shape(x, axes), _degrees_of_freedom(x, axes, correction)

    def pullback(g):  # 0 where all elements are equal, and std has a kink
        real_only(xp, "std", x)
        centred = x - xp.mean(x, axis=axes, keepdims=True)
        deviation = xp.reshape(xp.where(y == 0, math.inf, y), kept)
        return xp.reshape(g, kept) * (centred / (deviation * freedom))

    return y, (pullback,)


def _degrees_of_freedom(x, axes, correction):
    """The divisor of the sum of squares, n - correction; NaN where it is not positive."""
    left = math.prod(x.shape[a] for a in axes) - correction
    return left if left > 0 else math.nan


def _extremum(xp, x, y, axis):
    """The pullback of max and min: elements equal to the extremum share its gradient equally."""
    axes = reduced_axes(x, axis)
    kept = keepdims_shape(x, axes)

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
    axis, count = _running_axis(x, axis)

    def pullback(g):
        g = slice_axis(g, axis, 1, count + 1) if include_initial else g
        return xp.flip(xp.cumulative_sum(xp.flip(g, axis=axis), axis=axis), axis=axis)

    return y, _cast_back(xp, x, dtype, pullback)


@op
def cumulative_prod(xp, x, /, *, axis=None, dtype=None, include_initial=False):
    """The gradient does not divide by the factors, so it is right where some are 0."""
    y = xp.cumulative_prod(x, axis=axis, dtype=dtype, include_initial=include_initial)
    axis, count = _running_axis(x, axis)

    def pullback(g):
        g = slice_axis(g, axis, 1, count + 1) if include_initial else g
        factors = x if dtype is None else xp.astype(x, dtype)
        return _exclusive_products(xp, factors, axis) * _suffix_scan(xp, g, factors, axis)

    return y, _cast_back(xp, x, dtype, pullback)


def _running_axis(x, axis):
    """The axis that a running sum or product goes along, and its length."""
    if x.ndim == 0 or (axis is None and x.ndim > 1):
        raise ValueError(
            f"a running sum or product along axis={axis} of an array of {x.ndim} dimensions; "
            "give one of its axes, or reshape it to one dimension"
        )
    axis = 0 if axis is None else normalise_axis(axis, x.ndim)
    return axis, x.shape[axis]


def _suffix_scan(xp, g, x, axis):
    """The s with s_k = g_k + x_(k+1) s_(k+1), in log2(n) steps.

    Each step doubles the number of terms in s_k. Hillis and Steele, "Data Parallel Algorithms",
    Communications of the ACM 29 (1986).
    """
    count, step = x.shape[axis], 1
    if count < 2:
        return g
    factor = slice_axis(x, axis, 1, count)  # of k: x_(k+1) … x_(k+step)
    while step < count:
        nearer = slice_axis(g, axis, 0, count - step) + factor * slice_axis(g, axis, step, count)
        g = xp.concat([nearer, slice_axis(g, axis, count - step, count)], axis=axis)
        left = count - 2 * step
        if left > 0:
            factor = slice_axis(factor, axis, 0, left) * slice_axis(
                factor, axis, step, count - step
            )
        step *= 2
    return g
