"""Loops that Numba compiles, beside NumPy's own way: the same numbers, to the last bit."""

import importlib.metadata
import sys
import warnings

import numpy as np
import pytest

from polynet import Trainer, functional, get_backend, losses, nn, optim
from polynet_numpy import (
    capture,
    compiled,
    functions,
    kernels,
    loops,
    normalisation,
    optimizers,
    pool,
    softmax,
)
from polynet_numpy.replay import _Replay

NUMPY = get_backend("numpy")
RNG = np.random.default_rng(7)

needs_numba = pytest.mark.skipif(compiled.version() is None, reason="Numba is not installed")
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture
def no_numba(monkeypatch):
    """As where it is not installed."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    compiled._numba.cache_clear()
    yield
    compiled._numba.cache_clear()


@pytest.fixture
def ways(monkeypatch):
    """Run `call()` by NumPy's own way and by loops; what it returns must be the same bits."""

    def compare(call):
        found = []
        for wanted in (False, True):
            monkeypatch.setattr(compiled, "wanted", lambda wanted=wanted: wanted)
            found.append([np.asarray(a) for a in call()])
        for by_numpy, by_loop in zip(*found, strict=True):
            assert by_numpy.dtype == by_loop.dtype
            assert by_numpy.shape == by_loop.shape
            assert by_numpy.tobytes() == by_loop.tobytes()
        return found[0]

    compiled._numba()
    return compare


def normal(dtype, *shape):
    return RNG.normal(size=shape).astype(dtype)


def of_kernel(kernel, *args, **options):
    """The value and the gradients, as a kernel gives them."""
    value, _ = kernel(NUMPY.xp, *args, **options)
    g = normal(value.dtype, *value.shape) if value.ndim else np.asarray(0.7, value.dtype)
    return lambda: _both(kernel, args, options, g)


def _both(kernel, args, options, g):
    value, pullbacks = kernel(NUMPY.xp, *args, **options)
    return [value, *(pullback(g) for pullback in pullbacks if pullback is not None)]


SIZES = [1, 2, 7, 8, 9, 15, 100, 127, 128, 129, 136, 300, 1000, 1029, 5000]


@needs_numba
@both_dtypes
@pytest.mark.parametrize("n", SIZES)
def test_a_sum_is_numpys(dtype, n):
    for x in (normal(dtype, n), np.full(n, -0.0, dtype)):
        found = x.dtype.type(0) + loops.summed(x, 0, n)
        assert found.tobytes() == np.add.reduce(x).tobytes()
        pair = np.add.reduceat(np.append(x[:1], x), [0])
        assert (x[0] + loops.summed(x, 0, n)).tobytes() == pair.tobytes()


@needs_numba
@both_dtypes
@pytest.mark.parametrize(
    ("count", "classes"), [(1, 2), (5, 9), (32, 10), (300, 100), (7, 101), (3, 1)]
)
def test_cross_entropy(ways, dtype, count, classes):
    logits, labels = normal(dtype, count, classes) * 5, RNG.integers(0, classes, count)
    value, slope = ways(of_kernel(kernels.cross_entropy, logits, labels))
    shifted = logits.astype(float) - logits.max(axis=1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        value, -np.log(p[np.arange(count), labels]).mean(), rtol=1e-5, atol=1e-6
    )
    p[np.arange(count), labels] -= 1
    np.testing.assert_allclose(slope, 0.7 * p / count, rtol=1e-5, atol=1e-6)


@needs_numba
@both_dtypes
@pytest.mark.parametrize("shape", [(1,), (5, 1), (3, 7), (4, 8), (2, 3, 31), (300, 100), (2, 1000)])
def test_softmax(ways, dtype, shape):
    x = normal(dtype, *shape) * 5
    assert loops.largest(x.reshape(-1), 0, x.size) == x.max()
    y, slope = ways(of_kernel(softmax.softmax, x))
    expected = np.exp(x.astype(float) - x.max(axis=-1, keepdims=True))
    expected /= expected.sum(axis=-1, keepdims=True)
    small = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(y, expected, rtol=small)
    g = (slope / y).astype(float)  # which is g - Σ g·y, whose mean, weighted by y, is 0
    np.testing.assert_allclose((g * y).sum(axis=-1), 0, atol=small)


