"""CuPy's kernels without a GPU: the CUDA sources, compiled by g++, behind the plug-in's own Python.

Tests that need only drawn shapes are in `test_kernels.py`. The whole conformance suite passes too,
if the plug-in of `tests/plugins/cuda_on_host` is on the path. The nox session `cuda_sources` runs
all three.
"""

from __future__ import annotations

import math
import shutil
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polynet import functional, losses, optim, random, use_backend, value_and_grad
from polynet.functional.convolution import convolution
from polynet.ops import OPS
from polynet.ops.indexing import put_slice, segment_sum
from polynet.testing.samples import SAMPLES, is_differentiable
from polynet.testing.suite.cases import one_result

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed, which compiles the CUDA sources", allow_module_level=True)

from beside_definitions import HOST, agree, stepped, total
from plugins.cuda_on_host import cuda_on_host

from polynet_cupy import launch, normalisation, optimizers, products
from polynet_cupy.indexing import MOST_ROWS
from polynet_cupy.kernels import KERNELS

XP = HOST.xp
rng = np.random.default_rng(7)
FUNCTIONS = {**vars(functional), **vars(losses), "put_slice": put_slice, "segment_sum": segment_sum}
EDGES = [0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan]


# All kernels


def called(name: str, args: Any, options: Any) -> Any:
    """What a kernel returns for a sample."""
    with use_backend(HOST):
        given = [np.asarray(a) if isinstance(a, float) else a for a in args]
        return KERNELS[name](XP, *given, **options)


def test_every_kernel_has_samples_that_it_takes() -> None:
    """A kernel that declines all of its samples would not be tested at all."""
    taken = {
        name: sum(called(name, s.args, s.options) is not NotImplemented for s in SAMPLES[name])
        for name in KERNELS.keys() & SAMPLES.keys()
    }
    assert all(taken.values()), taken
    assert KERNELS.keys() - SAMPLES.keys() == {*optimizers.KERNELS, "keep_mask"}


def test_every_source_s_kernel_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples, pullbacks and training steps launch them all, some of them in bfloat16 only."""
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
                f = lambda *a, n=name, o=sample.options: total(one_result(FUNCTIONS[n])(*a, **o))
                value_and_grad(f, tuple(floats))(*sample.args)
    agree(_dropped, rng.normal(size=(3, 5)))
    with use_backend(HOST):
        random.keep_mask(random.key(0), np.zeros(1, np.int32), shape=(2, 3), keep=0.5)
        OPS["take"](np.ones((3, 2)), np.asarray([0, 2]), axis=0)
    for rule in (optim.Adam(), optim.SGD(), optim.RMSprop()):
        stepped(HOST, optim.EMA(optim.ClipNorm(rule, max_norm=1.0)), {"w": np.ones(3)})
    launched("spin", "float32", 1, 32, 100)  # used while products are timed
    products.turned(XP, np.ones((2, 3)).T)  # used for large products in TF32
    with use_backend(fast):
        for axes in (1, 3):
            one = {"stride": (1,) * axes, "padding": ((0, 0),) * axes, "dilation": (1,) * axes}
            convolution(*(np.ones((1, 1, *(n,) * axes), np.float32) for n in (4, 2)), **one)
        layer = [np.ones(n, np.float32) for n in ((2, 3), (4, 3), 4)]
        value_and_grad(lambda *a: total(functional.linear(*a)), (0, 1, 2))(*layer)
    agree(functional.linear_relu, *(rng.normal(size=s) for s in ((900, 3), (4, 3), 4)), atol=1e-11)
    many = [rng.normal(size=s) for s in ((4, 32, 16, 16), (32, 32, 3, 3))]
    same = {"stride": (1, 1), "padding": ((1, 1),) * 2, "dilation": (1, 1)}
    agree(lambda *a: convolution(*a, **same), *many, atol=1e-11)
    assert started == set(launch.kernels())


def apart(name: str, sample: Any, dtype: str) -> float:
    """The largest error of a kernel's value and gradients, beside its definition in float64."""
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
    """Prints the largest error of each kernel's samples, relative where numbers are above 1."""
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
    """Rows shorter than a warp, of several warps, longer than a block; one row and several."""
    for rows in (1, 5):
        x = rng.normal(size=(rows, n)) * 10
        if name == "cross_entropy":
            labels = rng.integers(0, n, size=rows)
            agree(lambda a, y=labels: losses.cross_entropy(a, y)[None], x)
        elif name == "layer_norm":
            f = lambda *a: functional.layer_norm(*a, axes=1, eps=1e-5)
            agree(f, x, rng.normal(size=n), rng.normal(size=n), atol=1e-11)
        else:
            agree(FUNCTIONS[name], x)
            agree(lambda a, f=FUNCTIONS[name]: f(a, axis=0), x)


