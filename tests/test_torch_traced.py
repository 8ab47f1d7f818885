"""PyTorch on the CPU: a step becomes a program, with the step's own bits, or says why not."""

from __future__ import annotations

import gc
import random as pythons
import sys
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, array_namespace, losses, nn, optim
from polynet.backend import get_backend, looped, to_numpy
from polynet.data import arrays

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from polynet_torch import traced

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(40, 5)), rng.integers(0, 3, size=40)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are traced as soon as they come."""
    monkeypatch.setattr(traced, "AFTER", 0)


class Counted(nn.Module):
    """A network that counts how often it runs as Python, in training."""

    def __init__(self, look: Callable[[Any], Any] = lambda y: y) -> None:
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.3))
        self.last = nn.Linear(8, 3)
        self.runs = Runs()
        self.look = look

    def forward(self, x: Any) -> Any:
        if self.training:
            self.runs.count += 1
        return self.look(self.last(self.layers(x)))


class Runs:
    count = 0


def trained(net: nn.Module, epochs: int = 6, **options: Any) -> Trainer:
    job = Trainer(net, losses.cross_entropy, optim.Adam(1e-2), backend="torch", **options)
    job.fit(X, Y, epochs=epochs, batch_size=8)
    return job


def by_the_loop(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    backend = get_backend("torch")
    with monkeypatch.context() as patch:
        patch.setattr(backend, "compile", lambda step: looped(backend, step))
        return trained(net)


def same_run(a: Trainer, b: Trainer) -> None:
    assert a.history.step_losses == b.history.step_losses
    for name, array in a.net.state_dict().items():
        np.testing.assert_array_equal(to_numpy(array), to_numpy(b.net.state_dict()[name]))


@pytest.mark.usefixtures("at_once")
def test_a_step_runs_as_python_until_it_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Counted()
    job = trained(net)
    assert net.runs.count == 2  # to trace it, and to see that its program gives the same
    same_run(job, by_the_loop(Counted(), monkeypatch))
    job.fit(X, Y, epochs=2, batch_size=8)
    assert net.runs.count == 2
    job.fit(X, Y, batch_size=16)  # and 8 that are left, as before: one shape more
    assert net.runs.count == 4


WEIGHTS = rng.uniform(0.5, 1.5, size=40)
OPTIMIZER = optim.EMA(
    optim.ClipNorm(
        optim.Groups(
            {"last.*": optim.SGD(optim.schedules.StepLR(0.1, 5), momentum=0.9)},
            others=optim.AdamW(optim.schedules.CosineAnnealingLR(1e-2, 40)),
        ),
        max_norm=0.5,
    )
)
FITS: dict[str, Callable[[Trainer], Any]] = {
    "in parts": lambda job: job.fit(X, Y, epochs=4, batch_size=4, accumulate=2),
    "weighed": lambda job: job.fit(X, Y, sample_weight=WEIGHTS, epochs=4, batch_size=8),
    "validated": lambda job: job.fit(X, Y, epochs=4, batch_size=8, validation_split=0.2),
    "streamed": lambda job: job.fit(arrays(X, Y), epochs=4, batch_size=8),
    "other data": lambda job: (job.fit(X, Y, epochs=2, batch_size=8), job.fit(-X, Y, batch_size=8)),
}


class Reader(nn.Module):
    """A sequence read both ways by two layers, whose kernel is an operation of polynet's own."""

    def __init__(self) -> None:
        self.layers = nn.LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.last(self.layers(x)[0][:, -1])


