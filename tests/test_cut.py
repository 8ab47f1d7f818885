"""What an exception leaves that comes within a step: a state to go on from, or a refusal."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_steps import DATA, NUMPY, start
from one_by_one import OneByOne
from runs import EPOCHS, FIT, X, Y, assert_same_run, stayed, trainer

from polynet import Trainer, losses, nn, optim
from polynet.backend import (
    Backend,
    get_backend,
    nothing_written,
    overwrite_count,
    overwriting,
)
from polynet.errors import NotCompiledError
from polynet.history import History
from polynet.unread import Unread
from polynet_numpy import compiled

NEEDS_A_STATE: dict[str, Callable[[Trainer], Any]] = {
    "fit": lambda job: job.fit(X, Y, **FIT),
    "evaluate": lambda job: job.evaluate(X, Y),
    "predict": lambda job: job.predict(X),
    "save": lambda job: job.save("never written"),
    "net": lambda job: job.net,
    "keep_weights": lambda job: job.keep_weights("mine"),
    "restore_weights": lambda job: job.restore_weights("first"),
}


def refuses(job: Trainer, words: str) -> None:
    for use in NEEDS_A_STATE.values():
        with pytest.raises(RuntimeError, match=f"cut in two by {words}, .*trainer.load"):
            use(job)


def cut_behind(backend: Backend, call: int, error: BaseException) -> Trainer:
    """A Trainer whose compiled step raises in that call, when it has done its work."""
    cutting, calls = copy.copy(backend), []
    cutting.steps_per_call = 1

    def compile_and_count(step: Any) -> Any:
        run = backend.compile(step)

        def counted(*args: Any) -> Any:
            found = run(*args)
            calls.append(1)
            if len(calls) == call:
                raise error
            return found

        return counted

    cutting.compile = compile_and_count
    return trainer(cutting)


class Losing(OneByOne):
    """A backend whose runner may lose the losses of its steps."""

    loses = False

    def compile(self, step: Any) -> Any:
        run = super().compile(step)

        def losing(*args: Any) -> Any:
            state, found = run(*args)
            return state, found[:0] if self.loses else found

        return losing


def test_a_state_whose_losses_are_wrong_is_not_gone_on_from() -> None:
    """It is ahead of its place too, though nothing was written over."""
    job = trainer(backend := Losing())
    job.fit(X, Y, **FIT)
    job.keep_weights("first")
    backend.loses = True
    with pytest.raises(TypeError, match=r"gave losses of shape \(0,\)"):
        job.fit(X, Y, **FIT)
    refuses(job, "TypeError")


@pytest.mark.parametrize("error", [SystemExit(143), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_a_state_that_is_ahead_of_its_place_is_not_gone_on_from(
    backend: Backend, tmp_path: Path, error: BaseException
) -> None:
    job = cut_behind(backend, 14, error)
    job.fit(X, Y, **FIT)
    job.keep_weights("first")
    job.save(tmp_path / "run")
    with pytest.raises(type(error)):
        job.fit(X, Y, epochs=EPOCHS, **FIT)
    if backend.name == "strict":  # whose steps make new states
        job.fit(X, Y, epochs=EPOCHS - job.epoch, **FIT)
    else:
        refuses(job, type(error).__name__)
        job.load(tmp_path / "run")
        job.fit(X, Y, epochs=EPOCHS - 1, **FIT)
    assert_same_run(job, stayed(backend))


def test_a_step_that_ends_within_the_optimizer_is_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "wanted", lambda: False)  # loops of Numba raise nothing
    factor = [1.0] * 12

    def batches(seed: int, epoch: int) -> Any:
        return ((f * X[:8].astype("float32"), X[:8, :1]) for f in factor)

    job = Trainer(nn.Linear(4, 1), losses.mse, optim.Adam(), backend="numpy")
    job.fit(batches)
    job.save(tmp_path / "run")
    job.keep_weights("first")
    factor[7] = 3e10
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        job.fit(batches)
    refuses(job, "FloatingPointError")
    factor[7] = 1.0
    job.load(tmp_path / "run")
    whole = Trainer(nn.Linear(4, 1), losses.mse, optim.Adam(), backend="numpy")
    assert job.fit(batches).step_losses == whole.fit(batches, epochs=2).step_losses


class Fails(nn.Module):
    """Fails when it is told to, and reads a number, so that no step of it is captured."""

    def __init__(self, *, reads: bool) -> None:
        self.only = nn.Linear(4, 2)
        self.reads = reads
        self.at: list[int] = []
        self.passes: list[int] = []

    def forward(self, x: Any) -> Any:
        if self.training:
            self.passes.append(1)
            if len(self.passes) in self.at:
                raise OSError("no such file")
        return self.only(x) * (1 if not self.reads or float(x[0, 0]) else 2)


@pytest.mark.filterwarnings("ignore:this training step cannot be captured:RuntimeWarning")
@pytest.mark.parametrize("name", ["numpy", "torch", "strict"])
@pytest.mark.parametrize("reads", [False, True])
def test_a_layers_own_error_leaves_what_was_there(name: str, *, reads: bool) -> None:
    backend = get_backend(name) if name != "torch" else pytest.importorskip("torch") and "torch"
    layers = Fails(reads=reads), Fails(reads=reads)
    jobs = [trainer(backend, net=net, device="cpu") for net in layers]
    layers[0].at += [2, 3, 12] if reads or name != "numpy" else [2, 3]
    for job in jobs:
        job.predict(X)  # so that the first fit is not begun anew
        while job.epoch < EPOCHS:
            try:
                job.fit(X, Y, **FIT)
            except OSError:
                job.keep_weights("whole")
    assert_same_run(*jobs)


def test_an_error_of_a_replay_before_it_writes_leaves_what_was_there() -> None:
    step, state, (x, _) = start(optim.Adam(0.01))
    labels = DATA[1].copy()
    labels[40:48] = 7
    run = NUMPY.compile(step)
    state, _ = run(state, (x, labels), np.arange(40).reshape(5, 8))
    before = overwrite_count()
    with pytest.raises(ValueError, match="labels"):
        run(state, (x, labels), np.arange(40, 48)[None])
    assert overwrite_count() == before
    run(state, (x, labels), np.arange(8)[None])
    assert overwrite_count() > before


def test_what_was_said_of_a_write_that_failed_is_taken_back() -> None:
    before = overwrite_count()
    overwriting()
    overwriting()
    nothing_written()
    assert overwrite_count() == before + 1


class Rolls(nn.Module):
    """Its random numbers are in no capture."""

    def __init__(self) -> None:
        self.only = nn.Linear(4, 2)
        self.dice = [np.random.default_rng(0)]

    def forward(self, x: Any) -> Any:
        return self.only(x) * float(self.dice[0].random())


def test_a_warning_that_is_an_error_comes_between_steps(tmp_path: Path) -> None:
    job = trainer(net=Rolls())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="its replay computed other results"):
            job.fit(X, Y, **FIT)
        job.save(tmp_path / "run")
        assert int(job._run.state["step"][0]) == len(job.history.step_losses) == 3
        assert len(job.fit(X, Y, **FIT).step_losses) == 6


def test_steps_that_must_be_one_program_are_refused_again_and_again() -> None:
    job = trainer(net=Rolls(), compile="require")
    for _ in range(2):
        with pytest.raises(NotCompiledError, match="its replay computed other results"):
            job.fit(X, Y, epochs=3, **FIT)


class Cut(list):
    """A list to which an exception comes as soon as it was written to, once."""

    whole = False

    def __setitem__(self, place: Any, values: Any) -> None:
        super().__setitem__(place, values)
        if not self.whole:
            self.whole = True
            raise SystemExit


def test_losses_that_are_read_twice_are_kept_once() -> None:
    unread, history = Unread(), History()
    unread.add(0, lambda: np.asarray([3.0, 2.0]))
    unread.add(2, lambda: np.asarray([1.0]))
    history.step_losses = Cut()
    with pytest.raises(SystemExit):
        unread.read(history, 0)
    unread.read(history, 0)
    assert history.step_losses == [3.0, 2.0, 1.0]


def test_an_epoch_that_is_written_down_twice_is_one() -> None:
    history = History()
    for numbers, epoch in (({"a": 1.0}, 0), ({"a": 9.0}, 1), ({"a": 2.0, "b": 3.0}, 1)):
        history.record(numbers, epoch)
    assert history["a"] == [1.0, 2.0]
    np.testing.assert_equal(history["b"], [np.nan, 3.0])
