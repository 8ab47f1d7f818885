"""Networks as files of ONNX: what onnxruntime makes of them is what they predict."""

from inspect import signature

import numpy as np
import onnx
import onnxruntime
import pytest

from polynet import Trainer, functional, losses, nn, optim
from polynet.functional import relu
from polynet.onnx import export
from polynet.onnx.kernels import KERNELS

ONE_BY_ONE = """
    AlphaDropout CELU Dropout ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh Identity LeakyReLU
    LogSigmoid LogSoftmax Mish PReLU RMSNorm ReLU ReLU6 SELU SiLU Sigmoid Softmax Softmin Softplus
    Softshrink Softsign Tanh Tanhshrink Threshold
""".split()
SETTINGS = {
    "Threshold": (0.1, 0.5),
    "RMSNorm": (6,),
    "Softmax": (1,),
    "Softmin": (1,),
    "LogSoftmax": (1,),
}


class First(nn.Module):
    """The first of what a recurrent layer gives, of samples that come first."""

    def __init__(self, net):
        self.net = net

    def forward(self, x):
        return self.net(x)[0]


class Scaled(nn.Module):
    """A layer and a parameter, which says in what dtype the network is."""

    def __init__(self, net):
        self.net = net
        self.scale = nn.Parameter((1,), nn.init.ones)

    def forward(self, x):
        return self.net(x) * self.scale


class Cell(nn.Module):
    """A cell that is told twice."""

    def __init__(self, cell):
        self.cell = cell

    def forward(self, x):
        state = self.cell(x, self.cell(x))
        return state[0] if isinstance(state, tuple) else state


class Decoder(nn.Module):
    def __init__(self):
        layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
        self.layer = nn.TransformerDecoder(layer, 2, nn.LayerNorm(8))

    def forward(self, x):
        return self.layer(x, x[:, :3, :])


class Attention(nn.Module):
    def __init__(self):
        self.heads = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.heads(x, x, x)


