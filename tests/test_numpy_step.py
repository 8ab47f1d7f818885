"""NumPy's compiled step: captured, replayed, parameters written over.

What it returns is to the last bit what the step gives when it is called again and again, and
nobody else's array changes.
"""

import gc
import threading
import tracemalloc
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from numpy_steps import BATCHES, DATA, NUMPY, RNG, Net, copied, replays, run_all, same_bits, start
from one_by_one import OneByOne

from polynet import Trainer, data, losses, namespace, nn, op, optim
from polynet.backend import Backend
from polynet.backend.static import WARM_UP
from polynet.optim import schedules
from polynet.step import initial_state, make_step
from polynet.testing.suite.test_optimizers import OPTIMIZERS
from polynet.tree import leaves
from polynet_numpy.optimizers import SMALL
from polynet_numpy.replay import _Replay

# A compiled step beside the step itself


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


class Remembers(optim.Optimizer):
    """Keeps the parameters of before: an array of the state moves to another place in it."""

    def __init__(self, inner):
        self.inner = inner

    def init(self, params):
        before = {name: np.array(p) for name, p in params.items()}
        return {"inner": self.inner.init(params), "before": before}

    def update(self, params, grads, state, step):
        pulled = {name: g + params[name] - state["before"][name] for name, g in grads.items()}
        new, inner = self.inner.update(params, pulled, state["inner"], step)
        return new, {"inner": inner, "before": params}


OWN = {"Lookahead": Lookahead(optim.Adam(0.01)), "Remembers": Remembers(optim.Adam(0.01))}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*PATTERNS, *OWN])
def test_a_compiled_step_is_the_step(name, dtype):
    step, state, data = start({**PATTERNS, **OWN}[name], dtype)
    before = copied({"state": state, "data": list(data)})
    expected = run_all(Backend.compile(NUMPY, step), state, data)
    same_bits(copied({"state": state, "data": list(data)}), before)
    compiled = NUMPY.compile(step)
    same_bits(run_all(compiled, state, data), expected)
    assert [type(replay) for replay in replays(compiled)] == [_Replay] * 2
    same_bits(copied({"state": state, "data": list(data)}), before)  # the caller's own


@pytest.mark.parametrize("name", ["Adam", "SGD, momentum", "averaged"])
def test_parameters_are_written_over(name):
    """What the compiled step is for: the next call writes over the state it returned."""
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


def test_small_arrays_of_the_state_lie_side_by_side():
    step, state, given_data = start(optim.Adam(0.01))
    state, _ = NUMPY.compile(step)(state, given_data, BATCHES[0])
    for branch in (state["params"], *state["optimizer"].values()):
        small = [a for a in branch.values() if a.size <= SMALL]
        assert len(small) > 3
        places = [a.ctypes.data for a in small]
        assert places[1:] == [p + a.nbytes for p, a in zip(places[:-1], small[:-1], strict=True)]
    assert any(a.size > SMALL for a in state["params"].values())


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
    loss = lambda outputs, y: namespace("numpy").reshape(outputs, ())
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
    return trainer._run.kept["here"][1]


def nothing(trainer):
    return {}


@pytest.mark.parametrize("use", [look, slower, back])
def test_what_is_done_between_fits(use):
    found = trained(NUMPY, use)
    same_bits(found, trained(OneByOne(), use))
    if use is not look:
        untouched = trained(NUMPY, nothing)
        assert found["loss"].tobytes() != untouched["loss"].tobytes()


@pytest.mark.parametrize("use", [look, slower, back])
def test_what_is_done_between_fits_captures_nothing_anew(use, monkeypatch):
    """What changed of the state is written to where the capture reads it."""
    captures, take_up = [], _Replay._take_up
    monkeypatch.setattr(_Replay, "_take_up", lambda self: captures.append(1) or take_up(self))
    trainer = Trainer(Net(), losses.cross_entropy, optim.Adam(schedules.Constant(0.01)))
    trainer.fit(*DATA, epochs=5, batch_size=20, progress=False)
    assert len(captures) == 2, "those of whole batches, and of the last"
    use(trainer)
    trainer.fit(*DATA, epochs=5, batch_size=20, progress=False)
    assert len(captures) == 2


# Other networks


class Recurrent(nn.Module):
    def __init__(self):
        self.words = nn.Embedding(9, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.lstm(self.words(x))[0][:, -1, :])


NETWORKS = {
    "convolutions": (
        (3, 8, 8),
        nn.Sequential(
            *(nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.Conv2d(4, 4, 1), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2, padding=1), nn.GELU()),
            *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(6, 3)),
        ),
    ),
    "transformer": (
        (4, 6),
        nn.Sequential(
            nn.TransformerEncoderLayer(6, 2, 12, 0.1, batch_first=True),
            nn.LayerNorm(6), nn.Flatten(), nn.Linear(24, 3),
        ),
    ),
    "words": (7, Recurrent()),
    "activations": (
        (5,),
        nn.Sequential(
            *(nn.Linear(5, 8), nn.SiLU(), nn.Linear(8, 8), nn.ELU(), nn.Hardtanh()),
            *(nn.Linear(8, 8), nn.Softplus(), nn.RMSNorm(8), nn.Linear(8, 3)),
        ),
    ),
}  # fmt: skip


