"""Pooling layers: one number for what a window sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from polynet import functional
from polynet.backend import Array
from polynet.nn.checks import each_axis, short, wrong_shape
from polynet.nn.module import Module


class _Pool(Module):
    """What poolings share."""

    _axes: int
    _function: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
    ) -> None:
        kind = type(self).__name__
        self.kernel_size = each_axis(kind, "kernel_size", kernel_size, self._axes)
        self.stride = each_axis(
            kind, "stride", self.kernel_size if stride is None else stride, self._axes
        )
        self.padding = each_axis(kind, "padding", padding, self._axes, least=0)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError(
                f"{kind}: padding is at most half of kernel_size {short(self.kernel_size)}; "
                f"got {padding!r}"
            )

    def forward(self, x: Array) -> Array:
        if len(x.shape) != 2 + self._axes:
            sizes = ", ".join(("height", "width")[-self._axes :])
            raise wrong_shape(self, f"(batch, channels, {sizes})", x)
        return type(self)._function(
            x, window=self.kernel_size, stride=self.stride, padding=self.padding
        )

    def settings(self) -> str:
        said = [short(self.kernel_size)]
        if self.stride != self.kernel_size:
            said.append(f"stride={short(self.stride)}")
        if any(self.padding):
            said.append(f"padding={short(self.padding)}")
        return ", ".join(said)


class MaxPool2d(_Pool):
    """The largest number in each window of an image.

    Inputs (batch, channels, height, width). `kernel_size`, `stride` (by default the kernel's
    size) and `padding` are one number, or two for height and width; places of the padding
    never win. Where several are largest, the gradient goes to the first.

    Raises ValueError for another number of axes, and where the window does not fit.
    """

    _axes = 2
    _function = functional.max_pool


class AvgPool2d(_Pool):
    """The mean of each window of an image; zeros of the padding count.

    Inputs (batch, channels, height, width). `kernel_size`, `stride` (by default the kernel's
    size) and `padding` are one number, or two for height and width.

    Raises ValueError for another number of axes, and where the window does not fit.
    """

    _axes = 2
    _function = functional.avg_pool
