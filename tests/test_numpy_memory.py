"""NumPy's compiled step: memory of its own, parameters written over, Adam compiled by Numba.

What it returns is to the last bit what the step gives when it is called again and again, and
nobody else's array changes.
"""

import importlib.metadata
import importlib.util
import sys
import threading

import numpy as np
import pytest

from polynet import Trainer, get_backend, losses, namespace, nn, optim
from polynet.backend import Backend
from polynet.optim import schedules
from polynet.step import initial_state, make_step
from polynet.testing.suite.test_optimizers import OPTIMIZERS
from polynet.tree import leaves, named_leaves
from polynet_numpy import compiled, optimizers
from polynet_numpy.memory import SMALL, Memory

NUMPY = get_backend("numpy")


def same_bits(found, expected):
    found, expected = dict(named_leaves(found)), dict(named_leaves(expected))
    assert list(found) == list(expected)
    for path, value in expected.items():
        assert found[path].dtype == value.dtype, path
        assert found[path].shape == value.shape, path
        assert found[path].tobytes() == value.tobytes(), path


def copied(tree):
    return {path: np.array(a) for path, a in named_leaves(tree)}


# Numba's Adam

numba_installed = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="Numba is not installed"
)
SETTINGS = {"betas": (0.9, 0.999), "eps": 1e-8}
TWO_PARTS = 2 * compiled.SHARE


@numba_installed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", ["adam", "adamw"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [0, 1, 7, optimizers.PIECE + 3, TWO_PARTS - 1, TWO_PARTS + 5])
def test_numbas_adam_is_numpys(monkeypatch, dtype, rule, decay, threads, size):
    import numba  # noqa: F401 (from now on it is asked for)

    monkeypatch.setattr(compiled, "_threads", lambda: threads)
    by_numba, answers = compiled.adam, []
    rng = np.random.default_rng(size)
    p, m, g = ({"w": rng.normal(size=size).astype(dtype)} for _ in range(3))
    state = {"exp_avg": m, "exp_avg_sq": {"w": rng.random(size).astype(dtype)}}
    given = copied({"p": p, "g": g, "state": state})

    def update(adam):
        monkeypatch.setattr(compiled, "adam", adam)
        now = p, state
        for step in range(3):
            count = np.full(1, step, np.int32)
            kernel = getattr(optimizers, rule)
            now, _ = kernel(
                NUMPY.xp, now[0], g, now[1], count, 0.01, weight_decay=decay, **SETTINGS
            )
        return {"params": now[0], "state": now[1]}

    def asked(*args):
        answers.append(by_numba(*args))
        return answers[-1]

    same_bits(update(asked), update(lambda *_: False))
    assert answers == [True] * 3
    same_bits(copied({"p": p, "g": g, "state": state}), given)


@numba_installed
def test_numba_says_what_it_cost():
    import numba  # noqa: F401

    vectors = tuple(np.ones(4, np.float32) for _ in range(4))
    assert compiled.adam(vectors, (0.1,) * 8)
    assert {"import", "adam, float32"} <= set(compiled.seconds)
    assert all(s >= 0 for s in compiled.seconds.values())


def test_the_backends_version_says_whether_numba_is_there(monkeypatch):
    found = importlib.util.find_spec("numba")
    numba = f", Numba {importlib.metadata.version('numba')}" if found else ""
    assert type(NUMPY)().version == np.__version__ + numba
    monkeypatch.setitem(sys.modules, "numba", None)
    assert type(NUMPY)().version == np.__version__


