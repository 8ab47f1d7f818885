"""A step over storage that stays: captured by address, replayed, equal to the loop bit for bit.

No CUDA device is needed. PyTorch's operations on the CPU are captured with the addresses they
read and write, and replayed from these alone, as a CUDA graph does it; tensors on a device
without memory show whether a step would read the host.
"""

from __future__ import annotations

import functools
import gc
import warnings
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, data, losses, nn, optim, use_backend
from polynet.backend import Backend, StaticRunner, get_backend, to_numpy
from polynet.backend.static import KINDS, WARM_UP
from polynet.optim import schedules
from polynet.step import initial_state, make_step
from polynet.tree import map as tree_map
from polynet.tree import named_leaves

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves as torch_leaves

rng = np.random.default_rng(5)
X, Y = rng.normal(size=(50, 6)), rng.integers(0, 3, size=50)
OTHER = rng.normal(size=(50, 6)), rng.integers(0, 3, size=50)
OPTIMIZERS = [
    optim.Adam(1e-2, weight_decay=0.1),
    optim.AdamW(1e-2),
    optim.SGD(0.1, momentum=0.9, nesterov=True),
    optim.RMSprop(1e-2, momentum=0.5),
    optim.NAdam(schedules.OneCycleLR(1e-2, 40)),
    optim.EMA(
        optim.ClipNorm(
            optim.Groups(
                {"*.bias": optim.SGD(schedules.StepLR(0.1, 5))},
                others=optim.Adam(schedules.CosineAnnealingLR(1e-2, 30)),
            ),
            max_norm=0.5,
        ),
        decay=0.9,
    ),
    optim.Groups(
        {"0.*": optim.Frozen()},
        others=optim.RMSprop(schedules.ExponentialLR(1e-2, 0.9), momentum=0.5),
    ),
]
OPTIONS = {
    "classes weighted and smoothed": functools.partial(
        losses.cross_entropy, weight=[1.0, 2.0, 0.5], label_smoothing=0.1, ignore_index=1
    ),
    "huber": functools.partial(losses.huber, delta=0.5),
}


class Capture(TorchDispatchMode):
    """The operations run inside, and what they wrote to."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Any] = []
        self.before: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        if func._schema.is_mutable:
            self.before += [(t, t.clone()) for t in torch_leaves(args[0])]
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out


def capture(run: Any) -> Any:
    """Capture `run` by address, without doing it; the replay runs no Python of the step's."""
    captured = Capture()
    try:
        with captured:
            run()
    finally:
        for tensor, old in reversed(captured.before):
            tensor.copy_(old)

    def replay() -> None:
        for func, args, kwargs, out in captured.operations:
            found = func(*args, **kwargs)
            for old, new in zip(torch_leaves(out), torch_leaves(found), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    return replay


def memory(array: Any) -> Any:
    if isinstance(array, torch.Tensor):
        return array.untyped_storage().data_ptr()
    while isinstance(array.base, np.ndarray):
        array = array.base
    return id(array)


def static(name: str, steps_per_call: int = 4) -> Backend:
    """A backend whose steps run over static storage: captured, or on NumPy called again."""
    backend = get_backend(name).without_kernels()
    backend.kernels = get_backend(name).kernels
    backend.steps_per_call = steps_per_call
    how = capture if name == "torch" else lambda run: run
    backend.compile = lambda step: StaticRunner(backend, step, capture=how, memory=memory)
    return backend


def job(backend: Backend, optimizer: Any = OPTIMIZERS[0]) -> Trainer:
    net = nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 3)
    )
    return Trainer(net, losses.cross_entropy, optimizer, backend=backend, device="cpu")


def normalised(backend: Backend) -> Trainer:
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 8), nn.BatchNorm1d(8, momentum=None))
    return Trainer(
        nn.Sequential(net, nn.Linear(8, 3)),
        losses.cross_entropy,
        OPTIMIZERS[0],
        backend=backend,
        device="cpu",
    )


def numbers(trainer: Trainer) -> dict[str, np.ndarray]:
    return {n: to_numpy(p) for n, p in trainer.net.state_dict().items()}


def assert_equal(found: Trainer, expected: Trainer) -> None:
    assert found.history.step_losses == expected.history.step_losses
    for name, p in numbers(expected).items():
        assert np.array_equal(numbers(found)[name], p), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_training_equals_the_loop_bit_for_bit(name: str, optimizer: Any) -> None:
    """Batches of 16, 16, 16 and 2; the state handed back; a second data set, and the first."""
    runs = [job(backend, optimizer) for backend in (static(name), get_backend(name))]
    for run in runs:
        for x, y in ((X, Y), OTHER, (X, Y)):
            run.fit(x, y, epochs=6, batch_size=16)
    assert_equal(*runs)


