"""The extension `fft`: discrete Fourier transforms, each with its derivative.

A transform is linear, and its matrix e^(∓2πi jk/n) is symmetric. So the pullback of a complex
transform is the same transform, with the same norm, cropped or padded to the shape of the input.
See NumPy's documentation of `numpy.fft` for the definitions.
"""

from __future__ import annotations

import array_api_compat

from polynet.ops import indexing
from polynet.tensor import in_dtype, op

_OPPOSITE = {"backward": "forward", "ortho": "ortho", "forward": "backward"}


@op
def fft(xp, x, /, *, n=None, axis=-1, norm="backward"):
    y = xp.fft.fft(x, n=n, axis=axis, norm=norm)
    return y, (_complex_pullback(xp, xp.fft.fftn, x, y, (axis,), norm),)


@op
def ifft(xp, x, /, *, n=None, axis=-1, norm="backward"):
    y = xp.fft.ifft(x, n=n, axis=axis, norm=norm)
    return y, (_complex_pullback(xp, xp.fft.ifftn, x, y, (axis,), norm),)


@op
def fftn(xp, x, /, *, s=None, axes=None, norm="backward"):
    axes = _axes(x, s, axes)
    y = xp.fft.fftn(x, s=s, axes=axes, norm=norm)
    return y, (_complex_pullback(xp, xp.fft.fftn, x, y, axes, norm),)


@op
def ifftn(xp, x, /, *, s=None, axes=None, norm="backward"):
    axes = _axes(x, s, axes)
    y = xp.fft.ifftn(x, s=s, axes=axes, norm=norm)
    return y, (_complex_pullback(xp, xp.fft.ifftn, x, y, axes, norm),)


@op
def rfft(xp, x, /, *, n=None, axis=-1, norm="backward"):
    y = xp.fft.rfft(x, n=n, axis=axis, norm=norm)
    return y, (_complex_pullback(xp, xp.fft.fftn, x, y, (axis,), norm, n or x.shape[axis]),)


@op
def rfftn(xp, x, /, *, s=None, axes=None, norm="backward"):
    axes = _axes(x, s, axes)
    y = xp.fft.rfftn(x, s=s, axes=axes, norm=norm)
    last = x.shape[axes[-1]] if s is None or s[-1] == -1 else s[-1]
    return y, (_complex_pullback(xp, xp.fft.fftn, x, y, axes, norm, last),)


@op
def ihfft(xp, x, /, *, n=None, axis=-1, norm="backward"):
    y = xp.fft.ihfft(x, n=n, axis=axis, norm=norm)
    return y, (_complex_pullback(xp, xp.fft.ifftn, x, y, (axis,), norm, n or x.shape[axis]),)


def _complex_pullback(xp, transform, x, y, axes, norm, last=None):
    """The pullback of a transform to complex `y`.

    `last` is the full length of the last axis, where y has only half of the spectrum.
    """
    lengths = [y.shape[a] for a in axes]
    if last is not None:
        lengths[-1] = last
    shape, dtype, between = x.shape, x.dtype, y.dtype

    def pullback(g):
        g = in_dtype(xp, g, between)
        g = transform(g, s=tuple(lengths), axes=axes, norm=norm)
        return in_dtype(xp, _crop_or_pad(xp, g, shape), dtype)

    return pullback


@op
def irfft(xp, x, /, *, n=None, axis=-1, norm="backward"):
    y = xp.fft.irfft(x, n=n, axis=axis, norm=norm)
    return y, (_real_pullback(xp, x, y, (axis,), _OPPOSITE[norm], xp.conj),)


@op
def irfftn(xp, x, /, *, s=None, axes=None, norm="backward"):
    axes = _axes(x, s, axes)
    y = xp.fft.irfftn(x, s=s, axes=axes, norm=norm)
    return y, (_real_pullback(xp, x, y, axes, _OPPOSITE[norm], xp.conj),)


@op
def hfft(xp, x, /, *, n=None, axis=-1, norm="backward"):
    y = xp.fft.hfft(x, n=n, axis=axis, norm=norm)
    return y, (_real_pullback(xp, x, y, (axis,), norm, lambda g: g),)


def _real_pullback(xp, x, y, axes, norm, turn):
    """The pullback of a transform of half a spectrum to real `y`.

    Each number stands for itself and for its conjugate in the other half, so it counts twice; not
    so the first, nor the last where the length is even. `turn` is conj or the identity.
    """
    last, shape, dtype, between = axes[-1], x.shape, x.dtype, y.dtype
    length, device = y.shape[last], array_api_compat.device(y)

    def pullback(g):
        g = turn(xp.fft.rfftn(in_dtype(xp, g, between), axes=axes, norm=norm))
        k = xp.arange(g.shape[last], dtype=between, device=device)
        twice = 2 - xp.astype((k == 0) | (k * 2 == length), between)
        after = range(last % g.ndim + 1, g.ndim)
        g = g * xp.reshape(twice, (-1, *(1 for _ in after)))
        return in_dtype(xp, _crop_or_pad(xp, g, shape), dtype)

    return pullback


def _axes(x, s, axes):
    """The axes to transform: those given, else the last ones that `s` has lengths for, else all."""
    if axes is not None:
        return tuple(axes)
    return tuple(range(0 if s is None else x.ndim - len(s), x.ndim))


def _crop_or_pad(xp, g, shape):
    """`g` cropped to `shape`, or padded with zeros where it is shorter."""
    if tuple(g.shape) == tuple(shape):
        return g
    kept = tuple(range(min(pair)) for pair in zip(g.shape, shape, strict=True))
    g = g[tuple(slice(0, len(r)) for r in kept)]
    return indexing.put_slice(g, kept, shape)


@op
def fftshift(xp, x, /, *, axes=None):
    return xp.fft.fftshift(x, axes=axes), (lambda g: xp.fft.ifftshift(g, axes=axes),)


@op
def ifftshift(xp, x, /, *, axes=None):
    return xp.fft.ifftshift(x, axes=axes), (lambda g: xp.fft.fftshift(g, axes=axes),)
