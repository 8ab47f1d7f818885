"""Derivatives where a formula would give 0/0, where there is a choice, and in a dtype asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from polynet import array_namespace, functional, grad, hessian, vjp
from polynet.backend import Backend, to_numpy
from polynet.testing.assertions import supports_float64
from polynet.testing.suite.cases import dtypes, to_backend

EDGES: dict[str, tuple[Callable[..., Any], list[list[float]], list[list[float]]]] = {
    "abs at 0": (lambda xp, x: xp.abs(x), [[0, -2]], [[0, -1]]),
    "hypot at the origin": (
        lambda xp, x, y: xp.hypot(x, y),
        [[0, 3], [0, 4]],
        [[0, 0.6], [0, 0.8]],
    ),
    "std of equals": (lambda xp, x: xp.std(x), [[2, 2, 2]], [[0, 0, 0]]),
    "atan2 of large numbers": (
        lambda xp, x, y: xp.atan2(x, y),
        [[2.0**100], [2.0**100]],
        [[2.0**-101], [-(2.0**-101)]],
    ),
    "pow at 0": (
        lambda xp, x, y: xp.pow(x, y),
        [[0, 0, 0, 2], [0, 1, 2, 0]],
        [[0, 1, 0, 0], [0, 0, 0, math.log(2)]],
    ),
    "pow by 0, a number": (lambda xp, x: x**0 + x**1, [[0, 2]], [[1, 1]]),
    "remainder, whose quotient rounds up": (
        lambda xp, x, y: xp.remainder(x, y),
        [[1.0], [float(np.float32(0.1))]],
        [[1], [-9]],
    ),
    "expm1 far below 0": (lambda xp, x: xp.expm1(x), [[-40.0]], [[math.exp(-40)]]),
    "clip at its bounds": (
        lambda xp, x, low: xp.clip(x, low, 1.0),
        [[-1, 0, 1, -2], [-1, -1, -1, -1]],
        [[0.5, 1, 0.5, 0], [0.5, 0, 0, 1]],
    ),
    "prod with one 0": (lambda xp, x: xp.prod(x), [[2, 0, 3]], [[0, 6, 0]]),
    "prod with two": (lambda xp, x: xp.prod(x), [[0, 0, 3]], [[0, 0, 0]]),
    "copysign": (
        lambda xp, x, y: xp.copysign(x, y),
        [[0, -2, -2], [1, 1, -1]],
        [[0, -1, 1], [0, 0, 0]],
    ),
    "diff of order 0": (
        lambda xp, x, y: xp.diff(x, y, axis=0, n=0),
        [[1, 2], [3]],
        [[1, 1], [0]],
    ),
    "unstack without parts": (lambda xp, x: sum(xp.unstack(x[:0]), xp.sum(x)), [[1, 2]], [[1, 1]]),
    "equal values in a sort": (lambda xp, x: xp.sort(x)[1:], [[1, 1, 0]], [[1, 1, 0]]),
    "logaddexp of infinity": (
        lambda xp, x, y: xp.logaddexp(x, y),
        [[math.inf, 1, math.inf], [1, -math.inf, math.inf]],
        [[1, 1, 0.5], [0, 0, 0.5]],
    ),
    "logaddexp of nothing": (
        lambda xp, x, y: xp.logaddexp(x, y),
        [[-math.inf], [-math.inf]],
        [[0.5], [0.5]],
    ),
    "logaddexp of large numbers": (
        lambda xp, x, y: xp.logaddexp(x, y),
        [[4988429.0, -1e5, 1e20], [4988429.0, -1e5, 1e20]],
        [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]],
    ),
    "logsumexp of large numbers": (
        lambda xp, x: functional.logsumexp(x),
        [[4988429.0, 4988429.0]],
        [[0.5, 0.5]],
    ),
    "logsumexp of infinity": (
        lambda xp, x: functional.logsumexp(x),
        [[[math.inf, 1, math.inf], [2e38, 0, 3e38], [-math.inf, 2, -math.inf]]],
        [[[0.5, 0, 0.5], [0, 0, 1], [0, 1, 0]]],
    ),
    "logsumexp of large numbers below 0": (
        lambda xp, x: functional.logsumexp(x),
        [[-math.inf, -3e38, -2e38]],
        [[0, 0, 1]],
    ),
    "roll of several axes by one number": (
        lambda xp, x: xp.roll(x, 1, axis=(0, 1)) * x,
        [[[1, 2], [3, 4]]],
        [[[8, 6], [4, 2]]],
    ),
    "repeat by no count": (lambda xp, x: xp.repeat(x, 0) * 2, [[1, 2]], [[0, 0]]),
}


@pytest.mark.parametrize("name", EDGES)
def test_gradient_at_an_edge(backend: Backend, name: str) -> None:
    f, numbers, wanted = EDGES[name]
    arrays = [to_backend(np.asarray(a, dtype=np.float64), backend, "float32") for a in numbers]

    def total(a: list[Any]) -> Any:
        xp = array_namespace(a[0])
        return xp.sum(f(xp, *a))

    for slope, expected in zip(grad(total)(arrays), wanted, strict=True):
        np.testing.assert_allclose(to_numpy(slope), expected, rtol=1e-5, atol=0)


def test_the_mixed_derivative_of_a_power_by_an_exponent_of_0(backend: Backend) -> None:
    """d²/dxdy x^y is x^(y-1) (1 + y ln x): 1/x at y = 0."""
    x, y = (to_backend(np.asarray(a), backend, "float32") for a in (4.0, 0.0))
    assert float(grad(grad(lambda a, b: a**b), 1)(x, y)) == pytest.approx(0.25)


def test_the_second_derivative_of_logaddexp_is_symmetric_where_one_side_is_all(
    backend: Backend,
) -> None:
    """It is p (1 - p) with p = 1 / (1 + exp(y - x)), of which float32 sees no 1 - p."""
    x = to_backend(np.asarray([20.0, 0.5]), backend, "float32")
    found = to_numpy(hessian(lambda a: array_namespace(a).logaddexp(a[0], a[1]))(x))
    p = math.exp(-19.5)
    np.testing.assert_allclose(found, [[p, -p], [-p, p]], rtol=1e-5)


def test_the_second_derivative_of_a_power_that_is_0_is_0(backend: Backend) -> None:
    """y (y - 1) x^(y-2), of which y² would be infinite: ∞·0."""
    x, y = (to_backend(np.asarray(a), backend, "float32") for a in (501.0, -1e20))
    assert float(grad(grad(lambda a: a**y))(x)) == 0


@pytest.mark.parametrize("name", ["sum", "prod", "cumulative_sum", "cumulative_prod"])
def test_what_is_computed_in_another_dtype_comes_back_in_its_own(
    backend: Backend, name: str
) -> None:
    xp = backend.xp
    x = to_backend(np.asarray([2.0, 3.0]), backend, "float32")
    wide = backend.dtype(dtypes(backend)[-1])

    def f(a: Any, dtype: Any) -> Any:
        space = array_namespace(a)
        return space.sum(space.astype(getattr(space, name)(a, axis=0, dtype=dtype), a.dtype))

    slope = grad(lambda a: f(a, wide))(x)
    assert slope.dtype == xp.float32
    wanted = {"sum": [1, 1], "prod": [3, 2], "cumulative_sum": [2, 1], "cumulative_prod": [4, 2]}
    assert to_numpy(slope).tolist() == wanted[name]
    assert to_numpy(grad(lambda a: f(a, xp.int32))(x)).tolist() == [0, 0]


def test_full_like_takes_a_recorded_number(backend: Backend) -> None:
    x = to_backend(np.asarray([[1.0, 2.0]]), backend, "float32")

    def f(a: Any) -> Any:
        xp = array_namespace(a)
        return xp.sum(xp.full_like(a, a[0, 1]) * a) + xp.sum(xp.full_like(a, 3) * a)

    assert to_numpy(grad(f)(x)).tolist() == [[5.0, 8.0]]


@pytest.mark.parametrize("name", ["cumulative_sum", "cumulative_prod"])
def test_a_running_sum_or_product_needs_an_axis(backend: Backend, name: str) -> None:
    x = to_backend(np.ones((2, 2)), backend, "float32")
    with pytest.raises(ValueError, match="axis"):
        grad(lambda a: array_namespace(a).sum(getattr(array_namespace(a), name)(a)))(x)


SMALL: dict[str, Callable[[Any, Any, Any], Any]] = {
    "take": lambda xp, x, k: xp.take(x, k, axis=0),
    "take_along_axis": lambda xp, x, k: xp.take_along_axis(x, xp.expand_dims(k, axis=1), axis=1),
    "repeat": lambda xp, x, k: xp.repeat(x, k, axis=0),
}
"""Functions of whole numbers, of which each of `x` has one."""


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", SMALL)
def test_places_beyond_the_dtype_of_the_indices(name: str, dtype: str) -> None:
    """The gradient counts up to 300, which no integer of 8 bits does."""
    x, k = np.ones((300, 2)), np.ones(300, dtype=dtype)
    weight = np.arange(300.0)[:, None]
    found, wanted = (
        grad(lambda a, k=k: array_namespace(a).sum(SMALL[name](array_namespace(a), a, k) * weight))(
            x
        )
        for k in (k, k.astype(np.int64))
    )
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin", "logsumexp"])
def test_along_an_axis_without_numbers(backend: Backend, name: str) -> None:
    x = to_backend(np.ones((3, 0)), backend, "float32")
    function = getattr(functional, name)
    with np.errstate(divide="ignore"):
        y = to_numpy(function(x))
        slope = to_numpy(grad(lambda a: array_namespace(a).sum(function(a)))(x))
    assert slope.shape == (3, 0)
    wanted = np.full(3, -np.inf) if name == "logsumexp" else np.ones((3, 0))
    np.testing.assert_array_equal(y, wanted)


def test_logsumexp_of_nothing_shares_its_gradient(backend: Backend) -> None:
    """As `logaddexp` does: NaN would spoil all that a masked row is added to."""
    x = to_backend(np.full((2, 4), -np.inf), backend, "float32")
    with np.errstate(divide="ignore"):
        slope = grad(lambda a: array_namespace(a).sum(functional.logsumexp(a)))(x)
    np.testing.assert_array_equal(to_numpy(slope), np.full((2, 4), 0.25))


@pytest.mark.parametrize("turned", [False, True])
def test_gradients_by_real_and_complex_numbers_at_once(turned: bool) -> None:
    """Each in its own dtype: ∂f/∂x, and ∂f/∂a + i ∂f/∂b of z = a + ib, in either order."""

    def f(*args: Any) -> Any:
        x, z = args[::-1] if turned else args
        xp = array_namespace(x)
        return xp.sum(x * xp.imag(z))

    args = (np.asarray([2, 3], "float32"), np.asarray([5 + 7j, 1 - 1j], "complex64"))
    found = grad(f, (0, 1))(*(args[::-1] if turned else args))
    by_x, by_z = found[::-1] if turned else found
    np.testing.assert_array_equal(by_x, [7.0, -1.0])
    np.testing.assert_array_equal(by_z, [2j, 3j])


@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (lambda xp, s: xp.real(xp.exp(1j * s)), lambda s: -np.sin(s)),
        (lambda xp, s: xp.abs(1j + s), lambda s: s / np.sqrt(1 + s * s)),
        (lambda xp, s: xp.imag((1j - s) ** 2), lambda s: -2.0),
        (lambda xp, s: xp.imag(1j / s), lambda s: -1 / s**2),
        (lambda xp, s: xp.imag(1j**s), lambda s: np.pi / 2 * np.cos(np.pi / 2 * s)),
    ],
    ids="* + - / **".split(),
)
def test_a_complex_number_of_python_before_a_sum(backend: Backend, f: Any, slope: Any) -> None:
    """A sum is np.float64 on NumPy, and 1j times that is Python's complex, which has no shape."""
    dtype = "float64" if supports_float64(backend) else "float32"
    x = to_backend(np.asarray([0.5, 0.75]), backend, dtype)

    def of_sum(a: Any) -> Any:
        xp = array_namespace(a)
        return f(xp, xp.sum(a))

    np.testing.assert_allclose(to_numpy(grad(of_sum)(x)), [slope(1.25)] * 2, rtol=1e-5)


def test_what_vjp_gives_may_be_written_to() -> None:
    """Though the slope of a sum is one number, seen in every place."""
    _, back = vjp(lambda x: array_namespace(x).sum(x), np.ones(3))
    (slope,) = back(np.asarray(2.0))
    slope[0] = 5
    assert slope.tolist() == [5, 2, 2]
