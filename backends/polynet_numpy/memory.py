"""The memory that a compiled training step uses again and writes over, which eager code never does.

Fresh memory is paid for page by page, when it is first touched. So a step takes its large results
from a pool of buffers, and writes new parameters over the old, where nothing else can see either.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from polynet import tree

SMALLEST = 1 << 15
"""Bytes from which a buffer is kept: below, the allocator itself has memory at hand."""
SMALL = 1 << 15
"""Elements up to which parameters lie in one vector, so that their number costs nothing."""


def _count(buffers: list[np.ndarray]) -> int:
    """How many references the first buffer has, seen from a loop over its list."""
    for buffer in buffers:
        return sys.getrefcount(buffer)
    return 0


UNUSED = _count([np.empty(1)])
"""The count of a buffer to which its list alone refers."""
COUNTED = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether counts say who refers to what: not without the global interpreter lock."""


class Memory:
    """What one run of training steps has for itself.

    A buffer of the pool is handed out again only when nothing refers to it any more, no array and
    no view of one. `owned` holds the arrays of the state, which nobody else has, by identity, and
    `vectors` those that lie in one vector, by the identities of all in their order.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[tuple[int, ...], Any], list[np.ndarray]] = {}
        self.owned: dict[int, np.ndarray] = {}
        self.vectors: dict[tuple[int, ...], np.ndarray] = {}

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        buffers = self._buffers.setdefault((shape, dtype), [])
        for buffer in buffers:  # two threads that look at once both count one more, and go on
            if sys.getrefcount(buffer) == UNUSED:
                return buffer
        buffer = np.empty(shape, dtype)
        if COUNTED:
            buffers.append(buffer)
        return buffer

    def own(self, state: Any) -> Any:
        """A copy of a state, which this run may write over."""
        self.owned.clear()
        self.vectors.clear()
        return self._copied(state)

    def _copied(self, branch: Any) -> Any:
        if not isinstance(branch, dict) or not all(type(a) is np.ndarray for a in branch.values()):
            if isinstance(branch, dict):
                return {name: self._copied(below) for name, below in branch.items()}
            return tree.map(np.array, branch)
        copy = {name: np.array(a, order="C") for name, a in branch.items()}
        small = [name for name, a in copy.items() if a.size <= SMALL]
        if small and len({copy[name].dtype for name in small}) == 1:
            vector = np.concatenate([copy[name].reshape(-1) for name in small])
            start = 0
            for name in small:
                stop = start + copy[name].size
                copy[name] = vector[start:stop].reshape(copy[name].shape)
                start = stop
            self.vectors[tuple(id(copy[name]) for name in small)] = vector
            self.owned[id(vector)] = vector
        self.owned.update((id(a), a) for a in copy.values())
        return copy


_active = threading.local()


def active() -> Memory | None:
    """The memory of the compiled step that runs in this thread, if one does."""
    return getattr(_active, "memory", None)


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array for a result, not initialised."""
    memory = active()
    if memory is None or math.prod(shape) * dtype.itemsize < SMALLEST:
        return np.empty(shape, dtype)
    return memory.empty(shape, dtype)


def writable(arrays: Iterable[np.ndarray]) -> bool:
    """Whether these are the running step's own, and nobody reads them once they are used here."""
    memory = active()
    return memory is not None and memory.owned.keys() >= set(map(id, arrays))


def apart(g: np.ndarray) -> np.ndarray:
    """A gradient, or a copy where it shares memory with the running step's state."""
    memory = active()
    if memory is None or (id(g) not in memory.owned and id(g.base) not in memory.owned):
        return g
    return np.array(g)


def one_vector(arrays: list[np.ndarray]) -> np.ndarray | None:
    """The vector that these arrays are, one after another, if the running step has one of them."""
    memory = active()
    return None if memory is None else memory.vectors.get(tuple(map(id, arrays)))


def runner(step: Callable[..., Any]) -> Callable[..., Any]:
    """What `Backend.compile` returns: one step after another, with memory of their own."""
    memory = Memory()
    overwrites = getattr(step, "consumes", False)
    last: Any = None

    def run(state: Any, data: Any, rows: np.ndarray) -> tuple[Any, np.ndarray]:
        nonlocal last
        if overwrites and state is not last:
            state = memory.own(state)
        before, _active.memory = active(), memory
        losses = []
        try:
            for batch in rows:
                state, loss = step(state, data, batch)
                losses.append(loss)
        finally:
            _active.memory = before
        last = state
        return state, np.asarray(losses)

    return run
