"""NumPy's kernels beside their definitions: values, gradients, whole runs, on any input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from polynet import Trainer, functional, losses, nn, optim, use_backend, value_and_grad
from polynet.backend import get_backend
from polynet.ops import OPS

total = OPS["sum"]
FLOATS = st.floats(-50, 50, width=32)
SIZES = st.integers(1, 6)


def both(f: Any, *args: np.ndarray) -> list[tuple[Any, Any]]:
    """Value and gradients with kernels and by the definitions."""
    numpy = get_backend("numpy")
    places = tuple(i for i, a in enumerate(args) if a.dtype.kind == "f")
    results = []
    for backend in (numpy, numpy.without_kernels()):
        with use_backend(backend):
            results.append(value_and_grad(f, places)(*args))
    return results


def agree(f: Any, *args: np.ndarray) -> None:
    (value, slopes), (expected, expected_slopes) = both(f, *args)
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9)
    for actual, wanted in zip(slopes, expected_slopes, strict=True):
        assert actual.dtype == wanted.dtype
        np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=1e-9)


@given(st.data(), SIZES, SIZES, SIZES, st.booleans())
@settings(max_examples=60, deadline=None)
def test_linear(data: st.DataObject, n: int, i: int, o: int, bias: bool) -> None:
    draw = lambda *shape: data.draw(arrays.arrays(np.float64, shape, elements=FLOATS))  # noqa: E731
    w = np.cos(np.arange(n * o)).reshape(n, o)
    args = [draw(n, i), draw(o, i)] + ([draw(o)] if bias else [])
    agree(lambda *a: total(functional.linear(*a) * w), *args)


@given(arrays.arrays(np.float64, arrays.array_shapes(max_dims=3), elements=FLOATS))
@settings(max_examples=60, deadline=None)
def test_relu(x: np.ndarray) -> None:
    w = np.cos(np.arange(x.size)).reshape(x.shape)
    agree(lambda a: total(functional.relu(a) * w), x)


@given(st.data(), SIZES, st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_cross_entropy(data: st.DataObject, n: int, k: int) -> None:
    logits = data.draw(arrays.arrays(np.float64, (n, k), elements=FLOATS))
    labels = data.draw(arrays.arrays(np.int64, (n,), elements=st.integers(0, k - 1)))
    agree(losses.cross_entropy, logits, labels)


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-12), ("float32", 1e-5)])
def test_a_run_with_kernels_is_a_run_without(dtype: str, limit: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 8)), rng.integers(0, 3, size=100)
    runs = []
    for backend in (get_backend("numpy"), get_backend("numpy").without_kernels()):
        net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
        trainer = Trainer(
            net, losses.cross_entropy, optim.Adam(1e-3, eps=1e-5), backend=backend, dtype=dtype
        )
        runs.append(trainer.fit(x, y, epochs=10).step_losses)
    np.testing.assert_allclose(runs[0], runs[1], rtol=limit)


def test_a_kernel_that_declines_leaves_it_to_the_definition() -> None:
    x, w = np.ones((2, 3, 4)), np.ones((5, 4))
    assert get_backend("numpy").kernels["linear"](np, x, w) is NotImplemented
    assert functional.linear(x, w).tolist() == np.full((2, 3, 5), 4.0).tolist()


def test_labels_out_of_range_are_refused_by_the_kernel() -> None:
    with pytest.raises(ValueError, match=r"labels from 0 to 3 for 3 classes"):
        losses.cross_entropy(np.zeros((2, 3)), np.asarray([0, 3]))