def layers():
    """Every layer, with the shape of one of its samples."""
    for name in ONE_BY_ONE:
        yield getattr(nn, name)(*SETTINGS.get(name, ())), (6,)
    yield nn.GELU(approximate="tanh"), (6,)
    yield nn.GLU(1), (6,)
    yield nn.Linear(6, 4), (6,)
    yield nn.Linear(6, 4, bias=False), (3, 6)
    yield nn.Linear(6, 4), (2, 3, 6)
    yield nn.Flatten(), (2, 3)
    yield nn.Unflatten(1, (2, -1)), (6, 3)
    for norm in (nn.LayerNorm(5), nn.LayerNorm((3, 5)), nn.LayerNorm(5, elementwise_affine=False)):
        yield norm, (3, 5)
    yield nn.LayerNorm(5, bias=False), (3, 5)
    yield nn.GroupNorm(2, 4), (4, 3, 2)
    yield nn.BatchNorm1d(3), (3,)
    yield nn.BatchNorm1d(3), (3, 5)
    yield nn.BatchNorm2d(3, affine=False), (3, 4, 5)
    yield nn.BatchNorm3d(3), (3, 2, 4, 5)
    yield nn.InstanceNorm1d(3), (3, 5)
    yield nn.InstanceNorm2d(3, affine=True), (3, 4, 5)
    yield nn.InstanceNorm3d(3), (3, 2, 4, 5)
    yield nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (4, 9)
    yield nn.Conv2d(2, 3, (3, 2), padding=(1, 0), dilation=(2, 1)), (2, 7, 8)
    yield nn.Conv2d(2, 3, 4, padding="same", bias=False), (2, 7, 8)
    yield nn.Conv3d(2, 4, (3, 2, 1), stride=(1, 2, 1), padding=(1, 0, 2), groups=2), (2, 3, 7, 4)
    yield nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, groups=2), (4, 5)
    yield nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 4, 5)
    yield nn.ConvTranspose3d(2, 3, (2, 3, 1), (1, 2, 1), (0, 1, 0), (0, 1, 0)), (2, 2, 4, 5)
    for pool in (nn.MaxPool3d, nn.AvgPool3d):
        yield pool((2, 3, 1), stride=(1, 2, 1), padding=(1, 0, 0)), (2, 3, 6, 4)
        yield pool(2, ceil_mode=True), (2, 3, 5, 4)
    for pool in (nn.MaxPool2d, nn.AvgPool2d):
        yield pool(2), (2, 6, 7)
        yield pool(3, stride=2, padding=1), (2, 7, 8)
        yield pool(3, stride=2, padding=1, ceil_mode=True), (2, 8, 8)
    yield nn.MaxPool2d(2, dilation=2), (2, 6, 7)
    yield nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), (2, 7, 8)
    yield nn.MaxPool1d(3, stride=2, padding=1), (2, 9)
    yield nn.AvgPool1d(3, stride=2, padding=1), (2, 9)
    for pool in (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d):
        yield pool((2, 3)), (2, 4, 6)
        yield pool((2, 3)), (2, 5, 7)
    for pool in (nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d):
        yield pool(2), (2, 5)
    for pool in (nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d):
        yield pool((1, 2, None)), (2, 3, 4, 2)
    yield nn.Dropout1d(), (3, 4)
    yield nn.Dropout2d(), (3, 4, 2)
    yield nn.Dropout3d(), (3, 4, 2, 2)
    for axes in (1, 2, 3):
        padding, shape = (1, 0, 2, 3, 1, 1)[: 2 * axes], (2, 3, 4, 2)[: axes + 1]
        yield getattr(nn, f"ZeroPad{axes}d")(padding), shape
        yield getattr(nn, f"ConstantPad{axes}d")(padding, 0.5), shape
    for name in ("Reflection", "Replication"):
        yield getattr(nn, f"{name}Pad1d")((2, 1)), (2, 3)
        yield getattr(nn, f"{name}Pad2d")((1, 0, 2, 3)), (2, 4, 4)
    yield nn.PixelShuffle(2), (8, 3, 2)
    yield nn.PixelUnshuffle(2), (2, 4, 6)
    yield nn.Upsample(scale_factor=2), (2, 3, 4)
    yield nn.Upsample(scale_factor=1.5, mode="bilinear"), (2, 3, 4)
    for kind in (nn.RNN, nn.LSTM, nn.GRU):
        yield First(kind(4, 5, batch_first=True)), (3, 4)
        yield First(kind(4, 5, num_layers=2, bidirectional=True, batch_first=True)), (3, 4)
        yield First(kind(4, 5, bias=False, batch_first=True)), (3, 4)
    yield First(nn.RNN(4, 5, nonlinearity="relu", batch_first=True)), (3, 4)
    for cell in (nn.RNNCell, nn.LSTMCell, nn.GRUCell):
        yield Cell(cell(4, 5)), (4,)
    yield Attention(), (5, 8)
    yield nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), (5, 8)
    yield Decoder(), (5, 8)
    yield nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)), (1, 4, 4)


LAYERS = list(layers())


def test_every_layer_is_among_them():
    kinds = {type(m) for net, _ in LAYERS for _, m in net.modules()} | {nn.Embedding, nn.Module}
    every = {v for v in vars(nn).values() if isinstance(v, type) and issubclass(v, nn.Module)}
    assert every - kinds == set()


@pytest.mark.parametrize("name", KERNELS)
def test_what_is_not_said_means_the_same_to_kernel_and_definition(name):
    kernel, definition = (
        {p.name: p.default for p in signature(f).parameters.values() if p.kind is p.KEYWORD_ONLY}
        for f in (KERNELS[name], getattr(functional, name))
    )
    assert {option: definition[option] for option in kernel} == kernel


def drawn(net, dtype="float32"):
    """The network with parameters and statistics that are not those it begins with."""
    net = net.init(seed=3, backend="numpy", dtype=dtype)
    rng = np.random.default_rng(0)
    return net.replace(
        {
            name: np.asarray(rng.uniform(0.5, 1.5, a.shape) * np.where(a == 0, 0.3, a), a.dtype)
            for name, a in net.state_dict().items()
        }
    )


