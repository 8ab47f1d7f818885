"""Convolution, and its transpose."""

from __future__ import annotations

import math

from polynet.functional.windows import overlapped, padded, views
from polynet.tensor import composition


@composition
def convolution(xp, x, weight, bias=None, *, stride, padding, dilation, groups=1):
    """Cross-correlation of images with a bank of small windows, in any number of dimensions.

    `x` is (batch, channels, *sizes), `weight` (out, channels / groups, *window), `bias` (out,);
    the result is (batch, out, *places). `stride` and `dilation` are one number for each axis, and
    `padding` is a pair for each: the number of zeros before and after. Channels and outputs are
    divided into `groups`; the outputs of a group see only its channels.

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


@composition
def convolution_transpose(
    xp, x, weight, bias=None, *, stride, padding, output_padding, dilation, groups=1
):
    """The transpose of `convolution` as a linear map: each number spreads over a window.

    `x` is (batch, channels, *places), `weight` (channels, out / groups, *window), `bias` (out,);
    the result is (batch, out, *sizes). `stride`, `padding`, `output_padding` and `dilation` are one
    number for each axis. A convolution with these settings takes images of `sizes` to `places`;
    where several sizes do, `output_padding` chooses one.

    y[b, o, i·stride + k·dilation - padding] is the sum over all i and k that meet there, of
    Σ_c x[b, c, i] · weight[c, o, k], plus bias[o]. Zeiler et al., "Deconvolutional Networks",
    CVPR 2010.
    """
    batch, channels, *places = x.shape
    each, window = weight.shape[1], tuple(weight.shape[2:])
    given = xp.reshape(x, (batch, groups, channels // groups, math.prod(places)))
    matrices = xp.reshape(weight, (1, groups, channels // groups, each * math.prod(window)))
    sent = xp.reshape(
        xp.matmul(matrices.mT, given), (batch, groups * each, math.prod(window), *places)
    )
    sizes = tuple(
        (n - 1) * s + d * (k - 1) + 1 + more
        for n, s, d, k, more in zip(places, stride, dilation, window, output_padding, strict=True)
    )
    kept = tuple(slice(p, n - p) for p, n in zip(padding, sizes, strict=True))
    y = overlapped(xp.unstack(sent, axis=2), window, stride, dilation, sizes)
    y = y[(..., *kept)] if any(padding) else y
    return y if bias is None else y + xp.reshape(bias, (groups * each, *(1 for _ in places)))
