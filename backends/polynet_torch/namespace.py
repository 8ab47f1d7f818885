"""array-api-compat's PyTorch namespace, changed so that steps can be captured.

While a CUDA stream is captured, nothing may be copied from the host.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

import array_api_compat.torch as compat
import torch

FIRST = "copysign equal greater greater_equal less less_equal not_equal".split()
"""Functions of two arrays in which compat turns a number into a tensor if it comes first."""
EITHER = (
    "atan2 hypot logaddexp logical_and logical_or logical_xor maximum minimum nextafter"
).split()
"""Functions of two arrays in which compat turns a number into a tensor in either place."""


def of_tensors(function: Callable[..., Any], *, second: bool) -> Callable[..., Any]:
    """`function`, with a number made a tensor on the other array's device, without a host copy."""

    @wraps(function)
    def call(x1: Any, x2: Any, /, **options: Any) -> Any:
        if not isinstance(x1, torch.Tensor):
            x1 = number(x1, x2)
        elif second and not isinstance(x2, torch.Tensor):
            x2 = number(x2, x1)
        return function(x1, x2, **options)

    return call


def clip(x: Any, /, min: Any = None, max: Any = None, **options: Any) -> Any:  # noqa: A002 (the standard's)
    """Clip to numbers, tensors, or one of each; compat would copy the number from the host."""
    low, high = min, max
    if x.is_floating_point() and isinstance(low, torch.Tensor):
        high = number(high, x)
    elif x.is_floating_point() and isinstance(high, torch.Tensor):
        low = number(low, x)
    return compat.clip(x, low, high, **options)


def sign(x: Any, /) -> Any:
    """The sign, and NaN of NaN; compat looks for NaN by a mask, which takes ten times as long."""
    if not x.is_floating_point():
        return compat.sign(x)
    return torch.maximum(torch.sign(x), x.clamp(max=-1))


def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
    """Take by integers of either sign; compat turns the negative ones by a slow `where`."""
    if axis is None or not x.ndim or not compat.isdtype(indices.dtype, "integral"):
        return compat.take(x, indices, axis=axis)
    return torch.index_select(x, axis, from_0(indices, x.shape[axis]))


def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1) -> Any:
    """Take by integers of any dtype, as in all other indexing here; PyTorch takes only int64."""
    if not compat.isdtype(indices.dtype, "integral"):  # PyTorch refuses floats
        return compat.take_along_axis(x, indices, axis=axis)
    places = from_0(indices, x.shape[axis])
    if x.shape == places.shape:  # `gather` is faster, and broadcasts nothing
        return x.gather(axis, places)
    return torch.take_along_dim(x, places, dim=axis)


def from_0(indices: Any, count: int) -> Any:
    """Indices as int64, from 0: to negative ones, all of whose bits `>> 63` sets, adds `count`."""
    indices = indices.to(torch.int64)
    return indices + ((indices >> 63) & count)


def number(x: Any, like: Any) -> Any:
    """A Python number as a tensor on the device of `like`, in their common dtype; else `x`."""
    if not isinstance(x, bool | int | float | complex) or not isinstance(like, torch.Tensor):
        return x
    dtype = compat.result_type(x, like)
    if dtype == torch.float32:
        x = rounded(x)  # `full` refuses a number that is out of range
    elif dtype == torch.complex64:
        x = complex(*map(rounded, (complex(x).real, complex(x).imag)))
    return torch.full((), x, dtype=dtype, device=like.device)


def rounded(x: Any) -> float:
    """A real number, rounded to the nearest float32."""
    return ctypes.c_float(x).value


def namespace() -> ModuleType:
    """The namespace of PyTorch's tensors."""
    xp = ModuleType("polynet_torch.xp", compat.__doc__)
    vars(xp).update({key: value for key, value in vars(compat).items() if key != "__name__"})
    for name in FIRST + EITHER:
        vars(xp)[name] = of_tensors(getattr(compat, name), second=name in EITHER)
    vars(xp).update(clip=clip, sign=sign, take=take, take_along_axis=take_along_axis)
    return xp


xp = namespace()
