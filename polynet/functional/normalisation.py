"""Normalisation: numbers of mean 0 and variance 1, scaled and shifted by what is learnt."""

from __future__ import annotations

from polynet.tensor import composition


@composition
def layer_norm(xp, x, weight=None, bias=None, *, axes, eps):
    """(x - mean) / √(variance + eps) · weight + bias, over the last `axes` axes of each sample.

    `weight` and `bias` have the shape of those axes. Ba, Kiros and Hinton, "Layer
    Normalization" (2016).
    """
    last = tuple(range(-axes, 0))
    centred = x - xp.mean(x, axis=last, keepdims=True)
    variance = xp.mean(xp.square(centred), axis=last, keepdims=True)
    y = centred / xp.sqrt(variance + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias
