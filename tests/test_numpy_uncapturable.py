"""Steps on NumPy that cannot be captured, or write over what they are given: each counts once."""

from contextlib import nullcontext

import numpy as np
import pytest
from numpy_steps import DATA, NUMPY, RNG, Net, copied, replays, run_all, same_bits, start

from polynet import losses, nn, optim
from polynet.backend import Backend
from polynet.errors import NotCompiledError
from polynet.step import initial_state, make_step
from polynet_numpy.replay import _Replay


class Reads(nn.Module):
    """A network that asks for a number on the host."""

    def __init__(self):
        self.only = nn.Linear(6, 3)

    def forward(self, x):
        y = self.only(x)
        return y * 2 if float(np.sum(x)) > 0 else y


class Rolls(nn.Module):
    """A network whose random numbers no capture knows."""

    def __init__(self):
        self.only = nn.Linear(6, 3)
        self.dice = [np.random.default_rng(0)]

    def forward(self, x):
        return self.only(x) * float(self.dice[0].random())


class Peeks(nn.Module):
    """A network that takes a number of its batch from behind the capture's back."""

    def __init__(self):
        self.only = nn.Linear(6, 3)

    def forward(self, x):
        return self.only(x) * float(np.sum(getattr(x, "array", x)))


class Writes(nn.Module):
    """A network that writes into what it was given as a constant."""

    def __init__(self):
        self.only = nn.Linear(6, 3)
        self.last = [np.zeros((32, 6), np.float32)]

    def forward(self, x):
        self.last[0][: len(x)] = x
        return self.only(x)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Reads, r"reads an array's numbers on the host.*test_numpy_uncapturable.py: return y \* 2"),
        (Peeks, "from the same numbers its replay computed other results"),
        (Rolls, "from the same numbers its replay computed other results"),
        (Writes, r"reads an array's numbers on the host.*_uncapturable.py: self.last\[0\]"),
    ],
)
def test_what_cannot_be_captured_runs_step_by_step_and_says_so(net, message):
    step, state, _ = start(optim.Adam(0.01), net=net())
    rows = RNG.integers(0, 64, size=(9, 32))
    compiled = NUMPY.compile(step)
    with pytest.warns(RuntimeWarning, match=message) as warned:
        state, found = compiled(state, DATA, rows)
    assert [w.filename for w in warned] == [__file__], "of the line that asked for the steps"
    fresh, start_state, _ = start(optim.Adam(0.01), net=net())
    fresh.required = True
    with pytest.raises(NotCompiledError, match=message):
        NUMPY.compile(fresh)(start_state, DATA, rows)
    if net is not Rolls:  # which rolled once more
        fresh, start_state, _ = start(optim.Adam(0.01), net=net())
        expected_state, expected = Backend.compile(NUMPY, fresh)(start_state, DATA, rows)
        same_bits({"state": state, "losses": found}, {"state": expected_state, "losses": expected})
    assert len(set(compiled(state, DATA, rows[:4])[1].tolist())) > 1


def test_the_reason_is_not_an_error_that_is_handled_meanwhile():
    step, state, _ = start(optim.Adam(0.01), net=Rolls())
    try:
        raise KeyError("another")
    except KeyError:
        with pytest.warns(RuntimeWarning, match="its replay computed other results"):
            NUMPY.compile(step)(state, DATA, RNG.integers(0, 64, size=(9, 32)))


class WritesOver(optim.Optimizer):
    """Changes what it is given, and returns that."""

    def __init__(self, write):
        self.write = write

    def init(self, params):
        return {name: np.zeros_like(p) for name, p in params.items()}

    def update(self, params, grads, state, step):
        for name, g in grads.items():
            self.write(params, state, name, g)
        return params, state


def with_an_operator(params, state, name, g):
    params[name] -= 0.1 * g


def with_out(params, state, name, g):
    np.subtract(params[name], 0.1 * g, out=params[name])


def part_by_part(params, state, name, g):
    params[name][...] = params[name] - 0.1 * g


def the_state(params, state, name, g):
    state[name] *= 0.9
    state[name] += g
    params[name] = params[name] - 0.1 * state[name]


def into_the_dicts(params, state, name, g):
    state[name] = 0.9 * state[name] + g
    params[name] = params.pop(name) - 0.1 * state[name]


