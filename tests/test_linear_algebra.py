"""Decompositions, inverses, norms: second derivatives, singular and empty matrices, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polynet import (
    array_namespace,
    check_grad,
    grad,
    hessian,
    jvp,
    stop_gradient,
    value_and_grad,
    vjp,
)
from polynet.backend import get_backend
from polynet.ops import EXTENSIONS, OPS, linalg, namespace
from polynet.testing.samples import SAMPLES, Sample, functions
from polynet.testing.samples.of_extensions import PROBES
from polynet.testing.suite.cases import arrays, weights, with_arrays

FUNCTIONS = functions()
NAMES = [name for name in FUNCTIONS if name.startswith(("linalg.", "fft.")) and SAMPLES[name]]
total = OPS["sum"]


def objective(name: str, sample: Sample) -> Any:
    """One number of a function's arrays, in which every element of the result counts twice."""

    def f(*given: Any) -> Any:
        y = FUNCTIONS[name](*with_arrays(sample, list(given)), **sample.options)
        return total(y * y * weights(tuple(y.shape)))

    return f


def slope_of(f: Any, count: int) -> Any:
    """One number of all first derivatives of `f`."""

    def g(*given: Any) -> Any:
        slopes = grad(f, tuple(range(count)))(*given)
        return sum(total(s * weights(tuple(s.shape))) for s in slopes)

    return g


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        pytest.param(name, s, id=f"{name}-{i}")
        for name in NAMES
        for i, s in enumerate(SAMPLES[name])
    ],
)
def test_second_derivative(name: str, sample: Sample) -> None:
    f, given = objective(name, sample), arrays(sample)
    assert type(f(*given)) in (np.ndarray, np.float64)
    check_grad(slope_of(f, len(given)), *given, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["linalg.det", "linalg.eigh", "linalg.qr", "linalg.svd"])
def test_third_derivative(name: str) -> None:
    x = SAMPLES[name][0].args[0][:3, :3]
    f = objective(name, Sample((x,)))
    check_grad(slope_of(slope_of(f, 1), 1), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["cholesky", "eigvalsh"])
def test_the_gradient_by_a_symmetric_matrix_is_symmetric(name: str) -> None:
    x = SAMPLES["linalg.cholesky"][0].args[0]
    slope = grad(lambda a: total(EXTENSIONS["linalg"][name](a) ** 3))(x)
    np.testing.assert_allclose(slope, slope.T, rtol=1e-12)
    step = np.asarray([[0.3, -0.2, 0.5], [-0.2, 0.1, 0.4], [0.5, 0.4, -0.6]]) * 1e-6
    f = getattr(np.linalg, name)
    change = (np.sum(f(x + step) ** 3) - np.sum(f(x - step) ** 3)) / 2
    assert np.sum(slope * step) == pytest.approx(change, rel=1e-6)


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_the_determinant_has_a_gradient_where_there_is_no_inverse(rank: int) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, rank)) @ rng.normal(size=(rank, 4))
    check_grad(linalg.det, x)


def test_its_second_derivative_says_that_it_needs_the_inverse() -> None:
    """NumPy's error is of a matrix that is inverted, which the caller did not ask for."""
    with pytest.raises(np.linalg.LinAlgError, match="Singular") as caught:
        hessian(linalg.det)(np.asarray([[1.0, 2.0], [2.0, 4.0]]))
    assert "second derivatives of linalg.det need the inverse" in caught.value.__notes__[0]


def test_a_norm_at_zero_has_slope_zero_and_ties_share() -> None:
    for ord in (1, 2, 3, np.inf):  # noqa: A001 (the standard's name)
        slope = grad(lambda a, p=ord: linalg.vector_norm(a, ord=p))(np.zeros(3))
        np.testing.assert_array_equal(slope, np.zeros(3))
    slope = grad(lambda a: linalg.vector_norm(a, ord=np.inf))(np.asarray([2.0, -2.0, 1.0]))
    np.testing.assert_array_equal(slope, [0.5, -0.5, 0.0])
    slope = grad(lambda a: linalg.vector_norm(a, ord=0.5))(np.asarray([0.0, -4.0]))
    np.testing.assert_array_equal(slope, [0.0, -1.0])


def test_the_power_0_of_a_matrix_without_an_inverse_is_the_identity() -> None:
    x = np.ones((2, 2))
    np.testing.assert_array_equal(linalg.matrix_power(x, 0), np.eye(2))
    slope = grad(lambda a: total(linalg.matrix_power(a, 0) + a))(x)
    np.testing.assert_array_equal(slope, x)


