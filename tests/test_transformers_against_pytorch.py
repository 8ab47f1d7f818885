"""Stacks of transformer layers beside PyTorch's, with their masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from beside_pytorch import TOLERANCE, compare, numbers, torch

from polynet import nn

LATER = np.triu(np.ones((5, 5), dtype=bool), 1)
PADDING = np.asarray([[False] * 5, [False, False, False, True, True]])
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "pairs": {"mask": LATER},
    "padding": {"src_key_padding_mask": PADDING},
    "both": {"mask": LATER, "src_key_padding_mask": PADDING},
}
DECODER_MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "pairs": {"tgt_mask": LATER, "memory_mask": LATER[:, :4]},
    "padding": {"tgt_key_padding_mask": PADDING, "memory_key_padding_mask": PADDING[:, :4]},
}


def stack(m: Any, kind: str, layers: int, *, norm: bool, **settings: Any) -> Any:
    """A stack, of polynet's modules or of PyTorch's."""
    layer = getattr(m, f"Transformer{kind}Layer")(8, 2, 12, dropout=0.0, **settings)
    return getattr(m, f"Transformer{kind}")(layer, layers, m.LayerNorm(8) if norm else None)


def pair(kind: str, layers: int, **settings: Any) -> list[Any]:
    """A stack of polynet's, and PyTorch's."""
    return [stack(m, kind, layers, **settings) for m in (nn, torch.nn)]


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("layers", "norm"), [(3, False), (1, True), (2, True)])
@pytest.mark.parametrize("masks", MASKS)
def test_encoder(masks: str, layers: int, norm: bool, batch_first: bool, dtype: str) -> None:
    ours, theirs = pair("Encoder", layers, norm=norm, norm_first=norm, batch_first=batch_first)
    x = numbers(2, 5, 8)
    x = x if batch_first else np.swapaxes(x, 0, 1)
    compare(ours, theirs, [x], dtype, **MASKS[masks])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("layers", "norm"), [(3, False), (2, True)])
@pytest.mark.parametrize("masks", DECODER_MASKS)
def test_decoder(masks: str, layers: int, norm: bool, batch_first: bool, dtype: str) -> None:
    ours, theirs = pair("Decoder", layers, norm=norm, norm_first=norm, batch_first=batch_first)
    xs = [numbers(2, length, 8, seed=length) for length in (5, 4)]
    xs = xs if batch_first else [np.swapaxes(x, 0, 1) for x in xs]
    compare(ours, theirs, xs, dtype, **DECODER_MASKS[masks])


@pytest.mark.parametrize("kind", ["Encoder", "Decoder"])
def test_causal_stacks_see_no_later_key(kind: str) -> None:
    net = stack(nn, kind, 2, norm=True).init(0, backend="numpy")
    xs = [numbers(5, 2, 8).astype("float32"), numbers(5, 2, 8, seed=1).astype("float32")]
    of = {"Encoder": [""], "Decoder": ["tgt_", "memory_"]}[kind]
    for part in of:
        found = net(*xs[: len(of)], **{f"{part}is_causal": True})
        expected = net(*xs[: len(of)], **{f"{part}mask": LATER})
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_copies_have_parameters_of_their_own() -> None:
    """Of a layer that is only described each draws its own; one that has arrays lends them all."""
    layer = nn.TransformerEncoderLayer(4, 2, 6)
    net = nn.TransformerEncoder(layer, 2).init(0, backend="numpy")
    assert len(net.parameters()) == 2 * len(layer.parameters())
    assert (net.layers[0].linear1.weight != net.layers[1].linear1.weight).all()
    assert len(net.init(0).streams()) == 2 * len(layer.streams())
    drawn = layer.init(3, backend="numpy")
    net = nn.TransformerEncoder(drawn, 2).init(0, backend="numpy")
    for each in net.layers:
        np.testing.assert_array_equal(each.linear1.weight, drawn.linear1.weight)
    assert len(net.parameters()) == 2 * len(layer.parameters())
    assert isinstance(layer.linear1.weight, nn.Parameter)
