"""A run of training: the network and its place, its state, and how far it has come in the data."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from polynet.backend import Array, Backend, overwrite_count
from polynet.data import Place
from polynet.data.feeds import Call
from polynet.data.place import place_for
from polynet.errors import unknown
from polynet.history import History, Position
from polynet.nn import Module
from polynet.optim import Optimizer
from polynet.optim.checks import text_of
from polynet.scores import Forward, Loss
from polynet.step import (
    Kept,
    State,
    initial_state,
    make_forward,
    make_step,
    weights_of,
)
from polynet.tree import map as tree_map
from polynet.unread import Unread

Wanted = tuple[str | Backend | None, str | None, str | None]
"""The backend, the device and the dtype that were asked for."""


class Run:
    """The network, its state and its history, which a `Trainer` holds.

    A run has begun once the network has a `place` (backend, device and dtype) and its parameters
    there. `state` is the state that a step takes and returns. With `required`, steps must run as
    one program.
    """

    def __init__(
        self,
        net: Module,
        loss: Loss,
        optimizer: Optimizer,
        seed: int,
        wanted: Wanted,
        *,
        required: bool,
    ) -> None:
        self.loss = loss
        self.optimizer = optimizer
        self.seed = seed
        self.history = History()
        self._wanted = wanted
        self._required = required
        self._part: int | None = None  # the most samples at a time, for which `_steps` is compiled
        self._busy = threading.RLock()
        self._reset(net)

    def _reset(self, net: Module) -> None:
        """Make this the run before its first call; `net` is the network it starts from."""
        self.initial_net = net  # as given; once there is a place, with its initial parameters
        self.place: Place | None = None
        self.state: State = {}
        self.position = Position()
        self.kept: Kept = {}
        self.unread = Unread()
        self.history.step_weights.clear()
        self._copy: Module | None = None
        self._steps: Callable[..., Any] | None = None
        self._forward: Callable[..., Any] | None = None
        self._cut_by = ""  # the error that ended a step that had begun to write over the state

    # The place of the network, and the thread that uses it

    @contextmanager
    def ready(self, x: Any, *, whole: bool = True) -> Iterator[Place]:
        """The place of the network; the first call chooses it, and draws the parameters.

        The place is the one asked for, else that of the data `x`. If the first call fails before a
        step was taken, the run is as it was before, without a place.
        """
        with self.at_work():
            first, net = self.place is None, self.initial_net
            try:
                if first:
                    self._settle(x)
                with self.at_place(whole=whole) as place:
                    yield place
            except Exception:
                if first and not self.history.step_losses:
                    self._reset(net)
                raise

    def _settle(self, x: Any) -> None:
        place = place_for(self.initial_net.parameters(), x, *self._wanted)
        backend = place.backend
        name = next(n for n, d in backend.devices().items() if d == place.device)
        net = self.initial_net.init(self.seed, backend=backend, device=name, dtype=place.dtype)
        with place.active():
            self.state = initial_state(net, self.optimizer, self.seed)
        self.initial_net, self.place = net, place
        self._forward = backend.jit(make_forward(net, backend.xp))

    @contextmanager
    def at_place(self, *, whole: bool = True) -> Iterator[Place]:
        """A context in which new arrays are made at the network's place, and no thread interferes.

        With `whole`, raises RuntimeError if a step was cut in two. A caller that replaces the whole
        state passes `whole=False`.
        """
        assert self.place is not None
        with self.at_work(), self.place.active():
            if whole and self._cut_by:
                raise RuntimeError(
                    f"a step was cut in two by {self._cut_by}, which left a state that is half old "
                    "and half new; load the run that was saved last, by trainer.load(path), or "
                    "begin anew with another Trainer"
                )
            yield self.place

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A context that keeps other threads out; this one may enter it again, as callbacks do."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(
                "this Trainer is at work in another thread; wait until that thread has finished, "
                "or make one Trainer for each thread"
            )
        try:
            yield
        finally:
            self._busy.release()

    # The network

    def forward(self) -> Forward:
        """The predictions of the network as it is now; its streams draw the same each time."""
        state, forward = self.state, self._forward
        assert forward is not None
        arrays, step = {**state["params"], **state["buffers"]}, state["step"] * 0
        return lambda x, first: forward(arrays, state["keys"], step, first, x)

    def net(self) -> Module:
        """A copy of the network as it is now, which further steps do not change."""
        if self.place is None:
            return self.initial_net
        if self._copy is None:
            with self.at_place():
                arrays = {**self.state["params"], **self.state["buffers"]}
                self._copy = self.initial_net.bind(tree_map(self.copied, arrays))
        return self._copy

    def copied(self, array: Array) -> Array:
        """A copy of the array, on the network's backend."""
        assert self.place is not None
        return self.place.backend.xp.asarray(array, copy=True)

    # Steps

    def set_loss(self, loss: Loss) -> None:
        """Train with another loss from here on: the step is compiled anew for it."""
        with self.at_work():
            self.loss, self._steps = loss, None

    def begin(self, size: int, accumulate: int, samples: int) -> None:
        """Prepare for steps of `size` samples in `accumulate` parts, of data that may be new.

        Raises ValueError if they cannot finish an epoch of `samples` samples that was interrupted.
        """
        self.position.check(size, samples)
        part = size // accumulate if accumulate > 1 else None
        if part != self._part:
            self._steps, self._part = None, part
        getattr(self._compiled(), "refresh", lambda: None)()

    def _compiled(self) -> Callable[..., Any]:
        """The compiled step; it is compiled where none is kept."""
        if self._steps is None:
            assert self.place is not None
            backend = self.place.backend
            step = make_step(self.initial_net, self.loss, self.optimizer, backend.xp, self._part)
            step.required = self._required  # type: ignore[attr-defined]  # as the contract says
            self._steps = _runner(backend, step)
        return self._steps

    def take(self, call: Call, size: int, samples: int) -> None:
        """Take the steps of a call, of `size` samples each, in an epoch of `samples` samples."""
        assert self.place is not None
        steps, backend, count = self._compiled(), self.place.backend, len(call.weights)
        self._copy = None
        with self._changing_state():
            self.state, launched = steps(self.state, call.data, call.rows)
            _check_losses(launched, count, backend)
            done = self.position.batches + count
            self.position = Position(self.position.epoch, done, size, samples)
            self.unread.add(len(self.history.step_weights), backend.to_host_later(launched))
            self.history.step_weights += call.weights
        self.read(keep=1)

    def read(self, *, keep: int = 0) -> None:
        """Fetch the losses of all calls but the last `keep`; raise NotFiniteError for a bad one."""
        self.unread.read(self.history, self.position.epoch, keep=keep)

    def epoch_loss(self) -> float:
        """The weighted mean of the losses of this epoch's steps; 0 if all weights are 0."""
        self.read()
        done = self.position.batches
        if not done:
            raise ValueError(
                f"the data gave no batch in epoch {self.position.epoch}; expected at least one"
            )
        values, weights = self.history.step_losses[-done:], self.history.step_weights[-done:]
        return math.fsum(map(operator.mul, values, weights)) / (math.fsum(weights) or 1.0)

    def end_epoch(self, numbers: dict[str, float]) -> None:
        """Keep the numbers of this epoch, and go on to the next."""
        self.history.record(numbers, self.position.epoch)
        self.position = Position(self.position.epoch + 1)

    @contextmanager
    def _changing_state(self) -> Iterator[None]:
        """A context for changing the state; an exception that leaves it half changed is noted."""
        state, writes = self.state, overwrite_count()
        self._cut_by = "an exception"
        try:
            yield
        except BaseException as error:
            as_it_was = self.state is state and overwrite_count() == writes
            self._cut_by = "" if as_it_was else type(error).__name__
            raise
        self._cut_by = ""

    # Replacing the state

    def replace(self, state: State) -> None:
        """Go on with a changed state, which captured steps copy into their own storage."""
        with self._changing_state():
            self.state = getattr(self._steps, "replace", lambda _, new: new)(self.state, state)

    def keep_weights(self, name: str) -> None:
        """Keep a copy of the weights as they are now, under a name."""
        if self.place is None:
            raise RuntimeError("the Trainer has no weights yet: they are drawn at the first fit")
        with self.at_place():
            self.kept[name] = self.position.epoch, tree_map(self.copied, weights_of(self.state))

    def restore_weights(self, name: str) -> None:
        """Go back to the weights that were kept under a name."""
        if name not in self.kept:
            raise KeyError(unknown("name of kept weights", name, self.kept))
        with self.at_place():
            self.replace({**self.state, **tree_map(self.copied, self.kept[name][1])})
            self._copy = None

    def take_over(self, saved: tuple[State, Kept, History, Position]) -> None:
        """Go on where a saved run stopped."""
        with self._changing_state():
            self.state, self.kept, self.history, self.position = saved
            self.unread.clear()
            self._copy = None

    def identity(self) -> dict[str, Any]:
        """The settings that must be equal for one run to continue another."""
        assert self.place is not None
        kind = type(self.optimizer).__name__
        return {
            "seed": int(self.seed),
            "dtype": self.place.dtype,
            "optimizer": kind,
            **{f"{kind}'s {name}": text_of(value) for name, value in vars(self.optimizer).items()},
        }


def _runner(backend: Backend, step: Callable[..., Any]) -> Callable[..., Any]:
    """The backend's runner, which takes several of these steps in one call."""
    run = backend.compile(step)
    if not callable(run):
        raise TypeError(
            f"compile of backend {backend.name!r} returned a {type(run).__name__}; expected a "
            "function run(state, data, rows) -> (state, losses)"
        )
    return run


def _check_losses(losses: Array, steps: int, backend: Backend) -> None:
    """Raise TypeError unless a runner returned one loss for each step."""
    if tuple(losses.shape) != (steps,):
        raise TypeError(
            f"a run of {steps} steps on {backend.name!r} gave losses of shape "
            f"{tuple(losses.shape)}; compile returns a function that gives one loss for each step, "
            "in an array of shape (steps,)"
        )
