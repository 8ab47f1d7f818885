"""Steps divided by the root of squared gradients: their running mean, or their sum."""

from __future__ import annotations

from dataclasses import dataclass

from polynet.backend import Array
from polynet.ops import array_namespace
from polynet.optim.base import Rule, in_dtype, update_each
from polynet.optim.schedules import Schedule
from polynet.tensor import composition, told_class


@composition
def rmsprop(xp, params, grads, state, step, lr, /, *, alpha, eps, weight_decay, momentum):
    """v ← αv + (1-α)g²;  d = g / (√v + ε);  b ← μb + d;  p ← p - ηb."""

    def update(p, g, v, b=None):
        g = g + weight_decay * p if weight_decay else g
        v = alpha * v + (1 - alpha) * (g * g)
        d = g / (xp.sqrt(v) + eps)
        rate = in_dtype(xp, lr, p.dtype)
        if b is None:
            return p - rate * d, v
        b = momentum * b + d
        return p - rate * b, v, b

    names = ("square_avg", "momentum_buffer") if momentum else ("square_avg",)
    params, *slots = update_each([params, grads, *(state[n] for n in names)], update)
    return params, dict(zip(names, slots, strict=True))


@told_class
@dataclass(frozen=True)
class RMSprop(Rule):
    """Steps divided by a running root mean square of the gradient.

    Tieleman and Hinton, "Lecture 6.5: RMSProp", Neural Networks for Machine Learning (2012).
    """

    lr: float | Schedule = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0

    _rule = rmsprop

    def slots(self) -> tuple[str, ...]:
        return ("square_avg", "momentum_buffer") if self.momentum else ("square_avg",)


@composition
def adagrad(
    xp, params, grads, state, step, lr, /,
    *, lr_decay, weight_decay, eps, initial_accumulator_value,
):  # fmt: skip
    """s ← s + g²;  p ← p - η / (1 + δt) · g / (√s + ε), with t from 0."""

    def update(p, g, s):
        g = g + weight_decay * p if weight_decay else g
        s = s + g * g
        rate = in_dtype(xp, lr, p.dtype)
        if lr_decay:
            rate = rate / (1 + lr_decay * xp.reshape(xp.astype(step, p.dtype), ()))
        return p - rate * (g / (xp.sqrt(s) + eps)), s

    params, total = update_each([params, grads, state["sum"]], update)
    return params, {"sum": total}


@told_class
@dataclass(frozen=True)
class Adagrad(Rule):
    """Steps divided by the root of the sum of all squared gradients so far.

    Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
    Optimization", JMLR 12 (2011).
    """

    lr: float | Schedule = 1e-2
    lr_decay: float = 0.0
    weight_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    eps: float = 1e-10

    _rule = adagrad

    def slots(self) -> tuple[str, ...]:
        return ("sum",)

    def _start(self, p: Array) -> Array:
        return array_namespace(p).full_like(p, self.initial_accumulator_value)
