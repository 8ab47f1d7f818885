"""Every layer: outputs and gradients on each backend against its definition on float64 NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np
import pytest

from polynet import array_namespace, functional, grad, nn, random, value_and_grad
from polynet.backend import Backend, get_backend, to_numpy, use_backend
from polynet.nn import Context, Module
from polynet.ops import OPS
from polynet.tensor import plain_value
from polynet.testing.assertions import assert_close
from polynet.testing.suite.cases import dtypes, to_backend, weights
from polynet.tree import leaves


def twice(layer: Module) -> Module:
    """A network in which one layer stands in two places."""
    return nn.Sequential(layer, nn.Tanh(), layer)


class Itself(Module):
    """Attention of an array to itself."""

    def __init__(self, layer: Module) -> None:
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x, x, x)


class ToItself(Module):
    """A decoder, or its layer, whose memory is its own input, backwards."""

    def __init__(self, layer: Module) -> None:
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x, OPS["flip"](x, axis=1), tgt_is_causal=True)


class LookedUp(Module):
    """An array times what an Embedding holds at fixed places, one of them twice."""

    def __init__(self, layer: Module) -> None:
        self.layer = layer

    def forward(self, x: Any) -> Any:
        xp = array_namespace(x)
        device = array_api_compat.device(plain_value(x))
        return self.layer(xp.asarray([[2, 0, 1, 2]], device=device)) * x


class Reading(Module):
    """All that a recurrent layer returns, as one vector; a first state is taken from `x` too."""

    def __init__(self, layer: Module, *state: tuple[int, ...]) -> None:
        self.layer = layer
        self.state = state

    def forward(self, x: Any) -> Any:
        flat = OPS["reshape"](x, (-1,))
        parts = [OPS["reshape"](flat[: math.prod(s)], s) for s in self.state]
        found = leaves(self.layer(x, *([tuple(parts)] if len(parts) > 1 else parts)))
        return OPS["concat"](found, axis=None)


LAYERS: dict[str, tuple[Callable[[], Module], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(4, 3), (5, 4)),
    "Linear without bias": (lambda: nn.Linear(4, 3, bias=False), (5, 4)),
    "Linear on three axes": (lambda: nn.Linear(4, 3), (2, 5, 4)),
    **{
        name: (getattr(nn, name), (5, 4))
        for name in (
            "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid "
            "LogSoftmax Mish PReLU ReLU ReLU6 SELU Sigmoid SiLU Softmax Softmin Softplus "
            "Softshrink Softsign Tanh Tanhshrink".split()
        )
    },
    "LeakyReLU(0.2)": (lambda: nn.LeakyReLU(0.2), (5, 4)),
    "PReLU by channel": (lambda: nn.PReLU(4), (5, 4, 3)),
    "Threshold": (lambda: nn.Threshold(0.1, 2.0), (5, 4)),
    "Softmax along the first axis": (lambda: nn.Softmax(dim=0), (5, 4)),
    "Identity": (nn.Identity, (5, 4)),
    "Flatten": (nn.Flatten, (5, 2, 3)),
    "Unflatten": (lambda: nn.Unflatten(1, (2, -1)), (3, 4, 2)),
    "Dropout": (lambda: nn.Dropout(0.4), (5, 4)),
    "Dropout1d": (lambda: nn.Dropout1d(0.4), (5, 4, 3)),
    "Dropout2d": (lambda: nn.Dropout2d(0.4), (5, 4, 3, 2)),
    "Dropout3d": (lambda: nn.Dropout3d(0.4), (5, 4, 1, 3, 2)),
    "AlphaDropout": (lambda: nn.AlphaDropout(0.4), (5, 4)),
    "Sequential": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 2)),
        (5, 4),
    ),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 3, padding=1), (2, 2, 6)),
    "Conv2d": (lambda: nn.Conv2d(2, 3, 3, stride=2), (2, 2, 6, 5)),
    "Conv2d, same, groups": (
        lambda: nn.Conv2d(4, 2, 2, padding="same", dilation=2, groups=2, bias=False),
        (2, 4, 4, 5),
    ),
    "Conv3d": (
        lambda: nn.Conv3d(2, 4, (2, 3, 1), (1, 2, 1), (1, 0, 1), groups=2),
        (2, 2, 3, 5, 2),
    ),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(2, 3, 3, 2, output_padding=1), (2, 2, 4)),
    "ConvTranspose2d": (
        lambda: nn.ConvTranspose2d(4, 2, (3, 2), 2, 1, groups=2, dilation=2),
        (2, 4, 3, 4),
    ),
    "ConvTranspose3d": (
        lambda: nn.ConvTranspose3d(2, 3, (2, 3, 1), (1, 2, 1), (0, 1, 0), (0, 1, 0)),
        (2, 2, 2, 3, 2),
    ),
    "ConstantPad1d": (lambda: nn.ConstantPad1d((1, 2), 0.7), (2, 2, 3)),
    "ConstantPad2d": (lambda: nn.ConstantPad2d((1, 0, 2, 1), -1.5), (2, 1, 2, 3)),
    "ConstantPad3d": (lambda: nn.ConstantPad3d((1, 0, 2, 1, 0, 1), 2.0), (2, 1, 2, 3, 2)),
    "ZeroPad1d": (lambda: nn.ZeroPad1d(1), (2, 2, 3)),
    "ZeroPad2d": (lambda: nn.ZeroPad2d((1, 0, 2, 1)), (2, 1, 2, 3)),
    "ZeroPad3d": (lambda: nn.ZeroPad3d((1, 0, 2, 1, 0, 1)), (2, 1, 2, 3, 2)),
    "ReflectionPad1d": (lambda: nn.ReflectionPad1d((1, 2)), (2, 2, 3)),
    "ReflectionPad2d": (lambda: nn.ReflectionPad2d((1, 2, 0, 1)), (2, 1, 2, 3)),
    "ReplicationPad1d": (lambda: nn.ReplicationPad1d((1, 3)), (2, 2, 2)),
    "ReplicationPad2d": (lambda: nn.ReplicationPad2d((1, 2, 0, 3)), (2, 1, 2, 3)),
    "MaxPool1d": (lambda: nn.MaxPool1d(2, dilation=2), (2, 3, 7)),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), (2, 3, 4, 5)),
    "MaxPool3d": (lambda: nn.MaxPool3d(2, 1, (0, 1, 0)), (2, 2, 3, 2, 3)),
    "AvgPool1d": (lambda: nn.AvgPool1d(2, 2, 1, count_include_pad=False), (2, 3, 6)),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1), (2, 3, 4, 5)),
    "AvgPool3d": (
        lambda: nn.AvgPool3d((2, 3, 1), 2, (0, 1, 0), ceil_mode=True, count_include_pad=False),
        (2, 2, 3, 4, 3),
    ),
    "AdaptiveAvgPool1d": (lambda: nn.AdaptiveAvgPool1d(3), (2, 3, 7)),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d((2, None)), (2, 3, 5, 3)),
    "AdaptiveAvgPool3d": (lambda: nn.AdaptiveAvgPool3d((2, None, 1)), (2, 2, 3, 2, 4)),
    "AdaptiveMaxPool1d": (lambda: nn.AdaptiveMaxPool1d(3), (2, 3, 7)),
    "AdaptiveMaxPool2d": (lambda: nn.AdaptiveMaxPool2d((2, 3)), (2, 2, 5, 4)),
    "AdaptiveMaxPool3d": (lambda: nn.AdaptiveMaxPool3d((2, 1, 3)), (2, 2, 3, 2, 4)),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), (2, 8, 2, 3)),
    "PixelUnshuffle": (lambda: nn.PixelUnshuffle(2), (2, 2, 4, 6)),
    "Upsample": (lambda: nn.Upsample(scale_factor=2), (2, 2, 3, 2)),
    "Upsample, other places": (lambda: nn.Upsample(7), (2, 3, 5)),
    "Upsample, linear": (lambda: nn.Upsample(7, mode="linear", align_corners=True), (2, 3, 5)),
    "Upsample, bilinear": (
        lambda: nn.Upsample(scale_factor=(2, 0.6), mode="bilinear"),
        (2, 2, 3, 5),
    ),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (2, 4, 3)),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(3), (2, 3, 4)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(2, affine=True), (2, 2, 3, 2)),
    "InstanceNorm3d": (lambda: nn.InstanceNorm3d(2, affine=True), (2, 2, 2, 3, 2)),
    "RMSNorm": (lambda: nn.RMSNorm(4), (5, 4)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), (5, 4)),
    "BatchNorm1d with a length, plain": (lambda: nn.BatchNorm1d(3, affine=False), (2, 3, 4)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3, eps=0.1, momentum=None), (2, 3, 4, 2)),
    "BatchNorm2d without statistics": (
        lambda: nn.BatchNorm2d(3, track_running_stats=False),
        (2, 3, 4, 2),
    ),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(3), (2, 3, 2, 3, 2)),
    "LayerNorm": (lambda: nn.LayerNorm(4), (5, 4)),
    "LayerNorm on two axes": (lambda: nn.LayerNorm((3, 4), bias=False), (2, 3, 4)),
    "Embedding": (lambda: LookedUp(nn.Embedding(3, 5)), (2, 4, 5)),
    "MultiheadAttention": (
        lambda: Itself(nn.MultiheadAttention(6, 2, 0.3, batch_first=True)),
        (3, 4, 6),
    ),
    "TransformerDecoderLayer": (
        lambda: ToItself(nn.TransformerDecoderLayer(4, 2, 6)),
        (3, 2, 4),
    ),
    "TransformerDecoderLayer, norm first": (
        lambda: ToItself(nn.TransformerDecoderLayer(4, 2, 6, batch_first=True, norm_first=True)),
        (2, 3, 4),
    ),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 6), (3, 2, 4)),
    "TransformerEncoderLayer, norm first": (
        lambda: nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, norm_first=True),
        (2, 3, 4),
    ),
    "TransformerEncoderLayer without bias": (
        lambda: nn.TransformerEncoderLayer(4, 2, 6, bias=False),
        (3, 2, 4),
    ),
    "TransformerEncoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6), 2),
        (3, 2, 4),
    ),
    "TransformerDecoder": (
        lambda: ToItself(
            nn.TransformerDecoder(
                nn.TransformerDecoderLayer(4, 2, 6, activation=functional.gelu), 2, nn.LayerNorm(4)
            )
        ),
        (2, 3, 4),
    ),
    "RNN": (lambda: Reading(nn.RNN(4, 3, nonlinearity="relu"), (1, 3, 3)), (2, 3, 4)),
    "RNN of two layers, both ways": (
        lambda: Reading(nn.RNN(4, 2, 2, batch_first=True, dropout=0.4, bidirectional=True)),
        (3, 2, 4),
    ),
    "LSTM": (lambda: Reading(nn.LSTM(4, 3, bias=False), (1, 3, 3), (1, 3, 3)), (2, 3, 4)),
    "LSTM of two layers, both ways": (
        lambda: Reading(nn.LSTM(4, 2, 2, batch_first=True, dropout=0.4, bidirectional=True)),
        (3, 2, 4),
    ),
    "GRU": (lambda: Reading(nn.GRU(4, 3), (1, 3, 3)), (2, 3, 4)),
    "GRU of two layers, both ways": (
        lambda: Reading(nn.GRU(4, 2, 2, dropout=0.4, bidirectional=True)),
        (2, 3, 4),
    ),
    "RNNCell": (lambda: Reading(nn.RNNCell(4, 3)), (3, 4)),
    "LSTMCell": (lambda: Reading(nn.LSTMCell(4, 3), (3, 3), (3, 3)), (3, 4)),
    "GRUCell": (lambda: Reading(nn.GRUCell(4, 3), (3, 3)), (3, 4)),
    "shared": (lambda: twice(nn.Linear(4, 4)), (5, 4)),
}
TOLERANCE = {"float32": 3e-5, "float64": 1e-9}
total = OPS["sum"]


def test_every_layer_is_tested() -> None:
    public = {
        name
        for name in nn.__all__
        if isinstance(getattr(nn, name), type) and issubclass(getattr(nn, name), Module)
    }
    assert public - {"Module"} <= set(LAYERS)


def prepared(case: str, backend: Backend, dtype: str, *, training: bool) -> tuple[Module, Any, Any]:
    """The network of a case with its parameters, its context, and an input."""
    make, shape = LAYERS[case]
    net = make().init(seed=1, backend=backend, dtype=dtype)
    device = backend.device(None)
    keys = {n: backend.from_host(random.key(5, n), device) for n in net.streams()}
    step = backend.from_host(np.full(1, 3, dtype=np.int32), device)
    context = Context(backend.xp, step, keys) if training else None
    x = to_backend(weights(shape) * 1.3, backend, dtype)
    return net, context, x


def scalar(net: Module, context: Any, params: dict[str, Any], x: Any, w: Any) -> Any:
    return total(net.bind(params, Context(context.xp, context.step, context.keys))(x) * w)


@pytest.mark.parametrize("training", [False, True], ids=["predicting", "training"])
@pytest.mark.parametrize("case", LAYERS)
def test_outputs(backend: Backend, case: str, training: bool) -> None:
    numpy = get_backend("numpy").without_kernels()
    with use_backend(numpy):
        net, context, x = prepared(case, numpy, "float64", training=training)
        expected = net.bind(net.parameters(), context)(x)
    for dtype in dtypes(backend):
        net, context, x = prepared(case, backend, dtype, training=training)
        found = net.bind(net.parameters(), context)(x)
        size = TOLERANCE[dtype]
        assert_close(found, expected, backend, dtype=dtype, rtol=size, atol=size)


@pytest.mark.parametrize("case", LAYERS)
def test_gradients(backend: Backend, case: str) -> None:
    expected, shape = expected_gradients(case)
    for dtype in dtypes(backend):
        net, context, x = prepared(case, backend, dtype, training=True)
        w = to_backend(weights(shape), backend, dtype)
        found = value_and_grad(lambda p, a, n=net, c=context, w=w: scalar(n, c, p, a, w), (0, 1))(
            net.parameters(), x
        )[1]
        size = TOLERANCE[dtype]
        everything = {**found[0], "input": found[1]}
        assert set(everything) == set(expected)
        for name, slope in everything.items():
            assert_close(slope, expected[name], backend, dtype=dtype, rtol=size, atol=size)


@pytest.mark.parametrize("case", LAYERS)
def test_gradients_of_one_alone(backend: Backend, case: str) -> None:
    """By the input, or one parameter, where all the others are plain arrays."""
    expected, shape = expected_gradients(case)
    dtype = dtypes(backend)[-1]
    net, context, x = prepared(case, backend, dtype, training=True)
    w = to_backend(weights(shape), backend, dtype)
    everything = {**net.parameters(), "input": x}

    def f(a: Any, name: str) -> Any:
        params = {**everything, name: a}
        return scalar(net, context, params, params.pop("input"), w)

    for name, a in everything.items():
        slope = grad(f)(a, name)
        size = TOLERANCE[dtype]
        assert_close(slope, expected[name], backend, dtype=dtype, rtol=size, atol=size)


def expected_gradients(case: str) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
    """By the definitions on NumPy, in float64, which differences agree with."""
    numpy = get_backend("numpy").without_kernels()
    with use_backend(numpy):
        net, context, x = prepared(case, numpy, "float64", training=True)
        params = net.parameters()
        shape = net.bind(params, context)(x).shape
        of_params, of_input = grad(lambda p, a: scalar(net, context, p, a, weights(shape)), (0, 1))(
            params, x
        )
        return {**of_params, "input": of_input}, shape


def test_a_shared_parameter_has_one_name_and_one_gradient(backend: Backend) -> None:
    net, _, _ = prepared("shared", backend, "float32", training=True)
    assert list(net.parameters()) == ["0.weight", "0.bias"]
    assert net[0].weight is net[2].weight
    assert [path for path, _ in net.modules()] == ["", "0", "1", "2"]


def test_users_layer(backend: Backend) -> None:
    class Residual(nn.Module):
        def __init__(self, size: int) -> None:
            self.inner = [nn.Linear(size, size), nn.Tanh()]
            self.scale = nn.Parameter((size,), nn.init.constant(2.0))

        def forward(self, x: Any) -> Any:
            y = x
            for layer in self.inner:
                y = layer(y)
            return x + y * self.scale

    net = nn.Sequential(Residual(3), Residual(3)).init(seed=0, backend=backend)
    assert list(net.parameters()) == [
        f"{i}.{name}" for i in (0, 1) for name in ("scale", "inner.0.weight", "inner.0.bias")
    ]
    x = to_backend(weights((4, 3)), backend, "float32")
    params = net.parameters()
    expected = to_numpy(x)
    for i in (0, 1):
        weight, bias = (to_numpy(params[f"{i}.inner.0.{n}"]) for n in ("weight", "bias"))
        expected = expected + 2 * np.tanh(expected @ weight.T + bias)
    assert_close(net(x), expected, backend, dtype="float32", rtol=1e-5, atol=1e-6)


def test_inference_wraps_nothing(backend: Backend) -> None:
    class Spy(nn.Module):
        def forward(self, x: Any) -> Any:
            assert backend.is_array(x)
            return x

    net = nn.Sequential(nn.Linear(4, 3), Spy(), nn.ReLU()).init(seed=0, backend=backend)
    assert backend.is_array(net(to_backend(weights((5, 4)), backend, "float32")))


def test_moving_a_network_keeps_its_numbers(backend: Backend) -> None:
    here = nn.Linear(4, 3).init(seed=0, backend="numpy")
    there = here.to(backend=backend)
    back = there.to(backend="numpy")
    assert all(backend.is_array(p) for p in there.parameters().values())
    for name, p in here.parameters().items():
        assert np.array_equal(p, back.parameters()[name])
