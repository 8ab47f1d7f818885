"""Attention: two products, and between them one kernel that scales, masks and takes the softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from polynet_cupy.launch import by_row, real
from polynet_cupy.products import placed, product, rounded


def scaled_dot_product_attention(
    xp: Any, query: Any, key: Any, value: Any, mask: Any = None, *, is_causal: bool = False
) -> Any:
    """W·value, with W as in `attention_weights`.

    The gradient of W is g·valueᵀ, and that of value Wᵀ·g.
    """
    if not real(query, key, value) or value.ndim != query.ndim or not value.size:
        return NotImplemented
    if value.shape[:-2] != query.shape[:-2] or value.shape[-2] != key.shape[-2]:
        return NotImplemented
    found = _weights(xp, query, key, mask, is_causal)
    if found is None:
        return NotImplemented
    weights, back = found
    several, value = rounded(xp, weights), rounded(xp, placed(xp, value))

    def pullback(g: Any, needs: tuple[bool, ...]) -> Any:
        g = rounded(xp, placed(xp, g))
        to_query, to_key = back(lambda: product(xp, g, value.mT), needs)
        to_value = product(xp, several.mT, g) if needs[2] else None
        return (to_query, to_key, to_value, *(None for _ in needs[3:]))

    return product(xp, several, value), pullback


def attention_weights(
    xp: Any, query: Any, key: Any, mask: Any = None, *, is_causal: bool = False
) -> Any:
    """W = softmax(query·keyᵀ / √width).

    The gradient of query·keyᵀ is s = (g - Σ g·W)·W / √width; that of query is s·key, and that of
    key sᵀ·query.
    """
    found = _weights(xp, query, key, mask, is_causal)
    if found is None:
        return NotImplemented
    weights, back = found
    return weights, lambda g, needs: (*back(lambda: g, needs), *(None for _ in needs[2:]))


def _weights(
    xp: Any, query: Any, key: Any, mask: Any, is_causal: bool
) -> tuple[Any, Callable[..., Any]] | None:
    """The weights, and a function for the gradients of query and key.

    That function takes a function that makes the gradient of the weights, and `needs`. None where
    the definition is to be used.
    """
    if not real(query, key) or query.ndim < 2 or not query.size or not key.size:
        return None
    if query.shape[:-2] != key.shape[:-2] or query.shape[-1] != key.shape[-1]:
        return None
    if mask is not None and (mask.dtype != xp.bool or not 2 <= mask.ndim <= query.ndim):
        return None
    dtype, targets, n = query.dtype, query.shape[-2], key.shape[-2]
    shape = (*query.shape[:-2], targets, n)
    rows = math.prod(shape[:-1])
    period = 1
    if mask is not None:
        one = math.prod(mask.shape[:-2]) == 1  # one mask for all heads and samples
        mask = xp.reshape(mask, mask.shape[-2:]) if one else mask
        period = targets if one else rows
        mask = xp.contiguous(xp.broadcast_to(mask, shape[-2:] if one else shape))
    how = (n, period, targets, int(is_causal), 1 / math.sqrt(query.shape[-1]))
    query, key = (rounded(xp, placed(xp, a)) for a in (query, key))
    weights = xp.empty(shape, dtype=dtype)
    scores = product(xp, query, key.mT)
    by_row(xp, "attention_forward", dtype, rows, n, scores, mask, weights, *how)

    def back(g: Callable[[], Any], needs: tuple[bool, ...]) -> tuple[Any, Any]:
        if not any(needs[:2]):
            return None, None
        out = xp.empty(shape, dtype=dtype)
        by_row(xp, "attention_backward", dtype, rows, n, xp.contiguous(g()), mask, weights, out,
               *how)  # fmt: skip
        out = rounded(xp, out)
        to_query = product(xp, out, key) if needs[0] else None
        return to_query, product(xp, out.mT, query) if needs[1] else None

    return weights, back