def test_softmax_of_one_number_is_its_definitions():
    assert functional.softmax(np.asarray(2.0)) == 1


@needs_numba
@pytest.mark.parametrize("extreme", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("whole", [True, False])
def test_softmax_of_what_is_not_finite(ways, extreme, whole):
    x = normal("float32", 3, 20)
    x[1, slice(None) if whole else 13] = extreme
    with np.errstate(invalid="ignore"):
        y, _ = ways(of_kernel(softmax.softmax, x))
    assert np.isfinite(y[[0, 2]]).all()
    assert np.isnan(y[1]).all() == (whole or extreme != -np.inf)


@needs_numba
@pytest.mark.parametrize("extreme", [np.nan, np.inf, -np.inf])
def test_cross_entropy_of_what_is_not_finite(ways, extreme):
    logits = normal("float32", 4, 3)
    logits[2, 1] = extreme
    with np.errstate(invalid="ignore"):
        value, _ = ways(of_kernel(kernels.cross_entropy, logits, np.asarray([0, 1, 2, 0])))
    assert np.isfinite(value) == (extreme == -np.inf)


@needs_numba
@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_named(ways, label):
    labels = np.asarray([0, label])
    with pytest.raises(ValueError, match=f"labels from {labels.min()} to {labels.max()} for 3"):
        ways(lambda: kernels.cross_entropy(NUMPY.xp, normal("float32", 2, 3), labels))


@needs_numba
@both_dtypes
@pytest.mark.parametrize(
    ("rows", "width", "segments"),
    [(50, 7, 10), (2000, 16, 3000), (500, 8, 3), (3000, 5, 2), (0, 3, 4), (17, 1, 1)],
)
def test_segment_sum(ways, dtype, rows, width, segments):
    x, numbers = normal(dtype, rows, width), RNG.integers(0, segments, rows)
    total, _ = ways(of_kernel(kernels.segment_sum, x, numbers, count=segments))
    expected = np.zeros((segments, width))
    np.add.at(expected, numbers, x)
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)


@needs_numba
@pytest.mark.parametrize("layer", [True, False])
def test_zeros_have_numpys_signs(ways, layer):
    """A sum of -0.0 is 0.0, since NumPy adds it to 0."""
    zeros, ones = np.full((2, 3, 2, 9), -0.0, np.float32), np.ones(9, np.float32)
    few = zeros[0, :, 0, 0]

    def call():
        if layer:
            y, pullback = normalisation.layer_norm(NUMPY.xp, zeros, ones, -ones, axes=1, eps=1.0)
            return [y, *pullback(zeros, (True,) * 3)]
        ys, pullback = normalisation.batch_norm(NUMPY.xp, zeros, ones[:3], -ones[:3], eps=1.0)
        return [*ys, *pullback((zeros, few, few), (True,) * 3)]

    ways(call)


@needs_numba
@pytest.mark.parametrize("number", [-1, 4])
def test_a_segment_out_of_range(ways, number):
    x, numbers = normal("float32", 2, 3), np.asarray([0, number])
    if number == 4:
        with pytest.raises(IndexError):
            ways(lambda: [kernels.segment_sum(NUMPY.xp, x, numbers, 4)[0]])
    else:  # from the end, as NumPy counts
        ways(lambda: [kernels.segment_sum(NUMPY.xp, x, numbers, 4)[0]])


