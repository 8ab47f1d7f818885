"""Attention and the layers of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from polynet import functional
from polynet.backend import Array
from polynet.nn import init
from polynet.nn.checks import check_same_dtype, positive, wrong_shape
from polynet.nn.described import Parameter
from polynet.nn.dropout import Dropout
from polynet.nn.linear import Linear
from polynet.nn.module import Module
from polynet.nn.normalisation import LayerNorm
from polynet.ops import array_namespace
from polynet.ops.elementwise import add
from polynet.ops.manipulation import permute_dims


class MultiheadAttention(Module):
    """Several attentions side by side, each on its own share of the features.

    `query` is (targets, batch, embed_dim), `key` and `value` are (sources, batch, embed_dim); the
    output has the query's shape. With `batch_first`, the batch is the first axis of all of them.
    `dropout` is the probability of dropping an attention weight. Masks are as in PyTorch's layer:
    `key_padding_mask` (batch, sources) is true for keys to ignore; `attn_mask` (targets, sources)
    is true for pairs to ignore, or holds floating-point numbers to add to the scores; with
    `is_causal`, a query sees no later key.

    `in_proj_weight` (3·embed_dim, embed_dim) holds the projections of query, key and value
    (Glorot's uniform), and `in_proj_bias` (zeros) holds their biases; `out_proj` is a Linear layer.

    Raises ValueError for other shapes, TypeError for another dtype. Vaswani et al., "Attention
    Is All You Need" (2017).
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        batch_first: bool = False,
    ) -> None:
        embed_dim, num_heads = positive(
            "MultiheadAttention", embed_dim=embed_dim, num_heads=num_heads
        )
        if embed_dim % num_heads:
            raise ValueError(
                f"MultiheadAttention: {num_heads} heads do not divide embed_dim {embed_dim}"
            )
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.batch_first = batch_first
        self.in_proj_weight: Array = Parameter((3 * embed_dim, embed_dim), init.xavier_uniform())
        self.in_proj_bias: Array | None = Parameter((3 * embed_dim,), init.zeros) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, bias_init=init.zeros)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        query: Array,
        key: Array,
        value: Array,
        key_padding_mask: Array | None = None,
        attn_mask: Array | None = None,
        *,
        is_causal: bool = False,
    ) -> Array:
        self._check_inputs(query, key, value)
        mask = self._combined(query, key, key_padding_mask, attn_mask)
        q, k, v = self._projected(query, key, value)
        xp = array_namespace(q, k, v, mask)
        if self.dropout.active:
            weights = functional.attention_weights(q, k, mask, is_causal=is_causal)
            seen = xp.matmul(self.dropout(weights), v)
        else:
            seen = functional.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal)
        seen = xp.permute_dims(seen, (0, 2, 1, 3))
        y = self.out_proj(xp.reshape(seen, (*seen.shape[:2], self.embed_dim)))
        return y if self.batch_first else xp.permute_dims(y, (1, 0, 2))

    def _check_inputs(self, query: Array, key: Array, value: Array) -> None:
        for x in (query, key, value):
            if len(x.shape) != 3 or x.shape[2] != self.embed_dim:
                order = "batch, length" if self.batch_first else "length, batch"
                raise wrong_shape(self, f"({order}, {self.embed_dim})", x)
            check_same_dtype(self, x, self.in_proj_weight)
        batch = 0 if self.batch_first else 1
        if tuple(key.shape) != tuple(value.shape) or query.shape[batch] != key.shape[batch]:
            shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
            raise ValueError(
                f"{self.label()}: query, key and value have shapes {shapes}; expected a value for "
                f"each key, and the same number of samples, on axis {batch}, in all three"
            )

    def _projected(self, *inputs: Array) -> list[Array]:
        """Query, key and value, each (batch, heads, length, width)."""
        size, heads = self.embed_dim, (self.num_heads, self.embed_dim // self.num_heads)
        order = (0, 2, 1, 3) if self.batch_first else (1, 2, 0, 3)
        if inputs[0] is inputs[1] is inputs[2]:
            y = functional.linear(inputs[0], self.in_proj_weight, self.in_proj_bias)
            xp = array_namespace(y)
            y = xp.reshape(y, (*y.shape[:2], 3, *heads))
            return list(xp.unstack(xp.permute_dims(y, (2, *(o + (o > 1) for o in order)))))
        projected = []
        for i, x in enumerate(inputs):
            share = slice(i * size, (i + 1) * size)
            bias = None if self.in_proj_bias is None else self.in_proj_bias[share]
            y = functional.linear(x, self.in_proj_weight[share, ...], bias)
            xp = array_namespace(y)
            projected.append(xp.permute_dims(xp.reshape(y, (*y.shape[:2], *heads)), order))
        return projected

    def _combined(
        self, query: Array, key: Array, key_padding_mask: Array | None, attn_mask: Array | None
    ) -> Array | None:
        """PyTorch's two masks as one for `attention_weights`, in which true means "look"."""
        batch, length = (0, 1) if self.batch_first else (1, 0)
        padding = None
        if key_padding_mask is not None:
            shape = query.shape[batch], key.shape[length]
            self._check_mask("key_padding_mask", key_padding_mask, ("bool",), shape)
            padding = ~key_padding_mask[:, None, None, :]
        if attn_mask is None:
            return padding
        shape = query.shape[length], key.shape[length]
        self._check_mask("attn_mask", attn_mask, ("bool", "real floating"), shape)
        if array_namespace(attn_mask).isdtype(attn_mask.dtype, "bool"):
            return ~attn_mask if padding is None else ~attn_mask & padding
        if padding is None:
            return attn_mask
        return array_namespace(padding, attn_mask).where(padding, attn_mask, -float("inf"))

    def _check_mask(
        self, name: str, mask: Array, kinds: tuple[str, ...], shape: tuple[int, int]
    ) -> None:
        if not array_namespace(mask).isdtype(mask.dtype, kinds):
            also = ", or added to the scores" * (len(kinds) - 1)
            raise TypeError(
                f"MultiheadAttention: {name} is {mask.dtype}; expected {' or '.join(kinds)}, true "
                f"where a key is to be ignored{also}"
            )
        if tuple(mask.shape) != shape:
            axes = "batch" if name == "key_padding_mask" else "targets"
            raise ValueError(
                f"{self.label()}: {name} has shape {tuple(mask.shape)}; expected {shape}, that is "
                f"({axes}, sources)"
            )

    def settings(self) -> str:
        return f"{self.embed_dim}, {self.num_heads}"


class _TransformerLayer(Module):
    """Base of transformer layers: residual parts, each with its own norm and dropout."""

    _attentions: ClassVar[tuple[str, ...]]
    self_attn: MultiheadAttention
    norm1: LayerNorm
    norm2: LayerNorm
    dropout1: Dropout
    dropout2: Dropout

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Callable[[Array], Array] = functional.relu,
        layer_norm_eps: float = 1e-5,
        *,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
    ) -> None:
        if not callable(activation) or isinstance(activation, type):
            raise TypeError(
                f"{type(self).__name__}: activation is a function of an array, such as "
                f"functional.gelu; got {activation!r}"
            )
        for name in self._attentions:
            setattr(self, name, MultiheadAttention(d_model, nhead, dropout, bias, batch_first=True))
        self.linear1 = Linear(d_model, dim_feedforward, bias)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias)
        for i in range(1, len(self._attentions) + 2):
            setattr(self, f"norm{i}", LayerNorm(d_model, layer_norm_eps, bias=bias))
            setattr(self, f"dropout{i}", Dropout(dropout))
        self.activation = activation
        self.batch_first = batch_first
        self.norm_first = norm_first

    def _residual(self, x: Array, norm: LayerNorm, part: Callable[[Array], Array]) -> Array:
        if self.norm_first:
            return add(x, part(norm(x)))
        return norm(add(x, part(x)))

    def _feed(self, x: Array) -> Array:
        relu = self.activation is functional.relu and type(self.linear1) is Linear
        y = self.linear1(x, relu=True) if relu else self.activation(self.linear1(x))
        return self.linear2(self.dropout(y))

    def _swapped(self, x: Array) -> Array:
        """`x` with the batch as its first axis; a second call restores the user's order of axes."""
        if len(x.shape) != 3 or x.shape[2] != self.self_attn.embed_dim:
            order = "batch, length" if self.batch_first else "length, batch"
            raise wrong_shape(self, f"({order}, {self.self_attn.embed_dim})", x)
        return x if self.batch_first else permute_dims(x, (1, 0, 2))

    def settings(self) -> str:
        return f"{self.linear1.in_features}, {self.self_attn.num_heads}"