def test_without_numba_adam_declines(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    compiled._compiled.cache_clear()
    p = np.ones(4, np.float32)
    try:
        assert not compiled.adam((p, p, p, p), (0.1,) * 8)
    finally:
        compiled._compiled.cache_clear()
    assert p.tolist() == [1.0] * 4


# A compiled step beside the step itself


class Net(nn.Module):
    """Parameters large and small, buffers and dropout; names are those of the suite's groups."""

    def __init__(self):
        self.a = nn.Linear(6, 200)
        self.norm = nn.BatchNorm1d(200)
        self.b = nn.Linear(200, 200)
        self.drop = nn.Dropout(0.2)
        self.c = nn.Linear(200, 3)

    def forward(self, x):
        return self.c(self.drop(self.b(self.norm(self.a(x)))))


RNG = np.random.default_rng(3)
DATA = RNG.normal(size=(64, 6)).astype("float32"), RNG.integers(0, 3, size=64)
BATCHES = [RNG.integers(0, 64, size=shape) for shape in ((3, 32), (1, 32), (1, 5), (2, 32))]
PATTERNS = {
    **OPTIMIZERS,
    "groups": optim.Groups(
        {"a.*": optim.Frozen(), "b.*": optim.SGD(schedules.Constant(0.1), momentum=0.9)},
        others=optim.Adam(0.05, eps=1e-5),
    ),
    "averaged, clipped Adam": optim.EMA(optim.ClipNorm(optim.Adam(0.01), max_norm=0.5)),
}


class Lookahead(optim.Optimizer):
    """Reads the parameters of before once the inner optimizer has made the next."""

    def __init__(self, inner):
        self.inner = inner

    def init(self, params):
        return self.inner.init(params)

    def update(self, params, grads, state, step):
        new, state = self.inner.update(params, grads, state, step)
        return {name: (p + new[name]) / 2 for name, p in params.items()}, state


def start(optimizer, dtype="float32", net=None):
    """A network's step, the state before it, and the data."""
    net = (net or Net()).init(seed=0, backend=NUMPY, dtype=dtype)
    step = make_step(net, losses.cross_entropy, optimizer, NUMPY.xp)
    return step, initial_state(net, optimizer, 0), (DATA[0].astype(dtype), DATA[1])


def run_all(run, state, data):
    found = []
    for rows in BATCHES:
        state, values = run(state, data, rows)
        found.append(values)
    return {"state": state, "losses": found}


def test_the_network_has_parameters_of_both_kinds():
    sizes = [p.size for p in Net().init(seed=0, backend=NUMPY).parameters().values()]
    assert min(sizes) <= SMALL < max(sizes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*PATTERNS, "Lookahead"])
def test_a_compiled_step_is_the_step(name, dtype):
    optimizer = Lookahead(optim.Adam(0.01)) if name == "Lookahead" else PATTERNS[name]
    step, state, data = start(optimizer, dtype)
    before = copied({"state": state, "data": list(data)})
    expected = run_all(Backend.compile(NUMPY, step), state, data)
    same_bits(copied({"state": state, "data": list(data)}), before)
    same_bits(run_all(NUMPY.compile(step), state, data), expected)
    same_bits(copied({"state": state, "data": list(data)}), before)  # the caller's, not spent


@pytest.mark.parametrize("name", ["Adam", "SGD, momentum", "averaged"])
def test_parameters_are_written_over(name):
    """What the compiled step is for: the state it returned is spent by the next call."""
    step, state, data = start(PATTERNS[name])
    run = NUMPY.compile(step)
    first, _ = run(state, data, BATCHES[0])
    second, _ = run(first, data, BATCHES[0])
    assert second["params"]["b.weight"] is first["params"]["b.weight"]
    assert second["params"]["b.weight"] is not state["params"]["b.weight"]


def test_no_leaf_of_a_state_is_anothers_memory():
    step, state, data = start(optim.Adam(0.01))
    run = NUMPY.compile(step)
    for rows in BATCHES:
        state, _ = run(state, data, rows)
    arrays = leaves(state)
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[:i])


def test_a_state_that_comes_from_elsewhere_is_copied():
    """As when weights are restored: arrays of the state, and some that are not."""
    step, state, data = start(optim.Adam(0.01))
    run = NUMPY.compile(step)
    after, _ = run(state, data, BATCHES[0])
    changed = {**after, "params": {n: p * 2 for n, p in after["params"].items()}}
    kept = copied(changed)
    found = run_all(run, changed, data)
    same_bits(copied(changed), kept)
    same_bits(found, run_all(Backend.compile(NUMPY, step), changed, data))


class Itself(nn.Module):
    """A network whose output is its parameter, unchanged: a view of it is the loss."""

    def __init__(self):
        self.only = nn.Linear(1, 1)

    def forward(self, x):
        return self.only.weight


