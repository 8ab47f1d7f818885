"""Convolution and its transpose on CuPy's plug-in, beside their definitions, in both layouts."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from polynet import use_backend, value_and_grad
from polynet.functional.convolution import convolution, convolution_transpose
from polynet.ops import OPS

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed, which compiles the CUDA sources", allow_module_level=True)

from beside_definitions import HOST, agree, total

import polynet_cupy.convolution as by_kernels
from polynet_cupy import normalisation
from polynet_cupy.kernels import KERNELS

rng = np.random.default_rng(9)


@pytest.fixture(params=[1, 10**6], ids=["a product a sample", "one for all samples"])
def _layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_kernels, "FEW", request.param)


@st.composite
def windows(draw: Any) -> dict[str, Any]:
    """Settings of a window with one to three axes, and of the images that it goes over."""
    axes = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))
    return {
        "batch": draw(st.integers(1, 3)), "groups": draw(st.integers(1, 2)),
        "inputs": draw(st.integers(1, 3)), "outputs": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()), "sizes": each(1, 6), "window": each(1, 3),
        "stride": each(1, 3), "dilation": each(1, 2), "before": each(0, 2), "after": each(0, 2),
    }  # fmt: skip


def taken(name: str, args: Any, options: Any) -> None:
    """Check that the kernel takes these arguments, and does what the definition does."""
    f = {"convolution": convolution, "convolution_transpose": convolution_transpose}[name]
    assert KERNELS[name](HOST.xp, *args, **options) is not NotImplemented
    agree(lambda *a: f(*a, **options), *args, atol=1e-11)


@pytest.mark.usefixtures("_layout")
@pytest.mark.parametrize("sizes", [(60, 61), (9, 14, 13)], ids=["images", "volumes"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("cells", [3, 5])
def test_windows_of_usual_sizes(cells: int, stride: int, sizes: tuple[int, ...]) -> None:
    """Loops over them are unrolled. A bias's gradient sums more numbers than one block takes."""
    axes = len(sizes)
    args = [rng.normal(size=s) for s in ((2, 2, *sizes), (3, 2, *(cells,) * axes), (3,))]
    pad = (cells // 2,) * 2
    taken(
        "convolution", args,
        {"stride": (stride,) * axes, "padding": (pad,) * axes, "dilation": (1,) * axes},
    )  # fmt: skip


@pytest.mark.usefixtures("_layout")
def test_volumes_in_float32_are_near_float64() -> None:
    """The value and all gradients, beside the definition in float64."""
    wide = [rng.normal(size=s) for s in ((2, 4, 6, 7, 8), (6, 2, 3, 3, 3), (6,))]
    options = {"stride": (1, 2, 1), "dilation": (2, 1, 1), "groups": 2,
               "padding": ((2, 2), (1, 1), (0, 1))}  # fmt: skip
    with use_backend("numpy"):
        squares = lambda *a: total(OPS["square"](convolution(*a, **options)))
        expected = [convolution(*wide, **options), *value_and_grad(squares, (0, 1, 2))(*wide)[1]]
    y, back = KERNELS["convolution"](HOST.xp, *(a.astype(np.float32) for a in wide), **options)
    for found, exact in zip([y, *back(2 * y, (True,) * 3)], expected, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, exact, atol=2e-6 * np.abs(exact).max())


def test_sums_by_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in ((3, 2, 70, 41), (5, 4), (1, 1, 1)):
        x = rng.normal(size=shape)
        expected = np.sum(x, axis=tuple(a for a in range(x.ndim) if a != 1))
        np.testing.assert_allclose(normalisation.channel_sum(HOST.xp, x), expected, rtol=1e-12)
    monkeypatch.setattr(
        normalisation, "MOST", 8
    )  # the array has more numbers than the kernel can count then
    assert np.array_equal(normalisation.channel_sum(HOST.xp, np.ones((3, 2, 4))), [12, 12])


@pytest.mark.usefixtures("_layout")
@settings(max_examples=60, deadline=None)
@given(w=windows())
def test_convolution(w: dict[str, Any]) -> None:
    channels, outputs = w["groups"] * w["inputs"], w["groups"] * w["outputs"]
    reach = [d * (k - 1) + 1 for k, d in zip(w["window"], w["dilation"], strict=True)]
    padding = tuple(zip(w["before"], w["after"], strict=True))
    assume(all(n + sum(p) >= r for n, p, r in zip(w["sizes"], padding, reach, strict=True)))
    args = [
        rng.normal(size=(w["batch"], channels, *w["sizes"])),
        rng.normal(size=(outputs, w["inputs"], *w["window"])), rng.normal(size=outputs),
    ]  # fmt: skip
    options = {key: w[key] for key in ("stride", "dilation", "groups")}
    taken("convolution", args[: 2 + w["bias"]], {**options, "padding": padding})


@pytest.mark.usefixtures("_layout")
@settings(max_examples=60, deadline=None)
@given(w=windows())
def test_transposed_convolution(w: dict[str, Any]) -> None:
    channels, outputs = w["groups"] * w["inputs"], w["groups"] * w["outputs"]
    more = tuple(min(a, s - 1) for a, s in zip(w["after"], w["stride"], strict=True))
    whole = [
        (n - 1) * s + d * (k - 1) + 1 + m - 2 * p
        for n, s, d, k, m, p in zip(
            *(w[key] for key in ("sizes", "stride", "dilation", "window")), more, w["before"],
            strict=True,
        )
    ]  # fmt: skip
    assume(min(whole) > 0)
    args = [
        rng.normal(size=(w["batch"], channels, *w["sizes"])),
        rng.normal(size=(channels, w["outputs"], *w["window"])), rng.normal(size=outputs),
    ]  # fmt: skip
    options = {key: w[key] for key in ("stride", "dilation", "groups")}
    options |= {"padding": w["before"], "output_padding": more}
    taken("convolution_transpose", args[: 2 + w["bias"]], options)


def test_few_places_make_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many places there is a product per sample; with few, those would be narrow and slow."""
    seen = []
    gemm = HOST.xp.gemm
    monkeypatch.setattr(HOST.xp, "gemm", lambda how, *a: seen.append(how) or gemm(how, *a))
    options = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    for size in (15, 16):
        x, w = rng.normal(size=(4, 3, size, size)), rng.normal(size=(5, 3, 3, 3))
        KERNELS["convolution"](HOST.xp, x, w, **options)
    assert [(how.batch, how.m, how.n, how.k) for how in seen] == [
        (1, 5, 4 * 15 * 15, 27), (4, 5, 16 * 16, 27),
    ]  # fmt: skip
