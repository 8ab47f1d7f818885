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
    y, _, _ = standardised(x, axis=tuple(range(-axes, 0)), eps=eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@composition
def batch_norm(xp, x, weight=None, bias=None, *, eps):
    """(x - mean) / √(variance + eps) · weight + bias, and the mean and the variance.

    Both are over all axes but the second, the channels; they, `weight` and `bias` have the shape
    (channels,). Ioffe and Szegedy, "Batch Normalization", ICML 2015.
    """
    y, mean, variance = standardised(x, axis=(0, *range(2, len(x.shape))), eps=eps)
    if weight is not None:
        y = y * _by_channel(xp, weight, x)
    if bias is not None:
        y = y + _by_channel(xp, bias, x)
    return y, xp.reshape(mean, (-1,)), xp.reshape(variance, (-1,))


@composition
def batch_norm_inference(xp, x, mean, variance, weight=None, bias=None, *, eps):
    """(x - mean) / √(variance + eps) · weight + bias, by channel, which is the second axis.

    All but `x` have the shape (channels,); see `batch_norm`.
    """
    scale = 1 / xp.sqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    y = (x - _by_channel(xp, mean, x)) * _by_channel(xp, scale, x)
    return y if bias is None else y + _by_channel(xp, bias, x)


def _by_channel(xp, a, x):
    """An array of shape (channels,) as one that broadcasts against the second axis of `x`."""
    return xp.reshape(a, (1, -1, *(1,) * (len(x.shape) - 2)))


@op
def standardised(xp, x, /, *, axis, eps):
    """(x - mean) / √(variance + eps), the mean, and the variance, over the axes in `axis`.

    With y the first result, r = 1 / √(variance + eps) and n numbers in a mean, its gradient is
    r·(g - mean(g) - y·mean(g·y)). Those of the others, g₁/n and g₂·2(x - mean)/n = g₂·2y/(rn),
    enter the two means, which are small.
    """
    mean = xp.mean(x, axis=axis, keepdims=True)
    centred = x - mean
    variance = xp.mean(centred * centred, axis=axis, keepdims=True)
    r = 1 / xp.sqrt(variance + eps)
    y = centred * r
    n = math.prod(x.shape[a] for a in axis)

    def pullback(gradients, _needs):
        g, to_mean, to_variance = gradients
        level = xp.mean(g, axis=axis, keepdims=True) - to_mean / (n * r)
        slope = xp.mean(g * y, axis=axis, keepdims=True) - 2 * to_variance / (n * r * r)
        return ((g - level - slope * y) * r,)

    return (y, mean, variance), pullback
