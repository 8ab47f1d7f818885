"""array-api-compat's PyTorch namespace, with what a captured step must do differently.

While a stream is captured nothing may be copied from the host.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

import array_api_compat.torch as compat
import torch

TENSORS_ONLY = (
    "atan2 copysign equal greater greater_equal hypot less less_equal logaddexp logical_and "
    "logical_or logical_xor maximum minimum nextafter not_equal"
).split()
"""Functions of two arrays for which PyTorch, or compat, makes a tensor on the host of a number."""


def of_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose numbers are made where the other array is."""

    @wraps(function)
    def call(x1: Any, x2: Any, /, **options: Any) -> Any:
        if not isinstance(x1, torch.Tensor):
            x1 = _number(x1, x2)
        elif not isinstance(x2, torch.Tensor):
            x2 = _number(x2, x1)
        return function(x1, x2, **options)

    return call


def _number(x: Any, like: Any) -> Any:
    if not isinstance(x, bool | int | float | complex) or not isinstance(like, torch.Tensor):
        return x
    return torch.full((), x, dtype=compat.result_type(x, like), device=like.device)


def namespace() -> ModuleType:
    """The namespace of PyTorch's tensors."""
    xp = ModuleType("polynet_torch.xp", compat.__doc__)
    vars(xp).update({key: value for key, value in vars(compat).items() if key != "__name__"})
    vars(xp).update({name: of_tensors(getattr(compat, name)) for name in TENSORS_ONLY})
    return xp


xp = namespace()
