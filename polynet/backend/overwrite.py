"""What a training step may write over: the state that its runner keeps for it.

An optimizer allows this by its `consumes`. A runner whose state nobody else holds wraps the step
in `allow_overwrite`. A kernel asks `may_overwrite` before it writes. Code that writes calls
`overwriting()` first: a Trainer compares `overwrite_count` before and after a step, and so knows
whether an exception left it a whole state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from polynet import tree
from polynet.backend.contract import Array

_running = threading.local()


def allow_overwrite(step: Callable[[Any, Any, Array], Any]) -> Callable[[Any, Any, Array], Any]:
    """The step, with leave for its optimizer's kernel to write the new state over the old one.

    It is for a runner that gives the step a state nobody else holds. A step whose `consumes` is
    false still reads the old state later, and is returned as it is.
    """
    if not getattr(step, "consumes", False):
        return step

    @wraps(step)
    def run(state: Any, data: Any, rows: Array) -> Any:
        before: frozenset[int] = getattr(_running, "overwritable", frozenset())
        _running.overwritable = frozenset(id(leaf) for leaf in tree.leaves(state))
        try:
            return step(state, data, rows)
        finally:
            _running.overwritable = before

    return run


def may_overwrite(arrays: Iterable[Array]) -> bool:
    """Whether a kernel may write over `arrays`: they are state of the step in this thread.

    If so, the kernel is assumed to write: `overwriting` is called for it.
    """
    allowed = getattr(_running, "overwritable", frozenset()) >= {id(a) for a in arrays}
    if allowed:
        overwriting()
    return allowed


def overwriting() -> None:
    """Say that the state is about to be written over; it is called before the first write.

    An exception after this call leaves neither the state before the step nor the one after it.
    """
    _running.writes = overwrite_count() + 1


def nothing_written() -> None:
    """Take the last `overwriting` back: the work that was to write failed, and wrote nothing."""
    _running.writes = overwrite_count() - 1


def overwrite_count() -> int:
    """How many times this thread began to write over a state; a step that writes raises it."""
    writes: int = getattr(_running, "writes", 0)
    return writes


@contextmanager
def left_alone() -> Iterator[None]:
    """A context in which `overwriting` does not count: the state is not changed, or is restored."""
    before = overwrite_count()
    try:
        yield
    finally:
        _running.writes = before
