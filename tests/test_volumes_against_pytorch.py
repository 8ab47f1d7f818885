"""Layers for volumes beside PyTorch's, over their options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from beside_pytorch import TOLERANCE, compare, numbers, torch

from polynet import nn

KERNELS = [1, 2, (1, 2, 3)]
VOLUME = (2, 4, 4, 5, 6)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("stride", "padding"), [(1, 0), (1, "same"), (1, (1, 0, 2)), ((2, 1, 3), 0), (2, (1, 0, 2))]
)
@pytest.mark.parametrize(("groups", "bias", "dilation"), [(1, True, 1), (2, False, (2, 1, 1))])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_conv3d(
    kernel: Any, stride: Any, padding: Any, groups: int, bias: bool, dilation: Any, dtype: str
) -> None:
    args = (4, 6, kernel, stride, padding, dilation, groups, bias)
    compare(nn.Conv3d(*args), torch.nn.Conv3d(*args), [numbers(*VOLUME)], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("stride", "more"), [(1, 0), ((2, 1, 3), (1, 0, 2))])
@pytest.mark.parametrize("padding", [0, (1, 0, 2)])
@pytest.mark.parametrize(("groups", "bias", "dilation"), [(1, True, 1), (2, False, (2, 1, 1))])
def test_conv_transpose3d(
    kernel: Any,
    stride: Any,
    more: Any,
    padding: Any,
    groups: int,
    bias: bool,
    dilation: Any,
    dtype: str,
) -> None:
    args = (4, 6, kernel, stride, padding, more, groups, bias, dilation)
    ours, theirs = nn.ConvTranspose3d(*args), torch.nn.ConvTranspose3d(*args)
    compare(ours, theirs, [numbers(2, 4, 4, 3, 5)], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kernel", [2, (1, 3, 2)])
@pytest.mark.parametrize("stride", [None, (2, 1, 3)])
@pytest.mark.parametrize("padding", [0, (0, 1, 1)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Max", {}),
        ("Max", {"dilation": (2, 1, 1)}),
        ("Max", {"ceil_mode": True}),
        ("Avg", {}),
        ("Avg", {"count_include_pad": False}),
        ("Avg", {"count_include_pad": False, "ceil_mode": True}),
    ],
)
def test_pooling(
    kind: str, options: dict[str, Any], padding: Any, stride: Any, kernel: Any, dtype: str
) -> None:
    ours, theirs = (getattr(m, f"{kind}Pool3d") for m in (nn, torch.nn))
    x = np.round(numbers(2, 2, 4, 5, 6))  # with ties
    settings = (kernel, stride, padding)
    compare(ours(*settings, **options), theirs(*settings, **options), [x], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [1, 3, (2, 5, None), (None, 1, 4)], ids=str)
@pytest.mark.parametrize("kind", ["Avg", "Max"])
def test_adaptive_pooling(kind: str, size: Any, dtype: str) -> None:
    ours, theirs = (getattr(m, f"Adaptive{kind}Pool3d") for m in (nn, torch.nn))
    compare(ours(size), theirs(size), [np.round(numbers(2, 2, 4, 5, 6))], dtype)


def test_a_nan_wins_in_max_pool3d() -> None:
    for place in range(8):
        x = np.arange(8.0)
        x[place] = np.nan
        assert np.isnan(nn.MaxPool3d(2)(x.reshape(1, 1, 2, 2, 2))).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("affine", [True, False])
def test_instance_norm3d(affine: bool, dtype: str) -> None:
    ours, theirs = (m.InstanceNorm3d(3, 0.1, affine=affine) for m in (nn, torch.nn))
    compare(ours, theirs, [3 + numbers(2, 3, 2, 4, 3)], dtype)


F32 = np.ones((2, 4, 3, 5, 6), "float32")


@pytest.mark.parametrize(
    ("make", "x", "said"),
    [
        (lambda: nn.Conv3d(4, 3, (1, 2)), None, r"an integer from 1 or 3 of them; got \(1, 2\)"),
        (lambda: nn.Conv3d(3, 2, 1), F32, r"\(batch, 3, depth, height, width\), got \(2, 4, 3, 5"),
        (lambda: nn.Conv3d(4, 2, 4), F32, r"\(4, 4, 4\) does not fit into \(3, 5, 6\)"),
        (lambda: nn.Conv3d(2, 2, 1), F32[0, :2], r"One sample is a batch of one: x\[None, ...\]"),
        (lambda: nn.ConvTranspose3d(4, 2, 1, padding=2), F32, "its padding leaves nothing"),
        (lambda: nn.MaxPool3d(2), F32[0], r"\(batch, channels, depth, height, width\), got"),
        (lambda: nn.AvgPool3d(2), F32[..., :0], r"got \(2, 4, 3, 5, 0\)"),
        (lambda: nn.AdaptiveAvgPool3d((1, 2)), None, "output_size is an integer from 1 or 3"),
        (lambda: nn.BatchNorm3d(4), F32[0], r"\(batch, 4, depth, height, width\), got"),
        (lambda: nn.InstanceNorm3d(4), F32[..., :1, :1, :1], "of several numbers"),
    ],
)
def test_what_cannot_be(make: Callable[[], nn.Module], x: Any, said: str) -> None:
    """What a layer is set to is refused at once (x is None), what comes in when it comes."""
    if x is None:
        with pytest.raises(ValueError, match=said):
            make()
        return
    layer = make().init(0, backend="numpy")
    with pytest.raises(ValueError, match=said):
        layer(x)
