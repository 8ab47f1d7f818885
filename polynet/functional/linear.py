"""The linear map."""

from __future__ import annotations

import math

from polynet.tensor import composition


@composition
def linear(xp, x, weight, bias=None):
    """x Wᵀ + b, for `x` (…, in), `weight` (out, in) and `bias` (out,)."""
    if x.ndim > 2:
        return by_rows(xp, linear, x, weight, bias)
    y = xp.matmul(x, weight.mT)
    return y if bias is None else y + bias


def by_rows(xp, f, x, weight, bias):
    """`f` of the rows of x as one matrix, so that it and its gradients are products of matrices."""
    rows = xp.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
    return xp.reshape(f(rows, weight, bias), (*x.shape[:-1], weight.shape[0]))
