"""Indexing of the standard, each function with its derivative.

The gradient of indexing is added into zeros. Two linear functions do this: `put_slice` for slices,
whose positions are known from the shapes, and `segment_sum` for integer arrays, whose values are
known only on the device. A backend may bring a kernel for either.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import array_api_compat

from polynet.integers import integer
from polynet.tensor import Tensor, composition, op

# Indexing


@op
def getitem(xp, x, key, /):
    """`x[key]` for integers, slices, `...` and None; one boolean mask; or integer arrays.

    Integer arrays, mixed with integers, index all axes, as the standard has it.
    """
    keys = key if isinstance(key, tuple) else (key,)
    if is_by_slices(xp, keys):
        return _by_slices(xp, x, keys)
    if is_by_mask(xp, keys):
        return _by_mask(xp, x, keys[0])
    return _by_integers(xp, x, keys)


def is_by_slices(xp, keys):
    """Whether `keys` are integers, slices, `...` and None only: no masks and no index arrays."""
    arrays = [k for k in keys if hasattr(k, "dtype")]
    return not any(k.ndim or xp.isdtype(k.dtype, "bool") for k in arrays)


def is_by_mask(xp, keys):
    """Whether `keys`, which are not slices, are one boolean mask."""
    return len(keys) == 1 and xp.isdtype(keys[0].dtype, "bool")


def _by_slices(xp, x, keys):
    shape = x.shape
    ranges, reversed_axes, new_shape = slice_ranges(shape, keys)
    if reversed_axes:  # PyTorch has no negative steps
        y = xp.flip(x[tuple(map(_slice, ranges))], axis=reversed_axes)
        y = xp.reshape(y, new_shape)
    else:
        y = x[keys]

    def pullback(g):
        g = xp.reshape(g, tuple(map(len, ranges)))
        return put_slice(xp.flip(g, axis=reversed_axes) if reversed_axes else g, ranges, shape)

    return y, (pullback,)


def _slice(r: range) -> slice:
    return slice(r.start, r[-1] + 1, r.step) if r else slice(0, 0)


def slice_ranges(shape, keys):
    """The range taken from each axis, the axes that are reversed, and the shape of the result.

    The ranges have positive steps. The shape has an axis for each None, and none for an integer.
    """
    named = sum(k is not None and k is not Ellipsis for k in keys)
    if named > len(shape):
        raise IndexError(f"{named} indices for an array of {len(shape)} dimensions")
    if not any(k is Ellipsis for k in keys):
        keys = (*keys, Ellipsis)
    ranges: list[range] = []
    new_shape: list[int] = []
    for k in keys:
        if k is None:
            new_shape.append(1)
        elif k is Ellipsis:
            rest = shape[len(ranges) : len(shape) - named + len(ranges)]
            ranges += map(range, rest)
            new_shape += rest
        elif isinstance(k, slice):
            ranges.append(range(shape[len(ranges)])[k])
            new_shape.append(len(ranges[-1]))
        else:
            ranges.append(_range_of_one(shape[len(ranges)], k, len(ranges)))
    reversed_axes = tuple(a for a, r in enumerate(ranges) if r.step < 0)
    rising = tuple(r[::-1] if r.step < 0 else r for r in ranges)
    return rising, reversed_axes, tuple(new_shape)


def _range_of_one(length, k, axis):
    """The range that holds index `k` alone."""
    number: Any = None if isinstance(k, bool) else k  # True is a mask, not the index 1
    try:
        i = operator.index(number)
    except TypeError:
        raise TypeError(
            f"cannot index by {type(k).__name__}; use integers, slices, ... and None, or a "
            "boolean mask, or integer arrays"
        ) from None
    if not -length <= i < length:
        raise IndexError(f"index {i} is out of bounds for axis {axis} of length {length}")
    return range(i % length, i % length + 1)


def _zeros(xp, shape, like):
    return xp.zeros(shape, dtype=like.dtype, device=array_api_compat.device(like))


@composition
def put_slice(xp, x, places, shape, /):
    """Zeros of `shape`, with `x` at `places`: for each axis, a range with a positive step.

    It is the pullback of slicing, and slicing is its pullback.
    """
    for axis, (r, length) in enumerate(zip(places, shape, strict=True)):
        if len(r) == length:
            continue
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        if len(r) > 1 and r.step > 1:
            gaps = _zeros(xp, (*before, len(r), r.step - 1, *after), x)
            x = xp.concat([xp.expand_dims(x, axis=axis + 1), gaps], axis=axis + 1)
            x = xp.reshape(x, (*before, len(r) * r.step, *after))
            x = slice_axis(x, axis, 0, r[-1] - r[0] + 1)
        ends = (r.start, length - r.start - x.shape[axis]) if r else (0, length)
        zeros = [_zeros(xp, (*before, n, *after), x) for n in ends]
        x = xp.concat([zeros[0], x, zeros[1]], axis=axis)
    return x


def _by_mask(xp, x, mask):
    """The elements where `mask`, which covers the leading axes of `x`, is true."""
    shape, rest = x.shape, x.shape[mask.ndim :]

    def pullback(g):  # each element takes its row of g, or the row of zeros after the last
        with_zero = xp.concat([g, _zeros(xp, (1, *rest), g)], axis=0)
        rows = xp.take(with_zero, order_in_mask(xp, mask, g, g.shape[0]), axis=0)
        return xp.reshape(rows, shape)

    return x[mask], (pullback,)


def order_in_mask(xp, mask, like, otherwise):
    """For each true element of the flat mask, how many are before it; for false, `otherwise`."""
    chosen = xp.reshape(mask, (-1,))
    order = xp.cumulative_sum(xp.astype(chosen, index_dtype(xp, like))) - 1
    return xp.where(chosen, order, otherwise)


def index_dtype(xp, x):
    """The default dtype for indices on the device of `x`."""
    device = array_api_compat.device(x)
    return xp.__array_namespace_info__().default_dtypes(device=device)["indexing"]


def _by_integers(xp, x, keys):
    """One integer array, or integer, for each axis, broadcast against one another."""
    shape = x.shape
    require_all_axes(xp, shape, keys)
    y = x[keys]

    def pullback(g):
        indices = flat_indices(xp, shape, keys, g)
        total = segment_sum(xp.reshape(g, (-1,)), indices, math.prod(shape))
        return xp.reshape(total, shape)

    return y, (pullback,)


def require_all_axes(xp, shape, keys):
    """Raise unless `keys` are integers and integer arrays, one for each axis."""
    for k in keys:
        mask = hasattr(k, "dtype") and k.dtype == xp.bool
        if mask or isinstance(k, list | tuple):
            raise TypeError(
                f"cannot index by a {'boolean mask' if mask else type(k).__name__} beside others; "
                "use integers and integer arrays, one for each axis, or one mask alone: "
                "xp.nonzero(mask) makes integers of it"
            )
    if len(keys) != len(shape) or any(k is None or isinstance(k, slice) for k in keys):
        raise IndexError(
            f"integer arrays index all axes, one each, as in the standard; got {len(keys)} indices "
            f"for {len(shape)} dimensions. take(x, indices, axis=…) indexes one axis"
        )


def flat_indices(xp, shape, keys, y):
    """The indices, into an array of `shape` made flat, that integer `keys` for each axis select.

    `y` has the shape of the keys broadcast together.
    """
    flat, dtype = 0, index_dtype(xp, y)
    for k, n in zip(keys, shape, strict=True):
        k = xp.astype(k, dtype, copy=False) if hasattr(k, "dtype") else k
        flat = flat * n + k % n
    return xp.reshape(xp.broadcast_to(flat, y.shape), (-1,))


@composition
def segment_sum(xp, x, segments, count, /):
    """Row k of the result, of `count`, is the sum of the rows of `x` whose segment is k.

    `x` is (n, …), `segments` integers (n,) from 0 to `count` - 1. It is the pullback of `take`,
    and `take` is its pullback.
    """
    return _segment_sum(x, segments, count)


@op
def _segment_sum(xp, x, segments, count, /):
    if type(x) is Tensor:  # of an outer derivative, which may use a backend's kernel
        y = segment_sum(x, segments, count)
    else:
        rows = xp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))
        numbers = xp.arange(count, dtype=segments.dtype, device=array_api_compat.device(x))
        members = xp.astype(xp.expand_dims(numbers, axis=1) == segments, x.dtype)
        y = xp.reshape(xp.matmul(members, rows), (count, *x.shape[1:]))
    return y, (lambda g: take(g, segments, axis=0), None, None)


@op
def take(xp, x, indices, /, *, axis=None):
    if axis is None and x.ndim != 1:
        raise ValueError(
            f"take without an axis is for one dimension, this array has {x.ndim}: give axis=…, or "
            "reshape it to one"
        )
    y = xp.take(x, indices, axis=axis)
    shape, axis = x.shape, normalise_axis(0 if axis is None else axis, x.ndim)
    count = shape[axis]
    to_front = (axis, *range(axis), *range(axis + 1, x.ndim))
    back = inverse_permutation(to_front)

    def pullback(g):
        segments = widened(xp, indices, count) % count
        total = segment_sum(xp.permute_dims(g, to_front), segments, count)
        return xp.permute_dims(total, back)

    return y, (pullback, None)


@op
def take_along_axis(xp, x, indices, /, *, axis=-1):
    y = xp.take_along_axis(x, indices, axis=axis)
    shape, axis = x.shape, normalise_axis(axis, x.ndim)

    def pullback(g):
        axes, wide = range(len(shape)), widened(xp, indices, max(shape))
        keys = [wide if a == axis else arange_along(xp, wide, g.shape, a) for a in axes]
        flat = flat_indices(xp, shape, keys, g)
        total = segment_sum(xp.reshape(g, (-1,)), flat, math.prod(shape))
        return xp.reshape(total, shape)

    return y, (pullback, None)


def widened(xp, indices, count):
    """Integers, converted to the dtype of indices if their own cannot hold `count`."""
    if xp.iinfo(indices.dtype).max >= count:
        return indices
    return xp.astype(indices, index_dtype(xp, indices))


def normalise_axis(axis, ndim):
    """An axis of either sign as a non-negative integer; IndexError where it is out of range."""
    if type(axis) is not int and integer(axis, least=-math.inf) is None:
        raise TypeError(f"expected one axis, an integer; got {axis!r}")
    if not -ndim <= axis < ndim:
        expected = f"one from {-ndim} to {ndim - 1}" if ndim else "none, since it has no axes"
        raise IndexError(f"axis {axis} of an array of {ndim} dimensions; expected {expected}")
    return axis % ndim


def inverse_permutation(axes):
    """The permutation that undoes a permutation of axes."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def slice_axis(x, axis, start, stop):
    """x[start:stop] along one axis, which is not negative."""
    return x[(slice(None),) * axis + (slice(start, stop), ...)]


def arange_along(xp, like, shape, axis):
    """0, 1, 2, … along one axis of `shape`, to broadcast along the others; dtype as `like`."""
    numbers = xp.arange(shape[axis], dtype=like.dtype, device=array_api_compat.device(like))
    return xp.reshape(numbers, (-1, *(1 for _ in shape[axis + 1 :])))
