"""Every derivative beside JAX's own of the same function, eagerly and inside `jax.jit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import array_namespace

jax = pytest.importorskip("jax", reason="JAX is not installed")
jnp = jax.numpy

rng = np.random.default_rng(0)
X, W, B = rng.normal(size=(3, 4)), rng.normal(size=(4, 2)), rng.normal(size=2)


@pytest.fixture(autouse=True)
def _double() -> Any:
    with jax.enable_x64(True):
        yield


def network(xp: Any, x: Any, w: Any, b: Any) -> Any:
    return xp.tanh(x @ w + b)


def mixed(xp: Any, x: Any, w: Any, b: Any) -> Any:
    y = xp.exp(-(x * x)) @ w
    return xp.where(y > 0, y * y, xp.sin(y)) / (2 + xp.sum(b * b))


def reduced(xp: Any, x: Any, w: Any, b: Any) -> Any:
    return xp.log(1 + xp.sum(x * x, axis=0)) * xp.mean(w, axis=1) + b[0] * b[1]


def several(xp: Any, x: Any, w: Any, b: Any) -> Any:
    return {"max": xp.max(x, axis=1), "rows": [w[1:3, ...] * b, xp.sqrt(1 + b**2)]}


def number(xp: Any, x: Any, w: Any, b: Any) -> Any:
    return xp.sum(xp.abs(x[:, ::2]) @ xp.reshape(w, (2, 4))) ** 2 / (1 + xp.sum(b**2))


FUNCTIONS = [network, mixed, reduced, several, number]
NUMBERS = [
    number,
    lambda xp, x, w, b: xp.sum(network(xp, x, w, b) ** 3),
    lambda xp, x, w, b: xp.sum(mixed(xp, x, w, b)) * b[0],
    lambda xp, x, w, b: xp.sum(reduced(xp, x, w, b) ** 2),
]


def ours(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function as polynet's user writes it: the namespace is that of its last argument."""
    return lambda *args: f(array_namespace(args[-1]), *args)


def theirs(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: f(jnp, *args)


def arrays() -> tuple[Any, ...]:
    return tuple(jnp.asarray(a) for a in (X, W, B))


def like(trees: Any, seed: int) -> Any:
    """Random arrays in the structure of a tree."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(draw.normal(size=a.shape)), trees)


def agree(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (type(a), a.dtype, a.shape) == (type(b), b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


WAYS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "vjp": (
        lambda f, args, t, v: polynet.vjp(f, *args)[1](v),
        lambda f, args, t, v: jax.vjp(f, *args)[1](v),
    ),
    "jvp": (
        lambda f, args, t, v: polynet.jvp(f, args, t),
        lambda f, args, t, v: jax.jvp(f, args, t),
    ),
    "jacobian": (
        lambda f, args, t, v: polynet.jacobian(f, (0, 1, 2))(*args),
        lambda f, args, t, v: jax.jacrev(f, (0, 1, 2))(*args),
    ),
    "jvp of vjp": (
        lambda f, args, t, v: polynet.jvp(lambda *a: polynet.vjp(f, *a)[1](v), args, t)[1],
        lambda f, args, t, v: jax.jvp(lambda *a: jax.vjp(f, *a)[1](v), args, t)[1],
    ),
    "jvp of jvp": (
        lambda f, args, t, v: polynet.jvp(lambda *a: polynet.jvp(f, a, t)[1], args, t)[1],
        lambda f, args, t, v: jax.jvp(lambda *a: jax.jvp(f, a, t)[1], args, t)[1],
    ),
}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_products_and_jacobians(f: Callable[..., Any], way: str, jit: bool) -> None:
    here, there = WAYS[way]
    args = arrays()
    t, v = like(args, 1), like(theirs(f)(*args), 2)
    run: Callable[..., Any] = lambda args, t, v: here(ours(f), args, t, v)
    agree((jax.jit(run) if jit else run)(args, t, v), there(theirs(f), args, t, v))


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("k", range(len(NUMBERS)))
def test_gradients_and_hessians(k: int, jit: bool) -> None:
    f, g = ours(NUMBERS[k]), theirs(NUMBERS[k])
    args, every = arrays(), (0, 1, 2)
    vectors = like(args, 3)

    def run(args: Any, vectors: Any) -> Any:
        slope = polynet.grad(f, every)(*args)
        return slope, polynet.hessian(f, every)(*args), polynet.hvp(f, args, vectors)

    slope = jax.grad(g, every)
    expected = (
        slope(*args),
        jax.hessian(g, every)(*args),
        jax.jvp(slope, args, vectors)[1],
    )
    agree((jax.jit(run) if jit else run)(args, vectors), expected)


def test_traced_and_concrete_arrays_together() -> None:
    """Inside jit an array has no device yet; one that was there before has."""
    x, w, _ = arrays()
    f = ours(lambda xp, x, w: xp.sum((x @ w) ** 2))
    found = jax.jit(lambda x: polynet.grad(f, (0, 1))(x, w))(x)
    agree(found, jax.grad(lambda x, w: jnp.sum((x @ w) ** 2), (0, 1))(x, w))


def test_aux_is_where_jax_has_it() -> None:
    (b,) = arrays()[2:]
    f: Callable[..., Any] = lambda b: (b * b, b + 1)
    g: Callable[..., Any] = lambda b: (b[0] * b[1], b + 1)
    agree(polynet.grad(g, has_aux=True)(b), jax.grad(g, has_aux=True)(b))
    agree(polynet.jvp(f, (b,), (b,), has_aux=True), jax.jvp(f, (b,), (b,), has_aux=True))
    value, pullback, aux = polynet.vjp(f, b, has_aux=True)
    expected, back, other = jax.vjp(f, b, has_aux=True)
    agree((value, aux, pullback(b)), (expected, other, back(b)))


def test_polynet_may_be_first_used_inside_jit() -> None:
    """A backend is probed on its first use, which computes and reads a number on the host."""
    backend = polynet.get_backend("jax")

    def f(x: Any) -> Any:
        backend.probe(backend.device(None))
        return x

    assert jax.jit(f)(1.0) == 1.0
