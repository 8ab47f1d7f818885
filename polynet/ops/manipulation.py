"""Changes of shape, order, dtype and device of the standard, each with its derivative."""

from __future__ import annotations

from itertools import accumulate, pairwise

import array_api_compat

from polynet.tensor import op


@op
def reshape(xp, x, /, shape, *, copy=None):
    before = x.shape
    return xp.reshape(x, shape, copy=copy), (lambda g: xp.reshape(g, before),)


@op
def permute_dims(xp, x, /, axes):
    axes = tuple(a % x.ndim for a in axes)
    back = tuple(sorted(range(x.ndim), key=axes.__getitem__))
    return xp.permute_dims(x, axes), (lambda g: xp.permute_dims(g, back),)


@op
def expand_dims(xp, x, /, axis):
    before = x.shape
    return xp.expand_dims(x, axis=axis), (lambda g: xp.reshape(g, before),)


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
    back = tuple(-s for s in shift) if isinstance(shift, tuple) else -shift
    return xp.roll(x, shift, axis=axis), (lambda g: xp.roll(g, back, axis=axis),)


@op
def concat(xp, arrays, /, *, axis=0):
    if axis is None:
        raise TypeError("concat with axis=None flattens: reshape the arrays to 1-D yourself")
    lengths = [a.shape[axis] for a in arrays]
    cuts = list(pairwise(accumulate(lengths, initial=0)))
    place = axis % arrays[0].ndim

    def pullback(g):
        return [g[(slice(None),) * place + (slice(start, stop), ...)] for start, stop in cuts]

    return xp.concat(arrays, axis=axis), (pullback,)


@op
def stack(xp, arrays, /, *, axis=0):
    place = axis % (arrays[0].ndim + 1)
    count = len(arrays)

    def pullback(g):
        return [g[(slice(None),) * place + (i, ...)] for i in range(count)]

    return xp.stack(arrays, axis=axis), (pullback,)


@op
def astype(xp, x, dtype, /, *, copy=True, device=None):
    before, home = x.dtype, None if device is None else array_api_compat.device(x)
    if device is not None:
        x = array_api_compat.to_device(x, device)
    y = xp.astype(x, dtype, copy=copy)
    if not xp.isdtype(dtype, "real floating"):
        return y, None

    def pullback(g):
        g = xp.astype(g, before)
        return g if home is None else array_api_compat.to_device(g, home)

    return y, (pullback,)


@op
def to_device(xp, x, device, /, *, stream=None):
    """`x.to_device(device)` of the standard; the gradient goes back to where `x` was."""
    home = array_api_compat.device(x)
    y = array_api_compat.to_device(x, device, stream=stream)
    return y, (lambda g: array_api_compat.to_device(g, home), None)
