"""Gradient descent: optimizers, in order of increasing complexity.

An optimizer is two pure functions. `init(params)` gives its state; `update(params, grads,
state, step)` gives the next parameters and state. All are dicts of arrays by parameter name;
`step` is int32 of shape (1,), 0 at the first update. Each update is one composition over the
whole tree, which a backend may replace by a kernel. Formulas, names and defaults are PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

from polynet import tree
from polynet.backend import Array
from polynet.ops import array_namespace
from polynet.tensor import composition

Arrays = dict[str, Array]


@dataclass(frozen=True)
class Optimizer:
    """What all optimizers share: the learning rate, and the checks of their settings."""

    lr: float

    _rule: ClassVar[Callable[..., tuple[Arrays, dict[str, Arrays]]]]
    _slots: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            numbers = value if isinstance(value, tuple | list) else (value,)
            if not all(isinstance(n, Real) and float(n) >= 0 for n in numbers):
                raise ValueError(
                    f"{type(self).__name__}: {name} must be a number, at least 0; got {value!r}"
                )
            if not isinstance(value, bool):  # NumPy's numbers would change the parameters' dtype
                plain = tuple(map(float, numbers))
                several = isinstance(value, tuple | list)
                object.__setattr__(self, name, plain if several else plain[0])

    def slots(self) -> tuple[str, ...]:
        """The names of the running values it keeps for every parameter."""
        return self._slots

    @property
    def consumes(self) -> bool:
        """Whether nothing reads what `update` was given once the rule has run: it may write there."""
        return type(self).update is Optimizer.update

    def init(self, params: Arrays) -> dict[str, Arrays]:
        """The state before the first update: zeros for every slot and parameter."""
        for name, p in params.items():
            if array_namespace(p).isdtype(p.dtype, "complex floating"):
                raise TypeError(
                    f"parameter {name!r} is {p.dtype}; the optimizers are for real parameters: "
                    "keep real and imaginary part as two"
                )
        return {
            slot: tree.map(lambda p: array_namespace(p).zeros_like(p), params)
            for slot in self.slots()
        }

    def update(
        self, params: Arrays, grads: Arrays, state: dict[str, Arrays], step: Array
    ) -> tuple[Arrays, dict[str, Arrays]]:
        """The parameters and the state after one step downhill."""
        if set(grads) != set(params):
            odd = sorted(set(grads) ^ set(params))
            raise KeyError(f"parameters and gradients have different names: {', '.join(odd)}")
        return type(self)._rule(params, grads, state, step, **vars(self))


def _columns(
    names: Any, columns: list[Arrays], update: Callable[..., tuple[Array, ...]]
) -> list[Arrays]:
    """`update` applied name by name; one dict for each thing it returns."""
    rows = {name: update(*(column[name] for column in columns)) for name in names}
    width = len(next(iter(rows.values()))) if rows else 1
    return [{name: row[i] for name, row in rows.items()} for i in range(width)]


@composition
def sgd(xp, params, grads, state, step, /, *, lr, momentum, nesterov, weight_decay):
    """g ← ∇ + λp;  b ← μb + g;  p ← p - η·(g + μb if Nesterov, else b)."""

    def plain(p, g):
        return (p - lr * (g + weight_decay * p if weight_decay else g),)

    def heavy(p, g, b):
        g = g + weight_decay * p if weight_decay else g
        b = momentum * b + g
        return p - lr * (g + momentum * b if nesterov else b), b

    if not momentum:
        return _columns(params, [params, grads], plain)[0], {}
    params, buffer = _columns(params, [params, grads, state["momentum_buffer"]], heavy)
    return params, {"momentum_buffer": buffer}


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum, Nesterov's momentum and weight decay.

    Sutskever et al., "On the importance of initialization and momentum in deep learning",
    ICML 2013.
    """

    lr: float = 1e-3
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    _rule = sgd

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0, such as momentum=0.9")

    def slots(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self.momentum else ()


@composition
def rmsprop(xp, params, grads, state, step, /, *, lr, alpha, eps, weight_decay, momentum):
    """v ← αv + (1-α)g²;  d = g / (√v + ε);  b ← μb + d;  p ← p - ηb."""

    def update(p, g, v, b=None):
        g = g + weight_decay * p if weight_decay else g
        v = alpha * v + (1 - alpha) * (g * g)
        d = g / (xp.sqrt(v) + eps)
        if b is None:
            return p - lr * d, v
        b = momentum * b + d
        return p - lr * b, v, b

    names = ("square_avg", "momentum_buffer") if momentum else ("square_avg",)
    params, *slots = _columns(params, [params, grads, *(state[n] for n in names)], update)
    return params, dict(zip(names, slots, strict=True))


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """Steps divided by a running root mean square of the gradient.

    Tieleman and Hinton, "Lecture 6.5: RMSProp", Neural Networks for Machine Learning (2012).
    """

    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0

    _rule = rmsprop

    def slots(self) -> tuple[str, ...]:
        return ("square_avg", "momentum_buffer") if self.momentum else ("square_avg",)


@composition
def adam(xp, params, grads, state, step, /, *, lr, betas, eps, weight_decay, decoupled=False):
    """m ← β₁m + (1-β₁)g;  v ← β₂v + (1-β₂)g²;  p ← p - η·m̂ / (√v̂ + ε).

    m̂ = m / (1-β₁ᵗ) and v̂ = v / (1-β₂ᵗ) undo the bias of starting at zero. With r = √(1-β₂ᵗ), the
    fraction is (r / (1-β₁ᵗ)) · m / (√v + rε), which corrects numbers instead of arrays (section 2
    of the paper). 1-βᵗ is taken as -expm1(t·log β), which float32 keeps exact. Weight decay adds
    λp to g, or, decoupled, shrinks p by ηλ.
    """
    beta1, beta2 = betas
    corrections: dict[Any, tuple[Array, Array]] = {}

    def correction(dtype):
        if dtype not in corrections:
            t = xp.reshape(xp.astype(step, dtype), ()) + 1
            bias1 = -xp.expm1(t * math.log(beta1)) if beta1 else t * 0 + 1
            root2 = xp.sqrt(-xp.expm1(t * math.log(beta2)) if beta2 else t * 0 + 1)
            corrections[dtype] = lr * root2 / bias1, eps * root2
        return corrections[dtype]

    def update(p, g, m, v):
        rate, floor = correction(p.dtype)
        if weight_decay and decoupled:
            p = p * (1 - lr * weight_decay)
        elif weight_decay:
            g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * (g * g)
        return p - rate * (m / (xp.sqrt(v) + floor)), m, v

    params, m, v = _columns(params, [params, grads, state["exp_avg"], state["exp_avg_sq"]], update)
    return params, {"exp_avg": m, "exp_avg_sq": v}


@dataclass(frozen=True)
class Adam(Optimizer):
    """Steps of running mean over running root mean square, both corrected for their start.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    _rule = adam
    _slots = ("exp_avg", "exp_avg_sq")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise ValueError(
                f"{type(self).__name__}: betas are two numbers, at least 0 and below 1; "
                f"got {self.betas!r}"
            )


@composition
def adamw(xp, params, grads, state, step, /, **settings):
    """Adam, whose weight decay shrinks the parameters instead of adding to the gradient."""
    return adam(params, grads, state, step, decoupled=True, **settings)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    weight_decay: float = 1e-2

    _rule = adamw