def of_shape(shape):
    if isinstance(shape, int):
        return RNG.integers(0, 9, size=(64, shape))
    return RNG.normal(size=(64, *shape)).astype("float32")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_replay_is_its_step(name):
    shape, net = NETWORKS[name]
    step, state, _ = start(optim.Adam(0.01), net=net)
    given = of_shape(shape), DATA[1]
    expected = run_all(Backend.compile(NUMPY, step), state, given)
    compiled = NUMPY.compile(step)
    same_bits(run_all(compiled, state, given), expected)
    assert [type(replay) for replay in replays(compiled)] == [_Replay] * 2


def test_python_runs_for_the_first_steps_only():
    calls = []

    def loss(outputs, targets):
        calls.append(1)
        return losses.cross_entropy(outputs, targets)

    net = Net().init(seed=0, backend=NUMPY)
    step = make_step(net, loss, optim.Adam(0.01), NUMPY.xp)
    rows = RNG.integers(0, 64, size=(50, 8))
    NUMPY.compile(step)(initial_state(net, optim.Adam(0.01), 0), DATA, rows)
    assert len(calls) == WARM_UP + 2  # to know what to expect, and to capture


def test_streamed_batches_are_replayed():
    """Other arrays in every call: they are copied to where the capture reads."""
    source = data.arrays(*DATA)
    runs = []
    for backend in (NUMPY, OneByOne()):
        trainer = Trainer(Net(), losses.cross_entropy, optim.Adam(0.01), backend=backend)
        trainer.fit(source, epochs=4, batch_size=10, progress=False)
        runs.append({"losses": np.asarray(trainer.history.step_losses), **trainer.net.state_dict()})
    same_bits(*runs)


def test_images_whose_axes_were_moved_are_streamed(monkeypatch):
    """Batches that do not lie in order in memory: none of them may stand in for the others."""
    images, runs = RNG.normal(size=(64, 8, 8, 3)).astype("float32"), []

    class Moved(data.Source):
        def __len__(self):
            return 64

        def batch(self, rows):
            return images[rows].transpose(0, 3, 1, 2), DATA[1][rows]

    for backend in (NUMPY, OneByOne()):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        trainer = Trainer(net, losses.cross_entropy, optim.SGD(0.1), backend=backend)
        trainer.fit(Moved(), epochs=3, batch_size=8, progress=False)
        runs.append(trainer.history.step_losses)
    assert runs[0] == runs[1]


def test_data_that_is_changed_between_fits_is_read_again():
    runs = []
    for backend in (NUMPY, OneByOne()):
        first, second = DATA[0].copy(), DATA[0] * 2
        trainer = Trainer(Net(), losses.cross_entropy, optim.Adam(0.01), backend=backend)
        for x in (first, second):
            trainer.fit(x, DATA[1], epochs=2, batch_size=16, progress=False)
        second[...] = -second
        trainer.fit(second, DATA[1], epochs=2, batch_size=16, progress=False)
        runs.append(trainer.history.step_losses)
    assert runs[0] == runs[1]


def test_data_of_another_dtype_or_structure_are_another_kind():
    def step(state, data, rows):
        (x,) = leaves(data)
        total = np.sum(NUMPY.xp.take(x, rows, axis=0)) * (2 if isinstance(data, dict) else 1)
        return {"count": state["count"] + 1}, total

    run, state, rows = NUMPY.compile(step), {"count": np.zeros(1)}, np.arange(WARM_UP + 2)[:, None]
    for turn in range(3):
        x = np.arange(1, WARM_UP + 3) / 3 + turn
        for kind in ([x.astype("float32")], [x.astype("float32") + 1], [x], {"x": x / 3}):
            state, found = run(state, kind, rows)
            expected = Backend.compile(NUMPY, step)(state, kind, rows)[1]
            assert (found.dtype, found.tolist()) == (expected.dtype, expected.tolist())
            assert rows[:, 0].tolist() == list(range(WARM_UP + 2)), "the caller's own"


def test_a_batch_that_is_no_number_gives_a_loss_that_is_none():
    """Also where the capture has seen none: NaN goes through an activation as it is."""
    step, state, given = start(optim.SGD(0.01), net=NETWORKS["activations"][1])
    x = RNG.normal(size=(64, 5)).astype("float32")
    x[:8] = np.nan
    rows = np.arange(8, 64).reshape(7, 8)
    run = NUMPY.compile(step)
    state, found = run(state, (x, given[1]), rows)
    assert np.isfinite(found).all()
    with np.errstate(invalid="ignore"):
        assert np.isnan(run(state, (x, given[1]), np.arange(8)[None])[1]).all()


