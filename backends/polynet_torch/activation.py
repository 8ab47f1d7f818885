"""PyTorch's own activations, softmax and dropout, as kernels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from polynet_torch.kernels import on_floats, recorded

aten = torch.ops.aten


# Piecewise linear


@on_floats
def relu(xp: Any, x: torch.Tensor) -> Any:
    """max(x, 0); the gradient passes where the result is positive."""
    y = torch.relu(x)
    return y, (lambda g: aten.threshold_backward(g, y, 0),)


@on_floats
def leaky_relu(xp: Any, x: torch.Tensor, *, negative_slope: float = 0.01) -> Any:
    """x where x > 0, else `negative_slope`·x."""
    y = functional.leaky_relu(x, negative_slope)
    return y, (lambda g: aten.leaky_relu_backward(g, x, negative_slope, False),)


def prelu(xp: Any, x: torch.Tensor, weight: torch.Tensor) -> Any:
    """x where x > 0, else weight·x; both gradients come from one pass, `weight`'s to be summed."""
    if x.ndim < 2 or x.dtype != weight.dtype or not x.is_floating_point() or recorded((x, weight)):
        return NotImplemented
    slopes = weight.view(-1, *(1 for _ in x.shape[2:]))
    y = aten._prelu_kernel(x, slopes)

    def pullback(g: torch.Tensor, needs: tuple[bool, ...]) -> Any:
        to_x, to_slopes = aten._prelu_kernel_backward(g, x, slopes)
        return to_x, to_slopes.sum_to_size(slopes.shape).view(weight.shape)

    return y, pullback


@on_floats
def threshold(xp: Any, x: torch.Tensor, *, threshold: float, value: float) -> Any:
    """x where x > `threshold`, else `value`."""
    y = functional.threshold(x, threshold, value)
    return y, (lambda g: aten.threshold_backward(g, x, threshold),)


