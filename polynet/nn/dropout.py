"""Dropout."""

from __future__ import annotations

from typing import Any

from polynet import functional
from polynet.backend import Array
from polynet.nn.checks import check_images
from polynet.nn.context import RandomStream
from polynet.nn.module import Module


class _Dropout(Module):
    """Base of all dropout layers."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1 - 2**-16:
            raise ValueError(
                f"{type(self).__name__}: p is a probability, at least 0 and at most 1 - 2**-16; "
                f"got {p!r}"
            )
        self.p = float(p)
        self.stream: Any = RandomStream()  # a Stream, in a training pass

    @property
    def active(self) -> bool:
        """Whether this layer drops anything in this pass."""
        return self.training and self.p > 0

    @property
    def keep(self) -> float:
        """The exact probability with which the mask keeps an element."""
        return round((1 - self.p) * 65536) / 65536

    def _mask(self, shape: tuple[int, ...]) -> Array:
        return self.stream.keep_mask(shape, self.keep)

    def settings(self) -> str:
        return f"{self.p}"


class Dropout(_Dropout):
    """In training, each element is 0 with probability `p`, else divided by 1 - p.

    The mask is a function of the seed, this layer's path and call, the step, and the sample's
    position. So it is the same on every backend, and however the batch is split. `p` is rounded to
    a multiple of 2**-16. Outside training the layer does nothing.

    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
    JMLR 15 (2014).
    """

    def forward(self, x: Array) -> Array:
        if not self.active:
            return x
        return functional.dropout(x, self._mask(tuple(x.shape)), keep=self.keep)


class _ChannelDropout(_Dropout):
    """Base of dropout of whole channels, of one, two and three dimensions."""

    _axes: int

    def forward(self, x: Array) -> Array:
        check_images(self, x, self._axes)
        if not self.active:
            return x
        batch, channels = x.shape[:2]
        mask = self._mask((batch, channels, *(1,) * self._axes))
        return functional.dropout(x, mask, keep=self.keep)


class Dropout1d(_ChannelDropout):
    """In training, each channel of a sequence, (batch, channels, width), is 0 with probability `p`.

    All else is as in `Dropout2d`.
    """

    _axes = 1


class Dropout2d(_ChannelDropout):
    """In training, each channel of an image is 0 with probability `p`, else divided by 1 - p.

    Inputs (batch, channels, height, width); the masks are those of `Dropout`. Raises ValueError
    for another number of axes. Tompson et al., "Efficient Object Localization Using
    Convolutional Networks", CVPR 2015.
    """

    _axes = 2


class Dropout3d(_ChannelDropout):
    """In training, each channel of a volume is 0 with probability `p`, else divided by 1 - p.

    Inputs are (batch, channels, depth, height, width). All else is as in `Dropout2d`.
    """

    _axes = 3


class AlphaDropout(_Dropout):
    """In training, each element becomes SELU's limit, -1.7581, with probability `p`.

    All elements are then scaled and shifted, which keeps mean 0 and variance 1, as networks with
    SELU need. The masks are those of `Dropout`. Klambauer et al., "Self-Normalizing Neural
    Networks" (2017).
    """

    def forward(self, x: Array) -> Array:
        if not self.active:
            return x
        return functional.alpha_dropout(x, self._mask(tuple(x.shape)), keep=self.keep)