class TransformerEncoderLayer(_TransformerLayer):
    """Self-attention, then a network of two Linear layers for each position, both residual.

    Inputs and outputs are (length, batch, d_model), or, with `batch_first`, (batch, length,
    d_model). With `norm_first`, the inputs of each part are normalised; otherwise the sum of a
    part's inputs and outputs is. With `bias=False`, no part has a bias. `mask` (length, length)
    and `key_padding_mask` (batch, length) are those of `MultiheadAttention`; PyTorch calls them
    `src_mask` and `src_key_padding_mask`. Other names, and the defaults, are PyTorch's.

    Vaswani et al., "Attention Is All You Need" (2017); `norm_first`: Xiong et al., "On Layer
    Normalization in the Transformer Architecture" (2020).
    """

    _attentions = ("self_attn",)

    def forward(
        self,
        x: Array,
        mask: Array | None = None,
        key_padding_mask: Array | None = None,
        *,
        is_causal: bool = False,
    ) -> Array:
        def attend(x: Array) -> Array:
            y = self.self_attn(x, x, x, key_padding_mask, mask, is_causal=is_causal)
            return self.dropout1(y)

        def feed(x: Array) -> Array:
            return self.dropout2(self._feed(x))

        x = self._swapped(x)
        x = self._residual(x, self.norm1, attend)
        x = self._residual(x, self.norm2, feed)
        return self._swapped(x)


