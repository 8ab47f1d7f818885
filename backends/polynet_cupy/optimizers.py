"""Adam and gradient descent: one launch for as many parameters as a table of addresses holds."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from polynet import tree
from polynet_cupy.launch import THREADS, real

MOST = 48
"""Arrays in a table, as in the sources: the arguments of a launch are 4 KiB."""
CHUNK = 1024
"""Elements of a block, as in the sources."""
ADDRESSES = ("p", "g", "a", "b", "new_p", "new_a", "new_b")
TABLE = np.dtype(
    [
        ("count", np.int64),
        *((name, np.int64, MOST) for name in ("start", "size", *ADDRESSES)),
    ]
)
"""`Table` in the sources, field by field."""
Arrays = dict[str, Any]

_running = threading.local()


def over_its_own(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step whose optimizer writes the next state over the one it is given, where it may.

    It is for a `StaticRunner`, which gives the step storage of its own. Others' state stays.
    """
    if not getattr(step, "consumes", False):
        return step

    def run(state: Any, data: Any, rows: Any) -> Any:
        before: frozenset[int] = getattr(_running, "owned", frozenset())
        _running.owned = frozenset(id(leaf) for leaf in tree.leaves(state))
        try:
            return step(state, data, rows)
        finally:
            _running.owned = before

    return run


def _may_overwrite(arrays: Iterable[Any]) -> bool:
    return getattr(_running, "owned", frozenset()) >= {id(a) for a in arrays}


def adam(
    xp: Any, params: Arrays, grads: Arrays, state: dict[str, Arrays], step: Any, lr: Any, *,
    betas: tuple[float, float], eps: float, weight_decay: float, decoupled: bool = False,
) -> Any:  # fmt: skip
    """m ← β₁m + (1-β₁)g;  v ← β₂v + (1-β₂)g²;  p ← p - η·m̂ / (√v̂ + ε)."""
    beta1, beta2 = (float(b) for b in betas)
    logs = tuple(math.log(b) if b else -math.inf for b in (beta1, beta2))
    rest = (beta1, beta2, *logs, float(eps), float(weight_decay), int(decoupled))
    slots = ("exp_avg", "exp_avg_sq")
    return _updated(xp, "adam", params, grads, state, slots, lr, (xp.contiguous(step),), rest)


def adamw(xp: Any, *arrays: Any, **settings: Any) -> Any:
    """Adam, whose weight decay shrinks the parameters instead of adding to the gradient."""
    return adam(xp, *arrays, decoupled=True, **settings)


def sgd(
    xp: Any, params: Arrays, grads: Arrays, state: dict[str, Arrays], step: Any, lr: Any, *,
    momentum: float, nesterov: bool, weight_decay: float,
) -> Any:  # fmt: skip
    """g ← ∇ + λp;  b ← μb + g;  p ← p - η·(g + μb if Nesterov, else b)."""
    rest = (float(momentum), int(nesterov), float(weight_decay))
    slots = ("momentum_buffer",) if momentum else ()
    return _updated(xp, "sgd", params, grads, state, slots, lr, (), rest)


def _updated(
    xp: Any, kernel: str, params: Arrays, grads: Arrays, state: dict[str, Arrays],
    slots: tuple[str, ...], lr: Any, before: tuple[Any, ...], rest: tuple[Any, ...],
) -> Any:  # fmt: skip
    """The next parameters and slots, over the old where these are the compiled step's own."""
    number = isinstance(lr, float | int)
    olds = [params, *(state[slot] for slot in slots)]
    leaves = [a for arrays in olds for a in arrays.values()]
    if not params or not real(*leaves, *grads.values(), None if number else lr):
        return NotImplemented
    grads = {name: xp.contiguous(grads[name]) for name in params}
    if _may_overwrite(leaves) and all(a.flags.c_contiguous for a in leaves):
        grads, news = _apart(xp, grads, leaves), olds
    else:
        olds = [{n: xp.contiguous(arrays[n]) for n in params} for arrays in olds]
        news = [{n: xp.empty(a.shape, dtype=a.dtype) for n, a in arrays.items()} for arrays in olds]
    rate = (None, float(lr)) if number else (lr, 0.0)
    names = [n for n, p in params.items() if p.size]
    for table, blocks in _tables(xp, names, grads, olds, news):
        xp.launch(kernel, leaves[0].dtype, blocks, THREADS, table, *before, *rate, *rest)
    return (news[0], dict(zip(slots, news[1:], strict=True))), None


def _apart(xp: Any, grads: Arrays, leaves: list[Any]) -> Arrays:
    """The gradients, copied where they stand in memory that is about to be written over."""
    mine = {xp.memory(a) for a in leaves}
    return {n: xp.asarray(g, copy=True) if xp.memory(g) in mine else g for n, g in grads.items()}


def _tables(
    xp: Any, names: list[str], grads: Arrays, olds: list[Arrays], news: list[Arrays]
) -> Iterator[tuple[np.ndarray, int]]:
    """Tables of at most `MOST` parameters, and how many blocks each of them is for."""
    slots = ("a", "b")[: len(olds) - 1]
    columns = dict(zip(("p", *slots), olds, strict=True)) | {"g": grads}
    columns |= dict(zip(("new_p", *(f"new_{s}" for s in slots)), news, strict=True))
    for at in range(0, len(names), MOST):
        some = names[at : at + MOST]
        table = np.zeros((), dtype=TABLE)
        sizes = np.asarray([olds[0][name].size for name in some])
        ends = np.cumsum(-(-sizes // CHUNK))
        table["count"] = len(some)
        table["size"][: len(some)] = sizes
        table["start"][1 : len(some)] = ends[:-1]
        for column, arrays in columns.items():
            table[column][: len(some)] = [xp.address(arrays[name]) for name in some]
        yield table, int(ends[-1])


KERNELS: dict[str, Callable[..., Any]] = {"adam": adam, "adamw": adamw, "sgd": sgd}
