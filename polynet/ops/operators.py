"""A Tensor's operators and methods, which are ops.

`x[key] = value` and `x += y` compute a new array, and the Tensor takes over its value and its line
in the record. The old array and earlier lines of the record stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polynet.ops.assignment import setitem
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
COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
INTEGER = {
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
    "floordiv": "floor_divide",
}
"""Operators of integers and booleans. Like comparisons, they have no gradient."""
UNARY = {"neg": "negative", "pos": "positive", "abs": "abs", "getitem": "getitem"}

ELSEWHERE = {
    **{
        name: f"xp.{name}(x)"
        for name in (
            "all any argmax argmin argsort clip conj imag max mean min nonzero prod real repeat "
            "round sort squeeze std sum take var"
        ).split()
    },
    **dict.fromkeys(("flatten", "ravel"), "xp.reshape(x, (-1,))"),
    **dict.fromkeys(("swapaxes", "transpose"), "xp.permute_dims(x, axes)"),
    "astype": "xp.astype(x, dtype)",
    "copy": "xp.asarray(x, copy=True)",
    "cumprod": "xp.cumulative_prod(x)",
    "cumsum": "xp.cumulative_sum(x)",
    "dot": "xp.matmul(x, y)",
    "item": "float(x)",
    "reshape": "xp.reshape(x, shape)",
}
"""Methods of NumPy's arrays that are not in the standard, with what to write instead."""
OF_PYTORCH = {
    **{name: f"xp.{name}(x)" for name in ("abs", "exp", "log", "sqrt", "tanh")},
    **{name: f"polynet.functional.{name}(x)" for name in ("relu", "sigmoid", "softmax")},
    "backward": "polynet.value_and_grad(f)(p) returns the gradients",
    "clamp": "xp.clip(x, low, high)",
    "clone": "xp.asarray(x, copy=True)",
    "detach": "polynet.stop_gradient(x)",
    "float": "xp.astype(x, xp.float32)",
    "gather": "xp.take_along_axis(x, indices, axis=axis)",
    "masked_fill": "xp.where(mask, value, x)",
    "matmul": "xp.matmul(x, y)",
    "norm": "xp.linalg.vector_norm(x)",
    "permute": "xp.permute_dims(x, axes)",
    "pow": "xp.pow(x, y)",
    "unsqueeze": "xp.expand_dims(x, axis=axis)",
    "view": "xp.reshape(x, shape)",
}
"""The same for PyTorch's tensors."""
OF_JAX = {"at": "polynet.functional.setitem(x, key, value)"}
"""The same for JAX's arrays."""


def _reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: function(other, self)


def _from_namespace(name: str) -> Callable[..., Any]:
    """The namespace's function of that name as an operator; one of the operands is a Tensor."""

    def call(*operands: Any) -> Any:
        tensor = next(x for x in operands if type(x) is Tensor)
        return getattr(tensor._level.namespace, name)(*operands)

    return call


def _in_place(operator: str) -> Callable[..., Any]:
    compute = getattr(Tensor, f"__{operator}__")

    def call(self: Tensor, other: Any) -> Tensor:
        result = compute(self, other)
        if result.dtype != self.dtype:
            raise TypeError(
                f"an operator in place keeps the dtype, {self.dtype}; this one gives "
                f"{result.dtype}: cast the other array, or write x = x + y"
            )
        if result.shape != self.shape:
            raise ValueError(
                f"an operator in place keeps the shape, {self.shape}; this one gives "
                f"{result.shape}: write x = x + y"
            )
        self._become(result)
        return self

    return call


def _assign(self: Tensor, key: Any, value: Any) -> None:
    self._become(setitem(self, key, value))


def attach() -> None:
    """Give `Tensor` its operators."""
    for operator, name in BINARY.items():
        setattr(Tensor, f"__{operator}__", OPS[name])
        setattr(Tensor, f"__r{operator}__", _reflected(OPS[name]))
    for operator, name in {**COMPARISONS, **INTEGER}.items():
        setattr(Tensor, f"__{operator}__", _from_namespace(name))
    for operator, name in INTEGER.items():
        setattr(Tensor, f"__r{operator}__", _reflected(_from_namespace(name)))
    for operator, name in UNARY.items():
        setattr(Tensor, f"__{operator}__", OPS[name])
    for operator in (*BINARY, *INTEGER):
        setattr(Tensor, f"__i{operator}__", _in_place(operator))
    transposes = {"mT": property(OPS["matrix_transpose"]), "T": property(_transpose)}
    methods = {
        "__invert__": _from_namespace("bitwise_invert"),
        "__setitem__": _assign,
        "to_device": OPS["to_device"],
    }
    elsewhere = {**ELSEWHERE, **OF_PYTORCH, **OF_JAX}
    absent = {name: _absent(name, instead) for name, instead in elsewhere.items()}
    for name, value in {**methods, **transposes, **absent}.items():
        setattr(Tensor, name, value)


def _absent(name: str, instead: str) -> property:
    def refuse(_self: Tensor) -> Any:
        raise AttributeError(
            f"'Tensor' object has no attribute {name!r}: arrays of the standard have functions in "
            f"place of methods: xp = polynet.array_namespace(x); {instead}"
        )

    return property(refuse)


def _transpose(self: Tensor) -> Any:
    if self.ndim != 2:
        raise ValueError(
            f"T is for two dimensions, this Tensor has {self.ndim}; use permute_dims or mT"
        )
    return OPS["matrix_transpose"](self)


attach()