def answers(path, **inputs):
    return onnxruntime.InferenceSession(path).run(None, inputs)


@pytest.mark.parametrize(("dtype", "near"), [("float32", 2e-6), ("float64", 1e-14)])
@pytest.mark.parametrize(("net", "shape"), LAYERS, ids=[repr(net) for net, _ in LAYERS])
def test_onnxruntime_gives_what_the_network_gives(net, shape, dtype, near, tmp_path):
    net, path = drawn(Scaled(net), dtype), tmp_path / "net.onnx"
    x = np.random.default_rng(1).normal(size=(6, *shape)).astype(dtype)
    export(net, x[:4], path)
    for count in (1, 4, 6):
        (y,) = answers(path, x=x[:count])
        expected = net(x[:count])
        assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(y, expected, rtol=near, atol=near)


class Person(nn.Module):
    """Two inputs, two outputs, of different dtypes, and parameters that nothing reads."""

    def __init__(self):
        self.words = nn.Embedding(7, 3)
        self.dense = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, text, numbers):
        both = self.norm(relu(self.words(text)[:, 0, :] + self.dense(numbers)))
        return {"score": both @ self.dense.weight, "sure": both > 0.5}


@pytest.mark.parametrize("backend", ["numpy", "strict"])
def test_several_inputs_and_outputs_have_their_names(backend, tmp_path):
    net, path = Person().init(seed=0, backend=backend), tmp_path / "person.onnx"
    x = {"text": np.asarray([[3], [0], [6]]), "numbers": np.ones((3, 2))}
    export(net, x, path)
    session = onnxruntime.InferenceSession(path)
    assert {i.name: (i.shape, i.type) for i in session.get_inputs()} == {
        "text": (["samples", 1], "tensor(int64)"),
        "numbers": (["samples", 2], "tensor(float)"),
    }
    outputs = {o.name: (o.shape, o.type) for o in session.get_outputs()}
    assert outputs == {
        "score": (["samples", 2], "tensor(float)"),
        "sure": (["samples", 3], "tensor(bool)"),
    }
    expected = net.to(backend="numpy")(x["text"], x["numbers"].astype("float32"))
    given = {"text": x["text"], "numbers": x["numbers"].astype("float32")}
    for name, y in zip(outputs, session.run(list(outputs), given), strict=True):
        np.testing.assert_allclose(y, expected[name], rtol=1e-6, atol=1e-6)


def test_the_file_holds_the_arrays_that_it_reads_by_their_names(tmp_path):
    net, path = drawn(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))), tmp_path / "net.onnx"
    export(net, np.zeros((1, 4)), path)
    graph = onnx.load(path).graph
    found = {a.name: onnx.numpy_helper.to_array(a) for a in graph.initializer}
    assert sorted(found) == sorted(set(net.state_dict()) - {"1.num_batches_tracked"})
    for name, array in found.items():
        np.testing.assert_array_equal(array, net.state_dict()[name])
    assert graph.name == "Sequential"


OPERATORS = [
    (nn.Linear(4, 3), (4,), "Gemm"),
    (nn.Linear(4, 3), (2, 4), "MatMul"),
    (nn.Conv2d(2, 3, 2), (2, 4, 4), "Conv"),
    (nn.ConvTranspose1d(2, 3, 2), (2, 4), "ConvTranspose"),
    (nn.MaxPool2d(2), (2, 4, 4), "MaxPool"),
    (nn.AvgPool2d(2), (2, 4, 4), "AveragePool"),
    (nn.LayerNorm(4), (4,), "LayerNormalization"),
    (nn.GELU(), (4,), "Gelu"),
    (nn.Softmax(1), (4,), "Softmax"),
    (First(nn.LSTM(4, 3, batch_first=True)), (2, 4), "LSTM"),
    (First(nn.GRU(4, 3, batch_first=True)), (2, 4), "GRU"),
    (First(nn.RNN(4, 3, batch_first=True)), (2, 4), "RNN"),
]


