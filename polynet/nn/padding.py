"""Layers that put numbers around their inputs."""

from __future__ import annotations

from typing import Any

from polynet.backend import Array
from polynet.functional.windows import padded
from polynet.nn.checks import check_images, per_axis
from polynet.nn.module import Module
from polynet.ops import array_namespace


class _Pad(Module):
    """Base of padding layers. `padding` holds pairs (before, after), the last axis first."""

    _axes: int

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        self.padding = per_axis(type(self).__name__, "padding", padding, 2 * self._axes, least=0)

    def _ends(self) -> list[tuple[int, int]]:
        """`padding` in the order of the axes: (before, after) for each axis that is padded."""
        return list(zip(self.padding[::2], self.padding[1::2], strict=True))[::-1]

    def settings(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """Base of padding with one number."""

    def __init__(self, padding: int | tuple[int, ...], value: float) -> None:
        super().__init__(padding)
        self.value = float(value)

    def forward(self, x: Array) -> Array:
        check_images(self, x, self._axes)
        return padded(array_namespace(x), x, self._ends(), self.value)

    def settings(self) -> str:
        return f"{self.padding}, {self.value}"


class _ZeroPad(_ConstantPad):
    """Base of padding with zeros."""

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__(padding, 0.0)

    def settings(self) -> str:
        return f"{self.padding}"


class _PadOfInputs(_Pad):
    """Base of padding with numbers of the inputs."""

    def forward(self, x: Array) -> Array:
        check_images(self, x, self._axes)
        xp = array_namespace(x)
        for axis, (before, after) in enumerate(self._ends(), start=2):
            if before or after:
                first, last = self._around(xp, x, axis, before, after)
                x = xp.concat([first, x, last], axis=axis)
        return x

    def _around(self, xp: Any, x: Array, axis: int, before: int, after: int) -> tuple[Array, Array]:
        """The parts to put before and after the inputs along the axis."""
        raise NotImplementedError

    def _part(self, x: Array, axis: int, start: int, stop: int) -> Array:
        """A part of the axis; raises ValueError where the axis is shorter."""
        if not 0 <= start <= stop <= x.shape[axis]:
            raise ValueError(
                f"{self.label()}: inputs have too few places along axis {axis}, {x.shape[axis]}, "
                "to be padded so; give it larger inputs, or less padding"
            )
        return x[(*(slice(None) for _ in range(axis)), slice(start, stop), ...)]


class _ReflectionPad(_PadOfInputs):
    """Base of padding by reflection."""

    def _around(self, xp: Any, x: Array, axis: int, before: int, after: int) -> tuple[Array, Array]:
        last = x.shape[axis] - 1
        ends = (1, 1 + before), (last - after, last)
        first, second = (xp.flip(self._part(x, axis, *end), axis=axis) for end in ends)
        return first, second


class _ReplicationPad(_PadOfInputs):
    """Base of padding with the numbers at the edges."""

    def _around(self, xp: Any, x: Array, axis: int, before: int, after: int) -> tuple[Array, Array]:
        def copies(start: int, count: int) -> Array:
            edge = self._part(x, axis, start, start + 1)
            return xp.broadcast_to(edge, (*x.shape[:axis], count, *x.shape[axis + 1 :]))

        return copies(0, before), copies(x.shape[axis] - 1, after)


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