@needs_numba
@pytest.mark.parametrize("shape", [(10,), (10, 3), (10, 2, 5), (10, 0)])
@pytest.mark.parametrize("indices", [[3, 3, 9, 0], [[1, 2], [0, 1]], [-1, 2], []])
def test_take(ways, shape, indices):
    x, rows = normal("float32", *shape), np.asarray(indices, np.int64)

    def call():
        out = np.full((*rows.shape, *shape[1:]), np.nan, np.float32)
        functions.taken(x, rows, 0, out)()
        return [out]

    assert np.array_equal(ways(call)[0], np.take(x, rows, axis=0))


@needs_numba
@pytest.mark.parametrize("row", [3, -4])
def test_take_out_of_bounds(ways, row):
    x, out = normal("float32", 3, 2), np.empty((1, 2), np.float32)
    with pytest.raises(IndexError):
        ways(lambda: functions.taken(x, np.asarray([row]), 0, out)() or [out])


@needs_numba
@pytest.mark.parametrize("kernel", [softmax.softmax, kernels.cross_entropy])
def test_a_large_number_beside_a_nan_does_not_overflow(ways, kernel):
    x, labels = np.asarray([[1000, np.nan, 1]], np.float32), [np.asarray([0])]
    value, _ = ways(of_kernel(kernel, x, *labels[: kernel is kernels.cross_entropy]))
    assert np.isnan(value).all()


@needs_numba
@both_dtypes
@pytest.mark.parametrize("order", ["C", "F"])
def test_relu(ways, dtype, order):
    x = np.asarray(normal(dtype, 30, 9), order=order)
    x[0, :3] = np.nan, 0.0, np.inf
    value, slope = ways(of_kernel(kernels.relu, x))
    np.testing.assert_array_equal(value, np.maximum(x, 0))
    assert slope[0, 1] == 0


@needs_numba
def test_a_gradient_of_other_strides(ways):
    x, g = normal("float32", 4, 6), normal("float32", 6, 4).T

    def call():
        _, (pullback,) = kernels.relu(NUMPY.xp, x)
        return [pullback(g)]

    assert np.array_equal(ways(call)[0], np.where(x > 0, g, 0))


@needs_numba
def test_a_gradient_of_another_dtype(ways):
    """As where a loss is multiplied by a number of NumPy's."""
    x, g = normal("float32", 4, 6), normal("float64", 4, 6)

    def call():
        _, (pullback,) = kernels.relu(NUMPY.xp, x)
        return [pullback(g)]

    assert np.array_equal(ways(call)[0], np.where(x > 0, g, 0))


@needs_numba
@both_dtypes
@pytest.mark.parametrize("kernel", [kernels.linear, kernels.linear_relu])
def test_linear_is_two_calls_also_with_relu(ways, dtype, kernel):
    """The product, and one pass over it that adds the bias and stops what is below 0."""
    x, weight, bias = normal(dtype, 8, 5), normal(dtype, 6, 5), normal(dtype, 6)
    x[0, 0] = np.nan
    g = normal(dtype, 8, 6)

    def call():
        found = capture.Capture(pool.Pool(), NUMPY.xp)
        with found.on():
            given = (capture.Captured(a, None) for a in (x, weight, bias))
            y, pullback = kernel(NUMPY.xp, *given)
            assert len(found.calls) == 2
            slopes = pullback(capture.Captured(g, None), (True, True, True))
        for replayed in found.calls:
            replayed()
        return [a.array for a in (y, *slopes)]

    y, to_x, to_weight, to_bias = ways(call)
    expected, stopped = x @ weight.T + bias, g
    if kernel is kernels.linear_relu:
        expected = np.maximum(expected, 0)
        stopped = np.where(expected == 0, 0, g)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_x, stopped @ weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_weight, stopped.T @ x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_bias, stopped.sum(axis=0), rtol=1e-5)


@needs_numba
@both_dtypes
@pytest.mark.parametrize("shape", [(7, 128), (3, 5, 9), (4, 300)])
def test_layer_norm(ways, dtype, shape):
    x, g = normal(dtype, *shape), normal(dtype, *shape)
    weight, bias = normal(dtype, shape[-1]), normal(dtype, shape[-1])

    def call():
        y, pullback = normalisation.layer_norm(NUMPY.xp, x, weight, bias, axes=1, eps=1e-5)
        return [y, *pullback(g, (True, True, True))]

    y = ways(call)[0]
    np.testing.assert_allclose(((y - bias) / weight).mean(axis=-1), 0, atol=1e-5)