@pytest.mark.parametrize(("net", "shape", "operator"), OPERATORS, ids=[o for *_, o in OPERATORS])
def test_a_layer_is_the_operator_of_its_name(net, shape, operator, tmp_path):
    export(net.init(seed=0), np.zeros((1, *shape), np.float32), tmp_path / "net.onnx")
    nodes = [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert nodes.count(operator) == 1


class Of(nn.Module):
    """A function of one parameter and the inputs, as a network."""

    def __init__(self, function):
        self.function = function
        self.weight = nn.Parameter((3,), nn.init.ones)

    def forward(self, x, **inputs):
        return self.function(self.weight, x, **inputs)


@pytest.mark.parametrize("pool", [functional.max_pool, functional.avg_pool])
def test_samples_without_channels_are_pooled(pool, tmp_path):
    """Which ONNX's operator does not take."""
    net = Of(lambda w, x: pool(w * x, window=(2,), stride=(1,), padding=(1,))).init(seed=0)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    export(net, x[:2], tmp_path / "net.onnx")
    (y,) = answers(tmp_path / "net.onnx", x=x)
    np.testing.assert_allclose(y, net(x), rtol=1e-6)


def by_number(w, x):
    return w * x if float(x[0, 0]) > 0 else x


REFUSED = [
    (lambda w, x: w * x / x.shape[0], ValueError, "with other numbers"),
    (lambda w, x: sum(w * x[k, :] for k in range(x.shape[0])), ValueError, "other operations"),
    (
        lambda w, x: w * x[: x.shape[0] // 2 + 1, :],
        ValueError,
        "for another number of samples the network computes with shapes that do not grow evenly",
    ),
    (by_number, ValueError, "numbers"),
    (lambda w, x: {"x": w * x}, ValueError, "two of .* are called 'x'"),
]


@pytest.mark.parametrize(("function", "kind", "message"), REFUSED, ids=[m for *_, m in REFUSED])
def test_what_no_file_can_hold_is_refused(function, kind, message, tmp_path):
    net = Of(function).init(seed=0)
    with pytest.raises(kind, match=message) as caught:
        export(net, np.ones((4, 3), np.float32), tmp_path / "net.onnx")
    assert ("export" in str(caught.value)) or "no numbers" in caught.value.__notes__[0]
    assert list(tmp_path.iterdir()) == []


def test_an_input_that_is_called_as_a_parameter_is_refused(tmp_path):
    net = Of(lambda w, x, weight: w * x * weight).init(seed=0)
    x = dict.fromkeys(("x", "weight"), np.ones((4, 3), np.float32))
    with pytest.raises(ValueError, match=r"two of .* are called 'weight'"):
        export(net, x, tmp_path / "net.onnx")


def test_what_is_larger_than_a_file_can_be_is_refused(tmp_path, monkeypatch):
    net = nn.Linear(3, 2).init(seed=0)
    monkeypatch.setattr("polynet.onnx.MOST", 31)
    with pytest.raises(ValueError, match="take 32 bytes; an ONNX file holds at most 31"):
        export(net, np.ones((4, 3), np.float32), tmp_path / "net.onnx")


def test_a_folder_that_is_missing_is_said_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        export(nn.Linear(3, 2).init(seed=0), np.ones((4, 3)), tmp_path / "none" / "net.onnx")


def test_what_the_network_says_of_x_is_what_is_said(tmp_path):
    with pytest.raises(ValueError, match="Linear"):
        export(nn.Linear(3, 2).init(seed=0), np.ones((4, 5)), tmp_path / "net.onnx")


def test_what_is_no_network_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"net is a Trainer; expected .* such as trainer.net"):
        export(Trainer(nn.Linear(3, 2), losses.mse, optim.SGD(0.1)), np.ones((4, 3)), tmp_path)
