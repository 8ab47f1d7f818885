"""NumPy's own activations beside what they approximate, in float64, and at the ends."""

import math

import numpy as np
import pytest

from polynet import get_backend, value_and_grad
from polynet.functional import gelu, sigmoid
from polynet.ops import OPS
from polynet_numpy import activation

NUMPY = get_backend("numpy")
X = np.linspace(-9, 9, 2 * activation.PIECE + 7)
PHI = 0.5 * np.asarray([math.erfc(-x * math.sqrt(0.5)) for x in X])
DENSITY = np.exp(-X * X / 2) / math.sqrt(2 * math.pi)


def of(function, x):
    """The values, and the slope of each by its own x, by the kernel."""
    assert function.__name__ in NUMPY.kernels
    y = function(x)
    _, slope = value_and_grad(lambda a: OPS["sum"](function(a)))(x)
    return y, slope


def test_gelu_is_right_to_the_precision_of_float32_for_many_numbers():
    x = X.astype(np.float32)
    y, slope = of(gelu, x)
    assert (y.dtype, slope.dtype) == (np.float32, np.float32)
    assert (np.abs(y - X * PHI) <= 4e-7 * np.maximum(np.abs(X), 1)).all()
    np.testing.assert_allclose(slope, PHI + X * DENSITY, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 4)])
def test_gelu_keeps_shapes(shape):
    x = np.full(shape, 0.5, np.float32)
    y, slope = of(gelu, x)
    assert y.shape == slope.shape == shape
    np.testing.assert_allclose(y, 0.5 * 0.6914625, rtol=1e-6)
    np.testing.assert_allclose(slope, 0.6914625 + 0.5 * 0.3520653, rtol=1e-6)


def test_gelu_of_a_turned_matrix_is_that_of_the_matrix():
    x = X[:12].astype(np.float32).reshape(3, 4)
    np.testing.assert_allclose(gelu(x.T), gelu(x).T, rtol=1e-5)


def test_gelu_at_the_ends():
    x = np.asarray([6, 300, 3e38, -7, -3e38, np.nan], np.float32)
    y, slope = of(gelu, x)
    np.testing.assert_array_equal(y, [6, 300, np.float32(3e38), 0, 0, np.nan])
    np.testing.assert_allclose(slope, [1, 1, 1, 0, 0, np.nan], atol=1e-6)


@pytest.mark.parametrize(("dtype", "near"), [("float32", 4e-7), ("float64", 1e-15)])
def test_sigmoid_is_right_to_the_last_digits_where_it_is_tiny_too(dtype, near):
    x = np.linspace(-80, 80, 4001)
    y, slope = of(sigmoid, x.astype(dtype))
    exact = x.astype(dtype).astype(np.float64)
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-exact)), rtol=near)
    np.testing.assert_allclose(slope[:2001], (y * (1 - y))[:2001], rtol=near)


def test_sigmoid_at_the_ends():
    x = np.asarray([-np.inf, -1000, 1000, np.inf, np.nan], np.float32)
    y, slope = of(sigmoid, x)
    np.testing.assert_array_equal(y, [0, 0, 1, 1, np.nan])
    np.testing.assert_array_equal(slope, [0, 0, 0, 0, np.nan])
