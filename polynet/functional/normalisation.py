"""Normalisation: numbers of mean 0 and variance 1, scaled and shifted by what is learnt."""

from __future__ import annotations

from polynet.tensor import composition, op


@composition
def layer_norm(xp, x, weight=None, bias=None, *, axes, eps):
    """(x - mean) / √(variance + eps) · weight + bias, over the last `axes` axes of each sample.

    `weight` and `bias` have the shape of those axes. Ba, Kiros and Hinton, "Layer
    Normalization" (2016).
    """
    y = standardised(x, axis=tuple(range(-axes, 0)), eps=eps)
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
