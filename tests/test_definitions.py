"""The derivatives of all definitions, on NumPy in float64, beside differences.

The suite compares every backend, and NumPy's own kernels, with these derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from polynet.backend import get_backend, use_backend
from polynet.testing.gradients import numerical_gradient
from polynet.testing.samples import SAMPLES, Sample
from polynet.testing.suite import test_layers as layers
from polynet.testing.suite import test_ops as ops
from polynet.testing.suite.cases import about, arrays, reference, weights, with_arrays

NUMPY = get_backend("numpy").without_kernels()


def agree(gradients: list[Any], f: Callable[..., float], given: list[np.ndarray]) -> None:
    """Compare with differences, by each array along two directions in which no element is still."""
    rng = np.random.default_rng(0)
    for k, (g, a) in enumerate(zip(gradients, given, strict=True)):
        assert g.shape == a.shape
        for _ in range(2):
            v = rng.uniform(0.4, 1.0, a.shape) * rng.choice([-1.0, 1.0], a.shape)

            def along(t: np.ndarray, k: int = k, a: np.ndarray = a, v: np.ndarray = v) -> float:
                return f(*given[:k], np.asarray(a + t * v), *given[k + 1 :])

            expected = numerical_gradient(along, np.zeros(()), h=4e-4)
            with about(f"by array {k}"):
                np.testing.assert_allclose(np.sum(g * v), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ops.FUNCTIONS)
def test_of_a_function(name: str) -> None:
    function = ops.FUNCTIONS[name]
    for sample in SAMPLES[name]:
        w = weights(reference(function, sample).shape)

        def f(*new: np.ndarray, s: Sample = sample, w: np.ndarray = w) -> float:
            moved = Sample(with_arrays(s, list(new)), s.options)
            return float(np.sum(w * reference(function, moved)))

        with about(f"the gradient of {name!r} of {sample}"):
            agree(ops.expected_gradients(function, sample), f, arrays(sample))


@pytest.mark.parametrize("case", layers.LAYERS)
def test_of_a_layer(case: str) -> None:
    expected, shape = layers.expected_gradients(case)
    with use_backend(NUMPY):
        net, context, x = layers.prepared(case, NUMPY, "float64", training=True)
        given = {**net.parameters(), "input": x}

        def f(*new: np.ndarray) -> float:
            params = dict(zip(given, new, strict=True))
            return float(layers.scalar(net, context, params, params.pop("input"), weights(shape)))

        agree([expected[name] for name in given], f, list(given.values()))
