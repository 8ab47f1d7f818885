"""Training steps as PyTorch's own graphs: traced once, and run from then on without polynet.

What a step computes stands then in straight lines of PyTorch's operations, which neither record
derivatives nor look for rules. Tracing is make_fx's, of torch.fx.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from polynet import tree
from polynet.backend import (
    Backend,
    check_loss,
    left_alone,
    not_recorded,
    over_its_own,
    overwriting,
    why_not,
)

Step = Callable[[Any, Any, torch.Tensor], tuple[Any, torch.Tensor]]
WORTH = 1.0
"""Seconds that steps of a kind have taken when they are traced: about as long as that takes."""
LONG = 0.1
"""Seconds of a step beside which the time of Python is little: it is not traced."""
KINDS = 8
"""Kinds of steps, by structures and shapes, whose programs are kept."""
INNER = ("polynet_torch", "torch", "array_api_compat")
"""Packages whose lines no user looks for."""
READS = {
    getattr(torch.Tensor, name)
    for name in (
        "numpy tolist item __array__ __dlpack__ __bool__ __float__ __int__ __index__".split()
    )
}
"""What gives a tensor's numbers to the host."""


@dataclass
class _Kind:
    """Steps of one structure and of the same shapes."""

    program: Callable[..., Any] | None = None
    steps: int = 0
    spent: float = 0.0


