"""Dropout."""

from __future__ import annotations

from typing import Any

from polynet import functional
from polynet.backend import Array
from polynet.nn.described import RandomStream
from polynet.nn.module import Module


class Dropout(Module):
    """In training, each element is 0 with probability `p`, else divided by 1 - p.

    The mask is a function of the seed, this layer's path and call, the step, and the sample's
    position: the same on every backend, whatever the batch is split into. `p` is kept in steps
    of 2**-16. Out of training the layer does nothing.

    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
    JMLR 15 (2014).
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1 - 2**-16:
            raise ValueError(
                f"Dropout: p is a probability, at least 0 and at most 1 - 2**-16; got {p!r}"
            )
        self.p = float(p)
        self.stream: Any = RandomStream()  # a Stream, in a training pass

    @property
    def active(self) -> bool:
        """Whether it drops anything in this pass."""
        return self.training and self.p > 0

    def forward(self, x: Array) -> Array:
        if not self.active:
            return x
        keep = round((1 - self.p) * 65536) / 65536  # the share that the mask keeps exactly
        return functional.dropout(x, self.stream.keep_mask(tuple(x.shape), keep), keep=keep)

    def settings(self) -> str:
        return f"{self.p}"
