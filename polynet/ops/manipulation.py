"""Changes of shape, order, dtype and device of the standard, each with its derivative."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

import array_api_compat

from polynet.ops.indexing import (
    arange_along,
    inverse_permutation,
    normalise_axis,
    segment_sum,
    slice_axis,
    widened,
)
from polynet.tensor import in_dtype, op


@op
def reshape(xp, x, /, shape, *, copy=None):
    before = x.shape
    return xp.reshape(x, shape, copy=copy), (lambda g: xp.reshape(g, before),)


@op
def permute_dims(xp, x, /, axes):
    axes = tuple(normalise_axis(a, x.ndim) for a in axes)
    back = inverse_permutation(axes)
    return xp.permute_dims(x, axes), (lambda g: xp.permute_dims(g, back),)


@op
def expand_dims(xp, x, /, axis):
    before, y = x.shape, x
    for place in _places(axis, x.ndim) if isinstance(axis, tuple) else (axis,):
        y = xp.expand_dims(y, axis=place)  # one by one: not every library takes several
    return y, (lambda g: xp.reshape(g, before),)


def _places(axes, ndim):
    """The places of new axes among all, rising."""
    places = sorted(normalise_axis(axis, ndim + len(axes)) for axis in axes)
    if len({*places}) < len(places):
        raise ValueError(f"expand_dims: of axis {axes}, two are the same place")
    return places


@op
def squeeze(xp, x, /, axis):
    before = x.shape
    return xp.squeeze(x, axis=axis), (lambda g: xp.reshape(g, before),)


@op
def broadcast_to(xp, x, /, shape):
    return xp.broadcast_to(x, shape), (lambda g: g,)


@op
def flip(xp, x, /, *, axis=None):
    return xp.flip(x, axis=axis), (lambda g: xp.flip(g, axis=axis),)


@op
def roll(xp, x, /, shift, *, axis=None):
    if isinstance(axis, tuple) and not isinstance(shift, tuple | list):
        shift = (shift,) * len(axis)  # not every library takes one shift for several axes
    back = tuple(-s for s in shift) if isinstance(shift, tuple | list) else -shift
    return xp.roll(x, shift, axis=axis), (lambda g: xp.roll(g, back, axis=axis),)


@op
def moveaxis(xp, x, source, destination, /):
    return xp.moveaxis(x, source, destination), (lambda g: xp.moveaxis(g, destination, source),)


@op
def broadcast_arrays(xp, *arrays):
    return tuple(xp.broadcast_arrays(*arrays)), lambda g, _needs: g


@op
def tile(xp, x, repetitions, /):
    y = xp.tile(x, repetitions)
    shape = x.shape
    times = (1,) * (y.ndim - len(repetitions)) + tuple(repetitions)
    lengths = (1,) * (y.ndim - len(shape)) + tuple(shape)
    split = tuple(n for pair in zip(times, lengths, strict=True) for n in pair)
    copies = tuple(range(0, len(split), 2))
    return y, (lambda g: xp.reshape(xp.sum(xp.reshape(g, split), axis=copies), shape),)


@op
def repeat(xp, x, repeats, /, *, axis=None):
    shape = x.shape
    if axis is None:
        along, before, count, after = 0, (), math.prod(shape), ()
    else:
        along = normalise_axis(axis, x.ndim)
        before, count, after = shape[:along], shape[along], shape[along + 1 :]

    def pullback(g):
        if not hasattr(repeats, "dtype"):
            g = xp.sum(xp.reshape(g, (*before, count, repeats, *after)), axis=along + 1)
        else:
            indices = arange_along(xp, widened(xp, repeats, count), (count,), 0)
            source = xp.repeat(indices, repeats)  # the index in x of each element of the result
            g = xp.moveaxis(segment_sum(xp.moveaxis(g, along, 0), source, count), 0, along)
        return xp.reshape(g, shape)

    return xp.repeat(x, repeats, axis=axis), (pullback, None)


@op
def concat(xp, arrays, /, *, axis=0):
    shapes = [a.shape for a in arrays]
    along = 0 if axis is None else normalise_axis(axis, len(shapes[0]))
    lengths = [math.prod(s) if axis is None else s[along] for s in shapes]
    cuts = list(pairwise(accumulate(lengths, initial=0)))

    def pullback(g):
        parts = [slice_axis(g, along, start, stop) for start, stop in cuts]
        if axis is not None:
            return parts
        return [xp.reshape(p, s) for p, s in zip(parts, shapes, strict=True)]

    return xp.concat(arrays, axis=axis), (pullback,)


@op
def stack(xp, arrays, /, *, axis=0):
    along = normalise_axis(axis, arrays[0].ndim + 1)
    count = len(arrays)

    def pullback(g):
        return [g[(slice(None),) * along + (i, ...)] for i in range(count)]

    return xp.stack(arrays, axis=axis), (pullback,)


@op
def unstack(xp, x, /, *, axis=0):
    return tuple(xp.unstack(x, axis=axis)), lambda g, _needs: (xp.stack(g, axis=axis),)


@op
def astype(xp, x, dtype, /, *, copy=True, device=None):
    before, home = x.dtype, None if device is None else array_api_compat.device(x)
    if device is not None:
        x = array_api_compat.to_device(x, device)
    y = xp.astype(x, dtype, copy=copy)
    if not xp.isdtype(dtype, ("real floating", "complex floating")):
        return y, None

    def pullback(g):
        g = in_dtype(xp, g, before)
        return g if home is None else array_api_compat.to_device(g, home)

    return y, (pullback,)


@op
def to_device(xp, x, device, /, *, stream=None):
    """`x.to_device(device)` of the standard; the gradient goes back to the device of `x`."""
    home = array_api_compat.device(x)
    y = array_api_compat.to_device(x, device, stream=stream)
    return y, (lambda g: array_api_compat.to_device(g, home), None)
