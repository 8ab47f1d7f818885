"""The second derivative of every op and composition, on every sample and backend, in float64.

It is the gradient of a weighted sum of the gradient, beside differences of that sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polynet import value_and_grad
from polynet.backend import Backend, get_backend, to_numpy, use_backend
from polynet.ops import OPS
from polynet.testing.gradients import numerical_gradient
from polynet.testing.samples import SAMPLES, Sample
from polynet.testing.suite.cases import (
    arrays,
    by_name,
    dtypes,
    require,
    to_backend,
    weights,
    with_arrays,
)

total = OPS["sum"]
FUNCTIONS = by_name()
CASES = [
    pytest.param(name, sample, id=f"{name}-{i}")
    for name in FUNCTIONS
    for i, sample in enumerate(SAMPLES.get(name, ()))
    if any(a.size for a in arrays(sample)) and not any(a.dtype.kind == "c" for a in arrays(sample))
]


def slope_sum(name: str, sample: Sample, backend: Backend, given: list[Any]) -> Any:
    """A weighted sum of the gradient of a curved function of every element of the result."""

    def objective(inputs: list[Any]) -> Any:
        args = [to_backend(a, backend, "float64") for a in with_arrays(sample, inputs)]
        y = FUNCTIONS[name](*args, **sample.options)
        return total((y * 0.5 + to_backend(weights(tuple(y.shape)), backend, "float64")) * y)

    slopes = value_and_grad(objective)(given)[1]
    parts = [total(s * to_backend(weights(s.shape), backend, "float64")) for s in slopes]
    return sum(parts[1:], parts[0])


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_second_derivative(backend: Backend, name: str, sample: Sample) -> None:
    if "float64" not in dtypes(backend):
        pytest.skip(f"{backend.name} has no float64 here")
    require(backend, name)
    given = arrays(sample)
    here = [to_backend(a, backend, "float64") for a in given]
    found = value_and_grad(lambda xs: slope_sum(name, sample, backend, xs))(here)[1]
    numpy = get_backend("numpy").without_kernels()
    for k, slope in enumerate(found):

        def along(x: np.ndarray, k: int = k) -> float:
            moved = [x if i == k else a for i, a in enumerate(given)]
            with use_backend(numpy):
                return float(slope_sum(name, sample, numpy, moved))

        expected = numerical_gradient(along, given[k])
        np.testing.assert_allclose(to_numpy(slope), expected, rtol=1e-6, atol=1e-6)