@needs_numba
@both_dtypes
@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (32, 2, 16, 16), (2, 2, 1, 1)])
def test_batch_norm(ways, dtype, shape):
    x, g = normal(dtype, *shape), normal(dtype, *shape)
    weight, bias, to_mean, to_variance = (normal(dtype, shape[1]) for _ in range(4))

    def call():
        ys, pullback = normalisation.batch_norm(NUMPY.xp, x, weight, bias, eps=1e-5)
        return [*ys, *pullback((g, to_mean, to_variance), (True, True, True))]

    _, mean, variance, *_ = ways(call)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, x.var(axis=(0, 2, 3)), rtol=1e-5, atol=1e-6)


@needs_numba
@pytest.mark.parametrize("dtype", ["float16", ">f4"])
def test_dtypes_that_numba_lacks_are_numpys(ways, dtype):
    x = np.ones((3, 2), np.float32)
    assert compiled.bound(loops.add_bias, x, x[0].copy()) is not None
    ways(lambda: [compiled.bound(loops.add_bias, x.astype(dtype), x[0].astype(dtype)) is None])
    labels = np.asarray([0, 1, 1], ">i8")
    ways(lambda: [kernels.cross_entropy(NUMPY.xp, x, labels)[0]])


@needs_numba
def test_what_does_not_lie_in_order_is_taken_as_it_is_then(ways):
    """Nothing is copied when the call is made."""
    start, rows, segments = normal("float32", 4, 6, 5), np.asarray([2, 0]), np.arange(6) % 3

    def calls():
        x = np.array(start).transpose(1, 0, 2)
        out, total = np.empty((2, 4, 5), np.float32), np.empty((3, 4, 5), np.float32)
        made = functions.taken(x, rows, 0, out), kernels._segment_sum(x, segments, total)
        x[...] += 1
        for call in made:
            call()
        return [out, total, x]

    out, total, x = ways(calls)
    assert np.array_equal(out, x[rows])
    np.testing.assert_allclose(total, x[:3] + x[3:], rtol=1e-6)


# Adam


@needs_numba
@both_dtypes
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("size", "betas"),
    [
        (7, (0.0, 0.0)),
        *((n, (0.9, 0.999)) for n in (0, 1, optimizers.PIECE + 3, 2 * compiled.SHARE + 5)),
    ],
)
def test_adam(monkeypatch, ways, dtype, decoupled, decay, threads, size, betas):
    monkeypatch.setattr(compiled, "_threads", lambda: threads)
    names = ("a", "b", "c")
    shapes = {"a": (size,), "b": (3, 5), "c": ()}
    params, grads, m = ({n: normal(dtype, *shapes[n]) for n in names} for _ in range(3))
    state = {"exp_avg": m, "exp_avg_sq": {n: np.abs(normal(dtype, *shapes[n])) for n in names}}
    given = [np.array(a) for tree in (params, grads, *state.values()) for a in tree.values()]

    def call():
        now = params, state
        for step in range(3):
            count = np.full(1, step, np.int32)
            settings = {
                "betas": betas, "eps": 1e-8, "weight_decay": decay, "decoupled": decoupled
            }  # fmt: skip
            now, _ = optimizers.adam(NUMPY.xp, now[0], grads, now[1], count, 0.01, **settings)
        return [a for tree in (now[0], *now[1].values()) for a in tree.values()]

    ways(call)
    after = [a for tree in (params, grads, *state.values()) for a in tree.values()]
    assert all(np.array_equal(a, b) for a, b in zip(given, after, strict=True))


# When Numba is asked for


def test_the_backends_version_says_whether_numba_is_there(no_numba):
    assert type(NUMPY)().version == np.__version__


