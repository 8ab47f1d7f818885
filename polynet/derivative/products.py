"""Products of a derivative with vectors, without building it: `vjp`, `jvp`, `hvp`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polynet import tree
from polynet.backend import Array
from polynet.derivative.gradients import grad
from polynet.derivative.run import Run, copied_without_level
from polynet.ops import array_namespace
from polynet.tensor import Level, Tensor


def vjp(f: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """`f`'s value and its pullback, which maps a cotangent v to the gradients vᵀJ.

    `primals`, and what `f` returns, are real arrays of any shape, or trees of them. Returns
    `(value, pullback)`, or `(value, pullback, aux)` with `has_aux`, where `f` returns a pair of
    its value and anything else. `pullback(cotangent)` takes a tree with the structure, shapes and
    dtypes of `value`, and returns a tuple with the gradient of Σ value · cotangent by each primal.

    The pullback may be called any number of times, and keeps `f`'s record alive. It has its own
    copies of `primals`; other arrays that `f` read must not be written to before the pullback is
    called. Within another derivative, the pullback is differentiated like any function; if it was
    made outside of that derivative, `f` runs again for it.

    Raises TypeError for a primal or a result that is not a real floating-point array, and for a
    cotangent of another dtype; ValueError for one of another structure or shape. Reference:
    Griewank and Walther, *Evaluating Derivatives* (2008), ch. 3.

    >>> import numpy as np, polynet
    >>> value, pullback = polynet.vjp(lambda x, y: x * y, np.asarray([1.0, 2.0]), np.asarray(3.0))
    >>> value, pullback(np.asarray([1.0, 10.0]))
    (array([3., 6.]), (array([ 3., 30.]), array(21.)))
    """
    return _vjp(f, primals, has_aux=has_aux)


def _vjp(
    f: Callable[..., Any],
    primals: Sequence[Any],
    *,
    has_aux: bool = False,
    nested: bool = False,
    name: str = "cotangent",
) -> tuple[Any, ...]:
    """`vjp`; errors call the pullback's argument `name`, and `nested` is as in `Run`."""
    every = tuple(range(len(primals)))
    run = Run(f, primals, every, has_aux=has_aux, keep=True, nested=nested)

    def pullback(cotangent: tree.Tree) -> tuple[tree.Tree, ...]:
        seeds = _like(run.value, cotangent, name, run.level)
        if run.level.plain and any(type(g) is Tensor for g in seeds):
            return _vjp(f, run.wanted, has_aux=has_aux, nested=True)[1](cotangent)
        return tuple(run.gradients(seeds))

    return (run.value, pullback, run.aux) if has_aux else (run.value, pullback)


def jvp(
    f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], *, has_aux: bool = False
) -> tuple[Any, ...]:
    """`f`'s value at `primals`, and its derivative Jv along `tangents`.

    Both are tuples with one entry for each argument of `f`: real arrays, or trees of them. The
    tangents have the structure, shapes and dtypes of the primals. Returns `(value, tangent)`, where
    the tangent is a tree like the value; with `has_aux`, where `f` returns a pair of its value and
    anything else, `(value, tangent, aux)`.

    vᵀJ is linear in v, so the pullback of v ↦ vᵀJ multiplies by J: two reverse sweeps give a
    forward derivative. This costs as much time as a few gradients, and as much memory as one.

    Raises as `vjp` does. Reference: Christianson, "Automatic Hessians by reverse accumulation",
    IMA Journal of Numerical Analysis 12 (1992).

    >>> import numpy as np, polynet
    >>> x, v = np.asarray([1.0, 2.0]), np.asarray([1.0, 10.0])
    >>> polynet.jvp(lambda x: x**2, (x,), (v,))
    (array([1., 4.]), array([ 2., 40.]))
    """
    value, pullback, *aux = _vjp(f, _tuple(primals, "primals"), has_aux=has_aux, nested=True)
    zeros = tree.map(lambda y: array_namespace(y).zeros_like(y), value)
    _, pushforward = _vjp(pullback, (zeros,), name="tangent")
    (tangent,) = pushforward(_tuple(tangents, "tangents"))
    return (value, tangent, *aux)


def hvp(
    f: Callable[..., Array], primals: Sequence[Any], vectors: Sequence[Any]
) -> tuple[tree.Tree, ...]:
    """The Hessian of `f` at `primals` times `vectors`, without building it.

    Both are tuples with one entry for each argument of `f`: real arrays, or trees of them, the
    vectors like the primals; `f` returns one real 0-d array. Returns a tuple like `primals`:
    the gradient of ⟨∇f, vectors⟩, which is Hv, since H is symmetric. The cost is that of a few
    gradients, whatever the size.

    Raises as `vjp` does. Reference: Pearlmutter, "Fast exact multiplication by the Hessian",
    Neural Computation 6 (1994).

    >>> import numpy as np, polynet
    >>> def f(x):
    ...     xp = polynet.array_namespace(x)
    ...     return xp.sum(x**3)
    >>> polynet.hvp(f, (np.asarray([1.0, 2.0]),), (np.asarray([1.0, 10.0]),))
    (array([  6., 120.]),)
    """
    primals = _tuple(primals, "primals")
    _, pullback = _vjp(grad(f, tuple(range(len(primals)))), primals, name="vector")
    return pullback(_tuple(vectors, "vectors"))


def _tuple(given: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(given, list | tuple) or not given:
        came = "empty" if isinstance(given, list | tuple) else f"a {type(given).__name__}"
        raise TypeError(
            f"{name} is {came}; expected a tuple with an entry for each argument, such as (x,)"
        )
    return tuple(given)


def _like(expected: tree.Tree, given: tree.Tree, name: str, level: Level) -> list[Array]:
    """Copies of the leaves of `given`, which must be a tree like `expected`."""
    found = dict(tree.paths(given))
    wanted = tree.paths(expected)
    if set(found) != {path for path, _ in wanted}:
        raise ValueError(f"the {name} is {_structure(given)}; expected {_structure(expected)}")
    for path, like in wanted:
        g = found[path]
        what = f"the {name} {'.'.join(map(str, path))!r}" if path else f"the {name}"
        if type(g) is not Tensor:
            level.admit(g)
        shape, dtype = tuple(like.shape), like.dtype
        if not hasattr(g, "dtype"):
            raise TypeError(
                f"{what} is a {type(g).__name__}; expected an array of shape {shape} and "
                f"{dtype}: polynet.asarray(x) makes one"
            )
        if tuple(g.shape) != shape:
            raise ValueError(f"{what} has shape {tuple(g.shape)}; expected {shape}")
        if g.dtype != dtype:
            raise TypeError(f"{what} is {g.dtype}; expected {dtype}: convert it first")
    return [copied_without_level(level, found[path]) for path, _ in wanted]


def _structure(given: tree.Tree) -> str:
    names = [name for name, _ in tree.named_leaves(given)]
    return (
        "one array" if names == [""] else f"a tree with the leaves {', '.join(names) or '(none)'}"
    )