class Runner:
    """What `compile` returns where there is no CUDA graph: steps one by one, then by a program.

    A program is a pure function of the state, the data and the rows, but for what a kernel writes
    over the state, which this keeps: whoever gives another state has that copied. Its arrays lie in
    order, as they did when the program was traced.
    """

    def __init__(self, backend: Backend, step: Step) -> None:
        self._backend = backend
        self._step = over_its_own(step)
        self._required = getattr(step, "required", False)
        self._traces = True
        self._kinds: dict[Hashable, _Kind] = {}
        self._state: list[torch.Tensor] = []  # the leaves of the state that was returned last
        self._last: tuple[list[weakref.ref[torch.Tensor]], Any, _Kind] | None = None

    def __call__(self, state: Any, data: Any, rows: torch.Tensor) -> tuple[Any, torch.Tensor]:
        if not _same(tree.leaves(state), self._state):
            state, self._last = self._copy(state), None
        kind, losses = self._kind(state, data, rows), []
        for i in range(rows.shape[0]):
            state, loss = self._take(kind, state, data, rows[i])
            losses.append(loss)
        self._state = tree.leaves(state)
        return state, torch.stack(losses)

    def _kind(self, state: Any, data: Any, rows: torch.Tensor) -> _Kind:
        leaves, shape = tree.leaves(data), (rows.shape[1:], rows.dtype)
        if self._last is not None:
            known, of, kind = self._last
            if of == shape and _same(leaves, [ref() for ref in known]):
                return kind
        kinds = (tree.structure(branch) for branch in (state, data))
        arrays = ((a.shape, a.stride(), a.dtype) for a in (*tree.leaves(state), *leaves))
        key = *kinds, *arrays, shape
        if key not in self._kinds:
            if len(self._kinds) == KINDS:
                del self._kinds[next(iter(self._kinds))]
            self._kinds[key] = _Kind()
        self._last = [weakref.ref(a) for a in leaves], shape, self._kinds[key]
        return self._kinds[key]

    def _take(self, kind: _Kind, state: Any, data: Any, rows: torch.Tensor) -> Any:
        """One step; by the kind's program, where it has one, or is worth one."""
        if kind.program is None and self._traces and self._is_worth(kind):
            kind.program = self._traced(state, data, rows)
        if kind.program is not None:
            overwriting()
            *leaves, loss = kind.program(*tree.leaves((state, data)), rows)
            made = iter(leaves)
            return tree.map(lambda _: next(made), state), loss
        began = time.perf_counter()
        state, loss = self._step(state, data, rows)
        check_loss(self._backend, loss)
        kind.spent += time.perf_counter() - began
        kind.steps += 1
        return tree.map(torch.Tensor.contiguous, state), loss

    def _is_worth(self, kind: _Kind) -> bool:
        if self._required:
            return kind.steps > 0
        return kind.spent > WORTH and kind.spent <= LONG * kind.steps

    def _traced(self, state: Any, data: Any, rows: torch.Tensor) -> Callable[..., Any] | None:
        """A program that is seen to give what the step gives, to the last bit; None without one.

        The state stays as it is.
        """
        try:
            with left_alone():
                program = self._program(state, data, rows)
                found = program(*tree.leaves((self._copy(state), data)), rows)
                expected = self._flat(self._copy(state), data, rows)
        except Exception as error:  # noqa: BLE001 (none came when steps were taken)
            why = why_not(error, INNER)
        else:
            if all(map(_equal, found, expected)):
                return program
            why = "with the same numbers its program gave others"
        self._traces = False
        not_recorded(why, required=self._required)
        return None

    def _program(self, state: Any, data: Any, rows: torch.Tensor) -> Callable[..., Any]:
        """The step as a function of all leaves.

        It is traced with other rows, so that numbers of a batch that stand in it, where there
        should be tensors, show; with these, if half the samples, twice, are more than a step bears.
        """
        from torch.fx.experimental.proxy_tensor import make_fx  # slow, and few need it

        def flat(*leaves: torch.Tensor) -> list[torch.Tensor]:
            given = iter(leaves)
            with _HostReads(), _SameShapes():
                return self._flat(*tree.map(lambda _: next(given), (state, data, rows)))

        traced = make_fx(flat)
        half = rows[torch.arange(len(rows), device=rows.device) % -(-len(rows) // 2)]
        with suppress(Exception):
            return traced(*tree.leaves((self._copy(state), data)), half).forward
        return traced(*tree.leaves((self._copy(state), data)), rows).forward

    def _flat(self, state: Any, data: Any, rows: torch.Tensor) -> list[torch.Tensor]:
        """The leaves of the next state, in the order of this one, and the loss."""
        new, loss = self._step(state, data, rows)
        pairs = list(tree.named_leaves(state))
        leaves = tree.leaves(tree.map(lambda _, a: a.contiguous(), state, new))
        for (path, before), after in zip(pairs, leaves, strict=True):
            if before.shape != after.shape or before.dtype != after.dtype:
                raise TypeError(
                    f"{path!r} of the state is {before.dtype} {tuple(before.shape)} before the "
                    f"step, and {after.dtype} {tuple(after.shape)} after it"
                )
        return [*leaves, loss]

    def _copy(self, state: Any) -> Any:
        return tree.map(self._backend.owned, state)


class _HostReads(TorchFunctionMode):  # type: ignore[misc]  # PyTorch's types are not looked at
    """Refuses what reads a tensor's numbers, which a program would have for ever."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in READS:
            raise RuntimeError(f"the step reads an array's numbers by {function.__name__}")
        return function(*args, **(kwargs or {}))


class _SameShapes(TorchDispatchMode):  # type: ignore[misc]  # likewise
    """Refuses operations whose results have shapes that depend on numbers."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if torch.Tag.dynamic_output_shape in function.tags and not _by_integers(function, args):
            raise RuntimeError(f"the shape of what {function} makes depends on numbers")
        return function(*args, **(kwargs or {}))


def _by_integers(function: Any, args: Any) -> bool:
    """Whether it is an index, or an assignment, by integers and not by a mask."""
    if function is not torch.ops.aten.index.Tensor:
        return False
    return all(a is None or a.dtype not in (torch.bool, torch.uint8) for a in args[1])


def _same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have the same numbers; NaN is one."""
    if torch.equal(a, b):
        return True
    real = a.is_floating_point() and a.shape == b.shape and a.dtype == b.dtype
    return real and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
