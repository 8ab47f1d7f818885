"""Optimizers, which update one piece of a parameter at a time, so that it stays in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any

import numpy as np

from polynet.backend import may_overwrite
from polynet_numpy import compiled
from polynet_numpy.results import apart, copy, repeat

PIECE = 8192
"""The number of elements in a piece."""
SMALL = 1 << 15
"""The number of elements up to which vectors are joined with others."""
GRADIENT = 1
"""The index of g in a row (p, g, *slots)."""
Arrays = dict[str, Any]
Rows = list[list[np.ndarray]]
Update = Callable[..., None]
Make = Callable[..., Callable[[], object]]


def optimizer(rule: Callable[..., tuple[Iterable[str], Make]]) -> Callable[..., Any]:
    """A kernel for a whole tree of parameters.

    `rule(**settings)` returns the names of the slots and a function `make(rows, step, lr)`. Each
    row is a list of vectors (p, g, *slots), and `make` returns a call that updates `p` and the
    slots in place. `step` counts from 0. The vectors are the state of the captured step where the
    kernel may overwrite it, and otherwise copies.
    """

    @wraps(rule)
    def kernel(
        xp: Any,
        params: Arrays,
        grads: Arrays,
        state: dict[str, Arrays],
        step: Any,
        lr: Any,
        **settings: Any,
    ) -> Any:
        dtypes = {a.dtype for tree in (params, grads, *state.values()) for a in tree.values()}
        if len(dtypes) != 1:
            return NotImplemented
        slots, make = rule(**settings)
        trees = [params, *(state[slot] for slot in slots)]
        leaves = [a for tree in trees for a in tree.values()]
        over = all(a.flags.c_contiguous for a in leaves) and may_overwrite(leaves)
        if not over:
            trees = [{n: copy(a) for n, a in tree.items()} for tree in trees]
        rows = [
            [a.reshape(-1) for a in (trees[0][n], apart(grads[n]), *(t[n] for t in trees[1:]))]
            for n in params
        ]
        repeat(make, rows, step, lr if hasattr(lr, "shape") else np.asarray(lr), over=over)
        return (trees[0], dict(zip(slots, trees[1:], strict=True))), None

    return kernel


def piecewise(update: Update) -> Callable[[Rows], Update]:
    """Turn an update of one piece, which takes two scratch vectors too, into one of all rows.

    Small vectors are joined, since a call costs as much as some thousand elements. The small
    vectors of a captured step's state lie side by side in memory already.
    """

    def of(rows: Rows) -> Update:
        small = [row for row in rows if row[0].size <= SMALL]
        large = [row for row in rows if row[0].size > SMALL]
        columns = [list(column) for column in zip(*small, strict=True)]
        joined = [_side_by_side(column) for column in columns]
        scattered = [i for i, vector in enumerate(joined) if vector is None]
        work = [
            np.concatenate(column) if vector is None else vector
            for vector, column in zip(joined, columns, strict=True)
        ]
        pieces = [p for row in (*large, work) if row for p in _pieces(row)]

        def whole(*numbers: Any) -> None:
            for i in scattered:
                np.concatenate(columns[i], out=work[i])
            for piece in pieces:
                update(*piece, *numbers)
            for i in scattered:
                if i != GRADIENT:
                    _take_apart(work[i], columns[i])

        return whole

    return of


def _pieces(row: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """The pieces of a row's vectors, each with two scratch vectors, which all pieces share."""
    scratch = [np.empty(min(row[0].size, PIECE), row[0].dtype) for _ in range(2)]
    for start in range(0, row[0].size, PIECE):
        pieces = [v[start : start + PIECE] for v in row]
        yield [*pieces, *(s[: pieces[0].size] for s in scratch)]


def _side_by_side(vectors: list[np.ndarray]) -> np.ndarray | None:
    """One vector over the memory of `vectors`, if they are adjacent in this order; else None."""
    base, size = vectors[0].base, sum(v.size for v in vectors)
    if not isinstance(base, np.ndarray) or any(v.base is not base for v in vectors):
        return None
    starts = [v.ctypes.data - base.ctypes.data for v in vectors]
    ends = [start + v.nbytes for start, v in zip(starts, vectors, strict=True)]
    if starts[1:] != ends[:-1] or base.ndim != 1 or base.dtype != vectors[0].dtype:
        return None
    first = starts[0] // base.itemsize
    return base[first : first + size]


def _take_apart(vector: np.ndarray, parts: list[np.ndarray]) -> None:
    """Copy the parts of a joined vector back to their own memory."""
    start = 0
    for part in parts:
        part[...] = vector[start : start + part.size]
        start += part.size


@optimizer
def adam(*, betas: Any, eps: Any, weight_decay: Any, decoupled: bool = False) -> Any:
    """m ← β₁m + (1-β₁)g;  v ← β₂v + (1-β₂)g²;  p ← p - ηr/(1-β₁ᵗ)·m / (√v + εr), r = √(1-β₂ᵗ)."""
    beta1, beta2 = betas
    decay, shrinking = (0.0, weight_decay) if decoupled else (weight_decay, 0.0)

    @piecewise
    def by_numpy(
        p: Any, g: Any, m: Any, v: Any, s: Any, t: Any, rate: float, floor: float, shrink: float
    ) -> None:
        if decay:
            g = np.add(g, np.multiply(p, decay, out=s), out=s)
        m *= beta1
        m += np.multiply(g, 1 - beta1, out=t)
        np.multiply(g, g, out=t)
        t *= 1 - beta2
        v *= beta2
        v += t
        np.sqrt(v, out=t)
        t += floor
        np.divide(m, t, out=t)
        t *= rate
        if shrink != 1:
            p *= shrink
        p -= t

    def make(rows: Rows, step: np.ndarray, lr: np.ndarray) -> Callable[[], object]:
        loop = compiled.adam(rows, step, lr, (beta1, beta2, eps, decay, shrinking))
        if loop is not None:
            return loop
        update = by_numpy(rows)

        def at_step() -> None:
            t, eta = int(step[0]) + 1, float(lr)
            bias1 = -math.expm1(t * math.log(beta1)) if beta1 else 1.0
            root2 = math.sqrt(-math.expm1(t * math.log(beta2))) if beta2 else 1.0
            update(eta * root2 / bias1, eps * root2, 1 - eta * shrinking)

        return at_step

    return ("exp_avg", "exp_avg_sq"), make


@optimizer
def sgd(*, momentum: Any, nesterov: Any, weight_decay: Any) -> Any:
    """g ← ∇ + λp;  b ← μb + g;  p ← p - η·(g + μb if Nesterov, else b)."""

    @piecewise
    def by_numpy(p: Any, g: Any, *rest: Any) -> None:
        *slots, s, t, lr = rest
        if weight_decay:
            g = np.add(g, np.multiply(p, weight_decay, out=s), out=s)
        for b in slots:
            b *= momentum
            b += g
            g = np.add(g, np.multiply(b, momentum, out=t), out=s) if nesterov else b
        p -= np.multiply(g, lr, out=t)

    def make(rows: Rows, step: np.ndarray, lr: np.ndarray) -> Callable[[], object]:
        update = by_numpy(rows)
        return lambda: update(float(lr))

    return ("momentum_buffer",) if momentum else (), make


KERNELS: Mapping[str, Callable[..., Any]] = {"adam": adam, "sgd": sgd}
