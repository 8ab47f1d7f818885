"""`compile` on NumPy: the step is captured, compared once with the step itself, and replayed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np

from polynet import tree
from polynet.backend import (
    Array,
    Backend,
    StaticRunner,
    allow_overwrite,
    left_alone,
    not_captured,
)
from polynet_numpy import compiled
from polynet_numpy.capture import Capture, Captured, active
from polynet_numpy.optimizers import SMALL
from polynet_numpy.pool import Pool

Step = Callable[[Any, Any, Array], tuple[Any, Array]]
INNER = ("polynet_numpy", "numpy", "array_api_compat")
"""Packages whose lines are not shown to a user."""


def runner(backend: Backend, step: Step) -> StaticRunner:
    """What `Backend.compile` returns."""
    steps = _Steps(step, backend.xp)
    return StaticRunner(
        backend, steps, capture=steps.capture, memory=_memory, write=_write,
        copy_state=side_by_side, required=steps.required, inner=INNER,
    )  # fmt: skip


class _Steps:
    """A step that is taken as usual, or captured while a capture is going on."""

    def __init__(self, step: Step, xp: Any) -> None:
        self._step = step
        self._xp = xp
        self.required = getattr(step, "required", False)
        self._pool = Pool()
        self._storage: list[np.ndarray] = []
        self._rows = np.empty(0)
        self._expected: list[np.ndarray] | None = None

    def __call__(self, state: Any, data: Any, rows: np.ndarray) -> tuple[Any, Array]:
        if active() is not None:
            return self._captured(state, data, rows)
        if self._expected is None:
            return self._step(state, data, rows)
        self._storage, self._rows = tree.leaves(state), rows
        before = list(map(np.array, self._storage))  # a user's own step may write over it
        try:
            new, loss = self._step(tree.map(lambda a: a, state), data, rows)
            places = set(map(_memory, self._storage))
            found = tree.leaves(tree.map(lambda _, a: a, state, new))  # in the order of the state
            self._expected = [np.array(a) if _memory(a) in places else a for a in [*found, loss]]
        finally:
            for kept, a in zip(self._storage, before, strict=True):
                kept[...] = a
        return state, loss

    def _captured(self, state: Any, data: Any, rows: np.ndarray) -> tuple[Any, Array]:
        """The step with `Captured` arrays.

        In the state returned, a leaf that the step wrote over, or left in place, is the plain array
        itself. A leaf that was moved to another place stays `Captured`, so that each replay moves
        the values of that moment. Only here may the step write over the state. The comparison with
        the plain step, which writes to new arrays, would show a gradient that lay in the state's
        memory and was overwritten.
        """
        step = allow_overwrite(self._step)
        new, loss = step(*tree.map(lambda a: Captured(a, None), (state, data, rows)))
        stays = lambda kept, a: kept if getattr(a, "array", None) is kept else a  # noqa: E731
        return tree.map(stays, state, new), loss

    def capture(self, step: Callable[[], None]) -> Callable[[], object]:
        """Capture the step, and return its replay; this leaves the state as it is."""
        return _Replay(lambda: self._trial(step), step, required=self.required)

    @left_alone()
    def _trial(self, step: Callable[[], None]) -> _Trial:
        """The capture of the step, and the result of the step on the state as it is now.

        The step is captured with other rows than those of the result, so that the comparison shows
        a capture that holds values of the batch as constants.
        """
        self._expected = []
        try:
            step()
        finally:
            expected, self._expected = self._expected, None
        rows = np.array(self._rows)
        try:
            self._rows[...] = np.resize(rows[: -(-len(rows) // 2)], rows.shape)
            capture = self._capture(step)
        except _NotCaptured:  # a step may fail on half of the samples, each given twice
            self._rows[...] = rows
            capture = self._capture(step)
        finally:
            self._rows[...] = rows
        return _Trial(capture, [*self._storage, capture.written[0]], expected)

    def _capture(self, step: Callable[[], None]) -> Capture:
        capture = Capture(self._pool, self._xp)
        try:
            with capture.on():
                step()
        except Exception as error:  # the plain step did not raise it, so capturing did
            raise _NotCaptured(f"{type(error).__name__}: {error}") from error
        return capture


class _NotCaptured(RuntimeError):
    """A step was taken, but not captured."""


class _Trial(NamedTuple):
    """A capture, the storage of its results (the loss last), and the results to expect at first."""

    capture: Capture
    results: list[np.ndarray]
    expected: list[np.ndarray]

    def passed(self) -> bool:
        """Whether the replay gave what the step gave, to the last bit."""
        return all(map(_same, self.results, self.expected))


class _Replay:
    """A captured step, whose first replay is compared with the step itself."""

    def __init__(
        self, prepare: Callable[[], _Trial], step: Callable[[], None], *, required: bool
    ) -> None:
        self._prepare = prepare
        self._required = required
        self._step = step
        self._trial: _Trial | None = None  # until the first replay has been compared
        self._why = ""  # the reason for giving up, until a warning has said it
        self._take_over(prepare())

    def _take_over(self, trial: _Trial) -> None:
        self._trial = trial
        self._calls = trial.capture.calls
        self._elements = trial.capture.elements
        self._by_loops = compiled.wanted()
        self._cut = False

    def __call__(self) -> None:
        if not self._by_loops:
            compiled.count_without_numba(self._elements)
        if self._cut or (not self._by_loops and compiled.wanted()):
            try:
                self._take_over(self._prepare())
            except _NotCaptured as error:
                self._give_up(str(error))
        if self._why:
            self._say_why()
        trial, self._trial = self._trial, None
        self._cut = trial is not None  # after an error in the first replay, the trial is made again
        for call in self._calls:
            call()
        if trial is not None:
            self._cut = False
            if not trial.passed():
                for a, b in zip(trial.results, trial.expected, strict=True):
                    a[...] = b
                self._give_up("from the same numbers its replay computed other results")

    def _give_up(self, why: str) -> None:
        """Take the step one operation at a time from now on.

        The warning is given before the next step begins: a user may turn it into an error, which
        would come here between the writing of the state and its return.
        """
        self._calls, self._trial, self._cut = [self._step], None, False
        self._by_loops, self._why = True, why

    def _say_why(self) -> None:
        """Warn once of giving up, or raise at every step where a capture is required."""
        why, self._why = self._why, self._why if self._required else ""
        not_captured(
            f"{why}. A step that can be captured depends on its state and data alone: random "
            "numbers come from layers such as nn.Dropout, and nothing in Python changes from step "
            "to step",
            required=self._required,
        )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have equal values; the signs of zeros and NaNs do not matter."""
    return a.tobytes() == np.asarray(b).tobytes() or (
        a.dtype.kind in "fc" and np.array_equal(a, b, equal_nan=True)
    )


def side_by_side(branch: Any) -> Any:
    """A copy of a state, in which the small arrays of each branch are parts of one vector."""
    if not isinstance(branch, dict):
        return tree.map(np.array, branch)
    copy = {
        name: np.array(below, order="C") if isinstance(below, np.ndarray) else side_by_side(below)
        for name, below in branch.items()
    }
    small = {n: a for n, a in copy.items() if isinstance(a, np.ndarray) and a.size <= SMALL}
    if len({a.dtype for a in small.values()}) == 1:
        vector, start = np.concatenate([a.reshape(-1) for a in small.values()]), 0
        for name, a in small.items():
            copy[name] = vector[start : start + a.size].reshape(a.shape)
            start += a.size
    return copy


def _write(array: np.ndarray, other: Any) -> None:
    capture = active()
    if capture is None:
        array[...] = other
    else:
        capture.write(array, other)


def _memory(array: Any) -> Hashable:
    """The address at which the memory of an array's base begins."""
    array = array.array if type(array) is Captured else array
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return array.__array_interface__["data"][0]
