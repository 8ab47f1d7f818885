"""Training steps as graphs of PyTorch's operations: traced once, and then run without polynet.

`make_fx` of torch.fx does the tracing. The traced program is a sequence of operations, without the
record, the rules and the layers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from polynet import tree
from polynet.backend import (
    ArrayRefs,
    Backend,
    DifferentReplayError,
    allow_overwrite,
    check_loss,
    left_alone,
    nothing_written,
    overwriting,
    report_uncaptured,
    uncaptured_reason,
)

Step = Callable[[Any, Any, torch.Tensor], tuple[Any, torch.Tensor]]
AFTER = 2000
"""Steps of a kind before it is traced: tracing takes as long as these steps of a small network."""
LARGE = 1 << 28
"""Bytes of state above which steps are not traced: Python's share of their time is small, and the
copies that tracing makes are large."""
KINDS = 8
"""How many kinds of steps (structures, shapes, strides) have their programs kept."""
INNER = ("polynet_torch", "torch", "array_api_compat")
"""Packages whose lines are not shown to a user."""
READS = {
    getattr(torch.Tensor, name)
    for name in (
        "numpy tolist item __array__ __dlpack__ __bool__ __float__ __int__ __index__".split()
    )
}
"""Methods by which the host reads a tensor's values."""


@dataclass
class _Kind:
    """Steps of one structure and the same shapes, on data with the same strides."""

    program: Callable[..., Any] | None = None
    steps: int = 0


