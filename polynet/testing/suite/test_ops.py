"""Every op and every composition: value and gradient against its definition on float64 NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from polynet import value_and_grad
from polynet.backend import Backend, get_backend, to_numpy, use_backend
from polynet.testing.assertions import assert_close
from polynet.testing.samples import SAMPLES, Sample
from polynet.testing.suite.cases import (
    about,
    arrays,
    by_name,
    dtypes,
    placed,
    reference,
    require,
    rounded,
    to_backend,
    weights,
    what,
    with_arrays,
)
from polynet.tree import leaves
from polynet.tree import map as tree_map

FUNCTIONS = by_name()
CASES = [
    pytest.param(name, sample, id=f"{name}-{i}")
    for name in FUNCTIONS
    for i, sample in enumerate(SAMPLES.get(name, ()))
]
COMPOSITIONS = [name for name, f in FUNCTIONS.items() if hasattr(f, "definition")]
TOLERANCE = {
    "float32": {"rtol": 2e-5, "atol": 2e-5},
    "float64": {"rtol": 1e-9, "atol": 1e-9},
}


def test_every_function_has_samples() -> None:
    assert set(FUNCTIONS) == set(SAMPLES)


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_value(backend: Backend, name: str, sample: Sample) -> None:
    require(backend, name, sample.needs)
    for dtype in dtypes(backend):
        exact = rounded(sample, dtype)
        expected = reference(FUNCTIONS[name], exact)
        with about(f"{what(name, sample, backend)}, in {dtype}"):
            result = FUNCTIONS[name](*to_backend_args(exact, backend, dtype), **sample.options)
            assert_close(result, expected, backend, dtype=dtype, **TOLERANCE[dtype])


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_gradient(backend: Backend, name: str, sample: Sample) -> None:
    require(backend, name, sample.needs)
    for dtype in dtypes(backend):
        exact = rounded(sample, dtype)
        words = f"the gradient of {what(name, sample, backend)}, in {dtype}"
        with about(words):
            found = gradients(FUNCTIONS[name], exact, backend, dtype)
        expected = expected_gradients(FUNCTIONS[name], exact)
        for i, (actual, wanted) in enumerate(zip(found, expected, strict=True)):
            with about(f"{words}, by array {i}"):
                assert_close(actual, wanted, backend, dtype=dtype, **TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_ties_share_the_gradient(backend: Backend, name: str) -> None:
    x = to_backend(np.asarray([1.0, 2.0]), backend, "float32")
    xp = backend.xp
    left, right = value_and_grad(lambda a, b: total(FUNCTIONS[name](a, b)), (0, 1))(
        x, xp.asarray(x, copy=True)
    )[1]
    assert to_numpy(left).tolist() == to_numpy(right).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", ["max", "min"])
def test_ties_in_a_reduction_share_the_gradient(backend: Backend, name: str) -> None:
    x = to_backend(np.asarray([[3.0, 3.0, 3.0, 3.0]]), backend, "float32")
    _, slope = value_and_grad(lambda a: FUNCTIONS[name](a))(x)
    assert to_numpy(slope).tolist() == [[0.25, 0.25, 0.25, 0.25]]


def test_relu_has_slope_zero_at_zero_and_passes_nan(backend: Backend) -> None:
    x = to_backend(np.asarray([-1.0, 0.0, 2.0, np.nan]), backend, "float32")
    _, slope = value_and_grad(lambda a: total(FUNCTIONS["relu"](a)))(x)
    assert to_numpy(slope).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert np.isnan(to_numpy(FUNCTIONS["relu"](x))[3])


def test_astype_carries_the_gradient_back_in_its_own_dtype(backend: Backend) -> None:
    xp = backend.xp
    other = dtypes(backend)[-1]
    x = to_backend(np.asarray([1.0, -2.0]), backend, "float32")

    def f(a: Any) -> Any:
        b = FUNCTIONS["astype"](a, getattr(xp, other))
        whole = FUNCTIONS["astype"](a, xp.int32)
        assert whole._line is None
        return total(FUNCTIONS["astype"](b * b, xp.float32))

    _, slope = value_and_grad(f)(x)
    assert_close(slope, np.asarray([2.0, -4.0]), backend, dtype="float32", rtol=0, atol=0)


@pytest.mark.parametrize("x", [-800.0, -30.0, 0.0, 30.0, 800.0])
def test_losses_and_softmax_at_extremes_are_finite(backend: Backend, x: float) -> None:
    logits = to_backend(np.asarray([[x, 0.0]]), backend, "float32")
    for name, targets in (
        ("cross_entropy", np.asarray([1])),
        ("binary_cross_entropy_with_logits", np.asarray([[0.0, 1.0]])),
    ):
        wanted = to_backend(targets, backend, "float32")
        value, slope = value_and_grad(lambda a, n=name, t=wanted: FUNCTIONS[n](a, t))(logits)
        assert np.isfinite(to_numpy(value)), name
        assert np.isfinite(to_numpy(slope)).all(), name
    assert to_numpy(FUNCTIONS["softmax"](logits)).sum() == pytest.approx(1.0)


def test_a_convolution_of_many_channels(backend: Backend) -> None:
    """Libraries and kernels may compute it another way than that of a few; by its formula."""
    rng = np.random.default_rng(0)
    sizes = ((4, 32, 16, 16), (32, 32, 3, 3), (4, 32, 16, 16))
    x, w, g = exact = [rng.uniform(-0.25, 0.25, s).astype("float32").astype(float) for s in sizes]
    seen, met = (
        np.lib.stride_tricks.sliding_window_view(
            np.pad(a, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3)
        )
        for a in (x, g)
    )
    sums = partial(np.einsum, optimize=True)
    expected = [
        sums("ncyxij,ocij->noyx", seen, w),
        sums("noyxij,ocij->ncyx", met, w[..., ::-1, ::-1]),
        sums("noyx,ncyxij->ocij", g, seen),
    ]
    how = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    f = FUNCTIONS["convolution"]
    for dtype in dtypes(backend):
        a, b, c = (to_backend(n, backend, dtype) for n in exact)
        slopes = value_and_grad(lambda a, b, c=c: total(f(a, b, **how) * c), (0, 1))(a, b)[1]
        for found, wanted in zip((f(a, b, **how), *slopes), expected, strict=True):
            assert_close(found, wanted, backend, dtype=dtype, **TOLERANCE[dtype])


@pytest.mark.polynet_part("kernels")
@pytest.mark.parametrize("kernel", COMPOSITIONS)
def test_kernel_equals_its_definition(backend: Backend, kernel: str) -> None:
    compared = 0
    for dtype, device, sample in itertools.product(
        dtypes(backend), backend.devices().values(), SAMPLES[kernel]
    ):
        args = to_backend_args(sample, backend, dtype, device)
        with backend.on(device):
            result = backend.kernels[kernel](backend.xp, *args, **sample.options)
            if result is NotImplemented:
                continue
            expected = FUNCTIONS[kernel].definition(backend.xp, *args, **sample.options)
        with about(f"{what(kernel, sample, backend)}, beside its definition"):
            for got, wanted in zip(leaves([result[0]]), leaves([expected]), strict=True):
                np.testing.assert_allclose(to_numpy(got), to_numpy(wanted), **TOLERANCE[dtype])
                assert got.dtype == wanted.dtype, f"its result is {got.dtype}"
        with backend.on(device), about(f"{what(kernel, sample, backend)}, its gradients"):
            _check_dtypes(backend, args, *result)
        compared += 1
    assert compared, f"the kernel {kernel!r} declines every sample"


def _check_dtypes(backend: Backend, args: tuple[Any, ...], y: Any, pullbacks: Any) -> None:
    """Each gradient has the dtype of its array; one in another would be converted in silence."""
    if isinstance(pullbacks, tuple):
        ones = tree_map(backend.xp.ones_like, y)
        for x, pullback in zip(args, pullbacks, strict=False):
            if pullback is not None:
                back = pullback(ones)
                assert back.dtype == x.dtype, f"a gradient of {x.dtype} is {back.dtype}"


# The functions that the tests above are made of


def to_backend_args(
    sample: Sample, backend: Backend, dtype: str, device: Any = None
) -> tuple[Any, ...]:
    return tuple(to_backend(a, backend, dtype, device) for a in sample.args)


def total(x: Any) -> Any:
    return FUNCTIONS["sum"](x)


def gradients(
    function: Callable[..., Any], sample: Sample, backend: Backend, dtype: str
) -> list[Any]:
    """The gradient of a weighted sum of the result, by every differentiable argument.

    In float32 one operation runs at a time, and in float64 all are one program where the backend
    compiles functions: users do both, and JAX takes long to compile each operation of each shape.
    """
    given = [to_backend(a, backend, dtype) for a in arrays(sample)]
    shape = reference(function, sample).shape
    w = to_backend(weights(shape), backend, dtype)
    others = placed(sample, backend, dtype)

    def objective(inputs: list[Any]) -> Any:
        return total(function(*with_arrays(others, inputs), **sample.options) * w)

    def slopes(inputs: list[Any]) -> list[Any]:
        return value_and_grad(objective)(inputs)[1]

    return (backend.jit(slopes) if dtype == "float64" else slopes)(given)


def expected_gradients(function: Callable[..., Any], sample: Sample) -> list[np.ndarray]:
    """The same gradient by the definition on NumPy in float64, which differences agree with.

    That they do is for polynet's own tests to show, once for all backends.
    """
    numpy = get_backend("numpy").without_kernels()
    with use_backend(numpy):
        return gradients(function, sample, numpy, "float64")
