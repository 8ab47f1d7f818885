"""array-api-compat's CuPy namespace, with replacements for what fails during a capture.

While a stream is being captured, the host may not read the device, and cuBLAS may not be called.
"""

from __future__ import annotations

import functools
import math
from functools import partial, update_wrapper
from types import ModuleType
from typing import Any

import numpy as np

from polynet_cupy import products
from polynet_cupy.launch import (
    PACK,
    THREADS,
    WIDE,
    contiguous,
    elementwise,
    launch,
    on_device,
    real,
)

WORD = 4
"""Bytes of a word. A thread copies one word, or as many as a pack has."""
AT_A_TIME = 8
"""The most arrays that CuPy joins without copying a list of their addresses from the host."""
MOST_NUMBERS = 64
"""Addresses in a table, as in the sources."""
NUMBERS = np.dtype([("at", np.int64, MOST_NUMBERS)])
"""`Numbers` in the sources."""


def extended(compat: Any, name: str, precision: str = "float32", **ours: Any) -> ModuleType:
    """The namespace `compat` with the replacements of this module, and with `precision`.

    `precision` is that of products, one of `products.PRECISIONS`. `ours` are further functions,
    which kernels use: `launch`, `gemm`, `address`, `memory`. Where a function is replaced, compat's
    own stays available as `plain_…`.
    """
    xp = ModuleType(name, compat.__doc__)
    vars(xp).update({key: value for key, value in vars(compat).items() if key != "__name__"})
    vars(xp).update(precision=precision, contiguous=partial(contiguous, xp))
    for function in (products.matmul, clip, concat, stack, take, tensordot, vecdot):
        replaced = function.__name__
        vars(xp)[f"plain_{replaced}"] = getattr(compat, replaced)
        vars(xp)[replaced] = update_wrapper(partial(function, xp), function)
    vars(xp).update(ours)
    return xp


def namespace(precision: str) -> ModuleType:
    """The namespace of CuPy's arrays, on which kernels run on the device."""
    import array_api_compat.cupy as compat
    import array_api_compat.cupy.linalg as plain
    import cupy

    def sign(x: Any, /) -> Any:
        """Compat's sign looks for NaN with a mask; CuPy's own handles NaN by now."""
        return cupy.sign(x) if x.dtype.kind == "f" else compat.sign(x)

    def solve(x: Any, y: Any, /) -> Any:
        """CuPy's solve wants stacks of one shape; the standard's broadcasts them."""
        if y.ndim == 1 and x.ndim > 2:
            return solve(x, y[:, None])[..., 0]
        if y.ndim > 1 and x.shape[:-2] != y.shape[:-2]:
            stack = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
            x, y = (cupy.broadcast_to(a, (*stack, *a.shape[-2:])).copy() for a in (x, y))
        return plain.solve(x, y)

    linalg = ModuleType("polynet_cupy.xp.linalg", plain.__doc__)
    vars(linalg).update({key: value for key, value in vars(plain).items() if key != "__name__"})
    vars(linalg).update(solve=solve)
    return extended(
        compat, "polynet_cupy.xp", precision, launch=launch, gemm=gemm(), address=address,
        memory=memory, sign=sign, linalg=linalg,
    )  # fmt: skip


@functools.cache
def gemm() -> Any:
    """Products by cuBLASLt; the namespaces of all precisions share this object."""
    from polynet_cupy.cublaslt import Gemm

    return Gemm()


def address(array: Any) -> int:
    """The address of an array's first number; the array must be on the current device."""
    import cupy

    on_device(cupy.cuda.runtime.getDevice(), array)
    return int(array.data.ptr)


def memory(array: Any) -> int:
    """The address at which an array's memory begins; it is equal for arrays that share memory."""
    return int(array.data.mem.ptr)


def clip(xp: Any, x: Any, /, min: Any = None, max: Any = None) -> Any:  # noqa: A002 (the standard's)
    """Numbers between two bounds, numbers or arrays of their dtype; compat's clip reads a mask."""
    if min is max is None or not all(a is None or _is_of(xp, a, x.dtype) for a in (min, max)):
        return xp.plain_clip(x, min, max)
    x = x if min is None else xp.maximum(x, min)
    return x if max is None else xp.minimum(x, max)


def _is_of(xp: Any, a: Any, dtype: Any) -> bool:
    """Whether `a` is a number of this dtype, or an array of such, so that nothing is converted."""
    if dtype.kind not in "fiu" or not isinstance(a, int | float):
        return bool(dtype.kind in "fiu" and a.dtype == dtype)
    if dtype.kind == "f":
        return True
    return isinstance(a, int) and bool(xp.iinfo(dtype).min <= a <= xp.iinfo(dtype).max)


