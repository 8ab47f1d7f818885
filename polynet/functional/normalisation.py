"""Normalisation: numbers of mean 0 and variance 1, scaled and shifted by what is learnt."""

from __future__ import annotations

import math

from polynet.tensor import composition, op


@composition
def layer_norm(xp, x, weight=None, bias=None, *, axes, eps):
    """(x - mean) / √(variance + eps) · weight + bias, over the last `axes` axes of each sample.

    `weight` and `bias` have the shape of those axes. Ba, Kiros and Hinton, "Layer
    Normalization" (2016).
    """
    return _affine(standardised(x, axis=tuple(range(-axes, 0)), eps=eps), weight, bias)


@composition
def group_norm(xp, x, weight=None, bias=None, *, groups, eps):
    """(x - mean) / √(variance + eps) · weight + bias, over each of `groups` groups of channels.

    `x` is (batch, channels, …), `weight` and `bias` (channels,). With one group for each channel
    it is instance normalisation. Wu and He, "Group Normalization", ECCV 2018; Ulyanov, Vedaldi
    and Lempitsky, "Instance Normalization" (2016).
    """
    batch, channels, *rest = x.shape
    together = xp.reshape(x, (batch, groups, channels // groups * math.prod(rest)))
    y = xp.reshape(standardised(together, axis=(-1,), eps=eps), x.shape)
    shape = (channels, *(1 for _ in rest))
    return _affine(y, *(None if p is None else xp.reshape(p, shape) for p in (weight, bias)))


@composition
def rms_norm(xp, x, weight=None, *, axes, eps=None):
    """x / √(mean(x²) + eps) · weight, over the last `axes` axes of each sample.

    `weight` has the shape of those axes; `eps` is by default the dtype's. Zhang and Sennrich,
    "Root Mean Square Layer Normalization" (2019).
    """
    eps = float(xp.finfo(x.dtype).eps) if eps is None else eps  # some give an array of NumPy
    over = tuple(range(-axes, 0))
    return _affine(x / xp.sqrt(xp.mean(x * x, axis=over, keepdims=True) + eps), weight)


def _affine(y, weight, bias=None):
    """What is learnt: y · weight + bias."""
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@op
def standardised(xp, x, /, *, axis, eps):
    """(x - mean) / √(variance + eps), over the axes in `axis`.

    With y the result and r = 1 / √(variance + eps), the gradient is
    r·(g - mean(g) - y·mean(g·y)).
    """
    centred = x - xp.mean(x, axis=axis, keepdims=True)
    r = 1 / xp.sqrt(xp.mean(centred * centred, axis=axis, keepdims=True) + eps)
    y = centred * r

    def pullback(g):
        shared = xp.mean(g * y, axis=axis, keepdims=True)
        return (g - xp.mean(g, axis=axis, keepdims=True) - shared * y) * r

    return y, (pullback,)