@needs_numba
def test_the_backends_version_names_numbas():
    version = importlib.metadata.version("numba")
    assert type(NUMPY)().version == f"{np.__version__}, Numba {version}"


def test_without_numba_no_loop_is_wanted(no_numba, monkeypatch):
    monkeypatch.setattr(compiled, "_done", compiled.WORTH)
    assert not compiled.wanted()
    assert compiled.bound(loops.add_bias, np.ones((2, 2)), np.ones(2)) is None


@needs_numba
def test_a_numba_that_does_not_fit_is_named_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    compiled._numba.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="cannot be imported, so NumPy's own functions"):
            assert not compiled.wanted()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not compiled.wanted()
    finally:
        compiled._numba.cache_clear()


@needs_numba
def test_where_nothing_may_be_written_loops_are_compiled_anew(ways, monkeypatch):
    from numba.core import caching

    places = getattr(caching, "CacheImpl", None) or caching._CacheImpl
    compiled._compiled.cache_clear()
    monkeypatch.setattr(places, "_locator_classes", [])
    ways(of_kernel(kernels.relu, normal("float32", 3, 3)))
    compiled._compiled.cache_clear()


@needs_numba
@pytest.mark.parametrize("kind", ["nbi", "nbc"])  # which loops there are, and what they are
def test_a_cache_that_is_damaged_is_named_once(ways, monkeypatch, tmp_path, kind):
    from numba.core import config

    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "_uncached", False)
    compiled._compiled.cache_clear()
    call = of_kernel(kernels.relu, normal("float32", 3, 3))
    ways(call)
    damaged = list(tmp_path.rglob(f"*.{kind}"))
    for file in damaged:
        file.write_bytes(b"")
    assert damaged
    try:
        with pytest.warns(RuntimeWarning, match="compiled anew in each process: EOFError") as told:
            for _ in range(2):
                compiled._compiled.cache_clear()
                ways(call)
        assert len(told) == 1
    finally:
        compiled._compiled.cache_clear()


@needs_numba
def test_a_long_run_takes_loops_up_and_keeps_its_numbers(monkeypatch):
    """After so many elements it is captured anew; the numbers are those of a run without."""
    x, y = normal("float32", 64, 20), RNG.integers(0, 4, 64)
    runs, by_loops = [], []
    for worth in (10**18, 150_000):
        monkeypatch.setattr(compiled, "_done", 0)
        monkeypatch.setattr(compiled, "wanted", lambda worth=worth: compiled._done >= worth)
        net = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
        trainer = Trainer(net, losses.cross_entropy, optim.Adam(0.01), backend="numpy")
        trainer.fit(x, y, epochs=30, batch_size=32, progress=False)
        runs.append(trainer.history.step_losses)
        launches = [v for d in trainer._run._steps._data.values() for v in d.launches.values()]
        (replay,) = [launch.replay for launch in launches]
        assert type(replay) is _Replay
        by_loops.append(replay._by_loops)
    assert by_loops == [False, True]
    assert runs[0] == runs[1]


@needs_numba
def test_a_step_that_cannot_be_captured_anew_goes_on_one_by_one(monkeypatch):
    reads = [False]

    class Reads(nn.Module):
        def __init__(self):
            self.only = nn.Linear(5, 3)

        def forward(self, x):
            return self.only(x) * (float(np.sum(x)) if reads[0] else 2.0)

    x, y = normal("float32", 64, 5), RNG.integers(0, 3, 64)
    trainer = Trainer(Reads(), losses.cross_entropy, optim.Adam(0.01), backend="numpy")
    monkeypatch.setattr(compiled, "wanted", lambda: reads[0])
    trainer.fit(x, y, epochs=3, batch_size=16, progress=False)
    reads[0] = True
    with pytest.warns(RuntimeWarning, match="one operation at a time.*reads an array's numbers"):
        trainer.fit(x, y, epochs=3, batch_size=16, progress=False)
    assert len(set(trainer.history.step_losses)) == 24
