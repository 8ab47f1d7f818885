"""Activations as layers: each calls the function of the same name with its own settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from polynet import functional
from polynet.backend import Array
from polynet.errors import unknown
from polynet.nn.checks import check_same_dtype, positive, signed_integers, wrong_shape
from polynet.nn.described import Parameter
from polynet.nn.init import constant
from polynet.nn.module import Module


class _Activation(Module):
    """A function of one array, whose options are the layer's attributes."""

    _function: ClassVar[Callable[..., Any]]

    def __init__(self) -> None:
        """Most functions have no options."""

    def _options(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def forward(self, x: Array) -> Array:
        return type(self)._function(x, **self._options())

    def settings(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self._options().items())


# Straight lines


class ReLU(_Activation):
    """max(x, 0), elementwise."""

    _function = functional.relu


class LeakyReLU(_Activation):
    """x where x > 0, else `negative_slope`·x, elementwise."""

    _function = functional.leaky_relu

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = float(negative_slope)


class PReLU(Module):
    """x where x > 0, else weight·x, where `weight` is learnt.

    `weight` is one number for all channels, or, where `num_parameters` is the number of channels,
    one number for each. The channels are axis 1 of the inputs. Every number starts at `init`.
    Raises ValueError for another number of channels, TypeError for another dtype. He et al.,
    "Delving Deep into Rectifiers", ICCV 2015.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        (self.num_parameters,) = positive("PReLU", num_parameters=num_parameters)
        self.weight: Array = Parameter((self.num_parameters,), constant(init))

    def forward(self, x: Array) -> Array:
        if self.num_parameters != 1 and tuple(x.shape[1:2]) != (self.num_parameters,):
            raise wrong_shape(self, f"(batch, {self.num_parameters}, …)", x)
        check_same_dtype(self, x, self.weight)
        return functional.prelu(x, self.weight)

    def settings(self) -> str:
        return f"{self.num_parameters}"


class Threshold(_Activation):
    """x where x > `threshold`, else `value`, elementwise."""

    _function = functional.threshold

    def __init__(self, threshold: float, value: float) -> None:
        self.threshold = float(threshold)
        self.value = float(value)


class Hardtanh(_Activation):
    """min(max(x, min_val), max_val), elementwise."""

    _function = functional.hardtanh

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        if not min_val < max_val:
            raise ValueError(f"Hardtanh: min_val is below max_val; got {min_val} and {max_val}")
        self.min_val = float(min_val)
        self.max_val = float(max_val)


class ReLU6(_Activation):
    """min(max(x, 0), 6), elementwise."""

    _function = functional.relu6


class Hardsigmoid(_Activation):
    """min(max(x + 3, 0), 6) / 6, elementwise."""

    _function = functional.hardsigmoid


class Hardswish(_Activation):
    """x·min(max(x + 3, 0), 6) / 6, elementwise. Howard et al., "Searching for MobileNetV3"."""

    _function = functional.hardswish


class Hardshrink(_Activation):
    """x where |x| > lambd, else 0, elementwise."""

    _function = functional.hardshrink

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = float(lambd)


class Softshrink(_Activation):
    """x moved towards 0 by `lambd`, and 0 where |x| is at most `lambd`, elementwise."""

    _function = functional.softshrink

    def __init__(self, lambd: float = 0.5) -> None:
        if lambd < 0:
            raise ValueError(f"Softshrink: lambd is at least 0; got {lambd}")
        self.lambd = float(lambd)


# Curves


class Tanh(_Activation):
    """tanh(x), elementwise."""

    _function = functional.tanh


class Tanhshrink(_Activation):
    """x - tanh(x), elementwise."""

    _function = functional.tanhshrink


class Softsign(_Activation):
    """x / (1 + |x|), elementwise."""

    _function = functional.softsign


class Sigmoid(_Activation):
    """1 / (1 + exp(-x)), elementwise. Losses take logits: leave this layer out in training."""

    _function = functional.sigmoid


class LogSigmoid(_Activation):
    """log(1 / (1 + exp(-x))), elementwise, without overflow."""

    _function = functional.logsigmoid


class Softplus(_Activation):
    """log(1 + exp(beta·x)) / beta, elementwise; x itself where beta·x > `threshold`."""

    _function = functional.softplus

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = float(beta)
        self.threshold = float(threshold)


class ELU(_Activation):
    """x where x > 0, else alpha·(exp(x) - 1), elementwise. Clevert et al. (2016)."""

    _function = functional.elu

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = float(alpha)


class CELU(_Activation):
    """x where x > 0, else alpha·(exp(x / alpha) - 1), elementwise. Barron (2017)."""

    _function = functional.celu

    def __init__(self, alpha: float = 1.0) -> None:
        if alpha == 0:
            raise ValueError("CELU: alpha is not 0, since x is divided by it")
        self.alpha = float(alpha)


class SELU(_Activation):
    """1.0507·(x where x > 0, else 1.6733·(exp(x) - 1)), elementwise. Klambauer et al. (2017)."""

    _function = functional.selu


class GELU(_Activation):
    """x·Φ(x), elementwise, with Φ the distribution function of the standard normal.

    `approximate` is "none", or "tanh" for Φ(x) ≈ (1 + tanh(√(2/π)·(x + 0.044715·x³))) / 2.
    """

    _function = functional.gelu

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(unknown("approximate", approximate, ("none", "tanh")))
        self.approximate = approximate


class SiLU(_Activation):
    """x / (1 + exp(-x)), elementwise; also called swish. Elfwing et al. (2017)."""

    _function = functional.silu


class Mish(_Activation):
    """x·tanh(log(1 + exp(x))), elementwise. Misra (2019)."""

    _function = functional.mish


# Along an axis: `dim` in layers, as in PyTorch, and `axis` in functions, as in the standard


class _AlongAxis(_Activation):
    """An activation in which each output depends on all the numbers along an axis."""

    def __init__(self, dim: int = -1) -> None:
        (self.dim,) = signed_integers(type(self).__name__, dim=dim)

    def forward(self, x: Array) -> Array:
        return type(self)._function(x, axis=self.dim)


class Softmax(_AlongAxis):
    """exp(x) / Σ exp(x) along the axis `dim`, by default the last.

    Losses take logits: leave this layer out in training.
    """

    _function = functional.softmax


class LogSoftmax(_AlongAxis):
    """log(exp(x) / Σ exp(x)) along the axis `dim`, without overflow."""

    _function = functional.log_softmax


class Softmin(_AlongAxis):
    """exp(-x) / Σ exp(-x) along the axis `dim`."""

    _function = functional.softmin


class GLU(_AlongAxis):
    """a·sigmoid(b), where a and b are the halves of the inputs along the axis `dim`.

    Raises ValueError where the length of the axis is odd. Dauphin et al. (2017).
    """

    _function = functional.glu
