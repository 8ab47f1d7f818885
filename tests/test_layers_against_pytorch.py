"""Layers with windows, norms, lookups and attention beside PyTorch's, over their options."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from beside_pytorch import TOLERANCE, compare, numbers, torch

from polynet import nn


def convolutions() -> Iterator[tuple[Any, ...]]:
    for kernel, stride, padding, dilation, groups, bias in product(
        (1, 3, (2, 4)), (1, (2, 3)), (0, (1, 2), "same"), (1, (2, 1)), (1, 2), (True, False)
    ):
        if padding != "same" or stride == 1:
            yield kernel, stride, padding, dilation, groups, bias


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups", "bias"), list(convolutions())
)
def test_conv2d(
    kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int, bias: bool, dtype: str
) -> None:
    args = (4, 6, kernel, stride, padding, dilation, groups, bias)
    compare(nn.Conv2d(*args), torch.nn.Conv2d(*args), [numbers(2, 4, 9, 11)], dtype)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kernel", [1, 4])
@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, 1), (3, 0), (1, "valid")])
@pytest.mark.parametrize("groups", [1, 3])
def test_conv1d(kernel: int, stride: int, padding: Any, groups: int, dtype: str) -> None:
    args = (3, 6, kernel, stride, padding, 1, groups)
    compare(nn.Conv1d(*args), torch.nn.Conv1d(*args), [numbers(2, 3, 12)], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kernel", [2, 3, (3, 2)])
@pytest.mark.parametrize("stride", [None, 1, (2, 1)])
@pytest.mark.parametrize("padding", [0, 1, (1, 0)])
@pytest.mark.parametrize("kind", ["MaxPool2d", "AvgPool2d"])
def test_pooling(kind: str, kernel: Any, stride: Any, padding: Any, dtype: str) -> None:
    ours, theirs = getattr(nn, kind), getattr(torch.nn, kind)
    x = np.round(numbers(2, 3, 7, 8))  # with ties
    compare(ours(kernel, stride, padding), theirs(kernel, stride, padding), [x], dtype)


def test_a_nan_wins_in_max_pool2d() -> None:
    for place in range(4):
        x = np.arange(4.0)
        x[place] = np.nan
        assert np.isnan(nn.MaxPool2d(2)(x.reshape(1, 1, 2, 2))).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [5, (5,), (3, 5)])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize(("affine", "bias"), [(True, True), (True, False), (False, True)])
def test_layer_norm(shape: Any, eps: float, affine: bool, bias: bool, dtype: str) -> None:
    args = (shape, eps, affine, bias)
    compare(nn.LayerNorm(*args), torch.nn.LayerNorm(*args), [3 + numbers(4, 3, 5)], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(5,), (4, 3), ()])
def test_embedding(shape: tuple[int, ...], dtype: str) -> None:
    rows = np.random.default_rng(3).integers(0, 4, size=shape)
    compare(nn.Embedding(4, 3), torch.nn.Embedding(4, 3), [rows], dtype)


IGNORE = np.triu(np.ones((5, 5), dtype=bool), 1)
PADDING = np.asarray([[False] * 5, [False, False, False, True, True]])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sources", ["the same", "others", "as many"])
@pytest.mark.parametrize("masks", ["none", "pairs", "scores", "padding", "both"])
def test_multihead_attention(
    masks: str, sources: str, bias: bool, batch_first: bool, dtype: str
) -> None:
    length = 7 if sources == "others" else 5
    shapes = [(2, 5, 8), (2, length, 8), (2, length, 8)]
    xs = [numbers(*s, seed=i) for i, s in enumerate(shapes)]
    if not batch_first:
        xs = [np.swapaxes(x, 0, 1) for x in xs]
    given: dict[str, Any] = {}
    if masks in ("pairs", "both"):
        given["attn_mask"] = np.pad(IGNORE, ((0, 0), (0, length - 5)))
    if masks == "scores":
        given["attn_mask"] = numbers(5, length, seed=9).astype(dtype)
    if masks in ("padding", "both"):
        given["key_padding_mask"] = np.pad(PADDING, ((0, 0), (0, length - 5)))
    ours = nn.MultiheadAttention(8, 2, bias=bias, batch_first=batch_first)
    theirs = torch.nn.MultiheadAttention(8, 2, bias=bias, batch_first=batch_first)
    if sources == "the same":
        compare(_Itself(ours), _Itself_torch(theirs), xs[:1], dtype, **given)
    else:
        compare(ours, theirs, xs, dtype, **given)


class _Itself(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def forward(self, x: Any, **masks: Any) -> Any:
        return self.layer(x, x, x, **masks)


def _Itself_torch(layer: Any) -> Any:
    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Any, **masks: Any) -> Any:
            return self.layer(x, x, x, **masks)[0]

    return Twin()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_transformer_encoder_layer(
    causal: bool, norm_first: bool, batch_first: bool, activation: str, dtype: str
) -> None:
    from polynet import functional

    settings = {"batch_first": batch_first, "norm_first": norm_first}
    ours = nn.TransformerEncoderLayer(
        8, 2, 12, activation=getattr(functional, activation), **settings
    )
    theirs = torch.nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0.0, activation=activation, **settings
    )

    class Masked(nn.Module):
        def __init__(self) -> None:
            self.layer = ours

        def forward(self, x: Any) -> Any:
            return self.layer(x, is_causal=causal)

    class MaskedTwin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = theirs

        def forward(self, x: Any) -> Any:
            return self.layer(x, torch.tensor(IGNORE) if causal else None)

    x = numbers(3, 5, 8) if batch_first else numbers(5, 3, 8)
    compare(Masked(), MaskedTwin(), [x], dtype)
