"""What layers and optimizers refuse, with the reason; and that NumPy's integers are integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from polynet import nn, optim
from polynet.optim import schedules

Made = Callable[[Callable[[int], Any]], Any]

# Settings, each of which may be NumPy's integer

BY_NUMBERS: dict[str, Made] = {
    "Linear": lambda n: nn.Linear(n(4), n(6)),
    "Embedding": lambda n: nn.Embedding(n(3), n(4)),
    "Conv2d": lambda n: nn.Conv2d(n(4), n(6), (n(3), n(1)), n(2), n(1), n(1), n(2)),
    "ConvTranspose1d": lambda n: nn.ConvTranspose1d(n(4), n(6), n(3), n(2), n(1), n(1)),
    "MaxPool2d": lambda n: nn.MaxPool2d(n(2), n(1), n(1), n(2)),
    "AvgPool1d": lambda n: nn.AvgPool1d(n(2), n(1)),
    "AdaptiveAvgPool2d": lambda n: nn.AdaptiveAvgPool2d((n(2), None)),
    "AdaptiveMaxPool1d": lambda n: nn.AdaptiveMaxPool1d(n(2)),
    "ZeroPad2d": lambda n: nn.ZeroPad2d((n(1), n(0), n(2), n(3))),
    "BatchNorm1d": lambda n: nn.BatchNorm1d(n(4)),
    "LayerNorm": lambda n: nn.LayerNorm(n(4)),
    "RMSNorm": lambda n: nn.RMSNorm([n(3), n(4)]),
    "GroupNorm": lambda n: nn.GroupNorm(n(2), n(4)),
    "InstanceNorm2d": lambda n: nn.InstanceNorm2d(n(4), affine=True),
    "PReLU": lambda n: nn.PReLU(n(4)),
    "MultiheadAttention": lambda n: nn.MultiheadAttention(n(4), n(2)),
    "TransformerEncoderLayer": lambda n: nn.TransformerEncoderLayer(n(4), n(2), n(8)),
    "LSTM": lambda n: nn.LSTM(n(4), n(3), n(2)),
    "GRUCell": lambda n: nn.GRUCell(n(4), n(3)),
    "StepLR": lambda n: schedules.StepLR(0.1, n(3)),
    "MultiStepLR": lambda n: schedules.MultiStepLR(0.1, [n(3), n(5)]),
    "MultiStepLR of an array": lambda n: schedules.MultiStepLR(0.1, np.asarray([n(3), n(5)])),
    "LinearLR": lambda n: schedules.LinearLR(0.1, total_iters=n(3)),
    "OneCycleLR": lambda n: schedules.OneCycleLR(0.1, n(30)),
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
    "SGD by position": (lambda: optim.SGD(0.1, 0.9, 1e-4), TypeError, r"positional arguments"),
}


@pytest.mark.parametrize("case", CASES)
def test_error_says_what_and_where_and_what_to_do(case: str) -> None:
    action, kind, words = CASES[case]
    with pytest.raises(kind, match=words):
        action()
