"""Reductions over any axes, running sums and products, differences and sorting."""

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
    axes,
    complex_numbers,
    numbers,
    sample,
    shapes,
)


def reduced(draw: Draw, least: int) -> tuple[Shape, dict[str, Any]]:
    """A shape and options. Reduced axes have at least `least` elements each; others may have 0."""
    ndim = draw(st.sampled_from([2, 3, 1, 0]))
    axis = axes(draw, ndim)
    gone = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    gone = {a % ndim for a in gone}
    sizes = [2, 3, 2, 3, 1, 0], [n for n in (2, 3, 2, 3, 1, 0) if n >= least]
    shape = tuple(draw(st.sampled_from(sizes[a in gone])) for a in range(ndim))
    return shape, {"axis": axis, "keepdims": draw(st.booleans())}


@st.composite
def total(draw: Draw) -> Sample:
    """Numbers to sum: they may be complex, and there may be none."""
    shape, options = reduced(draw, 0)
    make = complex_numbers if draw(st.booleans()) else numbers
    return sample(make(draw, shape), **options)


def with_zeros(draw: Draw, x: np.ndarray) -> np.ndarray:
    places = np.arange(x.size).reshape(x.shape) % draw(st.integers(1, 4)) == 0
    return np.where(places, 0.0, x) if draw(st.booleans()) else x


@st.composite
def product(draw: Draw) -> Sample:
    """Factors, of which one or several may be 0."""
    shape, options = reduced(draw, 0)
    if draw(st.booleans()):
        return sample(complex_numbers(draw, shape), **options)
    return sample(with_zeros(draw, numbers(draw, shape)), **options)


@st.composite
def of_some(draw: Draw) -> Sample:
    """Reductions of at least one number."""
    shape, options = reduced(draw, 1)
    return sample(numbers(draw, shape), **options)


@st.composite
def mean(draw: Draw) -> Sample:
    shape, options = reduced(draw, 1)
    make = complex_numbers if draw(st.booleans()) else numbers
    return sample(make(draw, shape), **options)


@st.composite
def spread(draw: Draw) -> Sample:
    """At least two numbers: the variance of one is constant, and its deviation has a kink."""
    shape, options = reduced(draw, 2)
    if not shape:
        shape, options["axis"] = (draw(st.integers(2, 4)),), None
    options["correction"] = draw(st.sampled_from([0, 1]))
    return sample(numbers(draw, shape), **options)


@st.composite
def running(draw: Draw) -> Sample:
    shape = draw(shapes(least=1) | st.sampled_from([(6,), (5, 1), (2, 7)]))
    x = with_zeros(draw, numbers(draw, shape))
    if draw(st.booleans()):
        x = complex_numbers(draw, shape)
    axis = None if len(shape) == 1 and draw(st.booleans()) else an_axis(draw, x.ndim)
    return sample(x, axis=axis, include_initial=draw(st.booleans()))


@st.composite
def sort(draw: Draw) -> Sample:
    x = numbers(draw, draw(shapes(least=1)))
    return sample(
        x,
        axis=an_axis(draw, x.ndim),
        descending=draw(st.booleans()),
        stable=draw(st.booleans()),
    )


@st.composite
def differences(draw: Draw) -> Sample:
    shape = draw(shapes(least=1, side=1))
    axis = an_axis(draw, len(shape))

    def end() -> Any:
        if draw(st.booleans()):
            return None
        long = tuple(
            draw(st.integers(1, 2)) if a == axis % len(shape) else n for a, n in enumerate(shape)
        )
        return numbers(draw, long)

    ends = end(), end()
    count = shape[axis] + sum(e.shape[axis] for e in ends if e is not None)
    return sample(numbers(draw, shape), *ends, axis=axis, n=draw(st.integers(0, min(count, 4))))


PROPERTIES: dict[str, Samples] = {
    "sum": total(),
    "prod": product(),
    "mean": mean(),
    **dict.fromkeys("max min".split(), of_some()),
    **dict.fromkeys("std var".split(), spread()),
    **dict.fromkeys("cumulative_prod cumulative_sum".split(), running()),
    "sort": sort(),
    "diff": differences(),
}
