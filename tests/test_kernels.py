"""Kernels beside their definitions: values, gradients, whole runs, on any input."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from polynet import Trainer, functional, losses, nn, optim, use_backend, value_and_grad
from polynet.backend import get_backend, to_numpy
from polynet.ops import OPS
from polynet.testing.samples import SAMPLES, Sample, functions
from polynet.testing.suite.cases import arrays as arrays_of
from polynet.testing.suite.cases import one_result, to_backend, weights, with_arrays
from polynet.tree import leaves

total = OPS["sum"]
FLOATS = st.floats(-50, 50, width=32)
SIZES = st.integers(1, 6)


BACKENDS = ["numpy", *(name for name in ("torch", "cuda_on_host") if find_spec(name))]
on_each = pytest.mark.parametrize("name", BACKENDS)


def on_each_with(*functions: Any) -> Any:
    """Parametrize by backend and function, where the one has a kernel for the other."""
    pairs = [(name, f) for name in BACKENDS for f in functions]
    return pytest.mark.parametrize(
        ("name", "f"), [(n, f) for n, f in pairs if f.__name__ in get_backend(n).kernels]
    )


def both(name: str, f: Any, *args: np.ndarray) -> list[tuple[Any, Any]]:
    """Value and gradients with kernels and by the definitions."""
    found = get_backend(name)
    places = tuple(i for i, a in enumerate(args) if a.dtype.kind == "f")
    results = []
    for backend in (found, found.without_kernels()):
        with use_backend(backend):
            given = [backend.from_host(a, backend.devices()["cpu"]) for a in args]
            value, slopes = value_and_grad(f, places)(*given)
            results.append((to_numpy(value), [to_numpy(s) for s in slopes]))
    return results


def agree(name: str, f: Any, *args: np.ndarray) -> None:
    (value, slopes), (expected, expected_slopes) = both(name, f, *args)
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9)
    for actual, wanted in zip(slopes, expected_slopes, strict=True):
        assert actual.dtype == wanted.dtype
        np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=1e-9)


def weighted(name: str, y: Any) -> Any:
    """One number of an array, in which every element counts, each differently."""
    backend = get_backend(name)
    w = np.cos(np.arange(np.prod(y.shape, dtype=int))).reshape(y.shape)
    return total(y * backend.from_host(w, backend.devices()["cpu"]))


@on_each
@given(data=st.data(), n=SIZES, i=SIZES, o=SIZES, bias=st.booleans())
@settings(max_examples=60, deadline=None)
def test_linear(name: str, data: st.DataObject, n: int, i: int, o: int, bias: bool) -> None:
    draw = lambda *shape: data.draw(arrays.arrays(np.float64, shape, elements=FLOATS))
    args = [draw(n, i), draw(o, i)] + ([draw(o)] if bias else [])
    agree(name, lambda *a: weighted(name, functional.linear(*a)), *args)


@on_each_with(
    functional.relu,
    functional.gelu,
    functional.elu,
    functional.celu,
    functional.hardtanh,
    functional.leaky_relu,
)
@given(x=arrays.arrays(np.float64, arrays.array_shapes(max_dims=3), elements=FLOATS))
@settings(max_examples=60, deadline=None)
def test_activation(name: str, f: Any, x: np.ndarray) -> None:
    agree(name, lambda a: weighted(name, f(a)), x)


@on_each_with(functional.softmax, functional.log_softmax)
@given(x=arrays.arrays(np.float64, arrays.array_shapes(max_dims=3), elements=FLOATS), last=...)
@settings(max_examples=60, deadline=None)
def test_along_an_axis(name: str, f: Any, x: np.ndarray, last: bool) -> None:
    agree(name, lambda a: weighted(name, f(a, axis=-1 if last else 0)), x)


@on_each_with(losses.mse)
@given(data=st.data(), shape=arrays.array_shapes(max_dims=2))
@settings(max_examples=60, deadline=None)
def test_mse(name: str, f: Any, data: st.DataObject, shape: tuple[int, ...]) -> None:
    drawn = [data.draw(arrays.arrays(np.float64, shape, elements=FLOATS)) for _ in range(2)]
    agree(name, f, *drawn)


@on_each
@given(data=st.data(), n=SIZES, k=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_cross_entropy(name: str, data: st.DataObject, n: int, k: int) -> None:
    logits = data.draw(arrays.arrays(np.float64, (n, k), elements=FLOATS))
    labels = data.draw(arrays.arrays(np.int64, (n,), elements=st.integers(0, k - 1)))
    agree(name, losses.cross_entropy, logits, labels)


# Normalisation


@on_each_with(functional.layer_norm)
@given(data=st.data(), shape=arrays.array_shapes(min_dims=2, max_dims=3))
@settings(max_examples=60, deadline=None)
def test_layer_norm(name: str, f: Any, data: st.DataObject, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    args = [rng.normal(size=s) for s in (shape, shape[-1:], shape[-1:])]
    agree(name, lambda *a: weighted(name, f(*a, axes=1, eps=0.1)), *args)


@on_each_with(functional.batch_norm)
@given(data=st.data(), shape=arrays.array_shapes(min_dims=4, max_dims=5), lying=st.booleans())
@settings(max_examples=60, deadline=None)
def test_batch_norm(
    name: str, f: Any, data: st.DataObject, shape: tuple[int, ...], lying: bool
) -> None:
    """The mean and the variance are results too, and have gradients."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    args = [rng.normal(size=s) for s in (shape, shape[1:2], shape[1:2])]
    if lying:
        args[0] = np.moveaxis(np.ascontiguousarray(np.moveaxis(args[0], 0, -1)), -1, 0)
    chosen = data.draw(st.sets(st.integers(0, 2), min_size=1))

    def some(*a: Any) -> Any:
        results = f(*a, eps=0.1)
        return sum(weighted(name, results[i]) for i in sorted(chosen))

    agree(name, some, *args)


