"""Convolution, and its transpose."""

from __future__ import annotations

import math
from collections.abc import Sequence

from polynet.functional.padding import pad
from polynet.functional.windows import check_each, overlapped, views
from polynet.integers import positive, several
from polynet.tensor import checking, composition


def _check(name, x, weight, bias=None, *, stride, padding, dilation, groups=1):
    axes = _check_shapes(name, x, weight, groups, transposed=False)
    check_each(name, axes, 1, stride=stride, dilation=dilation)
    ends = padding if isinstance(padding, Sequence) else (padding,)
    if len(ends) != axes or any(several(pair, least=0) is None or len(pair) != 2 for pair in ends):
        raise ValueError(
            f"{name}: padding is a tuple of {axes} pairs of integers from 0, one for each axis of "
            f"the window; got {padding!r}"
        )


def _check_transpose(
    name, x, weight, bias=None, *, stride, padding, output_padding, dilation, groups=1
):
    axes = _check_shapes(name, x, weight, groups, transposed=True)
    check_each(name, axes, 1, stride=stride, dilation=dilation)
    check_each(name, axes, 0, padding=padding, output_padding=output_padding)


def _check_shapes(name, x, weight, groups, *, transposed):
    """Raise ValueError unless `x` has the channels of the weight; return the window's axes."""
    positive(f"{name}: groups", groups)
    shapes = f"x has shape {tuple(x.shape)}, weight {tuple(weight.shape)}, in {groups} groups"
    if x.ndim < 3 or x.ndim != weight.ndim:
        raise ValueError(f"{name}: {shapes}; expected as many axes of both, 3 or more")
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    if x.shape[1] != channels or weight.shape[0] % groups:
        raise ValueError(
            f"{name}: {shapes}; expected {channels} channels along axis 1 of x, and groups that "
            "divide the first axis of the weight"
        )
    return x.ndim - 2


@checking(_check)
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
    cells = views(pad(x, padding=padding), window, stride, dilation)
    places = tuple(cells[0].shape[2:])
    columns = xp.stack(cells, axis=2)  # (batch, channels, window, *places)
    columns = xp.reshape(columns, (x.shape[0], groups, each * math.prod(window), math.prod(places)))
    matrices = xp.reshape(weight, (1, groups, out // groups, each * math.prod(window)))
    y = xp.reshape(xp.matmul(matrices, columns), (x.shape[0], out, *places))
    return y if bias is None else y + xp.reshape(bias, (out, *(1 for _ in places)))


@checking(_check_transpose)
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