class TransformerDecoderLayer(_TransformerLayer):
    """Self-attention, attention to `memory`, then two Linear layers per position: all residual.

    `tgt` and the outputs are (targets, batch, d_model). `memory` (sources, batch, d_model) is an
    encoder's output for the sources. With `batch_first`, the batch is the first axis of all three.
    `tgt_mask` (targets, targets), `memory_mask` (targets, sources), `tgt_key_padding_mask` (batch,
    targets), `memory_key_padding_mask` (batch, sources), `tgt_is_causal` and `memory_is_causal` are
    the masks of `MultiheadAttention`, for `tgt` and for `memory`. The settings are those of
    `TransformerEncoderLayer`; names and defaults are PyTorch's.

    Vaswani et al., "Attention Is All You Need" (2017).

    >>> from polynet import nn
    >>> import numpy as np
    >>> layer = nn.TransformerDecoderLayer(4, 2, batch_first=True).init(seed=0, backend="numpy")
    >>> tgt, memory = np.ones((2, 3, 4), "float32"), np.ones((2, 5, 4), "float32")
    >>> layer(tgt, memory, tgt_is_causal=True).shape
    (2, 3, 4)
    """

    _attentions = ("self_attn", "multihead_attn")
    multihead_attn: MultiheadAttention
    norm3: LayerNorm
    dropout3: Dropout

    def forward(
        self,
        tgt: Array,
        memory: Array,
        tgt_mask: Array | None = None,
        memory_mask: Array | None = None,
        tgt_key_padding_mask: Array | None = None,
        memory_key_padding_mask: Array | None = None,
        *,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Array:
        def attend(x: Array) -> Array:
            masks = tgt_key_padding_mask, tgt_mask
            return self.dropout1(self.self_attn(x, x, x, *masks, is_causal=tgt_is_causal))

        def look(x: Array) -> Array:
            masks = memory_key_padding_mask, memory_mask
            y = self.multihead_attn(x, memory, memory, *masks, is_causal=memory_is_causal)
            return self.dropout2(y)

        def feed(x: Array) -> Array:
            return self.dropout3(self._feed(x))

        x, memory = self._swapped(tgt), self._swapped(memory)
        x = self._residual(x, self.norm1, attend)
        x = self._residual(x, self.norm2, look)
        x = self._residual(x, self.norm3, feed)
        return self._swapped(x)