# Windows that slide


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Arguments and options of a convolution whose window fits."""
    axes, groups = draw(st.sampled_from([1, 2, 2, 3])), draw(st.sampled_from([1, 1, 2, 3]))
    each = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * axes))
    window, dilation, stride = each(1, 4), each(1, 2), each(1, 3)
    padding = tuple(zip(each(0, 5), each(0, 3), strict=True))
    least = [
        max(1, d * (k - 1) + 1 - sum(p)) for d, k, p in zip(dilation, window, padding, strict=True)
    ]
    sizes = tuple(m + more for m, more in zip(least, each(0, 5), strict=True))
    n, channels, out = draw(SIZES), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.normal(size=(n, channels * groups, *sizes))
    if draw(st.booleans()):  # as another convolution would hand it on
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)
    args = [x, rng.normal(size=(out * groups, channels, *window))]
    if draw(st.booleans()):
        args.append(rng.normal(size=out * groups))
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return args, how


@on_each
@given(call=convolutions())
@settings(max_examples=200, deadline=None)
def test_convolution(name: str, call: tuple[list[np.ndarray], dict[str, Any]]) -> None:
    args, how = call
    agree(name, lambda *a: weighted(name, functional.convolution(*a, **how)), *args)


@pytest.mark.parametrize("how", ["same", "strided", "grouped", "one by one"])
@on_each
def test_convolution_in_several_pieces(name: str, how: str) -> None:
    """More than fits into one piece, where the last piece is smaller than the others."""
    stride, groups, k = {
        "same": (1, 1, 3), "strided": (2, 1, 5), "grouped": (1, 4, 3), "one by one": (1, 1, 1)
    }[how]  # fmt: skip
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(16, 8, 37, 41)), rng.normal(size=(8, 8 // groups, k, k))
    options = {
        "stride": (stride,) * 2,
        "padding": ((k // 2,) * 2,) * 2,
        "dilation": (1, 1),
        "groups": groups,
    }
    f = lambda *a: weighted(name, functional.convolution(*a, **options))
    agree(name, f, x, w, rng.normal(size=8))


@on_each_with(functional.max_pool, functional.avg_pool)
@given(data=st.data(), axes=st.integers(1, 3), lying=st.booleans(), ties=st.booleans())
@settings(max_examples=150, deadline=None)
def test_pooling(
    name: str, f: Any, data: st.DataObject, axes: int, lying: bool, ties: bool
) -> None:
    window = data.draw(st.tuples(*[st.integers(1, 4)] * axes))
    stride = data.draw(st.tuples(*[st.integers(1, 4)] * axes))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in window)
    sizes = [
        max(1, k + data.draw(st.integers(-p, 6))) for k, p in zip(window, padding, strict=True)
    ]
    numbers = st.sampled_from([-1.0, 0.0, 1.0]) if ties else FLOATS
    shape = (data.draw(SIZES), data.draw(st.integers(1, 3)), *sizes)
    x = data.draw(arrays.arrays(np.float64, shape, elements=numbers))
    if lying:
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)
    how = {"window": window, "stride": stride, "padding": padding}
    agree(name, lambda a: weighted(name, f(a, **how)), x)


@given(
    x=arrays.arrays(np.float64, (2, 2, 5, 4), elements=st.sampled_from([0.0, 1.0, np.nan])),
    stride=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_pooling_where_nothing_is_a_number(x: np.ndarray, stride: int) -> None:
    """A NaN wins, and of several the last: in NumPy as by the definition."""
    how = {"window": (2, 3), "stride": (stride, 1), "padding": (1, 1)}
    agree("numpy", lambda a: weighted("numpy", functional.max_pool(a, **how)), x)


@given(x=arrays.arrays(np.float64, (3, 4), elements=st.sampled_from([-0.0, 0.0, 1.0, np.nan])))
@settings(max_examples=30, deadline=None)
def test_relu_where_something_is_no_number(x: np.ndarray) -> None:
    agree("numpy", lambda a: weighted("numpy", functional.relu(a)), x)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_what_convolutions_and_pooling_hand_on_are_runs_of_samples(axes: int) -> None:
    """What makes the next of them fast: what they return lies with the samples innermost."""
    kernels = get_backend("numpy").kernels
    x, w = np.ones((4, 2, *(9, 8, 7)[:axes])), np.ones((3, 2, *[3] * axes))
    zeros, ones, twos = ((n,) * axes for n in (0, 1, 2))
    y, _ = kernels["convolution"](np, x, w, stride=ones, padding=((1, 1),) * axes, dilation=ones)
    z, _ = kernels["max_pool"](np, y, window=twos, stride=twos, padding=zeros)
    for lying in (y, kernels["relu"](np, y)[0], z):
        assert np.moveaxis(lying, 0, -1).flags.c_contiguous
    assert np.shares_memory(nn.Flatten()(z), z)


def test_convolution_declines_what_is_not_numbers_of_one_kind() -> None:
    kernel = get_backend("numpy").kernels["convolution"]
    how = {"stride": (1,), "padding": ((0, 0),), "dilation": (1,)}
    x, w = np.ones((2, 3, 6)), np.ones((4, 3, 2))
    assert kernel(np, x, w, **how) is not NotImplemented
    assert kernel(np, x.astype(np.float32), w, **how) is NotImplemented
    assert kernel(np, x, w, np.ones(4, dtype=np.float32), **how) is NotImplemented
    assert kernel(np, x.astype(np.int64), w.astype(np.int64), **how) is NotImplemented
    assert kernel(np, x, np.ones((4, 2, 2)), **how) is NotImplemented
    assert kernel(np, x[:0], w, **how) is NotImplemented


F, ONE = np.ones, {"stride": (1,), "padding": ((0, 0),), "dilation": (1,)}
POOL = {"window": (2,), "stride": (2,), "padding": (0,)}


@pytest.mark.parametrize(
    ("name", "args", "options", "taken"),
    [
        ("convolution", [F((2, 3, 6)), F((4, 3, 6))], ONE, True),  # a window at one place
        ("convolution", [F((2, 3, 6)), F((4, 3, 7))], ONE, False),
        ("convolution", [F((2, 3, 6)), F((4, 3, 7))], {**ONE, "padding": ((0, 1),)}, True),
        ("convolution", [F((2, 3, 6)), F((4, 3, 4))], {**ONE, "dilation": (2,)}, False),
        ("convolution", [F((2, 3, 6)), F((0, 3, 2))], ONE, False),
        ("convolution", [F((2, 3, 6)), F((4, 3, 2))], {**ONE, "groups": 2}, False),
        ("convolution", [F((2, 9, 6)), F((4, 3, 2))], {**ONE, "groups": 3}, False),
        ("convolution", [F((2, 3)), F((4, 3))], dict.fromkeys(ONE, ()), False),
        *(
            (kind, [x], {**POOL, **more}, taken)
            for kind in ("max_pool", "avg_pool")
            for x, more, taken in [
                (F((2, 3, 2)), {}, True),
                (F((2, 3, 1)), {}, False),
                (F((2, 0, 6)), {}, False),
                (F((2, 3, 6)), {"ceil_mode": True}, False),
                (F(6), {name: 2 * value for name, value in POOL.items()}, False),
            ]
        ),
        ("avg_pool", [F((2, 3, 6))], {**POOL, "count_include_pad": False}, True),
        ("avg_pool", [F((2, 3, 6))], {**POOL, "padding": (1,), "count_include_pad": False}, False),
        *(
            ("layer_norm", args, {"axes": axes, "eps": 0.1}, taken)
            for args, axes, taken in [
                ([F((2, 3)), F(3), F(3)], 1, True),
                ([F((2, 3)), F((2, 3)), F((2, 3))], 2, False),
                ([F((2, 3)), F(3)], 1, False),
                ([F((2, 3)), None, F(3)], 1, False),
                ([F(3), F(3), F(3)], 1, False),
                ([F((0, 3)), F(3), F(3)], 1, False),
            ]
        ),
        *(
            ("batch_norm", args, {"eps": 0.1}, taken)
            for args, taken in [
                ([F((2, 3, 4, 4)), F(3), F(3)], True),
                ([F((2, 3, 4, 4)), F(3)], False),
                ([F((2, 3, 4, 4)), None, F(3)], False),
                ([F((2, 3, 4)), F(3), F(3)], False),
                ([F((2, 3, 0, 4)), F(3), F(3)], False),
            ]
        ),
        ("softmax", [F((2, 3))], {"axis": 1}, True),
        ("softmax", [F((2, 3))], {"axis": 0}, False),
        ("softmax", [F((3, 2)).T], {}, False),
        ("softmax", [F((3, 0))], {}, False),
        ("softmax", [F(())], {}, False),
    ],
)
def test_what_a_kernel_of_numpy_takes(
    name: str, args: list[Any], options: dict[str, Any], taken: bool
) -> None:
    """The rest it leaves to the definition, which says what is wrong with what is wrong."""
    found = get_backend("numpy").kernels[name](np, *args, **options)
    assert (found is not NotImplemented) == taken


def in_other_dtypes(args: tuple[Any, ...]) -> Iterator[list[Any]]:
    """The arguments with one floating-point array narrower or wider, and with all in a dtype."""
    places = [i for i, a in enumerate(args) if getattr(a, "dtype", None) == np.float64]
    for kind in ("float16", "int32", "bool"):
        yield [np.round(4 * a).astype(kind) if i in places else a for i, a in enumerate(args)]
    for odd in places if len(places) > 1 else ():
        yield [a.astype("float32") if i == odd else a for i, a in enumerate(args)]
        yield [a.astype("float32") if i in places and i != odd else a for i, a in enumerate(args)]


@pytest.mark.parametrize("kernel", sorted(functions().keys() & get_backend("numpy").kernels))
def test_a_kernel_of_numpy_does_what_its_definition_does_in_any_dtype(kernel: str) -> None:
    """Or it declines: whole numbers, and arrays of which one has a dtype of its own."""
    xp, definition = get_backend("numpy").xp, functions()[kernel].definition
    for sample in SAMPLES[kernel]:
        for args in in_other_dtypes(sample.args):
            with np.errstate(all="ignore"):
                try:
                    expected = definition(xp, *args, **sample.options)
                except (TypeError, ValueError):
                    continue  # it refuses them
                found = get_backend("numpy").kernels[kernel](xp, *args, **sample.options)
            if found is NotImplemented:
                continue
            for a, b in zip(leaves([found[0]]), leaves([expected]), strict=True):
                assert (a.dtype, a.shape) == (b.dtype, b.shape)
                np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("other", ["complex64", "float64"])
@on_each
def test_a_kernel_is_given_gradients_in_the_dtype_of_its_result(name: str, other: str) -> None:
    """Also where what it gave met a complex or a wider array: kernels refused such a gradient."""
    backend = get_backend(name)

    def slopes(f: Any, sample: Sample, dtype: str, turned: complex) -> list[np.ndarray]:
        def objective(given: list[Any]) -> Any:
            args = to_backend(list(with_arrays(sample, given)), backend, "float32")
            y = f(*args, **sample.options)
            w = backend.from_host((weights(y.shape) * turned).astype(dtype), args[0].device)
            return total(OPS["real"](y * w))

        given = [to_backend(a, backend, "float32") for a in arrays_of(sample)]
        return [to_numpy(g) for g in value_and_grad(objective)(given)[1]]

    for kernel in sorted(functions().keys() & backend.kernels):
        f, sample = one_result(functions()[kernel]), SAMPLES[kernel][0]
        expected = slopes(f, sample, "float32", 1)
        found = slopes(f, sample, other, 1 + 2j if other == "complex64" else 1)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == np.float32
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=kernel)


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 4, 2), nn.ReLU(), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 3)),
    )


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-11), ("float32", 1e-4)])
@pytest.mark.parametrize("network", [dense, convolutional])
@on_each
def test_a_run_with_kernels_is_a_run_without(
    name: str, network: Any, dtype: str, limit: float
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 32)), rng.integers(0, 3, size=100)
    x = x if network is dense else x.reshape(100, 2, 4, 4)
    runs = []
    for backend in (get_backend(name), get_backend(name).without_kernels()):
        net = network()
        adam = optim.Adam(1e-3, eps=1e-5)
        trainer = Trainer(
            net, losses.cross_entropy, adam, backend=backend, device="cpu", dtype=dtype
        )
        runs.append(trainer.fit(x, y, epochs=10).step_losses)
    np.testing.assert_allclose(runs[0], runs[1], rtol=limit)


def test_a_kernel_that_declines_leaves_it_to_the_definition() -> None:
    x, w = np.ones((2, 3, 4)), np.ones((5, 4))
    assert get_backend("numpy").kernels["linear"](np, x, w) is NotImplemented
    assert functional.linear(x, w).tolist() == np.full((2, 3, 5), 4.0).tolist()


def test_labels_out_of_range_are_refused_by_the_kernel() -> None:
    with pytest.raises(ValueError, match=r"labels from 0 to 3 for 3 classes"):
        losses.cross_entropy(np.zeros((2, 3)), np.asarray([0, 3]))
