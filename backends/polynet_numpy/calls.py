"""Calls of NumPy's functions whose results are written into existing memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np


def is_dense(array: np.ndarray) -> bool:
    """Whether the array fills one run of memory without gaps, in some order of its axes.

    One without elements does, whatever its strides: an array that it is joined to has their order.
    """
    if not array.size:
        return True
    step = array.itemsize
    for stride, n in sorted(zip(array.strides, array.shape, strict=True)):
        if n != 1 and stride != step:
            return False
        step *= n
    return True


def store(call: Callable[[], Any], out: np.ndarray) -> None:
    """Write the result of a call into `out`."""
    out[...] = call()


def store_all(call: Callable[[], Any], outs: list[np.ndarray]) -> None:
    """`store`, for several results."""
    for out, part in zip(outs, call(), strict=True):
        out[...] = part


def as_arrays(args: list[Any]) -> list[Any]:
    """`args` with Python's numbers converted to arrays, if all arrays among them have one dtype.

    This saves NumPy the conversion in every replay. A number that is out of the dtype's range stays
    as it is: comparisons take it.
    """
    dtypes = {a.dtype for a in args if isinstance(a, np.ndarray)}
    if len(dtypes) != 1:
        return args
    dtype = dtypes.pop()
    kinds = {"f": (int, float), "i": (int,)}.get(dtype.kind, ())
    try:
        return [np.asarray(a, dtype) if type(a) in kinds else a for a in args]
    except OverflowError:
        return args


def gives(call: Callable[[], object], out: np.ndarray, expected: Any) -> bool:
    """Whether `call`, which writes to `out`, gives the expected result to the last bit."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first computation of this result has warned
            call()
    except (TypeError, ValueError, OverflowError):
        return False
    return out.tobytes() == np.asarray(expected).tobytes()


def with_settings(settings: Any, call: Callable[[], object]) -> None:
    """Make a call under `np.errstate(**settings)`."""
    with np.errstate(**settings):
        call()