@pytest.mark.usefixtures("at_once")
def test_an_lstm_is_traced_with_the_bits_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> Trainer:
        job = Trainer(Reader(), losses.cross_entropy, optim.Adam(), backend="torch")
        job.fit(x, Y, epochs=4, batch_size=8)
        return job

    x = np.random.default_rng(1).normal(size=(40, 5, 3))
    job = run()
    assert all(kind.program for kind in _kinds(job))
    backend = get_backend("torch")
    monkeypatch.setattr(backend, "compile", lambda step: looped(backend, step))
    same_run(job, run())


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", FITS)
def test_whatever_is_fitted_has_the_bits_of_the_loop(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an optimizer of many parts, whose rates are changed between two calls."""

    def run() -> Trainer:
        job = Trainer(Counted(), losses.cross_entropy, OPTIMIZER, backend="torch")
        FITS[name](job)
        job.lr_factor = 0.5
        FITS[name](job)
        return job

    job = run()
    assert all(kind.program for kind in _kinds(job))
    backend = get_backend("torch")
    monkeypatch.setattr(backend, "compile", lambda step: looped(backend, step))
    same_run(job, run())


def test_it_is_traced_after_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many on every machine; and not where a trial needs large copies."""
    net = Counted()
    job = trained(net)
    assert net.runs.count == 30
    monkeypatch.setattr(traced, "AFTER", 10)
    same_run(job, trained(net))
    assert net.runs.count == 30 + 10 + 2
    monkeypatch.setattr(traced, "LARGE", 100)
    same_run(job, trained(net))
    assert net.runs.count == 42 + 30


class Printed(list[str]):
    def __call__(self, y: Any) -> Any:
        self.append(f"{array_namespace(y).sum(y):.3f}")
        return y


def noisy(y: Any) -> Any:
    return y * pythons.random()  # what is added to all scores changes no cross entropy


def as_it_comes(y: Any) -> Any:
    xp = array_namespace(y)
    return y + xp.sum(y[y > 1])


UNTRACED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "float": (lambda y: y * (2 if float(to_plain(y)[0, 0]) > 0 else 1), "reads an array's numbers"),
    "if": (lambda y: y * 2 if to_plain(y)[0, 0] > 0 else y, "reads an array's numbers"),
    "NumPy": (lambda y: y + float(np.asarray(to_plain(y)).max()), "reads an array's numbers"),
    "printed": (Printed(), "reads an array's numbers by numpy"),
    "a list": (lambda y: y + sum(torch.ones(2).tolist()), "reads an array's numbers by tolist"),
    "a mask": (as_it_comes, "the shape of the result of aten.index.Tensor depends on numbers"),
    "Python's": (noisy, "its program computed other results"),
    "PyTorch's": (lambda y: y * torch.rand(()), "its program computed other results"),
}


def to_plain(y: Any) -> Any:
    from polynet import stop_gradient

    return y if isinstance(y, torch.Tensor) else stop_gradient(y)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", UNTRACED)