class Descent(optim.Optimizer):
    """Makes new arrays, or writes to the arrays or to the dicts that it is given."""

    def __init__(self, writes: str = "") -> None:
        self.writes = writes

    def init(self, params: Any) -> Any:
        return {}

    def update(self, params: Any, grads: Any, state: Any, step: Any) -> Any:
        new = params if self.writes else {}
        for name, g in grads.items():
            if self.writes == "arrays":
                params[name] -= 0.1 * g
            else:
                new[name] = params[name] - 0.1 * g
        return new, state


@pytest.mark.parametrize("writes", ["arrays", "dicts"])
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_an_optimizer_that_writes_over_what_it_is_given(name: str, writes: str) -> None:
    runs = [
        job(static(name, steps_per_call=16), Descent(writes)),
        job(get_backend(name), Descent()),
    ]
    for run in runs:
        run.fit(X, Y, epochs=6, batch_size=4)
    assert_equal(*runs)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_buffers_are_carried(name: str) -> None:
    runs = [normalised(backend) for backend in (static(name), get_backend(name))]
    for run in runs:
        run.fit(X, Y, epochs=6, batch_size=16)
        assert int(numbers(run)["0.2.num_batches_tracked"]) == 24
    assert_equal(*runs)


def test_the_replay_ran_and_not_the_step() -> None:
    calls = []

    def step(state: Any, data: Any, rows: Any) -> Any:
        calls.append(len(rows))
        return {"sum": state["sum"] + torch.sum(data[rows])}, state["sum"]

    run = StaticRunner(get_backend("torch"), step, capture=capture, memory=memory)
    data = torch.arange(8.0)
    rows = torch.asarray([[i % 8, 1] for i in range(20)])
    state, found = run({"sum": torch.zeros(())}, data, rows)
    assert len(calls) == WARM_UP + 1
    totals = np.cumsum([i % 8 + 1 for i in range(20)])
    assert float(state["sum"]) == totals[-1]
    assert found.tolist() == [0, *totals[:-1]]


def test_nothing_is_collected_within_a_capture() -> None:
    """What it freed might be another capture, which CUDA does not allow then."""
    collecting = []

    def watched(run: Any) -> Any:
        collecting.append(gc.isenabled())
        return capture(run)

    def step(state: Any, data: Any, rows: Any) -> Any:
        return {"sum": state["sum"] + torch.sum(data[rows])}, state["sum"]

    run = StaticRunner(get_backend("torch"), step, capture=watched, memory=memory)
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            shape = (WARM_UP + 1, 1 + enabled)
            run({"sum": torch.zeros(())}, torch.arange(8.0), torch.zeros(shape, dtype=torch.int64))
            assert gc.isenabled() == enabled
        finally:
            gc.enable()
    assert collecting == [False, False]


def test_streamed_data_of_one_shape_are_captured_once() -> None:
    """Chunks of two shapes in turn, each in arrays of its own, as `fit` streams them; one odd."""
    calls = []

    def step(state: Any, data: Any, rows: Any) -> Any:
        calls.append(len(rows))
        return {"sum": state["sum"] + torch.sum(data[rows])}, state["sum"]

    run = StaticRunner(get_backend("torch"), step, capture=capture, memory=memory)
    state, total = {"sum": torch.zeros(())}, 0.0
    for chunk in range(12):
        count = 5 if chunk == 6 else (4, 3)[chunk % 2]
        data = torch.arange(2.0 * count) + 10 * chunk
        state, found = run(state, data, torch.arange(2 * count).reshape(count, 2))
        expected = total + np.cumsum(data.numpy().reshape(count, 2).sum(axis=1))
        assert found.tolist() == [total, *expected[:-1]]
        total = float(expected[-1])
        if chunk == 6:
            known = len(calls)
    assert float(state["sum"]) == total
    assert len(calls) == known, "the later chunks were replayed"


def test_a_state_is_replaced_by_one_of_its_kind() -> None:
    run = StaticRunner(get_backend("torch"), swapped, capture=capture, memory=memory)
    rows = torch.zeros((1, 1), dtype=torch.int64)
    state, _ = run({n: torch.zeros(4 if n == "d" else 2) for n in "abcd"}, torch.zeros(2), rows)
    new = {n: a + 1 for n, a in state.items()}
    renamed = {"e" if n == "d" else n: a for n, a in new.items()}
    for other in ({**new, "a": new["a"].double()}, {**new, "a": new["d"]}, renamed):
        assert run.replace(state, other) is other
    assert run.replace(dict(new), new) is new
    assert run.replace(state, new) is state
    assert state["d"].tolist() == [2.0] * 4


