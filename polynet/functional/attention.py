"""Attention."""

from __future__ import annotations

import math

import array_api_compat

from polynet.functional.probabilities import softmax
from polynet.tensor import real_composition


@real_composition
def scaled_dot_product_attention(xp, query, key, value, mask=None, *, is_causal=False):
    """softmax(query keyᵀ / √width) value: for each query, a weighted mean of the values.

    `query` is (…, targets, width), `key` (…, sources, width), `value` (…, sources, any); the
    result is (…, targets, any). A boolean `mask`, which broadcasts to (…, targets, sources), is
    true where a query attends to a key; a floating `mask` is added to the scores. With `is_causal`,
    query i attends to keys 0 to i. A query that attends to no key gets NaN, as in PyTorch's layer;
    PyTorch's function gives 0 since 2.5.

    Vaswani et al., "Attention Is All You Need" (2017).
    """
    weights = attention_weights(query, key, mask, is_causal=is_causal)
    return xp.matmul(weights, value)


@real_composition
def attention_weights(xp, query, key, mask=None, *, is_causal=False):
    """softmax(query keyᵀ / √width), masked as in `scaled_dot_product_attention`."""
    scores = xp.matmul(query * (1 / math.sqrt(query.shape[-1])), key.mT)
    if is_causal:
        scores = xp.where(_causal_mask(xp, scores), scores, -math.inf)
    if mask is not None:
        allowed = xp.isdtype(mask.dtype, "bool")
        scores = xp.where(mask, scores, -math.inf) if allowed else scores + mask
    return softmax(scores, axis=-1)


def _causal_mask(xp, scores):
    """True where the key is not later than the query."""
    targets, sources = scores.shape[-2:]
    device = array_api_compat.device(scores)
    return xp.tril(xp.ones((targets, sources), dtype=xp.bool, device=device))
