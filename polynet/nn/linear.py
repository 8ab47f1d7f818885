"""The fully connected layer."""

from __future__ import annotations

import math

from polynet import functional
from polynet.backend import Array
from polynet.nn import init
from polynet.nn.checks import check_same_dtype, positive, wrong_shape
from polynet.nn.described import Parameter
from polynet.nn.module import Module


class Linear(Module):
    """y = x Wᵀ + b.

    Inputs are (…, in_features), outputs (…, out_features). `weight` is (out_features, in_features).
    `bias` is (out_features,), or None with `bias=False`. Both are drawn uniformly in
    ±1/√in_features, as in PyTorch; `weight_init` and `bias_init` take other initialisers.

    Raises ValueError for another number of features, TypeError for another dtype.

    >>> from polynet import nn
    >>> import numpy as np
    >>> nn.Linear(3, 2).init(seed=0, backend="numpy")(np.zeros((5, 3), dtype="float32")).shape
    (5, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        weight_init: init.Initialiser | None = None,
        bias_init: init.Initialiser | None = None,
    ) -> None:
        shape = positive("Linear", out_features=out_features, in_features=in_features)
        self.out_features, self.in_features = shape
        bound = 1 / math.sqrt(self.in_features)
        drawn = init.uniform(-bound, bound)
        self.weight: Array = Parameter(shape, drawn if weight_init is None else weight_init)
        self.bias: Array | None = None
        if bias:
            self.bias = Parameter(shape[:1], drawn if bias_init is None else bias_init)

    def forward(self, x: Array, *, relu: bool = False) -> Array:
        """y, or max(y, 0) with `relu`, which Sequential asks for where a ReLU follows."""
        if tuple(x.shape[-1:]) != (self.in_features,):
            raise wrong_shape(self, f"(…, {self.in_features})", x)
        check_same_dtype(self, x, self.weight)
        function = functional.linear_relu if relu else functional.linear
        return function(x, self.weight, self.bias)

    def settings(self) -> str:
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.in_features}, {self.out_features}{bias}"
