"""Strategies that the properties share: shapes, axes, and numbers at which derivatives exist.

Numbers lie at least 0.02 away from 0, and apart from one another, so that a finite difference
crosses no kink and no tie.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from polynet.testing.samples import Sample

Draw = Callable[[Any], Any]
Shape = tuple[int, ...]
Samples = st.SearchStrategy[Sample]


def sample(*args: Any, **options: Any) -> Sample:
    """A call. The tests differentiate by its arrays of real or complex floating numbers."""
    return Sample(args, options)


def generator(draw: Draw) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def shapes(least: int = 0, most: int = 3, side: int = 0) -> st.SearchStrategy[Shape]:
    """Shapes of `least` to `most` dimensions, each of at least size `side`; few are empty."""
    sides = st.sampled_from([n for n in (2, 3, 2, 3, 1, 2, 3, 1, 0) if n >= side])
    dimensions = st.sampled_from([n for n in (2, 3, 1, 2, 3, 0) if least <= n <= most])
    return dimensions.flatmap(lambda n: st.tuples(*[sides] * n))


def lesser(draw: Draw, shape: Shape) -> Shape:
    """A shape that broadcasts to `shape`."""
    less = tuple(draw(st.sampled_from([n, n, 1])) for n in shape)
    return less[draw(st.sampled_from([0, 0, *range(len(less) + 1)])) :]


@st.composite
def broadcastable(draw: Draw, count: int, most: int = 3) -> tuple[Shape, ...]:
    """Shapes that broadcast against one another."""
    whole = draw(shapes(most=most))
    return tuple(lesser(draw, whole) for _ in range(count))


def numbers(draw: Draw, shape: Shape, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Different numbers, none of them near another or near 0."""
    count = math.prod(shape)
    grid = np.linspace(low, high, count + count // 50 + 3)[1:-1]  # spare ones: some are dropped
    grid = grid[np.abs(grid) > 0.02][:count]
    return np.asarray(generator(draw).permutation(grid).reshape(shape))


def on_grid(draw: Draw, shape: Shape, start: int, stop: int, past: float = 0.0) -> np.ndarray:
    """Tenths from `start` to `stop`, plus `past`: numbers with different `past` are never near."""
    return np.asarray(generator(draw).integers(start, stop, shape) / 10 + past)


def away_from_zero(draw: Draw, shape: Shape, low: float = 0.4, high: float = 2.0) -> np.ndarray:
    """Numbers of both signs, whose absolute values are from `low` to `high`."""
    signs = generator(draw).choice([-1.0, 1.0], shape)
    return np.asarray(numbers(draw, shape, low, high) * signs)


def complex_numbers(draw: Draw, shape: Shape) -> np.ndarray:
    """Complex numbers in all quadrants, away from the axes, where functions have branch cuts."""
    real, imaginary = (away_from_zero(draw, shape, 0.3, 0.9) for _ in range(2))
    return np.asarray(real + 1j * imaginary)


def real_or_complex(draw: Draw, shape: Shape) -> np.ndarray:
    return complex_numbers(draw, shape) if draw(st.booleans()) else numbers(draw, shape)


def an_axis(draw: Draw, ndim: int) -> int:
    """An axis, counted from the front or the back."""
    return draw(st.integers(-ndim, ndim - 1))


def some_axes(draw: Draw, ndim: int, least: int = 1) -> Shape:
    """Several axes, each counted from the front or the back."""
    chosen = draw(st.lists(st.sampled_from(range(ndim)), min_size=least, unique=True))
    return tuple(a - ndim if draw(st.booleans()) else a for a in chosen)


def axes(draw: Draw, ndim: int) -> int | Shape | None:
    """None, or an axis, or several."""
    if ndim == 0 or draw(st.booleans()):
        return None
    several = some_axes(draw, ndim)
    return several[0] if len(several) == 1 and draw(st.booleans()) else several


def integers(draw: Draw, shape: Shape, low: int, high: int) -> np.ndarray:
    """Integers from `low` to `high`, which may repeat."""
    return np.asarray(generator(draw).integers(low, high, shape, endpoint=True))


def truths(draw: Draw, shape: Shape) -> np.ndarray:
    return integers(draw, shape, 0, 1).astype(np.bool_)


@st.composite
def one_array(draw: Draw, shape: st.SearchStrategy[Shape], **fixed: Any) -> Sample:
    """A call with one array, and with options that are always the same."""
    return sample(numbers(draw, draw(shape)), **fixed)


@st.composite
def one_real_or_complex(draw: Draw, shape: st.SearchStrategy[Shape]) -> Sample:
    return sample(real_or_complex(draw, draw(shape)))
