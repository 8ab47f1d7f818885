"""Indices of every form, for reading, assigning and taking; and the sums of their derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from properties.draws import (
    Draw,
    Sample,
    Samples,
    Shape,
    an_axis,
    broadcastable,
    integers,
    lesser,
    numbers,
    real_or_complex,
    sample,
    shapes,
    truths,
)


def a_slice(draw: Draw, n: int) -> slice:
    """A slice of an axis of size `n`, with any step, and with bounds that the standard allows."""
    step = draw(st.sampled_from([None, 1, 2, 3, -1, -2, -3]))
    below, above = (0, n) if step is None or step > 0 else (1, max(0, n - 1))
    start = draw(st.none() | st.integers(-n, above))
    return slice(start, draw(st.none() | st.integers(-n - below, above)), step)


def slices(draw: Draw, shape: Shape) -> Any:
    """A key of integers, slices, `...` and None. An integer may also be a 0-dimensional array."""
    keys: list[Any] = []
    for n in shape:
        whole = draw(st.integers(0, 2)) == 0 and n > 0
        keys.append(draw(st.integers(-n, n - 1)) if whole else a_slice(draw, n))
    if len(keys) == 1 and type(keys[0]) is int and draw(st.booleans()):
        return np.asarray(keys[0])
    start = draw(st.integers(0, len(keys)))
    stop = draw(st.integers(start, len(keys)))
    if draw(st.booleans()):
        keys[start:stop] = [...]
    for _ in range(draw(st.sampled_from([0, 1, 0, 2]))):
        keys.insert(draw(st.integers(0, len(keys))), None)
    return keys[0] if len(keys) == 1 and draw(st.booleans()) else tuple(keys)


def places(draw: Draw, shape: Shape) -> Any:
    """An integer array for each axis, or an integer. Places may repeat, or count from the back.

    If a place is assigned to several times, the last value counts, as in NumPy.
    """
    named = draw(broadcastable(len(shape), most=2))
    keys: list[Any] = [integers(draw, s, -n, n - 1) for s, n in zip(named, shape, strict=True)]
    if any(k.ndim for k in keys[1:]) and draw(st.booleans()):
        keys[0] = draw(st.integers(-shape[0], shape[0] - 1))
    return tuple(keys) if len(keys) > 1 else keys[0]


def a_key(draw: Draw, shape: Shape) -> Any:
    kind = draw(st.sampled_from(["places", "slices", "mask"]))
    if kind == "mask":
        return truths(draw, shape[: draw(st.integers(min(1, len(shape)), len(shape)))])
    if kind == "places" and shape and 0 not in shape:
        return places(draw, shape)
    return slices(draw, shape)


@st.composite
def read(draw: Draw) -> Sample:
    x = real_or_complex(draw, draw(shapes()))
    return sample(x, a_key(draw, x.shape))


@st.composite
def assign(draw: Draw) -> Sample:
    """Values of any shape that broadcasts to `x[key]`, or a number."""
    x = real_or_complex(draw, draw(shapes()))
    key = a_key(draw, x.shape)
    if draw(st.integers(0, 3)) == 0:
        return sample(x, key, 0.7)
    return sample(x, key, numbers(draw, lesser(draw, x[key].shape)))


@st.composite
def take(draw: Draw) -> Sample:
    x = real_or_complex(draw, draw(shapes(least=1, side=1)))
    axis = an_axis(draw, x.ndim)
    n = x.shape[axis]
    indices = integers(draw, (draw(st.integers(0, 4)),), -n, n - 1)
    if x.ndim == 1 and draw(st.booleans()):
        return sample(x, indices)
    return sample(x, indices, axis=axis)


@st.composite
def take_along_axis(draw: Draw) -> Sample:
    x = numbers(draw, draw(shapes(least=1, side=1)))
    axis = an_axis(draw, x.ndim)
    shape = [1 if draw(st.integers(0, 3)) == 0 else n for n in x.shape]
    shape[axis] = draw(st.integers(0, 4))
    n = x.shape[axis]
    return sample(x, integers(draw, tuple(shape), -n, n - 1), axis=axis)


@st.composite
def put_slice(draw: Draw) -> Sample:
    shape = draw(shapes(least=1, side=1))
    kept = []
    for n in shape:
        start, step = draw(st.integers(0, n)), draw(st.integers(1, 3))
        kept.append(range(start, n, step)[: draw(st.integers(0, 3))])
    return sample(numbers(draw, tuple(map(len, kept))), tuple(kept), shape)


@st.composite
def segment_sum(draw: Draw) -> Sample:
    x = numbers(draw, draw(shapes(least=1)))
    count = draw(st.integers(1, 4))
    return sample(x, integers(draw, x.shape[:1], 0, count - 1), count)


PROPERTIES: dict[str, Samples] = {
    "getitem": read(),
    "setitem": assign(),
    "take": take(),
    "take_along_axis": take_along_axis(),
    "put_slice": put_slice(),
    "segment_sum": segment_sum(),
}
