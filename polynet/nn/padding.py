"""Layers that put numbers around their inputs."""

from __future__ import annotations

from polynet import functional
from polynet.backend import Array
from polynet.functional.padding import check_places
from polynet.nn.checks import check_images, per_axis
from polynet.nn.module import Module


class _Pad(Module):
    """Base of padding layers. `padding` holds pairs (before, after), the last axis first."""

    _axes: int
    _mode = "constant"
    value = 0.0

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        self.padding = per_axis(type(self).__name__, "padding", padding, 2 * self._axes, least=0)

    def forward(self, x: Array) -> Array:
        check_images(self, x, self._axes)
        ends = list(zip(self.padding[::2], self.padding[1::2], strict=True))[::-1]
        check_places(self.label(), x, ends, self._mode, "inputs have")
        return functional.pad(x, padding=ends, mode=self._mode, value=self.value)

    def settings(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """Base of padding with one number."""

    def __init__(self, padding: int | tuple[int, ...], value: float) -> None:
        super().__init__(padding)
        self.value = float(value)

    def settings(self) -> str:
        return f"{self.padding}, {self.value}"


class _ZeroPad(_Pad):
    """Base of padding with zeros."""


class _ReflectionPad(_Pad):
    """Base of padding by reflection."""

    _mode = "reflect"


class _ReplicationPad(_Pad):
    """Base of padding with the numbers at the edges."""

    _mode = "replicate"


class ConstantPad1d(_ConstantPad):
    """The number `value` around sequences: `padding` on both sides, or two numbers (left, right).

    Inputs are (batch, channels, width). Errors are those of `ConstantPad2d`.
    """

    _axes = 1


class ConstantPad2d(_ConstantPad):
    """The number `value` around images: `padding` on every side, or (left, right, top, bottom).

    Inputs are (batch, channels, height, width). Raises ValueError for another number of axes, and
    for a padding below 0.
    """

    _axes = 2


class ConstantPad3d(_ConstantPad):
    """The number `value` around volumes: (batch, channels, depth, height, width).

    `padding` is one number, or (left, right, top, bottom, front, back). Errors are those of
    `ConstantPad2d`.
    """

    _axes = 3


class ZeroPad1d(_ZeroPad):
    """Zeros around sequences: `padding` on both sides, or two numbers (left, right).

    Inputs are (batch, channels, width). Errors are those of `ZeroPad2d`.
    """

    _axes = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around images: `padding` on every side, or four numbers (left, right, top, bottom).

    Inputs are (batch, channels, height, width). Raises ValueError for another number of axes, and
    for numbers below 0.

    >>> from polynet import nn
    >>> import numpy as np
    >>> nn.ZeroPad2d((1, 1, 0, 2))(np.ones((2, 3, 4, 5))).shape
    (2, 3, 6, 7)
    """

    _axes = 2


class ZeroPad3d(_ZeroPad):
    """Zeros around volumes: (batch, channels, depth, height, width).

    `padding` is one number, or (left, right, top, bottom, front, back). Errors are those of
    `ZeroPad2d`.
    """

    _axes = 3


class ReflectionPad1d(_ReflectionPad):
    """Sequences with their own numbers around them, mirrored at the first and at the last.

    Inputs are (batch, channels, width). `padding` is one number, or two (left, right). Errors are
    those of `ReflectionPad2d`.

    >>> from polynet import nn
    >>> import numpy as np
    >>> nn.ReflectionPad1d((2, 1))(np.asarray([[[1, 2, 3]]]))
    array([[[3, 2, 1, 2, 3, 2]]])
    """

    _axes = 1


class ReflectionPad2d(_ReflectionPad):
    """Images with their own numbers around them, mirrored at the pixels of the edges.

    Inputs are (batch, channels, height, width). `padding` is one number, or four (left, right,
    top, bottom). Raises ValueError for another number of axes, for numbers below 0, and for images
    that are not larger than the padding.
    """

    _axes = 2


class ReplicationPad1d(_ReplicationPad):
    """Sequences with copies of the first number before them, and of the last one after them.

    Inputs are (batch, channels, width). `padding` is one number, or two (left, right). Errors are
    those of `ReplicationPad2d`.

    >>> from polynet import nn
    >>> import numpy as np
    >>> nn.ReplicationPad1d((2, 1))(np.asarray([[[1, 2, 3]]]))
    array([[[1, 1, 1, 2, 3, 3]]])
    """

    _axes = 1


class ReplicationPad2d(_ReplicationPad):
    """Images with copies of the pixels of their edges around them.

    Inputs are (batch, channels, height, width). `padding` is one number, or four (left, right,
    top, bottom). Raises ValueError for another number of axes, for numbers below 0, and for images
    without a pixel.
    """

    _axes = 2
