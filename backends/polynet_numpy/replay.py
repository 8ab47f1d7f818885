"""`compile` on NumPy: the step is captured, compared once with the step itself, and replayed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np

from polynet import tree
from polynet.backend import (
    Array,
    Backend,
    DifferentReplayError,
    StaticRunner,
    StaticStep,
    allow_overwrite,
    first_error,
    left_alone,
    report_uncaptured,
    uncaptured_reason,
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
    required, begin = getattr(step, "required", False), partial(Capture, Pool(), backend.xp)

    def take(state: Any, data: Any, rows: Array) -> tuple[Any, Array]:
        return (step if active() is None else partial(_on_captured, step))(state, data, rows)

    def capture(static: StaticStep) -> _Replay:
        return _Replay(static, lambda: _checked(step, static, begin), required=required)

    return StaticRunner(
        backend, take, capture=capture, memory=_memory, write=_write,
        copy_state=side_by_side, required=required, inner=INNER,
    )  # fmt: skip


def _on_captured(step: Step, state: Any, data: Any, rows: np.ndarray) -> tuple[Any, Array]:
    """The step with `Captured` arrays.

    In the state returned, a leaf that the step wrote over, or left in place, is the plain array
    itself. A leaf that was moved to another place stays `Captured`, so that each replay moves the
    values of that moment. Only here may the step write over the state. The comparison with the
    plain step, which writes to new arrays, would show a gradient that lay in the state's memory and
    was overwritten.
    """
    given = tree.map(lambda a: Captured(a, None), (state, data, rows))
    new, loss = allow_overwrite(step)(*given)
    stays = lambda kept, a: kept if getattr(a, "array", None) is kept else a  # noqa: E731
    return tree.map(stays, state, new), loss


@left_alone()
def _checked(step: Step, static: StaticStep, begin: Callable[[], Capture]) -> Capture:
    """The capture of a step whose replay gave what the step gives, to the last bit.

    All storage is left as it was. Raises RuntimeError if the step cannot be captured.
    """
    new, loss = step(side_by_side(static.state), static.data, static.rows)
    expected = [*tree.leaves(tree.map(lambda _, a: a, static.state, new)), loss]
    capture = _captured(static, begin)
    results = [*tree.leaves(static.state), static.loss]
    with _restored(results):
        for call in capture.calls:
            call()
        if not all(map(_same, results, expected)):
            raise DifferentReplayError(
                "from the same numbers its replay computed other results. A step that can be "
                "captured depends on its state and data alone: random numbers come from layers "
                "such as nn.Dropout, and nothing in Python changes from step to step"
            )
    return capture


def _captured(static: StaticStep, begin: Callable[[], Capture]) -> Capture:
    """The capture of a step with other rows: half of the samples, each of them twice.

    So the comparison with the step shows a capture that holds values of the batch as constants. A
    step that fails on such rows is captured with its own.
    """

    def attempt() -> Capture:
        capture = begin()
        with capture.on():
            static()
        return capture

    rows = static.rows
    with suppress(Exception), _restored([rows]):
        rows[...] = np.resize(rows[: -(-len(rows) // 2)], rows.shape)
        return attempt()
    try:
        return attempt()
    except Exception as error:  # the plain step did not raise it, so capturing did
        raise RuntimeError("the step cannot be captured") from error


@contextmanager
def _restored(arrays: list[np.ndarray]) -> Iterator[None]:
    """A context at whose end the arrays have the values that they had at its beginning."""
    before = list(map(np.array, arrays))
    try:
        yield
    finally:
        for array, values in zip(arrays, before, strict=True):
            array[...] = values


class _Replay:
    """A captured step, which is captured anew once compiled loops are wanted."""

    def __init__(
        self, static: StaticStep, capture: Callable[[], Capture], *, required: bool
    ) -> None:
        self._static = static
        self._capture = capture
        self._required = required
        self._take_up()

    def _take_up(self) -> None:
        by_loops = compiled.wanted()
        capture = self._capture()
        self._calls = capture.calls
        self._elements = capture.elements
        self._by_loops = by_loops

    def __call__(self) -> None:
        if not self._by_loops:
            compiled.count_without_numba(self._elements)
            if compiled.wanted():
                self._capture_anew()
        for call in self._calls:
            call()

    def _capture_anew(self) -> None:
        """Capture with compiled loops; where that fails, go on one operation at a time."""
        try:
            self._take_up()
        except RuntimeError as error:
            if not self._required:
                self._calls, self._by_loops = [self._static], True
            reason = uncaptured_reason(first_error(error), INNER)
            report_uncaptured(reason, required=self._required)


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
