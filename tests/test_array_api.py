"""`polynet.namespace` and the Tensors it makes: what the standard says, with derivatives.

The official suite has the rest: `nox -s array_api`.
"""

import inspect
import math

import numpy as np
import pytest

import polynet
from polynet import grad, value_and_grad
from polynet.errors import MixedBackendsError, RecordError
from polynet.testing.gradients import numerical_gradient

X = np.asarray([[0.5, -1.0, 2.0], [3.0, 0.25, -0.5], [1.5, 1.0, -2.5]])


@pytest.fixture
def xp(backend):
    return polynet.namespace(backend)


@pytest.fixture
def x(backend):
    return polynet.asarray(X, backend=backend)


def host(tensor):
    assert type(tensor) is polynet.Tensor
    return polynet.to_numpy(polynet.tensor.plain_value(tensor))


# The namespace


def test_the_namespace_of_a_name_or_a_backend_is_one(backend, xp):
    assert polynet.namespace(backend.name) is xp
    with polynet.use_backend(backend):
        assert polynet.namespace() is xp
    assert xp.__array_api_version__ == "2025.12"
    assert {"asarray", "exp", "float32", "take"} <= set(dir(xp))
    with pytest.raises(AttributeError):
        _ = xp.no_such_function


def test_every_function_shows_the_signature_of_the_standard(xp):
    assert list(inspect.signature(xp.reshape).parameters) == ["x", "shape", "copy"]
    assert list(inspect.signature(xp.asarray).parameters) == ["obj", "dtype", "device", "copy"]
    assert "xp" not in inspect.signature(polynet.functional.softmax).parameters


def test_what_it_makes_are_tensors_in_it(backend, xp):
    for made in (xp.arange(3), xp.asarray([1.0, 2.0]), xp.eye(2), xp.full((2,), 7)):
        assert type(made) is polynet.Tensor
        assert made.size == math.prod(made.shape)
        assert made.__array_namespace__() is xp
        assert made.__array_namespace__(api_version="2023.12") is xp
        assert backend.is_array(polynet.tensor.plain_value(made))
    with pytest.raises(ValueError, match=r"'2019.07'.*2025.12"):
        made.__array_namespace__(api_version="2019.07")


def test_extensions_take_and_return_tensors(backend, xp, x):
    a = xp.asarray(x)
    inverse = xp.linalg.inv(a)
    np.testing.assert_allclose(host(xp.linalg.matmul(inverse, a)), np.eye(3), atol=1e-12)
    assert all(type(part) is polynet.Tensor for part in xp.linalg.qr(a))
    rounded = xp.fft.ifft(xp.fft.fft(xp.astype(a, xp.complex128)))
    np.testing.assert_allclose(host(rounded), X, atol=1e-12)
    slope = grad(lambda a: xp.sum(xp.linalg.matmul(a, a)))(x)
    expected = X.sum(axis=0)[:, None] + X.sum(axis=1)[None, :]
    np.testing.assert_allclose(polynet.to_numpy(slope), expected, rtol=1e-12)


