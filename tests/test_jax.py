"""JAX: how often a step is compiled, 64 bits only where they are on, and its own kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import Trainer, losses, nn, optim
from polynet.backend import get_backend
from polynet.errors import NotCompiledError
from polynet.functional import convolution, gru, lstm, rnn
from polynet.ops import OPS
from polynet.testing.samples import SAMPLES, Sample

jax = pytest.importorskip("jax", reason="JAX is not installed")

from polynet_jax.kernels import KERNELS

rng = np.random.default_rng(0)
X = rng.normal(size=(256, 6))
Y = rng.integers(0, 2, size=256)


def trainer(**options: Any) -> Trainer:
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Dropout(0.1), nn.Linear(4, 2))
    return Trainer(net, losses.cross_entropy, optim.Adam(1e-3), backend="jax", **options)


@pytest.mark.parametrize(
    ("samples", "programs"),
    [
        (256, 1),  # 32 batches of 8: two calls of 16 steps
        (200, 2),  # 25 of 8: a call of 16, and one of 9
        (203, 3),  # and a batch of 3
    ],
)
@pytest.mark.parametrize("given", ["arrays", "a source"])
def test_training_compiles_a_program_for_each_shape_once(
    samples: int, programs: int, given: str, caplog: pytest.LogCaptureFixture
) -> None:
    def compiled() -> int:
        return sum("Finished XLA compilation of jit(steps)" in m for m in caplog.messages)

    job, arrays = trainer(), (X[:samples], Y[:samples])
    data = arrays if given == "arrays" else (polynet.data.arrays(*arrays),)
    with jax.log_compiles():
        job.fit(*data, epochs=3, batch_size=8)
        assert compiled() == programs
        job.fit(*data, epochs=2, batch_size=8)
    assert compiled() == programs
    assert len(job.history.step_losses) == 5 * -(-samples // 8)


class Reads(nn.Module):
    """A network that asks for numbers while it runs: of a batch of any size, or of a short one."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.only = nn.Linear(6, 2)

    def forward(self, x: Any) -> Any:
        y = self.only(x)
        xp = polynet.array_namespace(y)
        if self.how == "float" and float(polynet.stop_gradient(y)[0, 0]) > 0:
            return y * 2
        if self.how == "a mask":
            return y + xp.sum(y[y > 0])
        if self.how == "a short batch" and x.shape[0] == 64 and bool(xp.any(x[:, 0] > 0)):
            return y * 2
        return y


@pytest.mark.filterwarnings("ignore:a network that reads an array's value predicts")
@pytest.mark.parametrize("how", ["float", "a mask", "a short batch"])
def test_what_reads_a_number_goes_on_one_operation_at_a_time(how: str) -> None:
    """After one warning, of the line that asked for the steps, which names the line that reads."""
    runs = {}
    for backend in ("jax", "numpy"):
        job = Trainer(Reads(how), losses.cross_entropy, optim.SGD(0.1), backend=backend)
        with pytest.warns(RuntimeWarning, match="training step.*test_jax.py: ") as warned:
            job.fit(X, Y, epochs=6, batch_size=96)
        steps = [w for w in warned if "training step" in str(w.message)]
        assert [w.filename for w in steps] == [__file__]
        runs[backend] = job.history.step_losses
    assert len(runs["jax"]) == 18
    np.testing.assert_allclose(runs["jax"], runs["numpy"], rtol=1e-5)
    required = Trainer(
        Reads(how), losses.cross_entropy, optim.SGD(0.1), backend="jax", compile="require"
    )
    with pytest.raises(NotCompiledError, match=r"test_jax\.py: "):
        required.fit(X, Y, epochs=3, batch_size=96)


WAYS: dict[str, Any] = {
    "asarray": lambda: polynet.asarray(X, backend="jax"),
    "asarray with a dtype": lambda: polynet.asarray([1.0], backend="jax", dtype="float64"),
    "init": lambda: nn.Linear(6, 2).init(backend="jax", dtype="float64"),
    "to": lambda: nn.Linear(6, 2).init(backend="numpy", dtype="float64").to(backend="jax"),
    "Trainer": lambda: trainer(dtype="float64").fit(X, Y),
}


