"""Convolution as a matrix product of what the window sees (im2col), and its transpose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from polynet_cupy.launch import column_sum, elementwise, real
from polynet_cupy.products import product, rounded
from polynet_cupy.windows import MOST, Sizes, places_along, window_over


def convolution(
    xp: Any, x: Any, weight: Any, bias: Any = None, *, stride: Sizes,
    padding: tuple[tuple[int, int], ...], dilation: Sizes, groups: int = 1,
) -> Any:  # fmt: skip
    """One product a sample and group: of the weights, and what the window sees there.

    What it sees is computed again for the weight's gradient: kept, it would be the largest of all
    that a network keeps.
    """
    if not _convolves(x, weight, bias, len(stride), groups):
        return NotImplemented
    if x.shape[1] != weight.shape[1] * groups:
        return NotImplemented
    window = tuple(weight.shape[2:])
    sizes = [n + sum(p) for n, p in zip(x.shape[2:], padding, strict=True)]
    out = tuple(map(places_along, sizes, window, stride, dilation))
    if min(out) < 1 or math.prod(out) * math.prod(window) > MOST:
        return NotImplemented
    x, weight = (rounded(xp, xp.contiguous(a)) for a in (x, weight))
    over = window_over(x.shape, window, stride, tuple(p for p, _ in padding), dilation, out)
    batch, cells, places = x.shape[0], math.prod(weight.shape[1:]), math.prod(out)
    matrices = xp.reshape(weight, (1, groups, weight.shape[0] // groups, cells))
    as_it_is = {*window, *stride} == {1} and not any(map(sum, padding))

    def seen() -> Any:
        shape = (batch, groups, cells, places)
        return xp.reshape(x, shape) if as_it_is else _seen(xp, x, shape, over)

    def pullback(g: Any, needs: tuple[bool, ...]) -> Any:
        found: list[Any] = [None] * len(needs)
        g = xp.contiguous(g)
        images = xp.reshape(rounded(xp, g), (batch, groups, -1, places))
        if needs[0]:
            back = product(xp, matrices.mT, images)
            found[0] = xp.reshape(back, x.shape) if as_it_is else _met(xp, back, x.shape, over)
        if needs[1]:
            found[1] = _summed(xp, product(xp, images, seen().mT), weight.shape)
        if any(needs[2:]):
            found[2] = _by_channel(xp, g)
        return tuple(found)

    y = xp.reshape(product(xp, matrices, seen()), (batch, weight.shape[0], *out))
    return _biased(xp, y, bias), pullback


def convolution_transpose(
    xp: Any, x: Any, weight: Any, bias: Any = None, *, stride: Sizes, padding: Sizes,
    output_padding: Sizes, dilation: Sizes, groups: int = 1,
) -> Any:  # fmt: skip
    """What a convolution sends back to its images; what goes back from here, it sends forth."""
    if not _convolves(x, weight, bias, len(stride), groups) or x.shape[1] != weight.shape[0]:
        return NotImplemented
    window, out = tuple(weight.shape[2:]), tuple(x.shape[2:])
    axes = zip(out, window, stride, padding, output_padding, dilation, strict=True)
    sizes = tuple((n - 1) * s + d * (k - 1) + 1 + m - 2 * p for n, k, s, p, m, d in axes)
    if min(sizes) < 1 or math.prod(out) * math.prod(window) > MOST or math.prod(sizes) > MOST:
        return NotImplemented
    x, weight = (rounded(xp, xp.contiguous(a)) for a in (x, weight))
    (batch, channels), each, places = x.shape[:2], weight.shape[1], math.prod(out)
    cells, shape = each * math.prod(window), (batch, groups * each, *sizes)
    given = xp.reshape(x, (batch, groups, channels // groups, places))
    matrices = xp.reshape(weight, (1, groups, channels // groups, cells))
    sent = product(xp, matrices.mT, given)
    over = window_over(shape, window, stride, padding, dilation, out)

    def pullback(g: Any, needs: tuple[bool, ...]) -> Any:
        found: list[Any] = [None] * len(needs)
        g = xp.contiguous(g)
        if any(needs[:2]):
            seen = _seen(xp, rounded(xp, g), (batch, groups, cells, places), over)
        if needs[0]:
            found[0] = xp.reshape(product(xp, matrices, seen), x.shape)
        if needs[1]:
            found[1] = _summed(xp, product(xp, given, seen.mT), weight.shape)
        if any(needs[2:]):
            found[2] = _by_channel(xp, g)
        return tuple(found)

    return _biased(xp, _met(xp, sent, shape, over), bias), pullback


def _convolves(x: Any, weight: Any, bias: Any, axes: int, groups: int) -> bool:
    """Whether the kernels can take these: images, a bank of windows, one dtype, not too many."""
    if axes not in (1, 2) or x.ndim != axes + 2 or weight.ndim != axes + 2:
        return False
    channels, outputs = x.shape[1], weight.shape[0]
    most = x.shape[0] * max(channels, weight.shape[1] * groups)
    whole = most <= MOST and not channels % groups and not outputs % groups
    return bool(whole and x.size and weight.size and real(x, weight, bias))


def _seen(xp: Any, images: Any, shape: tuple[int, ...], over: np.ndarray) -> Any:
    """What the window sees at each place, one below the other."""
    columns = xp.empty(shape, dtype=images.dtype)
    kernel, dtype = ("im2col", images.dtype) if real(images) else ("im2col_bfloat16", "float32")
    cells = int(over["window_height"] * over["window_width"])
    elementwise(xp, kernel, dtype, columns.size // cells, images, columns, over)
    return columns


def _met(xp: Any, columns: Any, shape: tuple[int, ...], over: np.ndarray) -> Any:
    """Images, at each place of which all is added up that windows see there."""
    images = xp.empty(shape, dtype=columns.dtype)
    elementwise(xp, "col2im", columns.dtype, images.size, columns, images, over)
    return images


def _summed(xp: Any, each: Any, shape: tuple[int, ...]) -> Any:
    """The sum over the samples."""
    return xp.reshape(column_sum(xp, xp.reshape(each, (each.shape[0], -1))), shape)


def _by_channel(xp: Any, g: Any) -> Any:
    """The sum of all that is not the channel's axis."""
    return xp.sum(xp.reshape(g, (*g.shape[:2], -1)), axis=(0, 2))


def _biased(xp: Any, y: Any, bias: Any) -> Any:
    """With a number added to each channel, in place."""
    if bias is not None:
        y += xp.reshape(bias, (-1, *(1 for _ in y.shape[2:])))
    return y
