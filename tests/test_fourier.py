"""Complex numbers and Fourier transforms: beside PyTorch, beside differences, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from polynet import array_namespace, asarray, grad, optim, value_and_grad
from polynet.backend import get_backend, to_numpy
from polynet.ops import OPS
from polynet.testing.assertions import supports_float64
from polynet.testing.gradients import numerical_gradient

BACKENDS = ["numpy", "strict", *(name for name in ("torch", "jax") if find_spec(name))]
on_each = pytest.mark.parametrize("name", BACKENDS)
_rng = np.random.default_rng(7)
REAL = _rng.normal(size=(4, 4))
COMPLEX = _rng.normal(size=(4, 4)) + 1j * _rng.normal(size=(4, 4))


def there(x: np.ndarray, name: str) -> Any:
    backend = get_backend(name)
    if not supports_float64(backend):
        x = x.astype(np.complex64 if x.dtype.kind == "c" else np.float32)
    return asarray(x, backend=name)


def near(actual: Any, expected: np.ndarray) -> None:
    host = to_numpy(actual)
    assert host.dtype.kind == expected.dtype.kind
    size = 2e-4 if host.dtype in (np.float32, np.complex64) else 1e-8
    np.testing.assert_allclose(host, expected, rtol=size, atol=size * np.max(np.abs(expected)))


def differences(f: Callable[..., Any], *given: np.ndarray) -> list[np.ndarray]:
    """∂f/∂x + i ∂f/∂y by each array, on NumPy."""

    def along(k: int, turn: complex) -> np.ndarray:
        def moved(step: np.ndarray) -> float:
            return float(f(*(a + turn * step if i == k else a for i, a in enumerate(given))))

        return numerical_gradient(moved, np.zeros(given[k].shape))

    return [
        along(k, 1) + 1j * along(k, 1j) if a.dtype.kind == "c" else along(k, 1)
        for k, a in enumerate(given)
    ]


def power(x: Any) -> Any:
    xp = array_namespace(x)
    return xp.sum(xp.abs(xp.fft.rfft(x)) ** 2)


def wave(x: Any) -> Any:  # real, complex in between, real again
    xp = array_namespace(x)
    z = xp.exp(x * 1j) * x
    return xp.sum(xp.real(xp.matmul(z, x.mT)) + xp.imag(z / (2 + x**2)))


def filtered(x: Any, z: Any) -> Any:
    xp = array_namespace(x)
    y = xp.fft.irfft(xp.fft.rfft(x, n=6) * z, n=6, norm="forward")
    return xp.sum(y**3)


def holomorphic(z: Any) -> Any:
    xp = array_namespace(z)
    w = xp.exp(z) / (z * z + 5) - xp.log(z) * xp.sqrt(z) + xp.sin(z) * xp.tanh(z / 4)
    return xp.sum(xp.real(w)) + xp.imag(xp.mean(w))


def magnitudes(z: Any) -> Any:
    xp = array_namespace(z)
    w = xp.fft.fft(xp.matmul(z, xp.conj(z.mT)), axis=0)
    return xp.sum(xp.abs(w) * xp.abs(z)) + xp.sum(xp.real(xp.sign(w) * z[0, :]))


def algebra(z: Any) -> Any:
    xp = array_namespace(z)
    n = xp.linalg
    inverse = n.inv(z)
    solved = n.solve(z, inverse[:, :2])
    return (
        xp.abs(n.det(z))
        + xp.sum(xp.real(solved) * xp.imag(inverse[:, :2]))
        + xp.real(n.trace(n.matrix_power(z, 3)))
        + n.vector_norm(z)
        + n.vector_norm(z, ord=3)
        + n.matrix_norm(z, ord=1)
        + xp.sum(xp.abs(xp.vecdot(z, inverse)) ** 2)
        + xp.abs(xp.tensordot(z, inverse))
    )


def shapes(z: Any) -> Any:
    xp = array_namespace(z)
    w = xp.concat([xp.reshape(z, (2, 8)), xp.conj(xp.reshape(z, (2, 8)))], axis=0)
    w = xp.where(xp.abs(w) > 1, w, w * w)
    return xp.sum(xp.abs(xp.take(w, xp.argsort(xp.real(w[0, :])), axis=1)[1:, 2:]) ** 2)


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
    "power": (power, (REAL,)),
    "wave": (wave, (REAL,)),
    "filtered": (filtered, (REAL, COMPLEX)),
    "holomorphic": (holomorphic, (COMPLEX,)),
    "magnitudes": (magnitudes, (COMPLEX,)),
    "algebra": (algebra, (COMPLEX,)),
    "shapes": (shapes, (COMPLEX,)),
}
by_function = pytest.mark.parametrize("function", FUNCTIONS)


@on_each
@by_function
def test_the_gradient_is_that_of_differences(name: str, function: str) -> None:
    f, given = FUNCTIONS[function]
    arrays = [there(a, name) for a in given]
    slopes = grad(f, tuple(range(len(given))))(*arrays)
    for slope, array, expected in zip(slopes, arrays, differences(f, *given), strict=True):
        assert slope.dtype == array.dtype
        near(slope, expected)


@by_function
def test_the_gradient_is_pytorchs(function: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nox -s tests_torch")
    f, given = FUNCTIONS[function]
    if (
        function == "shapes"
    ):  # array-api-compat's argsort and take want no tensors that require grad
        given = tuple(a + 0.1 for a in given)
    leaves = [torch.tensor(a, requires_grad=True) for a in given]
    f(*leaves).backward()
    slopes = grad(f, tuple(range(len(given))))(*(there(a, "torch") for a in given))
    for slope, leaf in zip(slopes, leaves, strict=True):
        np.testing.assert_allclose(slope.numpy(), leaf.grad.numpy(), rtol=1e-9, atol=1e-9)


@on_each
def test_the_power_of_a_spectrum(name: str) -> None:
    """In n Σx² = Σ|fft x|² (Parseval) all frequencies but the first and the last count twice."""
    n = REAL.shape[1]
    weight = np.asarray([1.0, 0.5, 1.0])
    expected = 2 * n * np.fft.irfft(np.fft.rfft(REAL) * weight, n=n)
    value, slope = value_and_grad(power)(there(REAL, name))
    near(value, np.asarray(np.sum(np.abs(np.fft.rfft(REAL)) ** 2)))
    near(slope, expected)


@on_each
def test_a_step_against_the_gradient_leads_downhill(name: str) -> None:
    target = there(COMPLEX, name)

    def distance(z: Any) -> Any:
        xp = array_namespace(z)
        return xp.sum(xp.abs(z - target) ** 2)

    z = there(COMPLEX * 0 + (1 + 1j), name)
    z = z - 0.5 * grad(distance)(z)
    near(z, COMPLEX)


@on_each
def test_second_derivatives_through_a_spectrum(name: str) -> None:
    """The slope of |∇f|² / 2 is the Hessian times ∇f; f is quadratic, its Hessian a constant."""
    x = there(REAL, name)

    def squared(a: Any) -> Any:
        s = grad(power)(a)
        return array_namespace(s).sum(s * s) / 2

    near(grad(squared)(x), to_numpy(grad(power)(grad(power)(x))))


@on_each
def test_casts_between_real_and_complex(name: str) -> None:
    x = there(REAL, name)
    backend = get_backend(name)
    kind = "complex128" if supports_float64(backend) else "complex64"

    def f(a: Any) -> Any:
        xp = array_namespace(a)
        z = xp.astype(a, getattr(backend.xp, kind))
        return xp.sum(xp.real(z * z * (2 + 3j)))

    near(grad(f)(x), 4 * REAL)


@on_each
def test_rows_of_complex_numbers_picked_several_times(name: str) -> None:
    def f(z: Any) -> Any:
        xp = array_namespace(z)
        rows = xp.asarray([1, 0, 1], device=z.device)
        return xp.sum(xp.abs(z[rows] * (1 - 2j)) ** 2)

    z = COMPLEX[0]
    near(grad(f)(there(z, name)), 10 * z * np.asarray([1, 2, 0, 0]))


@on_each
def test_full_like_passes_the_gradient_of_a_complex_fill_value(name: str) -> None:
    like = there(COMPLEX, name)

    def f(z: Any) -> Any:
        xp = array_namespace(z)
        return xp.sum(xp.abs(xp.full_like(like, z)) ** 2)

    near(grad(f)(there(np.asarray(1 + 2j), name)), np.asarray(32 * (1 + 2j)))


@pytest.mark.parametrize("name", ["var", "std"])
def test_the_variance_of_complex_numbers_is_refused_by_name(name: str) -> None:
    with pytest.raises(TypeError, match=rf"derivative of {name} for complex"):
        grad(lambda z: OPS["real"](OPS[name](z)))(COMPLEX)


@on_each
def test_at_zero_the_absolute_value_has_slope_zero(name: str) -> None:
    z = there(np.zeros(3, dtype=np.complex128), name)
    slope = grad(lambda a: OPS["sum"](OPS["abs"](a)))(z)
    np.testing.assert_array_equal(to_numpy(slope), np.zeros(3))


@on_each
def test_a_complex_result_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=r"returned .*complex.*expected floating point"):
        grad(lambda z: OPS["sum"](z))(there(COMPLEX, name))


def test_an_optimizer_refuses_complex_parameters() -> None:
    with pytest.raises(TypeError, match=r"'weight'.*complex128"):
        optim.Adam(1e-3).init({"weight": COMPLEX})


@on_each
def test_frequencies_are_constants(name: str) -> None:
    x = there(REAL, name)

    def f(a: Any) -> Any:
        xp = array_namespace(a)
        k = xp.fft.rfftfreq(4, device=xp.linalg.trace(a).device)
        k = xp.astype(k, a.dtype)
        return xp.sum(a[:, :3] * k)

    expected = np.zeros((4, 4))
    expected[:, :3] = np.fft.rfftfreq(4)
    near(grad(f)(x), expected)
