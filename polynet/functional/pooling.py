"""Pooling: one number for each window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import add

import array_api_compat

from polynet.functional.padding import pad
from polynet.functional.windows import check_each, ends, views
from polynet.tensor import checking, composition, real_composition


def _check_windows(
    name, x, /, *, window, stride, padding, dilation=None, ceil_mode=False, count_include_pad=True
):
    axes = len(window) if isinstance(window, Sequence) else x.ndim - 2
    check_each(name, axes, 1, window=window, stride=stride, dilation=dilation or (1,) * axes)
    check_each(name, axes, 0, padding=padding)
    if any(2 * p > n for p, n in zip(padding, window, strict=True)):
        raise ValueError(f"{name}: padding is at most half of window {window}; got {padding}")


def _check_sizes(name, x, /, *, sizes):
    check_each(name, len(sizes) if isinstance(sizes, Sequence) else x.ndim - 2, 1, sizes=sizes)


@checking(_check_windows)
@real_composition
def max_pool(xp, x, /, *, window, stride, padding, dilation=None, ceil_mode=False):
    """The largest number in each window, over the last axes of `x`, one for each of `window`.

    `padding` is the number of elements, all -∞, added on each side. `dilation` is the distance
    between the cells of the window (1 by default). With `ceil_mode`, windows that begin within `x`
    may end beyond it. Where several numbers are the largest, the gradient goes to the first, as in
    PyTorch. A NaN counts as the largest.
    """
    dilation = dilation or (1,) * len(window)
    reach = ends(x, window, stride, padding, dilation, ceil_mode=ceil_mode)
    return _largest(xp, views(pad(x, padding=reach, value=_least(xp, x)), window, stride, dilation))


@checking(_check_windows)
@composition
def avg_pool(xp, x, /, *, window, stride, padding, ceil_mode=False, count_include_pad=True):
    """The mean of each window, over the last axes of `x`.

    The zeros of the padding count in the mean, unless `count_include_pad` is false. With
    `ceil_mode`, windows that begin within `x` may end beyond it; what lies beyond the padding never
    counts.
    """
    x, ones = _floating(xp, x), (1,) * len(window)
    reach = ends(x, window, stride, padding, ones, ceil_mode=ceil_mode)
    total = reduce(add, views(pad(x, padding=reach), window, stride, ones))
    if not ceil_mode and (count_include_pad or not any(padding)):
        return total / math.prod(window)
    device, sizes = array_api_compat.device(x), x.shape[-len(window) :]
    counted = xp.ones(sizes, dtype=x.dtype, device=device)
    around = [(p, p) for p in padding]
    counted = pad(counted, padding=around, value=float(count_include_pad))
    beyond = [(0, after - p) for p, (_, after) in zip(padding, reach, strict=True)]
    return total / reduce(add, views(pad(counted, padding=beyond), window, stride, ones))


@checking(_check_sizes)
@real_composition
def adaptive_max_pool(xp, x, /, *, sizes):
    """The largest number of each of `sizes` windows, which cover the last axes of `x` evenly.

    Along an axis of length n, window i of m goes from ⌊i·n/m⌋ to ⌈(i+1)·n/m⌉, as in PyTorch.
    """
    window = _even_windows(x, sizes)
    if window is not None:
        return max_pool(x, window=window, stride=window, padding=(0,) * len(sizes))
    return _adaptive(xp, x, sizes, lambda part, axis: _largest(xp, xp.unstack(part, axis=axis)))


@checking(_check_sizes)
@composition
def adaptive_avg_pool(xp, x, /, *, sizes):
    """The mean of each of `sizes` windows, the same as in `adaptive_max_pool`."""
    window = _even_windows(x, sizes)
    if window is not None:
        return avg_pool(x, window=window, stride=window, padding=(0,) * len(sizes))
    return _adaptive(xp, _floating(xp, x), sizes, lambda part, axis: xp.mean(part, axis=axis))


def _floating(xp, x):
    """`x`, whole numbers as floating ones: their sums may not fit into their dtype."""
    return x if xp.isdtype(x.dtype, ("real floating", "complex floating")) else x * 1.0


def _least(xp, x):
    """What no number in an array of this dtype is below."""
    if xp.isdtype(x.dtype, "bool"):
        return False
    return xp.iinfo(x.dtype).min if xp.isdtype(x.dtype, "integral") else -math.inf


def _largest(xp, cells):
    largest = cells[0]
    for cell in cells[1:]:
        largest = xp.where((cell > largest) | xp.isnan(cell), cell, largest)
    return largest


def _even_windows(x, sizes):
    """The window that tiles the last axes of `x` exactly into `sizes` parts; None if none does."""
    if 0 in x.shape[-len(sizes) :]:
        raise ValueError(
            f"adaptive pooling into {sizes} needs a number along each of these axes; got an array "
            f"of shape {tuple(x.shape)}"
        )
    found = [divmod(n, m) for n, m in zip(x.shape[-len(sizes) :], sizes, strict=True)]
    return None if any(rest for _, rest in found) else tuple(n for n, _ in found)


def _adaptive(xp, x, sizes, pool):
    """`pool` of each part; the last axis goes first, which decides ties as PyTorch does."""
    for axis, m in zip(range(-1, -len(sizes) - 1, -1), reversed(sizes), strict=True):
        n, rest = x.shape[axis], (slice(None),) * (-1 - axis)
        cuts = [slice(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        x = xp.stack([pool(x[(..., cut, *rest)], axis) for cut in cuts], axis=axis)
    return x
