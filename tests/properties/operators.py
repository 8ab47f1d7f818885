"""The operators of arrays: with arrays and Python numbers on either side, and in place."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from polynet.ops import array_namespace
from properties import elementwise, indexing, linear_algebra
from properties.draws import Draw, Sample, Samples, numbers, sample


def in_place(name: str) -> Callable[..., Any]:
    """A function for `x += y` and the like, which changes a copy of x in place."""
    change = getattr(operator, name)

    def call(x: Any, y: Any) -> Any:
        return change(x * 1.0, y)

    return call


def assigned(x: Any, key: Any, value: Any) -> Any:
    y = array_namespace(x).asarray(x, copy=True)
    y[key] = value
    return y + x


@st.composite
def fitting(draw: Draw, pairs: Samples) -> Sample:
    """The `pairs` that an in-place operator accepts: the result has the shape and dtype of x."""
    x, y = draw(pairs.filter(is_fitting)).args
    return sample(x, y)


def is_fitting(pair: Sample) -> bool:
    x, y = pair.args
    if not isinstance(x, np.ndarray):
        return False
    shape = np.broadcast_shapes(x.shape, np.shape(y))
    return x.shape == shape and np.result_type(x, y) == x.dtype


@st.composite
def product(draw: Draw) -> Sample:
    """x @= y."""
    n = draw(st.integers(1, 3))
    return sample(numbers(draw, (2, n)), numbers(draw, (n, n)))


BINARY = {
    "add": elementwise.arithmetic(),
    "sub": elementwise.arithmetic(),
    "mul": elementwise.arithmetic(),
    "truediv": elementwise.quotient(),
    "pow": elementwise.power(),
    "mod": elementwise.quotient_of_one_floor(),
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"operator.{name}": getattr(operator, name) for name in (*BINARY, "matmul", "getitem")},
    **{f"operator.{name}": getattr(operator, name) for name in ("neg", "pos", "abs")},
    **{f"operator.i{name}": in_place(f"i{name}") for name in (*BINARY, "matmul")},
    "operator.setitem": assigned,
}
"""The operators, under their names in Python's module `operator`."""

PROPERTIES: dict[str, Samples] = {
    **{f"operator.{name}": pairs for name, pairs in BINARY.items()},
    **{f"operator.i{name}": fitting(pairs) for name, pairs in BINARY.items()},
    "operator.matmul": linear_algebra.matmul(),
    "operator.imatmul": product(),
    **dict.fromkeys(
        "operator.neg operator.pos operator.abs".split(), elementwise.of_one(-2.0, 2.0)
    ),
    "operator.getitem": indexing.read(),
    "operator.setitem": indexing.assign(),
}
