"""CuPy's kernels without a GPU: the CUDA sources, compiled by g++, behind their own Python.

What needs only shapes that somebody draws stands in `test_kernels.py`, and the whole conformance
suite passes too, where the plug-in of `tests/plugins/cuda_on_host` is on the path: the session
`cuda_sources` runs all three.
"""

from __future__ import annotations

import itertools
import math
import shutil
from types import SimpleNamespace
from typing import Any

import array_api_compat.numpy as compat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polynet import Trainer, functional, losses, nn, optim, random, use_backend, value_and_grad
from polynet.backend import Backend, get_backend
from polynet.functional.convolution import convolution
from polynet.ops import OPS
from polynet.ops.indexing import put_slice, segment_sum
from polynet.optim import schedules
from polynet.optim.clipping import clip_norm
from polynet.testing.samples import SAMPLES, is_differentiable
from polynet.testing.suite.cases import one_result
from polynet.tree import leaves, named_leaves

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed, which compiles the CUDA sources", allow_module_level=True)

from beside_definitions import HOST, agree, total
from plugins.cuda_on_host import cuda_on_host

from polynet_cupy import indexing, launch, normalisation, optimizers, products
from polynet_cupy.indexing import MOST_ROWS
from polynet_cupy.kernels import KERNELS

XP = HOST.xp
rng = np.random.default_rng(7)
FUNCTIONS = {**vars(functional), **vars(losses), "put_slice": put_slice, "segment_sum": segment_sum}
EDGES = [0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan]


# All of them


def called(name: str, args: Any, options: Any) -> Any:
    """A kernel's answer to a sample."""
    with use_backend(HOST):
        given = [np.asarray(a) if isinstance(a, float) else a for a in args]
        return KERNELS[name](XP, *given, **options)


def test_every_kernel_has_samples_that_it_takes() -> None:
    """A kernel that declined all it is tested with would be tested by nothing."""
    taken = {
        name: sum(called(name, s.args, s.options) is not NotImplemented for s in SAMPLES[name])
        for name in KERNELS.keys() & SAMPLES.keys()
    }
    assert all(taken.values()), taken
    assert KERNELS.keys() - SAMPLES.keys() == {*optimizers.KERNELS, "keep_mask"}


def test_every_source_s_kernel_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """By samples, pullbacks and steps, so by the suite; in bfloat16, too."""
    started = set()
    fast = HOST.with_precision("bfloat16")

    def launched(kernel: str, *args: Any) -> None:
        started.add(kernel)
        cuda_on_host.launch(kernel, *args)

    for xp in (XP, fast.xp):
        monkeypatch.setattr(xp, "launch", launched)
    for name in KERNELS.keys() & SAMPLES.keys():
        for sample in SAMPLES[name]:
            floats = [i for i, a in enumerate(sample.args) if is_differentiable(a)]
            with use_backend(HOST):
                f = lambda *a, n=name, o=sample.options: total(one_result(FUNCTIONS[n])(*a, **o))  # noqa: E731
                value_and_grad(f, tuple(floats))(*sample.args)
    agree(_dropped, rng.normal(size=(3, 5)))
    with use_backend(HOST):
        random.keep_mask(random.key(0), np.zeros(1, np.int32), shape=(2, 3), keep=0.5)
        OPS["take"](np.ones((3, 2)), np.asarray([0, 2]), axis=0)
    for rule in (optim.Adam(), optim.SGD(), optim.RMSprop()):
        stepped(HOST, optim.EMA(optim.ClipNorm(rule, max_norm=1.0)), {"w": np.ones(3)})
    with use_backend(fast):
        one = {"stride": (1,), "padding": ((0, 0),), "dilation": (1,)}
        convolution(*(np.ones((1, 1, n), np.float32) for n in (4, 2)), **one)
    assert started == set(launch.kernels())


def apart(name: str, sample: Any, dtype: str) -> float:
    """How far value and gradients of a kernel are from its definition in float64, at most."""
    f = one_result(FUNCTIONS[name])
    floats = tuple(i for i, a in enumerate(sample.args) if is_differentiable(a))
    worst = 0.0
    results = []
    for backend, kind in ((HOST, dtype), (HOST.without_kernels(), "float64")):
        args = [a.astype(kind) if is_differentiable(a) else a for a in sample.args]
        with use_backend(backend):
            slopes = value_and_grad(lambda *a: total(f(*a, **sample.options)), floats)(*args)[1]
            results.append([f(*args, **sample.options), *slopes])
    for found, expected in zip(*results, strict=True):
        assert found.dtype == dtype
        if expected.size:
            scale = max(1.0, float(np.abs(expected).max()))
            worst = max(worst, float(np.abs(found - expected).max()) / scale)
    return worst


