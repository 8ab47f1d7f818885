"""Moving arrays, explicitly: host to device, device to host, or the same memory for both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from polynet.backend.contract import Array, Backend
from polynet.backend.selection import (
    backend_of,
    chosen_backend,
    get_backend,
    is_claimed,
)
from polynet.errors import RecordError

NUMBERS = "biufc"
"""The kinds of NumPy's dtypes that are numbers, or booleans."""


def asarray(
    x: Any,
    *,
    backend: str | Backend | None = None,
    device: str | None = None,
    dtype: str | None = None,
    copy: bool = True,
) -> Array:
    """A copy of `x` on a backend's device, or with `copy=False` the same memory.

    `x` is a number, a nested sequence, a NumPy array or an array of any backend. The dtype stays
    as it is, unless `dtype` names another. Python floats become float32, and Python integers the
    dtype that the device indexes with. The backend is the one given, else the one chosen, else
    the array's own, else numpy.

    With `copy=False` nothing is ever copied: a write to one array is seen in the other, and an
    array that is already on the device is returned itself. Read-only memory stays read-only.
    JAX assumes that its arrays are constant: do not change your memory while JAX shares it.
    Raises ValueError, with the reason, where memory cannot be shared: it is on another device, it
    has another dtype than the one asked for, or the library does not accept its layout.

    Python array API standard, "Data interchange" (DLPack), and `copy` of its `asarray`.

    >>> import numpy as np
    >>> import polynet
    >>> polynet.asarray([1.0, 2.0], backend="numpy").dtype
    dtype('float32')
    >>> x = np.zeros(3)
    >>> polynet.asarray(x, backend="numpy", copy=False) is x
    True
    """
    if backend is None and chosen_backend() is None and is_claimed(x):
        backend = "numpy" if isinstance(x, np.matrix) else backend_of(x)  # it becomes an array
    target = get_backend(backend)
    native = target.device(device)
    if dtype is not None:
        target.dtype(dtype)
    if not _wants_copy(copy):
        return _shared(x, target, native, dtype)
    host = to_numpy(x)
    if dtype is None and not hasattr(x, "dtype"):
        dtype = {"f": "float32", "i": target.index_dtype(native)}.get(host.dtype.kind)
    if dtype is not None:
        host = host.astype(dtype)
    return target.from_host(host, native)


def to_numpy(x: Any, *, copy: bool = True) -> np.ndarray:
    """A NumPy copy of a number, a nested sequence or an array of any backend.

    With `copy=False` the result shares the memory of `x`, or ValueError is raised, as in
    `asarray`. It is read-only where `x` is an array that cannot change, such as a JAX array.

    Raises TypeError if `x` cannot be an array of numbers, and RecordError if it is a recorded
    `Tensor`, whose record would be lost.

    >>> to_numpy([1, 2])
    array([1, 2])
    """
    if not _wants_copy(copy):
        return asarray(x, backend="numpy", copy=False)
    return on_host(x, copy=True)


