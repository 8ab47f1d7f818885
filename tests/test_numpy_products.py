"""Matrix products in parts, on NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polynet import nn
from polynet_numpy import products

SIZES = {"stack": st.integers(1, 3), "rows": st.integers(1, 70), "columns": st.integers(1, 400)}


@given(**SIZES, inner=st.integers(1, 90), small=st.sampled_from([0, 5_000, 10**6]))
def test_parts_are_the_whole(stack, rows, columns, inner, small):
    rng = np.random.default_rng(rows * columns)
    a, b = rng.normal(size=(stack, rows, inner)), rng.normal(size=(stack, columns, inner)).mT
    out = np.full((stack, rows, columns), np.nan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "SMALL", small)
        calls = list(products.products(a, b, out))
    assert len(calls) <= 2
    for call in calls:
        call()
    np.testing.assert_allclose(out, a @ b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("config", "small"),
    [
        ({}, 0),  # such as in a browser
        ({"SIMD Extensions": {"baseline": ["NEON"]}}, 0),
        ({"SIMD Extensions": {"found": ["X86_V3"]}}, 0),
        ({"SIMD Extensions": {"found": ["AVX2", "AVX512_SKX"]}}, 10**6),
        ({"SIMD Extensions": {"found": ["X86_V3", "X86_V4"]}}, 10**6),
    ],
)
def test_parts_are_for_avx_512(config, small):
    assert products.unpacked(config) == small


@pytest.mark.parametrize("small", [0, 10**6])
@pytest.mark.parametrize("samples", [1, 2, 8, 32, 33])
def test_a_small_batch(samples, small, monkeypatch):
    monkeypatch.setattr(products, "SMALL", small)
    net = nn.Linear(700, 200).init(seed=0, backend="numpy", dtype="float64")
    x = np.random.default_rng(0).normal(size=(samples, 700))
    assert products.in_parts(samples, 140_000) == (small > 0 and samples in (8, 32))
    np.testing.assert_allclose(net(x), x @ net.weight.T + net.bias, rtol=1e-12)
