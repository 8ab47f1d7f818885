"""Adam, and the optimizers that were derived from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from polynet.backend import Array
from polynet.optim.base import Arrays, Formula, Rule, State, in_dtype, single, update_each
from polynet.optim.schedules import Schedule
from polynet.tensor import composition, told_class


@composition
def adam(xp, params, grads, state, step, lr, /, *, betas, eps, weight_decay, decoupled=False):
    """m ← β₁m + (1-β₁)g;  v ← β₂v + (1-β₂)g²;  p ← p - η·m̂ / (√v̂ + ε).

    m̂ = m / (1-β₁ᵗ) and v̂ = v / (1-β₂ᵗ) undo the bias of starting at zero. With r = √(1-β₂ᵗ), the
    fraction is (r / (1-β₁ᵗ)) · m / (√v + rε): this form corrects numbers instead of arrays (section
    2 of the paper). 1-βᵗ is computed as -expm1(t·log β), which is exact in float32. Weight decay
    adds λp to g. Decoupled weight decay multiplies p by 1 - ηλ instead.
    """
    beta1, beta2 = betas
    corrections: dict[Any, tuple[Array, Array, Array]] = {}

    def correction(dtype):
        if dtype not in corrections:
            t = xp.reshape(xp.astype(step, dtype), ()) + 1
            root2 = xp.sqrt(_one_minus_power(xp, beta2, t))
            eta = in_dtype(xp, lr, dtype)
            corrections[dtype] = eta * root2 / _one_minus_power(xp, beta1, t), eps * root2, eta
        return corrections[dtype]

    def update(p, g, m, v):
        rate, floor, eta = correction(p.dtype)
        if weight_decay and decoupled:
            p = p * (1 - eta * weight_decay)
        elif weight_decay:
            g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * (g * g)
        return p - rate * (m / (xp.sqrt(v) + floor)), m, v

    params, m, v = update_each([params, grads, state["exp_avg"], state["exp_avg_sq"]], update)
    return params, {"exp_avg": m, "exp_avg_sq": v}


def _one_minus_power(xp, beta, t):
    """1 - βᵗ, exact where βᵗ is near 1."""
    return -xp.expm1(t * math.log(beta)) if beta else t * 0 + 1


@told_class
@dataclass(frozen=True)
class Adam(Rule):
    """Steps along the running mean of the gradient, divided by its running root mean square.

    Both running values are corrected for their start at zero.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
    """

    lr: float | Schedule = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    _rule: ClassVar[Formula] = adam

    def __post_init__(self) -> None:
        pair = isinstance(self.betas, tuple | list) and len(self.betas) == 2
        if pair:
            super().__post_init__()
        if not pair or not all(0 <= b < 1 for b in self.betas):
            raise ValueError(
                f"{type(self).__name__}: betas are a pair of numbers, at least 0 and below 1, such "
                f"as (0.9, 0.999); got {self.betas!r}"
            )

    def slots(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")


@composition
def adamw(xp, params, grads, state, step, lr, /, **settings):
    """Adam with weight decay that shrinks the parameters instead of adding to the gradient."""
    return adam(params, grads, state, step, lr, decoupled=True, **settings)


@told_class
@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    weight_decay: float = 1e-2

    _rule = adamw


@composition
def nadam(
    xp, params, grads, state, step, lr, /,
    *, betas, eps, weight_decay, momentum_decay, decoupled_weight_decay,
):  # fmt: skip
    """m and v as in Adam;  p ← p - η·((1-μ)/(1-Πμ)·g + μ'/(1-μ'Πμ)·m) / (√v̂ + ε).

    μ = β₁·(1 - 0.96^(tψ) / 2) is the momentum of step t, where ψ is `momentum_decay`. μ' is the
    momentum of the next step, and Πμ the product of all μ so far.
    """
    beta1, beta2 = betas
    ones = state["mu_product"]
    count = xp.astype(step, ones.dtype) + 1

    def momentum(t):
        return beta1 * (1 - 0.5 * xp.exp(t * (momentum_decay * math.log(0.96))))

    now, then = momentum(count), momentum(count + 1)
    product = ones * now
    numbers = [
        (1 - now) / (1 - product),
        then / (1 - product * then),
        xp.sqrt(_one_minus_power(xp, beta2, count)),
    ]
    numbers = [xp.reshape(n, ()) for n in numbers]

    def update(p, g, m, v):
        eta, of_gradient, of_mean, root2 = (in_dtype(xp, n, p.dtype) for n in (lr, *numbers))
        if weight_decay and decoupled_weight_decay:
            p = p * (1 - eta * weight_decay)
        elif weight_decay:
            g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * (g * g)
        return p - eta * ((of_gradient * g + of_mean * m) / (xp.sqrt(v) / root2 + eps)), m, v

    params, m, v = update_each([params, grads, state["exp_avg"], state["exp_avg_sq"]], update)
    return params, {"exp_avg": m, "exp_avg_sq": v, "mu_product": product}


@told_class
@dataclass(frozen=True)
class NAdam(Adam):
    """Adam with Nesterov's momentum, which grows towards β₁.

    Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop 2016.
    """

    lr: float | Schedule = 2e-3
    momentum_decay: float = 4e-3
    decoupled_weight_decay: bool = False

    _rule = nadam

    def init(self, params: Arrays) -> State:
        return {**super().init(params), "mu_product": single(params, 1.0)}