@pytest.mark.parametrize("way", WAYS)
def test_training_in_float64_needs_64_bits(way: str) -> None:
    if jax.config.jax_enable_x64:
        pytest.skip("64 bits are on")
    with pytest.raises(TypeError, match=r"JAX would turn float64 into 32 bits.*jax_enable_x64"):
        WAYS[way]()


def with_slopes(kernels: Any, f: Any, *args: Any, **options: Any) -> list[Any]:
    """The results of `f` by some kernels, and the gradients by its arrays."""
    backend = get_backend("jax").without_kernels()
    backend.kernels = kernels
    places = tuple(i for i, a in enumerate(args) if a is not None)

    def results(*a: Any) -> tuple[Any, ...]:
        found = f(*a, **options)
        return found if isinstance(found, tuple) else (found,)

    def weighed(*a: Any) -> Any:
        total = 0.0
        for y in results(*a):
            size = math.prod(y.shape)
            w = jax.numpy.cos(jax.numpy.arange(size, dtype=y.dtype)).reshape(y.shape)
            total = OPS["sum"](y * w) + total
        return total

    with polynet.use_backend(backend):
        return [*results(*args), *polynet.value_and_grad(weighed, places)(*args)[1]]


def assert_like_the_definition(kernels: Any, f: Any, *args: Any, **options: Any) -> None:
    found, expected = (with_slopes(k, f, *args, **options) for k in (kernels, {}))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sample", SAMPLES["convolution"], ids=str)
def test_convolution(sample: Sample) -> None:
    arrays = [jax.numpy.asarray(a, dtype="float32") for a in sample.args]
    assert_like_the_definition(KERNELS, convolution, *arrays, **sample.options)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere all steps are one program")