def test_streamed_training_equals_the_loop_bit_for_bit() -> None:
    runs = [job(backend) for backend in (static("torch"), get_backend("torch"))]
    for run in runs:
        run.fit(data.arrays(X, Y), epochs=8, batch_size=8, accumulate=2)
    assert_equal(*runs)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_a_network_taken_out_stays_as_it_was(name: str) -> None:
    run = job(static(name))
    run.fit(X, Y, epochs=3)
    net, before = run.net, numbers(run)
    run.fit(X, Y, epochs=3)
    for n, p in before.items():
        assert np.array_equal(to_numpy(net.state_dict()[n]), p)
        assert not np.array_equal(numbers(run)[n], p)


def swapped(state: Any, data: Any, rows: Any) -> Any:
    """Leaves change places, one is a view of another, and the loss is a part of the state."""
    new = {"a": state["b"], "b": state["a"], "c": state["d"][::2], "d": state["d"] + 1}
    return new, state["d"][1, ...] + data[rows][0, ...] * 0


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("count", [1, 2, WARM_UP + 1, WARM_UP + 4])
def test_leaves_that_alias_one_another(name: str, count: int) -> None:
    backend = static(name)
    put = lambda *numbers: backend.from_host(np.asarray(numbers, np.float32), "cpu")
    start = {"a": put(1, 2), "b": put(3, 4), "c": put(5, 6), "d": put(7, 8, 9, 10)}
    rows = backend.from_host(np.arange(count)[:, None] % 2, "cpu")
    data = put(0, 0)
    expected = (tree_map(lambda a: backend.xp.asarray(a, copy=True), start), [])
    state, wanted = expected
    for r in rows:
        state, loss = swapped(state, data, r)
        state = tree_map(lambda a: backend.xp.asarray(a, copy=True), state)
        wanted.append(float(loss))
    found, losses_found = backend.compile(swapped)(start, data, rows)
    assert {n: a.tolist() for n, a in found.items()} == {n: a.tolist() for n, a in state.items()}
    assert losses_found.tolist() == wanted


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_states_that_take_turns_are_two(name: str) -> None:
    """A state returned earlier is its holder's, though another was run since."""
    backend = static(name)
    put = lambda number: {"x": backend.from_host(np.asarray([number], np.float32), "cpu")}
    rows = backend.from_host(np.zeros((WARM_UP + 2, 1), dtype=np.int64), "cpu")
    run = backend.compile(
        lambda state, data, rows: ({"x": state["x"] + data[rows]}, state["x"][0, ...])
    )
    data = put(1.0)["x"]
    first, _ = run(put(0.0), data, rows)
    second, _ = run(put(100.0), data, rows)
    assert first["x"].tolist() == [WARM_UP + 2]
    first, _ = run(first, data, rows)
    second, _ = run(second, data, rows)
    assert first["x"].tolist() == [2 * WARM_UP + 4]
    assert second["x"].tolist() == [100 + 2 * WARM_UP + 4]


def test_data_that_was_dropped_is_not_kept() -> None:
    def addresses_only(run: Any) -> Any:
        return lambda: None

    run = StaticRunner(get_backend("numpy"), swapped, capture=addresses_only, memory=memory)
    state = {n: np.zeros(4 if n == "d" else 2, np.float32) for n in "abcd"}
    data = np.zeros(2, np.float32)
    run(state, data, np.zeros((WARM_UP + 2, 1), dtype=np.int64))
    given = next(iter(run._data.values())).given
    assert given.are([data])
    del data
    assert given.arrays() == [None]
    run(run._state, np.zeros(3, np.float32), np.zeros((1, 1), dtype=np.int64))
    assert len(run._data) == 1, "nor is the capture that read them"


def test_of_many_shapes_of_data_the_last_ones_are_kept() -> None:
    run = StaticRunner(get_backend("torch"), swapped, capture=capture, memory=memory)
    state = {n: torch.zeros(4 if n == "d" else 2) for n in "abcd"}
    every = [torch.zeros(n + 1) for n in range(KINDS + 3)]
    for one in every:
        state, _ = run(state, one, torch.zeros((WARM_UP + 2, 1), dtype=torch.int64))
    assert [known.given.arrays()[0] for known in run._data.values()] == every[3:]


