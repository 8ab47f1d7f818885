"""Gradients of one number: `value_and_grad` and `grad`; and `stop_gradient`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

from polynet import tree
from polynet.derivative.run import Argnums, Run, places_of
from polynet.tensor import Tensor

P = ParamSpec("P")
"""The parameters of a function, which its derivative takes too."""


def value_and_grad(
    f: Callable[P, Any], argnums: Argnums = 0, *, has_aux: bool = False
) -> Callable[P, tuple[Any, Any]]:
    """A function that returns `f`'s value and its gradient.

    `f` takes arrays, or trees of them (dicts, lists, tuples), by position, and returns one real
    0-d array; with `has_aux`, a pair of it and anything else. The function returned takes the
    same arguments and returns `(value, gradient)`, or `((value, aux), gradient)`. The gradient
    has the structure, shapes and dtypes of the argument `argnums`; for several, a tuple. For a
    complex x + iy it is ∂f/∂x + i ∂f/∂y, the direction in which `f` grows most, as in PyTorch.

    Within `f`, a network is called with its parameters: `net.bind(p)(x)`. Arrays that `f` reads are
    not copied: writing to one while `f` runs makes the gradient of earlier reads wrong. A
    RuntimeWarning is given if the value depends on none of the arrays.

    Raises TypeError for an argument that is not a floating-point array, and for a result that is
    not 0-d. Reference: Griewank and Walther, *Evaluating Derivatives* (2008), ch. 3.

    >>> import numpy as np, polynet
    >>> def f(x):
    ...     xp = polynet.array_namespace(x)
    ...     return xp.sum(x**2)
    >>> value, slope = polynet.value_and_grad(f)(np.asarray([3.0, 1.0]))
    >>> float(value), slope
    (10.0, array([6., 2.]))
    """
    return differentiated(f, argnums, has_aux=has_aux, unshared=True)


def differentiated(
    f: Callable[P, Any], argnums: Argnums = 0, *, has_aux: bool, unshared: bool
) -> Callable[P, tuple[Any, Any]]:
    """`value_and_grad`; unless `unshared`, gradients and aux may share memory with others."""

    def both(*args: Any, **options: Any) -> Any:
        places = places_of(argnums, args)
        run = Run(f, args, places, options, has_aux=has_aux, scalar=True, unshared=unshared)
        slopes = run.gradients([run.xp.ones_like(run.value)], unshared=unshared, last=True)
        gradient = slopes[0] if isinstance(argnums, int) else tuple(slopes)
        return ((run.value, run.aux), gradient) if has_aux else (run.value, gradient)

    return both


def grad(f: Callable[P, Any], argnums: Argnums = 0, *, has_aux: bool = False) -> Callable[P, Any]:
    """The gradient of `f` alone, or with `has_aux` a pair `(gradient, aux)`; see `value_and_grad`.

    >>> import numpy as np, polynet
    >>> square = lambda x: x * x
    >>> slope, curvature = polynet.grad(square), polynet.grad(polynet.grad(square))
    >>> float(slope(np.asarray(3.0))), float(curvature(np.asarray(3.0)))
    (6.0, 2.0)
    """
    both = value_and_grad(f, argnums, has_aux=has_aux)

    def slope(*args: Any, **options: Any) -> Any:
        value, gradient = both(*args, **options)
        return (gradient, value[1]) if has_aux else gradient

    return slope


def stop_gradient(x: tree.Tree) -> tree.Tree:
    """`x`, an array or a tree of them, as a constant: no gradient goes back through it.

    >>> import numpy as np, polynet
    >>> slope = polynet.grad(lambda x: x * polynet.stop_gradient(x))
    >>> float(slope(np.asarray(3.0)))
    3.0
    """
    return tree.map(_constant, x)


def _constant(x: Any) -> Any:
    return Tensor(_constant(x._value), x._level) if type(x) is Tensor else x
