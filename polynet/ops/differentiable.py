"""The differentiable namespace of a backend, assembled from the chapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any

from polynet.backend import Array, Backend, backend_of, get_backend
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
from polynet.tensor import (
    Level,
    Tensor,
    highest_level,
    is_recorded,
    mixed,
    plain_backend,
    plain_value,
    with_axis,
)
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
    "greater greater_equal isfinite isin isinf isnan less less_equal logical_and logical_not "
    "logical_or logical_xor nonzero not_equal ones_like round searchsorted signbit trunc "
    "zeros_like bitwise_and bitwise_invert bitwise_left_shift bitwise_or bitwise_right_shift "
    "bitwise_xor".split()
)
"""Functions whose derivative is zero wherever it exists: no gradient goes back through them."""

INQUIRIES = frozenset(
    "__array_namespace_info__ broadcast_shapes can_cast finfo iinfo isdtype result_type".split()
)
"""Functions that return no array."""

INSTEAD = {
    **{f"arc{name}": f"xp.a{name}" for name in "cos cosh sin sinh tan tanh tan2".split()},
    **{name: f"xp.linalg.{name}" for name in "cross diagonal outer trace".split()},
    **dict.fromkeys(("cat", "concatenate"), "xp.concat"),
    **dict.fromkeys(("dot", "mm", "bmm"), "xp.matmul"),
    **dict.fromkeys(("swapaxes", "transpose", "permute"), "xp.permute_dims"),
    **{
        name: f"polynet.functional.{name}"
        for name in "einsum erf log_softmax logsumexp relu sigmoid softmax".split()
    },
    "absolute": "xp.abs",
    "amax": "xp.max",
    "amin": "xp.min",
    "array": "xp.asarray",
    "clamp": "xp.clip",
    "cumprod": "xp.cumulative_prod",
    "cumsum": "xp.cumulative_sum",
    "inner": "xp.vecdot",
    "norm": "xp.linalg.vector_norm or xp.linalg.matrix_norm",
    "power": "xp.pow",
    "ravel": "xp.reshape",
    "true_divide": "xp.divide",
}
"""Common functions that are not in the standard, each with one to use that has a derivative."""

SETS = frozenset("unique_all unique_counts unique_inverse unique_values".split())
"""Functions whose results have a length that depends on values: they have no derivative."""


class FloatInfo:
    """A library's `finfo` with Python's numbers for values.

    Some libraries use NumPy's scalars, which count as NumPy arrays in an operation with an array.
    """

    def __init__(self, info: Any) -> None:
        self._info = info

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._info, name)
        return value.item() if hasattr(value, "item") else value

    def __repr__(self) -> str:
        return repr(self._info)


class Functions:
    """The functions of a namespace, for Tensors: the `ops`, and for all other names those of `xp`.

    Results of functions that are not ops are constants. Where an argument is recorded, only
    LOCALLY_CONSTANT functions are allowed; all others raise RecordError.
    """

    def __init__(
        self, backend: Backend, xp: Any, constants: Level, ops: Mapping[str, Callable[..., Any]]
    ) -> None:
        self.backend = backend
        self.xp = xp
        self.constants = constants
        vars(self).update(ops)

    def __getattr__(self, name: str) -> Any:
        try:
            value = getattr(self.xp, name)
        except AttributeError as error:
            if name not in INSTEAD:
                raise
            raise AttributeError(f"{error}; use {INSTEAD[name]}", name=name) from None
        if callable(value) and not isinstance(value, type):
            value = self._inquiry(value) if name in INQUIRIES else self._constant(name, value)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *dir(self.xp)})

    def _inquiry(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            return function(*map(plain_value, args), **options)

        return update_wrapper(call, function)

    def _constant(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            options = with_axis(name, options)
            given = leaves([*args, *options.values()])
            if name not in LOCALLY_CONSTANT and any(map(is_recorded, given)):
                raise _no_derivative(name)
            level = highest_level(given) or self.constants
            result = function(
                *tree_map(plain_value, list(args)),
                **{k: tree_map(plain_value, v) for k, v in options.items()},
            )
            return tree_map(lambda a: Tensor(a, level) if self.backend.is_array(a) else a, result)

        return update_wrapper(call, function)


def _no_derivative(name: str) -> RecordError:
    if name in SETS:
        return RecordError(
            f"polynet has no derivative of {name!r}, whose number of results depends on x; "
            "apply it to polynet.stop_gradient(x). The values with their gradients are "
            "xp.take(xp.reshape(x, (-1,)), xp.unique_all(polynet.stop_gradient(x)).indices)"
        )
    instead = f"{INSTEAD[name]} has one; " if name in INSTEAD else ""
    return RecordError(
        f"polynet has no derivative of {name!r} yet; {instead}apply it to "
        "polynet.stop_gradient(x), or write an op for it (polynet.op)"
    )


class Namespace(Functions):
    """An Array API namespace whose arrays are Tensors.

    A function without a derivative is the backend's own: its results are constants, and it raises
    an error if it is given recorded arrays. Names that came with the standard's version 2025.12,
    and later ones, are available where the backend has them.
    """

    __array_api_version__ = "2025.12"

    def __init__(self, backend: Backend) -> None:
        constants = Level(backend, self, constant=True)
        super().__init__(backend, backend.xp, constants, OPS)
        self.__name__ = f"polynet.namespace({backend.name!r})"

    def __getattr__(self, name: str) -> Any:
        if name not in EXTENSIONS:
            return super().__getattr__(name)
        xp, ops = getattr(self.xp, name), EXTENSIONS[name]
        extension = Functions(self.backend, xp, self.constants, ops)
        setattr(self, name, extension)
        return extension

    def asarray(
        self, obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None
    ) -> Any:
        """As the standard's; Tensors, and those in nested lists, keep their record."""
        if type(obj) is Tensor:
            return self._converted(obj, dtype, device, copy)
        nested = type(obj) in (list, tuple)
        tensors = [x for x in leaves(obj) if type(x) is Tensor] if nested else []
        if not tensors:
            options = _given(dtype=dtype, device=device, copy=copy)
            return Tensor(self.xp.asarray(obj, **options), self.constants)
        if copy is False:
            raise ValueError("a list of Tensors becomes an array by a copy; leave copy=False out")
        if dtype is None:
            dtype = self.xp.result_type(*map(plain_value, leaves(obj)))
        return self._stacked(obj, dtype, tensors[0].device if device is None else device)

    def _stacked(self, obj: Any, dtype: Any, device: Any) -> Any:
        if type(obj) in (list, tuple):
            return OPS["stack"]([self._stacked(x, dtype, device) for x in obj])
        return self.asarray(obj, dtype=dtype, device=device)

    def _converted(self, x: Tensor, dtype: Any, device: Any, copy: bool | None) -> Any:
        plain = plain_value(x)
        if not self.backend.is_array(plain):
            raise mixed(plain, self.backend)
        moves = device is not None and device != x.device
        casts = dtype is not None and dtype != x.dtype
        if copy is False and (moves or casts):
            raise ValueError(
                f"{x.dtype} on {x.device} becomes {dtype or x.dtype} on {device or x.device} by a "
                "copy; leave copy=False out"
            )
        if moves:
            x = OPS["to_device"](x, device)
        if casts or (copy and not moves):
            x = OPS["astype"](x, dtype if casts else x.dtype)
        return x

    def finfo(self, type: Any, /) -> FloatInfo:  # noqa: A002 (the standard's name)
        """As the standard's."""
        return FloatInfo(self.xp.finfo(plain_value(type)))

    def from_dlpack(self, x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
        """As the standard's; a recorded Tensor refuses to give its memory."""
        options = _given(device=device, copy=copy)
        return Tensor(self.xp.from_dlpack(x, **options), self.constants)

    def __repr__(self) -> str:
        return f"<differentiable namespace of backend {self.backend.name!r}>"


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None: a library may lack the parameters of the others."""
    return {name: value for name, value in options.items() if value is not None}


def array_namespace(x: Array, /, *others: Array | None) -> Any:
    """The namespace of these arrays: differentiable for a Tensor, else that of their backend.

    Give all arrays that are used together, since any of them may be the recorded one. None among
    the others is ignored. Raises MixedBackendsError for arrays of two backends.

    >>> import numpy as np, polynet
    >>> def f(x):
    ...     xp = polynet.array_namespace(x)
    ...     return xp.sum(xp.exp(x))
    >>> float(f(np.zeros(3))), polynet.grad(f)(np.zeros(3))
    (3.0, array([1., 1., 1.]))
    """
    if not others:
        return x._level.namespace if type(x) is Tensor else backend_of(x).xp
    level = highest_level((x, *others))
    return plain_backend((x, *others)).xp if level is None else level.namespace


def namespace(backend: str | Backend | None = None) -> Namespace:
    """The Array API namespace (2025.12) of a backend, whose arrays are Tensors.

    `backend` is a name or a Backend; None is the one chosen, else NumPy. The namespace's functions,
    and the operators, methods and indexing of its arrays, are those of the standard and can be
    differentiated. Inside a derivative, `array_namespace(x)` returns this namespace.

    Tensors outside a derivative are constants: read them with `float(x)`, `numpy.asarray(x)` or
    DLPack. `x[key] = value` and `x += y` give the Tensor a new value, and leave arrays that were
    computed from it as they are. Indexing computes a new array, not a view, so `x[0][1] = y` does
    not change `x`: write `x[0, 1] = y`.

    Raises UnknownBackendError, or BackendUnavailableError with the cause chained. Reference:
    Python array API standard, 2025.12.

    >>> import polynet
    >>> xp = polynet.namespace("numpy")
    >>> x = xp.linspace(0.0, 1.0, 3)
    >>> x[0] = 2.0
    >>> float(xp.sum(x)), x.__array_namespace__() is xp
    (3.5, True)
    """
    backend = get_backend(backend)
    if backend.differentiable is None:
        backend.differentiable = Namespace(backend)
    return backend.differentiable
