"""Activations as layers: they have no parameters and call the function of the same name."""

from __future__ import annotations

from polynet import functional
from polynet.backend import Array
from polynet.nn.module import Module


class ReLU(Module):
    """max(x, 0), elementwise."""

    def forward(self, x: Array) -> Array:
        return functional.relu(x)


class LeakyReLU(Module):
    """x where x > 0, else `negative_slope`·x, elementwise."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = float(negative_slope)

    def forward(self, x: Array) -> Array:
        return functional.leaky_relu(x, negative_slope=self.negative_slope)

    def settings(self) -> str:
        return f"{self.negative_slope}"


class GELU(Module):
    """x·Φ(x), elementwise, with Φ the distribution function of the standard normal."""

    def forward(self, x: Array) -> Array:
        return functional.gelu(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x)), elementwise. Losses take logits: leave it out in training."""

    def forward(self, x: Array) -> Array:
        return functional.sigmoid(x)


class Tanh(Module):
    """tanh(x), elementwise."""

    def forward(self, x: Array) -> Array:
        return functional.tanh(x)


class Softmax(Module):
    """exp(x) / Σ exp(x) along `axis`. Losses take logits: leave it out in training."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Array) -> Array:
        return functional.softmax(x, axis=self.axis)

    def settings(self) -> str:
        return f"axis={self.axis}"
