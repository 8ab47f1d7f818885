"""Layers that put zeros around their inputs."""

from __future__ import annotations

from polynet.backend import Array
from polynet.functional.windows import padded
from polynet.nn.checks import each_axis, images
from polynet.nn.module import Module
from polynet.ops import array_namespace


class ZeroPad2d(Module):
    """Zeros around images: `padding` on every side, or four numbers (left, right, top, bottom).

    Inputs are (batch, channels, height, width). Raises ValueError for another number of axes, and
    for numbers below 0.

    >>> from polynet import nn
    >>> import numpy as np
    >>> nn.ZeroPad2d((1, 1, 0, 2))(np.ones((2, 3, 4, 5))).shape
    (2, 3, 6, 7)
    """

    def __init__(self, padding: int | tuple[int, int, int, int]) -> None:
        self.padding = each_axis("ZeroPad2d", "padding", padding, 4, least=0)

    def forward(self, x: Array) -> Array:
        images(self, x, 2)
        left, right, top, bottom = self.padding
        return padded(array_namespace(x), x, ((top, bottom), (left, right)))

    def settings(self) -> str:
        return f"{self.padding}"
