"""CuPy's namespace, and sums by segment: concat, stack, take, clip, tensordot, vecdot."""

from __future__ import annotations

import shutil
from typing import Any

import array_api_compat.numpy as compat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polynet.ops.indexing import segment_sum

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed, which compiles the CUDA sources", allow_module_level=True)

from beside_definitions import HOST, agree
from plugins.cuda_on_host import cuda_on_host

from polynet_cupy import indexing
from polynet_cupy.kernels import KERNELS

XP = HOST.xp
rng = np.random.default_rng(7)


@pytest.mark.parametrize("count", [1, 8, 9, 16, 17, 70])
def test_many_arrays_are_joined_a_few_at_a_time(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For more than eight, CuPy copies their addresses from the host, which a graph cannot do."""
    most, plain = [], XP.plain_concat

    def joined(arrays: Any, **options: Any) -> Any:
        most.append(len(arrays))
        return plain(arrays, **options)

    monkeypatch.setattr(XP, "plain_concat", joined)
    parts = [rng.normal(size=(2, 3)) for _ in range(count)]
    for axis in (0, 1, -1):
        assert np.array_equal(XP.concat(parts, axis=axis), np.concatenate(parts, axis=axis))
        assert np.array_equal(XP.stack(parts, axis=axis), np.stack(parts, axis=axis))
    flat = [p.reshape(-1) for p in parts]
    assert np.array_equal(XP.concat(parts, axis=None), np.concatenate(flat))
    assert max(most) <= 8
    with pytest.raises(ValueError, match="one shape"):
        XP.stack([parts[0], parts[0][:1]])


@pytest.mark.parametrize("count", [1, 16, 64, 65])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_numbers_are_joined_at_once(
    count: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as fit into the arguments of a launch, such as losses, each in memory of its own."""
    started = []

    def launched(kernel: str, *args: Any) -> None:
        started.append(kernel)
        cuda_on_host.launch(kernel, *args)

    monkeypatch.setattr(XP, "launch", launched)
    numbers = [np.asarray(n, dtype=dtype) for n in rng.normal(size=count) * 9]
    found = XP.stack(numbers)
    assert found.dtype == dtype
    assert np.array_equal(found, np.stack(numbers))
    assert started == (["in_a_row"] if count <= 64 and dtype != "int32" else [])
    assert XP.stack([numbers[0], np.asarray(1, np.int64)]).shape == (2,)
    with pytest.raises(ValueError, match="axis"):
        XP.stack(numbers, axis=1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "int8", "bool"])
@pytest.mark.parametrize("places", ["int32", "int64"])
def test_rows_of_a_batch(dtype: str, places: str) -> None:
    rows = np.asarray([4, 0, 0, -1, 2], dtype=places)
    for shape in ((5,), (5, 3), (5, 2, 4), (5, 16), (5, 0)):
        x = (rng.normal(size=shape) * 9).astype(dtype)
        whole = np.zeros(x.size + 1, dtype)
        whole[1:] = x.reshape(-1)  # not aligned for reads of 16 bytes
        for array in (x, np.asfortranarray(x), x[::-1], whole[1:].reshape(shape)):
            assert np.array_equal(XP.take(array, rows, axis=0), array[rows])
    assert XP.take(np.ones((2, 3)), rows[1:2], axis=1).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.5), (None, 0), (0, None), (None, None),
                                           (np.full((3, 1), -0.1), np.full(4, 0.2))])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_clip(low: Any, high: Any, dtype: str) -> None:
    x = np.asarray([[-3.0, -0.2, 0.0, 9.0]] * 3).astype(dtype)
    if dtype != "int32":
        x[1, :] = [np.nan, np.inf, -np.inf, -0.0]
    found = XP.clip(x, low, high)
    assert found.dtype == x.dtype
    assert np.array_equal(found, compat.clip(x, low, high), equal_nan=dtype != "int32")
    assert not np.shares_memory(found, x)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
@pytest.mark.parametrize(("low", "high"), [(-1, 3), (None, 3), (2, None), (-(10**9), 10**9)])
def test_whole_numbers_are_clipped_without_a_mask(
    low: Any, high: Any, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places that an image is read at are clipped in a captured step, where CuPy reads no mask."""
    x, info = np.asarray([0, 1, 5, 100], dtype=dtype), np.iinfo(dtype)
    expected = np.clip(x, low, high) if dtype == "int64" else compat.clip(x, low, high)
    if all(n is None or info.min <= n <= info.max for n in (low, high)):
        monkeypatch.setattr(XP, "plain_clip", None)
    found = XP.clip(x, low, high)
    assert found.dtype == x.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("axes", [0, 1, 2, ((0,), (1,)), ((1, 0), (0, 1)), ((-1,), (0,))])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128", "int64"])
def test_tensordot(axes: Any, dtype: str) -> None:
    """With whole numbers, whose sums are the same in any order."""
    x, y = (rng.integers(-9, 10, size=(3, 3)).astype(dtype) for _ in range(2))
    found, expected = XP.tensordot(x, y, axes=axes), np.tensordot(x, y, axes=axes)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="shape"):
        XP.tensordot(np.ones((2, 3)), np.ones((2, 3)), axes=1)


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_vecdot(axis: int, dtype: str) -> None:
    x, y = (rng.normal(size=(2, 3, 4)) + 1j * rng.normal(size=(2, 3, 4)) for _ in range(2))
    x, y = ((a.real if dtype == "float32" else a).astype(dtype) for a in (x, y))
    np.testing.assert_allclose(XP.vecdot(x, y, axis=axis), compat.vecdot(x, y, axis=axis), 1e-5)
    with pytest.raises(ValueError, match=r"mismatch|same size"):
        XP.vecdot(x, y[:, :1, :1], axis=axis)


@given(data=st.data(), n=st.integers(1, 40), width=st.integers(1, 5), count=st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_sums_by_segment(data: Any, n: int, width: int, count: int) -> None:
    kind = data.draw(st.sampled_from([np.int32, np.int64]))
    some = data.draw(st.lists(st.integers(0, count - 1), min_size=n, max_size=n))
    x, segments = rng.normal(size=(n, width)), np.asarray(some, kind)
    agree(lambda a: segment_sum(a, segments, count), x)


def test_many_rows_are_added_by_the_kernel_where_the_definition_would_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The definition makes a matrix with one number for each row and segment."""
    x, segments = np.ones((9, 2)), np.arange(9) % 3
    monkeypatch.setattr(indexing, "MOST_ROWS", 8)
    assert KERNELS["segment_sum"](XP, x, segments, 3) is NotImplemented
    monkeypatch.setattr(indexing, "MOST_NUMBERS", 26)
    found, _ = KERNELS["segment_sum"](XP, x, segments, 3)
    assert found.tolist() == [[3.0, 3.0]] * 3


def test_sums_by_segment_have_one_order() -> None:
    """Rows are added in order: each sum equals that of adding row after row, to the last bit."""
    x, segments = rng.normal(size=(300, 3)).astype(np.float32), rng.integers(0, 4, size=300)
    expected = np.zeros((4, 3), np.float32)
    for row, k in zip(x, segments, strict=True):
        expected[k] += row
    found, _ = KERNELS["segment_sum"](XP, x, segments, 4)
    assert np.array_equal(found, expected)
