"""Convolution, and its transpose."""

from __future__ import annotations

import math

from polynet.functional.windows import overlapped, padded, views
from polynet.tensor import composition


@composition
def convolution(xp, x, weight, bias=None, *, stride, padding, dilation, groups=1):
    """Cross-correlation of images with windows of weights, in any number of dimensions.

    `x` is (batch, channels, *sizes), `weight` (out, channels / groups, *window), `bias` (out,);
    the result is (batch, out, *places), one number for each place of the window. `stride` and
    `dilation` are one number for each axis, and `padding` is a pair for each: the number of zeros
    before and after. Channels and outputs are divided into `groups`; the outputs of a group depend
    only on its channels.

    y[b, o, i] = Σ_{c, k} x[b, c, i·stride + k·dilation] · weight[o, c, k] + bias[o]. It is one
    matrix product (im2col: Chellapilla et al., "High Performance Convolutional Neural Networks for
    Document Processing", 2006).
    """
    out, each, window = weight.shape[0], weight.shape[1], tuple(weight.shape[2:])
    cells = views(padded(xp, x, padding), window, stride, dilation)
    places = tuple(cells[0].shape[2:])
    columns = xp.stack(cells, axis=2)  # (batch, channels, window, *places)
    columns = xp.reshape(columns, (x.shape[0], groups, each * math.prod(window), math.prod(places)))
    matrices = xp.reshape(weight, (1, groups, out // groups, each * math.prod(window)))
    y = xp.reshape(xp.matmul(matrices, columns), (x.shape[0], out, *places))
    return y if bias is None else y + xp.reshape(bias, (out, *(1 for _ in places)))


@composition
def convolution_transpose(
    xp, x, weight, bias=None, *, stride, padding, output_padding, dilation, groups=1
):
    """The transpose of `convolution` as a linear map.

    `x` is (batch, channels, *places), `weight` (channels, out / groups, *window), `bias` (out,);
    the result is (batch, out, *sizes). `stride`, `padding`, `output_padding` and `dilation` are one
    number for each axis. A convolution with these settings takes images of `sizes` to `places`;
    `output_padding` chooses among several such sizes.

    y[b, o, j] = Σ x[b, c, i] · weight[c, o, k] + bias[o], summed over c and over all i and k with
    i·stride + k·dilation - padding = j. Zeiler et al., "Deconvolutional Networks", CVPR 2010.
    """
    batch, channels, *places = x.shape
    each, window = weight.shape[1], tuple(weight.shape[2:])
    columns = xp.reshape(x, (batch, groups, channels // groups, math.prod(places)))
    matrices = xp.reshape(weight, (1, groups, channels // groups, each * math.prod(window)))
    cells = xp.reshape(
        xp.matmul(matrices.mT, columns), (batch, groups * each, math.prod(window), *places)
    )
    sizes = tuple(
        (n - 1) * s + d * (k - 1) + 1 + more
        for n, s, d, k, more in zip(places, stride, dilation, window, output_padding, strict=True)
    )
    kept = tuple(slice(p, n - p) for p, n in zip(padding, sizes, strict=True))
    y = overlapped(xp.unstack(cells, axis=2), window, stride, dilation, sizes)
    y = y[(..., *kept)] if any(padding) else y
    return y if bias is None else y + xp.reshape(bias, (groups * each, *(1 for _ in places)))
