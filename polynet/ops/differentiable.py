"""The differentiable namespace of a backend, assembled from the chapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polynet.backend import Array, Backend, backend_of
from polynet.errors import RecordError
from polynet.ops import (
    complex_numbers,
    creation,
    elementwise,
    fourier,
    indexing,
    linalg,
    linear_algebra,
    manipulation,
    searching,
    sorting,
    statistical,
    utility,
)
from polynet.tensor import Level, Tensor, highest_level, is_recorded, plain_value
from polynet.tree import leaves
from polynet.tree import map as tree_map

CHAPTERS = (
    creation,
    elementwise,
    complex_numbers,
    indexing,
    linear_algebra,
    manipulation,
    searching,
    sorting,
    statistical,
    utility,
)

OPS: dict[str, Callable[..., Any]] = {
    name: f
    for chapter in CHAPTERS
    for name, f in vars(chapter).items()
    if hasattr(f, "rule") and not name.startswith("_")
}
"""Every op of the standard that has a derivative, by name."""

EXTENSIONS: dict[str, dict[str, Callable[..., Any]]] = {
    extension: {
        name: f
        for name, f in vars(chapter).items()
        if (hasattr(f, "rule") or hasattr(f, "definition")) and not name.startswith("_")
    }
    for extension, chapter in (("linalg", linalg), ("fft", fourier))
}
"""The functions of each extension of the standard that have a derivative, by name."""

LOCALLY_CONSTANT = frozenset(
    "all any argmax argmin argsort ceil count_nonzero empty_like equal floor floor_divide "
    "greater greater_equal isfinite isin isinf isnan less less_equal logical_and "
    "logical_not logical_or "
    "logical_xor nonzero not_equal ones_like round searchsorted signbit trunc zeros_like "
    "bitwise_and bitwise_invert bitwise_left_shift bitwise_or bitwise_right_shift "
    "bitwise_xor".split()
)
"""Functions whose derivative is zero wherever it exists: no gradient goes back through them."""

INQUIRIES = frozenset("__array_namespace_info__ can_cast finfo iinfo isdtype result_type".split())
"""Functions that return no array."""


class Namespace:
    """An Array API namespace whose functions take Tensors and plain arrays and return Tensors."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.constants = Level(backend, self, constant=True)
        for name, function in OPS.items():
            setattr(self, name, function)
        for name, functions in EXTENSIONS.items():
            if hasattr(backend.xp, name):
                setattr(self, name, Extension(self, name, functions))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.backend.xp, name)
        if callable(value) and not isinstance(value, type):
            value = self._inquiry(value) if name in INQUIRIES else self._constant(name, value)
        setattr(self, name, value)
        return value

    def _inquiry(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: function(*map(plain_value, args), **options)

    def _constant(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            given = [a for a in leaves([*args, *options.values()]) if type(a) is Tensor]
            if name not in LOCALLY_CONSTANT and any(map(is_recorded, given)):
                raise RecordError(
                    f"polynet has no derivative of {name!r} yet; apply it to "
                    "polynet.stop_gradient(x), or write an op for it (polynet.op)"
                )
            level = highest_level(given) or self.constants
            result = function(
                *tree_map(plain_value, list(args)),
                **{k: tree_map(plain_value, v) for k, v in options.items()},
            )
            return tree_map(lambda a: Tensor(a, level) if self.backend.is_array(a) else a, result)

        call.__name__ = name
        return call

    def asarray(self, obj: Any, /, *, dtype: Any = None, **options: Any) -> Any:
        """As the standard's; a Tensor keeps its record."""
        if type(obj) is not Tensor:
            return Tensor(self.backend.xp.asarray(obj, dtype=dtype, **options), self.constants)
        return obj if dtype in (None, obj.dtype) else OPS["astype"](obj, dtype)

    def __repr__(self) -> str:
        return f"<differentiable namespace of backend {self.backend.name!r}>"


class Extension:
    """An extension of the standard: an attribute of the namespace, with functions of its own."""

    def __init__(
        self, namespace: Namespace, name: str, functions: dict[str, Callable[..., Any]]
    ) -> None:
        self._namespace, self._name = namespace, name
        vars(self).update(functions)

    def __getattr__(self, name: str) -> Any:
        value = getattr(getattr(self._namespace.backend.xp, self._name), name)
        return self._namespace._constant(f"{self._name}.{name}", value)


def array_namespace(x: Array) -> Any:
    """The namespace for code that takes `x`: differentiable for a Tensor, else its backend's.

    >>> import numpy as np, polynet
    >>> def f(x):
    ...     xp = polynet.array_namespace(x)
    ...     return xp.sum(xp.exp(x))
    >>> float(f(np.zeros(3))), polynet.grad(f)(np.zeros(3))
    (3.0, array([1., 1., 1.]))
    """
    return x._level.namespace if type(x) is Tensor else backend_of(x).xp


def namespace(backend: Backend) -> Namespace:
    """The differentiable namespace around `backend`'s own."""
    if backend.differentiable is None:
        backend.differentiable = Namespace(backend)
    return backend.differentiable
