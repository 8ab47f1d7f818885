"""Normalising layers."""

from __future__ import annotations

from polynet import functional
from polynet.backend import Array
from polynet.nn import init
from polynet.nn.checks import same_dtype, wrong_shape
from polynet.nn.described import Parameter
from polynet.nn.module import Module


class LayerNorm(Module):
    """Each sample's numbers to mean 0 and variance 1, scaled and shifted by what is learnt.

    Over the last axes, whose shape is `normalized_shape` (an integer for one axis). `weight`
    (ones) and `bias` (zeros) have that shape; without `elementwise_affine` both are None,
    without `bias` the second.

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
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape = tuple(shape)
        if not self.normalized_shape or any(n < 1 for n in self.normalized_shape):
            raise ValueError(
                f"LayerNorm: normalized_shape has positive sizes; got {normalized_shape!r}"
            )
        self.eps = float(eps)
        self.weight: Array | None = None
        self.bias: Array | None = None
        if elementwise_affine:
            self.weight = Parameter(self.normalized_shape, init.ones)
            self.bias = Parameter(self.normalized_shape, init.zeros) if bias else None

    def forward(self, x: Array) -> Array:
        axes = len(self.normalized_shape)
        if tuple(x.shape[-axes:]) != self.normalized_shape:
            raise wrong_shape(self, f"(…, {', '.join(map(str, self.normalized_shape))})", x)
        if self.weight is not None:
            same_dtype(self, x, self.weight)
        return functional.layer_norm(x, self.weight, self.bias, axes=axes, eps=self.eps)

    def settings(self) -> str:
        return ", ".join(map(str, self.normalized_shape))
