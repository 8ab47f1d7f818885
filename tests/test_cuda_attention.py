"""Attention on CuPy's plug-in, beside its definition, for every kind of mask and layout."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polynet import functional, get_backend, nn, use_backend

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed, which compiles the CUDA sources", allow_module_level=True)

from beside_definitions import HOST, agree
from plugins.cuda_on_host import cuda_on_host

from polynet_cupy.kernels import KERNELS

rng = np.random.default_rng(3)
SHAPES = st.tuples(*(st.integers(1, n) for n in (3, 2, 5, 40, 3, 4)))


def projected(batch: int, heads: int, length: int, width: int) -> np.ndarray:
    """A (batch, heads, length, width) array that lies as (batch, length, heads, width).

    A layer's projection leaves its result so.
    """
    return rng.normal(size=(batch, length, heads, width)).transpose(0, 2, 1, 3)


@settings(max_examples=100, deadline=None)
@given(
    shape=SHAPES,
    mask=st.sampled_from([None, "one for all", "of each sample", "of each head"]),
    causal=st.booleans(),
)
def test_attention_is_its_definition(shape: Any, mask: str | None, causal: bool) -> None:
    batch, heads, targets, sources, width, of_values = shape
    sizes = {
        "one for all": (targets, sources), "of each sample": (batch, 1, 1, sources),
        "of each head": (batch, heads, targets, sources),
    }  # fmt: skip
    look = () if mask is None else (rng.random(sizes[mask]) < 0.7,)
    if look:
        look[0][..., 0] = True  # every query sees at least one key
    q, k, v = (
        projected(batch, heads, *s)
        for s in ((targets, width), (sources, width), (sources, of_values))
    )
    f = functional.scaled_dot_product_attention
    agree(lambda *a: f(*a, *look, is_causal=causal), q, k, v, atol=1e-11)
    agree(lambda *a: functional.attention_weights(*a, *look, is_causal=causal), q, k, atol=1e-11)


def test_a_query_that_sees_nothing_is_no_number() -> None:
    q, k, v = (projected(1, 1, 3, 2) for _ in range(3))
    look = np.asarray([[True] * 3, [False] * 3, [True] * 3])
    with use_backend(HOST), np.errstate(all="ignore"):
        y = functional.scaled_dot_product_attention(q, k, v, look)
    assert np.isnan(y).all(axis=-1).tolist() == [[[False, True, False]]]


def test_what_is_left_to_the_definition() -> None:
    """Masks that are added to the scores, and stacks of different shapes."""
    q, k, v = (rng.normal(size=(2, 3, 4)) for _ in range(3))
    name, xp = "scaled_dot_product_attention", HOST.xp
    assert KERNELS[name](xp, q, k, v, np.zeros((3, 3))) is NotImplemented
    assert KERNELS[name](xp, q, k[:1], v) is NotImplemented
    assert KERNELS[name](xp, q, k, v[0]) is NotImplemented
    assert KERNELS[name](xp, q, k, v[:1]) is NotImplemented
    assert KERNELS[name](xp, q, k, v, np.ones(3, bool)) is NotImplemented
    assert KERNELS[name](xp, q, k, v.astype(np.float32)) is NotImplemented


PRODUCTS = ("add_bias", "small_product")


def test_a_layer_s_attention_makes_scores_and_weights_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Causal attention makes no mask and calls no softmax: one kernel between two products."""
    started = []

    def launched(kernel: str, *args: Any) -> None:
        started.append(kernel)
        cuda_on_host.launch(kernel, *args)

    monkeypatch.setattr(HOST.xp, "launch", launched)
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True), rng.normal(size=(2, 7, 8))
    found = []
    for backend in (HOST, get_backend("numpy")):
        net = layer.init(seed=0, backend=backend, dtype="float64")
        with use_backend(backend):
            found.append(net(x, x, x, is_causal=True))
    assert [name for name in started if name not in PRODUCTS] == ["attention_forward"]
    np.testing.assert_allclose(*found, atol=1e-12)
