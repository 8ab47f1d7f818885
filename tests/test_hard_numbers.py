"""Numbers that cost a formula its digits: far larger than their deviations, equal, or infinite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from polynet import functional, optim, use_backend, vjp
from polynet.backend import Backend, to_numpy
from polynet.testing.suite.cases import to_backend

rng = np.random.default_rng(0)


def ways(backend: Backend) -> list[Backend]:
    """By kernels and by definitions; PyTorch's kernels are its own, and sum as it does."""
    by_definitions = [backend.without_kernels()]
    return by_definitions if backend.name == "torch" else [backend, *by_definitions]


@pytest.mark.parametrize("number", [0.1, 1234.56, 1e4 + 0.1])
def test_equal_numbers_are_normalised_to_the_bias(backend: Backend, number: float) -> None:
    """What rounding their mean leaves, r = 1 / √eps would make up to 0.8."""

    def array(a: np.ndarray) -> Any:
        return to_backend(a, backend, "float32")

    weight, bias = array(np.ones(100)), array(np.arange(100.0))
    row, image = array(np.full((2, 100), number)), array(np.full((3, 100, 5, 7), number))
    wanted = np.arange(100.0)
    for way in ways(backend):
        with use_backend(way):
            by_rows = functional.layer_norm(row, weight, bias, axes=1, eps=1e-5)
            by_groups = functional.group_norm(image, groups=4, eps=1e-5)
            y, mean, variance = functional.batch_norm(image, weight, bias, eps=1e-5)
        np.testing.assert_array_equal(to_numpy(by_rows), [wanted, wanted])
        np.testing.assert_array_equal(to_numpy(by_groups), np.zeros(image.shape))
        np.testing.assert_array_equal(to_numpy(y)[1, :, 2, 3], wanted)
        np.testing.assert_array_equal(to_numpy(mean), np.full(100, np.float32(number)))
        np.testing.assert_array_equal(to_numpy(variance), np.zeros(100))


@pytest.mark.parametrize("shape", [(4096, 8), (64, 8, 6, 6)])
def test_a_large_mean_costs_the_variance_no_digits(
    backend: Backend, shape: tuple[int, ...]
) -> None:
    x = (rng.normal(size=shape) + 1e4).astype("float32")
    axes, wide = (0, *range(2, len(shape))), x.astype("float64")
    for way in ways(backend):
        with use_backend(way):
            result = functional.batch_norm(to_backend(x, backend, "float32"), eps=1e-5)
        _, mean, variance = map(to_numpy, result)
        np.testing.assert_allclose(mean, wide.mean(axes), rtol=1e-7)
        np.testing.assert_allclose(variance, wide.var(axes), rtol=5e-6)


def test_small_powers_are_products() -> None:
    """As on PyTorch and JAX: NumPy's pow takes 200 times as long where a number is below 0."""
    x = rng.normal(size=1000)
    products = {1: x, 2: x * x, 3: x * x * x, 4: (x * x) * (x * x)}
    for n in (2, 3, 4):
        y, back = vjp(lambda a, n=n: a**n, x)
        np.testing.assert_array_equal(y, products[n])
        np.testing.assert_array_equal(back(np.ones(1000))[0], n * products[n - 1])


def test_erf_of_half_precision_is_a_number(backend: Backend) -> None:
    """By the definition: the polynomials that it divides stay below 65504."""
    if not hasattr(backend.xp, "float16"):
        pytest.skip("the library has no float16")
    numbers = np.asarray([-8.0, -5.0, -3.0, -0.25, 0.0, 0.25, 3.0, 5.0, 8.0, 100.0])
    x = backend.xp.astype(to_backend(numbers, backend, "float32"), backend.xp.float16)
    with use_backend(backend.without_kernels()):
        found, linear = (to_numpy(f(x)) for f in (functional.erf, functional.gelu))
    wanted = np.asarray([math.erf(v) for v in numbers])
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, wanted, rtol=2e-3)
    wanted = numbers * (0.5 + 0.5 * np.asarray([math.erf(v / math.sqrt(2)) for v in numbers]))
    np.testing.assert_allclose(linear, wanted, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("gamma", [0.1, 1e-9])
def test_a_rate_that_fell_to_0_stays_there(backend: Backend, gamma: float) -> None:
    """It was NaN where the rest of a digit's factor grew beyond what exp takes."""
    steps = to_backend(np.asarray([0, 1, 10**6, 2 * 10**9]), backend, "float32")
    rates = optim.schedules.ExponentialLR(1.0, gamma)(steps, dtype=backend.xp.float32)
    np.testing.assert_allclose(to_numpy(rates), [1, gamma, 0, 0], rtol=1e-6)