def test_what_no_program_can_hold_goes_on_one_operation_at_a_time(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one warning, of the line that asked for the steps, which says why."""
    look, why = UNTRACED[name]
    with pytest.warns(RuntimeWarning, match="cannot be captured") as warned:
        job = trained(Counted(look))
    assert why in str(warned[0].message)
    assert [w.filename for w in warned] == [__file__]
    if not name.endswith("'s"):
        assert "test_torch_traced.py: " in str(warned[0].message)
        same_run(job, by_the_loop(Counted(look), monkeypatch))
    if name == "printed":
        assert len(look) >= 60


@pytest.mark.usefixtures("at_once")
def test_a_state_that_grows_is_not_traced() -> None:
    def step(state: Any, data: Any, rows: Any) -> Any:
        return {"x": torch.cat([state["x"], state["x"][-1:] * 2])}, torch.sum(state["x"])

    run = get_backend("torch").compile(step)
    with pytest.warns(RuntimeWarning, match=r"'x' of the state is torch\.float32 \(1,\) before"):
        state, found = run({"x": torch.ones(1)}, torch.zeros(2), torch.zeros((5, 1), dtype=int))
    assert found.tolist() == [1, 3, 7, 15, 31]
    assert len(state["x"]) == 6


@pytest.mark.usefixtures("at_once")
def test_data_that_are_one_tensor_may_be_two_later() -> None:
    x, weights = torch.ones(3), torch.full((3,), 2.0)

    def step(state: Any, data: Any, rows: Any) -> Any:
        loss = torch.sum(data[0] - 3 * data[1] * weights)
        return {"x": state["x"] + loss}, loss

    run, rows = get_backend("torch").compile(step), torch.zeros((1, 1), dtype=int)
    state: Any = {"x": torch.zeros(())}
    for data in [(x, x), (x, weights), (weights, x), (x * 4, x * 5)]:
        state, (loss,) = run(state, data, rows)
        assert loss == step(state, data, rows)[1]
    assert len(_programs(run)) == 1


@pytest.mark.usefixtures("at_once")
def test_data_may_lie_in_memory_in_another_way() -> None:
    def step(state: Any, data: Any, rows: Any) -> Any:
        loss = torch.sum(data.reshape(-1) * torch.arange(6.0))
        return {"x": state["x"] + loss}, loss

    run, rows = get_backend("torch").compile(step), torch.zeros((1, 1), dtype=int)
    state, lies = {"x": torch.zeros(())}, torch.arange(6.0).reshape(3, 2)
    for data in (lies.reshape(2, 3), lies.t(), lies[:1, :1].expand(2, 3)):
        state, (loss,) = run(state, data, rows)
        assert loss == step(state, data, rows)[1]


def test_so_may_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(state: Any, data: Any, rows: Any) -> Any:
        return {"x": state["x"].t() + 1}, torch.sum(state["x"].reshape(-1) * torch.arange(9.0))

    monkeypatch.setattr(traced, "AFTER", 1)  # after the first step, whose state lies across
    run = get_backend("torch").compile(step)
    given: Any = {"x": torch.arange(9.0).reshape(3, 3)}
    _, found = run(given, torch.zeros(1), torch.zeros((4, 1), dtype=int))
    _, expected = looped(get_backend("torch"), step)(given, torch.zeros(1), torch.zeros((4, 1)))
    assert found.tolist() == expected.tolist()
    assert len(_programs(run)) == 1


def test_a_program_is_of_states_of_its_own_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(state: Any, data: Any, rows: Any) -> Any:
        x = state["x"] if len(state["x"]) == 3 else torch.zeros(3) + state["x"]
        return {"x": x + 1}, torch.sum(x)

    monkeypatch.setattr(traced, "AFTER", 1)
    run, data = get_backend("torch").compile(step), torch.zeros(1)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the second time, of the step that grows
            state, found = run({"x": torch.zeros(1)}, data, torch.zeros((4, 1), dtype=int))
        assert found.tolist() == [0, 3, 6, 9]
        assert state["x"].tolist() == [4, 4, 4]


@pytest.mark.parametrize("after", [0, 9])
def test_a_step_may_write_to_its_dict(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    def step(state: Any, data: Any, rows: Any) -> Any:
        state["x"] = state["x"] + 1
        return state, torch.sum(state["x"])

    monkeypatch.setattr(traced, "AFTER", after)
    run, rows = get_backend("torch").compile(step), torch.zeros((2, 1), dtype=int)
    first, _ = run({"x": torch.zeros(1)}, torch.zeros(1), rows)
    second, found = run(first, torch.zeros(1), rows)
    assert (first["x"].tolist(), second["x"].tolist(), found.tolist()) == ([2], [4], [3, 4])


def test_a_loss_that_is_no_array_is_said_to_be_one() -> None:
    run, data = get_backend("torch").compile(lambda s, d, r: (s, 1.0)), torch.zeros(1)
    with pytest.raises(TypeError, match="the training step returned a float for its loss"):
        run({"x": data}, data, torch.zeros((2, 1), dtype=int))


@pytest.mark.usefixtures("at_once")
def test_data_are_nobodys_after_the_last_step() -> None:
    job = Trainer(nn.Linear(5, 3), losses.mse, optim.SGD(0.1), backend="torch")
    x = torch.ones((8, 5))
    job.fit(x, torch.ones((8, 3)), batch_size=4)
    known = weakref.ref(x)
    del x
    gc.collect()
    assert known() is None


@pytest.mark.usefixtures("at_once")
def test_several_threads_trace() -> None:
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            jobs = list(pool.map(lambda _: trained(Counted(), epochs=2), range(8)))
    finally:
        sys.setswitchinterval(5e-3)
    for job in jobs:
        same_run(job, jobs[0])
        assert all(kind.program is not None for kind in _kinds(job))


@pytest.mark.usefixtures("at_once")
def test_a_state_taken_out_stays_as_it_was() -> None:
    job = trained(Counted(), epochs=2)
    net, kept = job.net, {n: to_numpy(a) for n, a in job.net.state_dict().items()}
    job.keep_weights("then")
    job.fit(X, Y, epochs=2, batch_size=8)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(to_numpy(array), kept[name])
    job.restore_weights("then")
    job.fit(X, Y, epochs=1, batch_size=8)
    assert not np.array_equal(to_numpy(job.net.last.weight), kept["last.weight"])


@pytest.mark.usefixtures("at_once")
def test_what_ends_within_a_program_leaves_no_whole_state() -> None:
    job = trained(Counted(), epochs=2)
    (kind,) = _kinds(job)

    def cut(*leaves: Any) -> Any:
        leaves[0].zero_()
        raise KeyboardInterrupt

    kind.program, kept = cut, kind.program
    with pytest.raises(KeyboardInterrupt):
        job.fit(X, Y, batch_size=8)
    kind.program = kept
    with pytest.raises(RuntimeError, match="a step was cut in two by KeyboardInterrupt"):
        job.fit(X, Y, batch_size=8)


@pytest.mark.usefixtures("at_once")
def test_an_error_within_a_program_that_wrote_nothing_leaves_the_state() -> None:
    net = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(3, 2))
    job = Trainer(net, losses.cross_entropy, optim.Adam(0.1), backend="torch")
    codes, labels = torch.arange(4)[:, None], torch.arange(4) % 2
    job.fit(codes, labels, batch_size=2)
    assert all(kind.program for kind in _kinds(job))
    before = job.net.state_dict()
    with pytest.raises(IndexError):
        job.fit(torch.full((4, 1), 7), labels, batch_size=2)
    for name, array in job.net.state_dict().items():
        assert torch.equal(array, before[name])
    job.fit(codes, labels, batch_size=2)


@pytest.mark.usefixtures("at_once")
def test_where_pytorch_counts_no_writes() -> None:
    with torch.inference_mode():
        job = trained(Counted())
    same_run(job, trained(Counted()))


def _kinds(job: Trainer) -> list[Any]:
    """What the runner within a Trainer's steps knows."""
    return list(_runner(job._run._steps)._kinds.values())


def _runner(run: Any) -> traced.Runner:
    """What takes the steps on the CPU."""
    cells = [cell.cell_contents for cell in run.__closure__]
    (runner,) = (c for c in cells if isinstance(c, traced.Runner))
    return runner


def _programs(run: Any) -> list[Any]:
    return [kind.program for kind in _runner(run)._kinds.values() if kind.program is not None]


@pytest.mark.usefixtures("at_once")
def test_the_program_of_steps_that_come_again_is_kept() -> None:
    """Whatever else comes between them, as other last batches do."""
    net = Counted()
    job = Trainer(net, losses.cross_entropy, optim.SGD(0.1), backend="torch")
    for size in range(2, 3 + traced.KINDS):
        job.fit(X, Y, batch_size=20)
        job.fit(X[:size], Y[:size], batch_size=size)
    job.fit(X, Y, batch_size=20)
    assert net.runs.count == 2 * (1 + traced.KINDS + 1)


@pytest.mark.usefixtures("at_once")
def test_programs_of_the_last_kinds_are_kept() -> None:
    net = Counted()
    job = Trainer(net, losses.cross_entropy, optim.SGD(0.1), backend="torch")
    for size in range(2, 2 + 2 * traced.KINDS):
        job.fit(X[:size], Y[:size], batch_size=size)
    assert len(_kinds(job)) == traced.KINDS
    assert net.runs.count == 2 * 2 * traced.KINDS


def test_required_steps_are_traced_after_the_first() -> None:
    net = Counted()
    trained(net, compile="require")
    assert net.runs.count == 3
