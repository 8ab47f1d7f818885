"""array-api-compat's CuPy namespace, with what a captured step must do differently."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

from polynet_cupy import products
from polynet_cupy.launch import contiguous, elementwise, launch

AT_A_TIME = 8
"""Arrays that CuPy joins without a list of their addresses, which it would copy from the host."""


def extended(compat: Any, name: str, precision: str = "float32", **ours: Any) -> ModuleType:
    """The namespace `compat`, with what kernels ask for: `launch`, `gemm`, `address`, `memory`.

    And with the `precision` of products, one of `products.PRECISIONS`.
    """
    xp = ModuleType(name, compat.__doc__)
    vars(xp).update({key: value for key, value in vars(compat).items() if key != "__name__"})
    vars(xp).update(
        precision=precision,
        plain_matmul=compat.matmul,
        plain_take=compat.take,
        plain_concat=compat.concat,
        contiguous=partial(contiguous, xp),
        matmul=_named("matmul", lambda x, y, /: products.matmul(xp, x, y)),
        take=_named("take", lambda x, indices, /, *, axis=None: _take(xp, x, indices, axis)),
        concat=_named("concat", lambda arrays, /, *, axis=0: _concat(xp, arrays, axis)),
        stack=_named("stack", lambda arrays, /, *, axis=0: _stack(xp, arrays, axis)),
    )
    vars(xp).update(ours)
    return xp


def namespace(precision: str) -> ModuleType:
    """The namespace of CuPy's arrays, on which kernels run on the device."""
    import array_api_compat.cupy as compat

    from polynet_cupy.cublaslt import Gemm

    return extended(
        compat, "polynet_cupy.xp", precision, launch=launch, gemm=Gemm(), address=address,
        memory=memory,
    )  # fmt: skip


def address(array: Any) -> int:
    """Where the first number of an array stands."""
    return int(array.data.ptr)


def memory(array: Any) -> int:
    """What arrays have in common that share memory: where that begins."""
    return int(array.data.mem.ptr)


def _named(name: str, function: Any) -> Any:
    function.__name__ = name
    return function


def _take(xp: Any, x: Any, indices: Any, axis: int | None) -> Any:
    """Elements along an axis; rows, such as those of a batch, by a kernel that copies words."""
    wide = indices.dtype.name == "int64"
    row = x.nbytes // x.shape[0] if x.ndim and x.shape[0] else 0
    rows = x.ndim and (axis == 0 or (axis is None and x.ndim == 1)) and indices.ndim == 1
    if not rows or not row or row % 4 or not (wide or indices.dtype.name == "int32"):
        return xp.plain_take(x, indices, axis=axis)
    x, indices = contiguous(xp, x), contiguous(xp, indices)
    if xp.address(x) % 4:
        return xp.plain_take(x, indices, axis=axis)
    count = indices.shape[0]
    out = xp.empty((count, *x.shape[1:]), dtype=x.dtype)
    size, words = count * (row // 4), row // 4
    given = (x, indices, int(wide), out, count, words, x.shape[0])
    elementwise(xp, "gather_rows", "float32", size, *given)
    return out


def _concat(xp: Any, arrays: Any, axis: int | None) -> Any:
    """Arrays joined, a few at a time: see `AT_A_TIME`."""
    arrays = list(arrays)
    if len(arrays) > AT_A_TIME:
        parts = range(0, len(arrays), AT_A_TIME)
        arrays = [xp.plain_concat(arrays[i : i + AT_A_TIME], axis=axis) for i in parts]
        return _concat(xp, arrays, axis)
    return xp.plain_concat(arrays, axis=axis)


def _stack(xp: Any, arrays: Any, axis: int) -> Any:
    """Arrays of one shape joined along a new axis."""
    arrays = [xp.expand_dims(a, axis=axis) for a in arrays]
    if len({tuple(a.shape) for a in arrays}) > 1:
        raise ValueError(f"stack: expected arrays of one shape; got {[a.shape for a in arrays]}")
    return _concat(xp, arrays, axis)
