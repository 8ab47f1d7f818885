"""Optimizers: each formula on one piece of all parameters at a time, which stays in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

import numpy as np

from polynet_numpy import compiled
from polynet_numpy.memory import SMALL, apart, one_vector, writable

PIECE = 8192
"""Elements at a time."""
Arrays = dict[str, np.ndarray]
Update = Callable[..., None]


def optimizer(rule: Callable[..., tuple[Iterable[str], Update]]) -> Callable[..., Any]:
    """A kernel for a whole tree of parameters.

    `rule(step, lr, dtype, **settings)`, with `step` from 1, returns the names of the slots, and
    `update(p, g, *slots)`, which writes what follows over the vectors `p` and the slots. It is
    given the compiled step's own, and otherwise copies.
    """

    @wraps(rule)
    def kernel(
        xp: Any,
        params: Arrays,
        grads: Arrays,
        state: dict[str, Arrays],
        step: np.ndarray,
        lr: Any,
        **settings: Any,
    ) -> Any:
        names = list(params)
        dtypes = {a.dtype for tree in (params, grads, *state.values()) for a in tree.values()}
        if len(dtypes) != 1:
            return NotImplemented
        slots, update = rule(int(step[0]) + 1, float(lr), dtypes.pop(), **settings)
        trees = [params, *(state[slot] for slot in slots)]
        if not writable([a for tree in trees for a in tree.values()]):
            trees = [{n: np.array(a, order="C") for n, a in tree.items()} for tree in trees]
        grads = {name: apart(grads[name]) for name in names}
        small = [name for name in names if params[name].size <= SMALL]
        vectors = [one_vector([tree[name] for name in small]) for tree in trees]
        if all(v is not None for v in vectors):
            g = np.concatenate([grads[name].reshape(-1) for name in small])
            update(vectors[0], g, *vectors[1:])
            names = [name for name in names if params[name].size > SMALL]
        for name in names:
            p, *rest = (tree[name].reshape(-1) for tree in trees)
            update(p, grads[name].reshape(-1), *rest)
        return (trees[0], dict(zip(slots, trees[1:], strict=True))), None

    return kernel


def in_pieces(scratches: int) -> Callable[[Update], Update]:
    """For whole vectors, an update written for pieces, with `scratches` vectors to work in."""

    def decorate(update: Update) -> Update:
        def whole(*vectors: np.ndarray) -> None:
            size = vectors[0].size
            scratch = [np.empty(min(size, PIECE), vectors[0].dtype) for _ in range(scratches)]
            for start in range(0, size, PIECE):
                pieces = [v[start : start + PIECE] for v in vectors]
                update(*pieces, *(s[: pieces[0].size] for s in scratch))

        return whole

    return decorate


@optimizer
def adam(
    step: int, lr: float, dtype: Any, *, betas: Any, eps: Any, weight_decay: Any,
    decoupled: bool = False,
) -> Any:  # fmt: skip
    """m ← β₁m + (1-β₁)g;  v ← β₂v + (1-β₂)g²;  p ← p - ηr/(1-β₁ᵗ)·m / (√v + εr), r = √(1-β₂ᵗ)."""
    beta1, beta2 = betas
    bias1 = -math.expm1(step * math.log(beta1)) if beta1 else 1.0
    root2 = math.sqrt(-math.expm1(step * math.log(beta2)) if beta2 else 1.0)
    decay = 0.0 if decoupled else weight_decay
    shrink = 1 - lr * weight_decay if decoupled else 1.0
    rate, floor = lr * root2 / bias1, eps * root2
    numbers = (rate, floor, beta1, beta2, 1 - beta1, 1 - beta2, decay, shrink)

    @in_pieces(2)
    def by_numpy(p: Any, g: Any, m: Any, v: Any, s: Any, t: Any) -> None:
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

    def update(*vectors: np.ndarray) -> None:
        if not compiled.adam(vectors, numbers):
            by_numpy(*vectors)

    return ("exp_avg", "exp_avg_sq"), update


def adamw(xp: Any, *arrays: Any, **settings: Any) -> Any:
    """Adam, whose weight decay shrinks the parameters instead of adding to the gradient."""
    return adam(xp, *arrays, decoupled=True, **settings)


@optimizer
def sgd(
    step: int, lr: float, dtype: Any, *, momentum: Any, nesterov: Any, weight_decay: Any
) -> Any:
    """g ← ∇ + λp;  b ← μb + g;  p ← p - η·(g + μb if Nesterov, else b)."""

    @in_pieces(2)
    def update(p: Any, g: Any, *rest: Any) -> None:
        *slots, s, t = rest
        if weight_decay:
            g = np.add(g, np.multiply(p, weight_decay, out=s), out=s)
        for b in slots:
            b *= momentum
            b += g
            g = np.add(g, np.multiply(b, momentum, out=t), out=s) if nesterov else b
        p -= np.multiply(g, lr, out=t)

    return ("momentum_buffer",) if momentum else (), update


KERNELS: Mapping[str, Callable[..., Any]] = {"adam": adam, "adamw": adamw, "sgd": sgd}