@on_floats
def hardtanh(xp: Any, x: torch.Tensor, *, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """min(max(x, min_val), max_val); the gradient passes between the two."""
    if min_val > max_val:
        return NotImplemented
    y = functional.hardtanh(x, min_val, max_val)
    return y, (lambda g: aten.hardtanh_backward(g, x, min_val, max_val),)


@on_floats
def relu6(xp: Any, x: torch.Tensor) -> Any:
    """min(max(x, 0), 6)."""
    return hardtanh(xp, x, min_val=0.0, max_val=6.0)


@on_floats
def hardsigmoid(xp: Any, x: torch.Tensor) -> Any:
    """min(max(x + 3, 0), 6) / 6; PyTorch's own gradient has 1/6 with the digits of float32."""
    y = functional.hardsigmoid(x)
    return y, (lambda g: aten.hardtanh_backward(g, x, -3.0, 3.0).div_(6),)


@on_floats
def hardswish(xp: Any, x: torch.Tensor) -> Any:
    """x·hardsigmoid(x)."""
    return functional.hardswish(x), (lambda g: aten.hardswish_backward(g, x),)


@on_floats
def hardshrink(xp: Any, x: torch.Tensor, *, lambd: float = 0.5) -> Any:
    """x where |x| > lambd, else 0."""
    return functional.hardshrink(x, lambd), (lambda g: aten.hardshrink_backward(g, x, lambd),)


@on_floats
def softshrink(xp: Any, x: torch.Tensor, *, lambd: float = 0.5) -> Any:
    """x, nearer to 0 by `lambd`, and 0 where that would cross it."""
    if lambd < 0:
        return NotImplemented
    return functional.softshrink(x, lambd), (lambda g: aten.softshrink_backward(g, x, lambd),)


# Curves


@on_floats
def elu(xp: Any, x: torch.Tensor, *, alpha: float = 1.0) -> Any:
    """x where x > 0, else alpha·(exp(x) - 1)."""
    return _elu(x, alpha, 1.0)


@on_floats
def celu(xp: Any, x: torch.Tensor, *, alpha: float = 1.0) -> Any:
    """x where x > 0, else alpha·(exp(x / alpha) - 1)."""
    return _elu(x, alpha, 1 / alpha) if alpha else NotImplemented


@on_floats
def selu(xp: Any, x: torch.Tensor) -> Any:
    """1.0507·elu(x, alpha=1.6733)."""
    return _elu(x, 1.6732632423543772848, 1.0, 1.0507009873554804934)


def _elu(x: torch.Tensor, alpha: float, rate: float, scale: float = 1.0) -> Any:
    """scale·x where x > 0, else scale·alpha·(exp(rate·x) - 1)."""
    y = aten.elu(x, alpha, scale, rate)
    return y, (lambda g: aten.elu_backward(g, alpha, scale, rate, False, x),)


@on_floats
def gelu(xp: Any, x: torch.Tensor, *, approximate: str = "none") -> Any:
    """x·Φ(x); its derivative is Φ(x) + x·φ(x).

    Far from 0, the derivative of PyTorch's approximation is NaN. Beyond ±10 it is 0 or 1 to the
    last bit.
    """
    if approximate not in ("none", "tanh"):
        return NotImplemented

    def pullback(g: torch.Tensor) -> torch.Tensor:
        at = x if approximate == "none" else x.clamp(-10, 10)
        return aten.gelu_backward(g, at, approximate=approximate)

    return functional.gelu(x, approximate=approximate), (pullback,)


@on_floats
def sigmoid(xp: Any, x: torch.Tensor) -> Any:
    """y = 1 / (1 + exp(-x)); the gradient is g·y·(1 - y)."""
    y = torch.sigmoid(x)
    return y, (lambda g: aten.sigmoid_backward(g, y),)


@on_floats
def silu(xp: Any, x: torch.Tensor) -> Any:
    """x·sigmoid(x)."""
    return functional.silu(x), (lambda g: aten.silu_backward(g, x),)


@on_floats
def softplus(xp: Any, x: torch.Tensor, *, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """log(1 + exp(beta·x)) / beta, or x beyond; the gradient is g·sigmoid(beta·x), or g."""
    y = functional.softplus(x, beta, threshold)
    return y, (lambda g: aten.softplus_backward(g, x, beta, threshold),)


@on_floats
def logsigmoid(xp: Any, x: torch.Tensor) -> Any:
    """log sigmoid(x); the gradient is g·sigmoid(-x)."""
    y, buffer = aten.log_sigmoid_forward(x)
    return y, (lambda g: aten.log_sigmoid_backward(g, x, buffer),)


@on_floats
def mish(xp: Any, x: torch.Tensor) -> Any:
    """x·tanh(log(1 + exp(x)))."""
    return functional.mish(x), (lambda g: aten.mish_backward(g, x),)


@on_floats
def glu(xp: Any, x: torch.Tensor, *, axis: int = -1) -> Any:
    """a·sigmoid(b), of the halves of x; the definition refuses an axis without halves."""
    if not -x.ndim <= axis < x.ndim or x.shape[axis] % 2:
        return NotImplemented
    return aten.glu(x, axis), (lambda g: aten.glu_backward(g, x, axis),)


@on_floats
def erf(xp: Any, x: torch.Tensor) -> Any:
    """The error function; the gradient is g·2/√π·exp(-x²)."""
    return torch.erf(x), (lambda g: g * (2 / math.sqrt(math.pi)) * torch.exp(-x * x),)


# Dropout, and softmax along an axis


def dropout(xp: Any, x: torch.Tensor, mask: torch.Tensor, *, keep: float) -> Any:
    """x / `keep` where `mask` is true, else x · 0; the gradient goes the same way."""
    if not x.is_floating_point() or mask.dtype != torch.bool or x.shape != mask.shape:
        return NotImplemented
    if recorded((x,)) or not keep:
        return NotImplemented
    dropped = aten.native_dropout_backward
    return dropped(x, mask, 1 / keep), (lambda g: dropped(g, mask, 1 / keep), None)


@on_floats
def softmax(xp: Any, x: torch.Tensor, *, axis: int = -1) -> Any:
    """y = softmax(x); the gradient is y·(g - Σ g·y)."""
    y = torch.softmax(x, axis)
    return y, (lambda g: aten._softmax_backward_data(g, y, axis, x.dtype),)


@on_floats
def log_softmax(xp: Any, x: torch.Tensor, *, axis: int = -1) -> Any:
    """y = log softmax(x); the gradient is g - exp(y)·Σ g."""
    y = torch.log_softmax(x, axis)
    return y, (lambda g: aten._log_softmax_backward_data(g, y, axis, x.dtype),)


KERNELS = {
    kernel.__name__: kernel
    for kernel in (
        celu, dropout, elu, erf, gelu, glu, hardshrink, hardsigmoid, hardswish, hardtanh,
        leaky_relu, log_softmax, logsigmoid, mish, prelu, relu, relu6, selu, sigmoid, silu, softmax,
        softplus, softshrink, threshold,
    )
}  # fmt: skip