def test_an_error_in_the_first_replay_changes_nothing():
    step, state, (x, _) = start(optim.Adam(0.01))
    labels = DATA[1].copy()
    labels[40:48] = 7
    batches = np.arange(24).reshape(3, 8)
    run, loop = NUMPY.compile(step), Backend.compile(NUMPY, step)
    (state, _), (expected, _) = run(state, (x, labels), batches), loop(state, (x, labels), batches)
    with pytest.raises(ValueError, match="labels"):
        run(state, (x, labels), np.arange(40, 48)[None])
    for rows in (batches, batches):
        (state, found), (expected, wanted) = (
            run(state, (x, labels), rows),
            loop(expected, (x, labels), rows),
        )
        same_bits({"state": state, "loss": found}, {"state": expected, "loss": wanted})


def test_steps_that_failed_are_no_warm_up():
    """After three errors in a row, the first step that is taken is not captured."""
    step, state, (x, _) = start(optim.Adam(0.01))
    labels = DATA[1].copy()
    labels[40:48] = 7
    run, loop = NUMPY.compile(step), Backend.compile(NUMPY, step)
    rows = np.arange(8)[None]
    (state, _), (expected, _) = run(state, (x, labels), rows), loop(state, (x, labels), rows)
    for _ in range(WARM_UP):
        with pytest.raises(ValueError, match="labels"):
            run(state, (x, labels), np.arange(40, 44)[None])
    rows = np.arange(24).reshape(6, 4)
    (state, found), (expected, wanted) = (
        run(state, (x, labels), rows),
        loop(expected, (x, labels), rows),
    )
    same_bits({"state": state, "loss": found}, {"state": expected, "loss": wanted})


def test_a_gradient_that_is_another_groups_parameter():
    class Product(nn.Module):
        def __init__(self):
            self.a = nn.Parameter((3,), nn.init.ones)
            self.b = nn.Parameter((3,), nn.init.ones)

        def forward(self, x):
            return product(self.a, self.b) * namespace("numpy").mean(x)

    @op
    def product(xp, a, b):
        return xp.sum(a * b), (lambda g: b, lambda g: a)

    groups = optim.Groups({"a": optim.SGD(0.1)}, others=optim.Adam(0.1))
    net = Product().init(seed=0, backend=NUMPY)
    step = make_step(net, lambda outputs, y: outputs, groups, NUMPY.xp)
    state, rows = initial_state(net, groups, 0), np.arange(36).reshape(9, 4)
    expected = Backend.compile(NUMPY, step)(state, DATA, rows)
    same_bits(list(NUMPY.compile(step)(state, DATA, rows)), list(expected))


# Many steps, and several at once


def test_steps_take_no_memory_but_the_first():
    """Of hundreds of replays, none keeps anything. Other threads may allocate in some round.

    Such a thread is pytest-xdist's, which receives the names of tests.
    """
    step, state, given_data = start(optim.Adam(0.01))
    run_step, rows = NUMPY.compile(step), RNG.integers(0, 64, size=(400, 1, 32))
    kept = []
    tracemalloc.start()
    for _ in range(4):
        for batch in rows:
            state, _ = run_step(state, given_data, batch)
        gc.collect()
        kept.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    grown = [after - before for before, after in pairwise(kept[1:])]
    assert min(grown) < 400 * 32  # less than an array for each step


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


@op
def crossed(xp, a, b, /):
    """Whose gradients are views of the other's memory."""
    return xp.sum(a * b), (lambda g: b[...], lambda g: a[...])


class Crossed(nn.Module):
    def __init__(self, size):
        self.a, self.b = (nn.Parameter((size,), nn.init.normal(0.0, 1.0)) for _ in range(2))

    def forward(self, x):
        return crossed(self.a, self.b)


@pytest.mark.filterwarnings("ignore:this training step cannot be captured")
@pytest.mark.parametrize("size", [5, 50_000])
@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_a_gradient_that_is_another_parameter_is_that_of_before(size, kind):
    """Of two groups, one after the other: the first may not write over what the second reads."""
    optimizer = optim.Groups({"a": kind(0.1), "b": kind(0.2)})
    runs = []
    for backend in (NUMPY, OneByOne()):
        job = Trainer(Crossed(size), lambda outputs, _: outputs, optimizer, backend=backend)
        job.fit(np.zeros((40, 1)), np.zeros(40), batch_size=5)
        runs.append(job.history.step_losses)
    assert runs[0] == runs[1]


@pytest.mark.parametrize("size", [5, 50_000])
@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, partial(optim.SGD, momentum=0.9)])
def test_a_gradient_that_is_a_view_of_another_parameter_is_captured(size, kind):
    """It is copied before the update, which may write over the parameter first."""
    runs = []
    for backend, how in ((NUMPY, "require"), (OneByOne(), "auto")):
        job = Trainer(
            Crossed(size), lambda outputs, _: outputs, kind(0.1), backend=backend, compile=how
        )
        job.fit(np.zeros((40, 1)), np.zeros(40), batch_size=5)
        runs.append({"losses": np.asarray(job.history.step_losses), **job.net.state_dict()})
    same_bits(*runs)
