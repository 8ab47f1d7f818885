"""Numbers that a plain formula would compute slowly, or as NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest

from polynet import functional, nn, optim, use_backend, vjp
from polynet.backend import Backend, to_numpy
from polynet.testing.suite.cases import to_backend

rng = np.random.default_rng(0)


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


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_whole_numbers_are_pooled(backend: Backend, dtype: str, axes: int) -> None:
    """Nothing in the padding is above a number, and a mean is no whole number."""
    if backend.name == "strict" and dtype == "bool":
        pytest.skip("the standard compares no booleans")
    host = (np.arange(2 * 3**axes) % 5 - 2).astype(dtype).reshape(2, 1, *[3] * axes)
    x = backend.from_host(host, backend.device(None))
    largest = to_numpy(getattr(nn, f"MaxPool{axes}d")(2, padding=1)(x))
    wide = np.pad(host, [(0, 0), (0, 0), *[(1, 0)] * axes], mode="edge")
    cells = wide.reshape(2, 1, *[2, 2] * axes)
    inner = tuple(range(3, 3 + 2 * axes, 2))
    assert largest.dtype == dtype
    np.testing.assert_array_equal(largest, cells.max(axis=inner))
    if backend.name != "strict":  # the standard divides no whole numbers
        means = to_numpy(getattr(nn, f"AvgPool{axes}d")(3)(x))
        np.testing.assert_allclose(means.ravel(), host.reshape(2, -1).mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.1, 1e-9])
def test_a_rate_that_fell_to_0_stays_there(backend: Backend, gamma: float) -> None:
    """It was NaN where the rest of a digit's factor grew beyond what exp takes."""
    steps = to_backend(np.asarray([0, 1, 10**6, 2 * 10**9]), backend, "float32")
    rates = optim.schedules.ExponentialLR(1.0, gamma)(steps, dtype=backend.xp.float32)
    np.testing.assert_allclose(to_numpy(rates), [1, gamma, 0, 0], rtol=1e-6)
