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
    "mod": "remainder",
}
CONSTANT = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
    "floordiv": "floor_divide",
}
REFLECTED = ("and", "or", "xor", "lshift", "rshift", "floordiv")
UNARY = {"neg": "negative", "pos": "positive", "abs": "abs", "getitem": "getitem"}


def _reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: function(other, self)


def _by_name(name: str) -> Callable[..., Any]:
    """The function of the differentiable namespace; one of the operands is a Tensor."""

    def call(*operands: Any) -> Any:
        tensor = next(x for x in operands if type(x) is Tensor)
        return getattr(tensor._level.namespace, name)(*operands)

    return call


def attach() -> None:
    """Give `Tensor` its operators."""
    for operator, name in BINARY.items():
        setattr(Tensor, f"__{operator}__", OPS[name])
        setattr(Tensor, f"__r{operator}__", _reflected(OPS[name]))
    for operator, name in CONSTANT.items():
        setattr(Tensor, f"__{operator}__", _by_name(name))
    for operator in REFLECTED:
        setattr(Tensor, f"__r{operator}__", _reflected(_by_name(CONSTANT[operator])))
    for operator, name in UNARY.items():
        setattr(Tensor, f"__{operator}__", OPS[name])
    transposes = {"mT": property(OPS["matrix_transpose"]), "T": property(_transpose)}
    for name, value in {"__invert__": _by_name("bitwise_invert"), **transposes}.items():
        setattr(Tensor, name, value)


def _transpose(self: Tensor) -> Any:
    if self.ndim != 2:
        raise ValueError(
            f"T is for two dimensions, this Tensor has {self.ndim}; use permute_dims or mT"
        )
    return OPS["matrix_transpose"](self)


attach()