@pytest.mark.parametrize(("name", "shape"), [("eigh", (3, 3)), ("svd", (3, 3)), ("svd", (4, 3))])
def test_equal_values_have_a_gradient_where_no_vector_is_used(
    name: str, shape: tuple[int, int]
) -> None:
    """The sum of all values cubed is smooth, and its gradient 3 U S² Vᵀ."""
    x = np.zeros(shape)
    x[range(3), range(3)] = [2, 2, 5]
    which = 0 if name == "eigh" else 1

    def f(a: Any) -> Any:
        options = {} if name == "eigh" else {"full_matrices": False}
        return total(EXTENSIONS["linalg"][name](a, **options)[which] ** 3)

    np.testing.assert_allclose(grad(f)(x), 3 * x**2, atol=1e-12)


DOUBLE = np.diag([2.0, 2.0, 5.0])
TALL = np.asarray([[1.0, 0], [0, 0], [0, 0]])


def square_root(a: Any) -> Any:
    xp = array_namespace(a)
    w, v = xp.linalg.eigh(a)
    return (v * xp.sqrt(w)) @ v.mT


def left(a: Any) -> Any:
    return array_namespace(a).linalg.svd(a, full_matrices=False)[0]


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize(("f", "x"), [(square_root, DOUBLE), (left, TALL)])
def test_a_direction_through_vectors_of_equal_values_is_not_finite(f: Any, x: Any) -> None:
    """As the gradient is not: JAX and PyTorch say so too. It was finite, and wrong."""
    t = np.arange(x.size, dtype=float).reshape(x.shape)
    t = t + t.T if x.shape[0] == x.shape[1] else t
    (back,) = vjp(f, x)[1](np.ones(x.shape))
    assert np.isnan(back).any()
    assert np.isnan(jvp(f, (x,), (t,))[1]).any()


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_direction_through_the_vector_of_a_simple_value_is_finite() -> None:
    def projector(a: Any) -> Any:
        v = array_namespace(a).linalg.eigh(a)[1][:, 2:]
        return v @ v.mT

    t = np.asarray([[0.0, 1, 2], [1, 0, 3], [2, 3, 0]])
    by_differences = (projector(DOUBLE + 1e-6 * t) - projector(DOUBLE - 1e-6 * t)) / 2e-6
    found = jvp(projector, (DOUBLE,), (t,))[1]
    np.testing.assert_allclose(found, by_differences, atol=1e-8)


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("name", ["eigvalsh", "svdvals"])
def test_second_derivatives_of_equal_values_are_not_finite(name: str) -> None:
    """They came out as 0, where the values are; of values that differ they are right."""

    def f(a: Any) -> Any:
        return total(EXTENSIONS["linalg"][name](a) ** 2)  # the squares of all elements

    assert np.isnan(hessian(f)(np.zeros((2, 2)))).any()
    second = hessian(f)(np.diag([1.0, 3.0])).reshape(4, 4)
    both = np.eye(4) + np.eye(4)[[0, 2, 1, 3]]  # of a symmetric matrix, or of any
    np.testing.assert_allclose(second, both if name == "eigvalsh" else 2 * np.eye(4), atol=1e-12)


def test_rank_is_constant() -> None:
    x = np.diag([1.0, 2.0, 0.0])
    assert int(linalg.matrix_rank(x)) == 2
    slope = grad(lambda a: total(a * a) * stop_gradient(1.0 * linalg.matrix_rank(a)))(x)
    np.testing.assert_array_equal(slope, 4 * x)


@pytest.mark.parametrize("name", ["numpy", "strict"])
@pytest.mark.parametrize(
    "function",
    "cholesky det diagonal eig eigh eigvals eigvalsh inv matrix_norm pinv qr slogdet svd svdvals "
    "trace".split(),
)
def test_no_matrix_at_all(name: str, function: str) -> None:
    backend = get_backend(name)
    x = backend.from_host(np.zeros((0, 3, 3)), backend.device(None))

    def f(a: Any) -> Any:
        y = EXTENSIONS["linalg"][function](a)
        return total(OPS["real"](y[-1] if isinstance(y, tuple) else y))

    assert tuple(grad(f)(x).shape) == (0, 3, 3)


