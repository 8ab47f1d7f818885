"""A Tensor's operators and methods, which are ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polynet.ops.differentiable import OPS
from polynet.tensor import Tensor

BINARY = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "pow": "pow",
    "matmul": "matmul",
}
COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "and": "logical_and",
    "or": "logical_or",
    "xor": "logical_xor",
}
UNARY = {"neg": "negative", "pos": "positive", "abs": "abs", "getitem": "getitem"}


def _reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: function(other, self)


def _by_name(name: str) -> Callable[..., Any]:
    return lambda self, *others: getattr(self._level.namespace, name)(self, *others)


def attach() -> None:
    """Give `Tensor` its operators."""
    for operator, name in BINARY.items():
        setattr(Tensor, f"__{operator}__", OPS[name])
        setattr(Tensor, f"__r{operator}__", _reflected(OPS[name]))
    for operator, name in COMPARISONS.items():
        setattr(Tensor, f"__{operator}__", _by_name(name))
    for operator, name in UNARY.items():
        setattr(Tensor, f"__{operator}__", OPS[name])
    transposes = {"mT": property(OPS["matrix_transpose"]), "T": property(_transpose)}
    for name, value in {"__invert__": _by_name("logical_not"), **transposes}.items():
        setattr(Tensor, name, value)


def _transpose(self: Tensor) -> Any:
    if self.ndim != 2:
        raise ValueError(
            f"T is for two dimensions, this Tensor has {self.ndim}; use permute_dims or mT"
        )
    return OPS["matrix_transpose"](self)


attach()
