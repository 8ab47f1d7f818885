"""Training steps on memory at fixed addresses, so that they can be captured and replayed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import is_
from typing import Any

from polynet import tree
from polynet.backend.collector import collector_off
from polynet.backend.contract import Array, Backend, check_loss
from polynet.backend.overwrite import left_alone, overwriting
from polynet.backend.uncaptured import first_error, report_uncaptured, uncaptured_reason

WARM_UP = 3
"""Steps before a capture: in the first ones libraries load kernels and allocate workspace."""
KINDS = 8
"""How many kinds of data (structures, shapes, dtypes) have their captures kept."""


class ArrayRefs:
    """Arrays by weak references, which tell whether other arrays are the same objects."""

    def __init__(self, arrays: Iterable[Array] = ()) -> None:
        self._references = list(map(weakref.ref, arrays))

    def are(self, arrays: Sequence[Array]) -> bool:
        """Whether these are the same arrays, in the same order."""
        known = self.arrays()
        return len(known) == len(arrays) and all(map(is_, known, arrays))

    def arrays(self) -> list[Array | None]:
        """The arrays, with None in place of those that are gone."""
        return [reference() for reference in self._references]


@dataclass(frozen=True)
class StaticStep:
    """A step from storage to storage, which calling this takes: what `capture` is given.

    The arrays are the storage that it reads and writes; it ends by writing `state` and `loss`.
    """

    take: Callable[[], None]
    state: Any
    data: Any
    rows: Array
    loss: Array

    def __call__(self) -> None:
        self.take()


@dataclass
class _Launch:
    """What steps with rows of one shape share: storage for rows and loss, and the replay."""

    rows: Array
    loss: Array = None
    warm_ups: int = 0
    replay: Callable[[], object] | None = None


@dataclass
class _Data:
    """Data of one kind: the arrays given last, their storage, and the captures that read them.

    Data are read from the caller's arrays until other arrays of the same shapes come, as when
    batches are streamed. From then on all of them are copied into one storage, `stored`.
    """

    given: ArrayRefs
    structure: Hashable
    stored: Any = None
    launches: dict[Hashable, _Launch] = field(default_factory=dict)

    def holds(self, structure: Hashable, arrays: list[Array]) -> bool:
        return self.structure == structure and self.given.are(arrays)


def _assign(array: Array, other: Array) -> None:
    array[...] = other


class StaticRunner:
    """What `Backend.compile` returns where a device can capture work and replay it.

    `capture(f)` captures the work that `f()` starts, without doing it; `f` is a `StaticStep`. It
    returns a function that does the work, and that calls `overwriting()` before it writes. If the
    work cannot be captured, it raises RuntimeError. Then the steps run one operation at a time, or,
    where a capture is `required`, NotCompiledError is raised.

    A capture refers to addresses, not to arrays. So the state has storage of its own, and each step
    ends by copying the new state there. Each shape of rows has storage for the rows and the loss.
    Data are read from the caller's arrays until other data of the same shapes come: from then on
    such data are copied to storage too, and steps that read it are captured once. A state that is
    not the one returned last is copied to new storage, and steps are captured anew; the earlier
    state stays as it is for whoever holds it.

    `memory(array)` is equal for arrays that share memory. `write(array, other)` copies `other` into
    `array`. `copy_state(state)` returns a copy of a state, laid out as suits the library. `inner`
    names the packages of the plug-in and its library: the line that a warning shows to the user is
    outside of them.
    """

    def __init__(
        self,
        backend: Backend,
        step: Callable[[Any, Any, Array], tuple[Any, Array]],
        *,
        capture: Callable[[StaticStep], Callable[[], object]],
        memory: Callable[[Array], Hashable],
        write: Callable[[Array, Array], None] = _assign,
        copy_state: Callable[[Any], Any] | None = None,
        required: bool = False,
        inner: Sequence[str] = (),
    ) -> None:
        self._backend = backend
        self._step = step
        self._capture = capture
        self._memory = memory
        self._write = write
        self._required = required
        self._inner = inner
        self._copy_state = copy_state or (lambda state: tree.map(self._copy, state))
        self._state: Any = None
        self._returned = ArrayRefs()  # the leaves of `_state`
        self._data: dict[Hashable, _Data] = {}
        self._last: _Data | None = None

    def __call__(self, state: Any, data: Any, rows: Array) -> tuple[Any, Array]:
        known = self._take(state, data)
        data = data if known.stored is None else known.stored
        losses = [
            self._copy(self._advance(known.launches, data, rows[i, ...])[None])
            for i in range(rows.shape[0])
        ]
        return self._state, losses[0] if len(losses) == 1 else self._backend.xp.concat(losses)

    def refresh(self) -> None:
        """Copy the data again at the next call: the same arrays may hold other numbers by now."""
        self._last = None
        for known in self._data.values():
            if known.stored is not None:
                known.given = ArrayRefs()

    def replace(self, old: Any, new: Any) -> Any:
        """Copy `new` over `old`, which nobody needs any more, so that captures stay valid."""
        if not self._returned.are(tree.leaves(old)) or _kinds(new) != _kinds(old):
            return new
        self._commit(new)
        return self._state

    def _take(self, state: Any, data: Any) -> _Data:
        """The entry for these data; a state other than the one returned last clears all entries."""
        if self._state is None or not self._returned.are(tree.leaves(state)):
            self._state = self._copy_state(state)
            self._returned = ArrayRefs(tree.leaves(self._state))
            self._data.clear()
            self._last = None
        arrays, structure = tree.leaves(data), tree.structure(data)
        if self._last is not None and self._last.holds(structure, arrays):
            return self._last
        kind = structure, *((tuple(a.shape), a.dtype) for a in arrays)
        if kind not in self._data:
            self._make_room()
            self._data[kind] = _Data(ArrayRefs(arrays), structure)
        known = self._data[kind]
        if not known.holds(structure, arrays):
            known.given = ArrayRefs(arrays)
            if known.stored is None:
                known.stored = tree.map(self._copy, data)
                known.launches.clear()
            else:
                for kept, a in zip(tree.leaves(known.stored), arrays, strict=True):
                    self._write(kept, a)
        self._last = known
        return known

    def _make_room(self) -> None:
        """Forget data that cannot be given again, since an array is gone; keep less than KINDS."""
        for kind, known in list(self._data.items()):
            if known.stored is None and any(a is None for a in known.given.arrays()):
                del self._data[kind]
        if len(self._data) == KINDS:
            del self._data[next(iter(self._data))]  # its captures keep its data alive

    def _advance(self, launches: dict[Hashable, _Launch], data: Any, rows: Array) -> Array:
        """Take one step, and return its loss in storage that the next step writes over."""
        key = tuple(rows.shape), rows.dtype
        if key not in launches:
            launches[key] = _Launch(self._copy(rows))
        launch = launches[key]
        self._write(launch.rows, rows)
        if launch.warm_ups < WARM_UP:
            self._run(data, launch)
            launch.warm_ups += 1
            return launch.loss
        if launch.replay is None:
            take = partial(self._run, data, launch)
            launch.replay = self._captured(
                StaticStep(take, self._state, data, launch.rows, launch.loss)
            )
        launch.replay()
        return launch.loss

    def _captured(self, step: StaticStep) -> Callable[[], object]:
        try:
            with collector_off, left_alone():
                return self._capture(step)
        except RuntimeError as error:
            if not self._required:
                self._capture = lambda step: step  # the warning may be an error, which comes once
            report_uncaptured(
                uncaptured_reason(first_error(error), self._inner), required=self._required
            )
            return step

    def _run(self, data: Any, launch: _Launch) -> None:
        """Take a step from storage to storage. Warm-up steps are such steps: they train as well."""
        state = tree.map(lambda a: a, self._state)  # a user's own step may write to the dict
        new, loss = self._step(state, data, launch.rows)
        check_loss(self._backend, loss)
        if launch.loss is None:
            launch.loss = self._copy(loss)
        else:
            self._write(launch.loss, loss)  # before the state changes: the loss may be part of it
        self._commit(new)

    def _commit(self, new: Any) -> None:
        """Copy a new state into the storage.

        A new leaf that lies in the storage of another leaf is first copied out of it.
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
        overwriting()
        for kept, leaf in moved:
            self._write(kept, leaf)

    def _copy(self, array: Array) -> Array:
        return self._backend.xp.asarray(array, copy=True)


def _kinds(state: Any) -> list[Hashable]:
    """The path, shape and dtype of each leaf."""
    return [(path, tuple(a.shape), a.dtype) for path, a in tree.named_leaves(state)]
