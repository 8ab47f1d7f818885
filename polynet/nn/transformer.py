"""Transformers: stacks of the layers in `attention`."""

from __future__ import annotations

from copy import deepcopy

from polynet.backend import Array
from polynet.nn.attention import TransformerDecoderLayer, TransformerEncoderLayer
from polynet.nn.checks import positive
from polynet.nn.container import not_a_layer
from polynet.nn.module import Module


class _Stack(Module):
    """Base of stacks, which are copies of one layer in a row."""

    def _describe(self, name: str, layer: Module, num_layers: int, norm: Module | None) -> None:
        kind = type(self).__name__
        (count,) = positive(kind, num_layers=num_layers)
        for what, given in ((name, layer), ("norm", norm)):
            if not isinstance(given, Module) and (what, given) != ("norm", None):
                raise TypeError(f"{kind}: {what} is {not_a_layer(given)}")
        self.layers = [deepcopy(layer) for _ in range(count)]
        self.norm = norm

    def _normalised(self, x: Array) -> Array:
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """A stack of `num_layers` copies of `encoder_layer`, followed by `norm` if it is given.

    Each copy has parameters of its own, `layers.0.…`, `layers.1.…`, with initial values of its own;
    in PyTorch all copies start from the same values. `src` and the outputs have the shape that the
    layer takes: (length, batch, d_model), or (batch, length, d_model) with its `batch_first`. Every
    layer is given the masks: `mask` (length, length) and `src_key_padding_mask` (batch, length),
    which are those of `MultiheadAttention`, and `is_causal`.

    Raises TypeError for a layer or norm that is not a Module.

    >>> from polynet import nn
    >>> import numpy as np
    >>> layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    >>> net = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(4)).init(seed=0, backend="numpy")
    >>> net(np.ones((2, 3, 4), "float32"), is_causal=True).shape
    (2, 3, 4)
    """

    def __init__(
        self, encoder_layer: TransformerEncoderLayer, num_layers: int, norm: Module | None = None
    ) -> None:
        self._describe("encoder_layer", encoder_layer, num_layers, norm)

    def forward(
        self,
        src: Array,
        mask: Array | None = None,
        src_key_padding_mask: Array | None = None,
        *,
        is_causal: bool = False,
    ) -> Array:
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, is_causal=is_causal)
        return self._normalised(src)


class TransformerDecoder(_Stack):
    """A stack of `num_layers` copies of `decoder_layer`, followed by `norm` if it is given.

    Each copy has parameters of its own, as in `TransformerEncoder`. Every layer is given `memory`,
    an encoder's output, and the masks. All shapes are those of `TransformerDecoderLayer`.

    Raises TypeError for a layer or norm that is not a Module.
    """

    def __init__(
        self, decoder_layer: TransformerDecoderLayer, num_layers: int, norm: Module | None = None
    ) -> None:
        self._describe("decoder_layer", decoder_layer, num_layers, norm)

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
        masks = tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask
        causal = {"tgt_is_causal": tgt_is_causal, "memory_is_causal": memory_is_causal}
        for layer in self.layers:
            tgt = layer(tgt, memory, *masks, **causal)
        return self._normalised(tgt)
