"""array-api-compat's NumPy namespace, without its wrappers where they cost more than the work."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from types import ModuleType
from typing import Any

import numpy as np

from polynet_numpy import choice
from polynet_numpy.capture import Captured, active
from polynet_numpy.functions import INTO

WRAPPERS = "argsort clip count_nonzero cumulative_prod cumulative_sum searchsorted sort".split()
OF_LINALG = "cholesky qr solve trace".split()
"""Functions of array-api-compat, and of its `linalg`, that inspect their arrays: each is captured
as one call."""


def matmul(x: np.ndarray, y: np.ndarray, /) -> np.ndarray:
    """The matrix product; for two matrices by `np.dot`, the shorter way to the same routine."""
    return (np.dot if x.ndim == 2 and y.ndim == 2 else np.matmul)(x, y)


@cache
def namespace() -> ModuleType:
    """The namespace; array-api-compat is imported here, since that takes a while."""
    import array_api_compat.numpy as compat

    def asarray(x: Any, /, *, dtype: Any = None, copy: bool | None = None, **options: Any) -> Any:
        if type(x) is not Captured:
            return compat.asarray(x, dtype=dtype, copy=copy, **options)
        return x.astype(x.dtype if dtype is None else dtype, copy=bool(copy))

    def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
        capture = active()
        if capture is not None and type(indices) is Captured:  # np.take would not dispatch on it
            return INTO[np.take](capture, x, indices, axis)
        return compat.take(x, indices, axis=axis)

    def where(condition: Any, x: Any, y: Any, /) -> Any:
        plain = type(condition) is np.ndarray and Captured not in {type(x), type(y)}
        return (choice.where if plain else np.where)(condition, x, y)

    linalg = ModuleType("polynet_numpy.xp.linalg", compat.linalg.__doc__)
    vars(linalg).update({n: f for n, f in vars(compat.linalg).items() if n != "__name__"})
    vars(linalg).update({name: _capturable(getattr(compat.linalg, name)) for name in OF_LINALG})
    xp = ModuleType("polynet_numpy.xp", compat.__doc__)
    vars(xp).update({name: value for name, value in vars(compat).items() if name != "__name__"})
    vars(xp).update({name: _capturable(getattr(compat, name)) for name in WRAPPERS})
    vars(xp).update(
        asarray=asarray,
        linalg=linalg,
        matmul=matmul,
        ones_like=np.ones_like,
        permute_dims=np.permute_dims,
        sign=np.sign,
        take=take,
        where=where,
        zeros_like=np.zeros_like,
    )
    return xp


def _capturable(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        capture = active()
        if capture is None or not any(type(a) is Captured for a in (*args, *options.values())):
            return function(*args, **options)
        return capture.result(function, args, options)

    return call
