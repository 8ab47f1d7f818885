"""Resampling images to another size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import array_api_compat

from polynet.errors import unknown
from polynet.functional.linear import linear
from polynet.integers import integer
from polynet.ops.indexing import index_dtype
from polynet.tensor import composition

AXES = {"nearest": (1, 2), "linear": (1,), "bilinear": (2,)}
"""By mode, the numbers of axes that images may have after the channels."""


@composition
def interpolate(xp, x, /, *, size=None, scale_factor=None, mode="nearest", align_corners=None):
    """`x` resampled to another size along each axis after the channels.

    `x` is (batch, channels, width), or (batch, channels, height, width). An axis of length n gets
    the length m, which is `size`, or ⌊n · `scale_factor`⌋; each is one number, or one for every
    axis. With r = 1 / `scale_factor`, or n / m where the size is given, element i of the result is
    read at position p, limited to 0 … n - 1:

        "nearest":   x[⌊p⌋],                             p = i · r
        "linear":    Σ max(0, 1 - |p - j|) · x[j] over j, p = (i + 1/2) · r - 1/2
                     … with `align_corners`,              p = i · (n - 1) / (m - 1)

    Where m is n, an axis stays as it is. Where m is 2 n, "nearest" repeats each element twice,
    whatever the factor. PyTorch does this for images, but not for sequences by "nearest".
    "bilinear" is "linear" along both axes of an image. Both are matrix products: a NaN or ∞ leaves
    NaN in its whole row and column. Otherwise sizes and values are PyTorch's. Images are not
    smoothed before they are made smaller.

    Raises ValueError for other settings and shapes, and TypeError for integers in a mode that
    interpolates.

    >>> from polynet import functional
    >>> import numpy as np
    >>> functional.interpolate(np.asarray([[[0.0, 4.0]]]), scale_factor=2, mode="linear")
    array([[[0., 1., 3., 4.]]])
    """
    size, scale_factor, axes = resampling("interpolate", size, scale_factor, mode, align_corners)
    sizes = x.shape[2:]
    if len(sizes) not in axes or 0 in sizes:
        expected = " or ".join(f"(batch, channels, {'height, ' * (a - 1)}width)" for a in axes)
        raise ValueError(f"interpolate: expected shape {expected}, got {tuple(x.shape)}")
    if mode != "nearest" and not xp.isdtype(x.dtype, "real floating"):
        raise TypeError(f"interpolate: mode {mode!r} blends floating numbers, not {x.dtype}")
    steps = list(enumerate(_steps(sizes, size, scale_factor), start=2))
    for axis, (n, m, step) in reversed(steps):
        if m != n and mode == "nearest":
            x = _nearest(xp, x, axis, m, step)
        elif m != n:
            weights = _weights(xp, x, n, m, None if align_corners else step)
            x = linear(x, weights) if axis == x.ndim - 1 else xp.matmul(weights, x)
    return x


def resampling(what, size, scale_factor, mode, align_corners):
    """`size` and `scale_factor` as Python's numbers, and the numbers of axes that they fit."""
    if mode not in AXES:
        raise ValueError(f"{what}: {unknown('mode', mode, AXES)}")
    if (size is None) == (scale_factor is None):
        raise ValueError(
            f"{what}: takes one of size and scale_factor; got {size!r} and {scale_factor!r}"
        )
    if mode == "nearest" and align_corners is not None:
        raise ValueError(
            f"{what}: align_corners is for modes that blend, 'linear' and 'bilinear'; mode "
            f"'nearest' takes None, not {align_corners!r}"
        )
    given = scale_factor if size is None else size
    numbers = _each(given, _factor if size is None else integer)
    axes = tuple(a for a in AXES[mode] if not isinstance(numbers, tuple) or a == len(numbers))
    if numbers is None or not axes:
        name, kind = ("scale_factor", "number") if size is None else ("size", "integer")
        raise ValueError(
            f"{what}: {name} is a positive {kind}, or one for each axis after the channels, "
            f"{' or '.join(map(str, AXES[mode]))} of them; got {given!r}"
        )
    return *((None, numbers) if size is None else (numbers, None)), axes


def _each(given, number):
    """A number, or a tuple of numbers, converted by `number`; None if one of them is not valid."""
    if not isinstance(given, Sequence):
        return number(given)
    numbers = tuple(map(number, given))
    return None if None in numbers else numbers


def _factor(value):
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    number = float(value)
    return number if 0 < number < math.inf else None


def _steps(sizes, size, scale_factor):
    """For each axis: its length n, the new length m, and the step r between read positions."""
    given = scale_factor if size is None else size
    numbers = given if isinstance(given, tuple) else (given,) * len(sizes)
    for n, number in zip(sizes, numbers, strict=True):
        m = int(n * number) if size is None else number
        if m == 0:
            raise ValueError(f"interpolate: {number} times {n} places leave none")
        yield n, m, 1 / number if size is None else n / m


def _nearest(xp, x, axis, m, step):
    """x[⌊i · step⌋] along an axis."""
    n, shape = x.shape[axis], (*x.shape[:axis], m, *x.shape[axis + 1 :])
    times, rest = divmod(m, n)
    if not rest and (times == 2 or step == 1 / times):  # PyTorch ignores the step for times == 2
        return xp.reshape(xp.stack([x] * times, axis=axis + 1), shape)  # faster back than repeat
    # in float32 as in PyTorch, whatever the dtype of x, so that images and labels are read alike
    positions = xp.arange(m, dtype=xp.float32, device=array_api_compat.device(x)) * step
    indices = xp.astype(xp.floor(positions), index_dtype(xp, x))
    return xp.take(x, xp.clip(indices, max=n - 1), axis=axis)


def _weights(xp, x, n, m, step):
    """The weight (m, n) of each element in each result; without a step, the corners are aligned."""
    device = array_api_compat.device(x)
    i, j = (xp.arange(k, dtype=x.dtype, device=device) for k in (m, n))
    positions = i * ((n - 1) / max(m - 1, 1)) if step is None else (i + 0.5) * step - 0.5
    positions = xp.clip(positions, 0, n - 1)
    return xp.maximum(0, 1 - xp.abs(xp.expand_dims(positions, axis=1) - j))
