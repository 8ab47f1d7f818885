"""Choosing between arrays by a mask: by their bits, since `np.where` jumps at every number.

Where the mask is random, as dropout's is, a jump that was guessed wrong takes ten times as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MANY = 512
"""Elements from which the passes over bits take less time than the jumps."""
MAKE: Any = [["writeonly", "allocate", "no_subtype"], ["readonly"], ["readonly"], ["readonly"]]
"""To make the first of an iterator's arrays, in the order in memory of the others."""


def where(condition: Any, x: Any, y: Any, /) -> Any:
    """`np.where`, of NumPy's arrays and numbers; the result lies in memory as that of `np.where`.

    So sums over it have the order, and the bits, that they have where a step is captured.
    """
    if condition.size < MANY:
        return np.where(condition, x, y)
    arrays: Any = (None, condition, x, y)
    dtypes = (np.result_type(x, y), None, None, None)
    out = np.nditer(arrays, ["zerosize_ok"], MAKE, dtypes).operands[0]
    choose(condition, x, y, out)
    return out


def choose(condition: Any, x: Any, y: Any, out: np.ndarray) -> None:
    """`np.where` into `out`, which has the shape and the dtype of the result."""
    condition = np.asarray(condition)  # a step of a user's may give True
    bits = _bits(x, out.dtype), _bits(y, out.dtype)
    if out.size < MANY or condition.dtype != bool or any(b is None for b in bits):
        np.copyto(out, y)
        np.copyto(out, x, where=condition.astype(bool, copy=False))
        return
    of_x, of_y = bits
    result = out.view(of_x.dtype)
    np.negative(condition.view(np.int8), out=result, dtype=result.dtype)  # all ones, or none
    if of_y.ndim or of_y:
        result &= of_x ^ of_y
        result ^= of_y
    else:
        result &= of_x


def _bits(x: Any, dtype: np.dtype[Any]) -> Any:
    """The bits of a number or an array, as whole numbers; None of an array of another dtype."""
    if isinstance(x, np.ndarray) and x.dtype != dtype:
        return None
    if dtype.char not in "fd":
        return None
    return np.asarray(x, dtype).view(f"i{dtype.itemsize}")
