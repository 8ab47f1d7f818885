"""Convolutional layers."""

from __future__ import annotations

import math
from typing import Any

from polynet import functional
from polynet.backend import Array
from polynet.nn import init
from polynet.nn.checks import each_axis, positive, same_dtype, short, wrong_shape
from polynet.nn.described import Parameter
from polynet.nn.module import Module


class _Conv(Module):
    """What convolutions of one and two dimensions share."""

    _axes: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        weight_init: init.Initialiser | None = None,
        bias_init: init.Initialiser | None = None,
    ) -> None:
        kind = type(self).__name__
        positive(kind, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{kind}: {groups} groups do not divide {in_channels} and {out_channels} channels"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = each_axis(kind, "kernel_size", kernel_size, self._axes)
        self.stride = each_axis(kind, "stride", stride, self._axes)
        self.dilation = each_axis(kind, "dilation", dilation, self._axes)
        self.groups = groups
        self.padding = self._ends(padding)
        bound = 1 / math.sqrt(in_channels // groups * math.prod(self.kernel_size))
        drawn = init.uniform(-bound, bound)
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight: Array = Parameter(shape, weight_init or drawn)
        self.bias: Array | None = Parameter((out_channels,), bias_init or drawn) if bias else None

    def _ends(self, padding: Any) -> tuple[tuple[int, int], ...]:
        """How many zeros stand before and after each axis."""
        if padding == "valid":
            padding = 0
        if padding == "same":
            if any(s != 1 for s in self.stride):
                raise ValueError(f"{type(self).__name__}: padding 'same' needs a stride of 1")
            reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return tuple((n // 2, n - n // 2) for n in reach)
        numbers = each_axis(type(self).__name__, "padding", padding, self._axes, least=0)
        return tuple((n, n) for n in numbers)

    def forward(self, x: Array) -> Array:
        if len(x.shape) != 2 + self._axes or x.shape[1] != self.in_channels:
            sizes = ", ".join(("height", "width")[-self._axes :])
            raise wrong_shape(self, f"(batch, {self.in_channels}, {sizes})", x)
        same_dtype(self, x, self.weight)
        return functional.convolution(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )

    def settings(self) -> str:
        ends = tuple(a for a, _ in self.padding)
        even = all(a == b for a, b in self.padding)
        said = [f"{self.in_channels}, {self.out_channels}, {short(self.kernel_size)}"]
        if set(self.stride) != {1}:
            said.append(f"stride={short(self.stride)}")
        if any(map(any, self.padding)):
            said.append(f"padding={short(ends)}" if even else "padding='same'")
        if set(self.dilation) != {1}:
            said.append(f"dilation={short(self.dilation)}")
        if self.groups != 1:
            said.append(f"groups={self.groups}")
        return ", ".join([*said, *([] if self.bias is not None else ["bias=False"])])


class Conv1d(_Conv):
    """Cross-correlation of sequences with a bank of small windows.

    Inputs (batch, in_channels, width), outputs (batch, out_channels, places); `weight` is
    (out_channels, in_channels / groups, kernel_size), `bias` (out_channels,), or None with
    `bias=False`. `padding` is how many zeros stand on both sides, or "same" or "valid". Both
    parameters are drawn uniformly in ±1/√fan_in, as PyTorch does.

    Raises ValueError for another number of channels or axes and where the window does not fit,
    TypeError for another dtype.
    """

    _axes = 1


class Conv2d(_Conv):
    """Cross-correlation of images with a bank of small windows.

    Inputs (batch, in_channels, height, width), outputs (batch, out_channels, rows, columns);
    `weight` is (out_channels, in_channels / groups, *kernel_size), `bias` (out_channels,), or
    None with `bias=False`. `kernel_size`, `stride`, `padding` and `dilation` are one number, or
    two for height and width; `padding` is how many zeros stand on both sides, or "same" or
    "valid". Both parameters are drawn uniformly in ±1/√fan_in, as PyTorch does.

    Raises ValueError for another number of channels or axes and where the window does not fit,
    TypeError for another dtype. LeCun et al., "Gradient-Based Learning Applied to Document
    Recognition", Proc. IEEE 86 (1998).

    >>> from polynet import nn
    >>> import numpy as np
    >>> layer = nn.Conv2d(3, 8, 5, padding="same").init(seed=0, backend="numpy")
    >>> layer(np.zeros((2, 3, 16, 16), dtype="float32")).shape
    (2, 8, 16, 16)
    """

    _axes = 2