def take(xp: Any, x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
    """Elements along an axis; whole rows, as those of a batch, are copied by a kernel, in words."""
    wide = WIDE.get(indices.dtype.name)
    row = x.nbytes // x.shape[0] if x.ndim and x.shape[0] else 0
    rows = indices.ndim == 1 and (axis == 0 or (axis is None and x.ndim == 1))
    rows = rows and row and not row % WORD and x.flags.c_contiguous
    if not rows or wide is None or xp.address(x) % WORD:
        return xp.plain_take(x, indices, axis=axis)
    indices = xp.contiguous(indices)
    count, words = indices.shape[0], row // WORD
    out = xp.empty((count, *x.shape[1:]), dtype=x.dtype)
    each = 1 if any(n % PACK for n in (row, xp.address(x), xp.address(out))) else PACK // WORD
    given = (x, indices, wide, out, count, words, x.shape[0], each)
    elementwise(xp, "gather_rows", "float32", count * words, *given, each=each)
    return out


def concat(xp: Any, arrays: Any, /, *, axis: int | None = 0) -> Any:
    """Arrays joined, at most `AT_A_TIME` of them at once."""
    arrays = list(arrays)
    if len(arrays) > AT_A_TIME:
        parts = range(0, len(arrays), AT_A_TIME)
        arrays = [xp.plain_concat(arrays[i : i + AT_A_TIME], axis=axis) for i in parts]
        return concat(xp, arrays, axis=axis)
    return xp.plain_concat(arrays, axis=axis)


def stack(xp: Any, arrays: Any, /, *, axis: int = 0) -> Any:
    """Arrays of one shape joined along a new axis; 0-d arrays, such as losses, in one launch."""
    arrays = [xp.asarray(a) for a in arrays]
    numbers = axis in (0, -1) and not any(a.ndim for a in arrays)
    if numbers and 0 < len(arrays) <= MOST_NUMBERS and real(*arrays):
        return _in_a_row(xp, arrays)
    arrays = [xp.expand_dims(a, axis=axis) for a in arrays]
    if len({tuple(a.shape) for a in arrays}) > 1:
        raise ValueError(f"stack: expected arrays of one shape; got {[a.shape for a in arrays]}")
    return concat(xp, arrays, axis=axis)


def _in_a_row(xp: Any, numbers: list[Any]) -> Any:
    table = np.zeros((), dtype=NUMBERS)
    table["at"][: len(numbers)] = [xp.address(a) for a in numbers]
    out = xp.empty((len(numbers),), dtype=numbers[0].dtype)
    xp.launch("in_a_row", out.dtype, 1, THREADS, table, out, len(numbers))
    return out


def vecdot(xp: Any, x: Any, y: Any, /, *, axis: int = -1) -> Any:
    """Σ x·y along an axis; compat's vecdot calls cuBLAS."""
    if not real(x, y) or x.shape[axis:][:1] != y.shape[axis:][:1]:
        return xp.plain_vecdot(x, y, axis=axis)  # which says what is wrong
    return xp.sum(x * y, axis=axis)


def tensordot(xp: Any, x: Any, y: Any, /, *, axes: Any = 2) -> Any:
    """One matrix product: the summed axes become the columns of `x` and the rows of `y`."""
    if not real(x, y) or not x.size or not y.size:
        return xp.plain_tensordot(x, y, axes=axes)
    if isinstance(axes, int):
        axes = range(x.ndim - axes, x.ndim), range(axes)
    of_x, of_y = ([a % z.ndim for a in s] for s, z in zip(axes, (x, y), strict=True))
    if [x.shape[a] for a in of_x] != [y.shape[a] for a in of_y]:
        return xp.plain_tensordot(x, y, axes=(of_x, of_y))  # which says what is wrong
    rest_x = [a for a in range(x.ndim) if a not in of_x]
    rest_y = [a for a in range(y.ndim) if a not in of_y]
    shape = [x.shape[a] for a in rest_x] + [y.shape[a] for a in rest_y]
    summed = math.prod(x.shape[a] for a in of_x)
    left = xp.reshape(xp.permute_dims(x, (*rest_x, *of_x)), (-1, summed))
    right = xp.reshape(xp.permute_dims(y, (*of_y, *rest_y)), (summed, -1))
    return xp.reshape(xp.matmul(left, right), tuple(shape))