def test_what_is_new_in_2025(backend, xp, x):
    a, whole = xp.asarray(x), xp.asarray([4, 1, 7])
    assert tuple(xp.broadcast_shapes((3, 1), (1, 4), (4,))) == (3, 4)
    assert tuple(xp.broadcast_shapes()) == ()
    assert xp.expand_dims(a, axis=(-1, 0)).shape == (1, 3, 3, 1)
    assert xp.expand_dims(a, axis=()).shape == (3, 3)
    with pytest.raises(ValueError, match=r"axis \(1, -3\), two are the same"):
        xp.expand_dims(a, axis=(1, -3))
    assert type(xp.meshgrid(whole, whole)) is type(xp.broadcast_arrays(a, a)) is tuple
    np.testing.assert_array_equal(host(xp.permute_dims(a, (-1, 0))), X.T)
    assert int(xp.searchsorted(xp.asarray([1.0, 2.0, 3.0]), 2.5)) == 2
    assert host(xp.isin(whole, xp.asarray([7, 4]))).tolist() == [True, False, True]
    assert host(xp.isin(whole, 1)).tolist() == [False, True, False]
    w, v = xp.linalg.eig(a)
    np.testing.assert_allclose(host(v * w), X @ host(v), rtol=1e-12, atol=1e-12)
    by_power = host(xp.sum(xp.linalg.eigvals(a) ** 3))
    np.testing.assert_allclose(by_power, np.trace(X @ X @ X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("threshold", [0.5, 1e-9])
def test_a_threshold_of_ranks_may_be_an_array_of_the_namespace(xp, x, threshold):
    rtol = xp.asarray(threshold, dtype=xp.float64)
    inverse, rank = xp.linalg.pinv(xp.asarray(x), rtol=rtol), xp.linalg.matrix_rank(x, rtol=rtol)
    np.testing.assert_allclose(host(inverse), np.linalg.pinv(X, rcond=threshold), atol=1e-12)
    assert int(rank) == np.linalg.matrix_rank(X, rtol=threshold)


def test_asarray_keeps_the_record(xp, x):
    def f(a):
        table = xp.asarray([[a[0, 0], 2.0], [3, a[0, 0] * a[1, 1]]])
        same = xp.asarray(a)
        assert same is a
        copied = xp.asarray(a, copy=True)
        assert copied is not a
        return xp.sum(table * table) + xp.sum(copied)

    value, slope = value_and_grad(f)(x)
    assert float(value) == pytest.approx(0.25 + 4 + 9 + 0.125**2 + X.sum())
    expected = np.ones((3, 3))
    expected[0, 0] += 2 * 0.5 + 2 * 0.125 * 0.25
    expected[1, 1] += 2 * 0.125 * 0.5
    np.testing.assert_allclose(polynet.to_numpy(slope), expected)


def test_asarray_of_nested_numbers_has_the_dtype_of_the_tensors(xp, x):
    a = xp.asarray(x, dtype=xp.float32)
    assert xp.asarray([[a[0, 0], 2.0], [3, a[1, 1]]]).dtype == xp.float32


def test_asarray_refuses_what_would_copy(xp, x):
    a = xp.asarray(x)
    assert xp.asarray(a, copy=False) is a
    assert xp.asarray(a, dtype=xp.float32).dtype == xp.float32
    with pytest.raises(ValueError, match=r"leave copy=False out"):
        xp.asarray(a, dtype=xp.float32, copy=False)
    with pytest.raises(ValueError, match="leave copy=False out"):
        xp.asarray([a, a], copy=False)


def test_a_tensor_of_another_backend_is_refused():
    made = polynet.namespace("strict").ones(2)
    with pytest.raises(MixedBackendsError, match="backend 'numpy'"):
        polynet.namespace("numpy").asarray(made)


def test_what_would_leave_the_record_says_what_to_do(xp, x):
    leaves_it = (
        float,
        int,
        bool,
        complex,
        range,
        np.asarray,
        np.from_dlpack,
        xp.from_dlpack,
    )
    for convert in leaves_it:

        def f(a, convert=convert):
            convert(xp.sum(a))
            return xp.sum(a)

        with pytest.raises(RecordError, match="stop_gradient"):
            grad(f)(x)
    with pytest.raises(ValueError, match="leave copy=False out"):
        np.asarray(xp.ones(2), copy=False)


def test_to_device_and_astype_bring_the_gradient_back(backend, xp):
    for device in backend.devices().values():
        x = backend.from_host(X, backend.device(None))

        def f(a, device=device):
            moved = a.to_device(device)
            assert moved.device == device
            cast = xp.astype(a, xp.float32, device=device)
            assert (cast.device, cast.dtype) == (device, xp.float32)
            there = xp.sum(moved * moved) + xp.sum(xp.astype(cast, xp.float64))
            return there.to_device(a.device)

        slope = grad(f)(x)
        assert backend.device_of(slope) == backend.device(None)
        np.testing.assert_allclose(polynet.to_numpy(slope), 2 * X + 1)


# Assignment

KEYS = (
    (0, X[2]),
    (..., 3.0),
    ((slice(None), 1), np.asarray([7.0])),
    ((slice(None, None, -2), slice(1, None)), X[:2, :2]),
    ((-1, 2), -4.0),
    (slice(1, 1), X[0]),
    (X > 0.4, 0.9),
    (X > 0.4, np.asarray([1.0, 2.0, -3.0, 4.0, 5.0])),
    (X > 2.5, np.asarray([7.0])),
    (np.zeros((0, 3), dtype=bool), 2.0),
    (np.asarray([True, False, True]), X[:2] * 3),
    (np.asarray([True, False, True]), X[0]),
    (np.asarray([False, False, False]), X[:1]),
    (np.asarray(True), 2.0),
    ((np.asarray([2, 0]), np.asarray([[1], [-2]])), X[:2, :2]),
    ((np.asarray([1, -2, 1]), 2), np.asarray([5.0, 6.0, 7.0])),
)
KEYS = tuple((key, np.asarray(value)) for key, value in KEYS)


def on(backend, value):
    """NumPy arrays, in a tuple too, as the backend's."""
    if isinstance(value, tuple):
        return tuple(on(backend, v) for v in value)
    return polynet.asarray(value, backend=backend) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("dtype", ["float64", "int32", "bool"])
@pytest.mark.parametrize("number", range(len(KEYS)))
def test_assignment_is_numpy_s_and_leaves_the_user_s_array_alone(backend, xp, number, dtype):
    key, value = KEYS[number]
    before, new = X.astype(dtype), value.astype(dtype)
    expected = before.copy()
    expected[key] = new
    given = on(backend, before)
    for assigned in (on(backend, new), new.item()) if new.ndim == 0 else (on(backend, new),):
        tensor = xp.asarray(given)
        tensor[on(backend, key)] = assigned
        found = host(tensor)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(polynet.to_numpy(given), before)


@pytest.mark.parametrize("number", range(len(KEYS)))
def test_assignment_has_the_derivative_of_both(backend, xp, number):
    key, value = KEYS[number]
    there = on(backend, key)

    def f(a, v):
        a, v = xp.asarray(a), xp.asarray(v)
        b = a * a
        part, whole = b[0, 0] * 3, b[...]
        b[there] = v * v
        return xp.sum(b * b * b) + part + xp.sum(whole)

    slopes = grad(f, (0, 1))(on(backend, X), on(backend, value))
    for i, slope in enumerate(slopes):

        def along(z, i=i):
            args = [X, value]
            args[i] = z
            return float(f(*on(backend, tuple(args))))

        expected = numerical_gradient(along, (X, value)[i])
        np.testing.assert_allclose(polynet.to_numpy(slope), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("number", range(len(KEYS)))
def test_assignment_has_second_derivatives(backend, xp, number):
    key, value = KEYS[number]
    there = on(backend, key)
    direction = on(backend, np.cos(np.arange(9.0)).reshape(3, 3))

    def f(a):
        b = a * a
        b[there] = xp.sum(a) * on(backend, value)
        return xp.sum(b * b * b)

    def slope(a):
        return xp.sum(grad(f)(a) * direction)

    found = polynet.to_numpy(grad(slope)(on(backend, X)))
    expected = numerical_gradient(lambda z: float(slope(on(backend, z))), X)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_an_array_filled_step_by_step_is_recorded(backend, xp, x):
    def f(a):
        rows = xp.zeros((3,), dtype=a.dtype, device=a.device)
        for i in range(3):
            rows[i] = xp.sum(a[i, :]) * (i + 1)
        return xp.sum(rows * rows)

    sums = X.sum(axis=1) * [1, 2, 3]
    expected = np.repeat((2 * sums * [1, 2, 3])[:, None], 3, axis=1)
    np.testing.assert_allclose(polynet.to_numpy(grad(f)(x)), expected)


def test_assignment_traces_under_jit():
    jax = pytest.importorskip("jax", reason="JAX is not installed")

    def f(a, where):
        a = a * a
        a[1:] = 3.0
        a[where > 1] = a[0]
        a[where,] = a * 2
        return polynet.functional.softmax(a, axis=0)[0]

    xp = jax.numpy
    args = xp.asarray([0.5, 1.0, 2.0]), xp.asarray([2, 0, 1])
    found, expected = jax.jit(grad(f))(*args), grad(f)(*args)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_cannot_be_assigned_is_refused(backend, xp, x):
    a = xp.asarray(x)
    whole = xp.asarray(on(backend, np.asarray([1, 2], dtype=np.int32)))
    for error, key, value, match in (
        (TypeError, 0, [1.0, 2.0, 3.0], "cannot assign a list"),
        (TypeError, 0, 1j, None),
        (TypeError, True, 1.0, "cannot index by bool"),
        (IndexError, 3, 1.0, "out of bounds"),
        (IndexError, (0, 0, 0), 1.0, "3 indices"),
        (IndexError, (on(backend, np.asarray([1])), slice(None)), 1.0, "index all axes"),
        (IndexError, on(backend, np.asarray([True, False])), 1.0, "mask of shape"),
        ((ValueError, RuntimeError), 0, on(backend, np.ones(2)), None),
        ((ValueError, RuntimeError), on(backend, X > 0.4), on(backend, np.ones(2)), None),
    ):
        with pytest.raises(error, match=match):
            a[key] = value
    for value in (1.5, on(backend, np.asarray(1.5))):
        with pytest.raises(TypeError):
            whole[0] = value
    np.testing.assert_array_equal(host(a), X)


@pytest.mark.parametrize("key", [(slice(0, 0), ...), np.zeros(X.shape, dtype=bool)])
def test_an_assignment_of_nothing_gives_a_new_array_too(backend, xp, x, key):
    a, there = xp.asarray(x, copy=True), on(backend, key)
    b = polynet.functional.setitem(a, there, a[there])
    b += 1
    np.testing.assert_array_equal(host(a), X)
    np.testing.assert_array_equal(host(b), X + 1)


# Operators in place


def test_operators_in_place_make_a_new_node(backend, xp, x):
    def f(a):
        b = a * 1.0
        alias, before = b, b * 2
        b += 1
        b *= a
        b -= a / 2
        b /= 2.0
        b **= 2
        assert alias is b
        return xp.sum(b) + xp.sum(before)

    # b = (x² + x/2) / 2
    expected = 2 * (X**2 + X / 2) / 2 * (2 * X + 0.5) / 2 + 2
    np.testing.assert_allclose(polynet.to_numpy(grad(f)(x)), expected)
    np.testing.assert_array_equal(polynet.to_numpy(x), X)


def test_operators_in_place_keep_dtype_and_shape(backend, xp, x):
    a = xp.asarray(x)
    with pytest.raises(TypeError, match="keeps the dtype"):
        a_short = xp.astype(a, xp.float32)
        a_short += a
    row = a[0, :]
    with pytest.raises(ValueError, match="keeps the shape"):
        row += a
    np.testing.assert_array_equal(host(row), X[0])


# Numbers of NumPy


def test_a_shape_may_hold_integers_of_numpy(backend, xp, x):
    def f(a):
        return xp.sum(xp.broadcast_to(a[0, :], (np.int64(5), X.shape[1])))

    expected = np.zeros(X.shape)
    expected[0, :] = 5
    np.testing.assert_array_equal(polynet.to_numpy(grad(f)(x)), expected)
