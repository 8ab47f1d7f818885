"""Elementwise functions: arrays that broadcast, real and complex, and Python numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from polynet.ops import OPS
from properties.draws import (
    Draw,
    Sample,
    Samples,
    away_from_zero,
    broadcastable,
    complex_numbers,
    generator,
    numbers,
    on_grid,
    real_or_complex,
    sample,
    shapes,
    truths,
)

DOMAINS = {
    **dict.fromkeys("asinh atan cos cosh exp expm1 sin sinh square tanh".split(), (-2.0, 2.0)),
    **dict.fromkeys("log log2 log10 log1p reciprocal sqrt".split(), (0.4, 3.0)),
    **dict.fromkeys("acos asin atanh tan".split(), (-0.8, 0.8)),
    **dict.fromkeys("abs conj negative positive real sign".split(), (-2.0, 2.0)),
    "acosh": (1.3, 3.0),
}


@st.composite
def of_one(draw: Draw, low: float, high: float) -> Sample:
    shape = draw(shapes())
    if draw(st.booleans()):
        return sample(complex_numbers(draw, shape))
    return sample(numbers(draw, shape, low, high))


@st.composite
def of_complex(draw: Draw) -> Sample:
    return sample(complex_numbers(draw, draw(shapes())))


def sides(draw: Draw, *arrays: np.ndarray) -> Sample:
    """A call with two arrays, one of which may be replaced by a Python number."""
    x, y = arrays
    which = draw(st.sampled_from(["arrays", "arrays", "left", "right"]))
    if which == "left" and x.ndim == 0:
        return sample(x.item(), y)
    if which == "right" and y.ndim == 0:
        return sample(x, y.item())
    return sample(x, y)


@st.composite
def arithmetic(draw: Draw) -> Sample:
    left, right = draw(broadcastable(2))
    make: Any = complex_numbers if draw(st.booleans()) else numbers
    return sides(draw, make(draw, left), make(draw, right))


@st.composite
def quotient(draw: Draw) -> Sample:
    left, right = draw(broadcastable(2))
    if draw(st.booleans()):
        return sides(draw, complex_numbers(draw, left), complex_numbers(draw, right))
    return sides(draw, numbers(draw, left), away_from_zero(draw, right))


@st.composite
def power(draw: Draw) -> Sample:
    left, right = draw(broadcastable(2))
    if draw(st.booleans()):
        x = away_from_zero(draw, left) if draw(st.booleans()) else complex_numbers(draw, left)
        return sample(x, draw(st.sampled_from([-2, -1, 0, 1, 2, 3, 0.0, 2.0])))
    if draw(st.booleans()):
        return sides(draw, complex_numbers(draw, left), complex_numbers(draw, right))
    return sides(draw, numbers(draw, left, 0.4, 2.0), numbers(draw, right))


@st.composite
def of_two(draw: Draw) -> Sample:
    """Two real arrays away from 0."""
    left, right = draw(broadcastable(2))
    return sides(draw, away_from_zero(draw, left), away_from_zero(draw, right))


@st.composite
def of_two_arrays(draw: Draw) -> Sample:
    left, right = draw(broadcastable(2))
    return sample(away_from_zero(draw, left), away_from_zero(draw, right))


@st.composite
def larger_or_smaller(draw: Draw) -> Sample:
    left, right = draw(broadcastable(2))
    return sides(draw, on_grid(draw, left, -20, 20), on_grid(draw, right, -20, 20, past=0.05))


@st.composite
def quotient_of_one_floor(draw: Draw) -> Sample:
    """x and y whose quotient lies between two integers, so that its floor does not jump."""
    left, right = draw(broadcastable(2))
    floors = generator(draw).integers(-3, 3, left)
    sign = draw(st.sampled_from([-1.0, 1.0]))
    x, y = floors + numbers(draw, left, 0.3, 0.7), sign * numbers(draw, right, 0.97, 1.0)
    return sides(draw, np.asarray(x), np.asarray(y))


@st.composite
def clip(draw: Draw) -> Sample:
    shape, *others = draw(broadcastable(3))
    whole = np.broadcast_shapes(shape, *others)
    x = on_grid(draw, whole, -20, 20)
    bounds: list[Any] = [
        on_grid(draw, others[0], -20, 0, past=0.033),
        on_grid(draw, others[1], 0, 20, past=0.066),
    ]
    for i in range(2):
        kind = draw(st.sampled_from(["array", "number", "none"]))
        if kind != "array":
            bounds[i] = None if kind == "none" else (-0.76, 0.83)[i]
    return sample(x, *bounds)


@st.composite
def chosen(draw: Draw) -> Sample:
    """Arguments of `where`."""
    condition, left, right = draw(broadcastable(3))
    x, y = real_or_complex(draw, left), real_or_complex(draw, right)
    return Sample((truths(draw, condition), *sides(draw, x, y).args))


FUNCTIONS = {name: OPS[name] for name in ("conj", "imag", "real")}
"""The functions themselves: the suite wraps them, so that its inputs and results are real."""

PROPERTIES: dict[str, Samples] = {
    **{name: of_one(*domain) for name, domain in DOMAINS.items()},
    **dict.fromkeys("add subtract multiply".split(), arithmetic()),
    **dict.fromkeys("atan2 copysign hypot logaddexp".split(), of_two()),
    **dict.fromkeys("maximum minimum".split(), larger_or_smaller()),
    "nextafter": of_two_arrays(),
    "divide": quotient(),
    "pow": power(),
    "remainder": quotient_of_one_floor(),
    "clip": clip(),
    "imag": of_complex(),
    "where": chosen(),
}
