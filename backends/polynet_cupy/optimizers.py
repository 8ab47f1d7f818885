"""Optimizers: one launch for as many parameters as a table of addresses holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from polynet.backend import may_overwrite
from polynet_cupy.launch import MOST_THREADS, THREADS, real

MOST = 48
"""The most arrays in a table, as in the sources: the arguments of a launch fill at most 4 KiB."""
CHUNK = 1024
"""Elements of a block, as in the sources."""
COLUMNS = ("p", "a", "b")
ADDRESSES = ("p", "g", "a", "b", "new_p", "new_a", "new_b")
TABLE = np.dtype(
    [
        ("count", np.int64),
        *((name, np.int64, MOST) for name in ("start", "size", *ADDRESSES)),
    ]
)
"""`Table` in the sources, field by field."""
Arrays = dict[str, Any]


def sgd(
    xp: Any, params: Arrays, grads: Arrays, state: dict[str, Arrays], step: Any, lr: Any, *,
    momentum: float, nesterov: bool, weight_decay: float,
) -> Any:  # fmt: skip
    """g ← ∇ + λp;  b ← μb + g;  p ← p - η·(g + μb if Nesterov, else b)."""
    slots = ("momentum_buffer",) if momentum else ()
    rest = (*_rate(lr), float(momentum), int(nesterov), float(weight_decay))
    return _updated(xp, "sgd", params, grads, state, slots, rest, lr)


def rmsprop(
    xp: Any, params: Arrays, grads: Arrays, state: dict[str, Arrays], step: Any, lr: Any, *,
    alpha: float, eps: float, momentum: float, weight_decay: float,
) -> Any:  # fmt: skip
    """v ← αv + (1-α)g²;  d = g / (√v + ε);  b ← μb + d;  p ← p - η·b."""
    slots = ("square_avg", "momentum_buffer") if momentum else ("square_avg",)
    rest = (*_rate(lr), *map(float, (alpha, eps, momentum, weight_decay)))
    return _updated(xp, "rmsprop", params, grads, state, slots, rest, lr)


def adam(
    xp: Any, params: Arrays, grads: Arrays, state: dict[str, Arrays], step: Any, lr: Any, *,
    betas: tuple[float, float], eps: float, weight_decay: float, decoupled: bool = False,
) -> Any:  # fmt: skip
    """m ← β₁m + (1-β₁)g;  v ← β₂v + (1-β₂)g²;  p ← p - η·m̂ / (√v̂ + ε)."""
    beta1, beta2 = (float(b) for b in betas)
    logs = tuple(math.log(b) if b else -math.inf for b in (beta1, beta2))
    settings = (beta1, beta2, *logs, float(eps), float(weight_decay), int(decoupled))
    rest = (xp.contiguous(step), *_rate(lr), *settings)
    return _updated(xp, "adam", params, grads, state, ("exp_avg", "exp_avg_sq"), rest, lr)


def moving_average(xp: Any, averages: Arrays, params: Arrays, step: Any, *, decay: float) -> Any:
    """a ← δ·a + (1-δ)·p; at the first step a ← p."""
    rest = (xp.contiguous(step), float(decay))
    found = _updated(xp, "moving_average", averages, params, {}, (), rest)
    return found if found is NotImplemented else (found[0][0], None)


def clip_norm(xp: Any, grads: Arrays, *, max_norm: float) -> Any:
    """g · min(1, max_norm / (‖g‖ + 10⁻⁶)): the sum of each block, their total, and the product."""
    if not grads or not real(*grads.values()):
        return NotImplemented
    grads = {name: xp.contiguous(g) for name, g in grads.items()}
    dtype = next(iter(grads.values())).dtype
    news = {name: xp.empty(g.shape, dtype=dtype) for name, g in grads.items()}
    tables = list(_tables(xp, {"p": grads, "g": grads, "new_p": news}))
    blocks = sum(count for _, count in tables)
    sums, scale, first = xp.empty((blocks,), dtype=dtype), xp.empty((), dtype=dtype), 0
    for table, count in tables:
        xp.launch("squares", dtype, count, THREADS, table, sums[first : first + count])
        first += count
    xp.launch("clip_scale", dtype, 1, MOST_THREADS, sums, scale, blocks, float(max_norm))
    for table, count in tables:
        xp.launch("scaled", dtype, count, THREADS, table, scale)
    return news, None


def _rate(lr: Any) -> tuple[Any, float]:
    """A learning rate as the kernels take it: an array that holds it, or None and the number."""
    return (None, float(lr)) if isinstance(lr, float | int) else (lr, 0.0)


def _updated(
    xp: Any, kernel: str, params: Arrays, grads: Arrays, state: dict[str, Arrays],
    slots: tuple[str, ...], rest: tuple[Any, ...], lr: Any = 0.0,
) -> Any:  # fmt: skip
    """The next parameters and slots, written over the old ones if a compiled step owns these."""
    olds = [params, *(state[slot] for slot in slots)]
    leaves = [a for arrays in olds for a in arrays.values()]
    rate, _ = _rate(lr)
    if not params or not real(*leaves, *grads.values(), rate):
        return NotImplemented
    if any(arrays[n].shape != p.shape for n, p in params.items() for arrays in (grads, *olds)):
        return NotImplemented  # the kernels use one size, that of the parameter, for all of them
    grads = {name: xp.contiguous(grads[name]) for name in params}
    if all(a.flags.c_contiguous for a in leaves) and may_overwrite(leaves):
        grads, news = _apart(xp, grads, leaves), olds
    else:
        olds = [{n: xp.contiguous(arrays[n]) for n in params} for arrays in olds]
        news = [{n: xp.empty(a.shape, dtype=a.dtype) for n, a in arrays.items()} for arrays in olds]
    columns = {**dict(zip(COLUMNS, olds, strict=False)), "g": grads}
    columns |= {f"new_{name}": new for name, new in zip(COLUMNS, news, strict=False)}
    for table, blocks in _tables(xp, columns):
        xp.launch(kernel, leaves[0].dtype, blocks, THREADS, table, *rest)
    return (news[0], dict(zip(slots, news[1:], strict=True))), None


def _apart(xp: Any, grads: Arrays, leaves: list[Any]) -> Arrays:
    """The gradients; one that shares memory with `leaves`, which are written over, is copied."""
    mine = {xp.memory(a) for a in leaves}
    return {n: xp.asarray(g, copy=True) if xp.memory(g) in mine else g for n, g in grads.items()}


def _tables(xp: Any, columns: dict[str, Arrays]) -> Iterator[tuple[np.ndarray, int]]:
    """Tables of at most `MOST` arrays each, without empty arrays, and the blocks of each table."""
    sizes_of = {name: p.size for name, p in columns["p"].items() if p.size}
    names = list(sizes_of)
    for at in range(0, len(names), MOST):
        some = names[at : at + MOST]
        table = np.zeros((), dtype=TABLE)
        sizes = np.asarray([sizes_of[name] for name in some])
        ends = np.cumsum(-(-sizes // CHUNK))
        table["count"] = len(some)
        table["size"][: len(some)] = sizes
        table["start"][1 : len(some)] = ends[:-1]
        for column, arrays in columns.items():
            table[column][: len(some)] = [xp.address(arrays[name]) for name in some]
        yield table, int(ends[-1])


KERNELS: dict[str, Callable[..., Any]] = {
    kernel.__name__: kernel for kernel in (adam, clip_norm, moving_average, rmsprop, sgd)
}
