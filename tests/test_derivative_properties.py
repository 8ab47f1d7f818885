"""First and second derivatives against differences: any shapes, axes, broadcasting and options.

Differences are taken on NumPy in float64, of the function for the gradient, and of the gradient
for the second derivative; inputs are away from kinks and from one another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as shapes_of

import polynet
from polynet import array_namespace, functional, value_and_grad
from polynet.backend import Backend, get_backend, to_numpy
from polynet.testing.assertions import supports_float64
from polynet.testing.gradients import numerical_gradient
from polynet.testing.suite.cases import to_backend, weights

NUMPY = get_backend("numpy")


@dataclass(frozen=True)
class Case:
    """A call of a function of the namespace: differentiated by `arrays`, not by `others`."""

    name: str
    arrays: tuple[np.ndarray, ...]
    others: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    in_a_list: bool = False


Draw = Callable[[Any], Any]
sizes = st.integers(0, 3)


def shapes(least: int = 0, most: int = 3, side: int = 0) -> st.SearchStrategy[tuple[int, ...]]:
    return shapes_of.array_shapes(min_dims=least, max_dims=most, min_side=side, max_side=3)


def distinct(draw: Draw, shape: tuple[int, ...], low: float = -2.0, high: float = 2.0) -> Any:
    """Numbers of `shape`, none near another or 0."""
    count = math.prod(shape)
    grid = np.linspace(low, high, count + 3)[1:-1]
    grid = grid[np.abs(grid) > 0.02][:count]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.permutation(grid).reshape(shape)


UNARY = {
    **dict.fromkeys("abs atan asinh cos cosh exp expm1 sin sinh square tanh".split(), (-2, 2)),
    **dict.fromkeys("log log2 log10 log1p reciprocal sqrt".split(), (0.4, 3)),
    **dict.fromkeys("acos asin atanh tan".split(), (-0.8, 0.8)),
    "acosh": (1.3, 3),
}
BINARY = {
    **dict.fromkeys("add subtract multiply logaddexp maximum minimum copysign".split(), (-2, 2)),
    **dict.fromkeys("divide pow hypot atan2".split(), (0.4, 2)),
}


@st.composite
def unary(draw: Draw) -> Case:
    name = draw(st.sampled_from(sorted(UNARY)))
    return Case(name, (distinct(draw, draw(shapes(most=2)), *UNARY[name]),))


@st.composite
def binary(draw: Draw) -> Case:
    name = draw(st.sampled_from(sorted(BINARY)))
    two = shapes_of.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3, min_side=0)
    left, right = draw(two).input_shapes
    x, y = (distinct(draw, s, *BINARY[name]) for s in (left, right))
    if name in ("maximum", "minimum"):
        y = y + 0.0123  # of another grid, perhaps: no ties with x
    return Case(name, (x, y))


@st.composite
def clip(draw: Draw) -> Case:
    x = distinct(draw, draw(shapes(most=2)))
    low, high = draw(st.sampled_from([(None, 0.013), (-0.513, None), (-0.913, 0.517)]))
    if draw(st.booleans()):
        return Case("clip", (x,), (low, high))
    return Case("clip", (x, np.asarray(-0.713), np.full(x.shape[-1:], 0.717)))


def axes_of(draw: Draw, shape: tuple[int, ...]) -> Any:
    """None, or an axis, or several, counted from the front or the back."""
    if not shape or draw(st.booleans()):
        return None
    chosen = draw(st.lists(st.sampled_from(range(len(shape))), min_size=1, unique=True))
    signed = tuple(a - len(shape) if draw(st.booleans()) else a for a in chosen)
    return signed[0] if len(signed) == 1 else signed


@st.composite
def reduction(draw: Draw) -> Case:
    name = draw(st.sampled_from(["sum", "mean", "prod", "var", "std", "max", "min"]))
    shape = draw(shapes(side=0 if name in ("sum", "prod") else 2))
    x = distinct(draw, shape)
    options: dict[str, Any] = {"axis": axes_of(draw, shape), "keepdims": draw(st.booleans())}
    if name in ("var", "std") and shape:
        options["correction"] = draw(st.sampled_from([0, 1]))
    if name == "std" and not shape:
        name = "var"  # the deviation of one number is at its kink
    if name == "prod" and draw(st.booleans()):
        x = np.where(np.arange(x.size).reshape(shape) % 3 == 0, 0.0, x)
    return Case(name, (x,), (), options)


def an_axis(draw: Draw, x: np.ndarray) -> int:
    return draw(st.integers(-x.ndim, x.ndim - 1))


@st.composite
def along(draw: Draw) -> Case:
    """What goes along one axis."""
    x = distinct(draw, draw(shapes(least=1, side=1)))
    axis = an_axis(draw, x)
    name = draw(st.sampled_from(["sort", "diff", "roll", "repeat"]))
    options: dict[str, Any] = {"axis": axis}
    others: tuple[Any, ...] = ()
    if name == "sort":
        options["descending"] = draw(st.booleans())
    elif name == "diff":
        options["n"] = draw(st.integers(0, x.shape[axis]))
    elif name == "roll":
        others = (draw(st.integers(-4, 4)),)
    else:
        counts = st.lists(sizes, min_size=x.shape[axis], max_size=x.shape[axis])
        others = (draw(st.one_of(st.integers(1, 3), counts.map(np.asarray))),)
    return Case(name, (x,), others, options)


@st.composite
def running(draw: Draw) -> Case:
    x = distinct(draw, draw(st.sampled_from([(1,), (5,), (2, 4), (6, 1), (3, 2, 2)])))
    if draw(st.booleans()):
        x = np.where(np.arange(x.size).reshape(x.shape) % 4 == draw(sizes), 0.0, x)
    name = draw(st.sampled_from(["cumulative_sum", "cumulative_prod"]))
    options = {"axis": an_axis(draw, x), "include_initial": draw(st.booleans())}
    return Case(name, (x,), (), options)


@st.composite
def gathering(draw: Draw) -> Case:
    x = distinct(draw, draw(shapes(least=1, side=1)))
    axis = an_axis(draw, x)
    if draw(st.booleans()):
        places = st.lists(st.integers(-x.shape[axis], x.shape[axis] - 1), max_size=4)
        return Case("take", (x,), (np.asarray(draw(places), dtype=np.int64),), {"axis": axis})
    places = draw(shapes_of.arrays(np.int64, x.shape, elements=st.integers(0, x.shape[axis] - 1)))
    return Case("take_along_axis", (x,), (places,), {"axis": axis})


@st.composite
def joining(draw: Draw) -> Case:
    shape = draw(shapes(least=1, most=2))
    arrays = tuple(distinct(draw, shape) for _ in range(draw(st.integers(1, 3))))
    name = draw(st.sampled_from(["concat", "stack"]))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    axis = None if name == "concat" and draw(st.booleans()) else axis
    return Case(name, arrays, (), {"axis": axis}, in_a_list=True)


@st.composite
def several(draw: Draw) -> Case:
    """Several results."""
    name = draw(st.sampled_from(["broadcast_arrays", "meshgrid", "unstack"]))
    if name == "broadcast_arrays":
        some = shapes_of.mutually_broadcastable_shapes(num_shapes=3, max_dims=2, max_side=3)
        return Case(name, tuple(distinct(draw, s) for s in draw(some).input_shapes))
    if name == "meshgrid":
        lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
        indexing = draw(st.sampled_from(["xy", "ij"]))
        arrays = tuple(distinct(draw, (n,)) for n in lengths)
        return Case(name, arrays, (), {"indexing": indexing})
    x = distinct(draw, draw(shapes(least=1, side=1)))
    return Case(name, (x,), (), {"axis": an_axis(draw, x)})


@st.composite
def reordering(draw: Draw) -> Case:
    x = distinct(draw, draw(shapes(least=2, side=1)))
    name = draw(st.sampled_from(["flip", "moveaxis", "tile", "tril", "triu", "where"]))
    if name == "flip":
        return Case(name, (x,), (), {"axis": axes_of(draw, x.shape)})
    if name == "moveaxis":
        return Case(name, (x,), (an_axis(draw, x), an_axis(draw, x)))
    if name == "tile":
        return Case(name, (x,), (tuple(draw(st.lists(st.integers(1, 2), max_size=3))),))
    if name == "where":
        return Case(name, (x, distinct(draw, x.shape[1:])), (), {"condition": x > 0.4})
    return Case(name, (x,), (), {"k": draw(st.integers(-2, 2))})


@st.composite
def networks(draw: Draw) -> Case:
    """What networks are made of."""
    name = draw(st.sampled_from(["softmax", "log_softmax", "logsumexp", "gelu", "sigmoid", "erf"]))
    x = distinct(draw, draw(shapes(least=1, side=1)))
    along_axis = name in ("softmax", "log_softmax", "logsumexp")
    return Case(name, (x,), (), {"axis": an_axis(draw, x)} if along_axis else {})


FAMILIES = {
    "unary": unary,
    "binary": binary,
    "clip": clip,
    "reduction": reduction,
    "along": along,
    "running": running,
    "gathering": gathering,
    "joining": joining,
    "several": several,
    "reordering": reordering,
    "networks": networks,
}


def scalar(case: Case, backend: Backend, inputs: list[Any]) -> Any:
    """A number, curved, to which every element of every result counts."""
    xp = array_namespace(inputs[0])
    f = getattr(functional, case.name, None) or getattr(xp, case.name)
    others = [to_backend(a, backend, "float64") for a in case.others]
    options = dict(case.options)
    if "condition" in options:
        y = f(to_backend(options.pop("condition"), backend, "float64"), *inputs)
    else:
        y = f(list(inputs), **options) if case.in_a_list else f(*inputs, *others, **options)
    total = 0.0
    for i, part in enumerate(y if isinstance(y, tuple | list) else (y,)):
        w = to_backend(weights(part.shape), backend, "float64")
        total = xp.sum(part * (part * (0.3 + i) + w)) + total
    return total


def slopes(case: Case, backend: Backend, inputs: list[Any]) -> list[Any]:
    return value_and_grad(lambda a: scalar(case, backend, a))(inputs)[1]


def along_direction(case: Case, backend: Backend, inputs: list[Any]) -> Any:
    """The gradient by all inputs, as one number, to which every element counts."""
    total = 0.0
    for x in slopes(case, backend, inputs):
        v = to_backend(np.asarray(np.cos(weights(x.shape) * 5)), backend, "float64")
        total = array_namespace(x).sum(x * v) + total
    return total


def curvatures(case: Case, backend: Backend, inputs: list[Any]) -> list[Any]:
    return value_and_grad(lambda a: along_direction(case, backend, a))(inputs)[1]


ORDERS = {"first": (scalar, slopes), "second": (along_direction, curvatures)}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_derivatives_are_what_differences_give(backend: Backend, family: str, order: str) -> None:
    if not supports_float64(backend):
        pytest.skip(f"{backend.name} has no float64 here; JAX has with JAX_ENABLE_X64=1")
    value, derivative = ORDERS[order]

    @settings(
        max_examples=3 if backend.name == "jax" else 40,  # which compiles for every shape
        deadline=None,
        derandomize=True,
        database=None,
    )
    @given(FAMILIES[family]())
    def holds(case: Case) -> None:
        given_here = [to_backend(a, backend, "float64") for a in case.arrays]
        found = derivative(case, backend, given_here)
        for k, (x, slope) in enumerate(zip(case.arrays, found, strict=True)):

            def moved(z: np.ndarray, k: int = k) -> float:
                with polynet.use_backend(NUMPY):
                    inputs = [z if i == k else a for i, a in enumerate(case.arrays)]
                    return float(value(case, NUMPY, inputs))

            wanted = numerical_gradient(moved, x)
            assert to_numpy(slope).dtype == np.float64
            np.testing.assert_allclose(to_numpy(slope), wanted, rtol=2e-7, atol=2e-7)

    holds()
