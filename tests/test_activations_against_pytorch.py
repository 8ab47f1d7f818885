"""Activations beside PyTorch's: over their options, at their kinks, and far from zero."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from beside_pytorch import DTYPES, compare, numbers, torch, total

from polynet import functional, nn, value_and_grad
from polynet.backend import to_numpy

PLAIN = (
    "ReLU ReLU6 Hardsigmoid Hardswish Tanh Tanhshrink Softsign Sigmoid LogSigmoid SELU SiLU "
    "Mish GELU LeakyReLU PReLU Hardtanh Hardshrink Softshrink Softplus ELU CELU".split()
)
OPTIONS: dict[str, list[dict[str, Any]]] = {
    **{name: [{}] for name in PLAIN},
    "LeakyReLU": [{}, {"negative_slope": 0.3}, {"negative_slope": 0.0}],
    "PReLU": [{}, {"num_parameters": 4}, {"num_parameters": 4, "init": -0.5}],
    "Hardtanh": [{}, {"min_val": -0.5}, {"min_val": 1, "max_val": 3}],
    "Hardshrink": [{}, {"lambd": 0.0}, {"lambd": 1.0}],
    "Softshrink": [{}, {"lambd": 0.0}, {"lambd": 1.0}],
    "Threshold": [{"threshold": 0.5, "value": -3}, {"threshold": -1, "value": 2}],
    "Softplus": [{}, {"beta": 3.0}, {"beta": 0.5, "threshold": 1}],
    "ELU": [{}, {"alpha": 0.0}, {"alpha": 2.5}],
    "CELU": [{}, {"alpha": 0.25}, {"alpha": 2.5}],  # PyTorch rounds its slope's to float32
    "GELU": [{}, {"approximate": "tanh"}],
}
CASES = [
    pytest.param(name, options, id=f"{name}{options or ''}")
    for name, several in OPTIONS.items()
    for options in several
]
KINKS = np.asarray([-3, -1, -0.5, 0, 0.5, 1, 2, 3, 6, -2.0, 4, 40])


class Sixth(torch.nn.Module):
    """Hardsigmoid as PyTorch documents it; the slope of PyTorch's own is 1/6 rounded to float32."""

    def forward(self, x: Any) -> Any:
        return torch.nn.functional.relu6(x + 3) / 6


def twins(name: str, options: dict[str, Any]) -> tuple[nn.Module, Any]:
    theirs = Sixth if name == "Hardsigmoid" else getattr(torch.nn, name)
    return getattr(nn, name)(**options), theirs(**options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 4), (2, 4, 3, 2)], ids=str)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_activation(name: str, options: dict[str, Any], shape: tuple[int, ...], dtype: str) -> None:
    compare(*twins(name, options), [3 * numbers(*shape)], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1, -1, 250, -250])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_at_the_kinks_and_far_from_zero(
    name: str, options: dict[str, Any], scale: int, dtype: str
) -> None:
    compare(*twins(name, options), [scale * KINKS.reshape(3, 4)], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_no_overflow_and_nan_passes(name: str, options: dict[str, Any], dtype: str) -> None:
    net = twins(name, options)[0].init(seed=0, backend="numpy", dtype=dtype)
    x = np.asarray([[1e4, -1e4, 1e18, -1e18], [1e3, -1e3, 88.8, -88.8]], dtype=dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, (slopes, back) = value_and_grad(lambda p, a: total(net.bind(p)(a)), (0, 1))(
            net.parameters(), x
        )
    assert all(np.isfinite(a).all() for a in (y, back, *slopes.values()))
    assert np.isnan(net(np.full((1, 4), math.nan, dtype=dtype))).all()


AXES: dict[str, Callable[[Any], Any]] = {
    "Softmax": torch.nn.Softmax,
    "LogSoftmax": torch.nn.LogSoftmax,
    "Softmin": torch.nn.Softmin,
    "GLU": torch.nn.GLU,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("scale", [1, 100])
@pytest.mark.parametrize("name", AXES)
def test_along_an_axis(name: str, scale: int, axis: int, dtype: str) -> None:
    x = np.round(scale * numbers(4, 2, 6), 3)
    compare(getattr(nn, name)(axis), AXES[name](axis), [x], dtype)


def test_settings_are_said_as_they_were_given() -> None:
    net = nn.Sequential(nn.ReLU(), nn.Hardtanh(max_val=2), nn.GELU("tanh"), nn.PReLU(3))
    assert [repr(layer) for layer in net] == [
        *("ReLU()", "Hardtanh(min_val=-1.0, max_val=2.0)", "GELU(approximate=tanh)", "PReLU(3)")
    ]


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: nn.Hardtanh(1.0, 1.0), ValueError, "min_val is below max_val"),
        (lambda: nn.Softshrink(-1.0), ValueError, "at least 0; got -1.0"),
        (lambda: nn.CELU(0), ValueError, "not 0"),
        (lambda: nn.GELU("tan"), ValueError, "Did you mean 'tanh'"),
        (lambda: nn.PReLU(0), ValueError, "num_parameters is a positive integer; got 0"),
        (lambda: nn.GLU()(np.ones((2, 3))), ValueError, "even length"),
        (
            lambda: nn.PReLU(3).init(0, backend="numpy")(np.ones((2, 4), dtype="float32")),
            ValueError,
            r"\(batch, 3, …\), got \(2, 4\)",
        ),
        (
            lambda: nn.PReLU().init(0, backend="numpy")(np.ones((2, 4))),
            TypeError,
            "inputs are float64",
        ),
    ],
)
def test_what_cannot_be(make: Callable[[], Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make()


def test_functions_take_what_layers_take() -> None:
    """A layer is its function with the same options, and the same defaults."""
    x = np.linspace(-8, 8, 20)
    for name, several in OPTIONS.items():
        for options in several:
            if name != "PReLU":
                layer = getattr(nn, name)(**options)
                function = getattr(functional, type(layer)._function.__name__)
                np.testing.assert_array_equal(to_numpy(function(x, **options)), layer(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_of_the_largest_number(approximate: str, dtype: str) -> None:
    x = np.asarray([np.finfo(dtype).max])
    np.testing.assert_array_equal(functional.gelu(x, approximate=approximate), x)


def test_prelu_of_one_number_is_one_number() -> None:
    y = nn.PReLU().init(seed=0, backend="numpy")(np.asarray(-2.0, dtype="float32"))
    assert (y.shape, float(y)) == ((), -0.5)
