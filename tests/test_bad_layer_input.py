"""What layers and optimizers refuse, with the reason; and that NumPy's integers are integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from polynet import functional, nn, optim
from polynet.backend import asarray, to_numpy
from polynet.optim import schedules

Made = Callable[[Callable[[int], Any]], Any]

# Settings, each of which may be NumPy's integer

BY_NUMBERS: dict[str, Made] = {
    "Linear": lambda n: nn.Linear(n(4), n(6)),
    "Embedding": lambda n: nn.Embedding(n(3), n(4), n(2)),
    "Conv2d": lambda n: nn.Conv2d(n(4), n(6), (n(3), n(1)), n(2), n(1), n(1), n(2)),
    "ConvTranspose1d": lambda n: nn.ConvTranspose1d(n(4), n(6), n(3), n(2), n(1), n(1)),
    "Conv3d": lambda n: nn.Conv3d(n(4), n(6), (n(3), n(1), n(2)), n(2), n(1)),
    "MaxPool2d": lambda n: nn.MaxPool2d(n(2), n(1), n(1), n(2)),
    "AvgPool1d": lambda n: nn.AvgPool1d(n(2), n(1)),
    "AdaptiveAvgPool2d": lambda n: nn.AdaptiveAvgPool2d((n(2), None)),
    "AdaptiveMaxPool1d": lambda n: nn.AdaptiveMaxPool1d(n(2)),
    "Upsample": lambda n: nn.Upsample((n(4), n(6))),
    "ZeroPad2d": lambda n: nn.ZeroPad2d((n(1), n(0), n(2), n(3))),
    "ConstantPad1d": lambda n: nn.ConstantPad1d((n(1), n(0)), 2.0),
    "ReflectionPad1d": lambda n: nn.ReflectionPad1d(n(2)),
    "PixelShuffle": lambda n: nn.PixelShuffle(n(2)),
    "PixelUnshuffle": lambda n: nn.PixelUnshuffle(n(2)),
    "Unflatten": lambda n: nn.Unflatten(1, (n(2), n(3))),
    "BatchNorm1d": lambda n: nn.BatchNorm1d(n(4)),
    "LayerNorm": lambda n: nn.LayerNorm(n(4)),
    "RMSNorm": lambda n: nn.RMSNorm([n(3), n(4)]),
    "GroupNorm": lambda n: nn.GroupNorm(n(2), n(4)),
    "InstanceNorm2d": lambda n: nn.InstanceNorm2d(n(4), affine=True),
    "PReLU": lambda n: nn.PReLU(n(4)),
    "MultiheadAttention": lambda n: nn.MultiheadAttention(n(4), n(2)),
    "TransformerDecoderLayer": lambda n: nn.TransformerDecoderLayer(n(4), n(2), n(8)),
    "TransformerEncoderLayer": lambda n: nn.TransformerEncoderLayer(n(4), n(2), n(8)),
    "TransformerEncoder": lambda n: nn.TransformerEncoder(nn.Identity(), n(2)),
    "LSTM": lambda n: nn.LSTM(n(4), n(3), n(2)),
    "GRUCell": lambda n: nn.GRUCell(n(4), n(3)),
    "StepLR": lambda n: schedules.StepLR(0.1, n(3)),
    "MultiStepLR": lambda n: schedules.MultiStepLR(0.1, [n(3), n(5)]),
    "MultiStepLR of an array": lambda n: schedules.MultiStepLR(0.1, np.asarray([n(3), n(5)])),
    "LinearLR": lambda n: schedules.LinearLR(0.1, total_iters=n(3)),
    "ConstantLR": lambda n: schedules.ConstantLR(0.1, total_iters=n(3)),
    "PolynomialLR": lambda n: schedules.PolynomialLR(0.1, n(3)),
    "OneCycleLR": lambda n: schedules.OneCycleLR(0.1, n(30)),
    "WarmRestarts": lambda n: schedules.CosineAnnealingWarmRestarts(0.1, n(9), n(2)),
    "CosineAnnealingLR": lambda n: schedules.CosineAnnealingLR(0.1, T_max=n(9)),
}


def plain(value: Any) -> Any:
    """What a setting is, with the types of its numbers."""
    if isinstance(value, nn.Module | nn.Parameter | nn.Buffer):
        return {name: plain(inside) for name, inside in vars(value).items()}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return (type(value), value) if isinstance(value, int | np.integer) else type(value)


@pytest.mark.parametrize("name", BY_NUMBERS)
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.asarray])
def test_numpys_integers_are_integers(kind: Any, name: str) -> None:
    """And become Python's, so that nothing of NumPy's goes further, to a file or a library."""
    found, expected = BY_NUMBERS[name](kind), BY_NUMBERS[name](int)
    assert repr(found) == repr(expected)
    if isinstance(found, nn.Module):
        assert plain(found) == plain(expected)


@pytest.mark.parametrize("name", BY_NUMBERS)
@pytest.mark.parametrize("kind", [bool, np.bool_, float, np.float64, str, lambda n: [[n]]])
def test_what_is_no_integer_is_refused(kind: Any, name: str) -> None:
    with pytest.raises(ValueError, match=r"positive|integer from"):
        BY_NUMBERS[name](kind)


# Errors: what is done, the error, words that its message must hold

F32 = np.ones((2, 3, 4), "float32")


def drawn(net: nn.Module) -> nn.Module:
    return net.init(seed=0, backend="numpy")


def attention(**masks: Any) -> Any:
    return drawn(nn.MultiheadAttention(4, 2, batch_first=True))(F32, F32, F32, **masks)


class Halved(nn.Module):
    def forward(self, x: Any) -> Any:
        return x / np.sqrt(4.0)


class Width(nn.Module):
    weight = None

    @property
    def width(self) -> Any:
        return self.weight.shape[0]

    @property
    def depth(self) -> Any:
        return len(self.layers)


CASES: dict[str, tuple[Callable[[], Any], type[BaseException], str]] = {
    "softmax's dim": (
        lambda: nn.Softmax(None),
        ValueError,
        r"Softmax: dim is an integer; got None",
    ),
    "flatten's dim": (lambda: nn.Flatten(1.5), ValueError, r"Flatten: start_dim.*got 1\.5"),
    "flattening what there is not": (
        lambda: nn.Flatten(0, 3)(F32),
        ValueError,
        r"Flatten\(0, 3\): expected.*with axes from 0 to 3, got \(2, 3, 4\)",
    ),
    "flattening backwards": (lambda: nn.Flatten(2, -2)(F32), ValueError, r"from 2 to -2, got"),
    "betas": (lambda: optim.Adam(betas=0.9), ValueError, r"Adam: betas are a pair.*got 0\.9"),
    "three betas": (
        lambda: optim.NAdam(betas=(0.9, 0.9, 0.9)),
        ValueError,
        r"NAdam: betas are a pair",
    ),
    "an initialiser by name": (
        lambda: nn.Linear(3, 2, weight_init="zeros"),
        TypeError,
        r"an initialiser is a function.*; got 'zeros'\. Did you mean 'nn\.init\.zeros'\?",
    ),
    "an initialiser by a wrong name": (
        lambda: nn.Conv2d(3, 2, 1, bias_init="kaiming_norm"),
        TypeError,
        r"got 'kaiming_norm'\. Did you mean 'nn\.init\.kaiming_normal'\?",
    ),
    "a number as initialiser": (
        lambda: nn.Embedding(3, 2, weight_init=0.0),
        TypeError,
        r"such as nn\.init\.zeros; got 0\.0$",
    ),
    "a parameter's initialiser": (lambda: nn.Parameter((3,), None), TypeError, r"got None"),
    "a parameter without initialiser": (
        lambda: nn.Parameter((2, 1)),
        TypeError,
        r"give the initialiser too: nn\.Parameter\(\(2, 1\), nn\.init\.normal",
    ),
    "what makes an initialiser": (
        lambda: nn.Parameter((2, 1), nn.init.normal),
        TypeError,
        r"nn\.init\.normal makes an initialiser: call it, nn\.init\.normal\(…\)$",
    ),
    "what makes a layer's initialiser": (
        lambda: nn.Linear(2, 1, weight_init=nn.init.kaiming_normal),
        TypeError,
        r"call it, nn\.init\.kaiming_normal\(…\)$",
    ),
    "an initialiser of no array": (
        lambda: drawn(nn.Linear(2, 1, weight_init=lambda key, shape: [1.0])),
        ValueError,
        r"parameter 'weight' has shape \(1, 2\), but its initialiser drew a list$",
    ),
    "a number as shape": (
        lambda: nn.Parameter(2, nn.init.ones),
        TypeError,
        r"^Parameter: the shape is a tuple.*such as \(2, 1\) or \(2,\); got 2$",
    ),
    "a size below 0": (
        lambda: nn.Buffer((2, -1), nn.init.ones),
        TypeError,
        r"^Buffer: .*got \(2, -1\)$",
    ),
    "an array as shape": (
        lambda: nn.Parameter(np.zeros((2, 1)), nn.init.ones),
        TypeError,
        r"got an array: give its shape, \(2, 1\)$",
    ),
    "a list as weight": (
        lambda: drawn(nn.Linear(2, 1)).replace({"weight": [[1, 2]]}),
        TypeError,
        r"'weight' is replaced by an array; got a list: make one with polynet\.asarray$",
    ),
    "a class in Sequential": (
        lambda: nn.Sequential(nn.Linear(1, 5), nn.Tanh),
        TypeError,
        r"^Sequential: layer 1 is the class Tanh itself: give an instance, nn\.Tanh\(\)$",
    ),
    "a class that needs settings": (
        lambda: nn.Sequential(nn.Linear),
        TypeError,
        r"give an instance, nn\.Linear\(…\)$",
    ),
    "a class whose settings have defaults": (
        lambda: nn.Sequential(nn.Dropout),
        TypeError,
        r"give an instance, nn\.Dropout\(\)$",
    ),
    "a class of one's own": (
        lambda: nn.Sequential(Width),
        TypeError,
        r"layer 0 is the class Width itself: give an instance, Width\(\)$",
    ),
    "a function in Sequential": (
        lambda: nn.Sequential(np.tanh),
        TypeError,
        r"layer 0 is a function, tanh: give a layer of nn, such as nn\.Tanh\(\), or a Module whose",
    ),
    "a number in Sequential": (
        lambda: nn.Sequential(3),
        TypeError,
        r"is a int; expected a Module, such as nn\.Linear\(4, 2\)$",
    ),
    "a class in a TransformerEncoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer, 6),
        TypeError,
        r"^TransformerEncoder: encoder_layer is the class TransformerEncoderLayer itself: give an",
    ),
    "a function in a TransformerDecoder": (
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2), 6, np.tanh),
        TypeError,
        r"^TransformerDecoder: norm is a function, tanh: give a layer of nn",
    ),
    "a layer that there is not": (
        lambda: nn.Sequential(nn.ReLU(), nn.ReLU())[2],
        IndexError,
        r"^Sequential\(\) has 2 layers, numbered from 0; got 2$",
    ),
    "a layer before the first": (
        lambda: nn.Sequential(nn.ReLU())[-2],
        IndexError,
        r"has 1 layers, numbered from 0; got -2$",
    ),
    "a recurrent layer in Sequential": (
        lambda: drawn(nn.Sequential(nn.LSTM(4, 3), nn.Linear(3, 2)))(F32),
        TypeError,
        r"'1', Linear\(3, 2\): .*layer '0', LSTM\(4, 3\) returned.*pair \(outputs, state\)",
    ),
    "a recurrent layer before Sequential": (
        lambda: drawn(nn.Sequential(nn.GRU(4, 3), nn.Sequential(nn.ReLU())))(F32),
        TypeError,
        r"layer '1\.0', ReLU\(\): expected one array, but the input is a tuple",
    ),
    "key_padding_mask": (
        lambda: attention(key_padding_mask=np.zeros((3, 2), bool)),
        ValueError,
        r"MultiheadAttention\(4, 2\): key_padding_mask has.*\(3, 2\); expected \(2, 3\).*\(batch, ",
    ),
    "attn_mask": (
        lambda: attention(attn_mask=np.zeros((2, 3), "float32")),
        ValueError,
        r"MultiheadAttention\(4, 2\): attn_mask.*\(2, 3\); expected \(3, 3\).*\(targets, sources\)",
    ),
    "blending whole numbers": (
        lambda: nn.Upsample(2, mode="linear")(np.ones((2, 3, 4), "int32")),
        TypeError,
        r"interpolate: mode 'linear' blends floating numbers, not int32",
    ),
    "rows of another length": (
        lambda: functional.interpolate(F32[0], size=2),
        ValueError,
        r"interpolate: expected shape \(batch, channels, width\) or .*width\), got \(3, 4\)",
    ),
    "a size for more axes than there are": (
        lambda: functional.interpolate(F32, size=(4, 6)),
        ValueError,
        r"interpolate: expected shape \(batch, channels, height, width\), got \(2, 3, 4\)",
    ),
    "a size for more axes than images have": (
        lambda: nn.Upsample((2, 2, 2)),
        ValueError,
        r"Upsample: size is a positive integer, .*, 1 or 2 of them; got \(2, 2, 2\)",
    ),
    "a scale that is a truth value": (
        lambda: nn.Upsample(scale_factor=True),
        ValueError,
        r"Upsample: scale_factor is a positive number, .*; got True",
    ),
    "resampling an axis without numbers": (
        lambda: functional.interpolate(F32[:, :, :0], size=2),
        ValueError,
        r"interpolate: expected shape \(batch, channels, width\) .*got \(2, 3, 0\)",
    ),
    "pooling an axis without numbers": (
        lambda: functional.adaptive_avg_pool(F32[:, :, :0], sizes=(2,)),
        ValueError,
        r"adaptive pooling into \(2,\) needs a number .* axes; got .* shape \(2, 3, 0\)",
    ),
    "groups that do not divide": (
        lambda: nn.GroupNorm(4, 6),
        ValueError,
        r"^GroupNorm: 4 groups do not divide 6 channels$",
    ),
    "a cell's inputs of another dtype": (
        lambda: drawn(nn.GRUCell(4, 2))(F32[0].astype("float64")),
        TypeError,
        r"GRUCell\(4, 2\): the inputs are float64, the parameters float32",
    ),
    "values of another dtype": (
        lambda: drawn(nn.MultiheadAttention(4, 2))(F32, F32, F32.astype("float64")),
        TypeError,
        r"MultiheadAttention\(4, 2\): the inputs are float64, the parameters float32",
    ),
    "keys of one sample": (
        lambda: drawn(nn.MultiheadAttention(4, 2, batch_first=True))(F32, F32[:1], F32[:1]),
        ValueError,
        r"shapes \(2, 3, 4\), \(1, 3, 4\), \(1, 3, 4\); expected .* number of samples, on axis 0",
    ),
    "memory of one sample": (
        lambda: drawn(nn.TransformerDecoderLayer(4, 2))(F32, F32[:, :1, :]),
        ValueError,
        r"'multihead_attn'.* shapes .*; expected .* same number of samples",
    ),
    "an activation by name": (
        lambda: nn.TransformerEncoderLayer(4, 2, activation="gelu"),
        TypeError,
        r"^TransformerEncoderLayer: activation is a function of .* functional\.gelu; got 'gelu'$",
    ),
    "an activation's class": (
        lambda: nn.TransformerDecoderLayer(4, 2, activation=nn.GELU),
        TypeError,
        r"^TransformerDecoderLayer: activation is a function of .*; got <class .*GELU'>$",
    ),
    "fewer values than keys": (
        lambda: drawn(nn.MultiheadAttention(4, 2))(F32, F32, F32[:1]),
        ValueError,
        r"\(1, 3, 4\); expected a value for each key",
    ),
    "a mask of each sample": (
        lambda: attention(attn_mask=np.zeros((2, 3, 3), bool)),
        ValueError,
        r"attn_mask has shape \(2, 3, 3\); expected \(3, 3\)",
    ),
    "padding beyond the table": (
        lambda: nn.Embedding(3, 2, 3),
        ValueError,
        "Embedding: padding_idx is from -3 to 2; got 3",
    ),
    "looking up booleans": (
        lambda: drawn(nn.Embedding(3, 2))(np.ones(2, bool)),
        TypeError,
        r"Embedding\(3, 2\): the inputs are bool; expected integers",
    ),
    "looking up numbers": (
        lambda: drawn(nn.Embedding(3, 2))(np.ones(2)),
        TypeError,
        r"the inputs are float64; expected integers",
    ),
    "a NumPy number between two layers": (
        lambda: drawn(nn.Sequential(Halved(), nn.Linear(4, 2)))(F32),
        TypeError,
        r"layer '1', Linear\(4, 2\): the inputs are float64.*write float\(np\.sqrt\(2\)\) for",
    ),
    "a property's own error": (lambda: Width().width, AttributeError, r"'NoneType'.*'shape'"),
    "a property's missing attribute": (lambda: Width().depth, AttributeError, r"Width.*'layers'$"),
    "a missing attribute": (
        lambda: Width().height,
        AttributeError,
        r"Width has no attribute 'height'",
    ),
    "LSTM's dropout by position": (
        lambda: nn.LSTM(4, 3, 2, 0.2),
        ValueError,
        r"^LSTM: bias is True or False; got 0\.2$",
    ),
    "a word for no": (
        lambda: nn.GRU(4, 3, batch_first="False"),
        ValueError,
        r"^GRU: batch_first is True or False; got 'False'$",
    ),
    "JAX's way to ask for the exact GELU": (
        lambda: functional.gelu(F32, approximate=False),
        ValueError,
        r"unknown approximate False\. Expected one of: none, tanh\.",
    ),
    "SGD by position": (lambda: optim.SGD(0.1, 0.9, 1e-4), TypeError, r"positional arguments"),
}


@pytest.mark.parametrize("case", CASES)
def test_error_says_what_and_where_and_what_to_do(case: str) -> None:
    action, kind, words = CASES[case]
    with pytest.raises(kind, match=words):
        action()


NORMS: dict[str, Callable[[Any], nn.Module]] = {
    "BatchNorm1d": lambda eps: nn.BatchNorm1d(3, eps),
    "GroupNorm": lambda eps: nn.GroupNorm(1, 3, eps),
    "InstanceNorm2d": lambda eps: nn.InstanceNorm2d(3, eps),
    "LayerNorm": lambda eps: nn.LayerNorm(3, eps),
    "RMSNorm": lambda eps: nn.RMSNorm(3, eps),
}


@pytest.mark.parametrize("eps", [-1e-5, np.nan, np.inf, True, "1e-5"])
@pytest.mark.parametrize("name", NORMS)
def test_a_variance_gets_no_less_than_0_added(name: str, eps: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: eps is a number, at least 0; got {eps!r}$"):
        NORMS[name](eps)


ONE_SAMPLE: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "an image": (nn.Conv2d(3, 2, 3), (3, 16, 16), "None, ..."),
    "an image of other channels": (nn.Conv2d(3, 2, 3), (16, 16, 3), ""),
    "images of other channels": (nn.Conv2d(3, 2, 3), (2, 4, 16, 16), ""),
    "samples without channels, or one": (nn.MaxPool1d(2), (3, 16), ""),
    "a sequence": (nn.Conv1d(3, 2, 1), (3, 16), "None, ..."),
    "numbers": (nn.Flatten(), (4,), "None, ..."),
    "groups": (nn.GroupNorm(2, 4), (4, 8, 8), "None, ..."),
    "groups of other channels": (nn.GroupNorm(2, 4), (3, 8, 8), ""),
    "instances of other channels": (nn.InstanceNorm1d(3), (2, 4, 9), ""),
    "one of two shapes": (nn.BatchNorm1d(3), (3,), "None, ..."),
    "the other": (nn.BatchNorm1d(3), (3, 9), "None, ..."),
    "neither": (nn.BatchNorm1d(3), (4, 9), ""),
    "times": (nn.LSTM(4, 2), (7, 4), ":, None, ..."),
    "times, batch first": (nn.GRU(4, 2, batch_first=True), (7, 4), "None, ..."),
    "a word": (nn.MultiheadAttention(4, 2, batch_first=True), (7, 4), "None, ..."),
}


@pytest.mark.parametrize("case", ONE_SAMPLE)
def test_one_sample_is_told_apart_from_a_batch(case: str) -> None:
    layer, shape, index = ONE_SAMPLE[case]
    net, x = drawn(layer), np.ones(shape, "float32")
    inputs = 3 if isinstance(layer, nn.MultiheadAttention) else 1
    with pytest.raises(ValueError, match="expected inputs of shape") as error:
        net(*[x] * inputs)
    _, told, todo = str(error.value).partition("One sample is a batch of one: ")
    assert todo == (f"x[{index}]" if index else "")
    if told:
        batch = eval(todo, {"x": x})
        outputs = net(*[batch] * inputs)
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        assert 1 in first.shape[:2]


def test_channels_that_are_last_are_told_where_to_go() -> None:
    net, x = drawn(nn.Conv2d(3, 2, 3)), np.ones((2, 8, 9, 3), "float32")
    with pytest.raises(ValueError, match=r"expected .*, got \(2, 8, 9, 3\)") as caught:
        net(x)
    (note,) = caught.value.__notes__
    assert net(eval(note.rpartition(": ")[2], {"np": np, "x": x})).shape == (2, 2, 6, 7)
    with pytest.raises(ValueError, match="expected") as caught:
        net(x[..., :2])
    assert not hasattr(caught.value, "__notes__")


def test_a_layer_of_ones_own_may_take_what_a_recurrent_layer_returns() -> None:
    class Last(nn.Module):
        def forward(self, pair: Any) -> Any:
            return pair[0][-1, ...]

    net = drawn(nn.Sequential(nn.LSTM(4, 3), Last(), nn.Linear(3, 2)))
    assert net(F32).shape == (3, 2)


def test_initialisers_are_known_by_their_names() -> None:
    public = {
        name for name, f in vars(nn.init).items() if "nn.init" in getattr(f, "__module__", "")
    }
    named = {name for name in public if name[0] != "_"} | {"ones", "zeros"}
    assert named - {"check_initialiser", "text_of"} == set(nn.init.__all__) - {"Initialiser"}


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_integers_out_of_range_do_what_embedding_says(name: str) -> None:
    if name != "numpy":
        pytest.importorskip(name, reason=f"{name} is not installed")
    net = nn.Embedding(3, 2).init(seed=0, backend=name)
    look = lambda i: to_numpy(net(asarray(np.asarray([i], "int32"), backend=name)))
    assert look(-1).tolist() == look(2).tolist()
    for beyond in (3, -4):
        if name == "jax":
            assert np.isnan(look(beyond)).all()
        else:
            with pytest.raises(IndexError) as caught:
                look(beyond)
            assert "Embedding(3, 2): inputs count from 0 to 2" in caught.value.__notes__[0]
