"""Derivatives beyond the gradient: products with vectors, whole matrices, of trees, nested."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from polynet import grad, hessian, hvp, jacobian, jvp, stop_gradient, tree, vjp
from polynet.backend import Backend, to_numpy
from polynet.errors import RecordError
from polynet.functional import softmax
from polynet.ops import OPS, array_namespace
from polynet.tensor import with_pullbacks
from polynet.testing.assertions import assert_close
from polynet.testing.gradients import check_grad
from polynet.testing.suite.cases import dtypes, overwrite, stays, to_backend

sin, cos, exp, multiply, total = (OPS[n] for n in ("sin", "cos", "exp", "multiply", "sum"))

X = np.asarray([[0.3, -0.7, 1.1], [0.5, 0.2, -0.4]])
W = np.asarray([0.9, -0.2, 0.6])
V = np.asarray([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])


def made(backend: Backend, value: Any) -> Any:
    """A tree of NumPy arrays on the backend, in the widest dtype it computes in."""
    return tree.map(lambda a: to_backend(np.asarray(a), backend, dtypes(backend)[-1]), value)


def close(actual: Any, expected: Any, backend: Backend, size: float = 1e-12) -> None:
    """Compare trees: structure, kind of array, device, dtype, shape and values."""
    dtype = dtypes(backend)[-1]
    size = size if dtype == "float64" else max(size, 5e-5)

    def leaf(wanted: Any, found: Any) -> None:
        stays(found, backend, backend.device(None), dtype)
        assert_close(found, np.asarray(wanted), backend, dtype=dtype, rtol=size, atol=size)

    tree.map(leaf, expected, actual)


def product(x: Any, w: Any) -> Any:
    """sin(x) w, of a matrix and a vector: both are broadcast or summed over."""
    return multiply(sin(x), w)  # of which the left one may be plain


def test_vjp_by_closed_form(backend: Backend) -> None:
    x, w, v = made(backend, (X, W, V))
    value, pullback = vjp(product, x, w)
    close(value, np.sin(X) * W, backend)
    expected = (V * np.cos(X) * W, (V * np.sin(X)).sum(0))
    close(pullback(v), expected, backend)
    close(pullback(v), expected, backend)  # again: the record is kept
    close(pullback(made(backend, 2 * V)), tuple(2 * e for e in expected), backend)


def test_jvp_by_closed_form(backend: Backend) -> None:
    x, w, dx, dw = made(backend, (X, W, V, W + 1))
    value, tangent = jvp(product, (x, w), (dx, dw))
    close(value, np.sin(X) * W, backend)
    close(tangent, np.cos(X) * V * W + np.sin(X) * (W + 1), backend)


def test_jacobian_by_closed_form(backend: Backend) -> None:
    x, w = made(backend, (X, W))
    by_x, by_w = jacobian(product, (0, 1))(x, w)
    rows, columns = np.eye(2), np.eye(3)
    close(by_x, np.einsum("ij,j,ik,jl->ijkl", np.cos(X), W, rows, columns), backend)
    close(by_w, np.einsum("ij,jk->ijk", np.sin(X), columns), backend)
    close(jacobian(product, -1)(x, w), to_numpy(by_w), backend)


def test_jacobian_of_softmax(backend: Backend) -> None:
    p = np.exp(W) / np.exp(W).sum()
    close(jacobian(softmax)(made(backend, W)), np.diag(p) - np.outer(p, p), backend)


def test_hessian_and_hvp_by_closed_form(backend: Backend) -> None:
    """Of Σ sin(xᵢ) Σ xᵢ²: cosᵢ 2xⱼ + 2xᵢ cosⱼ + δᵢⱼ (2 Σ sin − sinᵢ Σ x²)."""

    def f(x: Any) -> Any:
        return total(sin(x)) * total(x * x)

    c, s = np.cos(W), np.sin(W)
    expected = np.outer(c, 2 * W) + np.outer(2 * W, c) + np.diag(2 * s.sum() - s * (W**2).sum())
    x, v = made(backend, (W, W + 1))
    close(hessian(f)(x), expected, backend)
    close(hvp(f, (x,), (v,)), (expected @ (W + 1),), backend)


def test_hessian_by_several_arrays(backend: Backend) -> None:
    """Of Σ x w²: 0, 2w on the diagonal, 2x on the diagonal."""
    x, w = made(backend, (X[0], W))
    f: Callable[..., Any] = lambda x, w: total(x * w * w)
    (xx, xw), (wx, ww) = hessian(f, (0, 1))(x, w)
    for found, expected in ((xx, 0 * W), (xw, 2 * W), (wx, 2 * W), (ww, 2 * X[0])):
        close(found, np.diag(expected), backend)
    by_x, by_w = hvp(f, (x, w), made(backend, (X[1], V[0])))
    close(by_x, 2 * W * V[0], backend)
    close(by_w, 2 * W * X[1] + 2 * X[0] * V[0], backend)


PARAMETERS = {"scale": W, "shift": [X, (np.asarray(0.5),)]}


def affine(p: Any) -> Any:
    """A tree of results from a tree of parameters."""
    y = p["scale"] * p["shift"][0] + p["shift"][1][0]
    return {"y": y, "pair": (total(y * y), p["scale"])}


def test_products_of_trees(backend: Backend) -> None:
    p = made(backend, PARAMETERS)
    y = W * X + 0.5
    value, pullback = vjp(affine, p)
    results = {"y": y, "pair": ((y * y).sum(), W)}
    close(value, results, backend)
    cotangent = {"y": V, "pair": (np.asarray(2.0), W + 1)}
    (found,) = pullback(made(backend, cotangent))
    g = V + 4 * y
    expected = {"scale": (g * X).sum(0) + W + 1, "shift": [g * W, (g.sum(),)]}
    close(found, expected, backend)
    # ⟨v, J t⟩ = ⟨Jᵀ v, t⟩
    tangent = {"scale": W - 1, "shift": [V * V, (np.asarray(-1.5),)]}
    _, pushed = jvp(affine, (p,), (made(backend, tangent),))
    dy = (W - 1) * X + W * V * V - 1.5
    close(pushed, {"y": dy, "pair": ((2 * y * dy).sum(), W - 1)}, backend)


def test_jacobian_and_hessian_of_trees(backend: Backend) -> None:
    p = made(backend, {"a": W, "b": [np.asarray(2.0)]})
    found = jacobian(lambda p: {"y": p["a"] * p["b"][0], "z": p["b"][0]})(p)
    expected = {
        "y": {"a": 2 * np.eye(3), "b": [W]},
        "z": {"a": np.zeros(3), "b": [np.asarray(1.0)]},
    }
    close(found, expected, backend)
    twice = hessian(lambda p: total(p["a"] * p["a"]) * p["b"][0])(p)
    close(twice["a"]["a"], 4 * np.eye(3), backend)
    close(twice["a"]["b"][0], 2 * W, backend)
    close(twice["b"][0], {"a": 2 * W, "b": [np.asarray(0.0)]}, backend)


def test_aux(backend: Backend) -> None:
    x, v = made(backend, (W, V[0]))
    f: Callable[..., Any] = lambda x: (x * x, {"twice": x * 2, "name": "f"})
    value, pullback, aux = vjp(f, x, has_aux=True)
    close(pullback(v), (2 * W * V[0],), backend)
    pushed = jvp(f, (x,), (v,), has_aux=True)
    close(pushed[:2], (W * W, 2 * W * V[0]), backend)
    slope, of_grad = grad(lambda x: (total(f(x)[0]), f(x)[1]), has_aux=True)(x)
    close((value, slope), (W * W, 2 * W), backend)
    of_pullback = grad(lambda a: total(pullback(a * a)[0]))(x)  # 2x·a², by a at x
    close(of_pullback, 4 * W * W, backend)
    for found in (aux, pushed[2], of_grad):
        assert found["name"] == "f"
        close(found["twice"], 2 * W, backend)


def test_what_does_not_depend_has_derivative_zero(backend: Backend) -> None:
    x, w = made(backend, (X, W))
    f: Callable[..., Any] = lambda a: (w, array_namespace(a).ones_like(a), a)
    value, pullback = vjp(f, x)
    close(value, (W, np.ones((2, 3)), X), backend)
    close(pullback((w, x, made(backend, V))), (V,), backend)
    _, tangent = jvp(f, (x,), (made(backend, V),))
    close(tangent, (0 * W, 0 * X, V), backend)
    close(jacobian(lambda a: w)(x), np.zeros((3, 2, 3)), backend)
    close(hessian(lambda a: total(a))(w), np.zeros((3, 3)), backend)
    with pytest.warns(RuntimeWarning, match="none of the arrays"):
        close(hvp(lambda a: total(w), (x,), (x,)), (0 * X,), backend)


def test_one_result_in_two_places(backend: Backend) -> None:
    x, v = made(backend, (W, V[0]))

    def f(a: Any) -> Any:
        y = a * a
        return y, y, a

    _, pullback = vjp(f, x)
    close(pullback((v, x, x)), (2 * W * (V[0] + W) + W,), backend)
    _, outer = vjp(lambda v: vjp(f, x)[1]((v, v, v)), v)
    close(outer((x,)), (4 * W * W + W,), backend)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1, 2)])
def test_no_element_and_no_axis(backend: Backend, shape: tuple[int, ...]) -> None:
    x = np.full(shape, 0.6)
    a = made(backend, x)
    value, pullback = vjp(sin, a)
    close((value, pullback(a)), (np.sin(x), (x * np.cos(x),)), backend)
    close(jvp(sin, (a,), (a,)), (np.sin(x), x * np.cos(x)), backend)
    diagonal = np.diag(np.cos(x).ravel()).reshape(shape * 2)
    close(jacobian(sin)(a), diagonal, backend)
    close(jacobian(lambda a: total(sin(a)))(a), np.cos(x), backend)
    close(
        hessian(lambda a: total(sin(a)))(a), -np.diag(np.sin(x).ravel()).reshape(shape * 2), backend
    )
    close(hvp(lambda a: total(sin(a)), (a,), (a,)), (-x * np.sin(x),), backend)


ORDERS = {
    "grad": grad,
    "vjp": lambda f: lambda x: vjp(f, x)[1](array_namespace(x).ones_like(x))[0],
    "jvp": lambda f: lambda x: jvp(f, (x,), (array_namespace(x).ones_like(x),))[1],
    "jacobian": jacobian,
    "value of a vjp": lambda f: lambda x: vjp(jacobian(f), x)[0],
}


@pytest.mark.parametrize("second", ORDERS)
@pytest.mark.parametrize("first", ORDERS)
def test_nested_to_order_four(backend: Backend, first: str, second: str) -> None:
    """d⁴/dx⁴ sin(x)² = −8 cos(2x), by any two ways in turn."""
    f: Callable[..., Any] = lambda x: sin(x) * sin(x)
    x = made(backend, 0.7)
    by_order = [np.sin(1.4), 2 * np.cos(1.4), -4 * np.sin(1.4), -8 * np.cos(1.4)]
    for i, expected in enumerate(by_order):
        f = ORDERS[second if i % 2 else first](f)
        close(f(x), expected, backend, 1e-11)


def test_derivatives_by_differences(backend: Backend) -> None:
    """Gradients of what vjp, jvp, jacobian, hessian and hvp return, against differences."""
    if "float64" not in dtypes(backend):
        pytest.skip("differences are taken in float64")
    x, w, v = made(backend, (X, W, V))

    def f(x: Any, w: Any) -> Any:
        return exp(product(x, w)) * cos(x)

    def inner(a: Any, b: Any) -> Any:
        return total(a * b)

    for g in (
        lambda x, w, v: inner(vjp(f, x, w)[1](v)[0], x),
        lambda x, w, v: inner(jvp(f, (x, w), (v, w))[1], v),
        lambda x, w, v: total(jacobian(f, 1)(x, w)),
        lambda x, w, v: total(sin(hessian(lambda w: total(f(x, w)))(w))),
        lambda x, w, v: inner(hvp(lambda x: total(f(x, w)), (x,), (v,))[0], v),
    ):
        check_grad(g, x, w, v, rtol=1e-6, atol=1e-7)
    check_grad(lambda x, w: total(f(x, w)), x, w, order=3, rtol=1e-6, atol=1e-7)


def test_check_grad_finds_a_wrong_second_derivative(backend: Backend) -> None:
    if "float64" not in dtypes(backend):
        pytest.skip("differences are taken in float64")

    @with_pullbacks(lambda xp, g, x: g * stop_gradient(3 * x * x))
    def cube(xp: Any, x: Any) -> Any:
        return x**3

    x = made(backend, W)
    check_grad(lambda x: total(cube(x)), x)
    with pytest.raises(AssertionError, match="gradient by argument 0"):
        check_grad(lambda x: total(cube(x)), x, order=2)


def test_a_pullback_made_outside_is_differentiated_inside(backend: Backend) -> None:
    """Of vᵀJ by v, and within a derivative by something else."""
    x, w, v = made(backend, (X, W, V))
    _, pullback = vjp(lambda x: product(x, w), x)
    found = grad(lambda v: total(pullback(v)[0] * x))(v)
    close(found, np.cos(X) * W * X, backend)
    _, pushed = jvp(lambda v: pullback(v * v)[0], (v,), (x,))
    close(pushed, 2 * V * X * np.cos(X) * W, backend)
    close(grad(lambda a: total(a * pullback(v)[0]))(x), V * np.cos(X) * W, backend)


def test_a_pullback_of_an_ended_outer_derivative_says_so(backend: Backend) -> None:
    x, v = made(backend, (X, V))
    kept = []

    def outer(w: Any) -> Any:
        kept.append(vjp(lambda x: product(x, w), x)[1])
        return total(w)

    grad(outer)(made(backend, W))
    with pytest.raises(RecordError, match="has ended"):
        kept[0](v)


def test_what_leaks_out_of_vjp_says_so(backend: Backend) -> None:
    x = made(backend, W)
    kept = []
    _, pullback = vjp(lambda a: kept.append(a * 2) or a * a, x)
    with pytest.raises(RecordError, match="has ended"):
        kept[0] + 1
    close(pullback(x), (2 * W * W,), backend)


def test_arrays_may_change_between_vjp_and_its_pullback(backend: Backend) -> None:
    x, v = made(backend, (W, V[0]))
    value, pullback = vjp(lambda a: (a * a, a), x)
    for mine in (x, *value):
        overwrite(mine)
    found = pullback((v, v))[0]
    close(found, 2 * W * V[0] + V[0], backend)
    (same,) = vjp(lambda a: a, made(backend, W))[1](v)
    overwrite(same)
    close(v, V[0], backend)


def test_a_pullback_in_other_threads(backend: Backend) -> None:
    x, w, v = made(backend, (X, W, V))
    found: dict[int, Any] = {}

    def outer(w: Any) -> Any:
        _, pullback = vjp(lambda x: product(x, w), x)

        def work(k: int) -> None:
            found[k] = total(pullback(v)[0])

        contexts = [contextvars.copy_context() for _ in range(4)]
        threads = [threading.Thread(target=c.run, args=(work, k)) for k, c in enumerate(contexts)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return found[0] + found[1] + found[2] + found[3]

    close(grad(outer)(w), 4 * (V * np.cos(X)).sum(0), backend)
