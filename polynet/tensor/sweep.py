"""The sweep back through a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polynet.backend import Array
from polynet.tensor.values import LINE, Level, Parts, Tensor


def sweep(
    level: Level, record: list[Any], starts: Sequence[tuple[int, Array]], leaves: int
) -> list[Any]:
    """Carry gradients back from the lines in `starts` to the first `leaves` lines of the record.

    `record` is the record of `level`, or a copy of it: the sweep removes its lines. Returns one
    gradient for each leaf, None where none arrived. Each pullback is called at most once, and only
    where its input is recorded.
    """
    xp = level.xp if level.plain else level.namespace
    last = max((line for line, _ in starts), default=-1)
    gradients: list[Any] = [None] * (last + 1)
    for line, g in starts:
        lifted = g if level.plain or type(g) is Tensor else Tensor(g, level.namespace.constants)
        _accumulate(xp, record, gradients, line, lifted)
    del record[LINE * (last + 1) :]
    for _ in range(last, leaves - 1, -1):
        g = gradients.pop()
        saved, pullbacks, inputs, _ = record.pop(), record.pop(), record.pop(), record.pop()
        if g is None:
            continue
        if not level.plain and type(g) is not Tensor and type(g) is not Parts:
            g = Tensor(g, level.namespace.constants)
        if type(pullbacks) is not tuple:
            for at, back in zip(inputs, pullbacks(g, needs(inputs))):  # noqa: B905 (as below)
                if at is not None and back is not None:
                    _accumulate(xp, record, gradients, at, back)
            continue
        for at, pullback in zip(inputs, pullbacks):  # noqa: B905 (a rule may give fewer pullbacks)
            if at is None or pullback is None:
                continue
            back = (
                pullback(g)
                if saved is None
                else pullback(xp, g, *saved)
                if saved
                else pullback(xp, g)  # a call without a star takes half the time
            )
            if type(at) is int and back.shape == record[LINE * at]:
                before = gradients[at]
                gradients[at] = back if before is None else before + back
            else:
                _accumulate(xp, record, gradients, at, back)
    return gradients + [None] * (leaves - len(gradients))


def needs(inputs: Any) -> tuple[bool, ...]:
    """For each of an op's inputs, whether its gradient is needed; a list of arrays is one input."""
    return tuple(
        at is not None and (type(at) is int or any(i is not None for i in at)) for at in inputs
    )


def _accumulate(xp: Any, record: Any, gradients: list[Any], at: Any, g: Any) -> None:
    """Add gradient `g`, summed to the line's shape, to that of line `at`; for lists, one by one."""
    if type(at) is not int:
        for i, h in zip(at, g, strict=True):
            if i is not None:
                _accumulate(xp, record, gradients, i, h)
        return
    shape = record[LINE * at]
    if g.shape != shape:
        g = _sum_to(xp, g, shape)
    before = gradients[at]
    gradients[at] = g if before is None else before + g


def in_dtype(xp: Any, g: Array, dtype: Any) -> Array:
    """A gradient converted to the dtype of its array; its real part where the array is real."""
    if g.dtype == dtype:
        return g
    if xp.isdtype(g.dtype, "complex floating") and not xp.isdtype(dtype, "complex floating"):
        g = xp.real(g)
    return xp.astype(g, dtype, copy=False)


def _sum_to(xp: Any, g: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which its input was broadcast."""
    extra = len(g.shape) - len(shape)
    kept = g.shape[max(extra, 0) :]
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, kept, strict=True)):
        raise ValueError(
            f"a pullback returned shape {tuple(g.shape)} for an input of shape {shape}"
        )
    stretched = (extra + i for i, n in enumerate(shape) if n != kept[i])
    return xp.reshape(xp.sum(g, axis=(*range(extra), *stretched)), shape)