@pytest.mark.parametrize("n", [128, 1000, 8000, 8200])
def test_a_row_has_the_same_bits_wherever_it_begins(n: int) -> None:
    """Depending on where it begins, one instruction can read a whole pack, or it cannot."""
    memory = rng.uniform(-12, -8, size=3 * n + 1)
    memory[:-1:n] = 0.0  # so that the sum is a little above 1, and its logarithm shows the last bit
    labels = rng.integers(0, n, size=3)
    x = memory[:-1].reshape(3, n).copy()
    memory[1:] = x.reshape(-1)  # eight bytes further on
    moved = memory[1:].reshape(3, n)
    one, another = (a.ctypes.data % launch.PACK for a in (x, moved))
    assert one != another
    values = [KERNELS["cross_entropy"](XP, a, labels)[0] for a in (x, moved)]
    assert values[0].tobytes() == values[1].tobytes()


@pytest.mark.parametrize("shape", [(2, 1), (1, 3, 2), (5, 2, 7), (3, 4, 5, 6), (3, 2, 1366)])
@pytest.mark.parametrize("affine", [0, 1, 2])
def test_channels_of_any_length(shape: tuple[int, ...], affine: int) -> None:
    """The normalised numbers, the mean and the variance, and the gradients through all three."""
    args = [rng.normal(size=shape), *(rng.normal(size=shape[1]) for _ in range(affine))]
    f = one_result(lambda *a: functional.batch_norm(*a, eps=1e-3))
    agree(f, *args, atol=1e-10)
    if affine:  # without a gradient of x, as where x is a user's data
        agree(lambda *a: f(args[0], *a), *args[1:], atol=1e-10)


def test_channels_of_more_parts_than_a_block_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalisation, "CHUNK", 3)
    monkeypatch.setattr(normalisation, "THREADS", 32)
    f = one_result(lambda *a: functional.batch_norm(*a, eps=1e-3))
    agree(f, rng.normal(size=(20, 2, 10)) + 3, *rng.normal(size=(2, 2)), atol=1e-10)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 70), (500, 3), (5000, 33), (5000, 70)])
@pytest.mark.parametrize("enough", [1, launch.ENOUGH])
def test_sums_of_columns(
    shape: tuple[int, int], enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `ENOUGH` blocks on, a thread sums a pack of columns, if the columns make whole packs."""
    x = rng.normal(size=shape)
    one_by_one = launch.column_sum(XP, x)
    monkeypatch.setattr(launch, "ENOUGH", enough)
    assert np.array_equal(launch.column_sum(XP, x), one_by_one)
    np.testing.assert_allclose(launch.column_sum(XP, x), x.sum(axis=0), rtol=1e-11, atol=1e-11)
    assert np.array_equal(launch.column_sum(XP, x), launch.column_sum(XP, x.copy()))
    assert launch.column_sum(XP, x[:, :0]).shape == (0,)
    assert launch.column_sum(XP, x[:0]).tolist() == [0] * shape[1]
    kept, terms = rng.normal(size=shape) > 0, np.zeros(shape)
    sums = launch.column_sum(XP, x, kept.astype(x.dtype), terms)
    assert np.array_equal(terms, np.where(kept, x, 0))
    assert np.array_equal(sums, launch.column_sum(XP, terms))


@given(data=st.data(), largest=st.booleans(), ceil=st.booleans(), axes=st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_windows_of_every_kind(data: Any, largest: bool, ceil: bool, axes: int) -> None:
    """Dilated windows, past the end, past the padding, with and without the padding's zeros."""
    each = lambda low, high: data.draw(st.tuples(*[st.integers(low, high)] * axes))
    window, stride = each(1, 3), each(1, 4)
    dilation = each(1, 2) if largest else (1,) * axes
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in window)
    sizes = [d * (k - 1) + 1 + n for d, k, n in zip(dilation, window, each(0, 6), strict=True)]
    how = {"window": window, "stride": stride, "padding": padding, "ceil_mode": ceil}
    if largest:
        f = lambda a: functional.max_pool(a, dilation=dilation, **how)
    else:
        counted = data.draw(st.booleans())
        f = lambda a: functional.avg_pool(a, count_include_pad=counted, **how)
    agree(f, rng.normal(size=(2, 3, *sizes)))


