"""Gradients checked against differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from polynet import tree
from polynet.backend import Array, asarray, backend_of, to_numpy
from polynet.derivative import grad, value_and_grad
from polynet.ops import array_namespace


def numerical_gradient(
    f: Callable[[np.ndarray], float], x: np.ndarray, h: float = 1e-3
) -> np.ndarray:
    """The gradient of `f` at `x`, float64, by five-point differences, whose error is of order h⁴.

    Fornberg, "Generation of Finite Difference Formulas on Arbitrarily Spaced Grids" (1988).

    >>> numerical_gradient(lambda x: float(x[0] ** 3), np.asarray([2.0])).round(9)
    array([12.])
    """
    slope = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        for shift, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            nudged = np.array(x, dtype=np.float64)
            nudged[i] += shift * h
            slope[i] += weight * f(nudged) / (12 * h)
    return slope


def check_grad(
    f: Callable[..., Array],
    *args: Any,
    order: int = 1,
    rtol: float = 1e-7,
    atol: float = 1e-8,
    h: float = 1e-3,
) -> None:
    """Raise AssertionError unless `f`'s gradient by each of `args` agrees with differences.

    `args` are float64 arrays, or trees of them, of any backend; `f` returns a 0-d array. With
    `order` 2 the gradient's own derivative is checked too, along one fixed direction, and so
    on. At a kink the two rightly differ: choose inputs away from it.

    >>> check_grad(lambda x: (x * x * x)[0], np.asarray([2.0]), order=3)
    """
    if type(order) is not int or order < 1:
        raise ValueError(f"order is {order!r}; expected 1, for first derivatives, or higher")
    for name, leaf in tree.named_leaves(list(args)):
        if to_numpy(leaf).dtype != np.float64:
            raise TypeError(f"check_grad needs float64; argument {name} is {leaf.dtype}")
    every = tuple(range(len(args)))
    _, gradients = value_and_grad(f, every)(*args)
    found = [to_numpy(g) for g in tree.leaves(list(gradients))]
    leaves = tree.named_leaves(list(args))
    for k, (name, leaf) in enumerate(leaves):
        backend = backend_of(leaf)

        def along(x: np.ndarray, k: int = k, backend: Any = backend, leaf: Any = leaf) -> float:
            count = iter(range(len(leaves)))
            moved = asarray(x, backend=backend, device=backend.device_name(leaf))
            nudged = tree.map(lambda old: moved if next(count) == k else old, list(args))
            return float(to_numpy(f(*nudged)))

        expected = numerical_gradient(along, to_numpy(leaf), h)
        np.testing.assert_allclose(
            found[k], expected, rtol=rtol, atol=atol, err_msg=f"gradient by argument {name}"
        )
    if order > 1:
        slopes = grad(f, every)
        check_grad(
            lambda *a: _slanted(slopes(*a)), *args, order=order - 1, rtol=rtol, atol=atol, h=h
        )


def _slanted(gradients: tree.Tree) -> Array:
    """The gradients' inner product with a fixed direction, in which no two elements are alike."""
    total: Any = 0.0
    for k, g in enumerate(tree.leaves(gradients)):
        xp = array_namespace(g)
        count = math.prod(g.shape)
        place = xp.astype(xp.arange(count, device=g.device), g.dtype)
        total = total + xp.sum(xp.reshape(g, (count,)) * xp.cos(1.7 * place + k))
    return total
