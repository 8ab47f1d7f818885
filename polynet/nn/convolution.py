"""Convolutional layers."""

from __future__ import annotations

import math
from typing import Any

from polynet import functional
from polynet.backend import Array
from polynet.nn import init
from polynet.nn.checks import check_images, check_same_dtype, per_axis, positive, shortened
from polynet.nn.described import Parameter
from polynet.nn.module import Module


class _Windows(Module):
    """Base of convolutions and transposed convolutions."""

    _axes: int
    _transposed = False

    def _describe(
        self,
        channels: tuple[int, int],
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...],
        dilation: int | tuple[int, ...],
        groups: int,
        bias: bool,
        drawn: tuple[init.Initialiser | None, init.Initialiser | None],
    ) -> None:
        """Set everything but the padding."""
        kind = type(self).__name__
        self.in_channels, self.out_channels, groups = positive(
            kind, in_channels=channels[0], out_channels=channels[1], groups=groups
        )
        if self.in_channels % groups or self.out_channels % groups:
            raise ValueError(
                f"{kind}: {groups} groups do not divide {self.in_channels} and "
                f"{self.out_channels} channels"
            )
        self.kernel_size = per_axis(kind, "kernel_size", kernel_size, self._axes)
        self.stride = per_axis(kind, "stride", stride, self._axes)
        self.dilation = per_axis(kind, "dilation", dilation, self._axes)
        self.groups = groups
        channels = self.in_channels, self.out_channels
        first, second = channels if self._transposed else channels[::-1]
        shape = (first, second // groups, *self.kernel_size)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        uniform = init.uniform(-bound, bound)
        weight_init, bias_init = (uniform if given is None else given for given in drawn)
        self.weight: Array = Parameter(shape, weight_init)
        self.bias: Array | None = Parameter((self.out_channels,), bias_init) if bias else None

    def _check(self, x: Array) -> None:
        check_images(self, x, self._axes, self.in_channels)
        check_same_dtype(self, x, self.weight)

    def _padding(self) -> list[str]:
        """The padding as `settings` writes it."""
        raise NotImplementedError

    def settings(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, {shortened(self.kernel_size)}"]
        if set(self.stride) != {1}:
            parts.append(f"stride={shortened(self.stride)}")
        parts += self._padding()
        if set(self.dilation) != {1}:
            parts.append(f"dilation={shortened(self.dilation)}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        return ", ".join([*parts, *([] if self.bias is not None else ["bias=False"])])


class _Conv(_Windows):
    """Base of convolutions of one, two and three dimensions."""

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
        channels, drawn = (in_channels, out_channels), (weight_init, bias_init)
        self._describe(channels, kernel_size, stride, dilation, groups, bias, drawn)
        self.padding = self._ends(padding)

    def _ends(self, padding: Any) -> tuple[tuple[int, int], ...]:
        """The number of zeros before and after each axis."""
        if padding == "valid":
            padding = 0
        if padding == "same":
            if any(s != 1 for s in self.stride):
                raise ValueError(f"{type(self).__name__}: padding 'same' needs a stride of 1")
            reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return tuple((n // 2, n - n // 2) for n in reach)
        numbers = per_axis(type(self).__name__, "padding", padding, self._axes, least=0)
        return tuple((n, n) for n in numbers)

    def forward(self, x: Array) -> Array:
        self._check(x)
        return functional.convolution(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )

    def _padding(self) -> list[str]:
        if not any(map(any, self.padding)):
            return []
        even = all(a == b for a, b in self.padding)
        return [
            f"padding={shortened(tuple(a for a, _ in self.padding))}" if even else "padding='same'"
        ]


class _ConvTranspose(_Windows):
    """Base of transposed convolutions of one, two and three dimensions."""

    _transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        output_padding: int | tuple[int, ...] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, ...] = 1,
        *,
        weight_init: init.Initialiser | None = None,
        bias_init: init.Initialiser | None = None,
    ) -> None:
        kind = type(self).__name__
        channels, drawn = (in_channels, out_channels), (weight_init, bias_init)
        self._describe(channels, kernel_size, stride, dilation, groups, bias, drawn)
        self.padding = per_axis(kind, "padding", padding, self._axes, least=0)
        self.output_padding = per_axis(kind, "output_padding", output_padding, self._axes, least=0)
        steps = map(max, self.stride, self.dilation)
        if any(p >= most for p, most in zip(self.output_padding, steps, strict=True)):
            raise ValueError(
                f"{kind}: output_padding is smaller than stride {shortened(self.stride)} or "
                f"dilation {shortened(self.dilation)}; got {output_padding!r}"
            )

    def forward(self, x: Array) -> Array:
        self._check(x)
        if any(n < 1 for n in self._sizes(tuple(x.shape[2:]))):
            raise ValueError(
                f"{self.label()}: its padding leaves nothing of inputs of shape {tuple(x.shape)}; "
                "give it larger inputs, or less padding"
            )
        return functional.convolution_transpose(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )

    def _sizes(self, places: tuple[int, ...]) -> list[int]:
        """The sizes of the outputs, for inputs whose sizes are `places`."""
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        settings = zip(places, self.stride, reach, self.padding, self.output_padding, strict=True)
        return [(n - 1) * s + r - 2 * p + more for n, s, r, p, more in settings]

    def _padding(self) -> list[str]:
        given = {"padding": self.padding, "output_padding": self.output_padding}
        return [f"{name}={shortened(numbers)}" for name, numbers in given.items() if any(numbers)]


class Conv1d(_Conv):
    """Cross-correlation of sequences with a bank of small windows.

    Inputs are (batch, in_channels, width), outputs (batch, out_channels, places). `weight` is
    (out_channels, in_channels / groups, kernel_size). `bias` is (out_channels,), or None with
    `bias=False`. `padding` is the number of zeros on each side, or "same" or "valid". Both
    parameters are drawn uniformly in ±1/√fan_in, as in PyTorch.

    Raises ValueError for another number of channels or axes and where the window does not fit,
    TypeError for another dtype.
    """

    _axes = 1


class Conv2d(_Conv):
    """Cross-correlation of images with a bank of small windows.

    Inputs are (batch, in_channels, height, width), outputs (batch, out_channels, rows, columns).
    `weight` is (out_channels, in_channels / groups, *kernel_size). `bias` is (out_channels,), or
    None with `bias=False`. `kernel_size`, `stride`, `padding` and `dilation` are one number, or
    two for height and width. `padding` is the number of zeros on each side, or "same" or
    "valid". Both parameters are drawn uniformly in ±1/√fan_in, as in PyTorch.

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


class Conv3d(_Conv):
    """Cross-correlation of volumes, or of videos, with a bank of small windows.

    Inputs are (batch, in_channels, depth, height, width), outputs (batch, out_channels, planes,
    rows, columns). `kernel_size`, `stride`, `padding` and `dilation` are one number, or three for
    depth, height and width. All else is as in `Conv2d`.

    >>> from polynet import nn
    >>> import numpy as np
    >>> layer = nn.Conv3d(1, 4, (1, 3, 3), padding="same").init(seed=0, backend="numpy")
    >>> layer(np.zeros((2, 1, 5, 8, 8), dtype="float32")).shape
    (2, 4, 5, 8, 8)
    """

    _axes = 3


class ConvTranspose1d(_ConvTranspose):
    """The transpose of a convolution of sequences: each number spreads over a window of outputs.

    Inputs are (batch, in_channels, width), outputs (batch, out_channels, (width - 1)·stride -
    2·padding + dilation·(kernel_size - 1) + output_padding + 1). `weight` is (in_channels,
    out_channels / groups, kernel_size). All else is as in `ConvTranspose2d`.
    """

    _axes = 1


class ConvTranspose2d(_ConvTranspose):
    """The transpose of a convolution of images: each number spreads over a window of outputs.

    Inputs are (batch, in_channels, height, width), outputs (batch, out_channels, rows, columns),
    where an axis of n inputs gives (n - 1)·stride - 2·padding + dilation·(kernel_size - 1) +
    output_padding + 1 outputs. `weight` is (in_channels, out_channels / groups, *kernel_size).
    `bias` is (out_channels,), or None with `bias=False`. `padding` is the number of zeros that a
    Conv2d would add on each side, and that this layer takes away. A Conv2d with a stride makes
    outputs of the same size from inputs of several sizes; `output_padding`, smaller than stride or
    dilation, chooses among those. Both parameters are drawn uniformly in
    ±1/√(out_channels / groups · window), as in PyTorch.

    Raises ValueError for another number of channels or axes and where nothing is left, TypeError
    for another dtype. Zeiler et al., "Deconvolutional Networks", CVPR 2010.

    >>> from polynet import nn
    >>> import numpy as np
    >>> layer = nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1).init(seed=0, backend="numpy")
    >>> layer(np.zeros((2, 8, 16, 16), dtype="float32")).shape
    (2, 3, 32, 32)
    """

    _axes = 2


class ConvTranspose3d(_ConvTranspose):
    """The transpose of a convolution of volumes: each number spreads over a window of outputs.

    Inputs are (batch, in_channels, depth, height, width), outputs (batch, out_channels, planes,
    rows, columns); settings are one number, or three. All else is as in `ConvTranspose2d`.
    """

    _axes = 3
