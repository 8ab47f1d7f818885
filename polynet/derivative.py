"""Derivatives of functions: `value_and_grad`, `grad`, `stop_gradient`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from polynet import tree
from polynet.backend import Array, Backend, common_backend
from polynet.ops import namespace
from polynet.ops.complex_numbers import in_dtype, is_complex
from polynet.tensor import CONSTANT, Level, Tensor, plain_value, sweep

_open_levels: ContextVar[int] = ContextVar("polynet_open_levels", default=0)


def value_and_grad(
    f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns `f`'s value and its gradient.

    `f` takes arrays, or trees of them (dicts, lists, tuples), by position, and returns one real
    0-d array; with `has_aux`, a pair of it and anything else. The function returned takes the
    same arguments and returns `(value, gradient)`, or `((value, aux), gradient)`. The gradient
    has the structure, shapes and dtypes of the argument `argnums`; for several, a tuple. By a
    complex x + iy it is ∂f/∂x + i ∂f/∂y, the direction in which `f` grows most, as in PyTorch.

    Raises TypeError for an argument that is no array or not floating, and for a result
    that is not 0-d. Reference: Griewank and Walther, *Evaluating Derivatives* (2008), ch. 3.

    >>> import numpy as np, polynet
    >>> def f(x):
    ...     xp = polynet.array_namespace(x)
    ...     return xp.sum(x**2)
    >>> value, slope = polynet.value_and_grad(f)(np.asarray([3.0, 1.0]))
    >>> float(value), slope
    (10.0, array([6., 2.]))
    """
    return differentiated(f, argnums, has_aux=has_aux, own=True)


def differentiated(
    f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False, own: bool
) -> Callable[..., Any]:
    """`value_and_grad`, whose gradients, unless `own`, may share memory with other arrays."""
    places = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def run(*args: Any, **options: Any) -> Any:
        for place in places:
            if place >= len(args):
                raise TypeError(
                    f"argnums names argument {place}, but {len(args)} were given by position"
                )
        wanted = [args[place] for place in places]
        level = _open(wanted)
        token = _open_levels.set(_open_levels.get() + 1)
        try:
            recorded = tree.map(level.leaf, wanted)
            full = list(args)
            for place, branch in zip(places, recorded, strict=True):
                full[place] = branch
            result = f(*full, **options)
            if has_aux and not (isinstance(result, tuple) and len(result) == 2):
                raise TypeError(
                    f"with has_aux, the function returns a pair (value, aux); it returned a "
                    f"{type(result).__name__}"
                )
            output, aux = result if has_aux else (result, None)
            value, gradients = _gradients(level, output, tree.leaves(wanted), own)
            aux = tree.map(lambda a: _out(level, a), aux)
        finally:
            level.close()
            _open_levels.reset(token)
        arrived = iter(gradients)
        slopes = tree.map(lambda _: next(arrived), wanted)
        gradient = slopes[0] if isinstance(argnums, int) else tuple(slopes)
        return ((value, aux), gradient) if has_aux else (value, gradient)

    return run


def grad(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The gradient of `f` alone; see `value_and_grad`.

    >>> import numpy as np, polynet
    >>> square = lambda x: x * x
    >>> slope, curvature = polynet.grad(square), polynet.grad(polynet.grad(square))
    >>> float(slope(np.asarray(3.0))), float(curvature(np.asarray(3.0)))
    (6.0, 2.0)
    """
    both = value_and_grad(f, argnums)
    return lambda *args, **options: both(*args, **options)[1]


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


def _open(wanted: list[Any]) -> Level:
    """A new level for the arrays in `wanted`, which must be floating, of one backend and device."""
    found = tree.named_leaves(wanted)
    backend, nested = _backend_of_leaves(found)
    known = None
    for path, leaf in found:
        dtype = plain_value(leaf).dtype
        if dtype == known:
            continue
        known = dtype
        if not backend.xp.isdtype(dtype, ("real floating", "complex floating")):
            where = path.partition(".")[2] or f"argument {path}"
            raise TypeError(
                f"cannot differentiate by {where}, which is {dtype}; expected floating point"
            )
    outermost = not nested and _open_levels.get() == 0
    level = Level(backend, namespace(backend), plain=outermost)
    if outermost:
        level.kernels = backend.kernels
    return level


def _backend_of_leaves(found: list[tuple[str, Any]]) -> tuple[Backend, bool]:
    for path, leaf in found:
        if not hasattr(leaf, "dtype"):
            where = path.partition(".")[2] or f"argument {path}"
            raise TypeError(
                f"cannot differentiate by {where}, a {type(leaf).__name__}; expected an array: "
                "polynet.asarray(x) makes one"
            )
    for _, leaf in found:
        if type(leaf) is Tensor:
            return leaf._level.backend, True
    return common_backend((leaf for _, leaf in found), "the arrays to differentiate by")[0], False


def _gradients(
    level: Level, output: Any, wanted: list[Array], own: bool
) -> tuple[Array, list[Array]]:
    xp = level.xp if level.plain else level.namespace
    _check_output(level, output)
    value = _out(level, output)
    if type(output) is not Tensor or output._level is not level or output._line is None:
        return value, [_off(level, xp.zeros_like(leaf)) for leaf in wanted]
    found = sweep(level, output, xp.ones_like(_off(level, output)), len(wanted))
    gradients: list[Any] = []
    dtype, turned = None, False
    for g, leaf in zip(found, wanted, strict=True):
        if g is None:
            g = xp.zeros_like(leaf)
        elif g.dtype != leaf.dtype:
            g = in_dtype(xp, g, leaf.dtype)
        if g.dtype != dtype:
            dtype, turned = g.dtype, is_complex(xp, g)
        if turned:
            g = xp.conj(g)
        shared = any(g is other for other in gradients)
        gradients.append(xp.asarray(g, copy=True) if shared else g)
    plain = [_off(level, g) for g in gradients]
    if not own:
        return value, plain
    owned, is_array = level.backend.owned, level.backend.is_array
    return value, [owned(g) if is_array(g) else g for g in plain]


def _check_output(level: Level, output: Any) -> None:
    shape = getattr(output, "shape", None)
    if shape is None or tuple(shape) != ():
        came = type(output).__name__ if shape is None else f"an array of shape {tuple(shape)}"
        raise TypeError(
            f"the differentiated function returned {came}; expected a 0-d array, such as a sum "
            "or mean"
        )
    if type(output) is Tensor:
        output._level.require_open()
    if not level.backend.xp.isdtype(plain_value(output).dtype, "real floating"):
        raise TypeError(
            f"the differentiated function returned {output.dtype}; expected floating point"
        )


def _off(level: Level, x: Any) -> Any:
    """`x` with `level` taken off, and what is constant for every derivative."""
    while type(x) is Tensor and (x._level is level or x._level.id == CONSTANT):
        x = x._value
    return x


def _out(level: Level, x: Any) -> Any:
    """`x` for the user: with `level` taken off, and a copy, since it may be an input."""
    x = _off(level, x)
    return level.xp.asarray(x, copy=True) if level.backend.is_array(x) else x