# Dropout's bits

ANSWERS = [  # key, counter and words, published by the generator's authors
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((-1, -1), (-1, -1), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, -0x7A5CF72D), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "words"), ANSWERS)
def test_threefry_s_published_answers(key: Any, counter: Any, words: Any) -> None:
    """A half is below its value plus 1, but not below its value: so masks show all four halves."""
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


# Windows at their limits


@pytest.mark.parametrize("pool", [functional.avg_pool, functional.max_pool])
def test_windows_far_apart(pool: Any) -> None:
    """Strides as long as the kernels can count."""
    for stride in (2**31 - 1, 2**31 - 2, 2**30):
        how = {"window": (1,), "stride": (stride,), "padding": (0,)}
        agree(lambda x, how=how: pool(x, **how), rng.normal(size=(1, 2, 4)))


@given(dilation=st.integers(1, 3), window=st.integers(1, 3), stride=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_pooling_goes_back_over_windows_with_gaps(dilation: int, window: int, stride: int) -> None:
    how = {"window": (window,) * 2, "stride": (stride,) * 2, "padding": (0, 0)}
    how["dilation"] = (dilation,) * 2
    agree(lambda x: functional.max_pool(x, **how), rng.normal(size=(2, 2, 7, 9)))


# What pullbacks keep

POOL = {"window": (2, 2), "stride": (2, 2), "padding": (0, 0)}
TRANSPOSED = {"stride": (1,), "padding": (0,), "output_padding": (0,), "dilation": (1,)}


@pytest.mark.parametrize(
    ("name", "shapes", "options", "kept"),
    [
        ("linear", [(3, 4), (5, 4), (5,)], {}, {"x"}),
        ("linear_relu", [(3, 4), (5, 4), (5,)], {}, {"x", "y"}),
        ("relu", [(3, 4)], {}, {"y"}),
        ("gelu", [(3, 4)], {}, {"x"}),
        ("softmax", [(3, 4)], {}, {"y"}),
        ("log_softmax", [(3, 4)], {"axis": 0}, {"y"}),
        ("layer_norm", [(3, 4)], {"axes": 1, "eps": 1e-5}, {"x"}),
        ("max_pool", [(1, 4, 4)], POOL, set()),
        ("avg_pool", [(1, 4, 4)], POOL, set()),
        ("convolution_transpose", [(2, 3, 4), (3, 1, 2)], TRANSPOSED, set()),
    ],
)
def test_a_pullback_keeps_only_what_it_reads(
    name: str, shapes: Any, options: Any, kept: set[str]
) -> None:
    """Else the largest arrays of a network would live until the backward pass, for their shape."""
    x, *others = (rng.normal(size=shape) for shape in shapes)
    y, pullback = KERNELS[name](XP, x, *others, **options)
    watched = {"x": weakref.ref(x), "y": weakref.ref(y)}
    del x, y
    assert {array for array, ref in watched.items() if ref() is not None} == kept
    assert pullback


# What kernels decline


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("relu", (np.ones(3, np.int64),), {}),
        ("softmax", (np.ones((0, 3)),), {}),
        ("softmax", (np.ones(()),), {}),
        ("softmax", (np.ones((2, 3)),), {"axis": 2}),
        ("log_softmax", (np.ones((2, 3)),), {"axis": -3}),
        ("cross_entropy", (np.ones((2, 3)), np.asarray([0, 1])), {"label_smoothing": 0.1}),
        ("cross_entropy", (np.ones((2, 3)), np.ones((2, 3))), {}),
        ("cross_entropy", (np.ones((0, 3)), np.zeros(0, np.int64)), {}),
        ("layer_norm", (np.ones((2, 3)), np.ones(3, np.float32)), {"axes": 1, "eps": 1e-5}),
        ("layer_norm", (np.ones((2, 3)),), {"axes": 3, "eps": 1e-5}),
        ("linear", (np.ones((2, 3)), np.ones((4, 3), np.float32)), {}),
        ("linear", (np.ones((2, 3)), np.ones((4, 2))), {}),
        ("linear", (np.ones((2, 3)), np.ones((4, 3)), np.ones(3)), {}),
        ("dropout", (np.ones((2, 3)), np.ones((2, 1), bool)), {"keep": 0.5}),
        ("segment_sum", (np.ones(3, np.int64), np.zeros(3, np.int64), 2), {}),
        ("segment_sum", (np.ones(MOST_ROWS + 1), np.zeros(MOST_ROWS + 1, np.int64), 2), {}),
        ("max_pool", (np.ones((1, 2)),), {"window": (3,), "stride": (1,), "padding": (0,)}),
        ("max_pool", (np.ones((0, 3)),), {"window": (2,), "stride": (1,), "padding": (0,)}),
        ("max_pool", (np.ones((1, 2)),), {"window": (2,), "stride": (2**40,), "padding": (0,)}),
        ("max_pool", (np.ones((1, 2)),), {"window": (2**31,), "stride": (1,), "padding": (2**30,)}),
        *(
            ("convolution", (np.ones((1, 1, 2)), np.ones((1, 1, 1))),
             {"stride": (stride,), "padding": ((0, pad),), "dilation": (1,)})
            for stride, pad in ((2**40, 0), (2**31 - 1, 2**31))
        ),
        ("avg_pool", (np.ones((3, 3, 3, 3)),),
         {"window": (2,) * 4, "stride": (1,) * 4, "padding": (0,) * 4}),
        ("convolution", (np.ones((1, 2, 3)), np.ones((1, 1, 2))),
         {"stride": (1,), "padding": ((0, 0),), "dilation": (1,)}),
        ("convolution", (np.ones((1, 1, 1)), np.ones((1, 1, 2))),
         {"stride": (1,), "padding": ((0, 0),), "dilation": (1,)}),
        ("convolution", (np.ones((1, 1, 4)), np.ones((3, 1, 2)), np.ones(1)),
         {"stride": (1,), "padding": ((0, 0),), "dilation": (1,)}),
        ("convolution_transpose", (np.ones((1, 1, 4)), np.ones((1, 3, 2)), np.ones(1)),
         {"stride": (1,), "padding": (0,), "output_padding": (0,), "dilation": (1,)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_left_to_the_definition(name: str, args: Any, options: Any) -> None:
    assert KERNELS[name](XP, *args, **options) is NotImplemented


# The checks of the host's launch, and launches


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
    """A number of another kind; an array of another dtype, not contiguous, or missing."""
    with pytest.raises(AssertionError):
        cuda_on_host.launch("relu_forward", "float64", 1, 32, *args)


def test_a_launch_that_writes_to_what_is_read_only_fails() -> None:
    y = np.ones(4)
    y.flags.writeable = False
    with pytest.raises(AssertionError, match="relu_forward's y"):
        cuda_on_host.launch("relu_forward", "float64", 1, 32, np.ones(4), y, 4)


def test_arrays_of_another_device_are_refused() -> None:
    """As CuPy's own kernels refuse them: a kernel would take their memory for its own device's."""
    here, there = (SimpleNamespace(data=SimpleNamespace(device_id=i), shape=(2,)) for i in (0, 1))
    launch.on_device(0, here, 3, None, 1.0, np.ones(2))
    with pytest.raises(ValueError, match=r"is on cuda:1, and the current device is cuda:0; call"):
        launch.on_device(0, here, there)


def test_grids_and_blocks() -> None:
    """One thread per element or pack, one block per row; no needless blocks, and whole warps."""
    plans = []
    xp = cuda_on_host.extended(np, "xp", launch=lambda *a: plans.append(a[2:4]))
    for size in (0, 1, 256, 257, 10**9):
        launch.elementwise(xp, "relu_forward", "float32", size)
    for dtype in ("float32", "float64"):  # 16 bytes a thread
        launch.by_pack(xp, "relu_forward", dtype, 4096)
    for length in (1, 256, 257, 10**6):
        launch.by_row(xp, "softmax_forward", "float32", 7, length)
    assert plans == [
        *((1, 256), (1, 256), (2, 256), (math.ceil(10**9 / 256), 256)),
        *((4, 256), (8, 256)),
        *((7, 32), (7, 32), (7, 64), (7, 256)),
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gelu_of_the_largest_number(dtype: str) -> None:
    """The result is that number itself; doubling it on the way would make it infinite."""
    x = np.asarray([np.finfo(dtype).max])
    with use_backend(HOST):
        np.testing.assert_array_equal(functional.gelu(x), x)
