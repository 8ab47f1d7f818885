"""Gradients and products with the Hessian beside JAX's, in float64, of the same code.

JAX's own derivatives are taken of JAX's arrays, ours of NumPy's; what is compared is written
once, for both namespaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import polynet
from polynet.backend import use_backend

jax = pytest.importorskip("jax", reason="JAX is not installed")

UNARY = {
    **dict.fromkeys("abs asinh atan cos cosh exp expm1 negative positive".split(), (-2, 2)),
    **dict.fromkeys("sin sinh square tanh".split(), (-2, 2)),
    **dict.fromkeys("log log1p log2 log10 reciprocal sqrt".split(), (0.4, 3)),
    **dict.fromkeys("acos asin atanh tan".split(), (-0.8, 0.8)),
    "acosh": (1.3, 3),
}
BINARY = {
    **dict.fromkeys("add subtract multiply logaddexp maximum minimum copysign".split(), (-2, 2)),
    **dict.fromkeys("divide pow hypot atan2".split(), (0.4, 2)),
}
ROWS = np.asarray([2, 0, 2, 1])
PLACES = np.asarray([[0, 3, 3], [1, 1, 2], [2, 0, 0]])
HALF = np.asarray([True, False, True, True])


def with_zeros(xp: Any, x: Any) -> Any:
    """`x` with a column of one zero, one of two, and two of none."""
    return x * xp.asarray([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])


def softmax(xp: Any, x: Any) -> Any:
    e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


def normalised(xp: Any, x: Any) -> Any:
    mean, spread = xp.mean(x, axis=-1, keepdims=True), xp.std(x, axis=-1, keepdims=True)
    return (x - mean) / (spread + 1e-3)


def attention(xp: Any, q: Any, k: Any, v: Any) -> Any:
    scores = xp.tril(xp.matmul(q, k.mT)) / 2.0
    return xp.matmul(softmax(xp, scores), v)


def distances(xp: Any, x: Any, y: Any) -> Any:
    apart = xp.expand_dims(x, axis=1) - xp.expand_dims(y, axis=0)
    return xp.sqrt(xp.sum(apart**2, axis=-1) + 0.1)


def running_mean(xp: Any, x: Any) -> Any:
    return xp.cumulative_sum(x, axis=0) / xp.reshape(xp.asarray([1.0, 2.0, 3.0]), (3, 1))


def two_layers(xp: Any, x: Any, w: Any, b: Any) -> Any:
    return xp.maximum(xp.tanh(x @ w + b) @ w.mT, 0.1)


FUNCTIONS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "remainder": (lambda xp, x, y: xp.remainder(x, y * 0.1 + 3.0), [(3, 4), (4,)]),
    "power of a negative": (lambda xp, x: x**3 + x**2.0 + x**-1, [(3, 4)]),
    "power of numbers": (lambda xp, x: 2.0**x + 0.0 ** xp.exp(x), [(3, 4)]),
    "clip": (lambda xp, x: xp.clip(x, -0.513, 0.717), [(3, 4)]),
    "clip to arrays": (lambda xp, x, a: xp.clip(x, a - 1.0, a + 1.0), [(3, 4), (4,)]),
    "sum": (lambda xp, x: xp.sum(x, axis=(0, -1)), [(2, 3, 4)]),
    "mean": (lambda xp, x: xp.mean(x, axis=1, keepdims=True), [(3, 4)]),
    "prod": (lambda xp, x: xp.prod(x, axis=1), [(3, 4)]),
    "prod of all": (lambda xp, x: xp.prod(x), [(2, 3)]),
    "prod with zeros": (lambda xp, x: xp.prod(with_zeros(xp, x), axis=0), [(3, 4)]),
    "var": (lambda xp, x: xp.var(x, axis=0, correction=1), [(3, 4)]),
    "std": (lambda xp, x: xp.std(x, axis=(0, 2), keepdims=True), [(2, 3, 2)]),
    "max": (lambda xp, x: xp.max(x, axis=-1), [(3, 4)]),
    "min": (lambda xp, x: xp.min(x), [(3, 4)]),
    "cumulative_sum": (lambda xp, x: xp.cumulative_sum(x, axis=-1), [(3, 4)]),
    "cumulative_prod": (
        lambda xp, x: xp.cumulative_prod(x, axis=1, include_initial=True),
        [(2, 7)],
    ),
    "cumulative_prod with zeros": (
        lambda xp, x: xp.cumulative_prod(with_zeros(xp, x), axis=0),
        [(3, 4)],
    ),
    "diff": (lambda xp, x, a: xp.diff(x, axis=0, n=2, prepend=a), [(3, 4), (1, 4)]),
    "concat": (lambda xp, x, y: xp.concat([x, y, x], axis=1), [(3, 4), (3, 1)]),
    "concat of all": (lambda xp, x, y: xp.concat([x, y], axis=None), [(3, 4), (2,)]),
    "stack": (lambda xp, x, y: xp.stack([x, y], axis=-1), [(3, 4), (3, 4)]),
    "unstack": (lambda xp, x: xp.concat(list(xp.unstack(x, axis=1))), [(3, 4)]),
    "tile": (lambda xp, x: xp.tile(x, (2, 1, 3)), [(3, 4)]),
    "repeat": (lambda xp, x: xp.repeat(x, 3, axis=1), [(3, 4)]),
    "repeat by counts": (
        lambda xp, x: xp.repeat(x, np.asarray([2, 0, 3]), axis=0),
        [(3, 4)],
    ),
    "roll": (lambda xp, x: xp.roll(x, (1, -2), axis=(0, 1)), [(3, 4)]),
    "flip": (lambda xp, x: xp.flip(x, axis=0), [(3, 4)]),
    "moveaxis": (lambda xp, x: xp.moveaxis(x, (0, 1), (-1, 0)), [(2, 3, 4)]),
    "permute_dims": (lambda xp, x: xp.permute_dims(x, (2, 0, 1)), [(2, 3, 4)]),
    "reshape": (lambda xp, x: xp.reshape(x, (2, -1)), [(3, 4)]),
    "expand_dims": (lambda xp, x: xp.expand_dims(x, axis=-2), [(3, 4)]),
    "squeeze": (lambda xp, x: xp.squeeze(x, axis=(0, -1)), [(1, 4, 1)]),
    "broadcast_to": (lambda xp, x: xp.broadcast_to(x, (2, 3, 4)), [(3, 1)]),
    "broadcast_arrays": (
        lambda xp, x, y: xp.concat(list(xp.broadcast_arrays(x, y))),
        [(3, 1), (4,)],
    ),
    "meshgrid": (lambda xp, x, y: xp.concat(list(xp.meshgrid(x, y))), [(3,), (4,)]),
    "tril": (lambda xp, x: xp.tril(x, k=-1), [(3, 4)]),
    "triu": (lambda xp, x: xp.triu(x, k=1), [(3, 4)]),
    "where": (lambda xp, x, y: xp.where(xp.asarray(HALF), x, y), [(3, 4), (3, 1)]),
    "sort": (lambda xp, x: xp.sort(x, axis=0), [(4, 3)]),
    "sort downwards": (lambda xp, x: xp.sort(x, descending=True), [(4, 3)]),
    "take": (lambda xp, x: xp.take(x, xp.asarray(ROWS), axis=0), [(3, 4)]),
    "take_along_axis": (
        lambda xp, x: xp.take_along_axis(x, xp.asarray(PLACES), axis=1),
        [(3, 4)],
    ),
    "slices": (lambda xp, x: x[::-2, 1:] * x[:1, None, 2], [(4, 4)]),
    "matmul": (lambda xp, x, y: xp.matmul(x, y), [(2, 3, 4), (4, 2)]),
    "softmax": (softmax, [(3, 4)]),
    "normalised": (normalised, [(3, 5)]),
    "attention": (attention, [(3, 4), (3, 4), (3, 2)]),
    "distances": (distances, [(3, 2), (4, 2)]),
    "running mean": (running_mean, [(3, 4)]),
    "two layers": (two_layers, [(3, 4), (4, 2), (2,)]),
    "soft plus": (lambda xp, x: xp.logaddexp(x, xp.zeros_like(x)), [(3, 4)]),
    "log of the sum of exp": (lambda xp, x: xp.log(xp.sum(xp.exp(x), axis=0)), [(3, 4)]),
    "order statistics": (lambda xp, x: xp.mean(xp.sort(x, axis=0)[1:-1, :], axis=0), [(5, 3)]),
    "total variation": (lambda xp, x: xp.hypot(xp.diff(x)[1:, :], xp.diff(x.T).T[:, 1:]), [(4, 4)]),
}


def elementwise(name: str) -> Callable[..., Any]:
    return lambda xp, *arrays: getattr(xp, name)(*arrays)


CASES: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], tuple[float, float]]] = {
    **{name: (elementwise(name), [(3, 4)], domain) for name, domain in UNARY.items()},
    **{name: (elementwise(name), [(3, 1), (4,)], domain) for name, domain in BINARY.items()},
    **{name: (f, shapes, (-2, 2)) for name, (f, shapes) in FUNCTIONS.items()},
}


@pytest.fixture(autouse=True, scope="module")
def sixty_four_bits() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def curved(xp: Any, y: Any) -> Any:
    """A number to which every element of `y` counts, not linearly."""
    w = xp.reshape(xp.cos(xp.arange(1.0, 1.0 + y.size, dtype=xp.float64) * 1.7), y.shape)
    return xp.sum(y * (w + 0.3 * y))


def test_there_are_sixty_functions() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_gradient_and_product_with_the_hessian(name: str) -> None:
    f, shapes, domain = CASES[name]
    rng = np.random.default_rng(len(name))
    arrays = [rng.uniform(*domain, size=s) for s in shapes]
    directions = [rng.normal(size=s) for s in shapes]
    jnp = jax.numpy

    def theirs(given: list[Any]) -> Any:
        def value(a: list[Any]) -> Any:
            return curved(jnp, f(jnp, *a))

        def along(a: list[Any]) -> Any:
            return sum(jnp.sum(g * v) for g, v in zip(jax.grad(value)(a), directions, strict=True))

        return value(given), jax.grad(value)(given), jax.grad(along)(given)

    def value(a: list[Any]) -> Any:
        xp = polynet.array_namespace(a[0])
        return curved(xp, f(xp, *a))

    def along(a: list[Any]) -> Any:
        xp = polynet.array_namespace(a[0])
        slopes = polynet.grad(value)(a)
        return sum(xp.sum(g * v) for g, v in zip(slopes, directions, strict=True))

    wanted = jax.jit(theirs)(list(map(jnp.asarray, arrays)))
    with use_backend("numpy"):
        found = (*polynet.value_and_grad(value)(arrays), polynet.grad(along)(arrays))
    for ours, other in zip(found, wanted, strict=True):
        for one, two in zip(polynet.tree.leaves([ours]), jax.tree.leaves([other]), strict=True):
            assert one.dtype == np.float64
            np.testing.assert_allclose(one, np.asarray(two), rtol=1e-9, atol=1e-9)


KINKS: dict[str, tuple[Callable[..., Any], list[list[float]]]] = {
    "maximum at a tie": (lambda xp, x, y: xp.maximum(x, y), [[1.0, 2.0], [1.0, 3.0]]),
    "minimum with a number": (lambda xp, x: xp.minimum(x, 1.0), [[1.0, 2.0]]),
    "max at ties": (lambda xp, x: xp.max(x), [[2.0, 2.0, 1.0, 2.0]]),
    "clip at its bounds": (lambda xp, x: xp.clip(x, -1.0, 1.0), [[-1.0, 0.0, 1.0, 2.0]]),
    "power of 0": (lambda xp, x, y: x**y, [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]),
    "square of 0": (lambda xp, x: x**2 + x**1.0, [[0.0, -1.0]]),
    "power of a negative": (lambda xp, x: x ** xp.asarray([1.0, 2.0, 3.0]), [[-1.0, -2.0, -0.5]]),
    "constant functions": (lambda xp, x: xp.floor(x) + xp.sign(x) + xp.round(x), [[0.3, -1.2]]),
    "floor_divide": (lambda xp, x, y: xp.floor_divide(x, y) * x, [[0.3, -1.2], [0.2, 0.5]]),
    "sort with ties": (lambda xp, x: xp.sort(x), [[2.0, 1.0, 2.0, 1.0]]),
}


@pytest.mark.parametrize("name", KINKS)
def test_gradient_where_there_is_a_choice(name: str) -> None:
    f, numbers = KINKS[name]
    arrays = list(map(np.asarray, numbers))
    wanted = jax.grad(lambda a: curved(jax.numpy, f(jax.numpy, *a)))(
        list(map(jax.numpy.asarray, arrays))
    )

    def value(a: list[Any]) -> Any:
        xp = polynet.array_namespace(a[0])
        return curved(xp, f(xp, *a))

    found = polynet.grad(value)(arrays)
    for one, two in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, np.asarray(two), rtol=1e-12, atol=1e-12)