@pytest.mark.parametrize("write", [with_an_operator, with_out, part_by_part, the_state])
def test_an_optimizer_that_writes_over_its_arrays_takes_each_step_once(write):
    """The step that is tried before it is captured is none of those counted."""
    optimizer = WritesOver(write)
    step, state, given = start(optimizer)
    expected = run_all(Backend.compile(NUMPY, step), state, given)
    step, state, given = start(optimizer)
    with pytest.warns(RuntimeWarning, match="writes over its state or its data"):
        same_bits(run_all(NUMPY.compile(step), state, given), expected)
    step, state, given = start(optimizer)
    step.required = True
    with pytest.raises(NotCompiledError, match="p - lr \\* g in place of"):
        run_all(NUMPY.compile(step), state, given)


@pytest.mark.parametrize("inner", [lambda o: o, optim.EMA, lambda o: optim.Groups({"*": o})])
def test_an_optimizer_may_write_to_the_dicts_it_is_given(inner):
    step, state, given = start(inner(WritesOver(into_the_dicts)))
    before = copied({"state": state})
    expected = run_all(Backend.compile(NUMPY, step), state, given)
    compiled = NUMPY.compile(step)
    same_bits(run_all(compiled, state, given), expected)
    same_bits(copied({"state": state}), before)
    assert [type(replay) for replay in replays(compiled)] == [_Replay] * 2


def test_a_layer_that_writes_over_a_buffer_does_so_once_a_step():
    class Grows(nn.Module):
        def __init__(self):
            self.only = nn.Linear(6, 3)
            self.size = nn.Buffer((), nn.init.ones)

        def forward(self, x):
            if self.training:
                self.size[...] = self.size * 1.5
            return self.only(x) * self.size

    rows, runs = RNG.integers(0, 64, size=(9, 32)), []
    for run in (Backend.compile, lambda backend, step: backend.compile(step)):
        step, state, _ = start(optim.SGD(1e-6), net=Grows())
        warns = pytest.warns(RuntimeWarning, match="writes over") if runs else nullcontext()
        with warns:
            state, found = run(NUMPY, step)(state, DATA, rows)
        runs.append({"state": state, "losses": found})
    same_bits(*runs)


def test_an_update_in_another_order_is_the_same():
    class Backwards(optim.Optimizer):
        def init(self, params):
            return {}

        def update(self, params, grads, state, step):
            return {n: params[n] - 0.1 * grads[n] for n in reversed(list(params))}, state

    step, state, given = start(Backwards())
    expected = run_all(Backend.compile(NUMPY, step), state, given)
    found = run_all(NUMPY.compile(step), state, given)
    assert found["losses"][-1].tobytes() == expected["losses"][-1].tobytes()
    for name, p in expected["state"]["params"].items():
        assert found["state"]["params"][name].tobytes() == p.tobytes()


def test_an_error_of_the_users_own_comes_as_it_is():
    net = Net().init(seed=0, backend=NUMPY)
    step = make_step(net, losses.cross_entropy, optim.Adam(0.01), NUMPY.xp)
    compiled, state = NUMPY.compile(step), initial_state(net, optim.Adam(0.01), 0)
    labels = np.zeros(64, int)
    state, _ = compiled(state, (DATA[0], labels), np.arange(48).reshape(6, 8))
    labels[60] = 3
    with pytest.raises(ValueError, match="labels from 0 to 3 for 3 classes"):
        compiled(state, (DATA[0], labels), np.arange(56, 64)[None])


def test_code_without_a_module_or_a_text_is_warned_of():
    """As an interpreter has it that runs what it was sent."""
    code = (
        "import numpy as np\n"
        "from polynet import Trainer, losses, nn, optim, stop_gradient\n"
        "def loss(o, y):\n"
        "    return losses.mse(o, y) * (1 if float(stop_gradient(o)[0, 0]) > 0 else 2)\n"
        "job = Trainer(nn.Linear(2, 1), loss, optim.SGD(0.1), backend='numpy')\n"
        "job.fit(np.ones((64, 2)), np.ones((64, 1)), epochs=9, batch_size=16)\n"
    )
    with pytest.warns(RuntimeWarning, match=r"line 4 of <a program>\)") as warned:
        exec(compile(code, "<a program>", "exec"), {})
    assert [w.filename for w in warned] == ["<a program>"]