@pytest.mark.parametrize("convolves", [True, False])
def test_a_step_that_convolves_is_in_no_loop(
    convolves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, where XLA's convolutions are slow in one; the numbers are the same."""
    first = nn.Conv2d(1, 2, 3) if convolves else nn.Flatten()
    layers = first, nn.Flatten(), nn.Linear(32 if convolves else 36, 3)
    x, y = rng.normal(size=(8, 1, 6, 6)).astype("float32"), np.arange(8) % 3
    found = {}
    scans = []
    scan = jax.lax.scan
    monkeypatch.setattr(jax.lax, "scan", lambda *a: scans.append(len(a)) or scan(*a))
    for backend in ("jax", "numpy"):
        net = nn.Sequential(*layers).init(seed=0, backend=backend)
        run = Trainer(net, losses.cross_entropy, optim.Adam(1e-2, eps=1e-5))
        run.fit(x, y, epochs=3, batch_size=2)
        found[backend] = [np.asarray(p) for p in run.net.parameters().values()]
    assert bool(scans) != convolves
    for a, b in zip(*found.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


LOOPS = {
    "rnn": (rnn, 1, 1, {"activation": "relu"}),
    "lstm": (lstm, 4, 2, {}),
    "gru": (gru, 3, 1, {}),
}


def sequences(
    name: str, length: int = 5, state: Any = (2, 3), biases: int = 2, dtype: Any = "float32"
) -> tuple[Any, list[Any], dict[str, Any]]:
    """A recurrent function, arrays for it, and its options."""
    f, gates, states, options = LOOPS[name]
    wide = gates * 3
    shapes = [(length, 2, 4), *[state] * states, (wide, 4), (wide, 3), *[(wide,)] * biases]
    made = np.random.default_rng(0)
    arrays = [
        None if s is None else jax.numpy.asarray(made.uniform(-1, 1, s), dtype="float32")
        for s in shapes
    ]
    arrays[1 + states] = arrays[1 + states].astype(dtype)  # weight_ih
    return f, arrays, options


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "given",
    [{}, {"state": None}, {"biases": 0}, {"length": 1}, {"state": None, "biases": 0}],
    ids=str,
)
def test_a_loop_of_xla_gives_what_the_loop_in_python_does(
    name: str, reverse: bool, given: dict[str, Any]
) -> None:
    f, arrays, options = sequences(name, **given)
    kernel = get_backend("jax").kernels[name]
    assert kernel(jax.numpy, *arrays, **options) is not NotImplemented
    assert_like_the_definition({name: kernel}, f, *arrays, reverse=reverse, **options)


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("given", [{"state": (1, 3)}, {"dtype": "float16"}], ids=str)
def test_what_a_loop_of_xla_cannot_carry_is_left_to_the_definition(
    name: str, given: dict[str, Any]
) -> None:
    f, arrays, options = sequences(name, **given)
    kernel = get_backend("jax").kernels[name]
    assert kernel(jax.numpy, *arrays, **options) is NotImplemented
    assert_like_the_definition({name: kernel}, f, *arrays, **options)


@pytest.mark.parametrize("name", LOOPS)
def test_a_longer_sequence_is_no_longer_a_program(name: str) -> None:
    def operations(length: int) -> int:
        f, arrays, options = sequences(name, length)
        kernels = {name: get_backend("jax").kernels[name]}
        step = jax.make_jaxpr(lambda *a: with_slopes(kernels, f, *a, **options))(*arrays)
        return str(step).count(" = ")

    assert operations(6) == operations(60)


def test_predictions_are_one_program_for_each_shape() -> None:
    shapes = []

    class Network(nn.Linear):
        def forward(self, x: Any) -> Any:
            shapes.append(x.shape)
            return super().forward(x)

    x = np.random.default_rng(0).normal(size=(11, 3)).astype("float32")
    job = Trainer(Network(3, 2), losses.mse, optim.SGD(), backend="jax")
    for _ in range(3):
        job.predict(x, batch_size=4)
        job.evaluate(x, x[:, :2], batch_size=4)
    assert shapes == [(4, 3), (3, 3), (7, 3)]
    weight, bias = (np.asarray(p) for p in job.net.parameters().values())
    np.testing.assert_allclose(job.predict(x), x @ weight.T + bias, rtol=1e-5, atol=1e-6)


def test_a_network_that_reads_values_predicts_one_operation_at_a_time() -> None:
    class Network(nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x if float(x[0, 0]) > 0 else 0 * x)

    x = np.ones((6, 3), "float32")
    job = Trainer(Network(3, 2), losses.mse, optim.SGD(), backend="jax")
    with pytest.warns(
        RuntimeWarning, match=r"predicts one operation at a time.*test_jax\.py: "
    ) as w:
        first = job.predict(x)
    assert (w[0].filename, len(w)) == (__file__, 1)
    np.testing.assert_array_equal(job.predict(x), first)
    np.testing.assert_array_equal(job.predict(-x)[0], np.asarray(job.net.bias))
    assert not np.array_equal(first[0], np.asarray(job.net.bias))


class Reading(optim.Optimizer):
    """Reads the step's number, which no program can; its state is of NumPy."""

    def init(self, params: Any) -> Any:
        return {name: np.zeros(1, "float32") for name in params}

    def update(self, params: Any, grads: Any, state: Any, step: Any) -> Any:
        rate = 0.1 / (1 + int(step[0]))
        return {name: p - rate * grads[name] for name, p in params.items()}, state


@pytest.mark.filterwarnings("ignore:this training step cannot be captured")
@pytest.mark.parametrize("compiled", ["require", "auto"])
def test_a_step_that_is_no_program_leaves_what_was_there(compiled: str) -> None:
    x = np.random.default_rng(0).normal(size=(16, 3))
    job = Trainer(
        nn.Linear(3, 1), losses.mse, Reading(), backend="jax", compile=compiled, dtype="float32"
    )
    before = job.evaluate(x, x[:, :1])
    if compiled == "require":
        with pytest.raises(NotCompiledError):
            job.fit(x, x[:, :1])
        assert job.evaluate(x, x[:, :1]) == before
    else:
        job.fit(x, x[:, :1], epochs=3)
        assert job.evaluate(x, x[:, :1])["loss"] < before["loss"]
