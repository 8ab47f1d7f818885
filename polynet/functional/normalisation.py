"""Normalisation to mean 0 and variance 1, followed by a learnt scale and shift."""

from __future__ import annotations

import math

from polynet.tensor import composition, op, real_composition, refuse_complex


@real_composition
def layer_norm(xp, x, weight=None, bias=None, *, axes, eps):
    """(x - mean) / √(variance + eps) · weight + bias, over the last `axes` axes of each sample.

    `weight` and `bias` have the shape of those axes. Ba, Kiros and Hinton, "Layer
    Normalization" (2016).
    """
    y, _, _ = standardised(x, axis=tuple(range(-axes, 0)), eps=eps)
    return _affine(y, weight, bias)


@real_composition
def group_norm(xp, x, weight=None, bias=None, *, groups, eps):
    """(x - mean) / √(variance + eps) · weight + bias, over each of `groups` groups of channels.

    `x` is (batch, channels, …), `weight` and `bias` (channels,). With one group for each channel
    it is instance normalisation. Wu and He, "Group Normalization", ECCV 2018; Ulyanov, Vedaldi
    and Lempitsky, "Instance Normalization" (2016).
    """
    batch, channels, *rest = x.shape
    together = xp.reshape(x, (batch, groups, channels // groups * math.prod(rest)))
    y, _, _ = standardised(together, axis=(-1,), eps=eps)
    return _affine(xp.reshape(y, x.shape), *_by_channel(xp, x, weight, bias))


@real_composition
def rms_norm(xp, x, weight=None, *, axes, eps=None):
    """x / √(mean(x²) + eps) · weight, over the last `axes` axes of each sample.

    `weight` has the shape of those axes; `eps` is by default the dtype's machine epsilon. Zhang and
    Sennrich, "Root Mean Square Layer Normalization" (2019).
    """
    eps = float(xp.finfo(x.dtype).eps) if eps is None else eps  # some give an array of NumPy
    over = tuple(range(-axes, 0))
    return _affine(x / xp.sqrt(xp.mean(x * x, axis=over, keepdims=True) + eps), weight)


@real_composition
def batch_norm(xp, x, weight=None, bias=None, *, eps):
    """(x - mean) / √(variance + eps) · weight + bias, and the mean and the variance.

    Mean and variance are over all axes but the second, the channels. They have the shape
    (channels,), as have `weight` and `bias`. Ioffe and Szegedy, "Batch Normalization", ICML 2015.
    """
    y, mean, variance = standardised(x, axis=(0, *range(2, len(x.shape))), eps=eps)
    y = _affine(y, *_by_channel(xp, x, weight, bias))
    return y, xp.reshape(mean, (-1,)), xp.reshape(variance, (-1,))


@composition
def batch_norm_inference(xp, x, mean, variance, weight=None, bias=None, *, eps):
    """(x - mean) / √(variance + eps) · weight + bias, by channel, which is the second axis.

    All but `x` have the shape (channels,); see `batch_norm`.
    """
    scale = 1 / xp.sqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    mean, scale, bias = _by_channel(xp, x, mean, scale, bias)
    return _affine(x - mean, scale, bias)


def _affine(y, weight, bias=None):
    """y · weight + bias, with the learnt parameters."""
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _by_channel(xp, x, *arrays):
    """Arrays of shape (channels,) as ones that broadcast against the second axis of `x`."""
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    return [None if a is None else xp.reshape(a, shape) for a in arrays]


_real = refuse_complex("standardised")


@op
def standardised(xp, x, /, *, axis, eps):
    """(x - mean) / √(variance + eps), the mean, and the variance, over the axes in `axis`.

    Let y be the first result, r = 1 / √(variance + eps), and n the number of elements in a mean.
    The gradient through y is r·(g - mean(g) - y·mean(g·y)). The gradients through the mean and the
    variance are g₁/n and g₂·2(x - mean)/n = g₂·2y/(rn); they are added to the two means, which are
    small arrays.
    """
    _real(xp, x)
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
