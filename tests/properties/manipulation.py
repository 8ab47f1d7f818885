"""Changes of shape, order, dtype and device; arrays made of arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from polynet.backend import get_backend
from polynet.ops import OPS, array_namespace
from properties.draws import (
    Draw,
    Sample,
    Samples,
    an_axis,
    axes,
    broadcastable,
    lesser,
    numbers,
    one_array,
    one_real_or_complex,
    real_or_complex,
    sample,
    shapes,
    some_axes,
)


@st.composite
def reshape(draw: Draw) -> Sample:
    x = numbers(draw, draw(shapes()))
    sizes = draw(st.permutations([*x.shape, 1]))
    if draw(st.booleans()):
        sizes = [math.prod(sizes[:2]), *sizes[2:]]
    if x.size and draw(st.booleans()):
        sizes[draw(st.integers(0, len(sizes) - 1))] = -1
    return sample(x, tuple(sizes))


@st.composite
def permute_dims(draw: Draw) -> Sample:
    x = numbers(draw, draw(shapes()))
    order = draw(st.permutations(range(x.ndim)))
    return sample(x, tuple(a - x.ndim if draw(st.booleans()) else a for a in order))


@st.composite
def moveaxis(draw: Draw) -> Sample:
    x = numbers(draw, draw(shapes(least=1)))
    if draw(st.booleans()):
        return sample(x, an_axis(draw, x.ndim), an_axis(draw, x.ndim))
    source, goal = some_axes(draw, x.ndim), some_axes(draw, x.ndim)
    count = min(len(source), len(goal))
    return sample(x, source[:count], goal[:count])


@st.composite
def expand_dims(draw: Draw) -> Sample:
    """One new axis, or several, counted from either end."""
    x = numbers(draw, draw(shapes()))
    if draw(st.booleans()):
        return sample(x, axis=an_axis(draw, x.ndim + 1))
    count = draw(st.integers(0, 3))
    places = draw(st.permutations(range(x.ndim + count)))[:count]
    back = x.ndim + count
    return sample(x, axis=tuple(p - draw(st.sampled_from([0, back])) for p in places))


@st.composite
def squeeze(draw: Draw) -> Sample:
    sizes = draw(shapes(least=1))
    ones = some_axes(draw, len(sizes))
    places = {a % len(sizes) for a in ones}
    shape = tuple(1 if a in places else n for a, n in enumerate(sizes))
    return sample(numbers(draw, shape), ones[0] if len(ones) == 1 else ones)


@st.composite
def broadcast_to(draw: Draw) -> Sample:
    shape = draw(shapes())
    return sample(numbers(draw, lesser(draw, shape)), shape)


@st.composite
def broadcast_arrays(draw: Draw) -> Sample:
    return sample(*(numbers(draw, shape) for shape in draw(broadcastable(3))))


@st.composite
def flip(draw: Draw) -> Sample:
    x = numbers(draw, draw(shapes()))
    return sample(x, axis=axes(draw, x.ndim))


@st.composite
def roll(draw: Draw) -> Sample:
    x = numbers(draw, draw(shapes(least=1)))
    axis = axes(draw, x.ndim)
    shift: Any = draw(st.integers(-4, 4))
    if isinstance(axis, tuple):
        shift = tuple(draw(st.integers(-4, 4)) for _ in axis)
    return sample(x, shift, axis=axis)


@st.composite
def tile(draw: Draw) -> Sample:
    times = draw(st.lists(st.integers(0, 2), max_size=3))
    return sample(numbers(draw, draw(shapes(most=2))), tuple(times))


@st.composite
def repeat(draw: Draw) -> Sample:
    x = numbers(draw, draw(shapes(least=1)))
    axis = None if draw(st.booleans()) else an_axis(draw, x.ndim)
    length = x.size if axis is None else x.shape[axis]
    if draw(st.booleans()):
        return sample(x, draw(st.integers(0, 3)), axis=axis)
    counts = draw(st.lists(st.integers(0, 3), min_size=length, max_size=length))
    return sample(x, np.asarray(counts, dtype=np.int64), axis=axis)


@st.composite
def concat(draw: Draw) -> Sample:
    count = draw(st.integers(1, 3))
    if draw(st.booleans()):
        return sample([numbers(draw, draw(shapes(most=2))) for _ in range(count)], axis=None)
    shape = draw(shapes(least=1))
    axis = an_axis(draw, len(shape))
    parts = []
    for _ in range(count):
        sizes = list(shape)
        sizes[axis] = draw(st.integers(0, 3))
        parts.append(real_or_complex(draw, tuple(sizes)))
    return sample(parts, axis=axis)


@st.composite
def stack(draw: Draw) -> Sample:
    shape = draw(shapes(most=2))
    parts = [real_or_complex(draw, shape) for _ in range(draw(st.integers(1, 3)))]
    return sample(parts, axis=an_axis(draw, len(shape) + 1))


@st.composite
def unstack(draw: Draw) -> Sample:
    x = numbers(draw, draw(shapes(least=1, side=1)))
    return sample(x, axis=an_axis(draw, x.ndim))


@st.composite
def meshgrid(draw: Draw) -> Sample:
    lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    vectors = [numbers(draw, (n,)) for n in lengths]
    return sample(*vectors, indexing=draw(st.sampled_from(["xy", "ij"])))


@st.composite
def triangle(draw: Draw) -> Sample:
    return sample(real_or_complex(draw, draw(shapes(least=2))), k=draw(st.integers(-3, 3)))


@st.composite
def full_like(draw: Draw) -> Sample:
    value = numbers(draw, ()) if draw(st.booleans()) else 0.7
    return sample(numbers(draw, draw(shapes())), value)


@st.composite
def in_lists(draw: Draw) -> Sample:
    """0-dimensional arrays and a Python number, of which `asarray` makes nested lists."""
    return sample([numbers(draw, ()) for _ in range(draw(st.integers(1, 3)))], 0.7)


def asarray(arrays: list[Any], number: float) -> Any:
    """A matrix of three rows: the arrays, the arrays in reverse order, and the number."""
    return array_namespace(arrays[0]).asarray([arrays, arrays[::-1], [number] * len(arrays)])


def astype(x: Any) -> Any:
    """`x` as complex numbers: real and complex arrays can both be converted without loss."""
    xp = array_namespace(x)
    return xp.astype(x, xp.complex128)


def to_device(x: Any) -> Any:
    """x³: x is moved to the last of the backend's devices, squared there, and moved back."""
    home, *_, other = [*get_backend().devices().values()] * 2
    y = OPS["to_device"](x, other)
    return OPS["to_device"](y * y, home) * x


FUNCTIONS = {"asarray": asarray, "astype": astype, "to_device": to_device}
"""Calls of functions whose arguments, such as dtypes and devices, differ between libraries."""

PROPERTIES: dict[str, Samples] = {
    "reshape": reshape(),
    "permute_dims": permute_dims(),
    "moveaxis": moveaxis(),
    "expand_dims": expand_dims(),
    "squeeze": squeeze(),
    "broadcast_to": broadcast_to(),
    "broadcast_arrays": broadcast_arrays(),
    "flip": flip(),
    "roll": roll(),
    "tile": tile(),
    "repeat": repeat(),
    "concat": concat(),
    "stack": stack(),
    "unstack": unstack(),
    "meshgrid": meshgrid(),
    **dict.fromkeys("tril triu".split(), triangle()),
    "full_like": full_like(),
    "asarray": in_lists(),
    "astype": one_real_or_complex(shapes()),
    "to_device": one_array(shapes()),
    "matrix_transpose": one_real_or_complex(shapes(least=2)),
}