class Runner:
    """What `compile` returns where there is no CUDA graph: plain steps first, then a program.

    A program is a function of the state, the data and the rows, in which an optimizer's kernel may
    write over the state. That is safe for the state that the runner returned last; any other state
    is copied first.
    """

    tracing = threading.RLock()
    """PyTorch changes its own modules for all threads while it traces: one thread at a time may."""

    def __init__(self, backend: Backend, step: Step) -> None:
        self._backend = backend
        self._step = allow_overwrite(step)
        self._required = getattr(step, "required", False)
        self._traces = True
        self._kinds: dict[Hashable, _Kind] = {}
        self._state = ArrayRefs()  # the leaves of the state that was returned last
        self._last: tuple[ArrayRefs, Any, _Kind] | None = None  # the data, the rows and the kind

    def __call__(self, state: Any, data: Any, rows: torch.Tensor) -> tuple[Any, torch.Tensor]:
        if not self._state.are(tree.leaves(state)):
            state, self._last = self._copy(state), None
        losses = []
        for i in range(rows.shape[0]):
            state, loss = self._take(self._kind(state, data, rows), state, data, rows[i])
            losses.append(loss)
        self._state = ArrayRefs(tree.leaves(state))
        return state, torch.stack(losses)

    def _kind(self, state: Any, data: Any, rows: torch.Tensor) -> _Kind:
        """The kind of the next step; it is found quickly where data and rows are as before."""
        leaves, shape, last = tree.leaves(data), (rows.shape[1:], rows.dtype), self._last
        if last and last[1] == shape and last[0].are(leaves):
            return last[2]
        kinds = (tree.structure(branch) for branch in (state, data))
        parts = ((a.shape, a.dtype, a.stride()) for a in leaves)  # a view needs the same strides
        key = *kinds, *((a.shape, a.dtype) for a in tree.leaves(state)), *parts, shape
        kind = self._kinds.pop(key, None) or _Kind()
        if len(self._kinds) == KINDS:
            del self._kinds[next(iter(self._kinds))]  # the kind that was used longest ago
        self._kinds[key] = kind
        self._last = ArrayRefs(leaves), shape, kind
        return kind

    def _take(self, kind: _Kind, state: Any, data: Any, rows: torch.Tensor) -> Any:
        """Take one step: by the kind's program if it has one, or is worth tracing."""
        if kind.program is None and self._traces and self._is_worth(kind, state):
            kind.program = self._traced(state, data, rows)
        if kind.program is not None:
            return self._by_program(kind.program, state, data, rows)
        kind.steps += 1
        new, loss = self._by_python(state, data, rows)
        if not all(map(_alike, tree.leaves(state), tree.leaves(new))):
            self._last = None
        return new, loss

    def _is_worth(self, kind: _Kind, state: Any) -> bool:
        if self._required:
            return kind.steps > 0
        return kind.steps >= AFTER and sum(a.nbytes for a in tree.leaves(state)) <= LARGE

    def _by_program(
        self, program: Callable[..., Any], state: Any, data: Any, rows: torch.Tensor
    ) -> Any:
        old = tree.leaves(state)
        versions = list(map(_version, old))
        overwriting()
        try:
            *leaves, loss = program(*old, *tree.leaves(data), rows)
        except Exception:
            if None not in versions and versions == list(map(_version, old)):
                nothing_written()
            raise
        made = iter(leaves)
        return tree.map(lambda _: next(made), state), loss

    def _by_python(self, state: Any, data: Any, rows: torch.Tensor) -> Any:
        """Take one step in Python; the step may write to the dict of its state, which is a copy.

        The new state is made contiguous, since a program may view it.
        """
        new, loss = self._step(tree.map(lambda a: a, state), data, rows)
        check_loss(self._backend, loss)
        return tree.map(torch.Tensor.contiguous, new), loss

    def _traced(self, state: Any, data: Any, rows: torch.Tensor) -> Callable[..., Any] | None:
        """The step's program, or None where it has none; the state stays as it is."""
        try:
            with left_alone(), Runner.tracing:
                return self._program(state, data, rows)
        except Exception as error:  # noqa: BLE001 (plain steps raised none, so tracing did)
            self._traces = False
            report_uncaptured(uncaptured_reason(error, INNER), required=self._required)
            return None

    def _program(self, state: Any, data: Any, rows: torch.Tensor) -> Callable[..., Any]:
        """A program that gave the step's results to the last bit."""
        program = self._trace(state, data, rows)
        results = program(*tree.leaves((self._copy(state), data)), rows)
        expected = self._flat(self._copy(state), data, rows)
        if not all(map(_equal, results, expected)):
            raise DifferentReplayError("from the same numbers its program computed other results")
        return program

    def _trace(self, state: Any, data: Any, rows: torch.Tensor) -> Callable[..., Any]:
        """The step as a function of all leaves.

        It is traced with other rows, half of the samples, each twice, so that the check shows a
        program that holds values of the batch as constants. If the step fails on such rows, it is
        traced with the rows given. The data are passed as aliases, since `make_fx` identifies
        tensors by their identity, and one may be given twice, or be read as a global too.
        """
        from torch.fx.experimental.proxy_tensor import make_fx  # slow, and few need it

        def flat(*leaves: torch.Tensor) -> list[torch.Tensor]:
            left = iter(leaves)
            with _HostReads(), _SameShapes():
                return self._flat(*tree.map(lambda _: next(left), (state, data, rows)))

        def inputs() -> list[torch.Tensor]:
            return [*tree.leaves(self._copy(state)), *(a.detach() for a in tree.leaves(data))]

        traced = make_fx(flat)
        half = rows[torch.arange(len(rows), device=rows.device) % -(-len(rows) // 2)]
        with suppress(Exception):
            return traced(*inputs(), half).forward
        return traced(*inputs(), rows).forward

    def _flat(self, state: Any, data: Any, rows: torch.Tensor) -> list[torch.Tensor]:
        """The leaves of the new state, in the order of the old one, and the loss."""
        new, loss = self._by_python(state, data, rows)
        pairs = list(tree.named_leaves(state))
        leaves = tree.leaves(tree.map(lambda _, a: a, state, new))
        for (path, before), after in zip(pairs, leaves, strict=True):
            if not _alike(before, after):
                raise TypeError(
                    f"{path!r} of the state is {before.dtype} {tuple(before.shape)} before the "
                    f"step, and {after.dtype} {tuple(after.shape)} after it"
                )
        return [*leaves, loss]

    def _copy(self, state: Any) -> Any:
        return tree.map(_clone, state)


def _forked() -> None:
    """Make a new lock: in a forked process no other thread is tracing."""
    Runner.tracing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class _HostReads(TorchFunctionMode):  # type: ignore[misc]  # PyTorch's types are not looked at
    """Refuses to read a tensor's values, which the program would hold as constants."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in READS:
            raise RuntimeError(f"the step reads an array's numbers by {function.__name__}")
        return function(*args, **(kwargs or {}))


class _SameShapes(TorchDispatchMode):  # type: ignore[misc]  # likewise
    """Refuses operations whose results have shapes that depend on values."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if torch.Tag.dynamic_output_shape in function.tags and not _by_integers(function, args):
            raise RuntimeError(f"the shape of the result of {function} depends on numbers")
        return function(*args, **(kwargs or {}))


def _by_integers(function: Any, args: Any) -> bool:
    """Whether the operation indexes by integers, and not by a mask."""
    if function is not torch.ops.aten.index.Tensor:
        return False
    return all(a is None or a.dtype not in (torch.bool, torch.uint8) for a in args[1])


def _clone(a: torch.Tensor) -> torch.Tensor:
    return a.clone(memory_format=torch.contiguous_format)


def _version(a: torch.Tensor) -> int | None:
    """How many times the tensor was written to; None where PyTorch does not count."""
    return None if a.is_inference() else a._version


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have the same numbers; NaN equals NaN."""
    if torch.equal(a, b):
        return True
    return (
        a.is_floating_point()
        and _alike(a, b)
        and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
    )
