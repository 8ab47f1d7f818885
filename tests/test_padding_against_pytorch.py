"""Layers that put numbers around their inputs, or move them about, beside PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from beside_pytorch import TOLERANCE, compare, numbers, torch, total

from polynet import asarray, nn
from polynet.testing import check_grad

PADS: dict[int, list[Any]] = {
    1: [0, 2, (0, 3), (1, 2)],
    2: [0, 2, (1, 0, 2, 3), (0, 0, 1, 0)],
    3: [0, 2, (1, 0, 2, 3, 0, 4)],
}
KINDS: list[tuple[str, int, tuple[float, ...]]] = [
    *(("Zero", axes, ()) for axes in PADS),
    *(("Constant", axes, (-1.5,)) for axes in PADS),
    *((kind, axes, ()) for kind in ("Reflection", "Replication") for axes in (1, 2)),
]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("name", "shape", "padding", "value"),
    [
        (f"{kind}Pad{axes}d", (2, 3, 4, 5, 6)[: axes + 2], padding, value)
        for kind, axes, value in KINDS
        for padding in PADS[axes]
    ],
)
def test_padding(name: str, shape: tuple[int, ...], padding: Any, value: Any, dtype: str) -> None:
    ours, theirs = (getattr(m, name)(padding, *value) for m in (nn, torch.nn))
    compare(ours, theirs, [numbers(*shape)], dtype)


@pytest.mark.parametrize("backend", ["numpy", "strict", "torch"])
@pytest.mark.parametrize("name", [f"{kind}Pad{axes}d" for kind, axes, _ in KINDS])
def test_second_derivatives_of_padding(name: str, backend: str) -> None:
    layer = getattr(nn, name)(1, *([0.5] if "Constant" in name else []))
    x = asarray(numbers(1, 1, *[3] * int(name[-2])), backend=backend)
    check_grad(lambda x: total(layer(x) ** 3), x, order=2)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("r", [1, 2, 3])
def test_pixels_and_channels(r: int, dtype: str) -> None:
    x = numbers(2, 2 * r**2, 3, 4)
    compare(nn.PixelShuffle(r), torch.nn.PixelShuffle(r), [x], dtype)
    x = numbers(2, 3, 2 * r, 3 * r)
    compare(nn.PixelUnshuffle(r), torch.nn.PixelUnshuffle(r), [x], dtype)
    there = nn.PixelUnshuffle(r)(x)
    np.testing.assert_array_equal(nn.PixelShuffle(r)(there), x)


@pytest.mark.parametrize("batch", [2, 0])
@pytest.mark.parametrize(
    "settings", [(1, (2, 6)), (1, (3, 2, -1)), (-1, (5,)), (-2, [-1]), (0, (1, -1))], ids=str
)
def test_unflatten(settings: Any, batch: int) -> None:
    x = numbers(batch, 12, 5)
    compare(nn.Unflatten(*settings), torch.nn.Unflatten(*settings), [x], "float64")


F32 = np.ones((2, 4, 3, 5, 6), "float32")


@pytest.mark.parametrize(
    ("make", "x", "said"),
    [
        (lambda: nn.ConstantPad1d(1, 2.0), F32, r"\(batch, channels, width\), got"),
        (lambda: nn.ZeroPad3d((1, 2)), None, r"padding is an integer from 0 or 6 of them; got"),
        (lambda: nn.ReflectionPad2d(1), F32, r"\(batch, channels, height, width\), got"),
        (lambda: nn.ReflectionPad1d(-1), None, r"integer from 0 or 2 of them; got -1"),
        (
            lambda: nn.ReflectionPad1d((0, 3)),
            F32[0, 0, ..., :3],
            r"ReflectionPad1d\(\(0, 3\)\): inputs have too few places along axis 2, 3, to be",
        ),
        (lambda: nn.ReflectionPad2d((3, 0, 0, 0)), F32[0, ..., :3], "along axis 3, 3, to be"),
        (lambda: nn.ReplicationPad1d(1), F32[0, 0, ..., :0], "too few places along axis 2, 0, to"),
        (lambda: nn.PixelShuffle(0), None, "upscale_factor is a positive integer; got 0"),
        (lambda: nn.PixelShuffle(3), F32[0], r"\(batch, a multiple of 9, height, width\), got"),
        (lambda: nn.PixelShuffle(2), F32[0, 0], r"a multiple of 4, height, width\), got \(3, 5"),
        (lambda: nn.PixelUnshuffle(2), F32[0], "multiples of 2, got"),
        (lambda: nn.Unflatten(1.5, (2, 2)), None, r"Unflatten: dim is an integer; got 1\.5"),
        (lambda: nn.Unflatten(1, (2, 0)), None, r"positive integers.*may be -1; got \(2, 0\)"),
        (lambda: nn.Unflatten(1, (-1, -1)), None, r"got \(-1, -1\)"),
        (lambda: nn.Unflatten(1, ()), None, r"got \(\)"),
        (lambda: nn.Unflatten(1, 4), None, r"is a tuple of .*; got 4"),
        (lambda: nn.Unflatten(1, (2, 3)), F32, r"\(…\) with 6 numbers along axis 1, got \(2, 4"),
        (lambda: nn.Unflatten(1, (3, -1)), F32, "with a multiple of 3 numbers along axis 1"),
        (lambda: nn.Unflatten(5, (2, 2)), F32, "with 4 numbers along axis 5, got"),
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
