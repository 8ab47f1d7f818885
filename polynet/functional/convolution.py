"""Convolution."""

from __future__ import annotations

import math

from polynet.functional.windows import padded, views
from polynet.tensor import composition


@composition
def convolution(xp, x, weight, bias=None, *, stride, padding, dilation, groups=1):
    """Cross-correlation of images with a bank of small windows, in any number of dimensions.

    `x` is (batch, channels, *sizes), `weight` (out, channels / groups, *window), `bias` (out,);
    the result (batch, out, *places). `stride` and `dilation` are one number for each axis,
    `padding` a pair: how many zeros stand before and after. Channels and outputs fall into
    `groups` that see nothing of each other.

    y[b, o, i] = Σ_{c, k} x[b, c, i·stride + k·dilation] · weight[o, c, k] + bias[o]. It is one
    matrix product, of the weights and what the window sees (im2col: Chellapilla et al., "High
    Performance Convolutional Neural Networks for Document Processing", 2006).
    """
    out, each, window = weight.shape[0], weight.shape[1], tuple(weight.shape[2:])
    cells = views(padded(xp, x, padding), window, stride, dilation)
    places = tuple(cells[0].shape[2:])
    seen = xp.stack(cells, axis=2)  # (batch, channels, window, *places)
    seen = xp.reshape(seen, (x.shape[0], groups, each * math.prod(window), math.prod(places)))
    matrices = xp.reshape(weight, (1, groups, out // groups, each * math.prod(window)))
    y = xp.reshape(xp.matmul(matrices, seen), (x.shape[0], out, *places))
    return y if bias is None else y + xp.reshape(bias, (out, *(1 for _ in places)))
