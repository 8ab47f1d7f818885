"""Matrix products of CuPy's plug-in: their description for cuBLASLt, and their results."""

from __future__ import annotations

import itertools
import shutil
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polynet import functional, use_backend, value_and_grad

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed, which compiles the CUDA sources", allow_module_level=True)

from beside_definitions import HOST, agree, total
from plugins.cuda_on_host import cuda_on_host

from polynet_cupy import CupyBackend, products

XP = HOST.xp
rng = np.random.default_rng(7)


def lying(draw: Any, *shape: int) -> np.ndarray:
    """An array of this shape in some layout: C or F order, a part of another array, or reversed."""
    how = draw(st.sampled_from(["C", "F", "part", "every other", "backwards"]))
    x = rng.normal(size=shape)
    if how == "F":
        return np.asfortranarray(x)
    if how == "part":
        large = rng.normal(size=[n + 2 for n in shape])
        large[tuple(slice(1, n + 1) for n in shape)] = x
        return large[tuple(slice(1, n + 1) for n in shape)]
    return {"C": x, "every other": np.repeat(x, 2, axis=-1)[..., ::2], "backwards": x[::-1]}[how]


FIXTURES = [HealthCheck.function_scoped_fixture]  # the fixture is the same for every example
STACKS = [((), ()), ((3,), (3,)), ((), (2,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((1,), ())]


@pytest.fixture
def none_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cuBLASLt compute all products."""
    monkeypatch.setattr(products, "FEW_TILES", 0)


@given(data=st.data(), stacks=st.sampled_from(STACKS), sizes=st.tuples(*[st.integers(1, 4)] * 3))
@settings(max_examples=300, deadline=None, suppress_health_check=FIXTURES)
@pytest.mark.usefixtures("none_small")
def test_products_of_matrices_however_they_lie(data: Any, stacks: Any, sizes: Any) -> None:
    m, k, n = sizes
    x, y = lying(data.draw, *stacks[0], m, k), lying(data.draw, *stacks[1], k, n)
    np.testing.assert_allclose(XP.matmul(x, y), np.matmul(x, y), rtol=1e-13, atol=1e-13)
    turned = np.matmul(np.swapaxes(y, -1, -2), np.swapaxes(x, -1, -2))
    np.testing.assert_allclose(XP.matmul(y.mT, x.mT), turned, rtol=1e-13, atol=1e-13)


SIZES = st.integers(1, 40) | st.sampled_from([128, 131, 256])


@given(data=st.data(), sizes=st.tuples(SIZES, SIZES, SIZES))
@settings(max_examples=100, deadline=None)
def test_small_products_however_they_lie(data: Any, sizes: Any) -> None:
    """Row by row or column by column, aligned or not; with the row sums of the first matrix."""
    m, k, n = sizes
    x, y = (small_and_lying(data.draw, *shape) for shape in ((m, k), (k, n)))
    bias = rng.normal(size=n) if data.draw(st.booleans()) else None
    kept, relu = None, data.draw(st.booleans())
    if data.draw(st.booleans()):
        kept = small_and_lying(data.draw, m, k, x.flags.c_contiguous)
        kept[kept < 0.5] = 0
    found, sums = products.small_product(XP, x, y, bias, kept=kept, relu=relu)
    x = x if kept is None else np.where(kept, x, 0)
    expected = x @ y if bias is None else x @ y + bias
    expected = np.maximum(expected, 0) if relu else expected
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sums, x.sum(axis=1), rtol=1e-12, atol=1e-12)


def small_and_lying(draw: Any, rows: int, columns: int, by_row: bool | None = None) -> np.ndarray:
    start = draw(st.integers(0, 1))  # moved by 8 bytes, memory is not aligned for reads of 16
    x = rng.normal(size=rows * columns + start)[start:]
    if draw(st.booleans()) if by_row is None else by_row:
        return x.reshape(rows, columns)
    return x.reshape(columns, rows).T


def test_what_is_no_number_stays_so_in_a_small_product() -> None:
    x, y, kept = np.ones((3, 4)), np.ones((4, 5)), np.ones((3, 4))
    x[0, 1] = np.nan
    x[1, 2] = np.inf
    kept[1, 2] = 0
    kept[2, 3] = np.nan
    found, sums = products.small_product(XP, x, y, kept=kept, relu=True)
    assert np.isnan(found[0]).all()
    assert found[1:].tolist() == [[3.0] * 5, [4.0] * 5]
    assert np.isnan(sums[0])
    assert sums[1:].tolist() == [3.0, 4.0]


def test_what_is_small() -> None:
    """Few tiles and few terms, in full precision, each matrix in C or F order."""
    x, y = rng.normal(size=(128, 256)), rng.normal(size=(256, 128))
    assert products.small(XP, x, y)
    assert products.small(XP, x, np.asfortranarray(y))
    assert not products.small(XP, x, np.repeat(y, 2, axis=1)[:, ::2])
    for m, k, n in ((128, 801, 128), (16, 8, 6416), (320, 257, 320)):
        assert not products.small(XP, rng.normal(size=(m, k)), rng.normal(size=(k, n)))
    assert products.small(XP, rng.normal(size=(320, 256)), rng.normal(size=(256, 320)))
    assert not products.small(XP, x[None], y)
    for precision in ("tf32", "bfloat16"):
        xp = HOST.with_precision(precision).xp
        assert products.small(xp, x, y)
        assert not products.small(xp, x.astype("float32"), y.astype("float32"))


@pytest.mark.usefixtures("none_small")
def test_products_that_copy_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transposed, broadcast over a stack, or a part of wider rows: cuBLASLt takes them all."""
    x, stack = rng.normal(size=(6, 5)), rng.normal(size=(4, 6, 5))
    pairs = [(x.T, x), (x, x.T), (x[:, :3].T, x), (stack.mT, x), (x.T, stack), (stack, stack.mT)]
    monkeypatch.setattr(XP, "asarray", None)
    for a, b in pairs:
        np.testing.assert_allclose(XP.matmul(a, b), np.matmul(a, b), rtol=1e-13)


def test_a_device_is_probed_by_cublaslt_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe's product is small, but computed by cuBLASLt, since the library may be missing."""
    gemm, seen = XP.gemm, []
    probed = SimpleNamespace(xp=XP, to_host=np.asarray)
    monkeypatch.setattr(XP, "gemm", lambda *a: seen.append(a[0]) or gemm(*a))
    CupyBackend.probe(probed, nullcontext())
    assert [(how.m, how.n, how.k) for how in seen] == [(2, 2, 2)]

    def missing(*_args: Any) -> None:
        raise OSError("libcublasLt.so: not found")

    monkeypatch.setattr(XP, "gemm", missing)
    with pytest.raises(RuntimeError, match=r"the CUDA toolkit lacks cuBLASLt; .* brings it"):
        CupyBackend.probe(probed, nullcontext())


def test_products_of_more_matrices_than_a_call_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are several calls, and each reads a matrix that is broadcast from its start."""
    monkeypatch.setattr(products, "MOST_AT_ONCE", 3)
    calls = []
    monkeypatch.setattr(XP, "gemm", lambda *a: calls.append(a[:2]) or cuda_on_host.gemm(*a))
    stack, one = rng.normal(size=(2, 4, 3, 5)), rng.normal(size=(5, 7))
    np.testing.assert_allclose(XP.matmul(stack, one), np.matmul(stack, one), rtol=1e-13)
    assert [(how.batch, first) for how, first in calls] == [(3, 0), (3, 3), (2, 6)]
    assert [how.left.aligned for how, _ in calls] == [
        min(256, a & -a) for a in (stack.ctypes.data + first * 15 * 8 for first in (0, 3, 6))
    ]


def test_the_results_of_every_call_are_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for odd sizes: cuBLASLt assumes that results are aligned, and is told about operands."""
    calls = []
    monkeypatch.setattr(XP, "gemm", lambda *a: calls.append(a[:3]) or cuda_on_host.gemm(*a))
    x = rng.normal(size=(65536, 1, 1)).astype(np.float32)
    XP.matmul(x, rng.normal(size=(1, 3)).astype(np.float32))
    assert sum(how.batch for how, *_ in calls) == 65536
    assert all(how.batch < 65536 for how, *_ in calls)
    assert [first * 3 * out.itemsize % products.ALIGNED for _, first, out in calls] == [0, 0]


@pytest.mark.parametrize(
    "shapes", [((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((3,), (4, 3, 2))]
)
def test_products_of_vectors(shapes: Any) -> None:
    x, y = (rng.normal(size=s) for s in shapes)
    found = XP.matmul(x, y)
    assert found.shape == np.matmul(x, y).shape
    np.testing.assert_allclose(found, np.matmul(x, y), rtol=1e-13)


def test_products_that_are_left_to_cupy() -> None:
    whole = np.arange(6).reshape(2, 3)
    assert XP.matmul(whole, whole.T).tolist() == (whole @ whole.T).tolist()
    assert XP.matmul(np.ones((2, 0)), np.ones((0, 3))).tolist() == [[0.0] * 3] * 2
    assert XP.matmul(np.ones((0, 2)), np.ones((2, 3))).shape == (0, 3)
    assert XP.matmul(np.ones((2, 2), np.complex128), np.ones((2, 2))).dtype == np.complex128


def test_products_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"matmul of \(2, 3\) and \(2, 3\): the last axis"):
        XP.matmul(np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"stacks of matrices \(2,\) and \(3,\) do not broadcast"):
        XP.matmul(np.ones((2, 2, 2)), np.ones((3, 2, 2)))


def test_the_alignment_is_that_of_the_address() -> None:
    """With a larger alignment cuBLASLt may choose an algorithm that reads past the memory's end."""
    seen = []
    memory = np.zeros(1024)
    start = -memory.ctypes.data % 256 // 8
    xp = cuda_on_host.extended(
        np, "xp", address=lambda a: a.ctypes.data, gemm=lambda how, *_: seen.append(how) or how
    )
    for offset in (0, 1, 2, 32):
        part = memory[start + offset : start + offset + 4].reshape(2, 2)
        products.library_product(xp, part, part)
    assert [how.left.aligned for how in seen] == [256, 8, 16, 256]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("done", [(), ("bias",), ("bias", "relu")])
def test_what_cublaslt_leaves_of_a_product_is_done_once(
    bias: bool, relu: bool, done: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every part of a stack that takes several calls; NaN stays NaN."""
    monkeypatch.setattr(products, "MOST_AT_ONCE", 2)

    def gemm(how: Any, first: int, out: Any, x: Any, y: Any, bias: Any = None) -> Any:
        cuda_on_host.gemm(how, first, out, x, y)
        computed = how._replace(bias=how.bias and "bias" in done)
        computed = computed._replace(relu=how.relu and "relu" in done and computed.bias)
        part = out[first : first + how.batch]
        part += bias if computed.bias else 0
        part[part < 0] = 0 if computed.relu else part[part < 0]
        return computed

    monkeypatch.setattr(XP, "gemm", gemm)
    x, y, b = (rng.normal(size=s) for s in ((3, 4, 5), (3, 5, 6), (6,)))
    x[1, 2, 3] = np.nan
    found = products.library_product(XP, x, y, b if bias else None, relu=relu)
    expected = np.matmul(x, y) + (b if bias else 0)
    expected = np.where(expected <= 0, 0, expected) if relu else expected
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)
    assert np.isnan(found).sum() == 6


@given(m=st.integers(1, 70), k=st.integers(1, 70), dtype=st.sampled_from(["f4", "f8"]))
@settings(max_examples=50, deadline=None)
def test_a_matrix_is_turned_round(m: int, k: int, dtype: str) -> None:
    x = rng.normal(size=(k, m)).astype(dtype)
    found = products.turned(XP, x.T)
    assert found.flags.c_contiguous
    assert np.array_equal(found, x.T)


@pytest.mark.parametrize(
    ("precision", "sizes", "across", "turned"),
    [
        ("tf32", (33, 40, 8), (True, True), True),
        ("tf32", (33, 40, 7), (True, True), False),  # the rows are too short
        ("tf32", (2, 3, 8), (True, True), False),  # too little to do
        ("tf32", (33, 40, 8), (True, False), False),
        ("tf32", (33, 40, 8), (False, True), False),
        ("float32", (33, 40, 8), (True, True), False),
    ],
)
def test_in_tf32_a_large_matrix_lies_along_the_sums(
    precision: str, sizes: Any, across: Any, turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first matrix is turned if neither lies along the sums; the product is the same."""
    monkeypatch.setattr(products, "LINE", 8)
    monkeypatch.setattr(products, "ENOUGH", 1000)
    xp, seen = HOST.with_precision(precision).xp, []
    monkeypatch.setattr(xp, "gemm", lambda how, *a: seen.append(how) or cuda_on_host.gemm(how, *a))
    m, k, n = sizes
    x, y = (rng.normal(size=s).astype("f4") for s in ((m, k), (k, n)))
    x = np.asfortranarray(x) if across[0] else x
    y = y if across[1] else np.asfortranarray(y)
    np.testing.assert_allclose(products.library_product(xp, x, y), x @ y, rtol=1e-4, atol=1e-5)
    (how,) = seen
    assert how.left.transposed == (across[0] and not turned)
    assert how.right.transposed != across[1]


@pytest.mark.parametrize("function", [functional.linear, functional.linear_relu])
@pytest.mark.parametrize("tiles", [0, 2, 400])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_of_odd_sizes(
    function: Any, bias: bool, tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "FEW_TILES", tiles)
    for n, i, o in itertools.product((1, 3, 33), (1, 7, 40), (1, 5, 40)):
        args = [rng.normal(size=(n, i)), rng.normal(size=(o, i)), rng.normal(size=o)]
        agree(function, *args[: 2 + bias], atol=1e-11)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("tiles", [0, 2, 400])
def test_some_of_a_linear_layer_s_gradients(
    wanted: tuple[int, ...], tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gradient has the bits that it has where all are asked for."""
    monkeypatch.setattr(products, "FEW_TILES", tiles)
    args = [rng.normal(size=shape) for shape in ((33, 7), (40, 7), (40,))]
    with use_backend(HOST):
        slopes = value_and_grad(lambda *a: total(functional.linear_relu(*a)), (0, 1, 2))(*args)[1]
        some = value_and_grad(lambda *a: total(functional.linear_relu(*a)), wanted)(*args)[1]
    for place, slope in zip(wanted, some, strict=True):
        assert np.array_equal(slope, slopes[place])
