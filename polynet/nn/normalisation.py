"""Normalising layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from polynet import functional
from polynet.backend import Array
from polynet.integers import several
from polynet.nn import init
from polynet.nn.checks import (
    check_images,
    check_same_dtype,
    epsilon,
    positive,
    shape_of_images,
    wrong_shape,
)
from polynet.nn.described import Parameter
from polynet.nn.module import Module


class _LastAxes(Module):
    """Base of the norms over the last axes of the inputs."""

    normalized_shape: tuple[int, ...]
    weight: Array | None

    def _set_shape(self, normalized_shape: int | tuple[int, ...]) -> None:
        given = normalized_shape if isinstance(normalized_shape, Sequence) else (normalized_shape,)
        sizes = several(given)
        if not sizes:
            raise ValueError(
                f"{type(self).__name__}: normalized_shape has positive sizes; "
                f"got {normalized_shape!r}"
            )
        self.normalized_shape = sizes

    def _axes(self, x: Array) -> int:
        """The number of axes to normalise; raises where the inputs do not fit."""
        axes = len(self.normalized_shape)
        if tuple(x.shape[-axes:]) != self.normalized_shape:
            raise wrong_shape(self, f"(…, {', '.join(map(str, self.normalized_shape))})", x)
        if self.weight is not None:
            check_same_dtype(self, x, self.weight)
        return axes

    def settings(self) -> str:
        return ", ".join(map(str, self.normalized_shape))


class LayerNorm(_LastAxes):
    """Each sample's numbers normalised to mean 0 and variance 1, then scaled and shifted.

    Mean and variance are over the last axes, whose shape is `normalized_shape` (an integer for one
    axis). The learnt `weight` (ones) and `bias` (zeros) have that shape. Without
    `elementwise_affine` both are None; with `bias=False` only the bias is.

    Raises ValueError for inputs whose last axes differ, TypeError for another dtype. Ba, Kiros
    and Hinton, "Layer Normalization" (2016).
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        self._set_shape(normalized_shape)
        self.eps = epsilon("LayerNorm", eps)
        self.weight: Array | None = None
        self.bias: Array | None = None
        if elementwise_affine:
            self.weight = Parameter(self.normalized_shape, init.ones)
            self.bias = Parameter(self.normalized_shape, init.zeros) if bias else None

    def forward(self, x: Array) -> Array:
        axes = self._axes(x)
        return functional.layer_norm(x, self.weight, self.bias, axes=axes, eps=self.eps)


class RMSNorm(_LastAxes):
    """Each sample's numbers divided by the root of their mean square, then scaled.

    The mean is over the last axes, whose shape is `normalized_shape` (an integer for one axis).
    `eps` is by default the machine epsilon of the inputs' dtype. The learnt `weight` (ones) has
    the shape `normalized_shape`; without `elementwise_affine` it is None.

    Raises ValueError for inputs whose last axes differ, TypeError for another dtype. Zhang and
    Sennrich, "Root Mean Square Layer Normalization" (2019).
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float | None = None,
        elementwise_affine: bool = True,
    ) -> None:
        self._set_shape(normalized_shape)
        self.eps = None if eps is None else epsilon("RMSNorm", eps)
        self.weight: Array | None = (
            Parameter(self.normalized_shape, init.ones) if elementwise_affine else None
        )

    def forward(self, x: Array) -> Array:
        axes = self._axes(x)
        return functional.rms_norm(x, self.weight, axes=axes, eps=self.eps)


class _Groups(Module):
    """Base of the norms over groups of channels."""

    def _describe(self, channels: int, eps: float, *, affine: bool, bias: bool = True) -> None:
        self.eps = epsilon(type(self).__name__, eps)
        self.weight: Array | None = Parameter((channels,), init.ones) if affine else None
        self.bias: Array | None = Parameter((channels,), init.zeros) if affine and bias else None

    def _normalised(self, x: Array, groups: int) -> Array:
        if self.weight is not None:
            check_same_dtype(self, x, self.weight)
        return functional.group_norm(x, self.weight, self.bias, groups=groups, eps=self.eps)


class GroupNorm(_Groups):
    """Each group of a sample's channels normalised to mean 0 and variance 1, scaled and shifted.

    Inputs are (batch, num_channels, …). `weight` (ones) and `bias` (zeros), one number for each
    channel, are learnt. Without `affine` both are None; with `bias=False` only the bias is.

    Raises ValueError where the groups do not divide the channels and for inputs of another shape,
    TypeError for another dtype. Wu and He, "Group Normalization", ECCV 2018.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
    ) -> None:
        num_groups, num_channels = positive(
            "GroupNorm", num_groups=num_groups, num_channels=num_channels
        )
        if num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: {num_groups} groups do not divide {num_channels} channels"
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self._describe(num_channels, eps, affine=affine, bias=bias)

    def forward(self, x: Array) -> Array:
        if tuple(x.shape[1:2]) != (self.num_channels,):
            raise wrong_shape(self, f"(batch, {self.num_channels}, …)", x)
        return self._normalised(x, self.num_groups)

    def settings(self) -> str:
        return f"{self.num_groups}, {self.num_channels}"


class _InstanceNorm(_Groups):
    """Base of the instance norms of one, two and three dimensions."""

    _axes: int

    def __init__(self, num_features: int, eps: float = 1e-5, *, affine: bool = False) -> None:
        (self.num_features,) = positive(type(self).__name__, num_features=num_features)
        self._describe(self.num_features, eps, affine=affine)

    def forward(self, x: Array) -> Array:
        check_images(self, x, self._axes, self.num_features)
        if math.prod(x.shape[2:]) == 1:
            expected = shape_of_images(self._axes, self.num_features)
            raise wrong_shape(self, f"{expected} of several numbers", x)
        return self._normalised(x, self.num_features)

    def settings(self) -> str:
        return f"{self.num_features}"


class InstanceNorm1d(_InstanceNorm):
    """Each channel of each sequence normalised to mean 0 and variance 1.

    Inputs are (batch, num_features, width). Settings and errors are those of `InstanceNorm2d`.
    """

    _axes = 1


class InstanceNorm2d(_InstanceNorm):
    """Each channel of each image normalised to mean 0 and variance 1.

    Inputs are (batch, num_features, height, width). With `affine`, `weight` (ones) and `bias`
    (zeros), one number for each channel, are learnt. The layer keeps no running statistics, and
    neither does PyTorch's by default.

    Raises ValueError for inputs of another shape and for images of one pixel, TypeError for
    another dtype. Ulyanov, Vedaldi and Lempitsky, "Instance Normalization" (2016).
    """

    _axes = 2


class InstanceNorm3d(_InstanceNorm):
    """Each channel of each volume normalised to mean 0 and variance 1.

    Inputs are (batch, num_features, depth, height, width). Settings and errors are those of
    `InstanceNorm2d`.
    """

    _axes = 3