def test_how_far_kernels_are_from_their_definitions(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints a line for each kernel: the largest error of its samples, relative above 1."""
    limits = {"float32": 5e-6, "float64": 1e-14}
    names = sorted(KERNELS.keys() & SAMPLES.keys())
    worst = {n: [max(apart(n, s, d) for s in SAMPLES[n]) for d in limits] for n in names}
    with capsys.disabled():
        print("\nlargest error in float32, in float64")
        for name, (single, double) in worst.items():
            print(f"  {name:16} {single:8.1e} {double:8.1e}")
    for errors in worst.values():
        assert all(e <= limit for e, limit in zip(errors, limits.values(), strict=True))


def _dropped(x: Any) -> Any:
    return functional.dropout(x, np.cos(np.arange(x.size)).reshape(x.shape) > 0, keep=0.75)


@pytest.mark.parametrize(
    "name",
    "relu gelu softmax log_softmax layer_norm batch_norm max_pool avg_pool dropout".split(),
)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_no_number_goes_where_it_goes_by_the_definition(
    name: str, data: st.DataObject
) -> None:
    x = np.asarray(data.draw(st.lists(st.sampled_from(EDGES), min_size=24, max_size=24)))
    x = x.reshape(2, 3, 4)
    how = {"window": (2, 2), "stride": (1, 2), "padding": (1, 0)}
    f = {
        "layer_norm": lambda a: functional.layer_norm(a, axes=1, eps=1e-5),
        "batch_norm": one_result(lambda a: functional.batch_norm(a, eps=1e-5)),
        "max_pool": lambda a: functional.max_pool(a, **how),
        "avg_pool": lambda a: functional.avg_pool(a, **how),
        "dropout": _dropped,
    }.get(name, FUNCTIONS[name])
    agree(f, x)


@given(data=st.data(), label=st.sampled_from([0, 2, 3, -1, 77]))
@settings(max_examples=60, deadline=None)
def test_cross_entropy_of_no_numbers_and_of_no_class(data: st.DataObject, label: int) -> None:
    numbers = st.sampled_from([*EDGES, 3.0, -700.0, 700.0])
    x = np.asarray(data.draw(st.lists(numbers, min_size=9, max_size=9))).reshape(3, 3)
    for dtype in (np.int32, np.int64):
        labels = np.asarray([1, label, 0], dtype=dtype)
        agree(lambda a, y=labels: losses.cross_entropy(a, y)[None], x)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 255, 256, 257, 1000])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "layer_norm", "cross_entropy"])
def test_rows_of_any_length(name: str, n: int) -> None:
    """Less than a warp, several, more than a block; one row and many."""
    for rows in (1, 5):
        x = rng.normal(size=(rows, n)) * 10
        if name == "cross_entropy":
            labels = rng.integers(0, n, size=rows)
            agree(lambda a, y=labels: losses.cross_entropy(a, y)[None], x)
        elif name == "layer_norm":
            f = lambda *a: functional.layer_norm(*a, axes=1, eps=1e-5)  # noqa: E731
            agree(f, x, rng.normal(size=n), rng.normal(size=n), atol=1e-11)
        else:
            agree(FUNCTIONS[name], x)
            agree(lambda a, f=FUNCTIONS[name]: f(a, axis=0), x)


@pytest.mark.parametrize("shape", [(2, 1), (1, 3, 2), (5, 2, 7), (3, 4, 5, 6), (3, 2, 1366)])
@pytest.mark.parametrize("affine", [0, 1, 2])
def test_channels_of_any_length(shape: tuple[int, ...], affine: int) -> None:
    """Numbers, mean and variance, and what goes back from all three."""
    args = [rng.normal(size=shape), *(rng.normal(size=shape[1]) for _ in range(affine))]
    f = one_result(lambda *a: functional.batch_norm(*a, eps=1e-3))
    agree(f, *args, atol=1e-10)
    if affine:  # where nothing goes back to x, as to a user's data
        agree(lambda *a: f(args[0], *a), *args[1:], atol=1e-10)


def test_channels_of_more_parts_than_a_block_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalisation, "CHUNK", 3)
    f = one_result(lambda *a: functional.batch_norm(*a, eps=1e-3))
    agree(f, rng.normal(size=(100, 2, 10)) + 3, *rng.normal(size=(2, 2)), atol=1e-10)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 70), (500, 3), (5000, 33)])
def test_sums_of_columns(shape: tuple[int, int]) -> None:
    x = rng.normal(size=shape)
    np.testing.assert_allclose(launch.column_sum(XP, x), x.sum(axis=0), rtol=1e-11, atol=1e-11)
    assert np.array_equal(launch.column_sum(XP, x), launch.column_sum(XP, x.copy()))
    assert launch.column_sum(XP, x[:, :0]).shape == (0,)
    assert launch.column_sum(XP, x[:0]).tolist() == [0] * shape[1]


@given(data=st.data(), largest=st.booleans(), ceil=st.booleans(), axes=st.integers(1, 2))
@settings(max_examples=200, deadline=None)
def test_windows_of_every_kind(data: Any, largest: bool, ceil: bool, axes: int) -> None:
    """Dilated, beyond the end, beyond the padding, with and without the padding's zeros."""
    each = lambda low, high: data.draw(st.tuples(*[st.integers(low, high)] * axes))  # noqa: E731
    window, stride = each(1, 3), each(1, 4)
    dilation = each(1, 2) if largest else (1,) * axes
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in window)
    sizes = [d * (k - 1) + 1 + n for d, k, n in zip(dilation, window, each(0, 6), strict=True)]
    how = {"window": window, "stride": stride, "padding": padding, "ceil_mode": ceil}
    if largest:
        f = lambda a: functional.max_pool(a, dilation=dilation, **how)  # noqa: E731
    else:
        counted = data.draw(st.booleans())
        f = lambda a: functional.avg_pool(a, count_include_pad=counted, **how)  # noqa: E731
    agree(f, rng.normal(size=(2, 3, *sizes)))


