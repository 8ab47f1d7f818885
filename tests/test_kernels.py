"""Kernels beside their definitions: values, gradients, whole runs, on any input."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from polynet import Trainer, functional, losses, nn, optim, use_backend, value_and_grad
from polynet.backend import get_backend, to_numpy
from polynet.ops import OPS

total = OPS["sum"]
FLOATS = st.floats(-50, 50, width=32)
SIZES = st.integers(1, 6)


BACKENDS = ["numpy", *(["torch"] if find_spec("torch") else [])]
on_each = pytest.mark.parametrize("name", BACKENDS)


def on_each_with(*functions: Any) -> Any:
    """Parametrize by backend and function, where the one has a kernel for the other."""
    pairs = [(name, f) for name in BACKENDS for f in functions]
    return pytest.mark.parametrize(
        ("name", "f"), [(n, f) for n, f in pairs if f.__name__ in get_backend(n).kernels]
    )


def both(name: str, f: Any, *args: np.ndarray) -> list[tuple[Any, Any]]:
    """Value and gradients with kernels and by the definitions."""
    found = get_backend(name)
    places = tuple(i for i, a in enumerate(args) if a.dtype.kind == "f")
    results = []
    for backend in (found, found.without_kernels()):
        with use_backend(backend):
            given = [backend.from_host(a, backend.devices()["cpu"]) for a in args]
            value, slopes = value_and_grad(f, places)(*given)
            results.append((to_numpy(value), [to_numpy(s) for s in slopes]))
    return results


def agree(name: str, f: Any, *args: np.ndarray) -> None:
    (value, slopes), (expected, expected_slopes) = both(name, f, *args)
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9)
    for actual, wanted in zip(slopes, expected_slopes, strict=True):
        assert actual.dtype == wanted.dtype
        np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=1e-9)


def weighted(name: str, y: Any) -> Any:
    """One number of an array, in which every element counts, each differently."""
    backend = get_backend(name)
    w = np.cos(np.arange(np.prod(y.shape, dtype=int))).reshape(y.shape)
    return total(y * backend.from_host(w, backend.devices()["cpu"]))


@on_each
@given(data=st.data(), n=SIZES, i=SIZES, o=SIZES, bias=st.booleans())
@settings(max_examples=60, deadline=None)
def test_linear(name: str, data: st.DataObject, n: int, i: int, o: int, bias: bool) -> None:
    draw = lambda *shape: data.draw(arrays.arrays(np.float64, shape, elements=FLOATS))  # noqa: E731
    args = [draw(n, i), draw(o, i)] + ([draw(o)] if bias else [])
    agree(name, lambda *a: weighted(name, functional.linear(*a)), *args)


@on_each_with(functional.relu, functional.gelu)
@given(x=arrays.arrays(np.float64, arrays.array_shapes(max_dims=3), elements=FLOATS))
@settings(max_examples=60, deadline=None)
def test_activation(name: str, f: Any, x: np.ndarray) -> None:
    agree(name, lambda a: weighted(name, f(a)), x)


@on_each_with(functional.softmax, functional.log_softmax)
@given(x=arrays.arrays(np.float64, arrays.array_shapes(max_dims=3), elements=FLOATS), last=...)
@settings(max_examples=60, deadline=None)
def test_along_an_axis(name: str, f: Any, x: np.ndarray, last: bool) -> None:
    agree(name, lambda a: weighted(name, f(a, axis=-1 if last else 0)), x)


@on_each_with(losses.mse)
@given(data=st.data(), shape=arrays.array_shapes(max_dims=2))
@settings(max_examples=60, deadline=None)
def test_mse(name: str, f: Any, data: st.DataObject, shape: tuple[int, ...]) -> None:
    drawn = [data.draw(arrays.arrays(np.float64, shape, elements=FLOATS)) for _ in range(2)]
    agree(name, f, *drawn)


@on_each
@given(data=st.data(), n=SIZES, k=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_cross_entropy(name: str, data: st.DataObject, n: int, k: int) -> None:
    logits = data.draw(arrays.arrays(np.float64, (n, k), elements=FLOATS))
    labels = data.draw(arrays.arrays(np.int64, (n,), elements=st.integers(0, k - 1)))
    agree(name, losses.cross_entropy, logits, labels)


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-12), ("float32", 1e-5)])
@on_each
def test_a_run_with_kernels_is_a_run_without(name: str, dtype: str, limit: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 8)), rng.integers(0, 3, size=100)
    runs = []
    for backend in (get_backend(name), get_backend(name).without_kernels()):
        net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
        adam = optim.Adam(1e-3, eps=1e-5)
        trainer = Trainer(
            net, losses.cross_entropy, adam, backend=backend, device="cpu", dtype=dtype
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
