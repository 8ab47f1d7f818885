"""Convolution and its transpose as matrix products with what the windows see (im2col)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from polynet_cupy import winograd
from polynet_cupy.launch import column_sum, real
from polynet_cupy.normalisation import channel_sum
from polynet_cupy.products import product, rounded
from polynet_cupy.windows import (
    Padding,
    Sizes,
    by_window,
    countable,
    places_along,
    window_over,
)

FEW = 256
"""Places of a window: with fewer, the matrix of one sample would be too narrow for a GPU."""


class Matrices:
    """How images, weights, and what windows see become matrices, and how products become images.

    There is one product for each sample and group, so matrices have the shape (batch, groups, …).
    Where a window has few places, there is one product for each group over all samples; matrices
    then have the shape (groups, …), and the images are laid out channel by channel.
    """

    def __init__(self, xp: Any, batch: int, groups: int, window: Sizes, places: Sizes) -> None:
        self._xp = xp
        self._batch = batch
        self._groups = groups
        self._window = window
        self._places = math.prod(places)
        self._joined = self._places < FEW

    def images(self, x: Any) -> Any:
        """Images of shape (batch, channels, *places) as matrices with one row per channel."""
        xp, (n, channels) = self._xp, x.shape[:2]
        if not self._joined:
            return xp.reshape(x, (n, self._groups, channels // self._groups, self._places))
        turned = xp.permute_dims(xp.reshape(x, (n, channels, self._places)), (1, 0, 2))
        shape = (self._groups, channels // self._groups, n * self._places)
        return xp.reshape(xp.contiguous(turned), shape)

    def to_images(self, matrices: Any, shape: Sizes) -> Any:
        xp = self._xp
        if self._joined:
            turned = xp.reshape(matrices, (shape[1], shape[0], self._places))
            matrices = xp.contiguous(xp.permute_dims(turned, (1, 0, 2)))
        return xp.reshape(matrices, shape)

    def weight(self, weight: Any) -> Any:
        """The weight as matrices with one row per index of its first axis."""
        shape = (self._groups, weight.shape[0] // self._groups, -1)
        return self._xp.reshape(weight, shape if self._joined else (1, *shape))

    def to_weight(self, products: Any, shape: Sizes) -> Any:
        """The gradient of the weight: the sum of the products over the samples."""
        xp = self._xp
        if not self._joined:
            products = column_sum(xp, xp.reshape(products, (self._batch, -1)))
        return xp.reshape(products, shape)

    def steps(self, channels: int) -> Sizes:
        """The argument `seen` of `window_over`: the layout of what the window sees."""
        if self._joined:
            of_cell = self._batch * self._places
            return channels, self._places, math.prod(self._window) * of_cell, of_cell
        of_volume = math.prod(self._window) * self._places
        return channels, channels * of_volume, of_volume, self._places

    def seen(self, images: Any, over: np.ndarray) -> Any:
        """What the window sees at each place: one row per channel and cell (im2col)."""
        xp, cells = self._xp, math.prod(self._window)
        rows = images.shape[1] // self._groups * cells
        shape: Sizes = (self._batch, self._groups, rows, self._places)
        if self._joined:
            shape = (self._groups, rows, self._batch * self._places)
        columns = xp.empty(shape, dtype=images.dtype)
        kernel, dtype = ("im2col", images.dtype) if real(images) else ("im2col_bfloat16", "float32")
        by_window(xp, kernel, dtype, columns.size // cells, self._window, images, columns, over)
        return columns

    def met(self, columns: Any, shape: Sizes, over: np.ndarray) -> Any:
        """Images that add up, at each place, what the cells of the windows have there (col2im)."""
        images = self._xp.empty(shape, dtype=columns.dtype)
        given = (columns, images, over)
        by_window(self._xp, "col2im", columns.dtype, images.size, self._window, *given)
        return images


def convolution(
    xp: Any, x: Any, weight: Any, bias: Any = None, *, stride: Sizes, padding: Padding,
    dilation: Sizes, groups: int = 1,
) -> Any:  # fmt: skip
    """Products of the windows with what they see, plus the bias.

    The gradient of the bias is the sum of g by channel.
    """
    if not _convolves(x, weight, bias, len(stride), groups, weight.shape[0]):
        return NotImplemented
    if x.shape[1] != weight.shape[1] * groups:
        return NotImplemented
    window = tuple(weight.shape[2:])
    padded = tuple(n + sum(p) for n, p in zip(x.shape[2:], padding, strict=True))
    out = tuple(map(places_along, padded, window, stride, dilation))
    if min(out) < 1 or not _counts(padded, out, window, stride, dilation):
        return NotImplemented
    x, weight = map(xp.contiguous, (x, weight))
    steps = {*stride, *dilation}
    if winograd.suits(xp, x, weight, out, groups, steps):
        y, back = winograd.convolution(xp, x, weight, padding, groups)
    else:
        y, back = _as_matrices(xp, x, weight, stride, padding, dilation, groups, out)

    def pullback(g: Any, needs: tuple[bool, ...]) -> Any:
        g = xp.contiguous(g)
        found = [*back(g, *needs[:2])]
        if len(needs) > 2:
            found.append(channel_sum(xp, g) if needs[2] else None)
        return tuple(found)

    return _biased(xp, y, bias), pullback


def _as_matrices(
    xp: Any, x: Any, weight: Any, stride: Sizes, padding: Padding, dilation: Sizes, groups: int,
    out: Sizes,
) -> tuple[Any, Callable[..., tuple[Any, Any]]]:  # fmt: skip
    """The product of the weight with what the window sees, and a function for the gradients.

    What the window sees is computed again for the weight's gradient: if it were kept, it would be
    the largest array that a network keeps.
    """
    x, weight = rounded(xp, x), rounded(xp, weight)
    window = tuple(weight.shape[2:])
    as_matrices = Matrices(xp, x.shape[0], groups, window, out)
    before, steps = tuple(p for p, _ in padding), as_matrices.steps(x.shape[1])
    over = window_over(x.shape, window, stride, before, dilation, out, steps)
    matrices = as_matrices.weight(weight)
    as_it_is = {*window, *stride} == {1} and not any(map(sum, padding))

    def seen() -> Any:
        return as_matrices.images(x) if as_it_is else as_matrices.seen(x, over)

    def back(g: Any, to_x: bool, to_weight: bool) -> tuple[Any, Any]:
        gx = gw = None
        images = as_matrices.images(rounded(xp, g)) if to_x or to_weight else None
        if to_x:
            there = as_matrices.to_images if as_it_is else partial(as_matrices.met, over=over)
            gx = there(product(xp, matrices.mT, images), x.shape)
        if to_weight:
            gw = as_matrices.to_weight(product(xp, images, seen().mT), weight.shape)
        return gx, gw

    products = product(xp, matrices, seen())
    return as_matrices.to_images(products, (x.shape[0], weight.shape[0], *out)), back


def convolution_transpose(
    xp: Any, x: Any, weight: Any, bias: Any = None, *, stride: Sizes, padding: Sizes,
    output_padding: Sizes, dilation: Sizes, groups: int = 1,
) -> Any:  # fmt: skip
    """What a convolution computes as the gradient of its images.

    The gradient of `x` is, in turn, a convolution of g.
    """
    outputs = weight.shape[1] * groups
    if not _convolves(x, weight, bias, len(stride), groups, outputs):
        return NotImplemented
    if x.shape[1] != weight.shape[0]:
        return NotImplemented
    window, out = tuple(weight.shape[2:]), tuple(x.shape[2:])
    axes = zip(out, window, stride, output_padding, dilation, strict=True)
    padded = tuple((n - 1) * s + d * (k - 1) + 1 + m for n, k, s, m, d in axes)
    sizes = tuple(n - 2 * p for n, p in zip(padded, padding, strict=True))
    if min(sizes) < 1 or not _counts(padded, out, window, stride, dilation):
        return NotImplemented
    x, weight = (rounded(xp, xp.contiguous(a)) for a in (x, weight))
    shape = (x.shape[0], outputs, *sizes)
    as_matrices = Matrices(xp, x.shape[0], groups, window, out)
    over = window_over(shape, window, stride, padding, dilation, out, as_matrices.steps(shape[1]))
    given, matrices = as_matrices.images(x), as_matrices.weight(weight)
    sent = product(xp, matrices.mT, given)
    of_x, of_weight = x.shape, weight.shape  # so that the pullback keeps their matrices only

    def pullback(g: Any, needs: tuple[bool, ...]) -> Any:
        found: list[Any] = [None] * len(needs)
        g = xp.contiguous(g)
        seen: Any = as_matrices.seen(rounded(xp, g), over) if any(needs[:2]) else None
        if needs[0]:
            found[0] = as_matrices.to_images(product(xp, matrices, seen), of_x)
        if needs[1]:
            found[1] = as_matrices.to_weight(product(xp, given, seen.mT), of_weight)
        if any(needs[2:]):
            found[2] = channel_sum(xp, g)
        return tuple(found)

    return _biased(xp, as_matrices.met(sent, shape, over), bias), pullback


def _convolves(x: Any, weight: Any, bias: Any, axes: int, groups: int, outputs: int) -> bool:
    """Whether the kernels can take these arrays, by their axes, sizes, dtype and number."""
    if axes not in (1, 2, 3) or x.ndim != axes + 2 or weight.ndim != axes + 2:
        return False
    if bias is not None and bias.shape != (outputs,):
        return False
    channels = x.shape[1]
    volumes = x.shape[0] * max(channels, weight.shape[1] * groups)
    whole = countable(volumes) and not channels % groups and not weight.shape[0] % groups
    return bool(whole and x.size and weight.size and real(x, weight, bias))


def _counts(padded: Sizes, out: Sizes, window: Sizes, stride: Sizes, dilation: Sizes) -> bool:
    """Whether the kernels can count a padded volume, and all that the windows see of it."""
    seen = math.prod(out) * math.prod(window)
    return countable(seen, math.prod(padded), *stride, *dilation)


def _biased(xp: Any, y: Any, bias: Any) -> Any:
    """`y` with the bias added to each channel, in place."""
    if bias is not None:
        y += xp.reshape(bias, (-1, *(1 for _ in y.shape[2:])))
    return y
