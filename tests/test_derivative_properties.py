"""First and second derivatives of every function, of whatever it may be called with.

Each is checked along a direction of all inputs at once: the slope, by the gradient, beside
differences of the function, and the curvature, by the gradient of the gradient, beside
differences of the gradient. Differences are taken on NumPy in float64, without kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from properties import FUNCTIONS, PROPERTIES

from polynet import array_namespace, value_and_grad
from polynet.backend import Backend, get_backend, to_numpy, use_backend
from polynet.testing.assertions import supports_float64
from polynet.testing.samples import Sample
from polynet.testing.suite.cases import (
    about,
    arrays,
    placed,
    require,
    to_backend,
    weights,
    with_arrays,
)

NUMPY = get_backend("numpy").without_kernels()

NOT_DIFFERENTIABLE = {
    "linalg.matrix_rank": "an integer",
}
"""Ops that no gradient goes back through, each with the reason."""

EXAMPLES = {"numpy": (3, 10), "strict": (1, 10), "torch": (1, 10), "jax": (1, 3)}
"""How many times how many calls of each function are tried; JAX compiles for every shape.

After ten calls Hypothesis goes on with variations of earlier ones: it is asked for ten anew.
"""


def test_every_function_that_is_differentiable_has_a_property() -> None:
    assert set(PROPERTIES) | set(NOT_DIFFERENTIABLE) == set(FUNCTIONS)
    assert not set(PROPERTIES) & set(NOT_DIFFERENTIABLE)


@pytest.mark.parametrize("name", PROPERTIES)
def test_derivatives_are_what_differences_give(backend: Backend, name: str) -> None:
    if not supports_float64(backend):
        pytest.skip(f"{backend.name} has no float64 here; JAX has with JAX_ENABLE_X64=1")
    if name.startswith(("linalg.", "fft.")):
        require(backend, name)

    rounds, calls = EXAMPLES.get(backend.name, (1, 10))

    @settings(max_examples=calls, deadline=None, database=None)
    @given(PROPERTIES[name], st.integers(0, 2**32 - 1))
    def holds(sample: Sample, directions: int) -> None:
        rng = np.random.default_rng(directions)
        given_here = arrays(sample)
        along, across = ([direction(rng, a) for a in given_here] for _ in range(2))
        for order, f in (("first", number), ("second", slope)):
            options = () if f is number else (across,)
            value, gradients = derivative(f, name, sample, backend, options)
            with about(f"the {order} derivative of {name!r} of {sample}"):
                for a, g in zip(given_here, gradients, strict=True):
                    assert to_numpy(g).dtype == a.dtype
                    assert g.shape == a.shape
                with use_backend(NUMPY):
                    expected = difference(f, name, sample, along, options)
                    there = float(f(name, sample, NUMPY, given_here, *options))
                found = sum(inner(to_numpy(g), v) for g, v in zip(gradients, along, strict=True))
                np.testing.assert_allclose(float(to_numpy(value)), there, rtol=1e-9, atol=1e-9)
                np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8)

    for k in range(rounds):
        seed(k)(holds)()


def direction(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """A step to each element of `x`, none of them small."""

    def steps() -> np.ndarray:
        return rng.uniform(0.4, 1.0, x.shape) * rng.choice([-1.0, 1.0], x.shape)

    return np.asarray(steps() + 1j * steps() if x.dtype.kind == "c" else steps())


def number(name: str, sample: Sample, backend: Backend, given: list[Any]) -> Any:
    """A curved function of every element of the result of a call."""
    args = to_backend(list(with_arrays(sample, given)), backend, "float64")
    y = FUNCTIONS[name](*args, **sample.options)
    xp = array_namespace(y)
    parts = [xp.real(y), xp.imag(y)] if xp.isdtype(y.dtype, "complex floating") else [y]
    total = 0.0
    for i, part in enumerate(parts):
        w = to_backend(weights(tuple(part.shape)), backend, "float64")
        total = xp.sum(part * (part * (0.3 + i) + w)) + total
    return total


def derivative(
    f: Callable[..., Any], name: str, sample: Sample, backend: Backend, options: tuple[Any, ...]
) -> Any:
    """The value of `f` and its gradients by the arrays of a call, as one program if it can be."""
    given = [to_backend(a, backend, "float64") for a in arrays(sample)]
    sample = placed(sample, backend, "float64")
    return backend.jit(value_and_grad(lambda a: f(name, sample, backend, a, *options)))(given)


def slope(
    name: str, sample: Sample, backend: Backend, given: list[Any], across: list[np.ndarray]
) -> Any:
    """How fast `number` changes in the direction `across`, by its gradient."""
    _, gradients = value_and_grad(lambda a: number(name, sample, backend, a))(given)
    total = 0.0
    for g, v in zip(gradients, across, strict=True):
        xp = array_namespace(g)
        v = to_backend(v, backend, "float64")
        total = xp.sum(xp.real(g * xp.conj(v)) if v.dtype == xp.complex128 else g * v) + total
    return total


def inner(g: np.ndarray, v: np.ndarray) -> float:
    """The change along `v` by the gradient ∂f/∂x + i ∂f/∂y."""
    return float(np.sum((g * v.conj()).real))


def difference(
    f: Callable[..., Any],
    name: str,
    sample: Sample,
    along: list[np.ndarray],
    options: tuple[Any, ...],
    h: float = 2e-3,
) -> float:
    """The change of `f` along a direction, by seven-point differences: an error of order h⁶.

    Fornberg, "Generation of Finite Difference Formulas on Arbitrarily Spaced Grids" (1988).
    """
    total = 0.0
    for shift, weight in ((1, 45), (2, -9), (3, 1)):
        for sign in (1, -1):
            pairs = zip(arrays(sample), along, strict=True)
            moved = [np.asarray(a + sign * shift * h * v) for a, v in pairs]
            total += sign * weight * float(f(name, sample, NUMPY, moved, *options))
    return total / (60 * h)