def test_a_step_that_reads_the_host_runs_uncaptured_and_says_so_once() -> None:
    def step(state: Any, data: Any, rows: Any) -> Any:
        x = state["x"]
        return {"x": x + 1 if float(x) < 6 else x - 5}, x

    run = StaticRunner(get_backend("torch"), step, capture=capture, memory=memory)
    state, data = {"x": torch.zeros(())}, torch.zeros(3)
    with pytest.warns(RuntimeWarning, match=r"RuntimeError: operation not permitted") as warned:
        for size in (1, 2):
            rows = torch.zeros((WARM_UP + 5, size), dtype=torch.int64)
            state, found = run(state, data, rows)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    expected, x = [], {"x": torch.zeros(())}
    for _ in range(2 * WARM_UP + 10):
        x, loss = step(x, data, None)
        expected.append(float(loss))
    assert found.tolist() == expected[-len(found) :]
    assert float(state["x"]) == float(x["x"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.to(torch.float64), r"'x' of its state from torch.float32 \(2,\)"),
        (lambda x: x[:1], r"into torch.float32 \(1,\)"),
    ],
)
def test_a_step_that_changes_its_state_s_kind_is_refused(change: Any, words: str) -> None:
    run = StaticRunner(
        get_backend("torch"),
        lambda state, data, rows: ({"x": change(state["x"])}, state["x"][0]),
        capture=capture,
        memory=memory,
    )
    with pytest.raises(TypeError, match=words):
        run({"x": torch.zeros(2)}, torch.zeros(2), torch.asarray([[0]]))


# Whether a step could be captured on CUDA


class OneDevice(TorchDispatchMode):
    """Refuses what CUDA refuses while it captures: a copy between host and device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tensors = [t for t in torch_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        where = {t.device.type for t in tensors}
        if "cpu" in where:
            raise RuntimeError(f"{func} works on {where}")
        return out


class NothingMade(TorchFunctionMode):
    """Refuses to make a tensor of numbers of the host's: CUDA would copy them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        making = func in (torch.asarray, torch.as_tensor, torch.tensor)
        if making and not isinstance(args[0], torch.Tensor):
            raise RuntimeError(f"{func.__name__} of {args} copies from the host")
        return func(*args, **(kwargs or {}))


CONSTANT = torch.full((), 2.0)


def on_device(step: Any, state: Any, data: Any, rows: Any) -> Any:
    """The step on PyTorch's device without memory, in the place of CUDA."""
    given = [tree_map(lambda a: a.to("meta"), part) for part in (state, data, rows)]
    with OneDevice(), NothingMade(), torch.no_grad():
        return step(*given)


LAYERS = [
    *(nn.ReLU(), nn.LeakyReLU(), nn.GELU(), nn.Sigmoid(), nn.Tanh(), nn.Softmax(), nn.Softplus()),
    nn.Dropout(0.3),
    *(nn.BatchNorm1d(4), nn.BatchNorm1d(4, momentum=None)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize(
    "loss", [losses.cross_entropy, losses.mse, losses.binary_cross_entropy_with_logits]
)
def test_a_step_stays_on_the_device(loss: Any, optimizer: Any, layer: nn.Module) -> None:
    backend = get_backend("torch")
    net = nn.Sequential(nn.Linear(6, 4), layer, nn.Linear(4, 3))
    net = net.init(backend=backend, device="cpu")
    labels = losses.cross_entropy in (loss, getattr(loss, "func", None))
    y = torch.zeros(8, dtype=torch.int64) if labels else torch.zeros(8, 3)
    with use_backend(backend):
        state = initial_state(net, optimizer, 0)
        step = make_step(net, loss, optimizer, backend.xp)
        data = (torch.zeros(8, 6), y)
        new, value = on_device(step, state, data, torch.zeros(4, dtype=torch.int64))
    assert value.device.type == "meta"
    for path, leaf in named_leaves(new):
        assert leaf.device.type == "meta", path


@pytest.mark.parametrize("name", OPTIONS)
def test_a_loss_with_options_stays_on_the_device(name: str) -> None:
    test_a_step_stays_on_the_device(OPTIONS[name], OPTIMIZERS[0], nn.ReLU())


def test_a_step_that_does_not_is_seen() -> None:
    made = lambda state, data, rows: (state, data * torch.asarray(2.0))
    with pytest.raises(RuntimeError, match="copies from the host"):
        on_device(made, {}, torch.zeros(3), torch.zeros(1))
    taken = lambda state, data, rows: (state, data * CONSTANT)
    with pytest.raises(RuntimeError, match="works on"):
        on_device(taken, {}, torch.zeros(3), torch.zeros(1))


def test_no_number_is_copied_to_a_device() -> None:
    xp, x = get_backend("torch").xp, torch.zeros(3, device="meta")
    with NothingMade():
        for name in ("maximum", "minimum", "logaddexp", "copysign", "less"):
            assert getattr(xp, name)(0.5, x).device == x.device
            assert getattr(xp, name)(x, 0.5).device == x.device
        for bounds in ((0.0, x), (x, 1.0), (0.0, 1.0), (None, x), (x, x)):
            assert xp.clip(x, *bounds).device == x.device


def test_no_warning_is_given_where_all_is_well() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        job(static("torch")).fit(X, Y, epochs=4)
