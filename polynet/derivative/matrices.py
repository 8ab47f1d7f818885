"""Whole derivatives: `jacobian`, `hessian`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from polynet import tree
from polynet.backend import Array
from polynet.derivative.gradients import P, grad
from polynet.derivative.run import Argnums, Run, places_of
from polynet.tensor import plain_value


def jacobian(f: Callable[P, Any], argnums: Argnums = 0) -> Callable[P, Any]:
    """A function that returns the derivative of each element of `f`'s result by each input element.

    `f` takes and returns real arrays of any shape, or trees of them. The function returned
    takes the same arguments. Where both the input and the result are one array, it returns an
    array whose shape is the result's followed by the input's: ∂yᵢ/∂xⱼ is at [i, j]. Otherwise it
    returns a tree like the result, in which each leaf is a tree like the input, or for several
    `argnums` a tuple of such trees, as with JAX's `jacrev`.

    `f` runs once, and its record is swept back once for every element of the result. For the
    product with one vector, `vjp` or `jvp` is cheaper.

    Raises TypeError for an argument or a result that is not a real floating-point array. Reference:
    Griewank and Walther, *Evaluating Derivatives* (2008), ch. 3.

    >>> import numpy as np, polynet
    >>> polynet.jacobian(lambda x: x[:2] * x[2])(np.asarray([1.0, 2.0, 3.0]))
    array([[3., 0., 1.],
           [0., 3., 2.]])
    """

    def derivative(*args: Any, **options: Any) -> Any:
        run = Run(f, args, places_of(argnums, args), options)
        count = len(tree.leaves(run.value))
        places = iter(range(count))

        def block(y: Array) -> Any:
            """The derivative of one leaf of the result."""
            seeds: list[Any] = [None] * count
            place = next(places)
            rows = []
            for unit in _units(run, y):
                seeds[place] = unit
                rows.append(run.gradients(seeds, unshared=False))
            found = tree.map(lambda x, *rows: _stacked(run.xp, y, x, rows), run.wanted, *rows)
            return found[0] if isinstance(argnums, int) else tuple(found)

        return tree.map(block, run.value)

    return derivative


def hessian(f: Callable[P, Array], argnums: Argnums = 0) -> Callable[P, Any]:
    """A function that returns the second derivatives of `f`, which returns one real 0-d array.

    For an array of shape s it returns an array of shape (*s, *s). For a tree of arrays it returns a
    tree like it, in which each leaf is again a tree like it; for several `argnums`, a tuple of
    tuples. It is the `jacobian` of the gradient, with one sweep for every element of the input. For
    the product with one vector, `hvp` is cheaper.

    Raises as `jacobian` and `grad` do.

    >>> import numpy as np, polynet
    >>> polynet.hessian(lambda x: x[0] ** 2 * x[1])(np.asarray([3.0, 5.0]))
    array([[10.,  6.],
           [ 6.,  0.]])
    """
    return jacobian(grad(f, argnums), argnums)


def _units(run: Run, y: Array) -> Iterator[Array]:
    """For each element of `y`, an array like it that is 1 there and 0 elsewhere."""
    xp = run.level.xp
    plain = plain_value(y)
    size = math.prod(plain.shape)
    number = xp.arange(size, device=run.level.backend.device_of(plain))
    for i in range(size):
        yield xp.reshape(xp.astype(number == i, plain.dtype), plain.shape)


def _stacked(xp: Any, y: Array, x: Array, rows: tuple[Array, ...]) -> Array:
    """The rows, each like `x`, as one array of the shape of `y` followed by that of `x`."""
    stacked = xp.stack(rows or (x,))[: len(rows), ...]
    return xp.reshape(stacked, (*y.shape, *x.shape))
