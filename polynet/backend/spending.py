"""What a training step may write over: the state that its runner keeps for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
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
    """Whether a kernel may write over these, as the state of the step that runs in this thread."""
    return getattr(_running, "owned", frozenset()) >= {id(a) for a in arrays}
