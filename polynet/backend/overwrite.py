"""What a training step may write over: the state that its runner keeps for it.

An optimizer that `consumes` its state allows it, a runner gives the step a state that is
`over_its_own`, and a kernel asks by `may_overwrite`. Whoever writes says so, `overwriting()`, so
that a Trainer knows what an exception left: it compares the `overwrite_count`.
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


def over_its_own(step: Callable[[Any, Any, Array], Any]) -> Callable[[Any, Any, Array], Any]:
    """A step whose optimizer's kernel may write the next state over the one it is given.

    It is for a runner that gives the step a state nobody else holds. A step whose `consumes` is
    false reads that state later: it is returned as it is.
    """
    if not getattr(step, "consumes", False):
        return step

    @wraps(step)
    def run(state: Any, data: Any, rows: Array) -> Any:
        before: frozenset[int] = getattr(_running, "owned", frozenset())
        _running.owned = frozenset(id(leaf) for leaf in tree.leaves(state))
        try:
            return step(state, data, rows)
        finally:
            _running.owned = before

    return run


def may_overwrite(arrays: Iterable[Array]) -> bool:
    """Whether a kernel may write over these, as the state of the step that runs in this thread.

    It is taken to do so.
    """
    own = getattr(_running, "owned", frozenset()) >= {id(a) for a in arrays}
    if own:
        overwriting()
    return own


def overwriting() -> None:
    """Say that the state is written over from here on; whoever does so calls this before.

    What ends a step later leaves neither the state before it nor the one after.
    """
    _running.writes = overwrite_count() + 1


def nothing_written() -> None:
    """Take the last `overwriting` back: what was to write has failed, and wrote nothing."""
    _running.writes = overwrite_count() - 1


def overwrite_count() -> int:
    """How often this thread began to write over a state: more often than before, if a step did."""
    writes: int = getattr(_running, "writes", 0)
    return writes


@contextmanager
def left_alone() -> Iterator[None]:
    """Within it the state stays as it is, or is put back, whatever is said by `overwriting`."""
    before = overwrite_count()
    try:
        yield
    finally:
        _running.writes = before