@pytest.mark.parametrize("name", ["numpy", "strict"])
@pytest.mark.parametrize("order", ["fro", "nuc", 1, 2, np.inf])
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 0, 3)])
def test_the_norm_of_a_matrix_without_numbers_is_0(
    shape: tuple[int, ...], order: Any, name: str
) -> None:
    backend = get_backend(name)
    x = backend.from_host(np.zeros(shape), backend.device(None))
    y = linalg.matrix_norm(x, ord=order)
    assert tuple(y.shape) == shape[:-2]
    assert float(total(y)) == 0
    assert tuple(grad(lambda a: total(linalg.matrix_norm(a, ord=order)))(x).shape) == shape


@pytest.mark.parametrize("name", ["numpy", "strict"])
@pytest.mark.parametrize("shapes", [((5, 2), (5, 2)), ((3,), (2,)), ((2,), (3,))])
def test_the_cross_product_is_of_three_dimensions(
    shapes: tuple[tuple[int, ...], ...], name: str
) -> None:
    backend = get_backend(name)
    x, y = (backend.from_host(np.ones(s), backend.device(None)) for s in shapes)
    with pytest.raises(ValueError, match=r"vectors of 3 numbers, along axis -1 of both"):
        linalg.cross(x, y)


def test_results_have_the_names_of_the_standard() -> None:
    x = np.asarray([[2.0, 1.0], [1.0, 3.0]])

    def f(a: Any) -> Any:
        xp = array_namespace(a)
        assert xp.linalg.eig(a)._fields == ("eigenvalues", "eigenvectors")
        assert xp.linalg.eigh(a)._fields == ("eigenvalues", "eigenvectors")
        assert xp.linalg.qr(a)._fields == ("Q", "R")
        assert xp.linalg.slogdet(a)._fields == ("sign", "logabsdet")
        assert xp.linalg.svd(a)._fields == ("U", "S", "Vh")
        return xp.linalg.eigh(a).eigenvalues[0] + xp.linalg.slogdet(a).logabsdet

    value, slope = value_and_grad(f)(x)
    w, v = np.linalg.eigh(x)
    assert value == pytest.approx(w[0] + np.log(5.0))
    np.testing.assert_allclose(slope, np.outer(v[:, 0], v[:, 0]) + np.linalg.inv(x), rtol=1e-12)


@pytest.mark.parametrize("name", ["numpy", "strict"])
def test_extensions_hold_all_functions_of_the_standard(name: str) -> None:
    xp = namespace(get_backend(name))
    for function in (
        "cholesky cross det diagonal eig eigh eigvals eigvalsh inv matmul matrix_norm matrix_power "
        "matrix_rank matrix_transpose outer pinv qr slogdet solve svd svdvals tensordot trace "
        "vecdot vector_norm"
    ).split():
        assert callable(getattr(xp.linalg, function))
        assert function in EXTENSIONS["linalg"]
    with pytest.raises(AttributeError, match="cholesky_of"):
        xp.linalg.cholesky_of  # noqa: B018 (looking it up is the test)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: linalg.svd(a).U, "full_matrices=False"),
        (lambda a: linalg.qr(a, mode="complete").Q, "mode='reduced'"),
    ],
)
def test_what_is_free_to_be_anything_has_no_derivative(call: Any, words: str) -> None:
    x = SAMPLES["linalg.svdvals"][0].args[0]
    assert call(x).shape == (4, 4)
    with pytest.raises(ValueError, match=words):
        grad(lambda a: total(call(a)))(x)


def test_an_order_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="'fro', 'nuc', 1"):
        linalg.matrix_norm(np.eye(2), ord=3)


@pytest.mark.parametrize("name", sorted({*PROBES, *NAMES} - {"linalg.matrix_rank"}))
def test_gradients_trace_under_jit(name: str) -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed: nox -s tests_jax has it")
    backend = get_backend("jax")
    sample = SAMPLES[name][0]
    given = [backend.from_host(a.astype(np.float32), backend.device(None)) for a in arrays(sample)]

    def f(*given: Any) -> Any:
        y = FUNCTIONS[name](*with_arrays(sample, list(given)), **sample.options)
        return total(y * y)

    g = grad(f, tuple(range(len(given))))
    for eager, traced in zip(g(*given), jax.jit(g)(*given), strict=True):
        np.testing.assert_allclose(traced, eager, rtol=1e-3, atol=1e-4)