def on_host(x: Any, *, copy: bool | None = None) -> np.ndarray:
    """`x` as a NumPy array to read; without `copy` it may share the memory of `x`."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("masked arrays would lose their mask; call .filled(value) first")
    if not isinstance(x, np.ndarray | np.generic) and is_claimed(x):
        return backend_of(x).to_host(x)
    host = np.array(x, copy=copy)
    if host.dtype.kind not in NUMBERS or _odd_columns(x):  # Polars makes numbers of dates
        raise TypeError(
            f"cannot make an array of numbers from {type(x).__name__} (dtype {host.dtype}); "
            f"{_advice(x, host)}"
        )
    return host.astype(host.dtype.newbyteorder("="), copy=False)


def _odd_columns(x: Any) -> list[str]:
    """The columns of a data frame that hold no numbers; none of anything else."""
    if not isinstance(getattr(x, "columns", None), Iterable):  # an image may have their number
        return []
    names = x.columns if hasattr(x, "iloc") else getattr(x, "column_names", x.columns)  # Arrow's
    return [repr(c) for c in names if not _can_be_numbers(np.asarray(x[c]))]


def _advice(x: Any, host: np.ndarray) -> str:
    """Advice for an array that holds no numbers: for a data frame, it names the columns."""
    if host.ndim == 2 and hasattr(x, "columns"):
        return _advice_on_columns(_odd_columns(x))
    first = host.flat[0] if host.size else None
    labels = "; for labels, use `names, y = np.unique(y, return_inverse=True)`" * (host.ndim == 1)
    advice = (
        (hasattr(x, "collect"), "a lazy data frame is computed by x.collect()"),
        (
            host.dtype.kind in "mM",
            "(x - x.min()) / np.timedelta64(1, 'D') makes numbers of dates, here of days",
        ),
        (
            host.dtype.names is not None,
            "numpy.lib.recfunctions.structured_to_unstructured(x) makes columns of its fields",
        ),
        (
            isinstance(first, Mapping),
            "its rows are dicts: give its columns, as one array or as a dict of arrays",
        ),
        (
            isinstance(first, str | bytes),
            f"for numbers that are written as text, use np.asarray(x, dtype=float){labels}",
        ),
        (
            hasattr(x, "toarray"),
            "a sparse matrix becomes an array by x.toarray(), or batch by batch in a data.Source",
        ),
        (
            host.ndim > 0 and _can_be_numbers(host),
            "np.asarray(x, dtype='float64'), or 'int64' of labels, makes numbers of its objects",
        ),
    )
    otherwise = "expected numbers or booleans in rows of equal length: pad rows that are shorter"
    return next((text for fits, text in advice if fits), otherwise)


def _advice_on_columns(odd: list[str]) -> str:
    if not odd:
        return "its columns have no dtype of NumPy in common: x.astype('float64') gives one"
    more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
    return (
        f"the columns {', '.join(odd[:5])}{more} hold no numbers: leave them out, or turn them "
        "into numbers, as pandas.get_dummies(x, dtype='float64') does with text"
    )


def _can_be_numbers(host: np.ndarray) -> bool:
    """Whether all elements are numbers or None, also where they are Python objects."""
    if host.dtype.kind != "O":
        return host.dtype.kind in NUMBERS
    try:
        host.astype(float)
    except (TypeError, ValueError):
        return False
    return True


def _wants_copy(copy: object) -> bool:
    if not isinstance(copy, bool):
        raise TypeError(
            f"copy is True, for a copy, or False, for the same memory or an error; got {copy!r}"
        )
    return copy


def _shared(x: Any, target: Backend, device: Any, dtype: str | None) -> Array:
    """The memory of `x` as an array of `target`; ValueError, with the reason, if it cannot be."""
    kind = f"{type(x).__module__}.{type(x).__qualname__}"

    def refused(reason: str) -> ValueError:
        return ValueError(
            f"the memory of this {kind} cannot be shared with backend {target.name!r} on "
            f"{device}: {reason}. Leave out copy=False for a copy"
        )

    if isinstance(x, np.generic) or not (hasattr(x, "__dlpack__") or target.is_array(x)):
        raise refused("it is not an array that shares its memory with others (by __dlpack__)")
    if isinstance(x, np.ndarray) and on_host(x).dtype != x.dtype:
        raise refused(f"its bytes are in another order than this machine's ({x.dtype})")
    try:
        shared = target.share(x, device)
    except RecordError:
        raise
    except Exception as error:
        raise refused(f"{type(error).__name__}: {error}") from error
    if target.device_of(shared) != device:
        raise refused(f"it is on {target.device_of(shared)}")
    before, after = dtype_name(x.dtype), dtype_name(shared.dtype)
    if before != after:
        raise refused(f"it is {before}, and the library made {after} of it")
    if dtype is not None and shared.dtype != target.dtype(dtype):
        raise refused(f"it is {before}, and {dtype} was asked for")
    return shared


def dtype_name(dtype: Any) -> str:
    """A dtype of any library by the standard's name."""
    return str(dtype).rpartition(".")[2]
