"""Training steps over memory that stays where it is, so that one can be recorded and replayed."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from polynet import tree
from polynet.backend.contract import Array, Backend

WARM_UP = 3
"""Steps before a recording: libraries load kernels and take workspace in the first ones."""


@dataclass
class _Launch:
    """What steps of one batch shape share: where the rows and the loss stand, and the replay."""

    rows: Array
    loss: Array = None
    steps: int = 0
    replay: Callable[[], object] | None = None


class StaticRunner:
    """What `Backend.compile` returns where a device can record work and replay it.

    `capture(f)` records the work that `f()` starts, without doing it, and returns a function
    that does it; where that is impossible it raises RuntimeError, and the steps go on one
    operation at a time. A recording knows addresses, not arrays. So the state has storage of its
    own, into which each step ends by copying the new one, and each shape of rows has a place
    for the rows and one for the loss. Data stays where it is; other data, or a state that is not
    the one returned last, is recorded anew, and whoever holds the earlier state keeps it.

    `memory(array)` is equal for arrays that share memory, and `array[...] = other` must write.
    """

    def __init__(
        self,
        backend: Backend,
        step: Callable[[Any, Any, Array], tuple[Any, Array]],
        *,
        capture: Callable[[Callable[[], None]], Callable[[], object]],
        memory: Callable[[Array], Hashable],
    ) -> None:
        self._backend = backend
        self._step = step
        self._capture = capture
        self._memory = memory
        self._state: Any = None
        self._own: list[tuple[str, int]] | None = None
        self._data: list[weakref.ref] = []
        self._launches: dict[Hashable, _Launch] = {}

    def __call__(self, state: Any, data: Any, rows: Array) -> tuple[Any, Array]:
        self._take(state, data)
        steps = range(rows.shape[0])
        losses = [self._copy(self._advance(data, rows[i, ...])) for i in steps]
        return self._state, self._backend.xp.stack(losses)

    def _take(self, state: Any, data: Any) -> None:
        """Forget the recordings, unless they are of this state and these data."""
        if _identities(state) != self._own:
            self._state = tree.map(self._copy, state)
            self._own = _identities(self._state)
            self._launches.clear()
        arrays = tree.leaves(data)
        if len(arrays) != len(self._data) or not all(
            known() is a for known, a in zip(self._data, arrays, strict=True)
        ):
            self._data = [weakref.ref(a) for a in arrays]
            self._launches.clear()

    def _advance(self, data: Any, rows: Array) -> Array:
        """One step; its loss, where the next step will put its own."""
        key = tuple(rows.shape), rows.dtype
        if key not in self._launches:
            self._launches[key] = _Launch(self._copy(rows))
        launch = self._launches[key]
        launch.rows[...] = rows
        launch.steps += 1
        if launch.replay is None:
            if launch.steps <= WARM_UP:
                self._run(data, launch)
                return launch.loss
            launch.replay = self._recorded(lambda: self._run(data, launch))
        launch.replay()
        return launch.loss

    def _recorded(self, run: Callable[[], None]) -> Callable[[], object]:
        try:
            return self._capture(run)
        except RuntimeError as error:
            first = error.__context__ or error  # ending a recording that failed fails too
            warnings.warn(
                f"this training step cannot be recorded and replayed as a whole, so it runs one "
                f"operation at a time, which is slower: {type(first).__name__}: {first}. A step "
                "that can be recorded reads no array's value: no float(x), no `if` on one",
                RuntimeWarning,
                stacklevel=5,
            )
            self._capture = lambda run: run
            return run

    def _run(self, data: Any, launch: _Launch) -> None:
        """A step from storage to storage. Warm-up steps are these too, and so count."""
        new, loss = self._step(self._state, data, launch.rows)
        if launch.loss is None:
            launch.loss = self._copy(loss)
        else:
            launch.loss[...] = loss  # before the state changes, of which it may be a part
        self._commit(new)

    def _commit(self, new: Any) -> None:
        """Copy a new state into the storage.

        A leaf that stands in the storage of another is copied out of it first.
        """
        pairs: list[tuple[Array, Array]] = []
        tree.map(lambda kept, leaf: pairs.append((kept, leaf)), self._state, new)
        for (path, kept), (_, leaf) in zip(tree.named_leaves(self._state), pairs, strict=True):
            if leaf.shape != kept.shape or leaf.dtype != kept.dtype:
                raise TypeError(
                    f"the training step turned {path!r} of its state from {kept.dtype} "
                    f"{tuple(kept.shape)} into {leaf.dtype} {tuple(leaf.shape)}; a step returns "
                    "the structure, shapes and dtypes it was given"
                )
        storage = {self._memory(kept) for kept, _ in pairs}
        moved = [
            (kept, self._copy(leaf) if self._memory(leaf) in storage else leaf)
            for kept, leaf in pairs
            if leaf is not kept
        ]
        for kept, leaf in moved:
            kept[...] = leaf

    def _copy(self, array: Array) -> Array:
        return self._backend.xp.asarray(array, copy=True)


def _identities(state: Any) -> list[tuple[str, int]]:
    return [(path, id(leaf)) for path, leaf in tree.named_leaves(state)]
