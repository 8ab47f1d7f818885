"""Pooling layers: one number for each window of the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from polynet import functional
from polynet.backend import Array
from polynet.nn.checks import check_images, per_axis, shape_of_images, shortened, wrong_shape
from polynet.nn.module import Module

Numbers = int | tuple[int, ...]


class _Pooling(Module):
    """Base of all pooling layers."""

    _axes: int
    _function: ClassVar[Callable[..., Any]]

    def _check(self, x: Array) -> None:
        check_images(self, x, self._axes)
        if 0 in x.shape[2:]:
            raise wrong_shape(self, shape_of_images(self._axes), x)


class _Pool(_Pooling):
    """Base of the pooling layers that are given a window."""

    _options: ClassVar[dict[str, str]]
    """The settings besides size, stride and padding, each with its default as people write it."""

    def _describe(self, kernel_size: Numbers, stride: Numbers | None, padding: Numbers) -> None:
        kind = type(self).__name__
        self.kernel_size = per_axis(kind, "kernel_size", kernel_size, self._axes)
        self.stride = per_axis(
            kind, "stride", self.kernel_size if stride is None else stride, self._axes
        )
        self.padding = per_axis(kind, "padding", padding, self._axes, least=0)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError(
                f"{kind}: padding is at most half of kernel_size {shortened(self.kernel_size)}; "
                f"got {padding!r}"
            )

    def forward(self, x: Array) -> Array:
        self._check(x)
        options = {name: getattr(self, name) for name in self._options}
        return type(self)._function(
            x, window=self.kernel_size, stride=self.stride, padding=self.padding, **options
        )

    def settings(self) -> str:
        parts = [shortened(self.kernel_size)]
        if self.stride != self.kernel_size:
            parts.append(f"stride={shortened(self.stride)}")
        if any(self.padding):
            parts.append(f"padding={shortened(self.padding)}")
        for name, default in self._options.items():
            value = getattr(self, name)
            text = shortened(value) if isinstance(value, tuple) else str(value)
            if text != default:
                parts.append(f"{name}={text}")
        return ", ".join(parts)


class _MaxPool(_Pool):
    """Base of max pooling in one, two and three dimensions."""

    _function = functional.max_pool
    _options: ClassVar = {"dilation": "1", "ceil_mode": "False"}

    def __init__(
        self,
        kernel_size: Numbers,
        stride: Numbers | None = None,
        padding: Numbers = 0,
        dilation: Numbers = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        self._describe(kernel_size, stride, padding)
        self.dilation = per_axis(type(self).__name__, "dilation", dilation, self._axes)
        self.ceil_mode = bool(ceil_mode)


class MaxPool1d(_MaxPool):
    """The largest number in each window of a sequence: (batch, channels, width).

    Settings and errors are those of `MaxPool2d`, with one number each.
    """

    _axes = 1


class MaxPool2d(_MaxPool):
    """The largest number in each window of an image.

    Inputs are (batch, channels, height, width). `kernel_size`, `stride` (by default the kernel's
    size), `padding` and `dilation` are one number, or two for height and width. The padding never
    has the largest number. With `ceil_mode`, a window that begins within the image may end beyond
    it. Where several numbers are the largest, the gradient goes to the first of them.

    Raises ValueError for another number of axes, and where the window does not fit.
    """

    _axes = 2


class MaxPool3d(_MaxPool):
    """The largest number in each window of a volume: (batch, channels, depth, height, width).

    Settings and errors are those of `MaxPool2d`, with one number each, or three.
    """

    _axes = 3


class _AvgPool(_Pool):
    """Base of average pooling in one, two and three dimensions."""

    _function = functional.avg_pool
    _options: ClassVar = {"ceil_mode": "False", "count_include_pad": "True"}

    def __init__(
        self,
        kernel_size: Numbers,
        stride: Numbers | None = None,
        padding: Numbers = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self._describe(kernel_size, stride, padding)
        self.ceil_mode = bool(ceil_mode)
        self.count_include_pad = bool(count_include_pad)


class AvgPool1d(_AvgPool):
    """The mean of each window of a sequence: (batch, channels, width).

    Settings and errors are those of `AvgPool2d`, with one number each.
    """

    _axes = 1


class AvgPool2d(_AvgPool):
    """The mean of each window of an image.

    Inputs are (batch, channels, height, width). `kernel_size`, `stride` (by default the kernel's
    size) and `padding` are one number, or two for height and width. The zeros of the padding count
    in the mean, unless `count_include_pad` is false. With `ceil_mode`, a window that begins within
    the image may end beyond it; places beyond the padding do not count.

    Raises ValueError for another number of axes, and where the window does not fit.
    """

    _axes = 2


class AvgPool3d(_AvgPool):
    """The mean of each window of a volume: (batch, channels, depth, height, width).

    Settings and errors are those of `AvgPool2d`, with one number each, or three.
    """

    _axes = 3


class _AdaptivePool(_Pooling):
    """Base of the pooling layers that are given an output size."""

    def __init__(self, output_size: int | tuple[int | None, ...] | None) -> None:
        sizes = output_size if isinstance(output_size, tuple) else (output_size,) * self._axes
        kind = type(self).__name__
        wanted = tuple(1 if n is None else n for n in sizes)
        found = zip(sizes, per_axis(kind, "output_size", wanted, self._axes), strict=True)
        self.output_size = tuple(None if size is None else n for size, n in found)

    def forward(self, x: Array) -> Array:
        self._check(x)
        given = zip(self.output_size, x.shape[2:], strict=True)
        return type(self)._function(x, sizes=tuple(n if m is None else m for m, n in given))

    def settings(self) -> str:
        return shortened(self.output_size)


class AdaptiveAvgPool1d(_AdaptivePool):
    """The mean of each of `output_size` windows of a sequence: (batch, channels, width).

    Windows and errors are those of `AdaptiveAvgPool2d`.
    """

    _axes = 1
    _function = functional.adaptive_avg_pool


class AdaptiveAvgPool2d(_AdaptivePool):
    """The mean of each of `output_size` windows, which cover an image of any size evenly.

    Inputs are (batch, channels, height, width), outputs (batch, channels, *output_size).
    `output_size` is one number or two; None keeps the input's size. Along an axis of length n,
    window i of m goes from ⌊i·n/m⌋ to ⌈(i+1)·n/m⌉, as in PyTorch.

    Raises ValueError for another number of axes, and for images without a pixel.

    >>> from polynet import nn
    >>> import numpy as np
    >>> nn.AdaptiveAvgPool2d(1)(np.ones((2, 3, 5, 7))).shape
    (2, 3, 1, 1)
    """

    _axes = 2
    _function = functional.adaptive_avg_pool


class AdaptiveAvgPool3d(_AdaptivePool):
    """The mean of each of `output_size` windows, which cover a volume of any size evenly.

    Inputs are (batch, channels, depth, height, width), and `output_size` is one number or three.
    All else is as in `AdaptiveAvgPool2d`.
    """

    _axes = 3
    _function = functional.adaptive_avg_pool


class AdaptiveMaxPool1d(_AdaptivePool):
    """The largest number of each of `output_size` windows of a sequence: (batch, channels, width).

    Windows and errors are those of `AdaptiveAvgPool2d`.
    """

    _axes = 1
    _function = functional.adaptive_max_pool


class AdaptiveMaxPool2d(_AdaptivePool):
    """The largest number of each of `output_size` windows, which cover an image evenly.

    Windows and errors are those of `AdaptiveAvgPool2d`. Where several numbers are the largest, the
    gradient goes to the first of them.
    """

    _axes = 2
    _function = functional.adaptive_max_pool


class AdaptiveMaxPool3d(_AdaptivePool):
    """The largest number of each of `output_size` windows, which cover a volume evenly.

    Inputs are (batch, channels, depth, height, width), and `output_size` is one number or three.
    All else is as in `AdaptiveMaxPool2d`.
    """

    _axes = 3
    _function = functional.adaptive_max_pool
