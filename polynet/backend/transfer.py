"""Moving arrays, explicitly: host to device, device to host."""

from __future__ import annotations

from typing import Any

import numpy as np

from polynet.backend.contract import Array, Backend
from polynet.backend.selection import (
    backend_of,
    chosen_backend,
    get_backend,
    is_claimed,
)


def asarray(
    x: Any,
    *,
    backend: str | Backend | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Array:
    """A copy of `x` on a backend's device.

    `x` is a number, a nested sequence, a NumPy array or an array of any backend; the dtype
    stays, unless `dtype` names another; Python floats become float32, and Python integers what
    the device indexes with. The backend is the one given, else the one chosen, else the array's
    own, else numpy.

    >>> import polynet
    >>> polynet.asarray([1.0, 2.0], backend="numpy").dtype
    dtype('float32')
    """
    if backend is None and chosen_backend() is None and is_claimed(x):
        backend = backend_of(x)
    target = get_backend(backend)
    native = target.device(device)
    host = to_numpy(x)
    if dtype is None and not hasattr(x, "dtype"):
        dtype = {"f": "float32", "i": target.index_dtype(native)}.get(host.dtype.kind)
    if dtype is not None:
        target.dtype(dtype)
        host = host.astype(dtype)
    return target.from_host(host, native)


def to_numpy(x: Any) -> np.ndarray:
    """A NumPy copy of a number, a nested sequence or an array of any backend.

    Raises TypeError for what cannot be an array of numbers, and for a recorded `Tensor`,
    whose record would be lost.

    >>> to_numpy([1, 2])
    array([1, 2])
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("masked arrays would lose their mask; call .filled(value) first")
    if not isinstance(x, np.ndarray | np.generic) and is_claimed(x):
        return backend_of(x).to_host(x)
    host = np.array(x)
    if host.dtype.kind not in "biufc":
        raise TypeError(
            f"cannot make an array of numbers from {type(x).__name__} (dtype {host.dtype}); "
            "expected numbers or booleans in rows of equal length"
        )
    return host.astype(host.dtype.newbyteorder("="), copy=False)
