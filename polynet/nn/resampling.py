"""Resampling layers: images of another size."""

from __future__ import annotations

from polynet import functional
from polynet.backend import Array
from polynet.functional.resampling import resampling
from polynet.nn.checks import shape_of_images, wrong_shape
from polynet.nn.module import Module


class Upsample(Module):
    """Images of another size: `functional.interpolate` as a layer.

    Inputs are (batch, channels, width) or (batch, channels, height, width). Give either `size`
    (integers) or `scale_factor` (numbers): one for all axes after the channels, or one for each.
    `mode` is "nearest", "linear" (for sequences) or "bilinear" (for images); `align_corners` is for
    the last two.

    Raises ValueError for other settings, for another number of axes, and for inputs without pixels.

    >>> from polynet import nn
    >>> import numpy as np
    >>> nn.Upsample(scale_factor=2, mode="bilinear")(np.ones((2, 3, 4, 5))).shape
    (2, 3, 8, 10)
    """

    def __init__(
        self,
        size: int | tuple[int, ...] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
    ) -> None:
        self.size, self.scale_factor, self._axes = resampling(
            "Upsample", size, scale_factor, mode, align_corners
        )
        self.mode = mode
        self.align_corners = align_corners

    def forward(self, x: Array) -> Array:
        if len(x.shape) - 2 not in self._axes or 0 in x.shape[2:]:
            raise wrong_shape(self, " or ".join(map(shape_of_images, self._axes)), x)
        return functional.interpolate(
            x,
            size=self.size,
            scale_factor=self.scale_factor,
            mode=self.mode,
            align_corners=self.align_corners,
        )

    def settings(self) -> str:
        names = ("size", "scale_factor", "mode", "align_corners")
        given = {name: getattr(self, name) for name in names}
        return ", ".join(f"{name}={v!r}" for name, v in given.items() if v not in (None, "nearest"))
