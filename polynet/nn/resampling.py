"""Resampling layers: images of another size, by interpolation or by moving channels."""

from __future__ import annotations

from polynet import functional
from polynet.backend import Array
from polynet.functional.resampling import resampling
from polynet.nn.checks import positive, shape_of_images, wrong_shape
from polynet.nn.module import Module
from polynet.ops import array_namespace


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


class PixelShuffle(Module):
    """Channels become pixels: each r² channels are one, r times as high and as wide.

    Inputs are (batch, channels·r², height, width), outputs (batch, channels, height·r, width·r),
    where r is `upscale_factor`. y[b, c, h·r + i, w·r + j] = x[b, c·r² + i·r + j, h, w].

    Raises ValueError for another number of axes, and where r² does not divide the channels. Shi et
    al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
    Convolutional Neural Network", CVPR 2016.

    >>> from polynet import nn
    >>> import numpy as np
    >>> nn.PixelShuffle(2)(np.ones((1, 12, 4, 5))).shape
    (1, 3, 8, 10)
    """

    def __init__(self, upscale_factor: int) -> None:
        (self.upscale_factor,) = positive("PixelShuffle", upscale_factor=upscale_factor)

    def forward(self, x: Array) -> Array:
        r = self.upscale_factor
        if len(x.shape) != 4 or x.shape[1] % r**2:
            raise wrong_shape(self, f"(batch, a multiple of {r**2}, height, width)", x)
        xp, (batch, channels, height, width) = array_namespace(x), x.shape
        cells = xp.reshape(x, (batch, channels // r**2, r, r, height, width))
        cells = xp.permute_dims(cells, (0, 1, 4, 2, 5, 3))
        return xp.reshape(cells, (batch, channels // r**2, height * r, width * r))

    def settings(self) -> str:
        return f"{self.upscale_factor}"


class PixelUnshuffle(Module):
    """Pixels become channels, which `PixelShuffle` undoes: each channel is r² smaller ones.

    Inputs are (batch, channels, height·r, width·r), outputs (batch, channels·r², height, width),
    where r is `downscale_factor`.

    Raises ValueError for another number of axes, and where r does not divide height and width.
    """

    def __init__(self, downscale_factor: int) -> None:
        (self.downscale_factor,) = positive("PixelUnshuffle", downscale_factor=downscale_factor)

    def forward(self, x: Array) -> Array:
        r = self.downscale_factor
        if len(x.shape) != 4 or x.shape[2] % r or x.shape[3] % r:
            raise wrong_shape(
                self, f"(batch, channels, height, width) with sizes that are multiples of {r}", x
            )
        xp, (batch, channels, height, width) = array_namespace(x), x.shape
        cells = xp.reshape(x, (batch, channels, height // r, r, width // r, r))
        cells = xp.permute_dims(cells, (0, 1, 3, 5, 2, 4))
        return xp.reshape(cells, (batch, channels * r**2, height // r, width // r))

    def settings(self) -> str:
        return f"{self.downscale_factor}"