# Dropout's bits

ANSWERS = [  # of the generator's authors: key, counter, words
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((-1, -1), (-1, -1), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, -0x7A5CF72D), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "words"), ANSWERS)
def test_threefry_s_published_answers(key: Any, counter: Any, words: Any) -> None:
    """A half is below a limit, but not below itself: so a mask shows each of the four."""
    halves = [word >> shift & 0xFFFF for word in words for shift in (0, 16)]
    given = [np.asarray(key, np.int32), np.asarray(counter[1:], np.int32)]
    for i, half in enumerate(halves):
        for limit in (half, half + 1):
            mask, _ = KERNELS["keep_mask"](
                XP, *given, shape=(1, 4), keep=limit / 65536, first=counter[0]
            )
            assert mask[0, i] == (limit > half)


@given(
    seed=st.integers(0, 2**31),
    step=st.integers(0, 2**31 - 1),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    keep=st.integers(0, 65536),
    first=st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_masks_are_the_definition_s_bit_for_bit(
    seed: int, step: int, shape: tuple[int, ...], keep: int, first: int
) -> None:
    given = random.key(seed, "layer"), np.asarray([step], np.int32)
    options = {"shape": shape, "keep": keep / 65536, "first": first}
    with use_backend("numpy"), np.errstate(over="ignore"):
        expected = random.keep_mask.definition(np, *given, **options)
    found, _ = KERNELS["keep_mask"](XP, *given, **options)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


# Matrix products


def lying(draw: Any, *shape: int) -> np.ndarray:
    """An array of this shape: in order, turned round, a part of a larger one, or backwards."""
    how = draw(st.sampled_from(["C", "F", "part", "every other", "backwards"]))
    x = rng.normal(size=shape)
    if how == "F":
        return np.asfortranarray(x)
    if how == "part":
        large = rng.normal(size=[n + 2 for n in shape])
        large[tuple(slice(1, n + 1) for n in shape)] = x
        return large[tuple(slice(1, n + 1) for n in shape)]
    return {"C": x, "every other": np.repeat(x, 2, axis=-1)[..., ::2], "backwards": x[::-1]}[how]


STACKS = [((), ()), ((3,), (3,)), ((), (2,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((1,), ())]


@given(data=st.data(), stacks=st.sampled_from(STACKS), sizes=st.tuples(*[st.integers(1, 4)] * 3))
@settings(max_examples=300, deadline=None)
def test_products_of_matrices_however_they_lie(data: Any, stacks: Any, sizes: Any) -> None:
    m, k, n = sizes
    x, y = lying(data.draw, *stacks[0], m, k), lying(data.draw, *stacks[1], k, n)
    np.testing.assert_allclose(XP.matmul(x, y), np.matmul(x, y), rtol=1e-13, atol=1e-13)
    turned = np.matmul(np.swapaxes(y, -1, -2), np.swapaxes(x, -1, -2))
    np.testing.assert_allclose(XP.matmul(y.mT, x.mT), turned, rtol=1e-13, atol=1e-13)


def test_products_that_copy_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned round, one for all of a stack, and a part of wider rows: all as they lie."""
    x, stack = rng.normal(size=(6, 5)), rng.normal(size=(4, 6, 5))
    pairs = [(x.T, x), (x, x.T), (x[:, :3].T, x), (stack.mT, x), (x.T, stack), (stack, stack.mT)]
    monkeypatch.setattr(XP, "asarray", None)
    for a, b in pairs:
        np.testing.assert_allclose(XP.matmul(a, b), np.matmul(a, b), rtol=1e-13)


def test_products_of_more_matrices_than_a_call_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call for each so many of them; of one that serves all, each reads the same."""
    monkeypatch.setattr(products, "MOST_AT_ONCE", 3)
    calls = []
    monkeypatch.setattr(XP, "gemm", lambda *a: calls.append(a[:2]) or cuda_on_host.gemm(*a))
    stack, one = rng.normal(size=(2, 4, 3, 5)), rng.normal(size=(5, 7))
    np.testing.assert_allclose(XP.matmul(stack, one), np.matmul(stack, one), rtol=1e-13)
    assert [(how.batch, first) for how, first in calls] == [(3, 0), (3, 3), (2, 6)]
    assert [how.left.aligned for how, _ in calls] == [
        min(256, a & -a) for a in (stack.ctypes.data + first * 15 * 8 for first in (0, 3, 6))
    ]


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
    """An algorithm for memory that is aligned better would read across its end."""
    seen = []
    memory = np.zeros(1024)
    start = -memory.ctypes.data % 256 // 8
    xp = cuda_on_host.extended(
        np, "xp", address=lambda a: a.ctypes.data, gemm=lambda *a: seen.append(a[0]) or True
    )
    for offset in (0, 1, 2, 32):
        part = memory[start + offset : start + offset + 4].reshape(2, 2)
        products.product(xp, part, part)
    assert [how.left.aligned for how in seen] == [256, 8, 16, 256]


@pytest.mark.parametrize("bias", [True, False])
def test_linear_of_odd_sizes(bias: bool) -> None:
    for n, i, o in itertools.product((1, 3, 33), (1, 7), (1, 5, 40)):
        args = [rng.normal(size=(n, i)), rng.normal(size=(o, i)), rng.normal(size=o)]
        agree(functional.linear, *args[: 2 + bias], atol=1e-11)


# Joining, taking, adding by segment


@pytest.mark.parametrize("count", [1, 8, 9, 16, 17, 70])
def test_many_arrays_are_joined_a_few_at_a_time(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CuPy would copy the addresses of more than eight from the host, which a graph cannot."""
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


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "int8", "bool"])
@pytest.mark.parametrize("places", ["int32", "int64"])
def test_rows_of_a_batch(dtype: str, places: str) -> None:
    rows = np.asarray([4, 0, 0, -1, 2], dtype=places)
    for shape in ((5,), (5, 3), (5, 2, 4), (5, 0)):
        x = (rng.normal(size=shape) * 9).astype(dtype)
        for array in (x, np.asfortranarray(x), x[::-1]):
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


@pytest.mark.parametrize("axes", [0, 1, 2, ((0,), (1,)), ((1, 0), (0, 1)), ((-1,), (0,))])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128", "int64"])
def test_tensordot(axes: Any, dtype: str) -> None:
    x, y = ((rng.normal(size=(3, 3)) * 5).astype(dtype) for _ in range(2))
    found, expected = XP.tensordot(x, y, axes=axes), np.tensordot(x, y, axes=axes)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="shape"):
        XP.tensordot(np.ones((2, 3)), np.ones((2, 3)), axes=1)


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_vecdot(axis: int, dtype: str) -> None:
    x, y = (rng.normal(size=(2, 3, 4)) + 1j * rng.normal(size=(2, 3, 4)) for _ in range(2))
    x, y = ((a.real if dtype == "float32" else a).astype(dtype) for a in (x, y))
    np.testing.assert_allclose(XP.vecdot(x, y, axis=axis), compat.vecdot(x, y, axis=axis), 1e-5)


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
    """It makes a matrix of a number for each row and segment."""
    x, segments = np.ones((9, 2)), np.arange(9) % 3
    monkeypatch.setattr(indexing, "MOST_ROWS", 8)
    assert KERNELS["segment_sum"](XP, x, segments, 3) is NotImplemented
    monkeypatch.setattr(indexing, "MOST_NUMBERS", 26)
    found, _ = KERNELS["segment_sum"](XP, x, segments, 3)
    assert found.tolist() == [[3.0, 3.0]] * 3


def test_sums_by_segment_have_one_order() -> None:
    """That of the rows: each sum is what adding one row after another gives, to the last bit."""
    x, segments = rng.normal(size=(300, 3)).astype(np.float32), rng.integers(0, 4, size=300)
    expected = np.zeros((4, 3), np.float32)
    for row, k in zip(x, segments, strict=True):
        expected[k] += row
    found, _ = KERNELS["segment_sum"](XP, x, segments, 4)
    assert np.array_equal(found, expected)


# What kernels decline


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("relu", (np.ones(3, np.int64),), {}),
        ("softmax", (np.ones((0, 3)),), {}),
        ("softmax", (np.ones(()),), {}),
        ("cross_entropy", (np.ones((2, 3)), np.asarray([0, 1])), {"label_smoothing": 0.1}),
        ("cross_entropy", (np.ones((2, 3)), np.ones((2, 3))), {}),
        ("cross_entropy", (np.ones((0, 3)), np.zeros(0, np.int64)), {}),
        ("layer_norm", (np.ones((2, 3)), np.ones(3, np.float32)), {"axes": 1, "eps": 1e-5}),
        ("linear", (np.ones((2, 3)), np.ones((4, 3), np.float32)), {}),
        ("linear", (np.ones((2, 3)), np.ones((4, 2))), {}),
        ("linear", (np.ones((2, 3)), np.ones((4, 3)), np.ones(3)), {}),
        ("dropout", (np.ones((2, 3)), np.ones((2, 1), bool)), {"keep": 0.5}),
        ("segment_sum", (np.ones(3, np.int64), np.zeros(3, np.int64), 2), {}),
        ("segment_sum", (np.ones(MOST_ROWS + 1), np.zeros(MOST_ROWS + 1, np.int64), 2), {}),
        ("max_pool", (np.ones((1, 2)),), {"window": (3,), "stride": (1,), "padding": (0,)}),
        ("max_pool", (np.ones((0, 3)),), {"window": (2,), "stride": (1,), "padding": (0,)}),
        ("avg_pool", (np.ones(27).reshape(3, 3, 3),),
         {"window": (2,) * 3, "stride": (1,) * 3, "padding": (0,) * 3}),
        ("convolution", (np.ones((1, 2, 3)), np.ones((1, 1, 2))),
         {"stride": (1,), "padding": ((0, 0),), "dilation": (1,)}),
        ("convolution", (np.ones((1, 1, 1)), np.ones((1, 1, 2))),
         {"stride": (1,), "padding": ((0, 0),), "dilation": (1,)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_left_to_the_definition(name: str, args: Any, options: Any) -> None:
    assert KERNELS[name](XP, *args, **options) is NotImplemented


# Optimizers

OPTIMIZERS = [
    *(optim.SGD(0.1), optim.SGD(0.1, weight_decay=0.1)),
    *(optim.SGD(0.1, momentum=0.9), optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1)),
    *(optim.Adam(0.1, weight_decay=0.1), optim.Adam(0.1, betas=(0.0, 0.0))),
    *(optim.AdamW(0.1), optim.AdamW(schedules.StepLR(0.1, 2))),
    optim.SGD(schedules.ExponentialLR(0.1, 0.9), momentum=0.9),
    *(optim.RMSprop(0.1), optim.RMSprop(schedules.StepLR(0.1, 2), momentum=0.9, weight_decay=0.1)),
    *(optim.ClipNorm(optim.SGD(0.1), max_norm=0.5), optim.ClipNorm(optim.SGD(0.1), max_norm=1e9)),
    optim.EMA(optim.SGD(0.1), decay=0.5),
]


def stepped(backend: Backend, optimizer: Any, params: Any, steps: int = 3) -> Any:
    """Parameters and state after some steps, whose gradients are drawn."""
    grads = [
        {n: np.random.default_rng(i).normal(size=p.shape).astype(p.dtype)
         for n, p in params.items()}
        for i in range(steps)
    ]  # fmt: skip
    with use_backend(backend):
        state = optimizer.init(params)
        for i, g in enumerate(grads):
            params, state = optimizer.update(params, g, state, np.asarray([i], np.int32))
    return params, state


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-13), ("float32", 2e-6)])
def test_an_optimizer_is_its_definition(optimizer: Any, dtype: str, limit: float) -> None:
    """Of many parameters, more than a table holds; of none and one element, and several blocks."""
    shapes = [(), (1,), (3, 5), (0, 2), (2 * optimizers.CHUNK + 1,), *[(2,)] * optimizers.MOST]
    params = {f"p{i}": rng.normal(size=s).astype(dtype) for i, s in enumerate(shapes)}
    params["turned"] = rng.normal(size=(4, 3)).astype(dtype).T
    found, state = stepped(HOST, optimizer, params)
    expected, wanted = stepped(HOST.without_kernels(), optimizer, params)
    for name, p in expected.items():
        np.testing.assert_allclose(found[name], p, rtol=limit, atol=limit)
    for (path, a), leaf in zip(named_leaves(wanted), leaves(state), strict=True):
        np.testing.assert_allclose(leaf, a, rtol=limit, atol=limit, err_msg=path)


def use(backend: Backend, f: Any) -> Any:
    with use_backend(backend), np.errstate(all="ignore"):
        return f()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_gradient_that_is_no_number_is_not_clipped_away(number: float) -> None:
    grads = {"a": np.asarray([1.0, number]), "b": np.ones((0, 2)), "c": np.ones(3)}
    found, expected = (
        use(backend, lambda: clip_norm(grads, max_norm=1.0))
        for backend in (HOST, HOST.without_kernels())
    )
    for name, g in expected.items():
        np.testing.assert_array_equal(found[name], g)
    assert use(HOST, lambda: clip_norm({"a": np.ones((0, 2))}, max_norm=1.0))["a"].shape == (0, 2)


def test_an_optimizer_of_several_dtypes_or_none_declines() -> None:
    adam = optim.Adam(0.1)
    params = {"a": np.ones(2), "b": np.ones(2, np.float32)}
    found, _ = stepped(HOST, adam, params)
    assert {n: p.dtype for n, p in found.items()} == {n: p.dtype for n, p in params.items()}
    step, options = np.zeros(1, np.int32), {"betas": (0.9, 0.9), "eps": 1e-8, "weight_decay": 0.0}
    empty = {"exp_avg": {}, "exp_avg_sq": {}}
    assert KERNELS["adam"](XP, {}, {}, empty, step, 0.1, **options) is NotImplemented


def gradients_that_are_the_parameters(state: Any, _data: Any, _rows: Any) -> Any:
    """A step whose gradients stand in its state: each the other's, turned round."""
    params = state["params"]
    loss = params["a"][0, 0] * 1
    grads = {"a": params["b"].T, "b": params["a"].T}
    new, rest = optim.SGD(0.25).update(params, grads, {}, state["step"])
    return {"params": new, "step": state["step"] + 1, **rest}, loss


def test_a_compiled_step_writes_over_its_own_state_only() -> None:
    """And reads a gradient that stands there before it writes; whoever gave the state keeps it."""
    gradients_that_are_the_parameters.consumes = True  # type: ignore[attr-defined]
    params = {"a": rng.normal(size=(3, 3)), "b": rng.normal(size=(3, 3))}
    state = {"params": params, "step": np.zeros(1, np.int32)}
    before = {n: p.copy() for n, p in params.items()}
    rows = np.zeros((6, 1), np.int64)
    with use_backend(HOST):
        run = HOST.compile(gradients_that_are_the_parameters)
        first, found = run(state, np.zeros(1), rows)
        kept = {n: id(p) for n, p in first["params"].items()}
        second, _ = run(first, np.zeros(1), rows)
        expected, wanted = Backend.compile(HOST, gradients_that_are_the_parameters)(
            state, np.zeros(1), rows
        )
        again, _ = Backend.compile(HOST, gradients_that_are_the_parameters)(
            expected, np.zeros(1), rows
        )
    assert {n: id(p) for n, p in second["params"].items()} == kept, "in place"
    for name, p in before.items():
        assert np.array_equal(params[name], p)
        assert np.array_equal(second["params"][name], again["params"][name])
    assert np.array_equal(found, wanted)


# Whole runs


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_100_steps_of_adam_are_numpy_s(dtype: str, limit: float, dropout: float) -> None:
    x, y = rng.normal(size=(160, 12)), rng.integers(0, 3, size=160)
    weights = []
    for backend in (HOST, get_backend("numpy")):
        net = nn.Sequential(
            nn.Linear(12, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3)
        )
        run = Trainer(
            net, losses.cross_entropy, optim.Adam(1e-3, eps=1e-5), backend=backend, dtype=dtype
        )
        with use_backend(backend):
            run.fit(x, y, epochs=10, batch_size=16)
        assert len(run.history.step_losses) == 100
        weights.append(run.net.state_dict())
    for name, w in weights[1].items():
        np.testing.assert_allclose(weights[0][name], w, rtol=limit, atol=limit)


def test_compiled_steps_are_the_loop_bit_for_bit() -> None:
    x, y = rng.normal(size=(2, 40, 3, 8, 8)), rng.integers(0, 4, size=40)

    def trained(compiled: bool) -> Any:
        backend = cuda_on_host.CudaOnHost()
        if not compiled:
            backend.compile = lambda step: Backend.compile(backend, step)  # type: ignore[method-assign]
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4),
            nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 4),
        )  # fmt: skip
        run = Trainer(net, losses.cross_entropy, optim.AdamW(1e-2), backend=backend)
        with use_backend(backend):
            run.fit(x[0], y, epochs=3, batch_size=8)
            run.fit(x[1], y, epochs=3, batch_size=16)
        return run

    compiled, looped = trained(compiled=True), trained(compiled=False)
    assert compiled.history.step_losses == looped.history.step_losses
    for name, w in looped.net.state_dict().items():
        assert np.array_equal(compiled.net.state_dict()[name], w), name


# What watches over all this


@pytest.mark.parametrize(
    "args",
    [
        (np.ones(4), np.ones(4)),
        (np.ones(4), np.ones(4), 4.0),
        (np.ones(4), np.ones(4), True),
        (np.ones(4), np.ones(4, np.float32), 4),
        (np.ones(4), np.ones(8)[::2], 4),
        (np.ones(4), None, 4),
        ([1.0] * 4, np.ones(4), 4),
    ],
)
def test_a_launch_that_would_go_wrong_on_a_device_fails(args: Any) -> None:
    """A number of another kind, an array of another dtype or not in order, one that is missing."""
    with pytest.raises(AssertionError):
        cuda_on_host.launch("relu_forward", "float64", 1, 32, *args)


def test_a_launch_that_writes_to_what_is_read_only_fails() -> None:
    y = np.ones(4)
    y.flags.writeable = False
    with pytest.raises(AssertionError, match="relu_forward's y"):
        cuda_on_host.launch("relu_forward", "float64", 1, 32, np.ones(4), y, 4)


def test_arrays_of_another_device_are_refused() -> None:
    """As CuPy's own kernels do: the memory of another device must not be taken for this one's."""
    here, there = (SimpleNamespace(data=SimpleNamespace(device_id=i), shape=(2,)) for i in (0, 1))
    launch.on_device(0, here, 3, None, 1.0, np.ones(2))
    with pytest.raises(ValueError, match=r"is on cuda:1, and the current device is cuda:0; call"):
        launch.on_device(0, here, there)


def test_grids_and_blocks() -> None:
    """A thread an element, a block a row: no more blocks than needed, and whole warps."""
    plans = []
    xp = cuda_on_host.extended(np, "xp", launch=lambda *a: plans.append(a[2:4]))
    for size in (0, 1, 256, 257, 10**9):
        launch.elementwise(xp, "relu_forward", "float32", size)
    for length in (1, 32, 33, 10**6):
        launch.by_row(xp, "softmax_forward", "float32", 7, length)
    assert plans == [
        *((1, 256), (1, 256), (2, 256), (math.ceil(10**9 / 256), 256)),
        *((7, 32), (7, 32), (7, 64), (7, 256)),
    ]