def test_a_loss_that_is_a_parameters_memory():
    net = Itself().init(seed=0, backend=NUMPY)
    loss = lambda outputs, y: namespace("numpy").reshape(outputs, ())  # noqa: E731
    step = make_step(net, loss, optim.SGD(0.1), NUMPY.xp)
    state = initial_state(net, optim.SGD(0.1), 0)
    rows, data = np.zeros((3, 1), int), (np.ones((1, 1), np.float32), np.ones(1))
    _, expected = Backend.compile(NUMPY, step)(state, data, rows)
    _, found = NUMPY.compile(step)(state, data, rows)
    assert len(set(expected.tolist())) == 3
    assert found.tolist() == expected.tolist()


# A Trainer


def trained(backend, use):
    """The network's parameters and what `use` returns, between two fits."""
    trainer = Trainer(
        Net(), losses.cross_entropy, optim.Adam(schedules.Constant(0.01)), backend=backend
    )
    trainer.fit(*DATA, epochs=2, batch_size=20, progress=False)
    kept = use(trainer)
    before = copied(kept)
    trainer.fit(*DATA, epochs=2, batch_size=20, progress=False)
    same_bits(copied(kept), before)
    return {"net": trainer.net.parameters(), "loss": np.asarray(trainer.history.step_losses)}


class OneByOne(type(NUMPY)):
    """NumPy, which calls the step again and again."""

    compile = Backend.compile


def look(trainer):
    prediction = trainer.predict(DATA[0])
    return {"net": trainer.net.parameters(), "buffers": trainer.net.buffers(), "out": prediction}


def slower(trainer):
    trainer.lr_factor = 0.125
    return {}


def back(trainer):
    trainer.keep_weights("here")
    trainer.fit(*DATA, epochs=1, batch_size=20, progress=False)
    trainer.restore_weights("here")
    return trainer._kept["here"][1]


def nothing(trainer):
    return {}


@pytest.mark.parametrize("use", [look, slower, back])
def test_what_is_done_between_fits(use):
    found = trained(NUMPY, use)
    same_bits(found, trained(OneByOne(), use))
    if use is not look:
        untouched = trained(NUMPY, nothing)
        assert found["loss"].tobytes() != untouched["loss"].tobytes()


# The pool


SHAPE, FLOATS = (64, 256), np.dtype("float32")


def test_a_buffer_comes_again_once_nobody_has_it():
    memory = Memory()
    first = memory.empty(SHAPE, FLOATS)
    place = first.ctypes.data
    assert memory.empty(SHAPE, FLOATS).ctypes.data != place
    del first
    assert memory.empty(SHAPE, FLOATS).ctypes.data == place


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[3:],
        lambda a: a.T,
        lambda a: a.reshape(-1)[::2],
        lambda a: memoryview(a),
        lambda a: [{"deep": a}],
        lambda a: lambda: a,
        lambda a: np.asarray(memoryview(a)),
    ],
    ids=["part", "transpose", "view of a view", "memory", "in a list", "closure", "by its memory"],
)
def test_a_buffer_with_a_view_is_in_use(view):
    memory = Memory()
    kept = view(memory.empty(SHAPE, FLOATS))
    others = [memory.empty(SHAPE, FLOATS) for _ in range(3)]
    assert len({a.ctypes.data for a in others}) == 3
    del kept
    assert memory.empty(SHAPE, FLOATS).ctypes.data not in {a.ctypes.data for a in others}
    assert sum(map(len, memory._buffers.values())) == 4


def test_shape_and_dtype_are_those_asked_for():
    memory = Memory()
    for shape, dtype in (((4, 9), "float32"), ((9, 4), "float32"), ((4, 9), "float64")):
        a = memory.empty(shape, np.dtype(dtype))
        assert (a.shape, a.dtype) == (shape, np.dtype(dtype))


def test_threads_never_have_one_buffer_at_once():
    """Each writes its number, lets others run, and finds it again."""
    memory, wrong = Memory(), []

    def work(number):
        for _ in range(400):
            mine = [memory.empty((64,), FLOATS) for _ in range(3)]
            for i, a in enumerate(mine):
                a[...] = 3 * number + i
            for i, a in enumerate(mine):
                if (a != 3 * number + i).any():
                    wrong.append(number)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_steps_in_two_threads_at_once():
    step, state, data = start(optim.Adam(0.01))
    expected = run_all(Backend.compile(NUMPY, step), state, data)
    found = [None, None]

    def work(i):
        found[i] = run_all(NUMPY.compile(step), state, data)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in found:
        same_bits(each, expected)
