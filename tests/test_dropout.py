"""The dropouts: what they drop, by PyTorch's formulas, and what they keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from beside_pytorch import DTYPES, numbers, same, torch, total

from polynet import functional, nn, random, value_and_grad
from polynet.backend import Backend, get_backend

OF_CHANNELS = {"Dropout1d": (6, 5, 4), "Dropout2d": (6, 5, 4, 3), "Dropout3d": (6, 5, 4, 3, 2)}
SHAPES = {"Dropout": (6, 5), **OF_CHANNELS}


def training(layer: nn.Module, step: int = 0) -> nn.Module:
    """The layer's copy of one training pass."""
    layer = layer.init(backend="numpy")
    keys = {name: random.key(7, name) for name in layer.streams()}
    context = nn.Context(get_backend("numpy").xp, np.full(1, step, dtype=np.int32), keys)
    return layer.bind(layer.parameters(), context)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.25, 0.5])
@pytest.mark.parametrize("kind", [*SHAPES, "AlphaDropout"])
def test_what_pytorch_drops_gives_what_pytorch_gives(kind: str, p: float, dtype: str) -> None:
    x = numbers(*SHAPES.get(kind, (6, 5))).astype(dtype)
    there = torch.tensor(x, requires_grad=True)
    torch.manual_seed(3)
    outputs = getattr(torch.nn, kind)(p)(there)
    outputs.sum().backward()
    kept = (there.grad != 0).numpy()  # a dropped number has slope 0
    assert 0 < kept.sum() < kept.size
    function = functional.alpha_dropout if kind == "AlphaDropout" else functional.dropout
    if kind in OF_CHANNELS:
        kept = kept.reshape(6, 5, -1)[:, :, 0].reshape(6, 5, *(1,) * (x.ndim - 2))
    value, slope = value_and_grad(lambda a: total(function(a, kept, keep=1 - p)))(x)
    same(function(x, kept, keep=1 - p), outputs, dtype)
    same(value, outputs.sum(), dtype)
    same(slope, there.grad, dtype)


@pytest.mark.parametrize("name", ["dropout", "alpha_dropout"])
def test_all_may_be_dropped(backend: Backend, name: str) -> None:
    """As PyTorch's functions with p=1; the gradient was 0 / 0, and alpha_dropout divided by 0."""
    host = numbers(6, 5).astype("float32")
    x, nothing = (backend.from_host(a, backend.device(None)) for a in (host, host > 9))
    function = getattr(functional, name)
    value, slope = value_and_grad(lambda a: total(function(a, nothing, keep=0.0)))(x)
    there = torch.tensor(host, requires_grad=True)
    outputs = getattr(torch.nn.functional, name)(there, 1.0, True).sum()
    outputs.backward()
    same(value, outputs, "float32")
    same(slope, there.grad, "float32")


@pytest.mark.parametrize("kind", OF_CHANNELS)
def test_whole_channels_fall_or_stay(kind: str) -> None:
    shape = (40, 50, *SHAPES[kind][2:])
    layer = training(getattr(nn, kind)(0.25))
    y = layer(np.ones(shape, dtype="float32")).reshape(40, 50, -1)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (y == y[:, :, :1]).all()
    assert len({sample.tobytes() for sample in y}) == len(y)  # each sample has a mask of its own
    assert abs((y != 0).mean() - 0.75) < 0.03  # 3 standard deviations of 2000 channels


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    y = training(nn.AlphaDropout(0.3))(numbers(400, 500))
    assert abs(y.mean()) < 0.01
    assert abs(y.var() - 1) < 0.02


@pytest.mark.parametrize("kind", [*SHAPES, "AlphaDropout"])
def test_a_dropout_is_new_at_each_step_and_gone_out_of_training(kind: str) -> None:
    layer = getattr(nn, kind)(0.5)
    x = np.ones(SHAPES.get(kind, (6, 5)))
    first, again, second = (training(layer, step)(x) for step in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert layer.init(backend="numpy")(x) is x
    assert training(getattr(nn, kind)(0.0))(x) is x


ATTENDING = ("self_attn.dropout", "dropout", "dropout1", "dropout2")
IN_LAYERS = {"Encoder": ATTENDING, "Decoder": (*ATTENDING, "multihead_attn.dropout", "dropout3")}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in IN_LAYERS.items() for name in names]
)
def test_every_dropout_of_a_transformer_drops(kind: str, name: str) -> None:
    layer = getattr(nn, f"Transformer{kind}Layer")(8, 2, 12, dropout=0.0)
    xs = [numbers(3, 2, 8, seed=i).astype("float32") for i in range(1 + (kind == "Decoder"))]
    assert np.array_equal(training(layer)(*xs), layer.init(backend="numpy")(*xs))
    *owner, attribute = name.split(".")
    setattr(getattr(layer, owner[0]) if owner else layer, attribute, nn.Dropout(0.5))
    assert not np.allclose(training(layer)(*xs), layer.init(backend="numpy")(*xs))


@pytest.mark.parametrize("kind", [*SHAPES, "AlphaDropout"])
def test_a_probability_is_one(kind: str) -> None:
    with pytest.raises(ValueError, match=rf"{kind}: p is a probability.*got 1.0"):
        getattr(nn, kind)(1.0)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("Dropout1d", (3, 4)), ("Dropout2d", (3, 4, 5)), ("Dropout3d", (3, 4, 5, 6))],
)
def test_channels_need_their_axes(kind: str, shape: Any) -> None:
    with pytest.raises(ValueError, match=r"shape \(batch, channels, .*width\), got \(3, 4"):
        getattr(nn, kind)()(np.ones(shape))
