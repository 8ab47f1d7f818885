"""CuPy's convolution with fewer multiplications (Winograd) on the host, beside the definition."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polynet.functional.convolution import convolution

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed, which compiles the CUDA sources", allow_module_level=True)

from beside_definitions import HOST, agree

from polynet_cupy import winograd
from polynet_cupy.kernels import KERNELS

rng = np.random.default_rng(11)
SAME = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
WIDE = winograd.LEAST_CHANNELS


def images_and_windows(
    batch: int = 4, channels: int = WIDE, outputs: int = WIDE, size: int = 16, groups: int = 1,
    cells: int = 3,
) -> list[np.ndarray]:  # fmt: skip
    weight = rng.normal(size=(outputs * groups, channels, cells, cells))
    return [rng.normal(size=(batch, channels * groups, size, size)), weight]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the Winograd kernels that were started."""
    names: list[str] = []
    launch = HOST.xp.launch

    def watched(kernel: str, *args: Any) -> None:
        names.extend([kernel] * kernel.startswith("winograd"))
        launch(kernel, *args)

    monkeypatch.setattr(HOST.xp, "launch", watched)
    return names


FORTH = ["winograd_windows", "winograd_seen", "winograd_places"]


@pytest.fixture
def _any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "LEAST_TILES", 1)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Images with any padding that are large enough for a window of 3 × 3."""

    def each(low: int, high: int) -> tuple[int, ...]:
        return draw(st.tuples(*[st.integers(low, high)] * 2))

    padding = tuple(zip(each(0, 4), each(0, 4), strict=True))
    least = [max(1, 3 - sum(ends)) for ends in padding]
    sizes = tuple(m + more for m, more in zip(least, each(0, 6), strict=True))
    groups, channels, outputs = (draw(st.integers(1, 3)) for _ in range(3))
    numbers = np.random.default_rng(draw(st.integers(0, 99)))
    args = [
        numbers.normal(size=(draw(st.integers(1, 4)), channels * groups, *sizes)),
        numbers.normal(size=(outputs * groups, channels, 3, 3)),
        *([numbers.normal(size=outputs * groups)] if draw(st.booleans()) else []),
    ]
    return args, {**SAME, "padding": padding, "groups": groups}


@pytest.mark.usefixtures("_any_size")
@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_values_and_gradients(case: tuple[list[np.ndarray], dict[str, Any]]) -> None:
    """Also for odd sizes, where the last tile reaches beyond the image."""
    args, options = case
    agree(lambda *a: convolution(*a, **options), *args, atol=1e-11)


def test_wide_ones_are_computed_so(started: list[str]) -> None:
    args = images_and_windows()
    _, back = KERNELS["convolution"](HOST.xp, *args, **SAME)
    assert started == FORTH
    started.clear()
    g = rng.normal(size=args[0].shape)
    gx, gw = back(g, (True, False))
    assert gw is None
    assert started == FORTH, "the gradient of the images is a convolution itself"
    started.clear()
    gx, gw = back(g, (False, True))
    assert gx is None
    assert started == ["winograd_of_places", "winograd_seen", "winograd_of_windows"]
    agree(lambda *a: convolution(*a, **SAME), *args, rng.normal(size=WIDE), atol=1e-10)


@pytest.mark.parametrize(
    ("changed", "options"),
    [
        ({"channels": WIDE - 1}, {}),
        ({"outputs": WIDE - 1}, {}),
        ({"channels": WIDE // 2, "outputs": WIDE, "groups": 2}, {"groups": 2}),
        ({"batch": 3}, {}),
        ({"cells": 5}, {"padding": ((2, 2), (2, 2))}),
        ({"size": 32}, {"stride": (2, 2)}),
        ({}, {"dilation": (1, 2), "padding": ((1, 1), (2, 2))}),
    ],
    ids=["channels", "outputs", "of a group", "few tiles", "cells", "stride", "dilation"],
)
def test_others_are_not(changed: Any, options: Any, started: list[str]) -> None:
    KERNELS["convolution"](HOST.xp, *images_and_windows(**changed), **{**SAME, **options})
    assert started == []


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_nor_what_is_rounded(precision: str) -> None:
    """Rounding would hit sums here; products of float64 are not rounded."""
    x, weight = images_and_windows()
    xp = HOST.with_precision(precision).xp
    for dtype, expected in (("float32", False), ("float64", True)):
        a, w = x.astype(dtype), weight.astype(dtype)
        assert winograd.suits(xp, a, w, (16, 16), 1, {1}) is expected


@pytest.mark.parametrize(
    ("images", "weight", "groups", "parts"),
    [
        (256, (64, 64, 3, 3), 1, 16),  # 16 products, each of one block
        (256, (128, 128, 3, 3), 1, 4),
        (256, (512, 512, 3, 3), 1, 1),
        (256, (128, 64, 3, 3), 2, 8),
        (100, (64, 64, 3, 3), 1, 20),
        (98, (64, 64, 3, 3), 1, 49),
        (251, (64, 64, 3, 3), 1, 1),  # a prime
        (8, (64, 64, 3, 3), 1, 1),
    ],
)
def test_parts(images: int, weight: tuple[int, ...], groups: int, parts: int) -> None:
    assert winograd._parts(images, weight, groups) == parts


def test_a_gradient_of_several_parts() -> None:
    x, weight = images_and_windows(batch=16, size=8)
    assert winograd._parts(16, weight.shape, 1) == 16
    agree(lambda *a: convolution(*a, **SAME), x, weight, atol=1e-10)


def test_float32_loses_little() -> None:
    """Compared with the definition in float32; float64 gives the errors of both."""
    args = images_and_windows(channels=64, outputs=64)
    exact = convolution(*args, **SAME)
    narrow = [a.astype(np.float32) for a in args]
    plainly = convolution(*narrow, **SAME)
    y, _ = KERNELS["convolution"](HOST.xp, *narrow, **SAME)
    lost, usual = (np.sqrt(np.mean((a - exact) ** 2)) for a in (y, plainly))
    assert lost < 3 * usual


@pytest.mark.usefixtures("_any_size")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_goes_where_it_is_seen_and_nowhere_else(value: float) -> None:
    x, weight = images_and_windows(1, 1, 1, size=8)
    for place in np.ndindex(8, 8):
        spoilt = x.copy()
        spoilt[(0, 0, *place)] = value
        found = np.isfinite(KERNELS["convolution"](HOST.xp, spoilt, weight, **SAME)[0])
        with np.errstate(invalid="ignore"):
            expected = np.isfinite(convolution(spoilt, weight, **SAME))
        np.testing.assert_array_equal(found, expected)
