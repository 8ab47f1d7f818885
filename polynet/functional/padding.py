"""Numbers around an array: one number, or the array's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import array_api_compat

from polynet.backend import Array
from polynet.integers import several
from polynet.tensor import checking, composition

MODES = "constant", "reflect", "replicate"


def _check(name, x, /, *, padding, mode="constant", value=0.0):
    ends = padding if isinstance(padding, Sequence) else (padding,)
    pairs = [several(pair, least=0) for pair in ends]
    if len(pairs) > x.ndim or any(pair is None or len(pair) != 2 for pair in pairs):
        raise ValueError(
            f"{name}: padding is a tuple of pairs of integers from 0, one for each of the last "
            f"axes of an array of {x.ndim} dimensions; got {padding!r}"
        )
    if mode not in MODES:
        raise ValueError(f"{name}: unknown mode {mode!r}. Expected one of: {', '.join(MODES)}.")
    check_places(name, x, padding, mode)


def check_places(
    what: str, x: Array, padding: Sequence[tuple[int, int]], mode: str, inputs: str = "x has"
) -> None:
    """Raise ValueError unless `x` has the numbers that `mode` puts around it."""
    for axis, ends in enumerate(padding, start=x.ndim - len(padding)):
        least = {"constant": 0, "reflect": max(ends) + 1, "replicate": 1}[mode]
        if any(ends) and x.shape[axis] < least:
            raise ValueError(
                f"{what}: {inputs} too few places along axis {axis}, {x.shape[axis]}, to be padded "
                f"so; give it {least} or more, or less padding"
            )


@checking(_check)
@composition
def pad(xp, x, /, *, padding, mode="constant", value=0.0):
    """`x` with numbers before and after each of its last axes.

    `padding` is a pair (before, after) for each of these axes. The numbers are `value`; in the mode
    "reflect" those of `x`, mirrored at its first and at its last; in the mode "replicate" copies of
    its first and of its last. Raises ValueError where `x` has too few numbers for that.

    >>> from polynet import functional
    >>> import numpy as np
    >>> functional.pad(np.asarray([1, 2, 3]), padding=((2, 1),), mode="reflect")
    array([3, 2, 1, 2, 3, 2])
    """
    for axis, (before, after) in enumerate(padding, start=x.ndim - len(padding)):
        if before or after:
            first, last = _around(xp, x, axis, (before, after), mode, value)
            x = xp.concat([first, x, last], axis=axis)
    return x


def _around(
    xp: Any, x: Array, axis: int, ends: tuple[int, int], mode: str, value: float
) -> tuple[Array, ...]:
    """The parts that come before and after `x` along the axis."""
    last, (before, after) = x.shape[axis] - 1, ends
    rest = tuple(slice(None) for _ in range(axis))
    if mode == "reflect":
        cuts = slice(1, 1 + before), slice(last - after, last)
        return tuple(xp.flip(x[(*rest, cut, ...)], axis=axis) for cut in cuts)
    shapes = [(*x.shape[:axis], n, *x.shape[axis + 1 :]) for n in ends]
    if mode == "constant":
        device = array_api_compat.device(x)
        return tuple(xp.full(s, value, dtype=x.dtype, device=device) for s in shapes)
    edges = (x[(*rest, slice(i, i + 1), ...)] for i in (0, last))
    return tuple(xp.broadcast_to(edge, s) for edge, s in zip(edges, shapes, strict=True))
