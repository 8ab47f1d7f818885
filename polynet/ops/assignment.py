"""Item assignment of the standard, as a function that returns a new array.

It writes to no memory, so it also works where arrays cannot change. It is composed of ops, and so
has their derivatives.
"""

from __future__ import annotations

import math

import array_api_compat

from polynet.ops.indexing import (
    flat_indices,
    is_by_mask,
    is_by_slices,
    order_in_mask,
    put_slice,
    require_all_axes,
    slice_ranges,
)
from polynet.tensor import composition


@composition
def setitem(xp, x, key, value, /):
    """`x` after `x[key] = value`, as a new array.

    `key` is integers, slices, `...` and None; one boolean mask; or integer arrays that index all
    axes, where the last value wins if a place occurs twice. `value`, a number or an array of x's
    kind, is broadcast to the shape of `x[key]`.

    Raises TypeError for a value that would need another dtype, IndexError for a key that does
    not fit.

    >>> import numpy as np
    >>> setitem(np.zeros(4), slice(1, 3), 5.0)
    array([0., 5., 5., 0.])
    """
    value = _in_kind(xp, x, value)
    keys = key if isinstance(key, tuple) else (key,)
    if is_by_slices(xp, keys):
        return _to_slices(xp, x, keys, value)
    if is_by_mask(xp, keys):
        return _to_mask(xp, x, keys[0], value)
    return _to_integers(xp, x, keys, value)


def _in_kind(xp, x, value):
    """`value` as an array; raises TypeError where it would change the dtype of `x`."""
    number = isinstance(value, bool | int | float | complex)
    if not number and not hasattr(value, "dtype"):
        raise TypeError(
            f"cannot assign a {type(value).__name__}; expected a number or an array: "
            "xp.asarray(values) makes one"
        )
    if xp.result_type(x, value) != x.dtype:
        came = f"the number {value}" if number else value.dtype
        raise TypeError(f"cannot assign {came} to {x.dtype}; cast it: xp.astype(value, x.dtype)")
    if number:
        return xp.full((), value, dtype=x.dtype, device=array_api_compat.device(x))
    return value


def _to_slices(xp, x, keys, value):
    ranges, reversed_axes, shape = slice_ranges(x.shape, keys)
    value = xp.broadcast_to(value, shape)
    if 0 in shape:
        return xp.asarray(x, copy=True)
    value = xp.reshape(value, tuple(map(len, ranges)))
    if reversed_axes:
        value = xp.flip(value, axis=reversed_axes)
    ones = xp.ones(value.shape, dtype=xp.bool, device=array_api_compat.device(x))
    mask = put_slice(ones, ranges, x.shape)
    return xp.where(mask, put_slice(value, ranges, x.shape), x)


def _to_mask(xp, x, mask, value):
    lengths, rest = x.shape[: mask.ndim], x.shape[mask.ndim :]
    if mask.ndim > x.ndim or any(m not in (n, 0) for m, n in zip(mask.shape, lengths, strict=True)):
        raise IndexError(f"a mask of shape {mask.shape} does not fit an array of shape {x.shape}")
    if value.ndim <= len(rest):  # the same for all elements: no need to read how many there are
        value = xp.broadcast_to(value, rest)
        if 0 in mask.shape:
            return xp.asarray(x, copy=True)
    else:
        value = xp.broadcast_to(value, x[mask].shape)
        if 0 in value.shape:
            return xp.asarray(x, copy=True)
        value = xp.reshape(xp.take(value, order_in_mask(xp, mask, x, 0), axis=0), x.shape)
    return xp.where(xp.reshape(mask, (*mask.shape, *(1 for _ in rest))), value, x)


def _to_integers(xp, x, keys, value):
    require_all_axes(xp, x.shape, keys)
    value = xp.broadcast_to(value, x[keys].shape)
    if 0 in value.shape:
        return xp.asarray(x, copy=True)
    flat = flat_indices(xp, x.shape, keys, value)
    order = xp.argsort(flat, stable=True)  # of equal indices, the last to be assigned comes last
    ordered = xp.take(flat, order)
    every = xp.arange(math.prod(x.shape), dtype=flat.dtype, device=array_api_compat.device(x))
    last = xp.searchsorted(ordered, every, side="right") - 1
    last = xp.where(last < 0, 0, last)
    source = xp.take(xp.reshape(value, (-1,)), xp.take(order, last))
    y = xp.where(xp.take(ordered, last) == every, source, xp.reshape(x, (-1,)))
    return xp.reshape(y, x.shape)
